import Foundation
import Testing

/// `adallava auto` and budgets of `auto`.
@Suite struct AutoTests {
    @Test("labels are made, a head is fitted and added, and ask and eval follow it")
    func aHeadIsMade() throws {
        try withTemporaryFolder { folder in
            func run(_ arguments: [String]) throws -> CommandResult {
                let result = try Command.run(arguments)
                try #require(result.status == 0, "\(arguments): \(result.errors)")
                return result
            }
            let model = folder.appendingPathComponent("model").path
            try FileManager.default.copyItem(atPath: Files.referenceModel.path, toPath: model)
            let data = folder.appendingPathComponent("data").path
            _ = try run(["data", "scenes", "--out", data, "--count", "24", "--seed", "31", "--split", "fit"])
            let labels = folder.appendingPathComponent("labels.safetensors").path
            let refused = try Command.run("ask", "--model", model, Files.scene("00"), "What is in the image?", "--budget", "auto")
            #expect(refused.status == 64 && refused.errors.contains("has no budget head"))
            _ = try run(["auto", "label", "--model", model, "--data", data, "--output", labels, "--limit", "20"])
            let scored = try run(["auto", "fit", "--model", model, "--labels", labels, "--calibration", labels, "--test", labels, "--dry-run", "--json"])
            let tests = try #require(try scored.json()["tests"] as? [[String: Any]])
            let study = try #require(tests.first?["study"] as? [String: Any])
            #expect(study["inputs"] as? Int == 20 && (study["fixed"] as? [Any])?.count == 5)
            #expect(try Command.run("ask", "--model", model, Files.scene("00"), "What is in the image?", "--budget", "auto").status == 64)
            _ = try run(["auto", "fit", "--model", model, "--labels", labels, "--calibration", labels])
            let asked = try run(["ask", "--model", model, Files.scene("00"), "What is in the image?", "--budget", "auto", "--json"])
            let adaptive = try #require(try asked.json()["adaptive"] as? [String: Any])
            let units = try #require(adaptive["units"] as? Int)
            #expect(adaptive["budget"] as? String == "auto" && (0 ... 4).contains(units))
            let fixed = try run(["ask", "--model", model, Files.scene("00"), "What is in the image?", "--budget", "\(Double(4 + units) / 8)", "--json"])
            #expect(try fixed.json()["tokens"] as? [Int] == (try asked.json()["tokens"] as? [Int]))
            let evaluated = try run(["eval", "--task", "scenes", "--data", data, "--model", model, "--budgets", "1,auto,auto:mean=0.6", "--limit", "6", "--json"])
            let results = try #require(try evaluated.json()["results"] as? [[String: Any]])
            #expect(results.map { "\($0["budget"] ?? "")" } == ["1", "auto", "auto:mean=0.6"])
            #expect(results.allSatisfy { (0.5 ... 1).contains($0["executed_share"] as? Double ?? 0) })
        }
    }

    @Test("wrong labels and wrong models are told")
    func refusals() throws {
        try withTemporaryFolder { folder in
            let junk = folder.appendingPathComponent("junk.safetensors")
            try Data("junk".utf8).write(to: junk)
            let broken = try Command.run(["auto", "fit", "--model", Files.referenceModel.path, "--labels", junk.path, "--calibration", junk.path])
            #expect(broken.status == 65 && broken.errors.contains("junk.safetensors"))
            let missing = try Command.run(["auto", "fit", "--model", Files.referenceModel.path, "--labels", "nowhere", "--calibration", junk.path])
            #expect(missing.status == 66)
            let budget = try Command.run("ask", Files.scene("00"), "What?", "--budget", "auto:0.4")
            #expect(budget.status == 64 && budget.errors.contains("auto:mean=0.4"))
            #expect(try Command.run("explain", "--data", "x.json", "--budgets", "auto").status == 64)
        }
    }
}
