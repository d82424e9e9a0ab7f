import Foundation
import Testing

@Suite struct InspectTests {
    // A failure means that a checkpoint which loads is reported with a problem, or with other numbers than its configuration's.
    @Test("fixtures are reported with their numbers", arguments: [
        ("ada-L", "AdaLLaVA-L", 0.5), ("ada-H", "AdaLLaVA-H", 0.5), ("llava-hf/old-layout", "LLaVA-1.5", nil), ("llava-hf/new-layout", "LLaVA-1.5", nil),
    ] as [(String, String, Double?)])
    func fixtures(path: String, family: String, floor: Double?) throws {
        let lines = try Command.run("inspect", Files.fixture(path).path)
        #expect(lines.status == 0 && lines.output.contains(family) && lines.output.contains("problem       none"))
        let json = try Command.run("inspect", Files.fixture(path).path, "--json").json()
        #expect(json["problem"] is NSNull)
        #expect((json["format"] as? String)?.hasPrefix(family) == true)
        #expect((json["adaptive"] as? [String: Any])?["floor"] as? Double == floor)
        let decoder = try #require(json["decoder"] as? [String: Any])
        #expect(decoder["hidden_size"] as? Int == (floor == nil ? 32 : 64))
        let memory = try #require(json["memory"] as? [String: Any])
        #expect((memory["weight_bytes"] as? Int ?? 0) > 100_000)
    }

    // A failure means that `inspect` does not name a decoder's architecture or window, or an EfficientNet tower's feature maps.
    @Test("lines name the architecture, its window and its tower", arguments: [
        ("decoders/gemma3", ["decoder       Gemma 3: 5 layers", ", window 24 in 3 of the layers"]),
        ("decoders/mistral", ["decoder       Mistral: 5 layers", ", window 24\n"]), ("decoders/qwen2", ["decoder       Qwen2: 5 layers"]),
    ] as [(String, [String])])
    func lines(path: String, words: [String]) throws {
        let output = try Command.run("inspect", Files.fixture(path).path).output
        for word in words { #expect(output.contains(word), "\(output)") }
        #expect(output.contains(", window") == (words.count > 1))
    }

    // A failure means that the embedded model is not what the documentation says of it.
    @Test("the embedded model is reported") func embedded() throws {
        let json = try Command.run("inspect", Files.referenceModel.path, "--json").json()
        #expect(json["problem"] is NSNull && json["template"] as? String == "vicuna_v1")
        #expect((json["tokenizer"] as? String)?.contains("SentencePiece") == true)
    }

    // A failure means that a budget of 1 leaves heads out without a word.
    @Test("a rank that does not divide") func aRankThatDoesNotDivide() throws {
        try Files.withCopy(of: "ada-H") { model in
            try Files.edit(model.appendingPathComponent("config.json"), ["scheduler_rank": 3])
            let found = try Command.run("inspect", model.path)
            #expect(found.status == 0 && found.output.contains("a budget of 1 leaves switches out: scheduler_rank 3 does not divide"), "\(found.output)")
            func trace(_ budget: String) throws -> CommandResult {
                try Command.run(
                    "trace", model.path, "--no-image", "--tokens", "1,5,13", "--max-tokens", "1", "--budget", budget, "--output",
                    model.appendingPathComponent("t.safetensors").path)
            }
            let whole = try trace("1")
            #expect(whole.status == 0 && whole.errors.contains("scheduler_rank does not divide"), "\(whole.errors)")
            #expect(try trace("0.9").errors.isEmpty)
        }
        let found = try Command.run("inspect", Files.fixture("ada-H").path)
        #expect(found.status == 0 && !found.output.contains("leaves switches out"))
    }

    // A failure means that a damaged checkpoint passes, or that only the damage is shown and nothing of what is there.
    @Test("a damaged checkpoint is reported with its problem") func problem() throws {
        try Files.withCopy(of: "ada-L") { model in
            try Files.edit(model.appendingPathComponent("config.json"), ["intermediate_size": 160])
            let lines = try Command.run("inspect", model.path)
            #expect(lines.status == 65 && lines.output.contains("AdaLLaVA-L") && lines.output.contains("found [172, 64]"))
            let json = try Command.run("inspect", model.path, "--json")
            #expect(json.status == 65)
            #expect((try json.json()["problem"] as? String)?.contains("expected shape [160, 64]") == true)
        }
    }

    // A failure means that a checkpoint whose own chat template cannot be read looks as if it had none.
    @Test("a chat template that cannot be read is a problem") func brokenTemplate() throws {
        try Files.withCopy(of: "llava-hf/old-layout") { model in
            for name in ["tokenizer.model", "tokenizer_config.json"] {
                try FileManager.default.copyItem(at: Files.fixture("tokenizer/tok320/" + name), to: model.appendingPathComponent(name))
            }
            #expect(try Command.run("inspect", model.path).output.contains("template vicuna_v1"))
            let template = model.appendingPathComponent("chat_template.jinja")
            try Data("{{ 1 }}\n{% if %}".utf8).write(to: template)
            let found = try Command.run("inspect", model.path)
            #expect(found.status == 65 && found.output.contains("line 2: expected an expression") && found.output.contains("--chat-template FILE"))
            #expect(try Command.run("inspect", model.path, "--template", "plain").output.contains("template plain"))
            try Data("{{ messages[0].content }}".utf8).write(to: template)
            #expect(try Command.run("inspect", model.path).output.contains("template chat_template"))
        }
    }

    @Test("The model is an argument, or --model as in other commands")
    func modelOption() throws {
        let path = Files.fixture("ada-L").path
        let expected = try Command.run("inspect", path)
        for option in ["-m", "--model"] { #expect(try Command.run("inspect", option, path).output == expected.output && expected.status == 0) }
        try expectFailure(["inspect", path, "-m", path], status: 64, saying: ["--model", "found both"])
        try expectFailure(["inspect"], status: 64, saying: ["expected a model"])
    }

    // A failure means that a wrong option is blamed on the checkpoint.
    @Test("an unknown template is a usage error") func unknownTemplate() throws {
        try expectFailure(["inspect", Files.referenceModel.path, "--template", "nope"], status: 64, saying: ["nope", "vicuna_v1"])
    }
}
