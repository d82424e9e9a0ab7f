import AdaLLaVA
import Foundation
import Testing

@testable import AdaScenes

private let generator = Result { try SceneGenerator(seed: 11, level: 2) }

/// What scene `index` shows, without pixels.
private func drawn(_ index: Int, seed: UInt64 = 11) throws -> (scene: GridScene, first: SceneQuestion, placed: [SceneRenderer.Placed]) {
    var (scene, first, random) = SceneGenerator.grid(seed: seed, index: index)
    return (scene, first, try generator.get().renderer.place(scene, &random))
}

@Suite struct GridSceneTests {
    @Test("Scenes of level 1 are byte for byte those that the embedded models were trained on")
    func levelOneIsUnchanged() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ada-level-1-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try await SceneDataset.write(to: folder, .init(count: 60, seed: 5, split: "level-1", turns: 3, regions: true, separate: 4))
        func hash(_ files: [String]) throws -> UInt64 {
            var hash = FNV1a()
            for file in files { for byte in try Data(contentsOf: folder.appendingPathComponent(file)) { hash.add(UInt64(byte)) } }
            return hash.value
        }
        let images = try FileManager.default.contentsOfDirectory(atPath: folder.appendingPathComponent("images").path).sorted()
        #expect(images.count == 60)
        #expect(try hash(["level-1.json", "level-1-separate.json"]) == 0x5153_4E35_498E_F40C)
        // With the FreeType and the fonts of Debian 12.
        #expect(try hash(images.map { "images/" + $0 }) == 0x5190_E2F1_7243_309B)
    }

    @Test("Each question of level 2 has the one right answer that its drawn scene gives")
    func answersFollowFromTheScene() throws {
        let renderer = try generator.get().renderer
        var random = SceneRandom(seed: 3, index: 0)
        for index in 0..<300 {
            let (scene, first, placed) = try drawn(index)
            let oracle = GridOracle(renderer.regions(placed))
            let questions = GridQuestions(scene: scene).draw(6, following: first, &random)
            #expect(questions[0] == first && Set(questions.map(\.question)).count == questions.count)
            for question in questions {
                #expect(scene.kind.tasks.contains(question.task))
                #expect(oracle.answer(to: question.question) == question.answer, "scene \(index): \(question.question)")
            }
        }
    }

    @Test("A chain of n relations takes n steps, each to a neighbouring cell that holds something")
    func chainsHaveTheirLength() throws {
        var random = SceneRandom(seed: 4, index: 0)
        for (length, task) in [SceneTask.chain1, .chain2, .chain3, .chain4].enumerated() {
            for _ in 0..<20 {
                let scene = GridScene(for: task, &random)
                guard let question = GridQuestions(scene: scene).question(task, &random) else { continue }
                #expect(question.question.components(separatedBy: "just ").count - 1 == length + 1)
                #expect(!question.question.hasSuffix("the \(question.answer)?"))
            }
        }
    }

    @Test("All tasks of level 2 are as frequent, and the question's text alone does not tell the answer")
    func textAloneDoesNotAnswer() throws {
        var answers: [SceneTask: [String: [String: Int]]] = [:]
        let names = Set(Pictogram.all.flatMap { [$0.name, $0.plural] } + SceneShape.allCases.flatMap { [$0.rawValue, $0.plural] }
            + SceneColour.allCases.map(\.rawValue))
        let count = 4000
        for index in 0..<count {
            let (_, first, _) = SceneGenerator.grid(seed: 12, index: index)
            // Of chains only the length: there are more ways than scenes.
            let isChain = first.task.rawValue.hasPrefix("chain")
            let form = isChain ? "" : first.question.split(separator: " ").map { word in
                names.contains(word.trimmingCharacters(in: .punctuationCharacters)) ? "X" : String(word)
            }.joined(separator: " ")
            answers[first.task, default: [:]][form, default: [:]][first.answer, default: 0] += 1
        }
        let tasks = SceneTask.tasks(level: 2)
        #expect(Set(answers.keys) == Set(tasks))
        for task in tasks {
            let forms = answers[task] ?? [:]
            let all = forms.values.reduce(0) { $0 + $1.values.reduce(0, +) }
            #expect(abs(Double(all) / Double(count) - 1 / Double(tasks.count)) < 0.025, "\(task.rawValue)")
            // Who knows the most frequent answer to each form of question.
            let guessed = Double(forms.values.reduce(0) { $0 + ($1.values.max() ?? 0) }) / Double(all)
            let limit = GridSceneTests.guessLimits[task] ?? 0.12
            #expect(guessed < limit, "\(task.rawValue): \(guessed)")
        }
    }

    /// Two or four answers can be guessed as often as they are few; names and words hardly ever.
    private static let guessLimits: [SceneTask: Double] = [.compare: 0.5, .negation: 0.4, .count: 0.2, .sum: 0.12, .change: 0.25]

    @Test("Everything of level 2 is drawn whole, in its cell")
    func thingsAreWhole() throws {
        for index in 0..<150 {
            let (scene, _, placed) = try drawn(index)
            for (number, item) in placed.enumerated() {
                #expect(item.left >= -1 && item.left + item.tile.width <= 113, "scene \(index): \(item.thing)")
                #expect(item.top >= -1 && item.top + item.tile.height <= 113, "scene \(index): \(item.thing)")
                #expect(max(item.tile.width, item.tile.height) >= 16, "scene \(index): \(item.thing)")
                for other in placed[(number + 1)...] {
                    let overlapX = min(item.left + item.tile.width, other.left + other.tile.width) - max(item.left, other.left)
                    let overlapY = min(item.top + item.tile.height, other.top + other.tile.height) - max(item.top, other.top)
                    #expect(min(overlapX, overlapY) <= 3, "scene \(index), \(scene.kind): \(item.thing) and \(other.thing)")
                }
            }
        }
    }

    @Test("A set of level 2 names its tasks and is the same each time; other levels are refused")
    func setsOfLevelTwo() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ada-level-2-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try await SceneDataset.write(to: folder, .init(count: 30, seed: 11, split: "val", separate: 5, level: 2))
        func records(_ name: String) throws -> [SceneDataset.Record] {
            try JSONDecoder().decode([SceneDataset.Record].self, from: Data(contentsOf: folder.appendingPathComponent(name)))
        }
        let (plain, separate) = (try records("val.json"), try records("val-separate.json"))
        let tasks = Set(SceneTask.tasks(level: 2).map(\.rawValue))
        for (index, record) in plain.enumerated() {
            let scene = try generator.get().scene(index, separate: 5)
            #expect(tasks.contains(record.task) && record.conversations[1].value == scene.answer)
            #expect(separate[index].conversations.count == 2 * scene.separate.count && scene.separate.first == scene.turns.first)
        }
        await #expect(throws: SceneError.self) { try await SceneDataset.write(to: folder, .init(count: 1, seed: 1, level: 3)) }
        await #expect(throws: SceneError.self) { try await SceneDataset.write(to: folder, .init(count: 1, seed: 1, reference: true, level: 2)) }
    }
}
