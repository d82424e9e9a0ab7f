import Foundation
import Testing

/// `adallava data scenes` and `adallava eval` together.
@Suite struct EvalCommandTests {
    private static let model = ["-m", Files.referenceModel.path]

    @Test("What data scenes writes is what eval reads: sets, folders, several questions a picture, the reference script's scenes", arguments: [
        ([], "", 4 ... 4), (["--turns", "3"], "", 5 ... 12), (["--separate", "3"], "val-separate.json", 5 ... 12),
        (["--reference"], "val.json", 4 ... 4),
    ] as [([String], String, ClosedRange<Int>)])
    func readsWhatIsWritten(flags: [String], list: String, count: ClosedRange<Int>) throws {
        try withTemporaryFolder { folder in
            let made = try Command.run(["data", "scenes", "--out", folder.path, "--count", "4", "--seed", "1000001", "--split", "val"] + flags)
            #expect(made.status == 0, "\(made.errors)")
            let data = list.isEmpty ? folder.path : folder.appendingPathComponent(list).path
            let result = try Command.run(["eval", "--task", "scenes", "--data", data, "--json"] + Self.model)
            #expect(result.status == 0, "\(flags): \(result.errors)")
            let first = try #require((try result.json()["results"] as? [[String: Any]])?.first)
            let samples = try #require(first["samples"] as? Int)
            #expect(count.contains(samples), "\(samples) samples")
            let statistics = (first["score_statistics"] as? [String: [String: Any]])?["exact_match"]
            #expect(statistics?["n"] as? Int == samples)
        }
    }

    @Test("--quiet leaves the scores alone, and --output of data scenes is its --out")
    func quiet() throws {
        try withTemporaryFolder { folder in
            let made = try Command.run("data", "scenes", "--output", folder.path, "--count", "2", "--seed", "1000001", "--split", "val")
            #expect(made.status == 0, "\(made.errors)")
            let run = folder.appendingPathComponent("run").path
            let result = try Command.run(["eval", "--task", "scenes", "--data", folder.path, "--output", run, "-q"] + Self.model)
            #expect(result.status == 0 && result.errors.isEmpty && result.output.contains("exact_match"), "\(result)")
        }
    }

    @Test("Samples take turns in which budget comes first, whatever the order of --budgets", arguments: ["1.0,0.5", "0.5,1.0"])
    func takesTurns(budgets: String) throws {
        try withTemporaryFolder { folder in
            #expect(try Command.run(["data", "scenes", "--out", folder.path, "--count", "4", "--seed", "1000001", "--split", "val"]).status == 0)
            let output = folder.appendingPathComponent("run")
            let result = try Command.run(
                ["eval", "--task", "scenes", "--data", folder.path, "--budgets", budgets, "--output", output.path] + Self.model)
            #expect(result.status == 0, "\(result.errors)")
            let lines = try String(contentsOf: output.appendingPathComponent("answers.jsonl"), encoding: .utf8).split(separator: "\n")
            let records = try lines.map { try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]) }
            #expect(records.count == 8)
            // Each sample begins with another budget.
            let first = stride(from: 0, to: 8, by: 2).compactMap { records[$0]["budget"] as? Double }
            #expect(first.count == 4 && first[0] == first[2] && first[1] == first[3] && first[0] != first[1])
        }
    }

    // A failure means that Ctrl-C throws away what was answered, or ends as if all had been.
    @Test("Ctrl-C prints the scores so far, or says that a kept run goes on", .timeLimit(.minutes(2)), arguments: [false, true])
    func stops(keeps: Bool) throws {
        try withTemporaryFolder { folder in
            // One picture under many names: a run of minutes without minutes of drawing.
            let records = (0 ..< 40_000).map { number in
                """
                {"id": "\(number)", "image": "a.png", "task": "vqa", "conversations": [{"from": "human", "value": "<image>\\nWhat is in the image?"}, \
                {"from": "gpt", "value": "cat"}]}
                """
            }
            try Data("[\(records.joined(separator: ","))]".utf8).write(to: folder.appendingPathComponent("val.json"))
            try FileManager.default.copyItem(atPath: Files.scene("05"), toPath: folder.appendingPathComponent("a.png").path)
            let output = folder.appendingPathComponent("run")
            let process = Command.process(
                ["eval", "--task", "scenes", "--data", folder.path, "--json"] + Self.model + (keeps ? ["--output", output.path] : []))
            let (answers, errors) = (Pipe(), Pipe())
            (process.standardOutput, process.standardError, process.standardInput) = (answers, errors, FileHandle.nullDevice)
            try process.run()
            var messages = Data()
            while !String(decoding: messages, as: UTF8.self).contains("answering: ") {
                let piece = errors.fileHandleForReading.availableData
                messages.append(piece)
                if piece.isEmpty { break }
            }
            process.interrupt()
            let result = answers.fileHandleForReading.readDataToEndOfFile()
            messages.append(errors.fileHandleForReading.readDataToEndOfFile())
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 130)
            let text = String(decoding: messages, as: UTF8.self)
            if keeps {
                #expect(result.isEmpty && text.contains("answers are kept") && FileManager.default.fileExists(atPath: output.appendingPathComponent("answers.jsonl").path))
            } else {
                let object = try #require(try JSONSerialization.jsonObject(with: result) as? [String: Any])
                let samples = (object["results"] as? [[String: Any]])?.first?["samples"] as? Int ?? 0
                #expect(object["complete"] as? Bool == false && samples > 0 && samples < 40_000, "\(samples)")
                #expect(text.contains("stopped; the scores are those of the answers so far"))
            }
        }
    }
}
