import Foundation

/// The writer of all JSON of this package: sorted keys, slashes as they are.
package enum JSONText {
    /// - Parameters:
    ///   - isPretty: one member a line.
    ///   - isSnakeCase: names of properties become snake case; the keys of dictionaries stay as they are.
    package static func data(_ value: some Encodable, isPretty: Bool = false, isSnakeCase: Bool = false) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = isPretty ? [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes] : [.sortedKeys, .withoutEscapingSlashes]
        if isSnakeCase { encoder.keyEncodingStrategy = .convertToSnakeCase }
        return try encoder.encode(value)
    }
}

/// A member that is written as `null` if it has no value, and that a reader requires; an optional without it is left out.
@propertyWrapper package struct Nullable<Value> {
    package var wrappedValue: Value?

    package init(wrappedValue: Value?) { self.wrappedValue = wrappedValue }
    package init(_ value: Value?) { wrappedValue = value }
}

extension Nullable: Encodable where Value: Encodable {
    package func encode(to encoder: any Swift.Encoder) throws {
        var container = encoder.singleValueContainer()
        if let wrappedValue { try container.encode(wrappedValue) } else { try container.encodeNil() }
    }
}

extension Nullable: Decodable where Value: Decodable {
    package init(from decoder: any Swift.Decoder) throws {
        let container = try decoder.singleValueContainer()
        wrappedValue = container.decodeNil() ? nil : try container.decode(Value.self)
    }
}

extension Nullable: Sendable where Value: Sendable {}
extension Nullable: Equatable where Value: Equatable {}

/// Two values whose members are written as the members of one JSON object. Their names must differ.
package protocol JoinedMembers: Codable {
    associatedtype First: Codable
    associatedtype Second: Codable

    init(joining first: First, _ second: Second)

    var joined: (First, Second) { get }
}

extension JoinedMembers {
    package init(from decoder: any Swift.Decoder) throws { self.init(joining: try First(from: decoder), try Second(from: decoder)) }

    package func encode(to encoder: any Encoder) throws {
        let (first, second) = joined
        try first.encode(to: encoder)
        try second.encode(to: encoder)
    }
}
