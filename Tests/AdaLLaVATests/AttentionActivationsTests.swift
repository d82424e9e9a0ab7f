import AdaKernels
import Testing

@testable import AdaLLaVA

/// Attention whose results are converted by the threads that make them, against the same results converted afterwards.
@Suite struct AttentionActivationsTests {
    private struct Attention {
        let backend: Backend
        let output: Linear
        let query, attended: Tensor
        let cache: LayerCache
        let headDim: Int, heads = 4

        init(kernels: String, type: ElementType, headDim: Int, queries: Int) throws {
            var random = SplitMix64(seed: UInt64(headDim * queries))
            backend = try Backend(threads: 2, kernels: kernels)
            self.headDim = headDim
            let width = heads * headDim
            var bytes: [UInt8] = []
            RandomWeights(type, deviation: 0.1, &random).read(32 * (try #require(type.bytes(for: width))), &random) { bytes.append(contentsOf: $0) }
            let file = MappedFile(copying: bytes, path: "made-up weights")
            let stored = StoredTensor(name: "weights", type: type, shape: [32, width], bytes: file.bytes, file: file)
            output = Linear(weight: try WeightMatrix(stored, rows: 32, inputs: width, backend: backend), bias: nil)
            func tensor() -> Tensor {
                let tensor = Tensor(rows: queries, columns: width)
                for row in 0 ..< queries { tensor.set(row: row, to: (0 ..< width).map { _ in Float(random.unit() * 2 - 1) }) }
                return tensor
            }
            let (key, value) = (tensor(), tensor())
            (query, attended) = (tensor(), Tensor(rows: queries, columns: width))
            cache = LayerCache(heads: Array(0 ..< heads), headDim: headDim, capacity: queries, type: AK_F16)
            for head in 0 ..< heads {
                backend.kernels.store_kv(
                    cache.keys(head), cache.values(head), cache.type, key.data + head * headDim, key.stride, value.data + head * headDim,
                    value.stride, Int32(headDim), 0, Int32(queries))
            }
        }

        private func shares(_ kept: [Int]) -> [HeadShare] {
            kept.map { head in
                HeadShare(
                    query: query.data + head * headDim, attended: attended.data + head * headDim, column: head * headDim, queryStride: query.stride,
                    attendedStride: attended.stride, keys: cache.keys(head), values: cache.values(head), heads: 1)
            }
        }

        /// The output projection of the kept heads.
        func project(_ kept: [Int], converts: Bool) -> [Float] {
            let (results, buffer, scale) = (SpanResults(), ActivationBuffer(), 1 / Float(headDim).squareRoot())
            let columns = kept.map { $0 * headDim ..< ($0 + 1) * headDim }
            let blocks = Array(Set(columns.flatMap { $0.map { Int32($0 / Int(AK_BLOCK)) } })).sorted()
            let dropped = (0 ..< heads).filter { !kept.contains($0) }.map { $0 * headDim ..< ($0 + 1) * headDim }
            let projected = Tensor(rows: query.rows, columns: 32)
            let product = Product(linear: output, output: projected, blocks: IndexList(blocks))
            // What a plan drops holds what was there before.
            for row in 0 ..< query.rows { attended.set(row: row, to: [Float](repeating: .nan, count: heads * headDim)) }
            if converts {
                let activations = backend.attend(
                    shares(kept), attended, for: output, dropped: dropped, cache.type, headDim: headDim, keys: query.rows, queries: query.rows,
                    scale: scale, results, buffer)
                backend.multiply(activations, [product])
            } else {
                backend.attend(shares(kept), cache.type, headDim: headDim, keys: query.rows, queries: query.rows, scale: scale, results)
                attended.clear(columns: dropped)
                backend.multiply(attended, [product], buffer)
            }
            return projected.values
        }
    }

    // A failure means that a prompt's heads land in each other's columns, or that heads which a plan leaves out reach the hidden states.
    @Test(arguments: Backend.availableKernels, [ElementType.q8_0, .bf16, .f16, .f32])
    func convertedByWorkersAsAfterwards(kernels: String, type: ElementType) throws {
        for headDim in [32, 40, 64] {
            for queries in [1, 2, 25, 70] {
                let attention = try Attention(kernels: kernels, type: type, headDim: headDim, queries: queries)
                for kept in [[0, 1, 2, 3], [1, 2], [0, 3]] {
                    let found = attention.project(kept, converts: true)
                    #expect(found == attention.project(kept, converts: false), "\(headDim) \(queries) \(kept)")
                    #expect(found.allSatisfy(\.isFinite) && found.contains { $0 != 0 })
                }
            }
        }
    }
}
