import AdaKernels

/// Reads rows of a stored matrix as float32, whatever its element type.
struct RowReader: Sendable {
    private let tensor: StoredTensor
    private let type: ak_type
    private let columns: Int
    private let rowBytes: Int
    /// The rows of the matrix.
    let rows: Int

    /// - Parameter columns: values of a row.
    /// - Throws: ``CheckpointError`` for a type that is not read, rows that are no whole blocks, or factors that do not fit the matrix.
    init(_ tensor: StoredTensor, columns: Int) throws {
        guard let type = tensor.type.kernelType else { throw tensor.unread }
        guard let rowBytes = tensor.type.bytes(for: columns) else {
            throw CheckpointError.elementType(
                tensor: tensor.name, expected: "a type whose blocks divide \(columns) values", found: tensor.typeName, file: tensor.file.path)
        }
        try tensor.scale?.check(tensor, columns: columns)
        (self.tensor, self.type, self.columns, self.rowBytes, rows) = (tensor, type, columns, rowBytes, rowBytes > 0 ? tensor.bytes.count / rowBytes : 0)
    }

    /// Writes row `row` to `out`; nothing for a row that is not there.
    func read(_ row: Int, into out: UnsafeMutablePointer<Float>) {
        guard row >= 0, row < rows, let base = tensor.bytes.baseAddress else { return }
        ak_dequantize(out, type, base + row * rowBytes, 0, Int64(columns))
        tensor.scale?.apply(to: out, row: row, columns: columns)
    }

    /// - Throws: ``CheckpointError/shape(tensor:expected:found:file:)`` for a row that is not there.
    func read(checked row: Int, into out: UnsafeMutablePointer<Float>) throws {
        guard (0 ..< rows).contains(row) else {
            throw CheckpointError.shape(tensor: tensor.name, expected: [row + 1, columns], found: tensor.shape, file: tensor.file.path)
        }
        read(row, into: out)
    }
}

extension StoredTensor {
    /// The values as float32.
    /// - Throws: ``CheckpointError/elementType(tensor:expected:found:file:)`` for quantized and integer tensors.
    package func widened() throws -> [Float] {
        guard [.f32, .f16, .bf16].contains(type) else {
            throw CheckpointError.elementType(
                tensor: name, expected: "float32, float16 or bfloat16 values", found: typeName, file: file.path)
        }
        var values = [Float](repeating: 0, count: count)
        let reader = try RowReader(self, columns: count)
        values.withUnsafeMutableBufferPointer { if let start = $0.baseAddress { reader.read(0, into: start) } }
        return values
    }

    /// That the values of this tensor are needed, and of a type that is not read.
    var unread: CheckpointError {
        let isGGUF = GGUFFile.isGGUF(file.bytes)
        let readable = isGGUF ? ElementType.ggmlNames : ElementType.safetensorsNames
        let advice = isGGUF
            ? "quantize the model again from its original weights, or this file with llama-quantize --allow-requantize"
            : "take a checkpoint with float weights, or a GGUF file of the model"
        return .elementType(tensor: name, expected: "one of \(readable)", found: "\(typeName), whose values are not read; \(advice)", file: file.path)
    }
}
