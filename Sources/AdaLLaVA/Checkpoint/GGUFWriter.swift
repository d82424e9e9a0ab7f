import Foundation

/// Writes GGUF files (version 3, little-endian), one tensor at a time, so that no more than a part of one tensor needs to be in
/// memory. The file appears under its name only when it is complete.
package enum GGUFWriter {
    /// Every tensor starts at a multiple of this, as readers assume when `general.alignment` is absent.
    package static let alignment = 32

    /// - Parameters:
    ///   - tensors: the file's tensors, in order. Shapes are row-major, outermost first, and reversed on writing.
    ///   - metadata: keys and values, in order, without `general.alignment`.
    ///   - body: writes one tensor's bytes; called once for each tensor, in order.
    /// - Throws: ``CheckpointError``, and errors of `body`; then no file is left.
    package static func write(
        _ tensors: [TensorDescription], metadata: [(key: String, value: GGUFValue)], to url: URL,
        body: (TensorDescription, TensorSink) throws -> Void
    ) throws {
        try prepare(tensors, metadata: metadata, to: url, body: body).commit()
    }

    /// Writes a file that has its name only after ``AtomicFile/commit()``.
    static func prepare(
        _ tensors: [TensorDescription], metadata: [(key: String, value: GGUFValue)], to url: URL,
        body: (TensorDescription, TensorSink) throws -> Void
    ) throws -> AtomicFile {
        var header = Array("GGUF".utf8)
        header.appendLittleEndian(UInt32(3))
        header.appendLittleEndian(UInt64(tensors.count))
        header.appendLittleEndian(UInt64(metadata.count))
        try append(metadata, to: &header, file: url.path)
        let sizes = try append(tensors, to: &header, file: url.path)

        let file = try AtomicFile(replacing: url)
        try file.write(header)
        for (tensor, size) in zip(tensors, sizes) {
            try file.pad(to: alignment)
            try file.writeTensor(tensor, bytes: size, to: url, body)
        }
        try file.pad(to: alignment)
        return file
    }

    private static func append(_ metadata: [(key: String, value: GGUFValue)], to header: inout [UInt8], file: String) throws {
        var keys: Set<String> = ["general.alignment"]
        for (key, value) in metadata {
            guard !key.isEmpty, key.utf8.count <= GGUFCursor.nameLimit, keys.insert(key).inserted else {
                throw CheckpointError.malformed(file: file, reason: "the metadata key \"\(key.prefix(80))\" cannot be written (again)")
            }
            header.appendGGUF(key.utf8)
            header.appendLittleEndian(value.type.rawValue)
            header.append(value)
        }
    }

    /// - Returns: the bytes each tensor takes.
    private static func append(_ tensors: [TensorDescription], to header: inout [UInt8], file: String) throws -> [Int] {
        var names: Set<String> = []
        var sizes: [Int] = []
        var offset = 0
        for tensor in tensors {
            guard !tensor.name.isEmpty, tensor.name.utf8.count < 64, names.insert(tensor.name).inserted else {
                throw CheckpointError.malformed(
                    file: file, reason: "the tensor name \"\(tensor.name.prefix(80))\" cannot be written: readers take up to 63 bytes, once"
                )
            }
            guard let code = tensor.type.ggmlType else {
                throw CheckpointError.elementType(
                    tensor: tensor.name, expected: "one of \(ElementType.ggmlNames)", found: tensor.type.rawValue, file: file)
            }
            guard tensor.shape.count <= GGUFTensorInfo.dimensionLimit else {
                throw CheckpointError.malformed(
                    file: file,
                    reason: "\(tensor.name) has \(tensor.shape.count) dimensions, expected at most \(GGUFTensorInfo.dimensionLimit)")
            }
            let size = try tensor.byteCount(file: file)
            header.appendGGUF(tensor.name.utf8)
            header.appendLittleEndian(UInt32(tensor.shape.count))
            for dimension in tensor.shape.reversed() { header.appendLittleEndian(UInt64(dimension)) }
            header.appendLittleEndian(code)
            header.appendLittleEndian(UInt64(offset))
            let (end, overflow) = offset.addingReportingOverflow(size)
            guard !overflow, end <= Int.max - alignment else {
                throw CheckpointError.malformed(file: file, reason: "the tensors are too large for one file")
            }
            offset = (end + alignment - 1) / alignment * alignment
            sizes.append(size)
        }
        return sizes
    }
}

extension [UInt8] {
    /// A metadata value without its type.
    fileprivate mutating func append(_ value: GGUFValue) {
        switch value {
        case .uint8(let value): appendLittleEndian(value)
        case .int8(let value): appendLittleEndian(value)
        case .uint16(let value): appendLittleEndian(value)
        case .int16(let value): appendLittleEndian(value)
        case .uint32(let value): appendLittleEndian(value)
        case .int32(let value): appendLittleEndian(value)
        case .uint64(let value): appendLittleEndian(value)
        case .int64(let value): appendLittleEndian(value)
        case .float32(let value): appendLittleEndian(value.bitPattern)
        case .float64(let value): appendLittleEndian(value.bitPattern)
        case .bool(let value): append(value ? 1 : 0)
        case .string(let bytes): appendGGUF(bytes)
        case .array(let array):
            appendLittleEndian(array.elementType.rawValue)
            appendLittleEndian(UInt64(array.count))
            append(contentsOf: array.bytes)
        }
    }
}
