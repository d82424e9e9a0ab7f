import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaScenes

private let generator = Result { try SceneGenerator(seed: 7) }

@Suite struct SceneTests {
    @Test func sameSeedAndIndexGiveTheSameScene() throws {
        // A difference means that a training run cannot be repeated, or that sets made in parallel depend on timing.
        let first = try generator.get()
        let second = try SceneGenerator(seed: 7)
        let other = try SceneGenerator(seed: 8)
        for index in [3, 0, 41] { #expect(try first.scene(index) == second.scene(index)) }
        #expect(try first.scene(3) != first.scene(4))
        #expect(try first.scene(3) != other.scene(3))
    }

    @Test func randomNumbersArePinned() {
        // A change means that every set made so far changes with the next release.
        var random = SceneRandom(seed: 1, index: 2)
        var neighbour = SceneRandom(seed: 2, index: 1)
        let numbers = (0..<3).map { _ in random.next() }
        // From SplitMix64's definition, computed apart from this code.
        #expect(numbers == [0xE68E6FC01DF08360, 0x47B76C954434F7E4, 0x01EF44FB588BA575])
        #expect(numbers != (0..<3).map { _ in neighbour.next() })
        let bells = (0..<4000).map { _ in random.bell() }
        let mean = bells.reduce(0, +) / 4000
        let deviation = (bells.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 4000).squareRoot()
        #expect(abs(mean) < 0.06 && abs(deviation - 1) < 0.06)
        #expect(Set((0..<200).map { _ in random.below(5) }) == Set(0..<5))
        #expect(random.shuffled(Array(0..<20)).sorted() == Array(0..<20))
    }

    @Test func answersFollowFromTheThings() throws {
        // A failure means that the model is trained on wrong answers.
        let generator = try generator.get()
        var tasks: [SceneTask: Int] = [:]
        var answers: [String: Int] = [:]
        for index in 0..<1500 {
            var random = SceneRandom(seed: 11, index: index)
            let layout = SceneLayout(random: &random, meanColours: generator.renderer.fonts.meanColours, alphabets: 2)
            let question = SceneQuestions(layout: layout).pick(&random)
            tasks[question.task, default: 0] += 1
            let names = layout.things.map(\.name)
            switch question.task {
            case .pope:
                let asked = question.question.dropFirst("Is there ".count).dropLast(" in the image?".count)
                let name = asked.hasPrefix("an ") ? asked.dropFirst(3) : asked.dropFirst(2)
                #expect(asked.hasPrefix("an ") == "aeiou".contains(name.prefix(1)))
                #expect(question.answer == (names.contains(String(name)) ? "yes" : "no"), "\(question) \(names)")
                answers[question.answer, default: 0] += 1
            case .text:
                #expect(names.contains("word " + question.answer))
            case .choice:
                let lines = question.question.split(separator: "\n")
                let right = lines.filter { $0.contains(". ") && $0.hasPrefix(question.answer) }.map { String($0.dropFirst(3)) }
                #expect(lines.count == 5 && right.count == 1)
                #expect(names.contains { name in right.contains { name == $0 || name.hasPrefix($0 + " ") } }, "\(question) \(names)")
                let options = lines[1...3].map { String($0.dropFirst(3)) }
                #expect(options.filter { option in names.contains { $0 == option || $0.hasPrefix(option + " ") } }.count == 1)
            case .caption:
                for name in names { #expect(question.answer.contains(name)) }
            case .vqa:
                if question.question == "How many things are in the image?" {
                    #expect(question.answer == NumberWord.of(names.count))
                } else if question.question.hasPrefix("How many ") {
                    let plural = question.question.dropFirst("How many ".count).dropLast(" are there?".count)
                    let number = layout.things.count { thing in
                        switch thing {
                        case .pictogram(let pictogram): pictogram.plural == plural
                        case .shape(let shape, _): shape.plural == plural
                        case .word: false
                        }
                    }
                    #expect(number > 0 && question.answer == NumberWord.of(number), "\(question) \(names)")
                } else if let item = layout.items.first(where: { question.question == "What is \($0.place.phrase)?" }) {
                    #expect(question.answer == item.thing.name)
                } else if question.question == "What is in the image?" {
                    #expect(names == [question.answer])
                } else {
                    #expect(names.contains { $0.contains(question.answer) }, "\(question) \(names)")
                }
            }
        }
        for task in SceneTask.allCases { #expect(tasks[task, default: 0] > 60, "\(task): \(tasks)") }
        let yes = Double(answers["yes", default: 0]) / Double(answers.values.reduce(0, +))
        #expect((0.38...0.62).contains(yes), "\(answers)")
    }

    @Test func everyThingIsDrawnWholeAndSeen() throws {
        // A failure means that something the questions ask about is cut off, hidden under a neighbour or invisible on its ground.
        let generator = try generator.get()
        for index in 0..<60 {
            var random = SceneRandom(seed: 5, index: index)
            let layout = SceneLayout(random: &random, meanColours: generator.renderer.fonts.meanColours, alphabets: 2)
            let boxes = layout.items.map { item -> (left: Int, top: Int, width: Int, height: Int) in
                let placed = generator.renderer.place(item)
                return (placed.left, placed.top, placed.tile.width, placed.tile.height)
            }
            for (number, box) in boxes.enumerated() {
                #expect(box.left >= 1 && box.top >= 1 && box.left + box.width <= 111 && box.top + box.height <= 111, "scene \(index): \(box)")
                #expect(max(box.width, box.height) >= 28, "scene \(index): \(box)")
                if case .word(let word) = layout.items[number].thing {
                    #expect(box.width >= 8 * word.count, "scene \(index): \(word) in \(box)")
                }
                for other in boxes[(number + 1)...] {
                    let overlapsX = box.left < other.left + other.width && other.left < box.left + box.width
                    let overlapsY = box.top < other.top + other.height && other.top < box.top + box.height
                    #expect(!(overlapsX && overlapsY), "scene \(index): \(boxes)")
                }
            }
        }
    }

    @Test func everyPictogramHasItsPicture() throws {
        // A failure means that a name in the catalogue is drawn as nothing, or as another name's picture.
        let pictograms = try generator.get().renderer.fonts.pictograms
        #expect(pictograms.count == Pictogram.all.count)
        #expect(Set(Pictogram.all.map(\.name)).count == Pictogram.all.count)
        #expect(Set(Pictogram.all.map(\.character)).count == Pictogram.all.count)
        for (pictogram, tile) in pictograms {
            let visible = stride(from: 3, to: tile.values.count, by: 4).count { tile.values[$0] > 0.5 }
            #expect(visible > 1500, "\(pictogram.name): \(visible)")
        }
    }

    @Test func missingFontsNameTheirPackage() {
        // A failure means that a fresh machine gives no hint what to install.
        #expect {
            try SceneFonts(folders: ["/nonexistent"])
        } throws: {
            "\($0)".contains("apt install fonts-noto-color-emoji") && ($0 as? SceneError)?.category == .missingInput
        }
        #expect(throws: SceneError.self) { try SceneGenerator(seed: 1, size: 20) }
    }

    @Test func datasetHasLLaVAsFormat() async throws {
        // A failure means that the trainer, or anybody's LLaVA script, cannot read the set.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ada-scenes-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let records = try await SceneDataset.write(to: folder, count: 40, seed: 3, split: "val")
        let list = try Data(contentsOf: folder.appendingPathComponent("val.json"))
        #expect(try JSONDecoder().decode([SceneDataset.Record].self, from: list) == records)
        #expect(records.count == 40)
        #expect(records[39].id == "val-000039" && records[39].image == "images/val-000039.jpg")
        #expect(records.allSatisfy { $0.conversations.map(\.from) == ["human", "gpt"] && $0.conversations[0].value.hasPrefix("<image>\n") })
        let scene = try SceneGenerator(seed: 3).scene(39)
        #expect(records[39].conversations[1].value == scene.answer && records[39].task == scene.task.rawValue)
        let image = try RGBImage(contentsOf: folder.appendingPathComponent(records[39].image).path)
        #expect(image.width == 112 && image.height == 112)
        let difference = zip(image.pixels, scene.image.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
        #expect(difference / image.pixels.count < 8)
        let bytes = try Data(contentsOf: folder.appendingPathComponent(records[0].image))
        try await SceneDataset.write(to: folder, count: 1, seed: 3, split: "val")
        #expect(try Data(contentsOf: folder.appendingPathComponent(records[0].image)) == bytes)
    }

    @Test func interruptedWritingLeavesNoList() async throws {
        // A failure means that a set broken off with Ctrl-C looks complete, or mixes pictures of two seeds under one list.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ada-scenes-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try await SceneDataset.write(to: folder, count: 2, seed: 1)
        let task = Task {
            try await SceneDataset.write(to: folder, count: 5_000, seed: 2) { progress in
                if progress.done > 0 { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(!FileManager.default.fileExists(atPath: folder.appendingPathComponent("train.json").path))
    }

    @Test func unusableArgumentsAreRefused() async throws {
        // A failure means that a mistyped option makes a strange folder or an endless run.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ada-scenes-\(UUID().uuidString)")
        await #expect(throws: SceneError.self) { try await SceneDataset.write(to: folder, count: 0, seed: 1) }
        await #expect(throws: SceneError.self) { try await SceneDataset.write(to: folder, count: 1, seed: 1, split: "../up") }
        await #expect(throws: SceneError.self) { try await SceneDataset.write(to: folder, count: 1, seed: 1, split: "") }
        #expect(!FileManager.default.fileExists(atPath: folder.path))
        let inFile = URL(fileURLWithPath: #filePath).appendingPathComponent("out")
        await #expect {
            try await SceneDataset.write(to: inFile, count: 1, seed: 1)
        } throws: {
            ($0 as? SceneError)?.category == .inputOutput
        }
    }
}
