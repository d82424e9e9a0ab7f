import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite struct PackedSampleTests {
    private let assembly = SampleAssembly(rowsPerImage: 2, adaptive: true, maximumLength: 64)
    private let none = Int(TrainingConversation.ignoredLabel)

    @Test("the common part of questions is stored once") func whatQuestionsShareStandsOnce() throws {
        // A mismatch means that a question is trained behind another image, or sees another question.
        let first = assembly.sample(ids: [1, 7, -200, 20, 21, 30, 2], labels: [none, none, none, none, none, 30, 2], pixels: [[0.5]])
        let second = assembly.sample(ids: [1, 7, -200, 20, 22, 31, 2], labels: [none, none, none, none, none, 31, 2], pixels: [[0.5]])
        let packed = try #require(SampleAssembly.sample(of: [first, second]))
        let (row, latency) = (TrainingSample.imageRow, TrainingSample.latencyToken)
        #expect(packed.tokens == [1, 7, row, row, 20, 21, latency, 30, 2, 22, latency, 31, 2])
        #expect(packed.branches == [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
        #expect(packed.images == 1 && packed.pixels == [0.5] && packed.scored == first.scored + second.scored)
        // The same question twice still has two answers of its own.
        let twice = try #require(SampleAssembly.sample(of: [first, first]))
        #expect(twice.tokens.count { $0 == latency } == 2 && twice.scored == 2 * first.scored)
        #expect(SampleAssembly.sample(of: [first]) == nil)
        // Padding is nobody's: neither shared, nor a part of the last question.
        let batch = TorchBatch([packed, first])
        #expect(batch.branches == packed.branches + [Int32](repeating: 0, count: 9) + [Int32](repeating: 1, count: batch.length - 9))
    }

    @Test("each question is asked about the first turn's image") func eachQuestionIsAskedAboutTheFirstTurnsImage() {
        // A mismatch means that later questions of a conversation are trained without their image.
        let turns = ["<image>\nWhat?", "dog", "Where?", "left", "How many?"]
        #expect(SampleBuilder.questions(of: turns) == [["<image>\nWhat?", "dog"], ["<image>\nWhere?", "left"]])
        #expect(SampleBuilder.questions(of: ["a", "b", "c", "d"]) == [["a", "b"], ["c", "d"]])
    }
}

@Suite(.needsTorch) struct IndependentTurnsTests {
    @Test("packed questions are trained like separate ones", arguments: [false, true], [1, 0] as [Float]) func packedQuestionsAreTrainedLikeSeparateOnes(checkpointing: Bool, budget: Float) throws {
        // A mismatch means that questions about one picture see each other, or stand at other positions than alone; at the least budget, that
        // leaving out the optional layers is not the same as multiplying them by zero.
        let step = try RecordedStep("L") { $0.gradientCheckpointing = checkpointing }
        let sample = try step.samples()[0]
        let answer = try #require(sample.labels.firstIndex { $0 >= 0 })
        // The same picture and question with three answers of different lengths, so that nothing but the answers differs.
        let separate = [[9, 2], [30, 31, 32, 2], [12, 13, 2]].map { (ids: [Int64]) in
            var other = sample
            other.tokens.replaceSubrange(answer..., with: ids)
            other.labels.replaceSubrange(answer..., with: ids)
            other.units = BudgetUnits(step.checkpoint.configuration.adaptive!, layers: 8, heads: 8).granted(fraction: budget)
            other.latency = 0.8
            return other
        }
        func gradients(_ samples: [[TrainingSample]]) throws -> (loss: Double, gradients: [String: [Float]]) {
            let batches = samples.map { TorchBatch($0) }
            let results = try step.model.accumulate(batches, TorchModel.StepOptions(scored: 9))
            #expect(results.reduce(0) { $0 + $1.scored } == 9)
            defer { step.model.clearGradients() }
            // The scheduler is not asked about packed questions; alone, its choice of everything has a gradient through the noise.
            let named = try step.model.parameters.filter { !$0.name.hasPrefix("scheduler.mlp_head") }.map { ($0.name, try step.model.read($0, .gradient)) }
            return (results.reduce(0) { $0 + $1.lossSum }, Dictionary(uniqueKeysWithValues: named))
        }
        let packed = try #require(SampleAssembly.sample(of: separate))
        #expect(packed.tokens.count < separate.reduce(0) { $0 + $1.tokens.count } / 2)
        let alone = try gradients([separate.map { alone in
            // Alone, but through the same mask: one branch without anything before it that is its own.
            var alone = alone
            alone.branches = [Int32](repeating: 0, count: alone.tokens.count)
            return alone
        }])
        let together = try gradients([[packed]])
        #expect(abs(alone.loss - together.loss) <= 1e-5 * alone.loss)
        for (name, wanted) in alone.gradients {
            let found = together.gradients[name] ?? []
            #expect(largestDifference(found, wanted) <= 1e-5 + 1e-4 * (wanted.map(abs).max() ?? 0), "\(name)")
        }
        // And through the causal mask of a batch without branches, under a plan.
        let plain = try step.model.accumulate([TorchBatch(separate)], TorchModel.StepOptions(scored: 9))[0]
        step.model.clearGradients()
        #expect(abs(plain.lossSum - together.loss) <= 1e-5 * together.loss)
    }

    @Test("naming draws features towards words beside the language loss") func namingDrawsFeaturesTowardsWordsBesideTheLanguageLoss() throws {
        // A mismatch means that region_naming_weight does nothing, or is not weighed as documented.
        let step = try RecordedStep("L")
        var sample = try step.samples()[0]
        sample.regionTokens = [Int32](repeating: -100, count: 16 * 4)
        sample.regionTokens[0] = 5
        sample.regionTokens[1] = 6
        sample.regionTokens[40] = 7
        let batch = TorchBatch([sample])
        #expect(batch.named == 3)
        func projector(weight: Float) throws -> (gradient: [Float], result: BatchResult) {
            var options = TorchModel.StepOptions(scored: batch.scored)
            (options.named, options.namingWeight) = (3, weight)
            let result = try step.model.accumulate([batch], options)[0]
            let parameter = try #require(step.model.parameters.first { $0.name == "model.mm_projector.2.bias" })
            defer { step.model.clearGradients() }
            return (try step.model.read(parameter, .gradient), result)
        }
        let (without, once, twice) = (try projector(weight: 0), try projector(weight: 1), try projector(weight: 2))
        #expect(without.result.namingSum == 0 && once.result.namingSum > 0 && once.result.lossSum == without.result.lossSum)
        let (one, two) = (zip(once.gradient, without.gradient).map(-), zip(twice.gradient, without.gradient).map(-))
        #expect((one.map(abs).max() ?? 0) > 1e-4)
        #expect(largestDifference(two, one.map { 2 * $0 }) <= 1e-5 + 1e-3 * (one.map(abs).max() ?? 0))
    }
}
