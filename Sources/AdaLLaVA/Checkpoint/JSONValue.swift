import Foundation

/// A JSON value. Whole numbers that `Int` holds are kept apart from all other numbers.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// The value of an object's member; `nil` if this is no object, or the member is absent or `null`.
    package subscript(_ key: String) -> JSONValue? {
        guard case .object(let members) = self, let value = members[key], value != .null else { return nil }
        return value
    }

    /// The value as messages show it: scalars as they are, containers by their kind.
    package var summary: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let value): "\"\(value.prefix(80))\""
        case .array(let elements): "an array of \(elements.count)"
        case .object: "an object"
        }
    }

    /// The largest JSON file that is read: larger ones are not configurations.
    package static let fileSizeLimit = 256 << 20

    /// The JSON value in the file at `url`.
    /// - Throws: ``CheckpointError`` if the file is missing, unreadable, larger than ``fileSizeLimit`` or not valid JSON.
    package static func read(contentsOf url: URL, needed: String = "it was named as input") throws -> JSONValue {
        let file = try MappedFile(contentsOf: url, needed: needed)
        guard file.bytes.count <= fileSizeLimit else {
            throw CheckpointError.malformed(file: file.path, reason: "\(file.bytes.count) bytes of JSON, expected at most \(fileSizeLimit)")
        }
        return try JSONReader.parse(file.bytes, file: file.path)
    }
}

/// Where `bytes` stop being UTF-8 (Unicode 15, table 3-7), or `nil`.
func firstInvalidUTF8(in bytes: UnsafeRawBufferPointer) -> Int? {
    let count = bytes.count
    var index = 0
    while index < count {
        let lead = bytes[index]
        if lead < 0x80 {
            index += 1
            continue
        }
        // The number of bytes that follow, and the range of the first, which excludes overlong forms and surrogates.
        let following: Int
        let second: ClosedRange<UInt8>
        switch lead {
        case 0xC2...0xDF: (following, second) = (1, 0x80...0xBF)
        case 0xE0: (following, second) = (2, 0xA0...0xBF)
        case 0xED: (following, second) = (2, 0x80...0x9F)
        case 0xE1...0xEF: (following, second) = (2, 0x80...0xBF)
        case 0xF0: (following, second) = (3, 0x90...0xBF)
        case 0xF4: (following, second) = (3, 0x80...0x8F)
        case 0xF1...0xF3: (following, second) = (3, 0x80...0xBF)
        default: return index
        }
        guard count - index > following, second.contains(bytes[index + 1]) else { return index }
        if following > 1 {
            for offset in 2...following where bytes[index + offset] & 0xC0 != 0x80 { return index }
        }
        index += following + 1
    }
    return nil
}

extension JSONValue {
    /// - Parameter value: `null` if there is none.
    package init(_ value: Int?) { self = value.map(JSONValue.integer) ?? .null }
    /// - Parameter value: `null` if there is none.
    package init(_ value: Double?) { self = value.map(JSONValue.number) ?? .null }
    package init(_ values: [Int]) { self = .array(values.map(JSONValue.integer)) }
}

extension JSONValue: Encodable {
    /// Numbers that are not finite, which JSON does not have, are written as `null`.
    package func encode(to encoder: any Swift.Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): if value.isFinite { try container.encode(value) } else { try container.encodeNil() }
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(integerLiteral value: Int) { self = .integer(value) }
    package init(floatLiteral value: Double) { self = .number(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral members: (String, JSONValue)...) { self = .object(Dictionary(uniqueKeysWithValues: members)) }
}
