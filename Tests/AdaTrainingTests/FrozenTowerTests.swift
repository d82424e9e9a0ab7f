import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite struct FeatureStoreTests {
    @Test("halves are rounded to the nearest") func halvesAreRoundedToTheNearest() {
        // A mismatch means that kept features differ from computed ones by more than float16's rounding.
        for bits in UInt16(0) ... 0x7BFF where bits % 7 == 0 {
            let value = halfToFloat(bits)
            #expect(floatToHalf(value) == bits && floatToHalf(-value) == bits | 0x8000)
            guard bits < 0x7BFF else { continue }
            let next = halfToFloat(bits + 1)
            // A quarter of the way rounds down, three quarters round up, half goes to the even one.
            #expect(floatToHalf(value + 0.25 * (next - value)) == bits && floatToHalf(value + 0.75 * (next - value)) == bits + 1)
            #expect(floatToHalf(value + 0.5 * (next - value)) == (bits % 2 == 0 ? bits : bits + 1))
        }
        let all = (0 ..< 0x7C00).flatMap { [UInt16($0), UInt16($0) | 0x8000] }
        #expect(widened(all) == all.map(halfToFloat) && widened([0x3C00, 0x7C00]) == [1, .infinity])
        #expect(floatToHalf(1e9) == 0x7BFF && floatToHalf(-1e9) == 0xFBFF && floatToHalf(.infinity) == 0x7BFF && halfToFloat(floatToHalf(.nan)).isNaN)
    }

    @Test("vectors are kept across runs") func vectorsAreKeptAcrossRuns() throws {
        // A mismatch means that a resumed run trains on other features, or on some that were never written.
        let folder = try TemporaryFolder()
        func open(_ name: String = "a") throws -> FeatureStore { try FeatureStore(folder: folder.url, name: name, values: 3) }
        let first = try open()
        try first.write([1, -2, 0.5], key: 30)
        let store = try open()
        #expect(store.read(30) == [1, -2, 0.5] && store.read(20) == nil && store.read(0) == nil)
        #expect(try open("b").read(30) == nil)
        // Another size; a key that is there.
        try store.write([1, 2], key: 1)
        try store.write([7, 7, 7], key: 30)
        #expect(store.read(1) == nil && store.read(30) == [1, -2, 0.5])
        // Two that add in turn, as two processes do.
        try store.write([4, 5, 6], key: 40)
        try first.write([7, 8, 9], key: 50)
        try first.write([0, 0, 0], key: 40)
        #expect(try open().read(40) == [4, 5, 6] && open().read(50) == [7, 8, 9])
        // A run that was killed between a vector and the end of its key.
        let keys = try #require(FileManager.default.contentsOfDirectory(atPath: folder.url.path).first { $0.hasSuffix("a" + "x3.f16.keys") })
        let handle = try FileHandle(forWritingTo: folder.url.appendingPathComponent(keys))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data([1, 2, 3]))
        try handle.close()
        try open().write([3, 2, 1], key: 60)
        #expect(try open().read(60) == [3, 2, 1] && open().read(50) == [7, 8, 9])
    }
}

@Suite(.needsTorch) struct FrozenTowerTests {
    /// The small run, starting at random with a tower that is no transformer.
    private func run() throws -> SmallRun {
        var run = try SmallRun()
        let base = run.folder.url.appendingPathComponent("base")
        let tower = base.appendingPathComponent("vision_tower")
        try FileManager.default.createDirectory(at: base, withIntermediateDirectories: true)
        let reference = URL(fileURLWithPath: run.recipe.modelNameOrPath)
        for name in ["tokenizer.model", "tokenizer_config.json"] {
            try FileManager.default.copyItem(at: reference.appendingPathComponent(name), to: base.appendingPathComponent(name))
        }
        _ = try EfficientNetConverter(Fixtures.url("efficientnet/tiny/zip"), to: .f16, output: tower).run(cancellation: Cancellation(), progress: { _, _ in })
        let width = try VisionTower(contentsOf: tower).width
        var config = try String(contentsOf: reference.appendingPathComponent("config.json"), encoding: .utf8)
        config = config.replacing("\"mm_hidden_size\": 128", with: "\"mm_hidden_size\": \(width)").replacing("\"unfreeze_mm_vision_tower\": true", with: "\"unfreeze_mm_vision_tower\": false")
        try Data(config.utf8).write(to: base.appendingPathComponent("config.json"))
        run.recipe.modelNameOrPath = base.path
        run.recipe.fromScratch = true
        run.recipe.trainBudgets = .full
        run.recipe.learningRate = 3e-3
        run.recipe.maxSteps = 8
        return run
    }

