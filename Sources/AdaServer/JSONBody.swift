import AdaLLaVA
import Foundation
import HTTPTypes
import Hummingbird

/// JSON in bodies of requests and answers.
enum JSONBody {
    /// A value as JSON, names in snake case.
    static func data(_ value: some Encodable) throws -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
        return try encoder.encode(value)
    }

    static func response(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
        Response(status: status, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: ByteBuffer(bytes: try data(value))))
    }

    /// The members of the object that a body is.
    /// - Throws: ``APIError`` for anything else.
    static func fields(_ body: ByteBuffer) throws -> RequestFields {
        let value: JSONValue
        do {
            value = try body.withUnsafeReadableBytes { try JSONReader.parse($0, file: "body") }
        } catch CheckpointError.malformed(_, let reason) {
            throw APIError(.badRequest, "the body is no JSON: \(reason)", code: "invalid_json")
        }
        guard case .object(let members) = value else {
            throw APIError(.badRequest, "expected the body to be a JSON object, found \(value.summary)", code: "invalid_json")
        }
        return RequestFields(members)
    }
}

/// A value that is written as `null` where there is none, instead of being left out.
struct Nullable<Value: Encodable>: Encodable {
    let value: Value?

    init(_ value: Value?) { self.value = value }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let value { try container.encode(value) } else { try container.encodeNil() }
    }
}

extension Nullable: Sendable where Value: Sendable {}

extension JSONValue: Encodable {
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}
