/// Where the output projection of attention or an MLP writes, and how that reaches the hidden states: added as it is, or normed first, as between the
/// two norms of a Gemma block.
struct NormedSum {
    /// The hidden states, or memory for a result that is normed and added afterwards.
    let output: Tensor
    /// Whether the projection adds to ``output`` instead of overwriting it.
    var accumulates: Bool { norm == nil }
    private let x: Tensor
    private let norm: Norm?
    private let rows: [Range<Int>]

    /// - Parameters:
    ///   - x: hidden states, `[rows, hidden]`.
    ///   - norm: of the added result.
    ///   - rows: those that the projection computes, ascending.
    init(_ x: Tensor, norm: Norm?, _ rows: [Range<Int>], _ workspace: Workspace) {
        (self.x, self.norm) = (x, norm)
        output = norm == nil ? x : workspace.tensor(.projected, rows: x.rows, columns: x.columns)
        // Neighbours together, so that threads share out more rows at once.
        self.rows = rows.filter { !$0.isEmpty }.reduce(into: []) { joined, range in
            if let last = joined.last, last.upperBound == range.lowerBound {
                joined[joined.count - 1] = last.lowerBound ..< range.upperBound
            } else {
                joined.append(range)
            }
        }
    }

    /// Adds the projected result, if the product has not.
    func add(_ workspace: Workspace) { norm?.add(output, to: x, rows, workspace) }
}
