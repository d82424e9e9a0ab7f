import Foundation
import Testing

/// `adallava chat` driven through a pipe.
@Suite struct ChatTests {
    private func chat(_ lines: [String], _ arguments: [String] = [], environment: [String: String] = [:]) throws -> CommandResult {
        try Command.run(
            ["chat", "--model", Files.referenceModel.path, "--max-tokens", "12"] + arguments, input: Data((lines.joined(separator: "\n") + "\n").utf8),
            environment: environment)
    }

    // A failure means that a conversation loses its turns or images, or that one wrong line ends it.
    @Test("a conversation keeps its turns and images") func conversation() throws {
        let result = try chat([
            "/image " + Files.scene("00"), "What is in the picture?", "/image /nowhere.png", "/bogus", "/budget 7", "/budget 0.6", "And now?",
            "", "/help", "/exit", "Never asked.",
        ])
        // The first line that failed names a file that is not there.
        #expect(result.status == 66)
        let answers = result.output.split(separator: "\n")
        #expect(answers.count == 2 && answers.allSatisfy { !$0.isEmpty })
        for words in [
            "image added to your next message", "/nowhere.png: no such file", "unknown: /bogus", "budget 7", "budget 0.6: 4 of 8 layers", "/image FILE",
        ] {
            #expect(result.errors.contains(words), "\(words): \(result.errors)")
        }
    }

