import AdaLLaVA
import Foundation

/// Tokens a second in prefill and decode, over models, quantizations, threads and budgets, as `llama-bench` measures them.
///
/// A repeat reads a prompt of made-up tokens, then generates from there: `pp600` and `tg64 @ d600` in llama-bench's words. No token ends
/// it early.
package struct Throughput: Sendable {
    package var budgets = [1.0]
    /// Sequences that are computed together, each with a prompt of its own.
    package var sequences = [1]
    /// Tokens of the prompt; 0 measures decode alone, after one token. `nil` takes 600, or fewer if the model's context is shorter.
    package var promptTokens: Int?
    /// Decode steps; 0 measures prefill alone.
    package var generatedTokens = 64
    package var repeats = 5

    package static let usualPrompt = 600

    package init() {}

    /// Checks the settings without running anything.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``, `BudgetError`
    package func validate(for model: AnalyzedModel? = nil) throws {
        try ExperimentLimits.require(budgets: budgets)
        try ExperimentLimits.require(repeats, in: ExperimentLimits.repeats, "--repeat")
        if sequences.isEmpty { throw EvaluationError.argument(name: "--sequences", expected: "at least one number", found: "none") }
        for count in sequences { try ExperimentLimits.require(count, in: 1 ... 256, "--sequences") }
        if let promptTokens { try ExperimentLimits.require(promptTokens, in: 0 ... ExperimentLimits.tokens.upperBound, "--prompt-tokens") }
        try ExperimentLimits.require(generatedTokens, in: 0 ... ExperimentLimits.tokens.upperBound, "--generate")
        if promptTokens == 0, generatedTokens == 0 {
            throw EvaluationError.argument(name: "--prompt-tokens and --generate", expected: "1 or more of either", found: "0 and 0")
        }
        guard let model else { return }
        if model.units == nil, let part = budgets.first(where: { $0 < 1 }) { throw BudgetError.notAdaptive(budget: part, model: model.name) }
        let (room, latency) = room(model)
        guard prompt(for: model) <= room else {
            throw EvaluationError.argument(
                name: "--prompt-tokens and --generate",
                expected: "at most \(max(0, model.configuration.language.contextLength - latency)) tokens together, the context of \(model.name)"
                    + (latency > 0 ? " less its latency token" : ""),
                found: "\(prompt(for: model)) and \(generatedTokens)")
        }
    }

    /// Tokens of the prompt that a model is given.
    func prompt(for model: AnalyzedModel) -> Int {
        if let promptTokens { return max(1, promptTokens) }
        return max(1, min(Throughput.usualPrompt, room(model).prompt))
    }

    /// Positions that a prompt may take: the latency token, every generated token and, without any, the first one's place come off.
    private func room(_ model: AnalyzedModel) -> (prompt: Int, latency: Int) {
        let latency = model.configuration.adaptive == nil ? 0 : 1
        return (model.configuration.language.contextLength - latency - max(1, generatedTokens), latency)
    }

    /// Measures one model after the other; of each, its variants and their budgets in turn.
    /// - Parameters:
    ///   - count: models, or the same one with other threads.
    ///   - load: loads the variants of the model of this number, which differ in how keys and values are stored; they are released before the next ones are
    ///     loaded.
    /// - Throws: errors of the models and of `load`, ``EvaluationError``; `CancellationError` before the first result.
    package func run<Model: MeasurableModel>(
        count: Int, environment: ExperimentEnvironment, load: (Int) async throws -> [(model: Model, description: ExperimentModel)],
        onProgress: (ExperimentProgress) -> Void = { _ in }
    ) async throws -> ThroughputReport {
        try validate()
        var results: [ThroughputReport.Result] = []
        var models: [ExperimentModel] = []
        var done = 0
        do {
            for index in 0 ..< count {
                try Task.checkCancellation()
                let variants = try await load(index)
                guard let first = variants.first?.description else { continue }
                let each = (repeats + 1) * budgets.count * sequences.count * variants.count
                let (rounds, measured) = try await measure(variants) { progress in
                    let detail = "\(first.name), \(first.threads) thread\(first.threads == 1 ? "" : "s"), \(progress.detail)"
                    onProgress(ExperimentProgress(done: index * each + progress.done, total: count * each, detail: detail))
                }
                results += measured
                models += variants.map(\.description)
                done += rounds.done
                if rounds.wasStopped { break }
            }
        } catch is CancellationError where !results.isEmpty {}
        return ThroughputReport(
            repeats: ExperimentRepeats(done: done, asked: repeats * count), environment: environment, models: models, results: results)
    }

    /// - Parameter variants: of one model, at least one.
    private func measure<Model: MeasurableModel>(
        _ variants: [(model: Model, description: ExperimentModel)], onProgress: (ExperimentProgress) -> Void
    ) async throws -> (ExperimentRepeats, [ThroughputReport.Result]) {
        let analyzed = variants[0].description.analyzed
        try validate(for: analyzed)
        let prompt = prompt(for: analyzed), vocabulary = analyzed.configuration.language.vocabularySize
        let cases = budgets.flatMap { budget in
            sequences.flatMap { sequences in variants.map { (budget: budget, sequences: sequences, model: $0.model, description: $0.description) } }
        }
        var times = [[(prefill: Double, decode: Double, plan: ExecutionPlan)]](repeating: [], count: cases.count)
        let rounds = InterleavedRounds(repeats: repeats, cases: cases.count)
        func name(_ index: Int) -> String {
            let budget = String(format: "budget %g", cases[index].budget)
            return budget + (sequences == [1] ? "" : ", \(cases[index].sequences) together")
                + (variants.count == 1 ? "" : ", keys and values \(cases[index].description.keyValueType.rawValue)")
        }
        let made = try await rounds.run(name: name, onProgress: onProgress) { index, counts in
            // The same token count, other tokens: sequences that were equal would read one sequence's keys from the cache.
            let prompts = (0 ..< cases[index].sequences).map { number in
                SyntheticInput.tokens(prompt, vocabulary: vocabulary).map { ($0 + 7 * number) % vocabulary }
            }
            let found = try await cases[index].model.measureTogether(prompts: prompts, budget: cases[index].budget, steps: generatedTokens)
            if counts { times[index].append(found) }
        }
        let results = zip(cases, times).flatMap { item, times in
            ThroughputReport.Kind.allCases.compactMap { kind -> ThroughputReport.Result? in
                let tokens = kind == .prefill ? (promptTokens == 0 ? 0 : prompt) : generatedTokens
                guard tokens > 0, let last = times.last else { return nil }
                let rates = times.map { Double(tokens * item.sequences) / max((kind == .prefill ? $0.prefill : $0.decode) / 1000, 1e-9) }
                return SampleStatistics(rates).map {
                    ThroughputReport.Result(
                        model: item.description, budget: item.budget, isBelowFloor: item.description.isBelowFloor(item.budget), executedShare: last.plan.executedShare,
                        kind: kind, sequences: item.sequences, tokens: tokens, depth: kind == .prefill || promptTokens == 0 ? 0 : prompt, rate: $0)
                }
            }
        }
        return (made, results)
    }
}

