/// Which switches are on: `[layers][2][heads]`, attention heads in the first row of a pair, MLP neuron groups in the second.
///
/// Variant L turns a layer's row on or off as a whole; variant H picks heads and groups. One plan a request, made during prefill
/// (AdaLLaVA, section 3).
public struct ExecutionPlan: Sendable, Equatable {
    /// The switches of one layer.
    public struct Row: Sendable, Equatable {
        /// Attention heads that run, ascending.
        public let heads: [Int]
        /// MLP neuron groups that run, ascending.
        public let groups: [Int]

        /// Both lists ascending, each index once.
        public init(heads: [Int], groups: [Int]) { (self.heads, self.groups) = (heads, groups) }

        /// Nothing of the layer runs: no compute, no keys and values.
        public var isSkipped: Bool { heads.isEmpty && groups.isEmpty }
    }

    /// Attention heads of a layer, and as many neuron groups.
    public let headCount: Int
    /// One row a layer.
    public let rows: [Row]

    /// A plan with given rows, one a layer.
    public init(headCount: Int, rows: [Row]) { (self.headCount, self.rows) = (headCount, rows) }

    /// Everything runs.
    public static func full(layers: Int, heads: Int) -> ExecutionPlan {
        let row = Row(heads: Array(0 ..< heads), groups: Array(0 ..< heads))
        return ExecutionPlan(headCount: heads, rows: Array(repeating: row, count: layers))
    }

    /// The row of `layer`, or `nil` when all of it runs, so that nothing needs to be picked.
    func selection(_ layer: Int) -> Row? {
        let row = rows[layer]
        return row.heads.count == headCount && row.groups.count == headCount ? nil : row
    }

    /// 1 for a switch that is on, `layers * 2 * heads` values.
    public var mask: [Float] {
        rows.flatMap { row -> [Float] in
            var mask = [Float](repeating: 0, count: 2 * headCount)
            for head in row.heads where head < headCount { mask[head] = 1 }
            for group in row.groups where group < headCount { mask[headCount + group] = 1 }
            return mask
        }
    }

    /// Attention heads that run, by layer.
    public var headsPerLayer: [Int] { rows.map(\.heads.count) }
    /// MLP neuron groups that run, by layer.
    public var groupsPerLayer: [Int] { rows.map(\.groups.count) }

    /// The neurons of MLP group `group`: `intermediate / groups` each, the first `intermediate % groups` groups one more.
    public static func neurons(group: Int, of groups: Int, intermediateSize: Int) -> Range<Int> {
        let (size, extra) = (intermediateSize / groups, intermediateSize % groups)
        let first = group * size + min(group, extra)
        return first ..< first + size + (group < extra ? 1 : 0)
    }
}
