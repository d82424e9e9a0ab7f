import AdaLLaVA

extension PlanStudy {
    /// One budget.
    package struct Result: Sendable {
        package let budget: Double
        package let switches: PlanSwitches
        /// The scheduler's plan for each sample.
        package let plans: [ExecutionPlan]
        /// Optional units that the budget grants.
        package let units: Int?
        package let fixedPlan: ExecutionPlan
        /// Answers by the source of the plan, as many as samples.
        package private(set) var answers: [PlanSource: [String]]
        /// Scores, 0 ... 1, by the source of the plan; empty where a sample cannot be scored on its own.
        package private(set) var scores: [PlanSource: [Double]]
        /// By source, the fraction of samples whose plan differs from their own.
        package private(set) var changedPlans: [PlanSource: Double] = [:]
        private var gains: [PlanSource: PairedDifference] = [:]

        init(
            budget: Double, switches: PlanSwitches, plans: [ExecutionPlan], units: Int?, fixedPlan: ExecutionPlan,
            answers: [PlanSource: [String]], scores: [PlanSource: [Double]]
        ) {
            (self.budget, self.switches, self.plans, self.units) = (budget, switches, plans, units)
            (self.fixedPlan, self.answers, self.scores) = (fixedPlan, answers, scores)
        }

        mutating func add(_ source: PlanSource, plans others: [ExecutionPlan], answers new: [String], scores newScores: [Double]?, seed: UInt64) {
            answers[source] = new
            scores[source] = newScores
            changedPlans[source] = zip(plans, others).map { $0 == $1 ? 0 : 1 }.mean
            if let own = scores[.own], let newScores { gains[source] = PairedDifference(own, newScores, seed: seed) }
        }

        package var frequencies: SwitchFrequencies? { SwitchFrequencies(plans) }

        /// Switches in which two samples' plans differ, over all pairs; `nil` for a single sample.
        package var meanHamming: Double? { PlanDifference.meanHamming(plans, switches) }

        /// Plans that differ from each other.
        package var distinctPlans: Int { Set(plans.map(\.mask)).count }

        package func accuracy(_ source: PlanSource) -> Double? { scores[source]?.mean }

        /// Gain of the own plans over those of another source.
        package func gain(over source: PlanSource) -> PairedDifference? { gains[source] }

        /// The fraction of samples whose answer differs from that under their own plan.
        package func changedAnswers(_ source: PlanSource) -> Double? {
            guard let own = answers[.own], let other = answers[source] else { return nil }
            return zip(own, other).map { $0 == $1 ? 0 : 1 }.mean
        }

        package var json: PlanReport.JSON.Result {
            PlanReport.JSON.Result(
                budget: budget, samples: plans.count, distinctPlans: distinctPlans, switches: switches.count,
                changedPlans: named { changedPlans[$0] }, changedAnswers: named { $0 == .own ? nil : changedAnswers($0) }, units: units,
                meanHamming: meanHamming,
                switchFrequencies: frequencies.map { frequencies in
                    (0 ..< frequencies.layers).map { layer in (0 ..< 2).map { Array(frequencies.row(layer: layer, part: $0)) } }
                },
                accuracy: scores.isEmpty ? nil : named(accuracy), gainOfOwn: scores.isEmpty ? nil : named { gain(over: $0) })
        }

        private func named<Value>(_ value: (PlanSource) -> Value?) -> [String: Value] {
            Dictionary(uniqueKeysWithValues: PlanSource.allCases.compactMap { source in value(source).map { (source.rawValue, $0) } })
        }
    }
}
