import Foundation
import Testing

/// `--select`, as people give it.
@Suite struct TokenSelectionCommandTests {
    // A failure means that the flag is read and then forgotten, or that a mistake in it is told after minutes.
    @Test("ask leaves image tokens out and says how many stay") func ask() throws {
        let picture = Files.root.appendingPathComponent("Tests/Fixtures/images/im3.png").path
        func run(_ arguments: String...) throws -> [String: Any] {
            let result = try Command.run(["ask", picture, "What is this?", "--json", "--budget", "0.5", "-n", "4"] + arguments)
            #expect(result.status == 0, "\(result.errors)")
            return try result.json()
        }
        let whole = try run(), half = try run("--select", "fastv:k=2,r=0.5"), none = try run("--select", "none", "--select", "fastv:k=1,r=0")
        let adaptive = try #require(half["adaptive"] as? [String: Any])
        #expect(half["image_tokens"] as? Int == 49 && adaptive["image_tokens_kept"] as? Int == 25)
        #expect((whole["adaptive"] as? [String: Any])?["image_tokens_kept"] == nil && whole["tokens"] as? [Int] == none["tokens"] as? [Int])
        for (selection, status, text) in [
            ("fastv:k=3,r=0.5", 64, "k from 1 to 2"), ("fastv:k=2", 64, "fastv:k=K,r=R"), ("prumerge", 65, "no attention to select by"),
        ] {
            let result = try Command.run(["ask", picture, "What is this?", "--select", selection])
            #expect(result.status == status && result.errors.contains(text), "\(result.status) \(result.errors)")
        }
    }

    // A failure means that other tokens are kept than those that the question is about: dropping all of them must fail, and so must dropping by chance. Scored
    // on questions about kinds, places and numbers; the embedded 49-token model has read its tokens after one layer, so `scenes-ref` is asked.
    @Test("choosing tokens answers better than chance, and none answer nothing") func selectingBeatsChance() throws {
        try withTemporaryFolder { folder in
            let made = try Command.run(["data", "scenes", "--reference", "--out", folder.path, "--split", "val", "--count", "200", "--seed", "1000001"])
            #expect(made.status == 0, "\(made.errors)")
            func score(_ selection: String) throws -> Double {
                let result = try Command.run(
                    ["eval", "--task", "scenes", "--data", folder.path, "--model", Files.root.appendingPathComponent("Models/scenes-ref").path, "--select", selection, "--json"])
                #expect(result.status == 0, "\(result.errors)")
                let results = try #require(try result.json()["results"] as? [[String: Any]])
                return try #require((results.first?["scores"] as? [String: Double])?["vqa"])
            }
            let whole = try score("none"), chosen = try score("fastv:k=3,r=0.9")
            let random = try score("fastv:k=3,r=0.9,by=random"), nothing = try score("fastv:k=2,r=1")
            #expect(chosen - random >= 0.05, "\(chosen) beside \(random)")
            #expect(whole - nothing >= 0.25 && chosen - nothing >= 0.2, "\(whole), \(chosen), \(nothing)")
        }
    }

    @Test("analyze counts what stays") func analyze() throws {
        func flops(_ arguments: String...) throws -> Double {
            let result = try Command.run(["analyze", "--shape", "llava-1.5-7b", "--prompt-tokens", "600", "--json"] + arguments)
            return try #require(try result.json()["prefill_flops"] as? Double)
        }
        let share = try flops("--select", "fastv:k=3,r=0.5") / flops()
        #expect(abs(share - 0.57) <= 0.02)
        #expect(try flops("--select", "fastv:k=3,r=0.5", "--image-tokens", "100") > flops("--select", "fastv:k=3,r=0.5"))
    }
}
