import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaScenes

/// Scenes of the reference script, against what the script itself draws (`Tests/Fixtures/scenes-reference`, Python 3.11, NumPy 2.4, Pillow 13).
@Suite struct ReferenceScenesTests {
    private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures/scenes-reference")

    @Test("Python's draws are the same for the same seed")
    func pythonDraws() {
        // A mismatch means that the reference set is another one than the model card was scored on.
        var random = PythonRandom("scenes-7-3")
        #expect([random.fraction(), random.fraction()] == [0.6513236531693642, 0.474501593056441])
        #expect((0 ..< 8).map { _ in random.integer(0 ... 9) } == [0, 0, 2, 6, 8, 3, 3, 9])
        #expect(random.sample(Array(0 ..< 9), count: 2) == [4, 8])
        #expect(random.choice(Array("abcdef")) == "d")
        var list = Array(0 ..< 6)
        random.shuffle(&list)
        #expect(list == [5, 0, 4, 3, 1, 2])
    }

    @Test("NumPy's normal draws are the same for the same seed, those of the tail too")
    func numPyDraws() {
        // A mismatch means that noisy grounds of the reference set are others than the script's.
        var random = NumPyRandom([7, 3])
        let values = (0 ..< 100_000).map { _ in random.normal() }
        for (found, expected) in zip(values, [-1.667279, 0.06387511, 1.49463221, -1.12839525, -0.41154969]) { #expect(abs(found - expected) < 1e-7) }
        #expect(abs(values.reduce(0, +) - 454.9318479571519) < 1e-6 && abs((values.last ?? 0) - 0.7133734213154035) < 1e-9)
        #expect(abs((values.map(abs).max() ?? 0) - 4.656741052698083) < 1e-9)
        // A seed of more than 32 bits.
        var large = NumPyRandom([1 << 40, 3])
        #expect(abs(large.normal() + 0.55037542) < 1e-7 && abs(large.normal() + 2.21565903) < 1e-7)
    }

    @Test("Questions and answers are the script's")
    func questions() throws {
        // A mismatch means that the card's scores cannot be had with the command that the documentation names.
        let expected = try JSONDecoder().decode([[String]].self, from: Data(contentsOf: Self.fixtures.appendingPathComponent("questions.json")))
        let scenes = try ReferenceScenes(seed: 1_000_001)
        #expect(expected.count == 200)
        for (index, record) in expected.enumerated() {
            let scene = try scenes.scene(index)
            #expect([scene.task.rawValue, scene.question, scene.answer] == record, "scene \(index)")
        }
    }

    @Test("Pictures are the script's, but for edges of shapes and letters", arguments: 0 ..< 8)
    func pictures(index: Int) throws {
        // A mismatch means that things are drawn elsewhere, in another size or on another ground.
        let expected = try RGBImage(contentsOf: Self.fixtures.appendingPathComponent("0\(index).png").path)
        let found = try ReferenceScenes(seed: 1_000_001).scene(index).image
        #expect((found.width, found.height) == (expected.width, expected.height))
        let differences = zip(found.pixels, expected.pixels).map { abs(Int($0) - Int($1)) }
        let mean = Double(differences.reduce(0, +)) / Double(differences.count)
        #expect(mean < 1, "scene \(index): mean difference \(mean)")
        let far = Double(differences.count { $0 > 24 }) / Double(differences.count)
        #expect(far < 0.02, "scene \(index): \(far) of all values differ by more than 24")
    }

    @Test("A set of reference scenes is written, and not with what the script has not")
    func isWritten() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ada-reference-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try await SceneDataset.write(to: folder, .init(count: 3, seed: 1_000_001, split: "val", reference: true))
        let records = try JSONDecoder().decode([SceneDataset.Record].self, from: Data(contentsOf: folder.appendingPathComponent("val.json")))
        let scene = try ReferenceScenes(seed: 1_000_001).scene(2)
        #expect(records.count == 3 && records[2].conversations.map(\.value) == ["<image>\n" + scene.question, scene.answer])
        for options in [
            SceneDataset.Options(count: 1, seed: 1, turns: 2, reference: true), .init(count: 1, seed: 1, size: 224, reference: true),
            .init(count: 1, seed: 1, regions: true, reference: true), .init(count: 1, seed: 1, separate: 1, reference: true),
        ] {
            await #expect { try await SceneDataset.write(to: folder, options) } throws: { ($0 as? SceneError)?.category == .usage }
        }
    }
}
