import Foundation
import Testing

/// `adallava chat` driven through a pipe.
@Suite struct ChatTests {
    private func chat(_ lines: [String], _ arguments: [String] = []) throws -> CommandResult {
        try Command.run(["chat", "--model", Files.referenceModel.path, "--max-tokens", "12"] + arguments, input: Data((lines.joined(separator: "\n") + "\n").utf8))
    }

    // A failure means that a conversation loses its turns or images, or that one wrong line ends it.
    @Test func conversation() throws {
        let result = try chat([
            "/image " + Files.scene("00"), "What is in the picture?", "/image /nowhere.png", "/bogus", "/budget 7", "/budget 0.6", "And now?",
            "", "/help", "/exit", "Never asked.",
        ])
        #expect(result.status == 0)
        let answers = result.output.split(separator: "\n")
        #expect(answers.count == 2 && answers.allSatisfy { !$0.isEmpty })
        for words in [
            "image added to your next message", "/nowhere.png: no such file", "unknown: /bogus", "budget 7", "budget 0.6: 4 of 8 layers", "/image FILE",
        ] {
            #expect(result.errors.contains(words), "\(words): \(result.errors)")
        }
    }

    // A failure means that later turns do not see the earlier ones, or still see them after /clear.
    @Test func memory() throws {
        let result = try chat(
            ["/image " + Files.scene("00"), "What is it?", "Is it red?", "/clear", "Is it red?"], ["--json"])
        let turns = try result.output.split(separator: "\n").map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
        }
        let lengths = turns.compactMap { $0["prompt_tokens"] as? Int }
        try #require(lengths.count == 3)
        #expect(lengths[1] > lengths[0] && lengths[2] < 64)
    }

    // A failure means that images given with the command do not reach the first message, or that the answer is not what `ask` gives.
    @Test func firstImage() throws {
        let item = try #require(try AskTests.cases("09").first)
        let result = try chat([item.question], ["--image", Files.scene("09"), "--budget", "\(item.budget)", "--max-tokens", "64"])
        #expect(result.output == item.generated_text + "\n")
    }

    // A failure means that the end of the input, which is how a script ends a chat, is an error.
    @Test func endOfInput() throws {
        #expect(try Command.run("chat").status == 0)
        #expect(try Command.run("chat", input: Data("Hello?".utf8)).output.filter { $0 == "\n" }.count == 1)
    }

    // A failure means that a question which does not fit ends the conversation instead of being told.
    @Test func tooLong() throws {
        let result = try chat([Array(repeating: "many words", count: 2000).joined(separator: " "), "Hello?"])
        #expect(result.status == 0)
        #expect(result.errors.contains("positions") && result.output.split(separator: "\n").count == 1)
    }
}
