import AdaLLaVA
import Foundation
import HTTPTypes
import Testing

@testable import AdaServer

/// Budgets and deadlines in requests.
@Suite struct ServerBudgetTests {
    private static func fields(_ json: String, headers: [String: String] = [:]) throws -> GenerationFields {
        let value = try Data(json.utf8).withUnsafeBytes { try JSONReader.parse($0, file: "test") }
        guard case .object(let members) = value else { throw APIError(.badRequest, "no object") }
        var fields = RequestFields(members)
        var all = HTTPFields()
        for (name, value) in headers { all[try #require(HTTPField.Name(name))] = value }
        return try GenerationFields(&fields, headers: all, maxTokens: ["max_tokens"], standard: 512)
    }

    @Test("a budget is a fraction, a time, or several times")
    func forms() throws {
        #expect(try Self.fields(#"{"budget": 0.7}"#).asked == .fraction(0.7))
        #expect(try Self.fields(#"{"budget": "70%"}"#).asked == .fraction(0.7))
        #expect(try Self.fields(#"{"budget": "400ms"}"#).asked == .answer(within: .milliseconds(400)))
        #expect(try Self.fields(#"{"budget": {"ttft_ms": 150, "tpot_ms": 20.5}}"#).asked
            == .time(TimeLimits(firstToken: .milliseconds(150), perToken: .microseconds(20_500))))
        #expect(try Self.fields(#"{"budget": "auto"}"#).asked == .auto() && Self.fields(#"{"budget": "auto:mean=0.4"}"#).asked == .auto(mean: 0.4))
        #expect(try Self.fields("{}").asked == .full)
        #expect(try Self.fields("{}", headers: ["x-llm-d-slo-ttft-ms": "150", "x-llm-d-slo-tpot-ms": "20"]).asked
            == .time(TimeLimits(firstToken: .milliseconds(150), perToken: .milliseconds(20))))
        // The body wins.
        #expect(try Self.fields(#"{"budget": 0.5}"#, headers: ["x-llm-d-slo-ttft-ms": "150"]).asked == .fraction(0.5))
    }

    @Test("what is no budget is refused", arguments: [
        #"{"budget": 0}"#, #"{"budget": 1.5}"#, #"{"budget": -1}"#, #"{"budget": "soon"}"#, #"{"budget": {}}"#, #"{"budget": []}"#, #"{"budget": true}"#,
        #"{"budget": {"ttft_ms": 0}}"#, #"{"budget": {"ttft_ms": 1e300}}"#, #"{"budget": {"itl_ms": 5}}"#, #"{"budget": NaN}"#,
        #"{"budget": 0.5, "deadline_unix_ms": 99999999999999}"#, #"{"budget": "auto", "deadline_unix_ms": 99999999999999}"#, #"{"budget": "auto:0.4"}"#, #"{"deadline_unix_ms": -5}"#,
    ])
    func refusals(json: String) {
        #expect(performing: { try Self.fields(json) }, throws: { APIError($0).status == .badRequest })
    }

    @Test("time that a request has waited counts against its limits")
    func elapsed() async throws {
        let fields = try Self.fields(#"{"budget": {"ttft_ms": 150, "tpot_ms": 20}}"#)
        try await Task.sleep(for: .milliseconds(5))
        guard case .time(let limits) = try fields.budget() else { throw APIError(.badRequest, "no time") }
        #expect(try #require(limits.firstToken) <= .milliseconds(145) && limits.perToken == .milliseconds(20))
        let soon = Int(Date().timeIntervalSince1970 * 1000) + 60_000
        guard case .time(let deadline) = try Self.fields(#"{"deadline_unix_ms": \#(soon)}"#).budget() else { throw APIError(.badRequest, "no time") }
        #expect(try #require(deadline.answer) <= .milliseconds(60_001) && deadline.answer ?? .zero > .seconds(30))
    }

    @Test("a time budget is answered, with what was predicted; a deadline that has passed is refused")
    func served() async throws {
        try await TestServer.run { server in
            let answer = try await server.chat("What is the word?", images: [4], ["budget": "20s"]).json()
            #expect(answer["adaptive"]["predicted_ms"]["whole"].double ?? 0 > 0 && answer["adaptive"]["load"].double ?? 0 > 0)
            let late = try await server.chat("What is the word?", images: [4], ["deadline_unix_ms": 1_700_000_000_000])
            #expect(late.status == 400)
            #expect(try late.json()["error"]["code"].string == "deadline_passed")
        }
    }
}
