import Foundation
import Testing

/// `adallava explain` on the embedded model.
@Suite struct ExplainTests {
    private static let model = ["--model", Files.embeddedModel.path]

    @Test func aSetIsExplained() async throws {
        // A failure means that the command does not do what its help says, or that its JSON has another form than documented.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("explain-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let made = try Command.run(["data", "scenes", "--out", folder.path, "--count", "6", "--seed", "1000003", "--split", "few"])
        #expect(made.status == 0)
        let page = folder.appendingPathComponent("page.html")
        let result = try Command.run(
            ["explain", "--data", folder.appendingPathComponent("few.json").path, "--budgets", "1,0.75", "--examples", "2", "--output", page.path, "--json"] + Self.model)
        #expect(result.status == 0, "\(result.errors)")
        let budgets = try #require(try result.json()["budgets"] as? [[String: Any]])
        #expect(budgets.compactMap { $0["budget"] as? Double } == [1, 0.75])
        for budget in budgets {
            let accuracy = try #require(budget["accuracy"] as? [String: Double])
            #expect(Set(accuracy.keys) == ["own", "swapped", "random", "fixed"] && accuracy.values.allSatisfy { (0 ... 1).contains($0) })
            #expect((budget["switch_frequencies"] as? [Double])?.count == 8 * 2 * 6 && budget["mean_hamming"] is Double)
        }
        #expect(budgets[0]["mean_hamming"] as? Double == 0)
        let html = try String(contentsOf: page, encoding: .utf8)
        // Two examples, two budgets, four prefix layers each.
        #expect(html.components(separatedBy: "class=\"overlay\"").count - 1 == 2 * 2 * 4)
        #expect(html.hasSuffix("</html>\n"))
    }

    @Test func oneQuestionIsExplainedWithoutScores() throws {
        // A failure means that a question without a right answer cannot be looked at.
        let result = try Command.run(
            ["explain", "--image", Files.scene(), "--prompt", "What is in the image?", "--budgets", "0.75", "--json"] + Self.model)
        #expect(result.status == 0, "\(result.errors)")
        let budgets = try #require(try result.json()["budgets"] as? [[String: Any]])
        #expect(budgets.count == 1 && budgets[0]["accuracy"] == nil && budgets[0]["samples"] as? Int == 1)
    }

    @Test(arguments: [
        ([], 64, "--data"), (["--data", "a.json", "--image", "b"], 64, "--data"), (["--image", "a", "--image", "b", "--prompt", "c"], 64, "--prompt"),
        (["--data", "missing.json"], 66, "missing.json"), (["--data", "missing.json", "--limit", "0"], 64, "--limit"),
        (["--image", "missing.png", "--prompt", "what"], 66, "missing.png"), (["--data", "x", "--examples", "-1"], 64, "examples"),
        (["--image", "x", "--prompt", "y", "--budgets", "2"], 64, "2"), (["--image", "x", "--prompt", "y", "--budgets", ","], 64, "budget"),
    ]) func wrongRequestsSayWhatIsExpected(flags: [String], status: Int32, part: String) throws {
        // A failure means that a typing error ends in a trap, or in a message that does not help.
        let result = try Command.run(["explain"] + flags + Self.model)
        #expect(result.status == status && result.errors.contains(part), "\(flags): \(result.status) \(result.errors)")
    }
}
