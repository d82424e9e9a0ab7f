import AdaLLaVA
import Foundation

/// Upper bound of a scheduler's gain: every plan of a budget's size is run for every input. If the best plan for each input is hardly better than
/// one plan for all, no scheduler can gain anything on this decoder.
///
/// The best plan is chosen by the answers to another wording of the question and scored on the question itself, because the best of many plans on
/// one answer is often luck.
package struct PlanOracle: Sendable {
    /// One budget.
    package struct Result: Sendable {
        package let budget: Double
        package let units: Int
        /// Plans of this size.
        package let plans: Int
        package let inputs: Int
        /// Mean scores: under the scheduler's plans, the one plan that is best for all, and the best plan for each input.
        package let own: Double
        package let single: Double
        package let oracle: Double
        /// Optional layers of the plan that is best for all, counted from the first of the model.
        package let singleLayers: [Int]
        package let oracleOverSingle: PairedDifference?
        package let ownOverSingle: PairedDifference?
    }

    /// How well a linear map of the scheduler's input predicts something about the input.
    package struct Probe: Sendable {
        package let target: String
        package let budget: Double
        package let classes: Int
        /// Of inputs that it was not fitted to.
        package let inputs: Int
        package let accuracy: Double
        /// Accuracy of always predicting the most frequent class.
        package let majority: Double
    }

    package let results: [Result]
    package let probes: [Probe]

    /// Maximum number of optional layers: 256 plans.
    package static let mostLayers = 8

    /// - Parameter onProgress: called after each input.
    /// - Throws: ``EvaluationError`` for variant H or too many layers, the model's errors, `ImageError`, `CancellationError`.
    package init(
        _ model: some BudgetedModel & PlannedModel, _ benchmark: any Benchmark, _ samples: [BenchmarkSample], budgets: [Double], seed: UInt64 = 1,
        onProgress: (Int, Int) -> Void = { _, _ in }
    ) async throws {
        guard let units = model.budgetUnits, model.switchCount == units.total - units.prefix, model.switchCount <= Self.mostLayers else {
            throw EvaluationError.argument(
                name: "--oracle", expected: "a model that switches whole layers, \(Self.mostLayers) optional ones at most",
                found: "one with \(model.switchCount) switches")
        }
        guard samples.allSatisfy({ benchmark.score("", for: $0) != nil }), !samples.isEmpty else {
            throw EvaluationError.argument(name: "--oracle", expected: "questions with known answers", found: "questions without")
        }
        let granted = budgets.map { units.granted(fraction: Float($0)) }
        let choices = try Dictionary(uniqueKeysWithValues: Set(granted).map { count in
            (count, try Self.subsets(of: model.switchCount, count: count).map { layers in
                (layers, try model.plan(switchLogits: (0 ..< model.switchCount).map { layers.contains($0) ? 1 : 0 }, units: count))
            })
        })
        // By units, then by input and plan.
        var scores: [Int: [[Double]]] = [:], otherScores = scores, own: [Int: [Double]] = [:], states: [Int: [[Float]]] = [:]
        for (index, sample) in samples.enumerated() {
            let image = try sample.image?.load().image
            let other = Self.reworded(sample.question)
            for (count, plans) in choices.sorted(by: { $0.key < $1.key }) {
                func score(_ question: String, _ plan: ExecutionPlan?) async throws -> (score: Double, state: [Float]) {
                    try Task.checkCancellation()
                    let answer = try await model.respond(
                        to: question, image: image, budget: .fraction(units.fraction(buying: count)), plan: plan, maxTokens: benchmark.maxTokens)
                    return (benchmark.score(answer.text, for: sample) ?? 0, answer.states.latency)
                }
                let mine = try await score(sample.question, nil)
                own[count, default: []].append(mine.score)
                states[count, default: []].append(mine.state)
                var row: [Double] = [], otherRow: [Double] = []
                for (_, plan) in plans {
                    row.append(try await score(sample.question, plan).score)
                    otherRow.append(try await score(other, plan).score)
                }
                scores[count, default: []].append(row)
                otherScores[count, default: []].append(otherRow)
            }
            onProgress(index + 1, samples.count)
        }
        results = zip(budgets, granted).map { budget, count in
            Self.result(
                budget, count, choices[count]?.map { $0.0.map { $0 + model.prefixLayers } } ?? [], scores[count] ?? [], otherScores[count] ?? [],
                own[count] ?? [], seed: seed)
        }
        probes = zip(budgets, granted).flatMap { budget, count in
            [
                Self.probe("task", budget, states[count] ?? [], samples.map { $0.tags["task"] ?? "" }),
                Self.probe("place", budget, states[count] ?? [], samples.map { Self.place(in: $0.question) }),
            ].compactMap(\.self)
        }
    }

    private static func result(
        _ budget: Double, _ units: Int, _ plans: [[Int]], _ scores: [[Double]], _ others: [[Double]], _ own: [Double], seed: UInt64
    ) -> Result {
        let means = plans.indices.map { plan in others.map { $0[plan] }.mean ?? 0 }
        // The first of equals.
        let single = means.indices.max { means[$0] < means[$1] || (means[$0] == means[$1] && $0 > $1) } ?? 0
        let picked = others.map { row in
            // Where plans are equally good, the one that is best for all.
            let best = row.max() ?? 0
            return row[single] == best ? single : row.indices.filter { row[$0] == best }.max { means[$0] < means[$1] } ?? single
        }
        let (ofOracle, ofSingle) = (zip(scores, picked).map { $0[$1] }, scores.map { $0[single] })
        return Result(
            budget: budget, units: units, plans: plans.count, inputs: scores.count, own: own.mean ?? 0, single: ofSingle.mean ?? 0,
            oracle: ofOracle.mean ?? 0, singleLayers: plans.indices.contains(single) ? plans[single] : [],
            oracleOverSingle: PairedDifference(ofOracle, ofSingle, seed: seed), ownOverSingle: PairedDifference(own, ofSingle, seed: seed))
    }

    /// All sets of `count` numbers below `size`, in the order of their numbers.
    static func subsets(of size: Int, count: Int) -> [[Int]] {
        (0 ..< 1 << size).map { bits in (0 ..< size).filter { bits >> $0 & 1 == 1 } }.filter { $0.count == count }.sorted { $0.lexicographicallyPrecedes($1) }
    }

    /// The same question in other words: Scenes' alternative wording, else without its final punctuation.
    static func reworded(_ question: String) -> String {
        let pairs = [
            ("What does the text say?", "Read the text."), ("What word is shown?", "What does the text say?"), ("Read the text.", "What word is shown?"),
            ("Describe the image.", "What do you see in the image?"), ("What do you see in the image?", "Describe the image."),
            ("How many things are in the image?", "How many things are there?"), ("How many things are there?", "How many things are in the image?"),
        ]
        if let other = pairs.first(where: { $0.0 == question })?.1 { return other }
        if question.contains("What color is") { return question.replacing("What color is", with: "What colour is") }
        if question.contains("What colour is") { return question.replacing("What colour is", with: "What color is") }
        guard let mark = question.lastIndex(where: { "?.".contains($0) }) else { return question + "?" }
        return String(question[..<mark] + question[question.index(after: mark)...])
    }

    /// The place or direction that a question names; empty for none.
    static func place(in question: String) -> String {
        let words = question.lowercased().split { !$0.isLetter }.map(String.init)
        return words.first { ["left", "right", "top", "bottom", "above", "below", "middle"].contains($0) } ?? ""
    }

    /// Fitted to every other input, one class against the rest, and scored on the inputs between.
    /// - Returns: `nil` with one class, or too few inputs.
    static func probe(_ target: String, _ budget: Double, _ states: [[Float]], _ classes: [String]) -> Probe? {
        let names = Set(classes).sorted()
        guard names.count > 1, states.count >= 20 else { return nil }
        let fitted = states.indices.filter { $0 % 2 == 0 }, tested = states.indices.filter { $0 % 2 == 1 }
        let fit = LogisticFit(fitted.map { states[$0] })
        let maps = names.map { name in fit.fit(fitted.map { classes[$0] == name }, ridge: 10) }
        let right = tested.count { index in
            let logits = maps.map { map in zip(map.weight, states[index]).reduce(map.bias) { $0 + $1.0 * $1.1 } }
            return logits.indices.max { logits[$0] < logits[$1] }.map { names[$0] } == classes[index]
        }
        let frequent = names.max { name, other in fitted.count { classes[$0] == name } < fitted.count { classes[$0] == other } }
        return Probe(
            target: target, budget: budget, classes: names.count, inputs: tested.count, accuracy: Double(right) / Double(tested.count),
            majority: Double(tested.count { classes[$0] == frequent }) / Double(tested.count))
    }

    // MARK: - Reports

    package var table: String {
        func points(_ name: String, _ difference: PairedDifference?) -> String {
            difference.map { String(format: "  %@ %+.1f (%+.1f to %+.1f)", name, 100 * $0.mean, 100 * $0.low, 100 * $0.high) } ?? ""
        }
        var lines = ["all plans of a budget's size, for \(results.first?.inputs ?? 0) inputs (picked on another wording of the question)"]
        lines.append("  budget   plans      own   single   oracle")
        for result in results {
            lines.append(
                String(format: "%8g%8d%9.3f%9.3f%9.3f", result.budget, result.plans, result.own, result.single, result.oracle)
                    + points("oracle over single", result.oracleOverSingle) + points("own over single", result.ownOverSingle)
                    + "  single: layers \(result.singleLayers.map(String.init).joined(separator: " "))")
        }
        for probe in probes {
            lines.append(
                String(
                    format: "a linear map of the scheduler's input at %g tells the %@ (%d kinds) of %.1f %% of %d inputs, the most frequent one %.1f %%",
                    probe.budget, probe.target, probe.classes, 100 * probe.accuracy, probe.inputs, 100 * probe.majority))
        }
        return lines.joined(separator: "\n")
    }

    /// A member of `explain --json`.
    package struct JSON: Codable, Sendable {
        package var budgets: [BudgetEntry]
        package var probes: [ProbeEntry]

        package struct BudgetEntry: Codable, Sendable {
            package var budget: Double
            package var units: Int
            package var plans: Int
            package var inputs: Int
            /// Mean scores under the scheduler's plans, the best single plan, and the best plan of each input.
            package var own: Double
            package var single: Double
            package var oracle: Double
            package var singleLayers: [Int]
            @Nullable package var oracleOverSingle: PairedDifference?
            @Nullable package var ownOverSingle: PairedDifference?

            enum CodingKeys: String, CodingKey {
                case budget, units, plans, inputs, own, single, oracle
                case singleLayers = "single_layers"
                case oracleOverSingle = "oracle_over_single"
                case ownOverSingle = "own_over_single"
            }
        }

        package struct ProbeEntry: Codable, Sendable {
            package var target: String
            package var budget: Double
            package var classes: Int
            package var inputs: Int
            package var accuracy: Double
            package var majority: Double
        }
    }

    package var json: JSON {
        JSON(
            budgets: results.map { result in
                JSON.BudgetEntry(
                    budget: result.budget, units: result.units, plans: result.plans, inputs: result.inputs, own: result.own, single: result.single,
                    oracle: result.oracle, singleLayers: result.singleLayers, oracleOverSingle: result.oracleOverSingle,
                    ownOverSingle: result.ownOverSingle)
            },
            probes: probes.map { probe in
                JSON.ProbeEntry(
                    target: probe.target, budget: probe.budget, classes: probe.classes, inputs: probe.inputs, accuracy: probe.accuracy,
                    majority: probe.majority)
            })
    }
}
