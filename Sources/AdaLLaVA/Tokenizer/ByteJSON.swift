/// JSON with strings as bytes.
///
/// Foundation's parser hands out `String` keys, and Swift holds composed and decomposed accents equal, so two different vocabulary
/// entries could become one. Depth is limited, because the parser calls itself.
indirect enum ByteJSON: Sendable {
    case null
    case bool(Bool)
    case number(Double)
    case string([UInt8])
    case array([ByteJSON])
    /// In file order; keys can repeat.
    case object([(key: [UInt8], value: ByteJSON)])

    struct Malformed: Error {
        let reason: String
    }

    static let deepest = 64

    init(parsing bytes: [UInt8]) throws(Malformed) {
        var parser = ByteJSONParser(bytes)
        self = try parser.parseDocument()
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

private struct ByteJSONParser {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
    }

    mutating func parseDocument() throws(ByteJSON.Malformed) -> ByteJSON {
        let value = try parseValue(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw malformed("something follows the document") }
        return value
    }

    private func malformed(_ reason: String) -> ByteJSON.Malformed {
        ByteJSON.Malformed(reason: "not valid JSON at byte \(position): \(reason)")
    }

    private mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x0A, 0x0D, 0x09].contains(bytes[position]) { position += 1 }
    }

    private mutating func parseValue(depth: Int) throws(ByteJSON.Malformed) -> ByteJSON {
        guard depth < ByteJSON.deepest else { throw malformed("nested deeper than \(ByteJSON.deepest)") }
        skipSpace()
        guard position < bytes.count else { throw malformed("the file ends where a value is expected") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return try parseObject(depth: depth)
        case UInt8(ascii: "["): return try parseArray(depth: depth)
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
        case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
        case UInt8(ascii: "n"): return try parseWord("null", .null)
        default: return try parseNumber()
        }
    }

    private mutating func parseWord(_ word: String, _ value: ByteJSON) throws(ByteJSON.Malformed) -> ByteJSON {
        guard bytes[position...].starts(with: word.utf8) else { throw malformed("expected \(word)") }
        position += word.utf8.count
        return value
    }

    private mutating func parseNumber() throws(ByteJSON.Malformed) -> ByteJSON {
        let start = position
        while position < bytes.count, isNumberByte(bytes[position]) { position += 1 }
        // Ids are plain digits; the short way round spares tens of thousands of strings.
        if position > start, position - start <= 15, bytes[start..<position].allSatisfy({ (0x30...0x39).contains($0) }) {
            return .number(Double(bytes[start..<position].reduce(0) { $0 * 10 + Int($1 - 0x30) }))
        }
        guard let value = Double(String(decoding: bytes[start..<position], as: UTF8.self)) else {
            position = start
            throw malformed("expected a value")
        }
        return .number(value)
    }

    private func isNumberByte(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || [0x2B, 0x2D, 0x2E, 0x45, 0x65].contains(byte)
    }

    private mutating func parseArray(depth: Int) throws(ByteJSON.Malformed) -> ByteJSON {
        position += 1
        var values: [ByteJSON] = []
        skipSpace()
        if consume("]") { return .array(values) }
        while true {
            values.append(try parseValue(depth: depth + 1))
            skipSpace()
            if consume("]") { return .array(values) }
            guard consume(",") else { throw malformed("expected , or ] in an array") }
        }
    }

    private mutating func parseObject(depth: Int) throws(ByteJSON.Malformed) -> ByteJSON {
        position += 1
        var entries: [(key: [UInt8], value: ByteJSON)] = []
        skipSpace()
        if consume("}") { return .object(entries) }
        while true {
            skipSpace()
            guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else { throw malformed("expected a key") }
            let key = try parseString()
            skipSpace()
            guard consume(":") else { throw malformed("expected : after a key") }
            entries.append((key, try parseValue(depth: depth + 1)))
            skipSpace()
            if consume("}") { return .object(entries) }
            guard consume(",") else { throw malformed("expected , or } in an object") }
        }
    }

    private mutating func consume(_ character: Unicode.Scalar) -> Bool {
        guard position < bytes.count, bytes[position] == UInt8(truncatingIfNeeded: character.value) else { return false }
        position += 1
        return true
    }

    private mutating func parseString() throws(ByteJSON.Malformed) -> [UInt8] {
        position += 1
        let start = position
        while position < bytes.count, bytes[position] != UInt8(ascii: "\""), bytes[position] != UInt8(ascii: "\\") { position += 1 }
        var text = Array(bytes[start..<position])
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            if byte == UInt8(ascii: "\"") { return text }
            if byte == UInt8(ascii: "\\") {
                try parseEscape(into: &text)
            } else {
                text.append(byte)
            }
        }
        throw malformed("the file ends inside a string")
    }

    private mutating func parseEscape(into text: inout [UInt8]) throws(ByteJSON.Malformed) {
        guard position < bytes.count else { throw malformed("the file ends inside a string") }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "u"):
            var value = UInt32(try parseHex())
            // A character beyond U+FFFF is written as two escapes.
            if (0xD800..<0xDC00).contains(value), bytes[position...].starts(with: [0x5C, 0x75]) {
                let saved = position
                position += 2
                let low = UInt32(try parseHex())
                if (0xDC00..<0xE000).contains(low) {
                    value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00)
                } else {
                    position = saved
                }
            }
            text.append(contentsOf: Array(String(Unicode.Scalar(value) ?? "\u{FFFD}").utf8))
        default: throw malformed("unknown escape in a string")
        }
    }

    private mutating func parseHex() throws(ByteJSON.Malformed) -> UInt16 {
        guard position + 4 <= bytes.count else { throw malformed("the file ends inside a string") }
        let digits = bytes[position..<position + 4]
        guard digits.allSatisfy({ Unicode.Scalar($0).properties.isASCIIHexDigit }),
            let value = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw malformed("expected four hexadecimal digits") }
        position += 4
        return value
    }
}
