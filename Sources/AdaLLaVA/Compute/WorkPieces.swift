import AdaKernels

/// How the panels of a product are shared out: pieces of neighbouring panels, which threads take one after another.
struct Pieces {
    let count: Int
    /// Where each piece begins in the list of panels, and where the last one ends; a plain address, so that workers read it without counting
    /// references. The backend keeps it.
    private let starts: UnsafePointer<Int32>?

    static var none: Pieces { Pieces(count: 0, starts: nil) }

    fileprivate init(_ list: IndexList) { (count, starts) = (list.count - 1, list.address) }
    private init(count: Int, starts: UnsafePointer<Int32>?) { (self.count, self.starts) = (count, starts) }

    func panels(_ piece: Int) -> Range<Int> {
        guard let starts, piece < count else { return 0 ..< 0 }
        return Int(starts[piece]) ..< Int(starts[piece + 1])
    }
}

/// The pieces of products that a backend has met, by what they depend on.
struct WorkPieceTable {
    fileprivate struct Key: Hashable {
        let panels, panelBytes: Int
        let layout, type: UInt32
        let many: Bool
    }
    fileprivate var lists: [Key: IndexList] = [:]
}

extension Backend {
    /// How `count` panels of a matrix are shared out among the threads.
    ///
    /// A few tokens wait for memory, and threads wait for the last piece: its size falls with what is left (guided self-scheduling, Polychronopoulos
    /// and Kuck, 1987). Many tokens meet each panel for long enough that pieces of one size are as good.
    func pieces(_ matrix: ak_matrix, count: Int, tokens: Int) -> Pieces {
        let key = WorkPieceTable.Key(
            panels: count, panelBytes: panelBytes(matrix), layout: matrix.layout.rawValue, type: matrix.type.rawValue, many: tokens > 4)
        if let known = pieceTable.lists[key] { return Pieces(known) }
        let step = panelsPerItem(matrix, count: count, tokens: tokens)
        let bundle = matrix.layout == AK_BUNDLES ? Int(AK_BUNDLE) : 1
        var starts: [Int32] = [0]
        var start = 0
        while start < count {
            var size = step
            if !key.many {
                let share = (count - start) / (2 * pool.threads)
                // Kernels take four panels at a time, or two.
                size = max(min(largest(of: share), max(step, 4)), 2)
                size = (size + bundle - 1) / bundle * bundle
            }
            start = min(count, start + size)
            starts.append(Int32(start))
        }
        let list = IndexList(starts)
        pieceTable.lists[key] = list
        return Pieces(list)
    }

    private func panelBytes(_ matrix: ak_matrix) -> Int { matrix.layout == AK_ROWS ? matrix.stride * Int(AK_PANEL) : matrix.stride }

    /// The largest number of panels up to `share` that kernels take well, 1 or more.
    private func largest(of share: Int) -> Int { share >= 4 ? share / 4 * 4 : share >= 2 ? 2 : 1 }

    /// Panels that one piece of work takes: enough bytes to be worth handing out, few enough to share evenly.
    private func panelsPerItem(_ matrix: ak_matrix, count: Int, tokens: Int) -> Int {
        let panelBytes = max(panelBytes(matrix), 1)
        let worth = max(1, (tokens > 4 ? 1 << 16 : matrix.layout == AK_ROWS ? 1 << 19 : 1 << 17) / panelBytes)
        let even = max(1, count / (pool.threads * 4))
        let most = min(worth, even)
        // Kernels take up to four panels at a time.
        let step = most >= 4 ? most / 4 * 4 : min(4, max(most, count <= 4 ? 1 : 2))
        // 16-bit weights meet many tokens three panels at a time.
        if tokens > 4, matrix.type == AK_F16 || matrix.type == AK_BF16, matrix.layout == AK_PANELS, count >= 3 { return max(3, step / 3 * 3) }
        if matrix.layout == AK_BUNDLES { return max(step, Int(AK_BUNDLE)) / Int(AK_BUNDLE) * Int(AK_BUNDLE) }
        // A little smaller is better if then each thread gets as many as the others.
        func longestShare(_ step: Int) -> Int {
            let items = (count + step - 1) / step
            return (items + pool.threads - 1) / pool.threads * step
        }
        // 8-bit weights meet many tokens two panels at a time.
        let multiple = tokens > 4 && matrix.type == AK_Q8_0 ? min(2, step) : 1
        let sizes = stride(from: step, through: max(step / 2, 1), by: -multiple)
        return sizes.min { longestShare($0) < longestShare($1) } ?? step
    }

    // MARK: - What comes next

    /// Says what weights the run after the next one will read, so that threads ask for them while they wait for each other. For a single token: more
    /// compute for so long that nothing is to be gained.
    func expect(_ readings: [Reading]) { expect(readings.map { expected($0) }) }

    func expect(_ memory: [ak_expected]) { pool.expect(memory) }

    /// What is read of a matrix, as the pieces that workers will take of it: the first panels that lie side by side, for no more is asked for while
    /// threads wait, in pieces of equal size, which the first ones have.
    func expected(_ reading: Reading) -> ak_expected {
        let matrix = reading.weight.matrix
        let bytes = panelBytes(matrix)
        // Of columns that a plan leaves out too much would be asked for in vain.
        if let blocks = reading.blocks, blocks.count * 4 < Int(matrix.blocks) * 3 { return ak_expected() }
        let first = pieces(matrix, count: reading.panels?.count ?? Int(matrix.panels), tokens: 1).panels(0).count
        let (start, run) = (reading.panels?.firstRun).map { ($0.lowerBound, $0.count) } ?? (0, Int(matrix.panels))
        return ak_expected(
            base: matrix.data.map { $0 + start * bytes }, stride: bytes * first, bytes: bytes * first, pieces: Int32(run / max(first, 1)))
    }
}

/// What a product reads of its weights.
struct Reading {
    let weight: WeightMatrix
    /// Panels of outputs; `nil` reads all.
    var panels: IndexList?
    /// Blocks of inputs; `nil` reads all.
    var blocks: IndexList?
}
