/// JSON with strings as bytes, read by ``JSONReader``.
///
/// Swift takes composed and decomposed accents for equal, so with `String` keys two different entries of a vocabulary could become one.
indirect enum ByteJSON: Sendable {
    case null
    case bool(Bool)
    case number(Double)
    case string([UInt8])
    case array([ByteJSON])
    /// In file order; keys can repeat.
    case object([(key: [UInt8], value: ByteJSON)])

    /// - Throws: ``CheckpointError/malformed(file:reason:)``.
    init(parsing bytes: [UInt8], file: String) throws {
        self = try bytes.withUnsafeBytes { bytes in
            // A byte order mark is not part of the text.
            let mark = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
            var reader = try JSONReader(UnsafeRawBufferPointer(rebasing: bytes[mark...]), file: file)
            let value = try reader.readByteJSON()
            try reader.expectEnd()
            return value
        }
    }

    /// The value of the last entry with this key.
    subscript(key: String) -> ByteJSON? {
        guard case .object(let entries) = self else { return nil }
        let bytes = Array(key.utf8)
        return entries.last { $0.key == bytes }?.value
    }

    var isNull: Bool {
        if case .null = self { true } else { false }
    }

    var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }

    /// A whole number that fits in an `Int`; `nil` for all else.
    var int: Int? {
        if case .number(let value) = self { Int(exactly: value) } else { nil }
    }

    var number: Double? {
        if case .number(let value) = self { value } else { nil }
    }

    var bytes: [UInt8]? {
        if case .string(let value) = self { value } else { nil }
    }

    var text: String? { bytes.map { String(decoding: $0, as: UTF8.self) } }

    var array: [ByteJSON]? {
        if case .array(let values) = self { values } else { nil }
    }

    var object: [(key: [UInt8], value: ByteJSON)]? {
        if case .object(let entries) = self { entries } else { nil }
    }

    /// What kind of value this is, for messages.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .number(let value): Int(exactly: value).map(String.init) ?? "\(value)"
        case .string(let bytes): "\"\(String(decoding: bytes.prefix(60), as: UTF8.self))\""
        case .array(let values): "an array of \(values.count)"
        case .object(let entries): "an object of \(entries.count)"
        }
    }
}

extension JSONReader {
    /// Any value, with its strings as bytes.
    fileprivate mutating func readByteJSON() throws -> ByteJSON {
        switch try peek() {
        case UInt8(ascii: "{"):
            var entries: [(key: [UInt8], value: ByteJSON)] = []
            try readMembers { key, reader in entries.append((key, try reader.readByteJSON())) }
            return .object(entries)
        case UInt8(ascii: "["):
            var values: [ByteJSON] = []
            try readArray { reader in values.append(try reader.readByteJSON()) }
            return .array(values)
        case UInt8(ascii: "\""): return .string(try readStringBytes())
        default:
            switch try readValue() {
            case .bool(let value): return .bool(value)
            case .integer(let value): return .number(Double(value))
            case .number(let value): return .number(value)
            default: return .null
            }
        }
    }
}
