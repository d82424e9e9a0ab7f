import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite(.needsTorch) struct PlanTrainingTests {
    @Test("without noise the plan is the one that the engine chooses", arguments: ["L", "H"]) func withoutNoiseThePlanIsTheOneThatTheEngineChooses(variant: String) throws {
        // A mismatch means that gumbel_noise: 0 trains the decoder under other plans than those it will be used with.
        let step = try RecordedStep(variant)
        let adaptive = try #require(step.checkpoint.configuration.adaptive)
        let language = step.checkpoint.configuration.language
        var samples = try step.samples()
        func plans(_ model: TorchModel, seed: UInt64, noise: Float = 1) throws -> (plan: [Float], logits: [Float]) {
            for index in samples.indices { (samples[index].units, samples[index].seed) = (3, seed) }
            let batch = TorchBatch(samples)
            var seen: [String: [Float]] = [:]
            var options = TorchModel.StepOptions(scored: batch.scored)
            options.gumbelNoise = noise
            _ = try model.accumulate([batch], options) { seen[$0] = $1 }
            model.clearGradients()
            return (try #require(seen["plan"]), try #require(seen["scheduler_logits"]))
        }
        let (plan, logits) = try plans(step.model, seed: 1, noise: 0)
        let width = logits.count / samples.count
        let heads = language.numAttentionHeads
        var chosen: [Float] = []
        for first in stride(from: 0, to: logits.count, by: width) {
            let scores = Array(logits[first ..< first + width])
            // The prefix always runs.
            chosen += [Float](repeating: 1, count: adaptive.numPrefixLayers * 2 * heads)
            switch adaptive.schedulerType {
            case .layers:
                for layer in GumbelLayerSampling(logits: scores, draws: 3).sample { chosen += [Float](repeating: layer, count: 2 * heads) }
            case .heads:
                chosen += GumbelHeadSampling(logits: scores, heads: heads, rank: adaptive.schedulerRank, draws: 3).sample
            }
        }
        #expect(plan == chosen)
        let noisy = try RecordedStep(variant).model
        #expect(try (0 ..< 8).contains { try plans(noisy, seed: $0).plan != chosen })
    }

    @Test("frozen layers leave what the scheduler reads") func frozenLayersLeaveWhatTheSchedulerReads() throws {
        // A mismatch means that what the scheduler learned to read changes under it.
        var run = try SmallRun()
        run.recipe.freezeLayers = 2
        run.recipe.learningRate = 1e-3
        run.recipe.maxSteps = 2
        let source = try ModelSource(run.recipe)
        let before = try source.makeModel(TorchOptions(), recipe: run.recipe, library: #require(torch))
        let summary = try Trainer(run.recipe).run()
        let after = try Checkpoint.open(at: URL(fileURLWithPath: summary.folder))
        var changed: Set<String> = []
        for parameter in before.parameters {
            let tensor = try #require(TorchModel.source(of: parameter.name, in: after)?.find(parameter.name))
            if try tensor.widened() != before.read(parameter) { changed.insert(parameter.name) }
        }
        let frozen = ["model.embed_tokens.", "model.mm_projector.", "model.layers.0.", "model.layers.1.", "vision_model."]
        #expect(changed.allSatisfy { name in !frozen.contains { name.hasPrefix($0) } })
        #expect(changed.contains("model.layers.2.mlp.up_proj.weight") && changed.contains("scheduler.mlp_head.weight"))
    }

    @Test("added layers change nothing before they have learned", arguments: ["L", "H"]) func addedLayersChangeNothingBeforeTheyHaveLearned(variant: String) throws {
        // A mismatch means that a model forgets when layers are added behind it, or that a scheduler does not begin with the first ones.
        let run = try SmallRun()
        let before = try ModelSource(run.recipe)
        var recipe = run.recipe
        let layers = before.configuration.language.numHiddenLayers
        recipe.numHiddenLayers = layers + 2
        recipe.schedulerType = .init(rawValue: variant)
        recipe.schedulerInit = .frontToBack
        let after = try ModelSource(recipe)
        let adaptive = try #require(after.configuration.adaptive)
        let heads = after.configuration.language.numAttentionHeads
        let optional = layers + 2 - adaptive.numPrefixLayers
        func outputs(_ source: ModelSource, _ recipe: Recipe) throws -> (loss: Double, plan: [Float]) {
            let model = try source.makeModel(TorchOptions(), recipe: recipe, library: #require(torch))
            let builder = SampleBuilder(
                dataset: try InstructionDataset(
                    files: recipe.dataPath.map { URL(fileURLWithPath: $0) }, imageFolder: URL(fileURLWithPath: recipe.imageFolder)),
                tokenizer: source.tokenizer, assembly: SampleAssembly(rowsPerImage: 64, adaptive: true, maximumLength: 512),
                imageProcessor: try source.makeImageProcessor(), aspect: .pad, units: source.units, budgets: .full, seed: 1)
            // The number that stands for a budget counts units, of which there are more now.
            var sample = try builder.sample(0, epoch: 0)
            sample.latency = 0.8
            let batch = TorchBatch([sample])
            var logits: [Float] = []
            let results = try model.accumulate([batch], TorchModel.StepOptions(scored: batch.scored)) { if $0 == "scheduler_logits" { logits = $1 } }
            return (results.reduce(0) { $0 + $1.lossSum }, logits)
        }
        let (old, new) = (try outputs(before, run.recipe), try outputs(after, recipe))
        #expect(abs(new.loss - old.loss) <= 1e-4 * old.loss)
        // The first two layers, whatever is asked.
        let perLayer = new.plan.count / optional
        let units = variant == "L" ? 2 : 2 * heads / adaptive.schedulerRank
        let chosen = switch adaptive.schedulerType {
        case .layers: GumbelLayerSampling(logits: new.plan, draws: units).sample
        case .heads: GumbelHeadSampling(logits: new.plan, heads: heads, rank: adaptive.schedulerRank, draws: units).sample
        }
        #expect(chosen == (0 ..< new.plan.count).map { $0 < 2 * perLayer ? 1 : 0 })
        // Fewer layers than there are would drop some unasked.
        recipe.numHiddenLayers = layers - 1
        #expect(throws: TrainingError.self) { try ModelSource(recipe) }
    }

    @Test("questions are packed together if there is no plan to choose") func questionsStandTogetherWhereThereIsNoPlanToChoose() throws {
        // A mismatch means that questions are trained under each other's plans, or that those without a plan cost as much as single ones.
        let run = try SmallRun()
        let data = try run.folder.write(
            """
            [{"id": "a", "image": "00.png", "conversations": [
              {"from": "human", "value": "<image>\\nWhat is on the left?"}, {"from": "gpt", "value": "bicycle"},
              {"from": "human", "value": "How many?"}, {"from": "gpt", "value": "three"}]}]
            """, to: "two.json")
        let source = try ModelSource(run.recipe)
        let builder = SampleBuilder(
            dataset: try InstructionDataset(files: [data], imageFolder: URL(fileURLWithPath: run.recipe.imageFolder)),
            tokenizer: source.tokenizer, assembly: SampleAssembly(rowsPerImage: 64, adaptive: true, maximumLength: 512),
            imageProcessor: try source.makeImageProcessor(), aspect: .pad, units: source.units, budgets: .uniform, seed: 1, independentTurns: true)
        let all = try #require(source.units).total - #require(source.units).prefix
        var seen: Set<Int> = []
        for epoch in 0 ..< 40 {
            let sample = try builder.sample(0, epoch: epoch)
            seen.insert(sample.units)
            #expect(sample.branches.isEmpty == (sample.units > 0 && sample.units < all))
        }
        #expect(seen == Set(0 ... all))
        // Of everything, a share gets the least.
        seen = []
        let full = SampleBuilder(
            dataset: builder.dataset, tokenizer: builder.tokenizer, assembly: builder.assembly, imageProcessor: builder.imageProcessor,
            aspect: .pad, units: builder.units, budgets: .full, seed: 1, floorShare: 0.5, independentTurns: true)
        for epoch in 0 ..< 40 { seen.insert(try full.sample(0, epoch: epoch).units) }
        #expect(seen == [0, all])
        // Of uniform budgets, a share gets everything: more than one of so many would, and not all.
        let more = SampleBuilder(
            dataset: builder.dataset, tokenizer: builder.tokenizer, assembly: builder.assembly, imageProcessor: builder.imageProcessor,
            aspect: .pad, units: builder.units, budgets: .uniform, seed: 1, fullShare: 0.8, independentTurns: true)
        let counts = try (0 ..< 60).map { try more.sample(0, epoch: $0).units }
        #expect(counts.count { $0 == all } > 30 && Set(counts).count > 1)
    }
}
