import AdaLLaVA
import Foundation

/// One image and one question at every budget: how answer, cost and time change (AdaLLaVA, section 4).
package struct BudgetSweep: Sendable {
    package var question: String
    package var image: RGBImage?
    package var budgets = stride(from: 10, through: 1, by: -1).map { Double($0) / 10 }
    package var repeats = 7
    /// The longest answer, in tokens.
    package var maxTokens = 128
    /// How FLOPs and memory are counted.
    package var formula = CostFormula.exact

    package init(question: String, image: RGBImage?) { (self.question, self.image) = (question, image) }

    /// Checks the settings without running anything.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``, `BudgetError` where none of the budgets can be run.
    package func validate(for model: AnalyzedModel? = nil) throws {
        try ExperimentLimits.require(budgets: budgets)
        try ExperimentLimits.require(repeats, in: ExperimentLimits.repeats, "--repeat")
        try ExperimentLimits.require(maxTokens, in: ExperimentLimits.tokens, "--max-tokens")
        if let model, model.units == nil, !budgets.contains(1) { throw BudgetError.notAdaptive(budget: budgets[0], model: model.name) }
    }

    /// Runs every budget once a round. Greedy answers are the same each time; only times differ.
    /// - Throws: ``EvaluationError``, `BudgetError`, `GenerationError`, `CancellationError` before the first repeat is whole.
    package func run(
        _ model: some MeasurableModel, as description: ExperimentModel, environment: ExperimentEnvironment,
        onProgress: (ExperimentProgress) -> Void = { _ in }
    ) async throws -> SweepReport {
        try validate(for: description.analyzed)
        // A model without a scheduler can only be run whole.
        let possible = budgets.filter { $0 == 1 || description.analyzed.units != nil }
        var responses = [ModelResponse?](repeating: nil, count: possible.count)
        var prefill = [[Double]](repeating: [], count: possible.count)
        let rounds = InterleavedRounds(repeats: repeats, cases: possible.count)
        let repeats = try await rounds.run(name: { String(format: "budget %g", possible[$0]) }, onProgress: onProgress) { index, counts in
            let response = try await model.respondAfresh(to: question, image: image, budget: .fraction(possible[index]), maxTokens: maxTokens)
            responses[index] = response
            if counts { prefill[index].append(response.prefillMilliseconds) }
        }
        let rows = try budgets.map { budget in
            guard let index = possible.firstIndex(of: budget), let response = responses[index] else { return SweepReport.Row(budget: budget, run: nil) }
            let cost = try cost(response, description)
            return SweepReport.Row(
                budget: budget,
                run: SampleStatistics(prefill[index]).map {
                    SweepReport.Run(
                        answer: response.text, generatedTokens: response.generatedTokens, promptTokens: response.promptTokens,
                        executedShare: response.executedShare, isBelowFloor: description.isBelowFloor(budget), cost: cost,
                        keyValueBytes: response.keyValueBytes, prefill: $0)
                })
        }
        return SweepReport(
            repeats: repeats, environment: environment, model: description, question: question, formula: formula, rows: rows)
    }

    /// FLOPs and memory of an answer; the weights as the file holds them, the rest by calculation.
    private func cost(_ response: ModelResponse, _ description: ExperimentModel) throws -> RequestCost {
        var settings = description.analyzed.settings(promptTokens: response.promptTokens, generatedTokens: max(1, response.generatedTokens))
        (settings.keyValueBits, settings.images) = (description.keyValueBits, image == nil ? 0 : 1)
        let analysis = try CostAnalysis(
            model: description.analyzed, hardware: Hardware.table[0], settings: settings,
            plan: CostPlan(response.plan, model: description.analyzed), formula: formula)
        var cost = analysis.request
        // The reference's memory is a sum over all steps, in which weights occur many times: left as it is.
        if formula == .exact {
            let difference = Double(description.weightBytes) - analysis.prefill.memory.weights
            cost.memoryConsumption += difference
            cost.prefillMemoryConsumption += difference
        }
        return cost
    }
}

