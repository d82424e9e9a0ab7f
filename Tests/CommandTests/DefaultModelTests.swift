import Foundation
import Testing

/// The embedded default models, `Models/scenes`.
@Suite struct DefaultModelTests {
    // A failure means that the model which ships is not the one that its card describes: damaged, badly converted, or run by an engine that
    // computes something else than it was trained with. Scores are loose bounds: another version of the fonts changes a few answers.
    @Test("answers as its card says", arguments: [("L", [1.0: 0.80, 0.85: 0.75]), ("H", [1.0: 0.80, 0.85: 0.75])])
    func answersAsItsCardSays(variant: String, bounds: [Double: Double]) throws {
        try withTemporaryFolder { folder in
            let made = try Command.run(["data", "scenes", "--out", folder.path, "--count", "200", "--seed", "1000021", "--split", "test"])
            #expect(made.status == 0, "\(made.errors)")
            let model = Files.root.appendingPathComponent("Models/scenes/\(variant)").path
            let result = try Command.run(
                ["eval", "--task", "scenes", "--data", folder.appendingPathComponent("test.json").path, "--model", model, "--budgets", "1.0,0.85", "--json"])
            #expect(result.status == 0, "\(result.errors)")
            let results = try #require(try result.json()["results"] as? [[String: Any]])
            #expect(results.count == 2)
            for item in results {
                let budget = try #require(item["budget"] as? Double)
                let score = try #require((item["scores"] as? [String: Double])?["exact_match"])
                #expect(score >= bounds[budget] ?? 1, "budget \(budget): \(score)")
            }
        }
    }

    // A failure means that a newcomer's first command finds no model, or another one than the card describes.
    @Test("answers when none is named") func answersWhenNoneIsNamed() throws {
        let result = try Command.run("ask", Files.scene("00"), "How many things are in the image?", "--budget", "0.6", "--json")
        #expect(result.status == 0, "\(result.errors)")
        let adaptive = try #require(try result.json()["adaptive"] as? [String: Any])
        // Two of eight layers always run; four of eight at this budget.
        let heads = try #require(adaptive["attention_heads_per_layer"] as? [Int])
        #expect(heads.count == 8 && heads.prefix(2).allSatisfy { $0 == 6 } && heads.count { $0 > 0 } == 4)
        let named = try Command.run(
            "ask", "--model", Files.root.appendingPathComponent("Models/scenes/L").path, Files.scene("00"), "How many things are in the image?", "--budget", "0.6")
        #expect(named.output.trimmingCharacters(in: .newlines) == (try result.json()["answer"] as? String))
    }
}
