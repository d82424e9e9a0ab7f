import Foundation

@testable import AdaLLaVA

/// Reads the `tokenizer.ggml.*` fields of a GGUF file, for tests of vocabularies alone.
struct VocabularyFile {
    enum Value {
        case number(Double)
        case bool(Bool)
        case bytes([UInt8])
        case list([Value])
    }

    struct Damaged: Error {}

    private let bytes: [UInt8]
    private var position = 0
    private(set) var fields: [String: Value] = [:]

    init(_ url: URL) throws {
        bytes = [UInt8](try Data(contentsOf: url))
        guard bytes.starts(with: Array("GGUF".utf8)) else { throw Damaged() }
        position = 16
        let count = try integer(8)
        for _ in 0..<count {
            let key = String(decoding: try string(), as: UTF8.self)
            fields[key] = try value(try integer(4))
        }
    }

    private mutating func integer(_ size: Int) throws -> UInt64 {
        guard position + size <= bytes.count else { throw Damaged() }
        defer { position += size }
        return (0..<size).reduce(0) { $0 | UInt64(bytes[position + $1]) << UInt64(8 * $1) }
    }

    private mutating func string() throws -> [UInt8] {
        let length = Int(try integer(8))
        guard position + length <= bytes.count else { throw Damaged() }
        defer { position += length }
        return Array(bytes[position..<position + length])
    }

    private mutating func value(_ type: UInt64) throws -> Value {
        switch type {
        case 0: return .number(Double(try integer(1)))
        case 1: return .number(Double(Int8(truncatingIfNeeded: try integer(1))))
        case 2: return .number(Double(try integer(2)))
        case 3: return .number(Double(Int16(truncatingIfNeeded: try integer(2))))
        case 4: return .number(Double(try integer(4)))
        case 5: return .number(Double(Int32(truncatingIfNeeded: try integer(4))))
        case 6: return .number(Double(Float(bitPattern: UInt32(try integer(4)))))
        case 7: return .bool(try integer(1) != 0)
        case 8: return .bytes(try string())
        case 9:
            let element = try integer(4)
            let count = try integer(8)
            var list: [Value] = []
            for _ in 0..<count { list.append(try value(element)) }
            return .list(list)
        case 10, 11: return .number(Double(Int64(truncatingIfNeeded: try integer(8))))
        case 12: return .number(Double(bitPattern: try integer(8)))
        default: throw Damaged()
        }
    }

    func text(_ key: String) -> String? {
        if case .bytes(let bytes)? = fields[key] { String(decoding: bytes, as: UTF8.self) } else { nil }
    }

    var vocabulary: GGUFVocabulary {
        func field(_ name: String) -> Value? { fields["tokenizer.ggml.\(name)"] }
        func id(_ name: String) -> Int? {
            if case .number(let value)? = field(name) { Int(value) } else { nil }
        }
        func flag(_ name: String) -> Bool? {
            if case .bool(let value)? = field(name) { value } else { nil }
        }
        func list(_ name: String) -> [Value] {
            if case .list(let values)? = field(name) { values } else { [] }
        }
        func strings(_ name: String) -> [[UInt8]] { list(name).map { if case .bytes(let bytes) = $0 { bytes } else { [] } } }
        func numbers(_ name: String) -> [Double] { list(name).map { if case .number(let number) = $0 { number } else { 0 } } }
        return GGUFVocabulary(
            model: text("tokenizer.ggml.model") ?? "", pre: text("tokenizer.ggml.pre"), tokens: strings("tokens"),
            scores: numbers("scores").map { Float($0) }, tokenTypes: numbers("token_type").map { Int($0) }, merges: strings("merges"),
            bosToken: id("bos_token_id"), eosToken: id("eos_token_id"), eotToken: id("eot_token_id"),
            unknownToken: id("unknown_token_id"), padToken: id("padding_token_id"), addsBOS: flag("add_bos_token"),
            addsEOS: flag("add_eos_token"), addsSpacePrefix: flag("add_space_prefix"))
    }
}
