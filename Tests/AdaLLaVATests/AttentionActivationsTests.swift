import AdaKernels
import Testing

@testable import AdaLLaVA
@testable import AdaProbes

/// Attention whose results are converted by the threads that make them, against the same results converted afterwards.
@Suite struct AttentionActivationsTests {
    private struct Attention {
        let workspace: Workspace
        let output: Linear
        let query, attended: Tensor
        let pages: LayerPages
        let shape: AttentionShape
        let heads = 4

        init(kernels: String, type: ElementType, headDim: Int, queries: Int, queriesPerKey: Int) throws {
            var random = SplitMix64(seed: UInt64(headDim * queries))
            let workspace = try Workspace(threads: 2, kernels: kernels)
            self.workspace = workspace
            let width = heads * headDim, keyHeads = heads / queriesPerKey
            var bytes: [UInt8] = []
            RandomWeights(type, deviation: 0.1, &random).read(32 * (try #require(type.bytes(for: width))), &random) { bytes.append(contentsOf: $0) }
            let file = MappedFile(copying: bytes, path: "made-up weights")
            let stored = StoredTensor(name: "weights", type: type, shape: [32, width], bytes: file.bytes, file: file)
            let packer = WeightPacker(kernels: workspace.kernels, pool: workspace.pool)
            output = Linear(weight: try WeightMatrix(stored, rows: 32, inputs: width, packer: packer), bias: nil)
            shape = AttentionShape(
                headDim: headDim, queriesPerKey: queriesPerKey, rounds: workspace.kernels.roundsAttention(output.weight, headDim: headDim))
            func tensor(_ width: Int) -> Tensor {
                let tensor = Tensor(rows: queries, columns: width)
                for row in 0 ..< queries { tensor.set(row: row, to: (0 ..< width).map { _ in Float(random.unit() * 2 - 1) }) }
                return tensor
            }
            let (key, value) = (tensor(keyHeads * headDim), tensor(keyHeads * headDim))
            (query, attended) = (tensor(width), Tensor(rows: queries, columns: width))
            pages = LayerPages(heads: Array(0 ..< keyHeads), layout: KeyValueLayout(headDim: headDim, type: AK_F16))
            try pages.reserve(0 ..< queries, PagePool())
            for head in 0 ..< keyHeads {
                let place = try #require(pages.head(head))
                let address = UnsafeMutableRawPointer(mutating: try #require(place.pages[0]))
                workspace.kernels.table.store_kv(
                    address + place.keys, address + place.values, place.type, key.data + head * headDim, key.stride, value.data + head * headDim,
                    value.stride, Int32(headDim), 0, Int32(queries))
            }
        }

        /// The output projection of the kept heads.
        func project(_ kept: [Int], _ role: RowRole, converts: Bool) -> [Float] {
            let headDim = shape.headDim
            let columns = kept.map { $0 * headDim ..< ($0 + 1) * headDim }
            let blocks = Array(Set(columns.flatMap { $0.map { Int32($0 / Int(AK_BLOCK)) } })).sorted()
            let dropped = (0 ..< heads).filter { !kept.contains($0) }.map { $0 * headDim ..< ($0 + 1) * headDim }
            let projected = Tensor(rows: query.rows, columns: 32)
            let product = Product(linear: output, output: projected, blocks: IndexList(blocks))
            func rows(_ range: Range<Int>) -> AttentionRows {
                AttentionRows(
                    role: role, row: range.lowerBound, queries: range.count, slot: range.lowerBound, keys: range.upperBound, pages: pages, heads: kept,
                    dropped: dropped)
            }
            // A chunk of all rows, or as many sequences of one row.
            let batch = role == .chunk ? [rows(0 ..< query.rows)] : (0 ..< query.rows).map { rows($0 ..< $0 + 1) }
            // What a plan drops holds what was there before.
            for row in 0 ..< query.rows { attended.set(row: row, to: [Float](repeating: .nan, count: heads * headDim)) }
            if converts {
                let activations = workspace.attend(
                    batch, query: query, attended: attended,
                    for: RowConversion(attended, for: output.weight, RowsByRole(query.rows, role), workspace.kernels), shape)
                workspace.multiply(activations, [product])
            } else {
                workspace.attend(batch, query: query, attended: attended, shape)
                attended.clear(columns: dropped)
                workspace.multiply(attended, role: role, [product])
            }
            return projected.values
        }
    }

    // A failure means that a prompt's heads land in each other's columns, or that heads which a plan leaves out reach the hidden states.
    @Test("converted by workers as afterwards", arguments: kernelSets, [ElementType.q8_0, .bf16, .f16, .f32])
    func convertedByWorkersAsAfterwards(kernels: String, type: ElementType) throws {
        for (headDim, queriesPerKey) in [(32, 1), (40, 1), (64, 1), (40, 2), (64, 4)] {
            for queries in [1, 2, 25, 70] {
                let attention = try Attention(kernels: kernels, type: type, headDim: headDim, queries: queries, queriesPerKey: queriesPerKey)
                for kept in [[0, 1, 2, 3], [1, 2], [0, 3]] {
                    for role in [RowRole.chunk, .single] {
                        let found = attention.project(kept, role, converts: true)
                        #expect(found == attention.project(kept, role, converts: false), "\(headDim) \(queries) \(kept) \(role)")
                        #expect(found.allSatisfy(\.isFinite) && found.contains { $0 != 0 })
                    }
                }
            }
        }
    }
}
