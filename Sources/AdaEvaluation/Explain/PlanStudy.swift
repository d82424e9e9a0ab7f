import AdaImages
import AdaLLaVA

/// Where the plan comes from that an input is answered under.
package enum PlanSource: String, Sendable, CaseIterable {
    /// The scheduler's, for this input.
    case own
    /// The scheduler's, for another input.
    case swapped
    /// As many units, chosen at random for each input.
    case random
    /// The same for all inputs: the switches that the scheduler turned on most often.
    case fixed
}

/// Whether a model's plans depend on the input, and whether this matters: plans and scores at each budget with the scheduler's plans, with those
/// of other inputs, with random ones and with one for all. A causal test of the examples in AdaLLaVA (Xu et al., ICCV 2025, section 4.4).
///
///     let study = PlanStudy(benchmark: scenes, samples: scenes.samples, budgets: [0.85, 0.6])
///     for result in try await study.run(model) { print(result.budget, result.accuracy(.own), result.gain(over: .swapped)) }
///
/// In every case the latency token carries the budget; only the plan is replaced. Answers are greedy.
package struct PlanStudy: Sendable {
    package let benchmark: any Benchmark
    package let samples: [BenchmarkSample]
    package let budgets: [Double]
    package let sources: [PlanSource]
    package let seed: UInt64

    /// - Parameters:
    ///   - samples: of the benchmark. A single one has no other to take a plan from, so nothing is swapped.
    ///   - sources: plans to compare with the scheduler's own, which always run.
    ///   - seed: seeds the swaps, the random plans, and the resampling of the intervals.
    package init(benchmark: any Benchmark, samples: [BenchmarkSample], budgets: [Double], sources: [PlanSource] = PlanSource.allCases, seed: UInt64 = 1) {
        (self.benchmark, self.samples, self.budgets, self.seed) = (benchmark, samples, budgets, seed)
        self.sources = [.own] + PlanSource.allCases.filter { $0 != .own && sources.contains($0) && ($0 != .swapped || samples.count > 1) }
    }

    /// Answers every sample at every budget under the plans of every source.
    ///
    /// Sample by sample, first under all own plans, then under all others, so that the engine encodes an image once in each pass. Greedy
    /// answers under the same plan are the same, so no plan is run twice for a sample.
    /// - Parameters:
    ///   - damaged: collects damaged images that were read anyway.
    ///   - onProgress: called after each answer with how many are done, of how many.
    /// - Throws: the model's errors, `ImageError`, ``EvaluationError``, `CancellationError`.
    package func run(
        _ model: some PlannedModel, damaged: DamagedImages = DamagedImages(), onProgress: (Int, Int) -> Void = { _, _ in }
    ) async throws -> [Result] {
        try check(model)
        let total = samples.count * budgets.count * sources.count
        var done = 0
        var own = [[ModelResponse]](repeating: [], count: budgets.count)
        for sample in samples {
            let read = try sample.image?.load()
            damaged.note(read?.damage)
            let image = read?.image
            for (place, budget) in budgets.enumerated() {
                own[place].append(try await respond(model, sample, image, budget, plan: nil))
                done += 1
                onProgress(done, total)
            }
        }
        var results = try zip(budgets, own).map { try makeResult(model, $0, $1) }
        var random = SplitMix64(seed: seed)
        let plans = try results.map { result in
            try sources.dropFirst().map { try self.plans($0, model, result, seed: random.next()) }
        }
        var answers = results.map { _ in sources.dropFirst().map { _ in [String]() } }
        for (index, sample) in samples.enumerated() {
            let isAnythingNew = plans.indices.contains { place in plans[place].contains { $0[index] != results[place].plans[index] } }
            let image = isAnythingNew ? try sample.image?.load().image : nil
            for (place, budget) in budgets.enumerated() {
                var known = [(plan: results[place].plans[index], answer: own[place][index].text)]
                for source in plans[place].indices {
                    let plan = plans[place][source][index]
                    let earlier = known.first { $0.plan == plan }?.answer
                    let answer = if let earlier { earlier } else { try await respond(model, sample, image, budget, plan: plan).text }
                    known.append((plan, answer))
                    answers[place][source].append(answer)
                    done += 1
                    onProgress(done, total)
                }
            }
        }
        for place in results.indices {
            for (index, source) in sources.dropFirst().enumerated() {
                results[place].add(source, plans: plans[place][index], answers: answers[place][index], scores: scores(answers[place][index]), seed: seed)
            }
        }
        return results
    }

    private func check(_ model: some PlannedModel) throws {
        guard model.switchCount > 0 else {
            throw EvaluationError.argument(name: "--model", expected: "an adaptive model, whose plans can be looked at", found: "one without a scheduler")
        }
        guard !samples.isEmpty else { throw EvaluationError.argument(name: "--data", expected: "at least one sample", found: "none") }
        guard !budgets.isEmpty, Set(budgets).count == budgets.count else {
            throw EvaluationError.argument(name: "--budgets", expected: "one or more different budgets", found: "\(budgets)")
        }
    }

    private func respond(
        _ model: some PlannedModel, _ sample: BenchmarkSample, _ image: RGBImage?, _ budget: Double, plan: ExecutionPlan?
    ) async throws -> ModelResponse {
        try Task.checkCancellation()
        return try await model.respond(to: sample.question, image: image, budget: .fraction(budget), maxTokens: benchmark.maxTokens, plan: plan)
    }

    private func makeResult(_ model: some PlannedModel, _ budget: Double, _ own: [ModelResponse]) throws -> Result {
        let plans = own.map(\.plan)
        let switches = PlanSwitches(prefixLayers: model.prefixLayers, count: model.switchCount)
        guard let first = plans.first, let frequencies = SwitchFrequencies(plans) else {
            throw EvaluationError.argument(name: "--data", expected: "at least one sample", found: "none")
        }
        let units = own.first?.units
        let fixed = try units.map { try model.plan(switchLogits: frequencies.logits(switches), units: $0) }
        let answers = own.map(\.text)
        return Result(
            budget: budget, switches: switches, plans: plans, units: units, fixedPlan: fixed ?? first, answers: [.own: answers],
            scores: scores(answers).map { [.own: $0] } ?? [:])
    }

    private func plans(_ source: PlanSource, _ model: some PlannedModel, _ result: Result, seed draw: UInt64) throws -> [ExecutionPlan] {
        switch source {
        case .own: return result.plans
        case .fixed: return result.plans.map { _ in result.fixedPlan }
        case .swapped: return PlanDifference.derangement(count: samples.count, seed: seed).map { result.plans[$0] }
        case .random:
            guard let units = result.units else { return result.plans }
            var generator = SplitMix64(seed: draw)
            return try samples.map { _ in
                try model.plan(switchLogits: (0 ..< model.switchCount).map { _ in Float(generator.unit()) }, units: units)
            }
        }
    }

    /// `nil` if a sample cannot be scored on its own.
    private func scores(_ answers: [String]) -> [Double]? {
        let scores = zip(samples, answers).compactMap { benchmark.score($1, for: $0) }
        return scores.count == samples.count ? scores : nil
    }
}
