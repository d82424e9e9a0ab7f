import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaScenes

@Suite struct SceneDatasetTests {
    private func temporaryFolder() -> URL {
        FileManager.default.temporaryDirectory.appendingPathComponent("ada-scenes-\(UUID().uuidString)")
    }

    private func records(_ folder: URL, _ split: String) throws -> [SceneDataset.Record] {
        try JSONDecoder().decode([SceneDataset.Record].self, from: Data(contentsOf: folder.appendingPathComponent(split + ".json")))
    }

    @Test("dataset has LLaVA's format") func datasetHasLLaVAsFormat() async throws {
        // A failure means that the trainer, or anybody's LLaVA script, cannot read the set.
        let folder = temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try await SceneDataset.write(to: folder, .init(count: 40, seed: 3, split: "val"))
        let records = try records(folder, "val")
        #expect(records.map(\.id) == (0..<40).map { "val-0000" + ($0 < 10 ? "0" : "") + "\($0)" })
        #expect(records[39].image == "images/val-000039.jpg")
        #expect(
            records.allSatisfy { $0.conversations.map(\.from) == ["human", "gpt"] && $0.conversations[0].value.hasPrefix("<image>\n") })
        #expect(records.allSatisfy { $0.regions == nil })
        let scene = try SceneGenerator(seed: 3).scene(39)
        #expect(records[39].conversations[1].value == scene.answer && records[39].task == scene.task.rawValue)
        let image = try RGBImage(contentsOf: folder.appendingPathComponent(records[39].image).path)
        #expect(image.width == 112 && image.height == 112)
        let difference = zip(image.pixels, scene.image.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
        #expect(difference / image.pixels.count < 8)
        let bytes = try Data(contentsOf: folder.appendingPathComponent(records[0].image))
        try await SceneDataset.write(to: folder, .init(count: 1, seed: 3, split: "val"))
        #expect(try Data(contentsOf: folder.appendingPathComponent(records[0].image)) == bytes)
        #expect(try self.records(folder, "val").count == 1)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == ["images", "val.json"])
    }

    @Test("turns and regions are written") func turnsAndRegionsAreWritten() async throws {
        // A failure means that training on conversations or on boxes gets other data than the generator makes, or in another order.
        let folder = temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try await SceneDataset.write(to: folder, .init(count: 70, seed: 9, turns: 4, regions: true))
        let records = try records(folder, "train")
        let generator = try SceneGenerator(seed: 9)
        #expect(records.count == 70)
        for (index, record) in records.enumerated() {
            let scene = try generator.scene(index, turns: 4)
            #expect(record.task == scene.turns[0].task.rawValue && record.regions == scene.regions)
            #expect(record.conversations.map(\.from) == scene.turns.flatMap { _ in ["human", "gpt"] })
            let values = scene.turns.enumerated().flatMap { [($0 == 0 ? "<image>\n" : "") + $1.question, $1.answer] }
            #expect(record.conversations.map(\.value) == values)
        }
        // Each question by itself, about the same pictures.
        try await SceneDataset.write(to: folder, .init(count: 70, seed: 9, turns: 4, regions: true, separate: 5))
        let separate = try self.records(folder, "train-separate")
        #expect(try self.records(folder, "train") == records)
        #expect(separate.map(\.id) == records.map(\.id))
        for (index, (record, own)) in zip(records, separate).enumerated() {
            let questions = try generator.scene(index, separate: 5).separate
            #expect((1...5).contains(questions.count) && Set(questions.map(\.question)).count == questions.count)
            #expect(own.image == record.image && own.task == questions[0].task.rawValue && own.regions == record.regions)
            let values = questions.enumerated().flatMap { [($0 == 0 ? "<image>\n" : "") + $1.question, $1.answer] }
            #expect(own.conversations.map(\.value) == values)
        }
        // The bytes must not depend on which batch ended first.
        let list = try Data(contentsOf: folder.appendingPathComponent("train.json"))
        try await SceneDataset.write(to: folder, .init(count: 70, seed: 9, turns: 4, regions: true))
        #expect(try Data(contentsOf: folder.appendingPathComponent("train.json")) == list)
        #expect(list.split(separator: UInt8(ascii: "\n")).count == 72)
    }

    @Test("interrupted writing leaves no list") func interruptedWritingLeavesNoList() async throws {
        // A failure means that a set broken off with Ctrl-C looks complete, or mixes pictures of two seeds under one list.
        let folder = temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try await SceneDataset.write(to: folder, .init(count: 2, seed: 1))
        let task = Task {
            try await SceneDataset.write(to: folder, .init(count: 5_000, seed: 2)) { progress in
                if progress.done > 0 { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["images"])
    }

    @Test("unusable arguments are refused") func unusableArgumentsAreRefused() async throws {
        // A failure means that a mistyped option makes a strange folder or an endless run.
        let folder = temporaryFolder()
        let hostile: [SceneDataset.Options] = [
            .init(count: 0, seed: 1), .init(count: -5, seed: 1), .init(count: .max, seed: 1), .init(count: 1, seed: 1, split: "../up"),
            .init(count: 1, seed: 1, split: ""), .init(count: 1, seed: 1, split: String(repeating: "x", count: 65)),
            .init(count: 1, seed: 1, split: "a\nb"), .init(count: 1, seed: 1, size: 0), .init(count: 1, seed: 1, size: .max),
            .init(count: 1, seed: 1, turns: 0), .init(count: 1, seed: 1, turns: -1), .init(count: 1, seed: 1, turns: .max),
        ]
        for options in hostile {
            await #expect {
                try await SceneDataset.write(to: folder, options)
            } throws: {
                ($0 as? SceneError)?.category == .usage
            }
        }
        #expect(throws: SceneError.self) { try SceneGenerator(seed: 1).scene(0, turns: 17) }
        #expect(!FileManager.default.fileExists(atPath: folder.path))
        // A number that nobody would give must still give a picture.
        #expect(try SceneGenerator(seed: .max).scene(.min).image.width == 112)
        let inFile = URL(fileURLWithPath: #filePath).appendingPathComponent("out")
        await #expect {
            try await SceneDataset.write(to: inFile, .init(count: 1, seed: 1))
        } throws: {
            ($0 as? SceneError)?.category == .inputOutput
        }
    }
}
