import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// `/v1/completions`, and probabilities of tokens.
@Suite struct CompletionTests {
    private static let prompt = "USER: What is the word? ASSISTANT:"

    @Test("a prompt is continued as it is, given as text or as tokens")
    func continues() async throws {
        let model = try await Scenes.model
        let tokens = try model.tokenize(prompt: Self.prompt)
        var options = GenerationOptions()
        options.maxTokens = 8
        let text = try await model.complete(tokens, options: options).whole().text
        try await TestServer.run { server in
            for prompt in [Self.prompt, [Self.prompt], tokens, [tokens]] as [Any] {
                let answer = try await server.request("POST", "/v1/completions", ["prompt": prompt, "max_tokens": 8] as [String: Any]).json()
                #expect(answer["object"].string == "text_completion" && answer["choices"][0]["text"].string == text)
                #expect(answer["usage"]["prompt_tokens"].int == tokens.count)
            }
            let stream = try await server.request("POST", "/v1/completions", ["prompt": Self.prompt, "max_tokens": 8, "stream": true])
            #expect(try stream.events().compactMap { $0["choices"][0]["text"].string }.joined() == text)
            #expect(stream.text.hasSuffix("data: [DONE]\n\n"))
            // OpenAI's standard length.
            let standard = try await server.request("POST", "/v1/completions", ["prompt": Self.prompt, "temperature": 100, "seed": 1]).json()
            #expect(standard["usage"]["completion_tokens"].int ?? 99 <= 16)
        }
    }

    @Test("what is no prompt is refused", arguments: ["5", "[]", "[[]]", #"["a", "b"]"#, "[1.5]", "[-1]", "[1000000]", "null", #"[[1], [2]]"#, #"[-200]"#])
    func refusals(prompt: String) async throws {
        try await TestServer.run { server in
            let response = try await server.request("POST", "/v1/completions", body: Data(#"{"prompt": \#(prompt)}"#.utf8))
            #expect(response.status == 400, "\(response.text)")
        }
    }

    // A difference means that probabilities are not those of the tokens beside them.
    @Test("probabilities: those of all tokens add up, the greedy choice is the likeliest")
    func probabilities() async throws {
        let expected = try await Scenes.asked("Describe the image.", images: [14]) { $0.logProbabilities = 3 }
        try await TestServer.run { server in
            let more: [String: Any] = ["logprobs": true, "top_logprobs": 3]
            let answer = try await server.chat("Describe the image.", images: [14], more).json()
            let tokens = try #require(answer["choices"][0]["logprobs"]["content"].array)
            // All but the token that ends the answer.
            #expect(tokens.count == expected.summary.tokens.count - 1)
            for token in tokens {
                let top = try #require(token["top_logprobs"].array)
                #expect(top.count == 3 && top[0]["token"].string == token["token"].string && top[0]["logprob"].double == token["logprob"].double)
                #expect(top.compactMap { $0["logprob"].double } == top.compactMap { $0["logprob"].double }.sorted(by: >))
                #expect(top.reduce(0) { $0 + exp($1["logprob"].double ?? 0) } <= 1.000_01)
            }
            let bytes = tokens.flatMap { $0["bytes"].ints ?? [] }.map(UInt8.init)
            #expect(String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .whitespaces) == expected.text.trimmingCharacters(in: .whitespaces))
            let events = try await server.chat("Describe the image.", images: [14], more.merging(["stream": true]) { $1 }).events()
            let streamed = events.flatMap { $0["choices"][0]["logprobs"]["content"].array ?? [] }
            #expect(streamed.map { $0["logprob"].double } == tokens.map { $0["logprob"].double })
            let legacy = try await server.request("POST", "/v1/completions", ["prompt": Self.prompt, "logprobs": 2, "max_tokens": 4]).json()["choices"][0]["logprobs"]
            #expect(legacy["tokens"].array?.count == legacy["token_logprobs"].array?.count && legacy["text_offset"].ints?.first == 0)
            #expect(try await server.chat("Hi", [:].merging(["top_logprobs": 2]) { $1 }).status == 400)
        }
    }

    // The tokens of a whole vocabulary are one of them.
    @Test("log-probabilities of all tokens are those of a distribution")
    func distribution() async throws {
        let model = try await Scenes.model
        var options = GenerationOptions()
        (options.maxTokens, options.logProbabilities) = (3, 100_000)
        var all: [TokenLogProbability] = []
        for try await event in model.complete(try model.tokenize(prompt: Self.prompt), options: options) {
            if case .logProbabilities(let new) = event { all += new }
        }
        #expect(!all.isEmpty)
        for item in all { #expect(abs(item.likeliest.reduce(0) { $0 + exp($1.logProbability) } - 1) < 1e-5) }
    }
}
