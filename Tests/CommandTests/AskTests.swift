import Foundation
import Testing

/// `adallava ask` with the reference implementation's model.
@Suite struct AskTests {
    struct Cases: Decodable {
        struct Case: Decodable {
            let image: String
            let question: String
            let budget: Double
            let generated_ids: [Int]
            let generated_text: String
        }
        let cases: [Case]
    }

    /// The recorded answers to one picture.
    static func cases(_ image: String) throws -> [Cases.Case] {
        let all = try JSONDecoder().decode(Cases.self, from: Data(contentsOf: Files.referenceModel.appendingPathComponent("cases.json"))).cases
        return all.filter { $0.image == "images/\(image).png" }
    }

    // A failure means that the main job does not give the recorded answer, or mixes it with something else on standard output.
    @Test("ask gives the recorded answer on standard output", arguments: ["00", "07"]) func answers(image: String) throws {
        let cases = try Self.cases(image)
        #expect(cases.count == 5)
        for item in cases {
            let result = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene(image), item.question, "--budget", "\(item.budget)")
            #expect(result.status == 0)
            #expect(result.output == item.generated_text + "\n")
            // Two lines: which model answers; what ran and what was measured.
            let lines = result.errors.split(separator: "\n")
            try #require(lines.count == 2, "\(result.errors)")
            #expect(lines[0] == "model: scenes-ref (5.1 M, images and text)")
            #expect(lines[1].hasPrefix("budget ") && lines[1].contains("layers") && lines[1].contains("TTFT"), "\(result.errors)")
        }
    }

    // A failure means that scripts which read the JSON object find other keys or types than they were promised.
    @Test("the JSON object has the promised keys") func json() throws {
        let item = try #require(try Self.cases("03").first { $0.budget < 1 })
        let result = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene("03"), item.question, "--budget", "\(item.budget)", "--json")
        #expect(result.status == 0)
        #expect(result.output.hasSuffix("}\n") && result.output.filter { $0 == "\n" }.count == 1)
        let object = try result.json()
        #expect(object["answer"] as? String == item.generated_text)
        #expect(object["tokens"] as? [Int] == item.generated_ids)
        let adaptive = try #require(object["adaptive"] as? [String: Any])
        let heads = try #require(adaptive["attention_heads_per_layer"] as? [Int])
        #expect(adaptive["budget"] as? Double == item.budget)
        #expect(heads.count == 8 && adaptive["mlp_groups_per_layer"] as? [Int] == heads)
        #expect(adaptive["units"] as? Int == heads.dropFirst(4).count { $0 > 0 })
        let measured = try #require(object["measured"] as? [String: Any])
        for key in ["encode_ms", "prefill_ms", "decode_ms", "ttft_ms"] { #expect((measured[key] as? Double ?? 0) > 0, "\(key)") }
    }

    // A failure means that drafts change the answer, or are not told.
    @Test("drafts leave the recorded answer", arguments: [["--speculate"], ["--speculate", "4"], ["--speculate", "off"]]) func drafts(flags: [String]) throws {
        let item = try #require(try Self.cases("03").first { $0.budget == 1 })
        let result = try Command.run(["ask", "--model", Files.referenceModel.path, Files.scene("03"), item.question, "--json"] + flags)
        #expect(result.status == 0, "\(result.errors)")
        let object = try result.json()
        #expect(object["tokens"] as? [Int] == item.generated_ids)
        let counts = object["speculation"] as? [String: Int]
        #expect(flags.last == "off" ? counts == nil : counts.map { Set($0.keys) } == ["drafted", "accepted", "verifications"])
        for wrong in ["0", "13", "many"] {
            let refused = try Command.run("ask", Files.scene("03"), "What?", "--speculate", wrong)
            #expect(refused.status == 64 && refused.errors.contains("--speculate"), "\(refused.errors)")
        }
    }

    // A failure means that a person's own chat template is not used, or that what is wrong with it is not told.
    @Test("a chat template of one's own is used") func chatTemplate() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("t.jinja")
            let arguments = ["ask", "--model", Files.referenceModel.path, Files.scene("03"), "What?", "--max-tokens", "1", "--json", "--chat-template", file.path]
            func tokens(_ template: String) throws -> Int? {
                try Data(template.utf8).write(to: file)
                return try Command.run(arguments, input: Data()).json()["prompt_tokens"] as? Int
            }
            let short = try #require(try tokens("{{ messages[0].content }}"))
            let long = try #require(try tokens("{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}"))
            #expect(long == short + 2)
            try Data("a\n{% if %}".utf8).write(to: file)
            try expectFailure(arguments, status: 65, saying: ["t.jinja", "line 2", "--template"])
            try Data("{{ raise_exception('only tools') }}".utf8).write(to: file)
            try expectFailure(arguments, status: 64, saying: ["t.jinja", "only tools"])
            try FileManager.default.removeItem(at: file)
            try expectFailure(arguments, status: 66, saying: ["t.jinja", "no such file"])
        }
    }

    // A failure means that a picture answers differently depending on how it was handed over.
    @Test("an image answers the same however it is passed") func sources() throws {
        let data = try Data(contentsOf: URL(fileURLWithPath: Files.scene("02")))
        let question = try #require(try Self.cases("02").first).question
        let file = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene("02"), question)
        let input = try Command.run("ask", "--model", Files.referenceModel.path, "-", question, input: data)
        let url = try Command.run("ask", "--model", Files.referenceModel.path, "data:image/png;base64," + data.base64EncodedString(), question)
        #expect(file.status == 0 && !file.output.isEmpty)
        #expect(input.status == 0 && input.output == file.output)
        #expect(url.status == 0 && url.output == file.output)
    }

    // A failure means that only one of several images reaches the model.
    @Test("several images reach the model") func severalImages() throws {
        func promptTokens(_ images: [String]) throws -> Int {
            let result = try Command.run(["ask", "--model", Files.referenceModel.path] + images + ["Compare.", "--json", "--max-tokens", "2"])
            return try #require(try result.json()["prompt_tokens"] as? Int)
        }
        let (one, two) = (try promptTokens([Files.scene("00")]), try promptTokens([Files.scene("00"), Files.scene("01")]))
        let none = try promptTokens([])
        // Each image takes as many positions, and a line break.
        #expect(one - none >= 64 && two - one >= 64 && two - one <= one - none + 2)
    }

    // A failure means that an answer runs on past the text or the length that was to end it.
    @Test("an answer ends at its stop text or length") func ends() throws {
        let question = "Describe the image."
        let whole = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene("06"), question).output.trimmingCharacters(in: .newlines)
        try #require(whole.count > 8)
        let stop = String(whole.dropFirst(4).prefix(3))
        let cut = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene("06"), question, "--stop", stop)
        #expect(cut.output == whole.components(separatedBy: stop)[0] + "\n")
        let short = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene("06"), question, "--max-tokens", "2", "--json").json()
        #expect((short["tokens"] as? [Int])?.count == 2)
        #expect(short["finish_reason"] as? String == "length")
        let told = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene("06"), question, "--max-tokens", "2")
        #expect(told.errors.contains("(the answer was cut at --max-tokens 2)"))
    }

    @Test("--quiet leaves nothing on standard error but warnings")
    func quiet() throws {
        let arguments = ["ask", "--model", Files.referenceModel.path, Files.scene("06"), "Describe the image."]
        let whole = try Command.run(arguments)
        for flag in ["-q", "--quiet"] {
            let result = try Command.run(arguments + [flag])
            #expect(result.status == 0 && result.output == whole.output && result.errors.isEmpty, "\(flag): \(result.errors)")
        }
        let below = try Command.run(arguments + ["-q", "--budget", "0.1"])
        #expect(below.errors.hasPrefix("adallava: ") && below.errors.contains("floor"), "\(below.errors)")
    }

    @Test("the default model says what it knows, wherever it is named")
    func modelLine() throws {
        let line = "model: scenes/L (8 M, rendered scenes only); --model FILE for another\n"
        #expect(try Command.run("ask", "hi", "--max-tokens", "2").errors.hasPrefix(line))
        let folder = Files.root.appendingPathComponent("Models/scenes")
        #expect(try Command.run("ask", "hi", "--max-tokens", "2", "--model", folder.appendingPathComponent("L").path).errors.hasPrefix(line))
        let sister = try Command.run("ask", "hi", "--max-tokens", "2", "--model", folder.appendingPathComponent("H").path)
        #expect(sister.errors.hasPrefix("model: scenes/H (8 M, rendered scenes only)"), "\(sister.errors)")
    }

    // A failure means that an absurd length is computed with rather than clipped to the model's context.
    @Test("an absurd length is clipped to the context") func absurdLength() throws {
        let question = try #require(try Self.cases("00").first).question
        #expect(try Command.run("ask", "--model", Files.referenceModel.path, Files.scene(), question, "--max-tokens", "\(Int.max)").status == 0)
    }

    // A failure means that a seed does not reproduce an answer, or that sampling ignores it.
    @Test("a seed reproduces an answer") func seeds() throws {
        func answer(_ seed: Int, _ threads: Int) throws -> String {
            let arguments = ["ask", "--model", Files.referenceModel.path, Files.scene("04"), "Describe the image.", "--temperature", "1", "--max-tokens", "24"]
            let result = try Command.run(arguments + ["--seed", "\(seed)", "--threads", "\(threads)"])
            #expect(result.status == 0)
            return result.output
        }
        let first = try answer(7, 1)
        #expect(try answer(7, 1) == first)
        #expect(try answer(7, 2) == first)
        #expect(Set(try (1 ... 6).map { try answer($0, 1) }).count > 1)
    }

    // A failure means that a budget below the floor is met with a silent full answer, or refused.
    @Test("a budget below the floor is answered at the floor, with a warning") func belowFloor() throws {
        let result = try Command.run("ask", "--model", Files.referenceModel.path, Files.scene(), "What?", "--budget", "0.1", "--max-tokens", "4")
        #expect(result.status == 0)
        #expect(result.errors.contains("floor of 0.5"))
    }

    // A failure means that answering changes with the kernels that a user may force.
    @Test("all kernels give the same answer") func forcedKernels() throws {
        let item = try #require(try Self.cases("05").first)
        let arguments = ["ask", "--model", Files.referenceModel.path, Files.scene("05"), item.question, "--budget", "\(item.budget)"]
        #expect(try Command.run(arguments, environment: ["ADALLAVA_KERNELS": "portable"]).output == item.generated_text + "\n")
    }
}
