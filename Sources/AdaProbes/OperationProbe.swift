import AdaKernels
import AdaLLaVA
import Foundation

/// One operation on made-up values, to be timed by itself: computed as the engine computes it, shared out among the pool's threads and with
/// activations converted on the way.
package struct OperationProbe {
    /// The arithmetic that bounds an operation.
    package enum Arithmetic: String, Sendable, CaseIterable {
        case int8, int16, bf16, f32
    }

    /// Operands that ``run()`` takes in turn, each in memory of its own. With enough of them none is still in a cache when its turn
    /// comes, as in a decode, where other layers' weights are read in between.
    package let copies: Int
    /// Multiplications and additions of one turn.
    package let operations: Double
    /// Bytes that one turn reads of weights, keys and values, or reads and writes of activations.
    package let bytes: Double
    package let arithmetic: Arithmetic
    fileprivate let body: (Int) -> Void

    /// Computes every copy once.
    package func run() {
        for copy in 0 ..< copies { body(copy) }
    }
}

/// Makes ``OperationProbe``s for one number of threads. One of its probes runs at a time.
package final class OperationProbes {
    private let workspace: Workspace
    private let packer: WeightPacker
    private let streamedBytes: Int
    private var random = SplitMix64(seed: 1)

    /// - Parameters:
    ///   - threads: `nil` takes one for each processor.
    ///   - streamedBytes: how much is read, in operations that wait for memory, before the same is read again.
    /// - Throws: ``ComputeError``
    package init(threads: Int?, streamedBytes: Int) throws {
        workspace = try Workspace(threads: threads)
        packer = WeightPacker(kernels: workspace.kernels, pool: workspace.pool)
        self.streamedBytes = streamedBytes
    }

    package var threads: Int { workspace.pool.threads }
    /// The kernels in use: `avx512`, ….
    package var kernels: String { workspace.kernels.name }

    /// Whether weights of this type are packed for the kernels; others are dequantized on the way, which is correct and slow.
    package static func packs(_ type: ElementType) -> Bool {
        type.kernelType.map { ak_panel_bytes($0, AK_BLOCK) > 0 } ?? false
    }

    /// A run of the pool with empty work items: the overhead of a run.
    package func emptyRun() -> OperationProbe {
        let pool = workspace.pool
        return OperationProbe(copies: 1, operations: 0, bytes: 0, arithmetic: .f32) { _ in pool.run(pool.threads * 4) { _, _ in } }
    }

    // MARK: - Matrix products

    /// Up to so many rows are those of as many sequences' answers; more are a prompt's.
    package static let mostSingleRows = 32

    /// Products of the same activations with matrices of `rows` outputs each.
    /// - Parameters:
    ///   - tokens: rows of activations; 1 measures decode, which reads weights from memory.
    ///   - isGated: `silu(x · gateᵀ) * (x · upᵀ)` of two matrices of equal size.
    /// - Throws: ``CheckpointError`` for a type that cannot be multiplied.
    package func product(_ rows: [Int], inputs: Int, type: ElementType, tokens: Int, isGated: Bool = false) throws -> OperationProbe {
        let workspace = workspace
        // As in a step of so many sequences, or of a prompt.
        let role: RowRole = tokens <= OperationProbes.mostSingleRows ? .single : .chunk
        let weights = try rows.map { rows in
            let tensor = try randomMatrix(rows, inputs, type)
            let first = try WeightMatrix(tensor, rows: rows, inputs: inputs, packer: packer)
            return (tensor, first)
        }
        let bytes = weights.reduce(0) { $0 + $1.1.streamedBytes }
        let copies = role == .single ? max(1, (streamedBytes + bytes - 1) / max(bytes, 1)) : 1
        let linears = try (0 ..< copies).map { copy in
            try weights.map { tensor, first in
                let weight = copy == 0 ? first : try WeightMatrix(tensor, rows: first.rows, inputs: inputs, packer: packer)
                return Linear(weight: weight, bias: nil)
            }
        }
        let x = randomTensor(tokens, inputs)
        let outputs = rows.map { Tensor(rows: tokens, columns: $0) }
        let arithmetic: OperationProbe.Arithmetic
        switch weights.first.map({ workspace.kernels.activationType($0.1, role) }) {
        case AK_Q8_0, AK_I8: arithmetic = .int8
        case AK_I16: arithmetic = .int16
        case AK_BF16: arithmetic = .bf16
        default: arithmetic = .f32
        }
        return OperationProbe(
            copies: copies, operations: 2 * Double(tokens) * Double(inputs) * Double(rows.reduce(0, +)), bytes: Double(bytes),
            arithmetic: arithmetic
        ) { copy in
            let products = zip(linears[copy], outputs).map { Product(linear: $0, output: $1) }
            guard let first = linears[copy].first?.weight else { return }
            let activations = workspace.convert(x, for: first, RowsByRole(x.rows, role), workspace.inputs)
            ProductRun(products, combining: isGated && products.count == 2 ? .gated(.silu) : .none, workspace)(activations)
        }
    }

    private func randomMatrix(_ rows: Int, _ inputs: Int, _ type: ElementType) throws -> StoredTensor {
        guard let rowBytes = type.bytes(for: inputs), RandomWeights.types.contains(type) else {
            throw CheckpointError.elementType(
                tensor: "weights", expected: RandomWeights.types.map(\.rawValue).joined(separator: ", ") + ", with blocks that divide \(inputs) inputs",
                found: type.rawValue, file: "made-up weights")
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(rows * rowBytes)
        RandomWeights(type, deviation: 1 / Float(inputs).squareRoot(), &random).read(rows * rowBytes, &random) { bytes.append(contentsOf: $0) }
        let file = MappedFile(copying: bytes, path: "made-up weights")
        return StoredTensor(name: "weights", type: type, shape: [rows, inputs], bytes: file.bytes, file: file)
    }

    private func randomTensor(_ rows: Int, _ columns: Int) -> Tensor {
        let tensor = Tensor(rows: rows, columns: columns)
        for row in 0 ..< rows { tensor.set(row: row, to: (0 ..< columns).map { _ in Float(random.unit() * 2 - 1) }) }
        return tensor
    }

    // MARK: - Attention

    /// Attention of all heads of a layer.
    /// - Parameters:
    ///   - positions: keys, the queries' own included.
    ///   - queries: the last positions; 1 measures decode.
    ///   - isCausal: whether a query sees only the keys up to its own.
    ///   - type: of keys and values, `f16` or `f32`.
    ///   - rounds: whether many queries are multiplied in BF16 where the processor has such products, as those of BF16 weights are.
    package func attention(
        heads: Int, keyValueHeads: Int, headDim: Int, positions: Int, queries: Int, isCausal: Bool = true, type: ElementType = .f16, rounds: Bool = false
    ) -> OperationProbe {
        let layout = KeyValueLayout(headDim: headDim, type: type == .f32 ? AK_F32 : AK_F16)
        let kernels = workspace.kernels.table
        let (keys, values) = (randomTensor(positions, headDim), randomTensor(positions, headDim))
        func filled() -> LayerPages {
            let pages = LayerPages(heads: Array(0 ..< keyValueHeads), layout: layout)
            try? pages.reserve(0 ..< positions, PagePool())
            for head in 0 ..< keyValueHeads {
                guard let place = pages.head(head) else { continue }
                for first in stride(from: 0, to: positions, by: KeyValueLayout.slots) {
                    guard let address = place.pages[first / KeyValueLayout.slots].map({ UnsafeMutableRawPointer(mutating: $0) }) else { continue }
                    kernels.store_kv(
                        address + place.keys, address + place.values, place.type, keys.data + first * keys.stride, keys.stride,
                        values.data + first * values.stride, values.stride, Int32(headDim), 0, Int32(min(KeyValueLayout.slots, positions - first)))
                }
            }
            return pages
        }
        let first = filled()
        let bytes = first.byteCount
        let copies = queries == 1 ? max(1, (streamedBytes + bytes - 1) / max(bytes, 1)) : 1
        let caches = [first] + (1 ..< max(copies, 1)).map { _ in filled() }
        let query = randomTensor(queries, heads * headDim)
        let out = Tensor(rows: queries, columns: heads * headDim)
        let start = positions - queries
        let seen = isCausal ? (0 ..< queries).reduce(0.0) { $0 + Double(start + $1 + 1) } : Double(queries) * Double(positions)
        let role: RowRole = queries == 1 ? .single : .chunk
        let shape = AttentionShape(
            headDim: headDim, queriesPerKey: max(1, heads / max(keyValueHeads, 1)), isCausal: isCausal,
            rounds: rounds && queries > 1 && workspace.kernels.canRoundAttention(headDim: headDim))
        let workspace = workspace
        return OperationProbe(
            copies: caches.count, operations: 4 * Double(heads) * Double(headDim) * seen, bytes: Double(bytes), arithmetic: shape.rounds ? .bf16 : .f32
        ) { copy in
            let rows = AttentionRows(
                role: role, row: 0, queries: queries, slot: start, keys: positions, pages: caches[copy], heads: Array(0 ..< heads), dropped: [])
            workspace.attend([rows], query: query, attended: out, shape)
        }
    }

    // MARK: - Elementwise

    /// Elementwise operations on activations.
    package enum Elementwise: String, CaseIterable, Sendable {
        case rmsNorm = "rms_norm"
        case layerNorm = "layer_norm"
        case siluMul = "silu_mul"
        case geluQuick = "gelu_quick"
        case add, rope
        case quantize = "to int8"
        case argmax
    }

    /// Inputs of an elementwise operation; `x` is also the output of one in place.
    typealias ElementwiseOperands = (x: Tensor, y: Tensor, weight: Tensor, bias: Tensor)

    /// Operands that an operation leaves as they are, but for `add`'s sums: one that is timed runs in place again and again, and values that shrank each
    /// time would soon be subnormal, which processors compute a hundred times more slowly.
    func elementwiseOperands(_ operation: Elementwise, tokens: Int, columns: Int) -> ElementwiseOperands {
        let (x, y) = (randomTensor(tokens, columns), randomTensor(tokens, columns))
        let (weight, bias) = (randomTensor(1, columns), randomTensor(1, columns))
        let count = tokens * x.stride
        switch operation {
        case .siluMul, .geluQuick: for index in 0 ..< count { (x.data[index], y.data[index]) = (x.data[index] + 20, 1) }   // whose sigmoid is 1
        case .rope:
            for index in 0 ..< columns {
                let angle = weight.data[index] * .pi
                (weight.data[index], bias.data[index]) = (cos(angle), sin(angle))
            }
        default: break
        }
        return (x, y, weight, bias)
    }

    /// - Parameter columns: values of a row.
    package func elementwise(_ operation: Elementwise, tokens: Int, columns: Int, headDim: Int) -> OperationProbe {
        elementwise(operation, elementwiseOperands(operation, tokens: tokens, columns: columns), headDim: headDim)
    }

    func elementwise(_ operation: Elementwise, _ operands: ElementwiseOperands, headDim: Int) -> OperationProbe {
        let (x, y, weight, bias) = operands
        let (tokens, columns) = (x.rows, x.columns)
        let (workspace, kernels) = (workspace, workspace.kernels.table)
        let heads = max(1, columns / max(headDim, 1))
        // Bytes read and written for each value.
        let perValue: Double
        switch operation {
        case .rmsNorm, .layerNorm, .geluQuick, .rope: perValue = 8
        case .siluMul, .add: perValue = 12
        case .quantize: perValue = 5
        case .argmax: perValue = 4
        }
        return OperationProbe(copies: 1, operations: 0, bytes: perValue * Double(tokens) * Double(columns), arithmetic: .f32) { _ in
            if operation == .quantize {
                _ = workspace.convert(x, 0 ..< x.rows, to: AK_Q8_0, workspace.inputs.chunk)
                return
            }
            workspace.forRows(tokens) { rows, _ in
                let (first, count) = (rows.lowerBound, Int32(rows.count))
                let (rowX, rowY) = (x.data + first * x.stride, y.data + first * y.stride)
                let values = rows.count * x.stride
                switch operation {
                case .rmsNorm: kernels.rms_norm(rowY, y.stride, rowX, x.stride, weight.data, 1e-5, count, Int32(columns))
                case .layerNorm:
                    kernels.layer_norm(rowY, y.stride, rowX, x.stride, weight.data, bias.data, 1e-5, count, Int32(columns))
                case .siluMul: kernels.silu_mul(rowX, rowY, values)
                case .geluQuick: kernels.gelu_quick(rowX, values)
                case .add: kernels.add(rowX, rowY, values)
                case .rope:
                    for row in rows { kernels.rope(x.data + row * x.stride, weight.data, bias.data, Int32(heads), Int32(headDim), 0) }
                case .argmax: for row in rows { _ = kernels.argmax(x.data + row * x.stride, Int32(columns)) }
                case .quantize: break
                }
            }
        }
    }
}
