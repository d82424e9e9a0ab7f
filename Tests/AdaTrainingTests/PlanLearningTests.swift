import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

/// What lets a scheduler leave its start: annealed noise, a start that gradients can undo, plans that differ, plans that are ranked, packs of one task.
@Suite(.needsTorch) struct PlanLearningTests {
    @Test("noise changes evenly from the first step to the last")
    func noiseIsAnnealed() throws {
        var recipe = Recipe()
        #expect((0 ..< 5).map { recipe.noise(step: $0, of: 5) } == [1, 1, 1, 1, 1])
        (recipe.gumbelNoise, recipe.gumbelNoiseEnd) = (2, 0)
        #expect((0 ..< 5).map { recipe.noise(step: $0, of: 5) } == [2, 1.5, 1, 0.5, 0])
        #expect(recipe.noise(step: 9, of: 5) == 0 && recipe.noise(step: 0, of: 1) == 2)
    }

    @Test("a start with the first layers first can be made small enough for gradients", arguments: [1.0, 0.05])
    func startIsScaled(scale: Double) throws {
        var recipe = try SmallRun().recipe
        (recipe.schedulerType, recipe.numHiddenLayers) = (.layers, 10)
        (recipe.schedulerInit, recipe.schedulerInitScale) = (.frontToBack, scale)
        let model = try ModelSource(recipe).makeModel(TorchOptions(), recipe: recipe, library: #require(torch))
        let bias = try model.read(#require(model.parameters.first { $0.name == "scheduler.mlp_head.bias" }))
        #expect(zip(bias, bias.dropFirst()).allSatisfy { abs($0 - $1 - Float(scale)) < 1e-5 })
    }

    /// Of one recorded sample or both: the losses, the plan and the scheduler's logits with their gradient.
    private struct Seen {
        var loss = 0.0
        var balance = 0.0, ranking = 0.0
        var plan: [Float] = [], logits: [Float] = [], gradient: [Float] = []
    }

    private func seen(
        _ step: RecordedStep, _ samples: [TrainingSample], _ change: (inout TorchModel.StepOptions) -> Void = { _ in }
    ) throws -> Seen {
        let batch = TorchBatch(samples)
        var options = TorchModel.StepOptions(scored: batch.scored)
        change(&options)
        var seen = Seen()
        let result = try step.model.accumulate([batch], options) { name, values in
            switch name {
            case "plan": seen.plan = values
            case "scheduler_logits": seen.logits = values
            case "grad_of_scheduler_logits": seen.gradient = values
            default: break
            }
        }[0]
        step.model.clearGradients()
        (seen.loss, seen.balance, seen.ranking) = (result.lossSum / Double(batch.scored), result.balanceSum / Double(batch.scored), result.rankingSum / Double(batch.scored))
        return seen
    }

    @Test("the balance term is the mutual information of sample and switch, and its gradient reaches the scores", arguments: ["L", "H"])
    func balanceIsMutualInformation(variant: String) throws {
        let step = try RecordedStep(variant)
        let samples = try step.samples()
        let plain = try seen(step, samples), balanced = try seen(step, samples) { $0.balanceWeight = 3 }
        let width = plain.logits.count / samples.count
        func term(_ logits: [Float]) -> Double {
            let rows = stride(from: 0, to: logits.count, by: width).map { first -> [Double] in
                let exponentials = logits[first ..< first + width].map { exp(Double($0)) }
                return exponentials.map { $0 / exponentials.reduce(0, +) }
            }
            func entropy(_ p: [Double]) -> Double { -p.reduce(0) { $0 + $1 * log($1 + 1e-9) } }
            let mean = (0 ..< width).map { switched in rows.reduce(0) { $0 + $1[switched] } / Double(rows.count) }
            return rows.map(entropy).reduce(0, +) / Double(rows.count) - entropy(mean)
        }
        #expect(plain.balance == 0 && balanced.balance <= 1e-6)
        #expect(abs(balanced.balance - term(plain.logits)) < 1e-4)
        for index in [0, width - 1, plain.logits.count - 1] {
            var (above, below) = (plain.logits, plain.logits)
            above[index] += 1e-2
            below[index] -= 1e-2
            let slope = 3 * (term(above) - term(below)) / Double(above[index] - below[index])
            #expect(abs(Double(balanced.gradient[index] - plain.gradient[index]) - slope) < 2e-4 + 0.02 * abs(slope))
        }
    }

    @Test("of two plans the scores of the one with the lower loss are raised over the other's", arguments: ["L", "H"])
    func plansAreRanked(variant: String) throws {
        let step = try RecordedStep(variant)
        var sample = try step.samples()[0]
        sample.units = 2
        var isTried = false
        for seed in 1 ..< 9 as Range<UInt64> {
            sample.seed = seed
            let ranked = try seen(step, [sample]) { $0.rankingWeight = 2 }, plain = try seen(step, [sample])
            // What the second plan is: the first of other noise.
            sample.seed = seed ^ 0x9E37_79B9_7F4A_7C15
            let other = try seen(step, [sample])
            #expect(ranked.plan == plain.plan && ranked.loss == plain.loss && plain.ranking == 0)
            let width = plain.logits.count, perLayer = plain.plan.count / step.checkpoint.configuration.language.numHiddenLayers
            let prefix = try #require(step.checkpoint.configuration.adaptive).numPrefixLayers
            func switches(_ plan: [Float]) -> [Float] {
                let optional = Array(plan.dropFirst(prefix * perLayer))
                return variant == "H" ? optional : stride(from: 0, to: optional.count, by: perLayer).map { optional[$0] }
            }
            let difference = zip(switches(plain.plan), switches(other.plan)).map { $0 - $1 }
            #expect(difference.count == width)
            guard difference.contains(where: { $0 != 0 }) else {
                #expect(ranked.ranking == 0)
                continue
            }
            isTried = true
            let advantage = other.loss - plain.loss
            let margin = zip(difference, plain.logits).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
            let sign: Double = advantage > 0 ? 1 : -1
            #expect(abs(ranked.ranking - abs(advantage) * log1p(exp(-sign * margin))) < 1e-4 + 1e-3 * ranked.ranking)
            let slope = -2 * abs(advantage) * sign / (1 + exp(sign * margin))
            for index in 0 ..< width {
                let added = Double(ranked.gradient[index] - plain.gradient[index])
                #expect(abs(added - slope * Double(difference[index])) < 1e-5 + 0.01 * abs(slope))
            }
        }
        #expect(isTried)
    }

    @Test("under a shared plan, a pack holds questions of one task alone if that is asked for")
    func packsHaveOneTask() throws {
        let run = try SmallRun()
        let turns = (0 ..< 6).map { index in
            """
            {"from": "human", "value": "\(index == 0 ? "<image>\\n" : "")What is \(index)?"}, {"from": "gpt", "value": "\(index)"}
            """
        }
        let data = try run.folder.write(
            """
            [{"id": "a", "image": "00.png", "tasks": ["vqa", "text", "vqa", "pope", "text", "vqa"], "conversations": [\(turns.joined(separator: ","))]}]
            """, to: "tasks.json")
        let source = try ModelSource(run.recipe)
        func builder(_ packsByTask: Bool) throws -> SampleBuilder {
            SampleBuilder(
                dataset: try InstructionDataset(files: [data], imageFolder: URL(fileURLWithPath: run.recipe.imageFolder)),
                tokenizer: source.tokenizer, assembly: SampleAssembly(rowsPerImage: 64, adaptive: true, maximumLength: 512),
                imageProcessor: try source.makeImageProcessor(), aspect: .pad, units: source.units, budgets: .uniform, seed: 1, independentTurns: true,
                sharesPlan: true, packsByTask: packsByTask)
        }
        let all = try #require(source.units).total - #require(source.units).prefix
        var sizes: Set<Int> = []
        let (packed, mixed) = (try builder(true), try builder(false))
        for epoch in 0 ..< 40 {
            let sample = try packed.sample(0, epoch: epoch)
            let questions = Int(sample.branches.max() ?? 1)
            // A plan is chosen for the drawn question's task: three of one, two of another, one of the third.
            if sample.units > 0, sample.units < all { sizes.insert(questions) } else { #expect(questions == 6) }
            #expect(try mixed.sample(0, epoch: epoch).branches.max() == 6)
        }
        #expect(sizes == [1, 2, 3])
    }

    @Test("the fields are read from a recipe, and documented")
    func fieldsAreRead() throws {
        let names = ["gumbel_noise_end", "plan_balance_weight", "plan_ranking_weight", "scheduler_init_scale", "pack_by_task"]
        #expect(Set(names).isSubset(of: Set(RecipeFields.all.map(\.name))))
        var recipe = Recipe()
        for (name, value) in zip(names, ["0", "0.1", "0.5", "0.05", "true"]) {
            let field = try #require(RecipeFields.all.first { $0.name == name })
            #expect(field.set(&recipe, .scalar(value)) && !field.set(&recipe, .scalar("-1")) && !field.help.isEmpty)
        }
        #expect(recipe.gumbelNoiseEnd == 0 && recipe.planBalanceWeight == 0.1 && recipe.planRankingWeight == 0.5)
        #expect(recipe.schedulerInitScale == 0.05 && recipe.packByTask)
    }
}
