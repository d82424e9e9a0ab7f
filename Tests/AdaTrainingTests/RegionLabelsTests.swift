import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite struct RegionLabelsTests {
    private let vocabulary = RegionVocabulary(kinds: ["thing": ["dog", "word"], "character": ["B", "A"]])
    private let dog = ImageRegion(box: [0, 0, 50, 50], labels: ["thing": "dog"])

    /// Slots of one patch of a grid of two by two: character at a quarter and at three quarters of the width, then thing.
    private func patch(_ labels: [Int32], _ row: Int, _ column: Int) -> [Int32] { Array(labels[(row * 2 + column) * 4 ..< (row * 2 + column + 1) * 4]) }

    @Test("patches are labelled at two points") func patchesAreLabelledAtTwoPoints() {
        // A mismatch means that the tower is taught that things are where they are not.
        #expect(vocabulary.kinds.map(\.name) == ["character", "thing"] && vocabulary.slotClasses == [3, 3, 3, 3])
        let word = ImageRegion(box: [50, 50, 100, 100], labels: ["thing": "word"])
        let letters = [("A", 50.0, 75.0), ("B", 75.0, 100.0)].map { ImageRegion(box: [$1, 50, $2, 100], labels: ["character": $0]) }
        let labels = vocabulary.labels([dog, word] + letters, width: 100, height: 100, aspect: .pad, grid: 2)
        #expect(patch(labels, 0, 0) == [0, 0, 1, 1])
        #expect(patch(labels, 0, 1) == [0, 0, 0, 0])
        #expect(patch(labels, 1, 1) == [1, 2, 2, 2])
    }

    @Test("names are the words of what patches show") func namesAreTheWordsOfWhatPatchesShow() {
        // A mismatch means that features are drawn towards the words for something else.
        let circle = ImageRegion(box: [50, 0, 100, 50], labels: ["thing": "circle", "color": "red"])
        let word = ImageRegion(box: [50, 50, 100, 100], labels: ["thing": "word", "word": "TO"])
        let letters = [("T", 50.0, 75.0), ("O", 75.0, 100.0)].map { ImageRegion(box: [$1, 50, $2, 100], labels: ["character": $0]) }
        let spelled = ["dog": [5], "circle": [6], "red": [7, 8], "word": [9], "T": [10], "O": [1, 11]]
        func tokens(_ regions: [ImageRegion]) -> [[Int32]] {
            let all = RegionVocabulary.tokens(regions, width: 100, height: 100, aspect: .pad, grid: 2) { spelled[$0] ?? [] }
            return (0 ..< 4).map { row in all[4 * row ..< 4 * row + 4].filter { $0 >= 0 } }
        }
        #expect(tokens([dog, circle, word] + letters) == [[5], [6, 7, 8], [], [9, 10, 11]])
        // What lies on top is what is named, and only once.
        #expect(tokens([word] + letters + [ImageRegion(box: [50, 50, 100, 100], labels: ["thing": "dog", "color": "dog"])])[3] == [5])
        #expect(vocabulary.shares([4, 1, 0, 0, 2, 2, 2, 1, 10, 9]) == ["character": 0.25, "thing": 0.75, "name": 0.9])
    }

    @Test("later regions cover earlier ones") func laterRegionsCoverEarlierOnes() {
        // A mismatch means that what is hidden behind another thing is taught instead of it.
        let word = ImageRegion(box: [20, 0, 50, 50], labels: ["thing": "word"])
        #expect(patch(vocabulary.labels([dog, word], width: 100, height: 100, aspect: .pad, grid: 2), 0, 0) == [0, 0, 1, 2])
    }

    @Test("padding and cutting move the regions") func paddingAndCuttingMoveTheRegions() {
        // A mismatch means that labels of images which are not square are beside what they name.
        // 100 wide, 50 high: padded to a square, the picture's upper half lies in the square's second quarter.
        let wide = ImageRegion(box: [0, 0, 50, 50], labels: ["thing": "dog"])
        let padded = vocabulary.labels([wide], width: 100, height: 50, aspect: .pad, grid: 4)
        let rows = (0 ..< 4).map { row in (0 ..< 4).map { padded[(row * 4 + $0) * 4 + 2] } }
        #expect(rows == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
        let cut = vocabulary.labels([wide], width: 100, height: 50, aspect: .crop, grid: 2)
        #expect(patch(cut, 0, 0) == [0, 0, 1, 1] && patch(cut, 0, 1) == [0, 0, 0, 0])
    }

    @Test("regions of another form are errors", arguments: [
        "[1]", "{}", "[{\"box\": [1, 2, 3], \"labels\": {}}]", "[{\"box\": [1, 2, 3, \"x\"], \"labels\": {}}]", "[{\"box\": [0, 0, 1, 1]}]",
        "[{\"box\": [0, 0, 1, 1], \"labels\": {\"thing\": 3}}]",
    ]) func regionsOfAnotherFormAreErrors(text: String) throws {
        // A mismatch means that a broken data set is trained on in silence.
        let folder = try TemporaryFolder()
        let file = try folder.write(
            #"[{"id": "a", "image": "x.png", "regions": \#(text), "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}]"#,
            to: "d.json")
        let dataset = try InstructionDataset(files: [file], imageFolder: nil)
        #expect { _ = try dataset.record(0) } throws: { "\($0)".contains("regions") && "\($0)".contains("a") }
    }

    @Test("a data set without regions is an error") func aDataSetWithoutRegionsIsAnError() throws {
        // A mismatch means that a tower is trained on nothing.
        let folder = try TemporaryFolder()
        let file = try folder.write(SmallRun.samples(["red"]), to: "d.json")
        let dataset = try InstructionDataset(files: [file], imageFolder: nil)
        #expect { _ = try RegionVocabulary(dataset) } throws: { "\($0)".contains("regions") }
    }
}