/// Result of ``BudgetSweep``.
package struct SweepReport: ExperimentReport {
    /// One budget; `run` is `nil` where the model cannot be run at it.
    package struct Row: Sendable {
        package let budget: Double
        package let run: Run?
    }

    /// Results of one budget.
    package struct Run: Sendable {
        package let answer: String
        package let generatedTokens: Int
        package let promptTokens: Int
        /// The fraction of all heads and neuron groups that ran.
        package let executedShare: Double
        /// Whether the budget was below the floor, so that the prefix layers ran.
        package let isBelowFloor: Bool
        /// By calculation; ``RequestCost/prefillTime`` is the formula's hardware's, not this machine's.
        package let cost: RequestCost
        /// Memory of keys and values, including the reserve for the longest answer.
        package let keyValueBytes: Int
        /// Milliseconds.
        package let prefill: SampleStatistics

        package var words: Int { answer.split(whereSeparator: \.isWhitespace).count }
    }

    package static let name = "sweep"
    package let repeats: ExperimentRepeats
    package let environment: ExperimentEnvironment
    package let model: ExperimentModel
    package let question: String
    package let formula: CostFormula
    package let rows: [Row]

    package var models: [ExperimentModel] { [model] }

    package struct Details: Codable, Sendable {
        package var question: String
        package var formula: String
        @Nullable package var floor: Double?
        package var results: [Entry]

        /// One budget. Only `budget` and `possible` are present if the model cannot be run at it.
        package struct Entry: Codable, Sendable {
            package var budget: Double
            package var possible: Bool
            package var belowFloor: Bool?
            package var executedShare: Double?
            package var answer: String?
            package var words: Int?
            package var tokens: Int?
            package var promptTokens: Int?
            package var flops: Double?
            package var averageFlops: Double?
            package var prefillFlops: Double?
            package var memoryConsumption: Double?
            package var kvBytes: Int?
            package var prefillMs: SampleStatistics.JSON?

            enum CodingKeys: String, CodingKey {
                case budget, possible, answer, words, tokens, flops
                case belowFloor = "below_floor"
                case executedShare = "executed_share"
                case promptTokens = "prompt_tokens"
                case averageFlops = "avg_flops"
                case prefillFlops = "prefill_flops"
                case memoryConsumption = "memory_consumption"
                case kvBytes = "kv_bytes"
                case prefillMs = "prefill_ms"
            }
        }
    }

    package var details: Details {
        Details(
            question: question, formula: formula.rawValue, floor: model.budgetFloor,
            results: rows.map { row in
                let run = row.run
                return Details.Entry(
                    budget: row.budget, possible: run != nil, belowFloor: run?.isBelowFloor, executedShare: run?.executedShare, answer: run?.answer,
                    words: run?.words, tokens: run?.generatedTokens, promptTokens: run?.promptTokens, flops: run?.cost.flops,
                    averageFlops: run?.cost.averageFlops, prefillFlops: run?.cost.prefillFlops, memoryConsumption: run?.cost.memoryConsumption,
                    kvBytes: run?.keyValueBytes, prefillMs: run?.prefill.json)
            })
    }

    package var csv: String {
        let header = [
            "budget", "possible", "below_floor", "executed_share", "flops", "avg_flops", "prefill_flops", "memory_consumption", "kv_bytes",
            "prefill_ms_mean", "prefill_ms_ci95", "n", "words", "tokens", "answer",
        ]
        return ExperimentText.csv(
            [header]
                + rows.map { row in
                    guard let run = row.run else { return ["\(row.budget)", "false"] + Array(repeating: "", count: header.count - 2) }
                    return [
                        "\(row.budget)", "true", "\(run.isBelowFloor)", "\(run.executedShare)", "\(run.cost.flops)", "\(run.cost.averageFlops)",
                        "\(run.cost.prefillFlops)", "\(run.cost.memoryConsumption)", "\(run.keyValueBytes)", "\(run.prefill.mean)",
                        run.prefill.meanMargin.map { "\($0)" } ?? "", "\(run.prefill.count)", "\(run.words)", "\(run.generatedTokens)", run.answer,
                    ]
                })
    }

    package var lines: [String] {
        let header = ["budget", "ran", "GFLOP", "a token", "prefill ms", "n", "memory", "words", "answer"]
        let table = [header] + rows.map { row in
            guard let run = row.run else { return [String(format: "%g", row.budget), "-", "-", "-", "-", "-", "-", "-", "not possible: no scheduler"] }
            return [
                String(format: "%g", row.budget) + (run.isBelowFloor ? " *" : "  "), String(format: "%.0f %%", run.executedShare * 100),
                ExperimentText.number(run.cost.flops / 1e9), ExperimentText.number(run.cost.averageFlops / 1e9), ExperimentText.mean(run.prefill),
                "\(run.prefill.count)", CostReport.short(run.cost.memoryConsumption) + "B", "\(run.words)",
                ExperimentText.shortened(run.answer, to: 60),
            ]
        }
        var lines = ["question \(ExperimentText.shortened(question, to: 100))", ""] + CostReport.aligned(table, textColumns: [8]) + [""]
        if let floor = model.budgetFloor {
            let starred = rows.contains { $0.run?.isBelowFloor ?? false }
            lines.append(
                String(format: "the floor is %.3g: layers that always run cost as much", floor)
                    + (starred ? "; a budget marked * lies below it and was run at the floor" : ""))
        } else {
            lines.append("no floor: the model has no scheduler, so it can only run whole")
        }
        lines.append(
            "ran: heads and neuron groups; GFLOP: prompt and answer without the tower, \(formula.rawValue) formula; memory: "
                + (formula == .exact ? "weights, cache and activations at the peak" : "the reference's sum over all steps"))
        return lines + [ExperimentText.meanNote]
    }

    package func chartScript(to path: String, format: ChartFormat) -> String {
        let runs = rows.compactMap { row in row.run.map { (budget: row.budget, run: $0) } }.sorted { $0.budget < $1.budget }
        var chart = Chart(
            title: "Budget sweep: \(model.name), \(model.threads) thread\(model.threads == 1 ? "" : "s")", xLabel: "budget (fraction of full compute)",
            yLabel: "share of the largest budget's (fraction)", series: [])
        guard let largest = runs.last?.run else { return Gnuplot.script(chart, to: path, format: format) }
        let series: [(String, (Run) -> Double)] = [
            ("prefill time (measured)", { $0.prefill.mean }), ("FLOPs of the request", { $0.cost.flops }),
            ("memory", { $0.cost.memoryConsumption }),
        ]
        for (name, value) in series where value(largest) > 0 {
            chart.series.append(Chart.Series(name: name, points: runs.map { ($0.budget, value($0.run) / value(largest)) }))
        }
        if let floor = model.budgetFloor, let lowest = runs.first?.budget, lowest < floor {
            chart.series.append(Chart.Series(name: String(format: "floor %.3g", floor), points: [(floor, 0), (floor, 1)], style: .steps))
        }
        chart.minimumHeight = 1
        return Gnuplot.script(chart, to: path, format: format)
    }
}
