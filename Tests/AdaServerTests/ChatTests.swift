import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// `/v1/chat/completions`, over sockets, with the embedded model.
@Suite struct ChatTests {
    // A difference means that people are told something else over HTTP than on the command line.
    @Test("an answer is what ask answers, token for token", arguments: [1.0, 0.6, 0.25])
    func equalsAsk(budget: Double) async throws {
        let question = "Describe the image."
        let expected = try await Scenes.asked(question, images: [14], budget: .fraction(budget))
        try await TestServer.run { server in
            let response = try await server.chat(question, images: [14], ["budget": budget])
            #expect(response.status == 200)
            let answer = try response.json()
            #expect(answer["object"].string == "chat.completion" && answer["model"].string == "scenes/L")
            let choice = answer["choices"][0]
            #expect(choice["message"]["content"].string == expected.text && choice["message"]["role"].string == "assistant")
            #expect(choice["finish_reason"].string == "stop")
            #expect(answer["usage"]["completion_tokens"].int == expected.summary.tokens.count)
            #expect(answer["usage"]["prompt_tokens"].int == expected.summary.promptTokens)
            #expect(answer["usage"]["prompt_tokens_details"]["image_tokens"].int == 49)
            let adaptive = answer["adaptive"]
            #expect(adaptive["units"].int == expected.summary.units)
            #expect(adaptive["plan"]["attention_heads_per_layer"].ints == expected.summary.plan.headsPerLayer)
            #expect(adaptive["plan"]["mlp_groups_per_layer"].ints == expected.summary.plan.groupsPerLayer)
            #expect(adaptive["measured_ms"]["whole"].double ?? 0 > 0)
        }
    }

    // A difference means that a stream's pieces are not the answer, or that its end cannot be told.
    @Test("events joined are the whole answer, the last ones with usage and plan")
    func streams() async throws {
        let expected = try await Scenes.asked("Describe the image.", images: [14], budget: .fraction(0.6))
        try await TestServer.run { server in
            let response = try await server.chat(
                "Describe the image.", images: [14], ["budget": 0.6, "stream": true, "stream_options": ["include_usage": true]])
            #expect(response.status == 200 && response.headers["content-type"]?.hasPrefix("text/event-stream") == true)
            #expect(response.text.hasSuffix("data: [DONE]\n\n"))
            let events = try response.events()
            #expect(events.first?["choices"][0]["delta"]["role"].string == "assistant")
            #expect(events.compactMap { $0["choices"][0]["delta"]["content"].string }.joined() == expected.text)
            #expect(Set(events.compactMap { $0["id"].string }).count == 1)
            let ending = try #require(events.dropLast().last)
            #expect(ending["choices"][0]["finish_reason"].string == "stop" && ending["usage"].isNull)
            #expect(ending["adaptive"]["units"].int == expected.summary.units)
            let last = try #require(events.last)
            #expect(last["choices"].array?.isEmpty == true && last["usage"]["completion_tokens"].int == expected.summary.tokens.count)
            #expect(last["adaptive"]["units"].int == expected.summary.units)
        }
    }

    @Test("a least length keeps the answer going, a stop text still ends it")
    func leastLength() async throws {
        try await TestServer.run { server in
            let free = try await server.chat("What is the word?", images: [1], ["logprobs": true]).json()
            let length = try #require(free["usage"]["completion_tokens"].int)
            let text = try #require(free["choices"][0]["message"]["content"].string)
            for (parameters, expected) in [(["min_tokens": length + 3], length + 3), (["ignore_eos": true], 40)] as [([String: Any], Int)] {
                let answer = try await server.chat("What is the word?", images: [1], parameters.merging(["max_tokens": 40]) { $1 }).json()
                let tokens = try #require(answer["usage"]["completion_tokens"].int)
                #expect(parameters["ignore_eos"] != nil ? tokens == expected : tokens >= expected, "\(tokens)")
                #expect(answer["choices"][0]["message"]["content"].string?.hasPrefix(text) == true)
            }
            let stopped = try await server.chat("What is the word?", images: [1], ["ignore_eos": true, "stop": text]).json()
            #expect(stopped["choices"][0]["finish_reason"].string == "stop" && stopped["choices"][0]["message"]["content"].string == "")
        }
    }

    @Test("sampling parameters mean what the command line's flags mean")
    func sampling() async throws {
        let expected = try await Scenes.asked("Describe the image.", images: [3]) { options in
            options.sampling.temperature = 1.5
            options.sampling.seed = 7
            (options.sampling.topK, options.sampling.topP, options.sampling.minP) = (40, 0.9, 0.01)
            options.maxTokens = 12
        }
        try await TestServer.run { server in
            let response = try await server.chat(
                "Describe the image.", images: [3],
                ["temperature": 1.5, "seed": 7, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "max_tokens": 12])
            let answer = try response.json()
            #expect(answer["choices"][0]["message"]["content"].string == expected.text)
            let again = try await server.chat(
                "Describe the image.", images: [3],
                ["temperature": 20, "seed": 8, "max_completion_tokens": 12]).json()
            #expect(again["choices"][0]["message"]["content"].string != expected.text)
        }
    }

