import AdaLLaVA
import Crypto
import Foundation
import HTTPTypes

/// One line of a batch in OpenAI's form: `{"custom_id", "method": "POST", "url": "/v1/chat/completions", "body": {…}}`.
struct BatchLine: Sendable {
    let customID: String
    let route: AnswerRoute
    let body: RequestFields

    /// - Parameter endpoint: the route that all lines have to go to; `nil` for any.
    init(_ text: some Collection<UInt8>, number: Int, endpoint: AnswerRoute? = nil) throws {
        let value: JSONValue
        do {
            value = try Array(text).withUnsafeBytes { try JSONReader.parse($0, file: "line \(number)") }
        } catch CheckpointError.malformed(_, let reason) {
            throw APIError(.badRequest, "line \(number) is no JSON: \(reason)", code: "invalid_json")
        }
        var fields = try RequestFields(value, path: "line \(number)")
        guard let id = try fields.string("custom_id"), !id.isEmpty else { throw fields.wrong("custom_id", expected: "a text", found: nil) }
        customID = id
        try fields.neutral("method") { $0 == .string("POST") }
        let url = try fields.string("url") ?? ""
        guard let route = AnswerRoute(rawValue: url), endpoint == nil || route == endpoint else {
            throw fields.wrong("url", expected: endpoint?.rawValue ?? AnswerRoute.allCases.map(\.rawValue).joined(separator: ", "), found: .string(url))
        }
        self.route = route
        guard let body = try fields.object("body") else { throw fields.wrong("body", expected: "a request", found: nil) }
        self.body = RequestFields(body.members)
        try fields.expectNothingElse()
    }

    /// Key of lines with the same images, and the order among them: lines with the same beginning are adjacent.
    var order: (group: String, place: String) {
        var images: [String] = []
        func walk(_ value: JSONValue) {
            switch value {
            case .array(let elements): elements.forEach(walk)
            case .object(let members):
                for key in ["image_url", "url", "data"] { if case .string(let text)? = members[key] { images.append(text) } }
                for (_, value) in members.sorted(by: { $0.key < $1.key }) { walk(value) }
            default: break
            }
        }
        walk(.object(body.members))
        let text = (try? JSONBody.data(JSONValue.object(body.members))).map { String(decoding: $0, as: UTF8.self) } ?? ""
        let group = images.isEmpty ? "" : SHA256.hash(data: Data(images.joined(separator: "\n").utf8)).map { String($0, radix: 16) }.joined()
        return (group, text)
    }
}

/// Result of a line.
struct BatchResult: Encodable, Sendable {
    struct Answer: Encodable, Sendable {
        let statusCode: Int
        let requestId: String
        let body: AnyBody
    }

    /// A body in the form of its route.
    struct AnyBody: Encodable, Sendable {
        let value: any Encodable & Sendable

        func encode(to encoder: any Encoder) throws { try value.encode(to: encoder) }
    }

    let id: String
    let customId: String
    let response: Nullable<Answer>
    let error: Nullable<String>

    var isError: Bool { response.wrappedValue?.statusCode != 200 }
}

extension ModelServer {
    /// Answers one line of a batch; an error of the line becomes its result.
    /// - Throws: `CancellationError`
    func answer(_ line: BatchLine, client: String, priority: Int) async throws -> BatchResult {
        let id = UUID().uuidString.replacing("-", with: "").lowercased()
        func result(_ status: Int, _ body: any Encodable & Sendable) -> BatchResult {
            BatchResult(
                id: "batch_req_" + id, customId: line.customID, response: Nullable(.init(statusCode: status, requestId: id, body: .init(value: body))),
                error: Nullable(nil))
        }
        do {
            var wanted = try await answerRequest(line.route, line.body, headers: [:])
            if wanted.delivery.streams { throw APIError.parameter("stream", expected: "false in a batch", found: "true") }
            wanted.keepsPromptEarly = true
            return result(200, try await whole(wanted, client: client, priority: priority))
        } catch let error as CancellationError {
            throw error
        } catch {
            let told = APIError(error)
            return result(told.status.code, ErrorBody(told))
        }
    }
}
