import Foundation
import Testing

/// A picture that is a little damaged: the commands that answer refuse it, those that score and compare read it.
@Suite struct DamagedImageTests {
    private static let picture = Files.fixture("image-files/damaged-short-segment.jpg").path
    private static let model = ["--model", Files.referenceModel.path]

    // A failure means that damage is passed over in silence, or that nobody learns how to read the picture anyway.
    @Test("ask refuses it unless --lenient is given, and warns then") func ask() throws {
        let question = [Self.picture, "What?", "--max-tokens", "2"] + Self.model
        try expectFailure(["ask"] + question, status: 65, saying: ["damaged-short-segment.jpg", "damaged", "--lenient"])
        let lenient = try Command.run(["ask", "--lenient"] + question)
        #expect(lenient.status == 0 && lenient.errors.contains("warning") && lenient.errors.contains("damaged-short-segment.jpg"), "\(lenient.errors)")
    }

    @Test("chat refuses it as an option and in a line, and goes on") func chat() throws {
        try expectFailure(["chat", "--image", Self.picture] + Self.model, status: 65, saying: ["--lenient"])
        let lines = Data("/image \(Self.picture)\nWhat?\n".utf8)
        let strict = try Command.run(["chat", "--max-tokens", "2"] + Self.model, input: lines)
        #expect(strict.status == 65 && strict.errors.contains("--lenient") && !strict.errors.contains("image added"))
        let lenient = try Command.run(["chat", "--lenient", "--max-tokens", "2"] + Self.model, input: lines)
        #expect(lenient.status == 0 && lenient.errors.contains("warning") && lenient.errors.contains("image added"))
    }

    // A failure means that a benchmark with one such file can never be finished.
    @Test("trace, eval and explain read it, name it and count it") func scored() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("t.safetensors").path
            let trace = try Command.run(
                ["trace", Files.fixture("ada-L").path, "--image", Self.picture, "--tokens", "1,-200,5", "--max-tokens", "1", "--output", output])
            #expect(trace.status == 0 && trace.errors.contains("warning"))
            try FileManager.default.copyItem(atPath: Self.picture, toPath: folder.appendingPathComponent("x.jpg").path)
            let list = folder.appendingPathComponent("val.json")
            try Data(
                #"[{"id": "a", "task": "vqa", "image": "x.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]}]"#.utf8
            ).write(to: list)
            for command in [["eval", "--task", "scenes", "--budgets", "1,0.6"], ["explain", "--budgets", "1,0.6"]] {
                let result = try Command.run(command + ["--data", list.path, "--json"] + Self.model)
                #expect(result.status == 0, "\(result.errors)")
                #expect(result.errors.components(separatedBy: "x.jpg").count == 2, "named once: \(result.errors)")
                let object = try result.json()
                let counts = (object["results"] as? [[String: Any]] ?? [object]).compactMap { $0["damaged_images"] as? Int }
                #expect(counts == [Int](repeating: 1, count: counts.count) && !counts.isEmpty)
            }
        }
    }
}
