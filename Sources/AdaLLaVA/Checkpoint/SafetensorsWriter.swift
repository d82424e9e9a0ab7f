import Foundation

/// Writes `.safetensors` files, one tensor at a time, so that no more than a part of one tensor needs to be in memory.
///
///     try SafetensorsWriter.write(descriptions, to: url) { tensor, sink in try sink.write(values[tensor.name]) }
///
/// The file appears under its name only when it is complete. The header is padded to 8 bytes and the widest types come first, so
/// every tensor is aligned to its element size.
package enum SafetensorsWriter {
    /// - Parameters:
    ///   - tensors: the file's tensors; names must differ, and safetensors has no quantized types.
    ///   - metadata: the header's `__metadata__`; `format: pt` is required by Hugging Face's loaders.
    ///   - body: writes one tensor's bytes; called once for each tensor, in the file's order (which is not that of `tensors`).
    /// - Throws: ``CheckpointError``, and errors of `body`; then no file is left.
    package static func write(
        _ tensors: [TensorDescription], metadata: [String: String] = ["format": "pt"], to url: URL,
        body: (TensorDescription, TensorSink) throws -> Void
    ) throws {
        let ordered = tensors.sorted { ($1.type.block.bytes, $0.name) < ($0.type.block.bytes, $1.name) }
        var sizes: [Int] = []
        var header = metadata.isEmpty ? "{" : "{\"__metadata__\":\(text(metadata)),"
        var offset = 0
        var names: Set<String> = ["__metadata__"]
        for tensor in ordered {
            guard names.insert(tensor.name).inserted else {
                throw CheckpointError.malformed(file: url.path, reason: "the name \(tensor.name) cannot be written twice")
            }
            guard let type = tensor.type.safetensorsName else {
                throw CheckpointError.elementType(
                    tensor: tensor.name, expected: "a type that safetensors has (quantized types need GGUF)",
                    found: tensor.type.rawValue, file: url.path)
            }
            let size = try tensor.byteCount(file: url.path)
            let (end, overflow) = offset.addingReportingOverflow(size)
            guard !overflow else { throw CheckpointError.malformed(file: url.path, reason: "the tensors are too large for one file") }
            let shape = tensor.shape.map(String.init).joined(separator: ",")
            header += "\(quoted(tensor.name)):{\"dtype\":\"\(type)\",\"shape\":[\(shape)],\"data_offsets\":[\(offset),\(end)]},"
            sizes.append(size)
            offset = end
        }
        if header.hasSuffix(",") { header.removeLast() }
        header += "}"
        header += String(repeating: " ", count: (8 - header.utf8.count % 8) % 8)

        let file = try AtomicFile(replacing: url)
        try file.write(withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) } + Array(header.utf8))
        for (tensor, size) in zip(ordered, sizes) {
            try file.writeTensor(tensor, bytes: size, to: url, body)
        }
        try file.commit()
    }

    /// Writes float32 tensors that are in memory.
    /// - Parameter tensors: name, shape and values in row-major order.
    package static func write(_ tensors: [(name: String, shape: [Int], values: [Float])], to url: URL) throws {
        let values = Dictionary(tensors.map { ($0.name, $0.values) }, uniquingKeysWith: { first, _ in first })
        try write(tensors.map { TensorDescription(name: $0.name, type: .f32, shape: $0.shape) }, to: url) { tensor, sink in
            try sink.write(values[tensor.name] ?? [])
        }
    }

    private static func text(_ metadata: [String: String]) -> String {
        let members = metadata.sorted { $0.key < $1.key }.map { "\(quoted($0.key)):\(quoted($0.value))" }
        return "{\(members.joined(separator: ","))}"
    }
}

/// `text` as a JSON string, in quotes.
func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case _ where scalar.value < 0x20:
            let digits = String(scalar.value, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}
