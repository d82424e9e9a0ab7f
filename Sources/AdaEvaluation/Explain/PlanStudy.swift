import AdaLLaVA

/// Where the plan comes from that an input is answered under.
public enum PlanSource: String, Sendable, CaseIterable {
    /// The scheduler's, for this input.
    case own
    /// The scheduler's, for another input.
    case swapped
    /// As many units, chosen at random for each input.
    case random
    /// The same for all inputs: the switches that the scheduler turned on most often.
    case fixed
}

/// Whether a model's plans depend on the input, and whether it matters: plans and scores at each budget with the scheduler's plans, with those
/// of other inputs, with random ones and with one for all. The causal test of what AdaLLaVA (Xu et al., ICCV 2025, section 4.4) shows by example.
public struct PlanStudy: Sendable {
    /// One budget.
    public struct Result: Sendable {
        public let budget: Double
        /// The scheduler's plan for each sample.
        public let plans: [ExecutionPlan]
        public let units: Int?
        public let fixedPlan: ExecutionPlan
        /// Answers by the source of the plan, as many as samples.
        public internal(set) var answers: [PlanSource: [String]]
        /// Scores, 0 ... 1, by the source of the plan; empty where the benchmark's answers are kept by a server.
        public internal(set) var scores: [PlanSource: [Double]]

        public var frequencies: SwitchFrequencies? { SwitchFrequencies(plans) }
        public var meanHamming: Double? { PlanDifference.meanHamming(plans) }
        /// Plans that differ from each other.
        public var distinctPlans: Int { Set(plans.map(\.mask)).count }
        public func accuracy(_ source: PlanSource) -> Double? { scores[source]?.mean }
        /// What the own plans gain over those of another source.
        public func gain(over source: PlanSource) -> PairedDifference? {
            guard let own = scores[.own], let other = scores[source] else { return nil }
            return PairedDifference(own, other)
        }
    }

    public let benchmark: any Benchmark
    public let samples: [BenchmarkSample]
    public let budgets: [Double]
    public let sources: [PlanSource]
    public let seed: UInt64

    /// - Parameters:
    ///   - samples: of the benchmark.
    ///   - sources: beside the scheduler's own plans, which always run.
    public init(benchmark: any Benchmark, samples: [BenchmarkSample], budgets: [Double], sources: [PlanSource] = PlanSource.allCases, seed: UInt64 = 1) {
        (self.benchmark, self.samples, self.budgets, self.seed) = (benchmark, samples, budgets, seed)
        self.sources = [.own] + PlanSource.allCases.filter { $0 != .own && sources.contains($0) }
    }

    /// - Parameter onProgress: called after each answer with how many are done, of how many.
    /// - Throws: what the model throws, `ImageError`, ``EvaluationError``, `CancellationError`.
    public func run(_ model: some PlannedModel, onProgress: (Int, Int) -> Void = { _, _ in }) async throws -> [Result] {
        guard model.switchCount > 0 else {
            throw EvaluationError.argument(name: "--model", expected: "an adaptive model, whose plans can be looked at", found: "one without a scheduler")
        }
        let total = samples.count * budgets.count * sources.count
        var done = 0
        var results: [Result] = []
        for budget in budgets {
            var own: [ModelResponse] = []
            for sample in samples {
                own.append(try await respond(model, sample, budget, plan: nil))
                done += 1
                onProgress(done, total)
            }
            var result = try makeResult(model, budget, own)
            for source in sources.dropFirst() {
                let plans = try self.plans(source, model, result)
                var answers: [String] = []
                for (index, sample) in samples.enumerated() {
                    // Greedy answers under the same plan are the same.
                    let same = plans[index] == result.plans[index]
                    answers.append(same ? own[index].text : try await respond(model, sample, budget, plan: plans[index]).text)
                    done += 1
                    onProgress(done, total)
                }
                result.answers[source] = answers
                result.scores[source] = scores(answers)
            }
            results.append(result)
        }
        return results
    }

    private func respond(_ model: some PlannedModel, _ sample: BenchmarkSample, _ budget: Double, plan: ExecutionPlan?) async throws -> ModelResponse {
        try Task.checkCancellation()
        let image = try sample.image?.load()
        return try await model.respond(to: sample.question, image: image, budget: budget, maxTokens: benchmark.maxTokens, plan: plan)
    }

    private func makeResult(_ model: some PlannedModel, _ budget: Double, _ own: [ModelResponse]) throws -> Result {
        let plans = own.map(\.plan)
        guard let first = plans.first, let frequencies = SwitchFrequencies(plans) else {
            throw EvaluationError.argument(name: "--data", expected: "at least one sample", found: "none")
        }
        let units = own.first?.units
        let fixed = try units.map {
            try model.plan(switchLogits: frequencies.logits(switches: model.switchCount, prefix: model.prefixLayers), units: $0)
        }
        let answers = own.map(\.text)
        return Result(
            budget: budget, plans: plans, units: units, fixedPlan: fixed ?? first, answers: [.own: answers], scores: scores(answers).map { [.own: $0] } ?? [:])
    }

    private func plans(_ source: PlanSource, _ model: some PlannedModel, _ result: Result) throws -> [ExecutionPlan] {
        switch source {
        case .own: return result.plans
        case .fixed: return result.plans.map { _ in result.fixedPlan }
        case .swapped: return PlanDifference.derangement(count: samples.count, seed: seed).map { result.plans[$0] }
        case .random:
            guard let units = result.units else { return result.plans }
            return try samples.indices.map { index in
                var generator = SplitMix64(seed: seed &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15)
                return try model.plan(switchLogits: (0 ..< model.switchCount).map { _ in Float(generator.unit()) }, units: units)
            }
        }
    }

    /// `nil` if a sample cannot be scored on its own.
    private func scores(_ answers: [String]) -> [Double]? {
        let scores = zip(samples, answers).compactMap { benchmark.score($1, for: $0) }
        return scores.count == samples.count ? scores : nil
    }
}

extension PlanStudy.Result {
    /// What `explain --json` prints of a budget.
    public var jsonObject: [String: Any] {
        var object: [String: Any] = ["budget": budget, "samples": plans.count, "distinct_plans": distinctPlans]
        if let units { object["units"] = units }
        if let meanHamming { object["mean_hamming"] = meanHamming }
        if let frequencies { object["switch_frequencies"] = frequencies.values }
        if !scores.isEmpty {
            object["accuracy"] = Dictionary(uniqueKeysWithValues: scores.keys.compactMap { source in accuracy(source).map { (source.rawValue, $0) } })
            object["gain_of_own"] = Dictionary(
                uniqueKeysWithValues: scores.keys.filter { $0 != .own }.compactMap { source in
                    gain(over: source).map { (source.rawValue, ["mean": $0.mean, "low": $0.low, "high": $0.high]) }
                })
        }
        return object
    }
}
