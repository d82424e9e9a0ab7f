import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// Anthropic's messages and OpenAI's responses.
@Suite struct OtherFormsTests {
    private static func image(_ number: Int) throws -> [String: Any] {
        ["type": "image", "source": ["type": "base64", "media_type": "image/png", "data": try Scenes.image(number).base64EncodedString()]]
    }

    @Test("messages: the answer is ask's, in Anthropic's form")
    func messages() async throws {
        let expected = try await Scenes.asked("Describe the image.", images: [14], budget: .fraction(0.6))
        try await TestServer.run { server in
            let content: [[String: Any]] = [try Self.image(14), ["type": "text", "text": "Describe the image.", "cache_control": ["type": "ephemeral"]]]
            let body: [String: Any] = ["model": "scenes/L", "max_tokens": 100, "messages": [["role": "user", "content": content]], "budget": 0.6]
            let answer = try await server.request("POST", "/v1/messages", body).json()
            #expect(answer["type"].string == "message" && answer["role"].string == "assistant" && answer["content"][0]["text"].string == expected.text)
            #expect(answer["stop_reason"].string == "end_turn" && answer["stop_sequence"].isNull)
            let usage = answer["usage"]
            #expect((usage["input_tokens"].int ?? 0) + (usage["cache_read_input_tokens"].int ?? 0) == expected.summary.promptTokens)
            #expect(usage["output_tokens"].int == expected.summary.tokens.count && answer["adaptive"]["units"].int == expected.summary.units)
            let counted = try await server.request("POST", "/v1/messages/count_tokens", ["model": "scenes/L", "messages": [["role": "user", "content": content]]]).json()
            #expect(counted["input_tokens"].int == expected.summary.promptTokens)

            let stream = try await server.request("POST", "/v1/messages", body.merging(["stream": true]) { $1 })
            let events = try stream.events()
            let kinds = events.compactMap { $0["type"].string }
            #expect(kinds.first == "message_start" && kinds.dropFirst().first == "content_block_start" && kinds.last == "message_stop")
            #expect(Array(kinds.suffix(3)) == ["content_block_stop", "message_delta", "message_stop"])
            #expect(events.compactMap { $0["delta"]["text"].string }.joined() == expected.text)
            #expect(events.first?["message"]["usage"]["input_tokens"].int == expected.summary.promptTokens)
            // The names of events are their types.
            let names = stream.text.split(separator: "\n").filter { $0.hasPrefix("event: ") }.map { String($0.dropFirst(7)) }
            #expect(names == kinds && !stream.text.contains("[DONE]"))
        }
    }

    @Test("messages: system text, stop sequences, lengths and errors")
    func messageEndings() async throws {
        try await TestServer.run { server in
            func ask(_ more: [String: Any]) async throws -> TestResponse {
                let content: [[String: Any]] = [try Self.image(14), ["type": "text", "text": "Describe the image."]]
                return try await server.request("POST", "/v1/messages", ["max_tokens": 100, "messages": [["role": "user", "content": content]]].merging(more) { $1 })
            }
            let stopped = try await ask(["stop_sequences": ["zebra", " car"]]).json()
            #expect(stopped["stop_reason"].string == "stop_sequence" && stopped["stop_sequence"].string == " car")
            #expect(try await ask(["max_tokens": 1]).json()["stop_reason"].string == "max_tokens")
            #expect(try await ask(["system": [["type": "text", "text": "Be brief."]]]).status == 200)
            for (more, type) in [
                (["max_tokens": NSNull()], "invalid_request_error"), (["tools": [["name": "x"]]], "invalid_request_error"), (["model": "claude"], "not_found_error"),
                (["n": 2], "invalid_request_error"), (["thinking": ["type": "enabled", "budget_tokens": 1024]], "invalid_request_error"),
            ] as [([String: Any], String)] {
                let response = try await ask(more)
                let error = try response.json()
                #expect(response.status >= 400 && error["type"].string == "error" && error["error"]["type"].string == type, "\(response.text)")
            }
        }
    }

    @Test("responses: the answer is ask's, in the form of OpenAI's newer API")
    func responses() async throws {
        let expected = try await Scenes.asked("Describe the image.", images: [14], budget: .fraction(0.6))
        try await TestServer.run { server in
            let content: [[String: Any]] = [["type": "input_text", "text": "Describe the image."], ["type": "input_image", "image_url": try Scenes.dataURL(14), "detail": "auto"]]
            let body: [String: Any] = ["model": "scenes/L", "input": [["role": "user", "content": content]], "budget": 0.6]
            let answer = try await server.request("POST", "/v1/responses", body).json()
            #expect(answer["object"].string == "response" && answer["status"].string == "completed" && answer["error"].isNull)
            #expect(answer["output"][0]["content"][0]["text"].string == expected.text && answer["output"][0]["content"][0]["type"].string == "output_text")
            #expect(answer["usage"]["output_tokens"].int == expected.summary.tokens.count && answer["usage"]["input_tokens"].int == expected.summary.promptTokens)
            let events = try await server.request("POST", "/v1/responses", body.merging(["stream": true]) { $1 }).events()
            #expect(events.compactMap { $0["sequence_number"].int } == Array(events.indices))
            let kinds = events.compactMap { $0["type"].string }
            #expect(kinds.first == "response.created" && kinds.last == "response.completed")
            #expect(events.compactMap { $0["delta"].string }.joined() == expected.text)
            #expect(events.last?["response"]["output"][0]["content"][0]["text"].string == expected.text)
            // A conversation that the client keeps: the answer goes back as it came.
            let next: [String: Any] = ["input": [
                ["role": "user", "content": "What is the word?"],
                ["type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [["type": "output_text", "text": "PUSH", "annotations": [Any]()]]],
                ["role": "user", "content": "Describe the image."],
            ], "instructions": "Be brief.", "max_output_tokens": 3]
            let second = try await server.request("POST", "/v1/responses", next).json()
            #expect(second["status"].string == "incomplete" || second["usage"]["output_tokens"].int ?? 9 <= 3)
            for bad in [["previous_response_id": "resp_1"], ["store": true], ["background": true], ["input": [Any]()], ["tools": [["type": "web_search"]]], ["input": 5]] as [[String: Any]] {
                #expect(try await server.request("POST", "/v1/responses", body.merging(bad) { $1 }).status == 400, "\(bad)")
            }
        }
    }
}