/// Result of ``Throughput``.
package struct ThroughputReport: ExperimentReport {
    package enum Kind: String, Sendable, CaseIterable {
        case prefill, decode
    }

    /// One line: a model, its threads, a budget, a phase.
    package struct Result: Sendable {
        package let model: ExperimentModel
        package let budget: Double
        /// The floor was run instead of the budget.
        package let isBelowFloor: Bool
        /// The fraction of all heads and neuron groups that ran.
        package let executedShare: Double
        package let kind: Kind
        /// Sequences that were computed together.
        package let sequences: Int
        /// Tokens read, or generated, of each.
        package let tokens: Int
        /// Tokens that were in the cache before.
        package let depth: Int
        /// Tokens a second, of all sequences together.
        package let rate: SampleStatistics

        /// llama-bench's name of the measurement: `pp600`, `tg64 @ d600`.
        package var test: String {
            (kind == .prefill ? "pp" : "tg") + "\(tokens)" + (depth > 0 ? " @ d\(depth)" : "") + (sequences > 1 ? " × \(sequences)" : "")
        }
    }

    package static let name = "throughput"
    package let repeats: ExperimentRepeats
    package let environment: ExperimentEnvironment
    package let models: [ExperimentModel]
    package let results: [Result]

    package var modelLines: [String] { [""] }

    /// Other programs read `results` with `kind`, `tokens_per_second`, `deviation` and `budget`.
    package struct Details: Codable, Sendable {
        package var results: [Entry]

        /// A model, its threads, a budget, a phase. Rates in tokens a second.
        package struct Entry: Codable, Sendable {
            package var kind: String
            package var tokensPerSecond: Double
            package var deviation: Double
            package var budget: Double
            package var belowFloor: Bool
            package var executedShare: Double
            package var model: String
            package var weightType: String
            package var weightBytes: Int
            package var parameters: Int
            package var sequences: Int
            package var threads: Int
            package var kernels: String
            package var kvType: String
            package var test: String
            package var tokens: Int
            package var depth: Int
            package var n: Int
            package var median: Double
            package var min: Double
            package var max: Double
            @Nullable package var ci95: Double?

            enum CodingKeys: String, CodingKey {
                case kind, deviation, budget, model, parameters, sequences, threads, kernels, test, tokens, depth, n, median, min, max, ci95
                case tokensPerSecond = "tokens_per_second"
                case belowFloor = "below_floor"
                case executedShare = "executed_share"
                case weightType = "weight_type"
                case weightBytes = "weight_bytes"
                case kvType = "kv_type"
            }
        }
    }

    package var details: Details {
        Details(
            results: results.map { result in
                Details.Entry(
                    kind: result.kind.rawValue, tokensPerSecond: result.rate.mean, deviation: result.rate.deviation, budget: result.budget,
                    belowFloor: result.isBelowFloor, executedShare: result.executedShare, model: result.model.name, weightType: result.model.weightType,
                    weightBytes: result.model.weightBytes, parameters: result.model.parameters, sequences: result.sequences,
                    threads: result.model.threads, kernels: result.model.kernels, kvType: result.model.keyValueType.rawValue,
                    test: result.test, tokens: result.tokens, depth: result.depth,
                    n: result.rate.count, median: result.rate.median, min: result.rate.minimum, max: result.rate.maximum, ci95: result.rate.meanMargin)
            })
    }

    /// Machine and build in every line, as llama-bench has them, so that files of many runs can be put together.
    package var csv: String {
        let header = [
            "build", "processor", "model", "weight_type", "weight_bytes", "parameters", "kernels", "threads", "budget", "below_floor", "test", "kind",
            "sequences", "tokens", "depth", "n", "tokens_per_second", "deviation", "ci95", "kv_type",
        ]
        return ExperimentText.csv(
            [header]
                + results.map { result in
                    [
                        "\(environment.package), Swift \(environment.swift), \(environment.configuration)", environment.processor, result.model.name,
                        result.model.weightType, "\(result.model.weightBytes)", "\(result.model.parameters)", result.model.kernels,
                        "\(result.model.threads)", "\(result.budget)", "\(result.isBelowFloor)", result.test, result.kind.rawValue, "\(result.sequences)", "\(result.tokens)",
                        "\(result.depth)", "\(result.rate.count)", "\(result.rate.mean)", "\(result.rate.deviation)",
                        result.rate.meanMargin.map { "\($0)" } ?? "", result.model.keyValueType.rawValue,
                    ]
                })
    }

    /// Markdown.
    package var lines: [String] {
        let header = ["model", "type", "size", "params", "kernels", "threads", "kv", "budget", "test", "t/s", "n"]
        let table = [header] + results.map { result in
            [
                result.model.name, result.model.weightType, result.model.size, result.model.parameterCount, result.model.kernels,
                "\(result.model.threads)", result.model.keyValueType.rawValue, String(format: "%g", result.budget) + (result.isBelowFloor ? "\\*" : ""), result.test,
                ExperimentText.mean(result.rate), "\(result.rate.count)",
            ]
        }
        var lines = ExperimentText.markdown(table, textColumns: [0, 1, 8]) + [""]
        let starred = results.filter(\.isBelowFloor)
        if let first = starred.first {
            lines.append(String(format: "\\* below the floor of %@ (%.3g), which was run instead", first.model.name, first.model.budgetFloor ?? 0))
        }
        return lines + ["t/s: mean over the repeats; " + ExperimentText.meanNote]
    }

    package func chartScript(to path: String, format: ChartFormat) -> String { ExperimentCharts.throughput(self, to: path, format: format) }
}
