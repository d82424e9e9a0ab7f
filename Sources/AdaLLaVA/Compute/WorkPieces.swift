import AdaKernels

/// How the panels of a product are shared out: pieces of neighbouring panels. Plain addresses, so that workers read them without counting references;
/// the backend keeps what they point to.
struct Pieces {
    let count: Int
    /// Where each piece begins in the list of panels, and where the last one ends.
    private let starts: UnsafePointer<Int32>?

    static var none: Pieces { Pieces(count: 0, starts: nil) }

    fileprivate init(_ list: IndexList) { (count, starts) = (list.count - 1, list.address) }
    private init(count: Int, starts: UnsafePointer<Int32>?) { (self.count, self.starts) = (count, starts) }

    func panels(_ piece: Int) -> Range<Int> {
        guard let starts, piece < count else { return 0 ..< 0 }
        return Int(starts[piece]) ..< Int(starts[piece + 1])
    }
}

/// How the products of one run are shared out: the pieces of each, which follow one another, and where each thread's share of them all ends.
struct RunPieces {
    let products: [Pieces]
    /// `nil`: as many pieces for each thread.
    let ends: UnsafePointer<Int32>?
}

/// The pieces of runs that a backend has met, by what they depend on.
struct WorkPieceTable {
    fileprivate struct Key: Hashable {
        struct Part: Hashable {
            let panels, panelBytes: Int
            let layout, type: UInt32
        }
        let parts: [Part]
        let many: Bool
    }
    fileprivate struct Entry {
        let pieces: RunPieces
        /// What the addresses in `pieces` point to.
        let lists: [IndexList]
    }
    fileprivate var entries: [Key: Entry] = [:]
}

extension Backend {
    /// How the panels of products that read the same activations are shared out among the threads.
    ///
    /// A few tokens wait for memory: each thread gets as many bytes as the others, side by side, in pieces whose size falls with what is left of its
    /// share, so that others can take the last ones (guided self-scheduling, Polychronopoulos and Kuck, 1987). Many tokens meet each panel for long
    /// enough that pieces of one size are as good.
    /// - Parameter counts: panels of each product.
    func pieces(_ matrices: [ak_matrix], counts: [Int], tokens: Int) -> RunPieces {
        let parts = zip(matrices, counts).map {
            WorkPieceTable.Key.Part(panels: $1, panelBytes: panelBytes($0), layout: $0.layout.rawValue, type: $0.type.rawValue)
        }
        let key = WorkPieceTable.Key(parts: parts, many: tokens > 4)
        if let known = pieceTable.entries[key] { return known.pieces }
        var starts: [[Int32]], ends: [Int32]?
        if key.many {
            starts = zip(matrices, counts).map { matrix, count in
                stride(from: 0, to: count, by: panelsPerItem(matrix, count: count, tokens: tokens)).map { Int32($0) } + [Int32(count)]
            }
        } else {
            (starts, ends) = shares(matrices, counts: counts)
        }
        var lists = starts.map { IndexList($0) }
        let products = lists.map { Pieces($0) }
        if let ends { lists.append(IndexList(ends)) }
        let entry = WorkPieceTable.Entry(pieces: RunPieces(products: products, ends: ends == nil ? nil : lists.last?.address), lists: lists)
        pieceTable.entries[key] = entry
        return entry.pieces
    }

    /// Where pieces of one token's products begin, and where each thread's share of them ends.
    private func shares(_ matrices: [ak_matrix], counts: [Int]) -> (starts: [[Int32]], ends: [Int32]) {
        var left = zip(matrices, counts).reduce(0) { $0 + panelBytes($1.0) * $1.1 }
        var starts = counts.map { _ in [Int32(0)] }, ends: [Int32] = []
        var items = 0
        // What is left of a thread's share.
        var thread = 0, share = left / pool.threads
        for (product, matrix) in matrices.enumerated() {
            let bytes = max(panelBytes(matrix), 1)
            let most = max(panelsPerItem(matrix, count: matrices.count > 1 ? Int.max / 2 : counts[product], tokens: 1), 4)
            // A piece costs as much as reading a few kilobytes, whatever it takes.
            let least = max(1, (1 << 14) / bytes)
            // Other kernels than the quantized ones, which take one panel after the other, take up to four at a time.
            let multiple = matrix.layout == AK_BUNDLES ? Int(AK_BUNDLE) : isQuantized(matrix.type) ? 1 : 4
            var start = 0
            while start < counts[product] {
                var size = max(min(share / bytes / 2, most), least)
                size = min(max(size / multiple, 1) * multiple, counts[product] - start)
                start += size
                share -= size * bytes
                left -= size * bytes
                items += 1
                starts[product].append(Int32(start))
                if share < least * bytes / 2, thread < pool.threads - 1 {
                    ends.append(Int32(items))
                    thread += 1
                    share = left / (pool.threads - thread)
                }
            }
        }
        while ends.count < pool.threads { ends.append(Int32(items)) }
        return (starts, ends)
    }

    private func isQuantized(_ type: ak_type) -> Bool { type == AK_Q8_0 || type == AK_Q4_0 || type == AK_Q4_1 }

    private func panelBytes(_ matrix: ak_matrix) -> Int { matrix.layout == AK_ROWS ? matrix.stride * Int(AK_PANEL) : matrix.stride }

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

    /// What is read of a matrix: the first panels that lie side by side, for no more is asked for while threads wait, each thread's share of them.
    func expected(_ reading: Reading) -> ak_expected {
        let matrix = reading.weight.matrix
        let bytes = panelBytes(matrix)
        // Of columns that a plan leaves out too much would be asked for in vain.
        if let blocks = reading.blocks, blocks.count * 4 < Int(matrix.blocks) * 3 { return ak_expected() }
        let (start, run) = (reading.panels?.firstRun).map { ($0.lowerBound, $0.count) } ?? (0, Int(matrix.panels))
        return ak_expected(base: matrix.data.map { $0 + start * bytes }, stride: bytes, bytes: bytes, pieces: Int32(run))
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