@Suite(.needsTorch) struct RegionTrainingTests {
    /// The small run's pictures, each with one thing that fills a quarter of it.
    private func run() throws -> SmallRun {
        var run = try SmallRun()
        let records = ["bicycle", "three", "no", "red"].enumerated().map { index, name in
            let (x, y) = (Double(index % 2) * 56, Double(index / 2) * 56)
            return """
                {"id": "s\(index)", "image": "\(String(format: "%02d", index)).png",
                 "regions": [{"box": [\(x), \(y), \(x + 56), \(y + 56)], "labels": {"thing": "\(name)"}}],
                 "conversations": [{"from": "human", "value": "<image>\\nWhat?"}, {"from": "gpt", "value": "\(name)"}]}
                """
        }
        run.recipe.dataPath = [try run.folder.write("[" + records.joined(separator: ",") + "]", to: "regions.json").path]
        run.recipe.objective = .regionLabels
        run.recipe.learningRate = 2e-3
        return run
    }

    @Test("the loss of a head of zeros is the logarithm of the classes") func theLossOfAHeadOfZerosIsTheLogarithmOfTheClasses() throws {
        // A mismatch means that the loss is not the cross entropy over the slots' own classes.
        var options = TorchOptions()
        options.regionClasses = [5, 5]
        let source = try ModelSource(try run().recipe)
        let model = try source.makeModel(options, recipe: try run().recipe, library: #require(torch))
        for parameter in model.parameters where parameter.name.hasPrefix(TorchModel.regionHead) {
            try model.write([Float](repeating: 0, count: parameter.count), to: parameter)
        }
        var sample = TrainingSample(tokens: [], labels: [], pixels: [Float](repeating: 0.1, count: 3 * 112 * 112), images: 1)
        sample.regionLabels = (0 ..< 128).map { $0 % 4 == 3 ? -100 : Int32($0 % 4) }
        let batch = TorchBatch([sample])
        #expect(batch.scored == 96)
        var counts = [Int64](repeating: 0, count: 6)
        let result = try model.accumulate([batch], TorchModel.StepOptions(scored: batch.scored), regionCounts: &counts)[0]
        #expect(abs(result.lossSum - 96 * log(5)) < 1e-3)
        #expect(result.scored == 96 && counts == [32, 0, 32, 0, 0, 0])
    }

    @Test("the tower learns regions and nothing else changes") func theTowerLearnsRegionsAndNothingElseChanges() throws {
        // A mismatch means that region labels teach nothing, or that they change parts of the model which they should not.
        var run = try run()
        run.recipe.maxSteps = 120
        let summary = try Trainer(run.recipe).run()
        let log = TrainingLog(url: URL(fileURLWithPath: run.recipe.outputDir).appendingPathComponent("training_log.jsonl")).read()
        // What is where, and the words for it.
        for kind in ["thing", "name"] {
            #expect(try #require(log.last?.recognized?[kind]) > 0.9)
            #expect(try #require(log.first?.recognized?[kind]) < 0.5)
        }
        let (before, after) = (
            try Checkpoint.open(at: URL(fileURLWithPath: run.recipe.modelNameOrPath)), try Checkpoint.open(at: URL(fileURLWithPath: summary.folder)))
        let name = "model.layers.0.self_attn.q_proj.weight"
        #expect(try before.language.tensor(name).widened() == after.language.tensor(name).widened())
        let patches = TensorNames.visionPrefix + "embeddings.patch_embedding.weight"
        #expect(try before.vision?.tensor(patches).widened() != after.vision?.tensor(patches).widened())
        #expect(after.language.find(TorchModel.regionHead + "weight") == nil)
    }

    @Test("a stopped run goes on with the same losses") func aStoppedRunGoesOnWithTheSameLosses() throws {
        // A mismatch means that the labels' head, which the model's own files do not hold, is lost between two runs.
        var whole = try run()
        (whole.recipe.maxSteps, whole.recipe.perDeviceTrainBatchSize) = (6, 2)
        _ = try Trainer(whole.recipe).run()
        var stopped = try run()
        stopped.recipe.maxSteps = 6
        stopped.recipe.perDeviceTrainBatchSize = 2
        var asked = 0
        _ = try Trainer(stopped.recipe).run(isCancelled: {
            asked += 1
            return asked == 3
        })
        _ = try Trainer(stopped.recipe).run()
        func losses(_ run: SmallRun) -> [Double] {
            TrainingLog(url: URL(fileURLWithPath: run.recipe.outputDir).appendingPathComponent("training_log.jsonl")).read().map(\.loss)
        }
        #expect(losses(stopped) == losses(whole) && losses(whole).count == 6)
    }
}
