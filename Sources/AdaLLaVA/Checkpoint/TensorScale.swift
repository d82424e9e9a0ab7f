import AdaKernels

/// The factors of a matrix of 8-bit floats, which checkpoints keep in a tensor beside it: one for the whole matrix, for each row, or for each block of
/// rows and columns. A value is the float times its factor, in float32.
final class TensorScale: Sendable {
    /// The tensor with the factors; `nil` if the checkpoint has factors for other matrices and none for this one.
    private let tensor: StoredTensor?
    /// The tensor's name.
    private let name: String
    private let factors: [Float]
    /// Rows and columns that share a factor; `nil` if the factors do not fit the matrix.
    private let block: (rows: Int, columns: Int)?
    /// Factors of a row of blocks.
    private let stride: Int
    /// Values of a row of the matrix.
    private let columns: Int
    /// Of the matrix of which this one is a part.
    private let firstRow: Int

    /// - Parameters:
    ///   - matrix: the shape of the scaled matrix, `[rows, columns]`.
    ///   - block: rows and columns of a block as the configuration says; 128 of each if it says nothing.
    init(_ tensor: StoredTensor?, named name: String, for matrix: StoredTensor, block: [Int]?) {
        let rows = matrix.shape.count > 1 ? matrix.shape[0] : 1, columns = matrix.shape.dropFirst(matrix.shape.count > 1 ? 1 : 0).reduce(1, *)
        (self.tensor, self.name, self.columns, firstRow) = (tensor, name, columns, 0)
        let side = block ?? [128, 128]
        func blocks(_ count: Int, _ size: Int) -> Int { (count - 1) / size + 1 }
        guard let tensor, tensor.type.kernelType != nil, tensor.count > 0, rows > 0, columns > 0, side.count == 2, side.allSatisfy({ $0 > 0 }),
            let reader = try? RowReader(tensor, columns: tensor.count)
        else {
            factors = []
            self.block = nil
            stride = 0
            return
        }
        factors = [Float](unsafeUninitializedCapacity: tensor.count) { values, filled in
            if let start = values.baseAddress { reader.read(0, into: start) }
            filled = tensor.count
        }
        if tensor.count == 1 {
            self.block = (rows: rows, columns: columns)
            stride = 1
        } else if tensor.shape == [blocks(rows, side[0]), blocks(columns, side[1])] {
            self.block = (rows: side[0], columns: side[1])
            stride = tensor.shape[1]
        } else if tensor.shape == [rows] || tensor.shape == [rows, 1] {
            self.block = (rows: 1, columns: columns)
            stride = 1
        } else {
            self.block = nil
            stride = 0
        }
    }

    private init(_ other: TensorScale, from row: Int) {
        (tensor, name, factors, block, stride) = (other.tensor, other.name, other.factors, other.block, other.stride)
        (columns, firstRow) = (other.columns, other.firstRow + row)
    }

    /// The factors of the part of the matrix that begins with row `row`.
    func rows(from row: Int) -> TensorScale { TensorScale(self, from: row) }

    /// - Parameter columns: values of the rows that are read.
    /// - Throws: ``CheckpointError`` if the factors are missing, or do not fit the matrix.
    func check(_ matrix: StoredTensor, columns: Int) throws {
        guard let tensor else { throw CheckpointError.missingTensor(name: "\(name), the factors of \(matrix.name)", file: matrix.file.path) }
        if tensor.type.kernelType == nil { throw tensor.unread }
        guard block != nil, columns == self.columns else {
            throw CheckpointError.shape(tensor: tensor.name, expected: [matrix.shape.first ?? 1, 1], found: tensor.shape, file: tensor.file.path)
        }
    }

    /// Multiplies a row of the matrix by its factors.
    func apply(to values: UnsafeMutablePointer<Float>, row: Int, columns: Int) {
        guard let block else { return }
        let first = (firstRow + row) / block.rows * stride
        for start in Swift.stride(from: 0, to: columns, by: block.columns) {
            let factor = factors[first + start / block.columns]
            for column in start ..< min(start + block.columns, columns) { values[column] *= factor }
        }
    }
}

