import Foundation

/// Reads the reference's pictures and tensors for the image tests.
enum ImageFixtures {
    static let folder: URL = {
        var folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        while folder.path != "/", !FileManager.default.fileExists(atPath: folder.appendingPathComponent("Fixtures").path) {
            folder.deleteLastPathComponent()
        }
        return folder.appendingPathComponent("Fixtures")
    }()

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    static func json<Value: Decodable>(_ type: Value.Type, _ path: String) throws -> Value {
        try JSONDecoder().decode(type, from: Data(contentsOf: folder.appendingPathComponent(path)))
    }

    /// One tensor of a safetensors file, as float32.
    static func tensor(_ name: String, in path: String) throws -> (shape: [Int], values: [Float]) {
        struct Entry: Decodable {
            let dtype: String
            let shape: [Int]
            let data_offsets: [Int]
        }
        let data = try Data(contentsOf: folder.appendingPathComponent(path))
        let headerCount = (0..<8).reduce(0) { $0 | Int(data[$1]) << ($1 * 8) }
        guard var header = try JSONSerialization.jsonObject(with: data[8..<8 + headerCount]) as? [String: Any] else {
            throw Failure(description: "\(path): no header")
        }
        header["__metadata__"] = nil
        let entries = try JSONDecoder().decode([String: Entry].self, from: JSONSerialization.data(withJSONObject: header))
        guard let entry = entries[name] else { throw Failure(description: "\(path): no tensor \(name)") }
        let bytes = [UInt8](data[8 + headerCount + entry.data_offsets[0]..<8 + headerCount + entry.data_offsets[1]])
        let values: [Float] =
            switch entry.dtype {
            case "F32":
                stride(from: 0, to: bytes.count, by: 4).map { start in
                    Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(bytes[start + $1]) << UInt32($1 * 8) })
                }
            case "F16":
                stride(from: 0, to: bytes.count, by: 2).map { float(half: UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8) }
            default: throw Failure(description: "\(path): \(name) is \(entry.dtype)")
            }
        return (entry.shape, values)
    }

    private static func float(half: UInt16) -> Float {
        let exponent = Int(half >> 10 & 31)
        let fraction = Float(half & 1023)
        let magnitude =
            exponent == 0
            ? fraction * Float(sign: .plus, exponent: -24, significand: 1)
            : (1024 + fraction) * Float(sign: .plus, exponent: exponent - 25, significand: 1)
        return half >> 15 == 1 ? -magnitude : magnitude
    }
}
