import AdaLLaVA
import Foundation
import HTTPTypes
import Hummingbird

/// JSON in bodies of requests and answers.
enum JSONBody {
    /// A value as JSON, names in snake case.
    static func data(_ value: some Encodable) throws -> Data { try JSONText.data(value, isSnakeCase: true) }

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