    @Test("trainer and engine see the same features") func trainerAndEngineSeeTheSameFeatures() async throws {
        // A mismatch means that the trainer gives the projector other features than the engine does, or saves what the engine cannot load.
        let run = try run()
        let summary = try Trainer(run.recipe).run()
        let trained = URL(fileURLWithPath: summary.folder)
        #expect(summary.lastLoss < 4)
        // Its own weights stay where they were.
        #expect(FileManager.default.fileExists(atPath: trained.appendingPathComponent("vision_tower/model.safetensors").path))

        var recipe = run.recipe
        (recipe.modelNameOrPath, recipe.fromScratch) = (summary.folder, false)
        let source = try ModelSource(recipe)
        let model = try source.makeModel(TorchOptions(), recipe: recipe, library: #require(torch))
        let dataset = try InstructionDataset(
            files: [URL(fileURLWithPath: run.recipe.dataPath[0])], imageFolder: URL(fileURLWithPath: run.recipe.imageFolder))
        let builder = SampleBuilder(
            dataset: dataset,
            tokenizer: source.tokenizer, assembly: SampleAssembly(rowsPerImage: source.rowsPerImage, adaptive: true, maximumLength: 512),
            imageProcessor: try source.makeImageProcessor(), aspect: .pad, units: source.units, budgets: .full, seed: 1,
            frozenTower: try source.makeFrozenTower(folder: run.folder.url, workers: 2))
        // Computed, then read from the file.
        for _ in 0 ..< 2 {
            let batch = TorchBatch([try builder.sample(1, epoch: 0)])
            var logits: [Float] = []
            _ = try model.accumulate([batch], TorchModel.StepOptions(scored: batch.scored)) { name, values in
                if name == "supervised_logits" { logits = values }
            }
            var options = AdaptiveModel.Options()
            options.precision = .f32
            let engine = try await AdaptiveModel(contentsOf: trained, options: options)
            let image = try RGBImage(contentsOf: run.recipe.imageFolder + "/01.png")
            let trace = try await engine.trace(
                tokens: try engine.tokenize([.question("What is on the left?", images: 1)]), images: [image], budget: .full, maxTokens: 1)
            let expected = try #require(trace.entries["prefill_last_logits"]?.values)
            // Kept features are rounded to float16.
            #expect(largestDifference(Array(logits.prefix(expected.count)), expected) < 0.05)
        }
    }

    @Test("a tower beside the model goes with it") func aTowerBesideTheModelGoesWithIt() throws {
        // A mismatch means that what was trained from a tower of another folder does not load, or cannot be gone on from.
        var run = try run()
        let base = URL(fileURLWithPath: run.recipe.modelNameOrPath)
        let elsewhere = run.folder.url.appendingPathComponent("towers")
        try FileManager.default.moveItem(at: base.appendingPathComponent("vision_tower"), to: elsewhere)
        let file = base.appendingPathComponent("config.json")
        let config = try String(contentsOf: file, encoding: .utf8)
        let moved = config.replacing(/"mm_vision_tower": "[^"]*"/, with: "\"mm_vision_tower\": \"../towers\"")
        #expect(moved != config)
        try Data(moved.utf8).write(to: file)
        run.recipe.maxSteps = 1
        _ = try Trainer(run.recipe).run()
        run.recipe.maxSteps = 2
        let summary = try Trainer(run.recipe).run()
        #expect(summary.steps == 2)
        let tower = try #require(Checkpoint.open(at: URL(fileURLWithPath: summary.folder)).vision)
        #expect(tower.location.hasPrefix(summary.folder))
    }

    @Test("runs over the same images share features") func runsOverTheSameImagesShareFeatures() throws {
        // A mismatch means that a second stage computes everything again, or takes the features of other images or of another tower.
        var run = try run()
        let shared = run.folder.url.appendingPathComponent("features")
        run.recipe.featuresDir = shared.path
        run.recipe.maxSteps = 1
        _ = try Trainer(run.recipe).run()
        func files() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: shared.path).filter { $0.hasSuffix(".f16") } }
        let first = try files()
        #expect(first.count == 1)
        run.recipe.outputDir = run.folder.url.appendingPathComponent("second").path
        run.recipe.dataPath += run.recipe.dataPath
        _ = try Trainer(run.recipe).run()
        #expect(try files() == first)
        // Another tower, of the same shape.
        let weights = URL(fileURLWithPath: run.recipe.modelNameOrPath).appendingPathComponent("vision_tower/model.safetensors")
        var bytes = try Data(contentsOf: weights)
        bytes[bytes.count - 1] ^= 0x04
        try bytes.write(to: weights)
        run.recipe.outputDir = run.folder.url.appendingPathComponent("third").path
        _ = try Trainer(run.recipe).run()
        #expect(try files().count == 2)
    }

    @Test("a tower without gradients is not trained") func aTowerWithoutGradientsIsNotTrained() throws {
        // A mismatch means that a recipe asks for something that silently does not happen.
        var run = try run()
        run.recipe.unfreezeMMVisionTower = true
        #expect { _ = try Trainer(run.recipe) } throws: { "\($0)".contains("unfreeze_mm_vision_tower") }
    }
}