/// Tensors of a checkpoint in Hugging Face's layout whose matrices may be 8-bit floats: the factors beside them are joined to them, and are no tensors
/// of the model.
///
/// The names are those of published checkpoints: `weight_scale_inv` with blocks (DeepSeek-V3, Qwen3), `weight_scale` for a matrix, its rows or blocks
/// (compressed-tensors, FBGEMM, ModelOpt). Both are multiplied. Factors of activations and of keys and values are left out: activations are not rounded.
struct ScaledTensors: TensorSource {
    let names: [String]
    var location: String { source.location }

    private let source: any TensorSource
    private let block: [Int]?
    private let hasFactors: Bool

    private static let weightFactors = ["_scale_inv", "_scale"]
    private static let otherFactors = [
        ".input_scale", ".input_scale_ub", ".output_scale", ".activation_scale", ".q_scale", ".k_scale", ".v_scale", ".kv_scale",
    ]

    /// `source` itself if it holds no 8-bit floats.
    /// - Parameter configuration: the checkpoint's `config.json`.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for weights in several tensors, as GPTQ, AWQ, NVFP4 and bitsandbytes store them.
    static func joined(_ source: any TensorSource, configuration: JSONValue) throws -> any TensorSource {
        let packings = [".qweight", ".weight_packed", ".weight_scale_2", ".weight.absmax", ".SCB"]
        if let packed = source.names.first(where: { packings.contains(where: $0.hasSuffix) }) {
            let method: String = if case .string(let name)? = configuration["quantization_config"]?["quant_method"] { name } else { "another program" }
            throw CheckpointError.unsupported(
                what: "\(packed), a weight quantized by \(method.prefix(40))", file: source.location,
                hint: "take the checkpoint with float or FP8 weights, or a GGUF file of the model")
        }
        guard source.names.contains(where: { source.find($0)?.type.isFloat8 == true }) else { return source }
        return ScaledTensors(source, configuration: configuration)
    }

    private init(_ source: any TensorSource, configuration: JSONValue) {
        self.source = source
        block = ScaledTensors.blockSize(configuration["quantization_config"] ?? configuration["compression_config"] ?? .null)
        let all = Set(source.names)
        let factors = all.filter { name in
            ScaledTensors.weightFactors.contains { name.hasSuffix($0) && all.contains(String(name.dropLast($0.count))) }
        }
        hasFactors = !factors.isEmpty
        names = source.names.filter { name in !factors.contains(name) && !ScaledTensors.otherFactors.contains(where: name.hasSuffix) }
    }

    func find(_ name: String) -> StoredTensor? {
        guard var tensor = source.find(name), tensor.type.isFloat8, hasFactors else { return source.find(name) }
        let candidates = ScaledTensors.weightFactors.map { name + $0 }
        let found = candidates.first { source.find($0) != nil }
        tensor.scale = TensorScale(found.flatMap(source.find), named: found ?? candidates[0], for: tensor, block: block)
        return tensor
    }

    /// Rows and columns of a block: `weight_block_size`, or compressed-tensors' `block_structure` of the first group that has one.
    private static func blockSize(_ quantization: JSONValue) -> [Int]? {
        func sizes(_ value: JSONValue?) -> [Int]? {
            guard case .array(let sides)? = value else { return nil }
            let numbers = sides.compactMap { side -> Int? in if case .integer(let number) = side { number } else { nil } }
            return numbers.count == 2 ? numbers : nil
        }
        if let block = sizes(quantization["weight_block_size"]) { return block }
        guard case .object(let groups)? = quantization["config_groups"] else { return nil }
        return groups.sorted { $0.key < $1.key }.lazy.compactMap { sizes($0.value["weights"]?["block_structure"]) }.first
    }
}
