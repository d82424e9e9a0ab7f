import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

/// A recipe that trains the repository's small model on a few of its own pictures, in a folder of its own.
struct SmallRun {
    let folder: TemporaryFolder
    var recipe = Recipe()

    init() throws {
        folder = try TemporaryFolder()
        recipe.modelNameOrPath = Fixtures.root.appendingPathComponent("Models/scenes-ref").path
        recipe.imageFolder = recipe.modelNameOrPath + "/images"
        recipe.outputDir = folder.url.appendingPathComponent("out").path
        recipe.dataPath = [try folder.write(SmallRun.samples(["bicycle", "three", "no", "red"]), to: "data.json").path]
        recipe.perDeviceTrainBatchSize = 4
        recipe.cpuWorkers = 1
        recipe.device = "cpu"
    }

    static func samples(_ answers: [String]) -> String {
        let lines = answers.enumerated().map { index, answer in
            """
            {"id": "s\(index)", "image": "\(String(format: "%02d", index)).png", "conversations": [
              {"from": "human", "value": "<image>\\nWhat is on the left?"}, {"from": "gpt", "value": "\(answer)"}]}
            """
        }
        return "[" + lines.joined(separator: ",\n") + "]"
    }
}

@Suite(.needsTorch) struct TrainedModelTests {
    @Test("trainer and engine agree on a trained model") func trainerAndEngineAgreeOnATrainedModel() async throws {
        // A mismatch means that samples are put together otherwise than the engine puts its prompts, or that the two forward passes differ.
        let run = try SmallRun()
        let source = try ModelSource(run.recipe)
        let model = try source.makeModel(TorchOptions(), recipe: run.recipe, library: #require(torch))
        let image = try RGBImage(contentsOf: run.recipe.imageFolder + "/00.png")
        let engine = try await AdaptiveModel(contentsOf: source.folder)
        let answer = try await engine.answer("What is on the left?", images: [image], budget: .full).whole().text
        try #require(!answer.isEmpty)

        let data = try run.folder.write(SmallRun.samples([answer]), to: "one.json")
        let builder = SampleBuilder(
            dataset: try InstructionDataset(files: [data], imageFolder: URL(fileURLWithPath: run.recipe.imageFolder)),
            tokenizer: source.tokenizer, assembly: SampleAssembly(rowsPerImage: 64, adaptive: true, maximumLength: 512),
            imageProcessor: try source.makeImageProcessor(), aspect: .pad, units: source.units, budgets: .full, seed: 1)
        let batch = TorchBatch([try builder.sample(0, epoch: 0)])
        var logits: [Float] = []
        _ = try model.accumulate([batch], TorchModel.StepOptions(scored: batch.scored)) { name, values in
            if name == "supervised_logits" { logits = values }
        }
        let width = source.configuration.language.vocabularySize
        let predicted = stride(from: 0, to: logits.count, by: width).map { start in
            (0 ..< width).max { logits[start + $0] < logits[start + $1] } ?? 0
        }
        #expect(source.tokenizer.decode(predicted) == answer)
        #expect(predicted.last == source.tokenizer.eosToken)
    }
}
