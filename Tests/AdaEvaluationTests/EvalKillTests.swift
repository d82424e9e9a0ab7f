import Foundation
import Testing

@testable import AdaEvaluation

/// The command itself, killed without warning.
@Suite struct EvalKillTests {
    /// The `adallava` that was built beside the tests.
    private static func executable() throws -> URL {
        let runner = URL(fileURLWithPath: Bundle.main.executablePath ?? CommandLine.arguments[0]).resolvingSymlinksInPath()
        var folders = [runner.deletingLastPathComponent()]
        for argument in CommandLine.arguments where argument.contains(".xctest") {
            folders.append(URL(fileURLWithPath: argument).resolvingSymlinksInPath().deletingLastPathComponent())
        }
        let found = folders.map { $0.appendingPathComponent("adallava") }.first { FileManager.default.isExecutableFile(atPath: $0.path) }
        return try #require(found, "no adallava in \(folders.map(\.path))")
    }

    private static func start(_ data: URL, _ output: URL) throws -> Process {
        let process = Process()
        process.executableURL = try executable()
        process.currentDirectoryURL = Samples.root
        process.arguments = [
            "eval", "--task", "scenes", "--data", data.path, "--output", output.path, "--budgets", "1,0.85,0.6", "--max-tokens", "8", "--json",
        ]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        return process
    }

    private static func size(_ file: URL) -> Int {
        (try? FileManager.default.attributesOfItem(atPath: file.path)[.size] as? Int) ?? 0
    }

    /// The result without what a clock measured.
    private static func result(_ folder: URL) throws -> NSDictionary {
        let data = try Data(contentsOf: folder.appendingPathComponent("result.json"))
        var object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        let results = try #require(object["results"] as? [[String: Any]])
        object["results"] = results.map { $0.filter { $0.key != "measured" } }
        return object as NSDictionary
    }

    // A failure means that a run which is killed loses answers, counts some twice, or ends with other scores than an undisturbed one.
    @Test("a run that is killed twenty times ends with the scores of an undisturbed one") func survivesTwentyKills() async throws {
        try await Samples.withFolder { folder in
            // The tiny set repeated, so that there is something to interrupt.
            let list = try Data(contentsOf: Samples.url("scenes/val.json"))
            let records = try #require(try JSONSerialization.jsonObject(with: list) as? [[String: Any]])
            let repeated = (0..<60).flatMap { round in
                records.map { record in record.merging(["id": "\(record["id"] ?? "")-\(round)"]) { $1 } }
            }
            let data = folder.appendingPathComponent("val.json")
            try JSONSerialization.data(withJSONObject: repeated).write(to: data)
            try FileManager.default.createSymbolicLink(
                at: folder.appendingPathComponent("images"), withDestinationURL: Samples.url("scenes/images"))

            let undisturbed = folder.appendingPathComponent("undisturbed")
            let first = try Self.start(data, undisturbed)
            first.waitUntilExit()
            try #require(first.terminationStatus == 0)

            let killed = folder.appendingPathComponent("killed")
            let log = killed.appendingPathComponent("answers.jsonl")
            var random = Fingerprint(20)
            var interrupted = 0
            for kill in 0..<20 {
                random = random.adding("\(kill)")
                let process = try Self.start(data, killed)
                // Blocking sleeps: a task's would wait for the threads that other tests hold, and the run would end meanwhile.
                if kill.isMultiple(of: 2) {
                    // Anywhere, also while the model loads or the folder is being prepared.
                    usleep(UInt32(random.value % 40) * 1000)
                } else {
                    // Just after, or while, some more lines are written.
                    let target = Self.size(log) + Int(random.value % 1500)
                    while process.isRunning, Self.size(log) < target { usleep(1000) }
                }
                if process.isRunning { interrupted += 1 }
                Foundation.kill(process.processIdentifier, SIGKILL)
                process.waitUntilExit()
                // What a power cut leaves: the start of a line.
                if kill % 3 == 1, FileManager.default.fileExists(atPath: log.path) {
                    let handle = try FileHandle(forWritingTo: log)
                    try handle.seekToEnd()
                    try handle.write(contentsOf: Data("{\"answer\":\"The image sh".utf8))
                    try handle.close()
                }
            }
            // Otherwise the set is too small for this machine and nothing was tested.
            #expect(interrupted >= 10)
            let last = try Self.start(data, killed)
            last.waitUntilExit()
            #expect(last.terminationStatus == 0)

            #expect(try Self.result(killed) == Self.result(undisturbed))
            let (_, records1) = try AnswerLog.read(folder: undisturbed)
            let (_, records2) = try AnswerLog.read(folder: killed)
            #expect(records2.count == repeated.count * 3)
            #expect(Set(records2.map(\.key)).count == records2.count)
            #expect(records1.map { [$0.id, "\($0.budget)", $0.answer] } == records2.map { [$0.id, "\($0.budget)", $0.answer] })
        }
    }
}
