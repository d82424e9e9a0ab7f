import Foundation
import Testing

/// `adallava explain` on the embedded model.
@Suite struct ExplainTests {
    private static let model = ["--model", Files.referenceModel.path]

    @Test("a set is explained") func aSetIsExplained() async throws {
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
            #expect(budget["mean_hamming"] is Double)
            // As documented: [layers][2][heads].
            let frequencies = try #require(budget["switch_frequencies"] as? [[[Double]]])
            #expect(frequencies.count == 8 && frequencies.allSatisfy { $0.count == 2 && $0.allSatisfy { $0.count == 6 } })
            #expect(frequencies.prefix(4).joined().joined().allSatisfy { $0 == 1 })
        }
        #expect(budgets[0]["mean_hamming"] as? Double == 0)
        let examples = try #require(try result.json()["examples"] as? [[String: Any]])
        #expect(examples.count == 2 && (examples[0]["attention"] as? [[String: Any]])?.count == 2)
        let html = try String(contentsOf: page, encoding: .utf8)
        // Two examples, two budgets: the last prefix layer, and then each of the four.
        #expect(html.components(separatedBy: "class=\"overlay\"").count - 1 == 2 * 2 * 5)
        #expect(html.hasSuffix("</html>\n"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == ["few.json", "images", "page.html"])
    }

    @Test("questions are explained without scores") func questionsAreExplainedWithoutScores() throws {
        // A failure means that questions without right answers cannot be looked at.
        let one = try Command.run(
            ["explain", "--image", Files.scene(), "--prompt", "What is in the image?", "--budgets", "0.75", "--json"] + Self.model)
        #expect(one.status == 0, "\(one.errors)")
        let budgets = try #require(try one.json()["budgets"] as? [[String: Any]])
        #expect(budgets.count == 1 && budgets[0]["accuracy"] == nil && budgets[0]["samples"] as? Int == 1)
        // A prompt may look like an option.
        let two = try Command.run(
            ["explain", "--image", Files.scene(), "--prompt", "--what?", "--image", Files.scene("01"), "--prompt", "What?", "--budgets", "0.75"] + Self.model)
        #expect(two.status == 0 && two.output.contains("≠ swapped"), "\(two.errors)")
    }

    // A failure means that a long study cannot be stopped, or that a stopped one leaves a page that looks whole.
    @Test("a study can be stopped") func aStudyCanBeStopped() throws {
        try withTemporaryFolder { folder in
            let list = folder.appendingPathComponent("list.json")
            let record = """
                {"id": "x", "image": "a.png", "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "a"}]}
                """
            try Data("[\([String](repeating: record, count: 100_000).joined(separator: ","))]".utf8).write(to: list)
            try FileManager.default.copyItem(atPath: Files.scene(), toPath: folder.appendingPathComponent("a.png").path)
            let page = folder.appendingPathComponent("page.html")
            let process = Command.process(["explain", "--data", list.path, "--budgets", "0.75", "--output", page.path] + Self.model)
            let (output, errors) = (Pipe(), Pipe())
            (process.standardOutput, process.standardError, process.standardInput) = (output, errors, FileHandle.nullDevice)
            try process.run()
            var messages = Data()
            while messages.range(of: Data("answering".utf8)) == nil {
                let piece = errors.fileHandleForReading.availableData
                if piece.isEmpty { break }
                messages.append(piece)
            }
            process.interrupt()
            messages.append(errors.fileHandleForReading.readDataToEndOfFile())
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 130)
            #expect(String(decoding: messages, as: UTF8.self).hasSuffix("adallava: stopped\n"))
            #expect(output.fileHandleForReading.readDataToEndOfFile().isEmpty)
            #expect(!FileManager.default.fileExists(atPath: page.path))
        }
    }

    @Test("wrong requests say what is expected", arguments: [
        ([], 64, "--data"), (["--data", "a.json", "--image", "b"], 64, "--data"), (["--image", "a", "--image", "b", "--prompt", "c"], 64, "--prompt"),
        (["--data", "missing.json"], 66, "missing.json"), (["--data", "missing.json", "--limit", "0"], 64, "--limit"),
        (["--image", "missing.png", "--prompt", "what"], 66, "missing.png"), (["--data", "x", "--examples", "-1"], 64, "examples"),
        (["--image", Files.scene(), "--prompt", "what", "--output", "/nowhere/page.html"], 74, "/nowhere"),
        (["--image", Files.scene(), "--prompt", "what", "--budgets", "0.75,0.75"], 64, "different budgets"),
        (["--image", "x", "--prompt", "y", "--budgets", "400ms"], 64, "400ms"), (["--prompt", "y"], 64, "--image"),
        (["--image", "x", "--prompt", "y", "--budgets", "2"], 64, "2"), (["--image", "x", "--prompt", "y", "--budgets", ","], 64, "budget"),
    ]) func wrongRequestsSayWhatIsExpected(flags: [String], status: Int32, part: String) throws {
        // A failure means that a typing error ends in a trap, or in a message that does not help.
        let result = try Command.run(["explain"] + flags + Self.model)
        #expect(result.status == status && result.errors.contains(part), "\(flags): \(result.status) \(result.errors)")
    }
}