    @Test("stop texts end an answer and are not part of it; max_tokens cuts it")
    func endings() async throws {
        try await TestServer.run { server in
            let whole = try await server.chat("Describe the image.", images: [14]).json()["choices"][0]["message"]["content"].string
            let text = try #require(whole)
            let range = try #require(text.range(of: " car"))
            let stopped = try await server.chat("Describe the image.", images: [14], ["stop": [" car", "zebra"]]).json()
            #expect(stopped["choices"][0]["message"]["content"].string == String(text[..<range.lowerBound]))
            #expect(stopped["choices"][0]["finish_reason"].string == "stop")
            let cut = try await server.chat("Describe the image.", images: [14], ["max_tokens": 2]).json()
            #expect(cut["choices"][0]["finish_reason"].string == "length" && cut["usage"]["completion_tokens"].int == 2)
        }
    }

    // A failure means that several answers cost the prompt several times, or are all the same one.
    @Test("n answers share one encode and one prefill")
    func choices() async throws {
        try await TestServer.run { server in
            let more: [String: Any] = ["n": 3, "temperature": 2.0, "seed": 1, "max_tokens": 16]
            let answer = try await server.chat("Describe the image.", images: [15], more).json()
            let choices = try #require(answer["choices"].array)
            #expect(choices.map { $0["index"].int } == [0, 1, 2])
            #expect(Set(choices.compactMap { $0["message"]["content"].string }).count > 1)
            // All prompt rows of the later ones were computed by the first.
            for choice in choices.dropFirst() { #expect(choice["adaptive"]["cached_tokens"].int == answer["usage"]["prompt_tokens"].int) }
            for (index, choice) in choices.enumerated() {
                let expected = try await Scenes.asked("Describe the image.", images: [15]) { options in
                    (options.sampling.temperature, options.sampling.seed, options.maxTokens) = (2, UInt64(1 + index), 16)
                }
                #expect(choice["message"]["content"].string == expected.text)
            }
            let events = try await server.chat("Describe the image.", images: [15], more.merging(["stream": true]) { $1 }).events()
            for (index, choice) in choices.enumerated() {
                let text = events.flatMap { $0["choices"].array ?? [] }.filter { $0["index"].int == index }.compactMap { $0["delta"]["content"].string }
                #expect(text.joined() == choice["message"]["content"].string)
            }
        }
    }

    @Test("an earlier turn's prompt is found again: cached_tokens")
    func cachedTokens() async throws {
        try await TestServer.run { server in
            _ = try await server.chat("What is the word?", images: [9], ["budget": 0.6])
            let again = try await server.chat("What is the word?", images: [9], ["budget": 0.9]).json()
            #expect(again["usage"]["prompt_tokens_details"]["cached_tokens"].int == again["usage"]["prompt_tokens"].int)
        }
    }

    @Test("requests that are answered together get the answers that they get alone")
    func together() async throws {
        let cases = (0 ..< 8).map { (image: $0, budget: [1.0, 0.85, 0.6, 0.25][$0 % 4]) }
        var expected: [String] = []
        for item in cases { expected.append(try await Scenes.asked("Describe the image.", images: [item.image], budget: .fraction(item.budget)).text) }
        let texts = expected
        try await TestServer.run { server in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (index, item) in cases.enumerated() {
                    group.addTask {
                        let answer = try await server.chat("Describe the image.", images: [item.image], ["budget": item.budget, "stream": index % 2 == 0])
                        let text = index % 2 == 0
                            ? try answer.events().compactMap { $0["choices"][0]["delta"]["content"].string }.joined()
                            : try answer.json()["choices"][0]["message"]["content"].string
                        #expect(text == texts[index])
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("conversations: system text, turns, and parts in any order")
    func conversations() async throws {
        try await TestServer.run { server in
            let tokens = try await server.request("POST", "/tokenize", [
                "messages": [
                    ["role": "system", "content": "Be brief."], ["role": "user", "content": "One?"], ["role": "assistant", "content": "Two."],
                    ["role": "user", "content": [["type": "text", "text": "Three?"]]],
                ]
            ]).json()["tokens"].ints
            let model = try await Scenes.model
            let turns = [ChatMessage(.user, "One?"), ChatMessage(.assistant, "Two."), ChatMessage(.user, "Three?")]
            #expect(try tokens == model.tokenize(turns, system: "Be brief."))
            // The image is before the text in the model's order, wherever the request has it.
            let image: [String: Any] = ["type": "image_url", "image_url": ["url": try Scenes.dataURL(2), "detail": "low"]]
            let text: [String: Any] = ["type": "text", "text": "What is the word?"]
            var answers: Set<String?> = []
            for content in [[image, text], [text, image]] {
                answers.insert(
                    try await server.request("POST", "/v1/chat/completions", ["messages": [["role": "user", "content": content]]])
                        .json()["choices"][0]["message"]["content"].string)
            }
            #expect(answers == [try await Scenes.asked("What is the word?", images: [2]).text])
        }
    }
}
