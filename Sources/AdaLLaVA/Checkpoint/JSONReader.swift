/// Reads JSON (RFC 8259) from untrusted bytes, strictly: the whole input must be valid UTF-8, a key may stand only once in an
/// object, nesting is limited, and no number can trap.
///
/// The reader is a cursor: callers that know what to expect (a safetensors header, a list of shards) walk through the text without
/// building a tree; ``readValue()`` builds one.
///
///     var reader = try JSONReader(bytes, file: path)
///     try reader.readObject { key, reader in … }
///     try reader.expectEnd()
package struct JSONReader {
    /// Maximum nesting of objects and arrays.
    package static let depthLimit = 64

    private let bytes: UnsafeRawBufferPointer
    private let file: String
    private var position = 0
    private var depth = 0

    /// - Parameter bytes: must stay valid while the reader is used.
    /// - Throws: ``CheckpointError/malformed(file:reason:)`` if the bytes are not UTF-8.
    package init(_ bytes: UnsafeRawBufferPointer, file: String) throws {
        (self.bytes, self.file) = (bytes, file)
        if let invalid = firstInvalidUTF8(in: bytes) {
            throw CheckpointError.malformed(file: file, reason: "not UTF-8 text at byte \(invalid)")
        }
    }

    /// The whole input as one value, followed only by white space.
    package static func parse(_ bytes: UnsafeRawBufferPointer, file: String) throws -> JSONValue {
        var reader = try JSONReader(bytes, file: file)
        let value = try reader.readValue()
        try reader.expectEnd()
        return value
    }

    // MARK: Walking

    /// The kind of the next value, by its first byte; the byte is not consumed.
    package mutating func peek() throws -> UInt8 {
        skipWhitespace()
        guard position < bytes.count else { throw malformed("ends where a value should stand") }
        return bytes[position]
    }

    /// Calls `body` for every member of the object that comes next. `body` must consume the member's value.
    package mutating func readObject(_ body: (String, inout JSONReader) throws -> Void) throws {
        var seen = Set<String>()
        try readMembers { key, reader in
            let key = String(decoding: key, as: UTF8.self)
            guard seen.insert(key).inserted else { throw reader.malformed("the key \"\(key)\" stands twice in one object") }
            try body(key, &reader)
        }
    }

    /// Like ``readObject(_:)`` with the bytes of each key; a key may be repeated.
    mutating func readMembers(_ body: ([UInt8], inout JSONReader) throws -> Void) throws {
        try enter("{", "an object")
        if try !take("}") {
            repeat {
                guard try peek() == UInt8(ascii: "\"") else { throw malformed("expected a key in quotes") }
                let key = try readStringBytes()
                guard try take(":") else { throw malformed("expected a colon after the key \"\(String(decoding: key, as: UTF8.self))\"") }
                try body(key, &self)
            } while try take(",")
            guard try take("}") else { throw malformed("expected a comma or the end of the object") }
        }
        depth -= 1
    }

    /// Calls `body` for every element of the array that comes next. `body` must consume the element.
    package mutating func readArray(_ body: (inout JSONReader) throws -> Void) throws {
        try enter("[", "an array")
        if try !take("]") {
            repeat { try body(&self) } while try take(",")
            guard try take("]") else { throw malformed("expected a comma or the end of the array") }
        }
        depth -= 1
    }

    /// The string that comes next.
    package mutating func readString() throws -> String { String(decoding: try readStringBytes(), as: UTF8.self) }

    /// The UTF-8 bytes of the string that comes next.
    mutating func readStringBytes() throws -> [UInt8] {
        guard try peek() == UInt8(ascii: "\"") else { throw malformed("expected a string") }
        position += 1
        let start = position
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: "\""):
                defer { position += 1 }
                return Array(bytes[start..<position])
            case UInt8(ascii: "\\"): return try readEscapedString(from: start)
            case 0..<0x20: throw malformed("a control character stands unescaped in a string")
            default: position += 1
            }
        }
        throw malformed("a string does not end")
    }

    /// The number that comes next, which must be a whole number that `Int` holds.
    package mutating func readInteger() throws -> Int {
        guard case .integer(let value) = try readNumber() else { throw malformed("expected a whole number below 2^63") }
        return value
    }

    /// Any value, consumed without building a tree.
    package mutating func skipValue() throws {
        switch try peek() {
        case UInt8(ascii: "{"): try readObject { _, reader in try reader.skipValue() }
        case UInt8(ascii: "["): try readArray { reader in try reader.skipValue() }
        default: _ = try readValue()
        }
    }

    /// Any value.
    package mutating func readValue() throws -> JSONValue {
        switch try peek() {
        case UInt8(ascii: "{"):
            var members: [String: JSONValue] = [:]
            try readObject { key, reader in members[key] = try reader.readValue() }
            return .object(members)
        case UInt8(ascii: "["):
            var elements: [JSONValue] = []
            try readArray { reader in elements.append(try reader.readValue()) }
            return .array(elements)
        case UInt8(ascii: "\""): return .string(try readString())
        case UInt8(ascii: "t"): return try readWord("true", .bool(true))
        case UInt8(ascii: "f"): return try readWord("false", .bool(false))
        case UInt8(ascii: "n"): return try readWord("null", .null)
        // Python's json writes these, also into fields that nobody needs; whoever reads such a number checks its range.
        case UInt8(ascii: "N"): return try readWord("NaN", .number(.nan))
        case UInt8(ascii: "I"): return try readWord("Infinity", .number(.infinity))
        case UInt8(ascii: "-") where position + 1 < bytes.count && bytes[position + 1] == UInt8(ascii: "I"):
            return try readWord("-Infinity", .number(-.infinity))
        default: return try readNumber()
        }
    }

    /// - Throws: ``CheckpointError/malformed(file:reason:)`` if something other than white space is left.
    package mutating func expectEnd() throws {
        skipWhitespace()
        guard position == bytes.count else { throw malformed("something follows the end of the JSON value") }
    }

    /// An error at the present position.
    package func malformed(_ reason: String) -> CheckpointError {
        .malformed(file: file, reason: "\(reason) (JSON, byte \(position))")
    }

    // MARK: Pieces

    private mutating func skipWhitespace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    private mutating func take(_ character: Unicode.Scalar) throws -> Bool {
        skipWhitespace()
        guard position < bytes.count, bytes[position] == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    private mutating func enter(_ character: Unicode.Scalar, _ what: String) throws {
        guard try take(character) else { throw malformed("expected \(what)") }
        depth += 1
        guard depth <= Self.depthLimit else { throw malformed("nested deeper than \(Self.depthLimit) levels") }
    }

    private mutating func readWord(_ word: StaticString, _ value: JSONValue) throws -> JSONValue {
        for offset in 0..<word.utf8CodeUnitCount {
            guard position + offset < bytes.count, bytes[position + offset] == word.utf8Start[offset] else {
                throw malformed("expected a value")
            }
        }
        position += word.utf8CodeUnitCount
        return value
    }

    private mutating func readEscapedString(from start: Int) throws -> [UInt8] {
        var text = Array(bytes[start..<position])
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return text
            case 0..<0x20: throw malformed("a control character stands unescaped in a string")
            case UInt8(ascii: "\\"):
                guard position < bytes.count else { throw malformed("a string does not end") }
                let escaped = bytes[position]
                position += 1
                switch escaped {
                case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(escaped)
                case UInt8(ascii: "b"): text.append(0x08)
                case UInt8(ascii: "f"): text.append(0x0C)
                case UInt8(ascii: "n"): text.append(0x0A)
                case UInt8(ascii: "r"): text.append(0x0D)
                case UInt8(ascii: "t"): text.append(0x09)
                case UInt8(ascii: "u"): text.append(contentsOf: String(Character(try readUnicodeEscape())).utf8)
                default: throw malformed("unknown escape in a string")
                }
            default: text.append(byte)
            }
        }
        throw malformed("a string does not end")
    }

    /// The scalar after `\u`, joined from two escapes if it is a surrogate pair.
    private mutating func readUnicodeEscape() throws -> Unicode.Scalar {
        let first = try readHexadecimal()
        if let scalar = Unicode.Scalar(first) { return scalar }
        guard first < 0xDC00, position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"), bytes[position + 1] == UInt8(ascii: "u")
        else { throw malformed("half a surrogate pair in a string") }
        position += 2
        let second = try readHexadecimal()
        guard (0xDC00...0xDFFF).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
        else { throw malformed("half a surrogate pair in a string") }
        return scalar
    }

    private mutating func readHexadecimal() throws -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard position < bytes.count, let digit = hexadecimalDigit(bytes[position]) else {
                throw malformed("expected four hexadecimal digits")
            }
            value = value << 4 | digit
            position += 1
        }
        return value
    }

    private func hexadecimalDigit(_ byte: UInt8) -> UInt32? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte - UInt8(ascii: "A") + 10)
        default: nil
        }
    }

    private mutating func readNumber() throws -> JSONValue {
        let start = (try peek(), position).1
        if let value = readDigits() { return .integer(value) }
        if bytes[position] == UInt8(ascii: "-") { position += 1 }
        let integerDigits = skipDigits()
        guard integerDigits > 0 else { throw malformed("expected a value") }
        guard integerDigits == 1 || bytes[position - integerDigits] != UInt8(ascii: "0") else {
            throw malformed("a number starts with a zero")
        }
        var isInteger = true
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            isInteger = false
            position += 1
            guard skipDigits() > 0 else { throw malformed("a number ends after its point") }
        }
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            isInteger = false
            position += 1
            if position < bytes.count, bytes[position] == UInt8(ascii: "+") || bytes[position] == UInt8(ascii: "-") { position += 1 }
            guard skipDigits() > 0 else { throw malformed("a number ends in its exponent") }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else { throw malformed("the number \(text.prefix(40)) is out of range") }
        return .number(value)
    }

    /// Up to 15 plain digits as a number; `nil` for everything else, which is left as it is. Vocabularies have a hundred thousand of these.
    private mutating func readDigits() -> Int? {
        let start = position, count = skipDigits()
        let ends = position == bytes.count || !".eE".utf8.contains(bytes[position])
        guard (1 ... 15).contains(count), ends, count == 1 || bytes[start] != UInt8(ascii: "0") else {
            position = start
            return nil
        }
        return bytes[start ..< position].reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
    }

    private mutating func skipDigits() -> Int {
        let start = position
        while position < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[position]) { position += 1 }
        return position - start
    }
}