    // A failure means that later turns do not see the earlier ones, or still see them after /clear.
    @Test("turns see earlier ones until /clear") func memory() throws {
        let result = try chat(
            ["/image " + Files.scene("00"), "What is it?", "Is it red?", "/clear", "Is it red?"], ["--json"])
        let turns = try result.output.split(separator: "\n").map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
        }
        let lengths = turns.compactMap { $0["prompt_tokens"] as? Int }
        try #require(lengths.count == 3)
        #expect(lengths[1] > lengths[0] && lengths[2] < 64)
    }

    @Test("a message that was pasted behind /clear is not lost without a word, and nothing is forgotten")
    func clearTakesNoText() throws {
        let result = try chat(["Is it red?", "/clear\\", "And blue?", "Is it red?"], ["--json"])
        let lengths = try result.output.split(separator: "\n").map {
            try #require((try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])?["prompt_tokens"] as? Int)
        }
        #expect(lengths.count == 2 && lengths[1] > lengths[0])
        #expect(result.status == 64 && result.errors.contains("/clear: expected nothing after it, found And blue?; nothing was done"), "\(result.errors)")
    }

    // A failure means that images given with the command do not reach the first message, or that the answer is not what `ask` gives.
    @Test("an image of the command reaches the first message") func firstImage() throws {
        let item = try #require(try AskTests.cases("09").first)
        let result = try chat([item.question], ["--image", Files.scene("09"), "--budget", "\(item.budget)", "--max-tokens", "64"])
        #expect(result.output == item.generated_text + "\n")
    }

    // A failure means that the end of the input, which is how a script ends a chat, is an error.
    @Test("the end of the input ends a chat") func endOfInput() throws {
        #expect(try Command.run("chat").status == 0)
        #expect(try Command.run("chat", input: Data("Hello?".utf8)).output.filter { $0 == "\n" }.count == 1)
    }

    // A failure means that a question which does not fit ends the conversation instead of being told.
    @Test("a question that does not fit is refused, and the chat goes on") func tooLong() throws {
        let result = try chat([Array(repeating: "many words", count: 2000).joined(separator: " "), "Hello?"])
        #expect(result.status == 64)
        #expect(result.errors.contains("positions") && result.output.split(separator: "\n").count == 1)
    }

    @Test("a conversation that is longer than the context loses its oldest turns and goes on")
    func contextEnd() throws {
        let question = Array(repeating: "What is in the picture, and what is beside it?", count: 5).joined(separator: " ")
        let result = try chat(["/image " + Files.scene("00")] + Array(repeating: question, count: 12), ["--json"])
        #expect(result.status == 0, "\(result.errors)")
        let lengths = try result.output.split(separator: "\n").map {
            try #require((try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])?["prompt_tokens"] as? Int)
        }
        // The model's context has 512 positions.
        #expect(lengths.count == 12 && lengths.allSatisfy { $0 + 12 < 512 } && lengths[1] > lengths[0])
        #expect(result.errors.contains("context of 512 positions: the oldest turn and its image are forgotten"), "\(result.errors)")
        #expect(result.errors.contains("the oldest turn is forgotten"), "\(result.errors)")
    }

    @Test("an answer that was cut says so")
    func cutAnswer() throws {
        #expect(try chat(["Describe the image."], ["--max-tokens", "2"]).errors.contains("(the answer was cut at --max-tokens 2)"))
        #expect(try !chat(["/image " + Files.scene("00"), "What is in the picture?"], ["--max-tokens", "64"]).errors.contains("was cut"))
    }

    @Test("the first line that failed decides the exit code of a script", arguments: [
        (["/budget 7", "/image /nowhere.png"], Int32(64)), (["/image /nowhere.png", "/budget 7"], 66), (["/bogus"], 64), (["/temperature -1"], 64), (["/exit now"], 64), (["/retry now"], 64),
        (["/retry"], 64), (["/images drop 3"], 64), (["/image -"], 64), (["/image https://example.com/a.png"], 64), (["/save /nowhere/a.md", "Hi?"], 64),
        (["Hi?", "/save /nowhere/a.md"], 74), (["/image file://elsewhere/a.png"], 64), (["/help", "/images", "/system", "/budget", "/clear"], 0),
    ] as [([String], Int32)])
    func exitCode(lines: [String], status: Int32) throws {
        let result = try chat(lines, ["--max-tokens", "2"])
        #expect(result.status == status, "\(lines): \(result.errors)")
    }

    @Test("a mistyped command is answered with the one that is meant, a file alone with /image")
    func mistyped() throws {
        for (line, words) in [("/imgae x", "did you mean /image?"), ("/temprature 1", "did you mean /temperature?"), ("/zzzzzzzz", "/save FILE")] {
            let result = try chat([line])
            #expect(result.status == 64 && result.errors.contains("unknown: ") && result.errors.contains(words), "\(result.errors)")
        }
        #expect(try chat(["/temp 0.5", "/temperature"]).errors.contains("temperature 0.5"))
        for file in [Files.scene(), "'\(Files.scene())'", "file://\(Files.scene())", "\(Files.scene()) '\(Files.scene("01"))'"] {
            let result = try chat([file])
            #expect(result.status == 64 && result.output.isEmpty && result.errors.contains("/image \(file) adds the image"), "\(result.errors)")
        }
    }

    @Test("/budget takes every form that --budget takes, and a wrong one changes nothing")
    func timeBudgets() throws {
        try withTemporaryFolder { folder in
            let cache = ["XDG_CACHE_HOME": folder.path]
            let result = try chat(
                [
                    "/budget 3600s", "Hello?", "/budget", "/budget ttft:1800s,tpot:60s", "/budget", "/budget 60", "/budget 5 apples", "/budget",
                    "Hello?", "/budget 70%", "/budget",
                ], ["--json"], environment: cache)
            #expect(result.status == 64, "\(result.errors)")
            let said = result.errors.split(separator: "\n").filter { $0.hasPrefix("budget ") }
            #expect(said == ["budget 3600000ms", "budget ttft:1800000ms,tpot:60000ms", "budget ttft:1800000ms,tpot:60000ms", "budget 0.7"], "\(result.errors)")
            #expect(result.errors.contains("60ms") && result.errors.contains("5 apples"), "\(result.errors)")
            let turns = try result.output.split(separator: "\n").map {
                try #require((try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])?["adaptive"] as? [String: Any])
            }
            #expect(turns.map { $0["budget"] as? String } == ["3600000ms", "ttft:1800000ms,tpot:60000ms"])
            // So much time pays for everything, and the first answer had the model measured.
            #expect(turns.allSatisfy { $0["units"] as? Int == 4 } && turns.map { $0["calibrated"] as? Bool } == [false, true], "\(turns)")
        }
    }

    @Test("--strict refuses a time that cannot be kept and keeps the message's image, --cut ends an answer in time")
    func deadlineFlags() throws {
        try withTemporaryFolder { folder in
            let cache = ["XDG_CACHE_HOME": folder.path]
            #expect(try Command.run(["calibrate", "--model", Files.referenceModel.path], environment: cache).status == 0)
            let image = "/image " + Files.scene("00")
            let strict = try chat(
                [image, "What is in the picture?", "/images", "/budget 3600s", "/retry", "/images"], ["--budget", "0.001ms", "--strict", "--json"],
                environment: cache)
            #expect(strict.status == 65 && strict.errors.contains("cannot be met now"), "\(strict.errors)")
            let lists = strict.errors.split(separator: "\n").filter { $0.hasPrefix("for your next message, 1: ") || $0.hasPrefix("in the conversation: ") }
            #expect(lists.map { $0.first } == ["f", "i"] && !strict.errors.contains("dropped"), "\(strict.errors)")
            #expect(strict.output.split(separator: "\n").count == 1 && strict.output.contains("3600000ms"))

            let cut = try chat([image, "Describe the image.", "/budget 3600s", "/retry"], ["--budget", "0.001ms", "--cut"], environment: cache)
            #expect(cut.status == 0 && cut.errors.contains("(the answer was cut at its budget of 0.001ms)"), "\(cut.errors)")
            let answers = cut.output.split(separator: "\n")
            #expect(answers.count == 2 && answers[0].count < answers[1].count && !cut.errors.contains("cut at its budget of 3600000ms"), "\(cut.output)")
            try expectFailure(["chat", "--confidence", "1"], status: 64, saying: ["--confidence", "below 1"])
        }
    }

    @Test("a line that ends with one backslash goes on, one with two does not")
    func continuedLines() throws {
        let result = try chat(["one\\", "two", "three\\\\", "four\\"], ["--json"])
        #expect(result.output.split(separator: "\n").count == 3, "\(result.output)")
    }

    @Test("images that wait can be listed and dropped, and an error drops those of its message")
    func images() throws {
        let (first, second) = (Files.scene("00"), Files.scene("01"))
        let result = try chat([
            "/image " + first, "/image " + second, "/images", "/images drop 1", "/images", "/images drop", "/images", "/image " + first, "Hello?", "/images",
        ])
        #expect(result.status == 0, "\(result.errors)")
        let lines = result.errors.split(separator: "\n").filter { $0.contains("next message,") || $0.contains("dropped") || $0.contains("no images") || $0.contains("in the conv") }
        #expect(lines == [
            "for your next message, 1: \(first)", "for your next message, 2: \(second)", "dropped \(first)", "for your next message, 1: \(second)",
            "dropped \(second)", "no images; /image FILE adds one to your next message", "in the conversation: \(first)",
        ], "\(result.errors)")
        let failed = try chat(["/image " + first, Array(repeating: "many words", count: 2000).joined(separator: " "), "/images", "Hello?"])
        #expect(failed.status == 64 && failed.output.split(separator: "\n").count == 1)
        #expect(failed.errors.contains("the image of this message is dropped") && failed.errors.contains("no images"), "\(failed.errors)")
        // As many images as no context holds are refused before one is read.
        let many = try chat(Array(repeating: "/image " + first, count: 9))
        #expect(many.status == 64 && many.errors.components(separatedBy: "image added").count == 8, "\(many.errors)")
    }

    @Test("/retry asks the last message again in place of its answer, /temperature and /system change the answers")
    func settings() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("chat.json")
            let result = try chat(
                ["/image " + Files.scene("00"), "What is in the picture?", "/temperature 1.5", "/retry", "/retry", "/system Be brief.", "/retry", "/save \(file.path)"],
                ["--json", "--seed", "3"])
            #expect(result.status == 0, "\(result.errors)")
            let turns = try result.output.split(separator: "\n").map { try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]) }
            try #require(turns.count == 4)
            let (answers, lengths) = (turns.compactMap { $0["answer"] as? String }, turns.compactMap { $0["prompt_tokens"] as? Int })
            #expect(lengths[1] == lengths[0] && lengths[2] == lengths[0] && lengths[3] != lengths[0])
            #expect(answers[1] != answers[2], "a seed that stays gives the same answer again")
            let saved = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
            let messages = try #require(saved["messages"] as? [[String: Any]])
            #expect(messages.map { $0["role"] as? String } == ["system", "user", "assistant"])
            #expect(messages.map { $0["content"] as? String } == ["Be brief.", "What is in the picture?", answers[3]])
            #expect(messages[1]["images"] as? [String] == [Files.scene("00")])
            // A file that is there is not overwritten; other names get Markdown.
            let text = folder.appendingPathComponent("chat.md")
            #expect(try chat(["Hi?", "/save \(file.path)"]).status == 64)
            #expect(try chat(["Hi?", "/save \(text.path)"]).status == 0)
            #expect(try String(contentsOf: text, encoding: .utf8).hasPrefix("# Conversation with scenes-ref\n\n## User\n\nHi?\n\n## Assistant\n\n"))
        }
    }

    @Test("/retry says that an answer stays the same where nothing was changed, and only there")
    func unchangedRetry() throws {
        for (lines, count) in [(["/retry"], 1), (["/budget 0.6", "/retry"], 0), (["/system Be brief.", "/retry"], 0), (["/temperature 1", "/retry"], 0)] {
            let result = try chat(["Hello?"] + lines, ["--max-tokens", "2"])
            #expect(result.status == 0 && result.errors.components(separatedBy: "stays the same").count - 1 == count, "\(lines): \(result.errors)")
        }
    }

    @Test("/retry leaves the images that wait for the next message")
    func retryKeepsImages() throws {
        let result = try chat(["Hello?", "/image " + Files.scene(), "/retry", "/images", "What is in the picture?", "/images"], ["--max-tokens", "2"])
        #expect(result.errors.contains("for your next message, 1: \(Files.scene())\n"), "\(result.errors)")
        #expect(result.errors.contains("in the conversation: \(Files.scene())\n"), "\(result.errors)")
    }

    @Test("a model without a tower refuses an image at once, and answers the next message")
    func textModel() throws {
        try withTemporaryFolder { folder in
            let model = folder.appendingPathComponent("text.gguf")
            try FileManager.default.copyItem(at: Files.fixture("llava-gguf/text.gguf"), to: model)
            let arguments = ["chat", "--model", model.path, "--template", "vicuna_v1", "--max-tokens", "4"]
            let result = try Command.run(arguments, input: Data("/image \(Files.scene())\nHello?\n".utf8))
            #expect(result.status == 64 && result.output.filter { $0 == "\n" }.count >= 1)
            #expect(result.errors.contains("has no vision tower") && result.errors.contains("TTFT"), "\(result.errors)")
            try expectFailure(arguments + ["--image", Files.scene()], status: 64, saying: ["has no vision tower"])
        }
    }
}
