import AdaLLaVA
import Foundation

/// Decode with and without drafted tokens: one question answered in turn with each setting, at one length that no token ends early.
package struct SpeculationBench: Sendable {
    package var question: String
    package var image: RGBImage?
    package var budget = Budget.full
    /// Settings beside none.
    package var settings = [Speculation.auto]
    package var repeats = 9
    /// Tokens of an answer.
    package var tokens = 64

    package init(question: String, image: RGBImage?) { (self.question, self.image) = (question, image) }

    /// Checks the settings without running anything.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package func validate() throws {
        try ExperimentLimits.require(repeats, in: ExperimentLimits.repeats, "--repeat")
        try ExperimentLimits.require(tokens, in: 2 ... ExperimentLimits.tokens.upperBound, "--max-tokens")
        if settings.isEmpty { throw EvaluationError.argument(name: "--speculate", expected: "auto or numbers of tokens", found: "none") }
    }

    /// - Throws: ``EvaluationError``, `BudgetError`, `GenerationError`, `CancellationError` before the first repeat is whole.
    package func run(
        _ model: AdaptiveModel, as description: ExperimentModel, environment: ExperimentEnvironment, onProgress: (ExperimentProgress) -> Void = { _ in }
    ) async throws -> SpeculationReport {
        try validate()
        let cases = [Speculation.off] + settings.filter { $0 != .off }
        var times = [[Double]](repeating: [], count: cases.count), counts = [SpeculationCounts](repeating: SpeculationCounts(), count: cases.count)
        var answers = [String](repeating: "", count: cases.count), isSame = [Bool](repeating: true, count: cases.count), generated = 0
        var expected: [Int]?
        let rounds = InterleavedRounds(repeats: repeats, cases: cases.count)
        let made = try await rounds.run(name: { "drafts \(cases[$0])" }, onProgress: onProgress) { index, isCounted in
            var options = GenerationOptions()
            (options.maxTokens, options.minTokens, options.reusesEarlierWork) = (tokens, tokens, false)
            options.speculation = cases[index]
            let (text, summary) = try await model.answer(question, images: image.map { [$0] } ?? [], budget: budget, options: options).whole()
            isSame[index] = isSame[index] && summary.tokens == expected ?? summary.tokens
            (expected, answers[index], generated) = (expected ?? summary.tokens, text, summary.tokens.count)
            guard isCounted else { return }
            times[index].append(summary.measured.decode / .milliseconds(1))
            counts[index].drafted += summary.speculation?.drafted ?? 0
            counts[index].accepted += summary.speculation?.accepted ?? 0
            counts[index].verifications += summary.speculation?.verifications ?? 0
        }
        let results = cases.indices.compactMap { index -> SpeculationReport.Result? in
            // Of a round that was stopped in the middle, some cases have one more time.
            let ratios = zip(times[0], times[index]).map { $0 / max($1, 1e-9) }
            guard let rate = SampleStatistics(times[index].map { Double(generated - 1) / max($0 / 1000, 1e-9) }), let ratio = SampleStatistics(ratios) else { return nil }
            return SpeculationReport.Result(setting: cases[index], rate: rate, ratio: ratio, counts: counts[index], isSame: isSame[index])
        }
        return SpeculationReport(
            repeats: made, environment: environment, model: description, question: question, budget: budget, tokens: generated, answer: answers[0], results: results)
    }
}

/// Result of ``SpeculationBench``.
package struct SpeculationReport: ExperimentReport {
    /// One setting.
    package struct Result: Sendable {
        package let setting: Speculation
        /// Tokens a second.
        package let rate: SampleStatistics
        /// How many times as fast as without drafts, round by round.
        package let ratio: SampleStatistics
        /// Of all repeats.
        package let counts: SpeculationCounts
        /// Whether every answer was the first one, token for token.
        package let isSame: Bool

        /// Accepted share of the drafted tokens.
        var acceptance: Double? { counts.drafted > 0 ? Double(counts.accepted) / Double(counts.drafted) : nil }
    }

    package static let name = "speculation"
    package let repeats: ExperimentRepeats
    package let environment: ExperimentEnvironment
    package let model: ExperimentModel
    package let question: String
    package let budget: Budget
    /// Tokens of each answer.
    package let tokens: Int
    package let answer: String
    package let results: [Result]

    package var models: [ExperimentModel] { [model] }

    package struct Details: Codable, Sendable {
        package var question: String
        package var budget: Budget
        package var tokens: Int
        package var answer: String
        package var results: [Entry]

        package struct Entry: Codable, Sendable {
            /// `off`, `auto` or a number of tokens.
            package var speculate: String
            package var tokensPerSecond: SampleStatistics.JSON
            package var ratio: SampleStatistics.JSON
            /// Whether every answer was the one without drafts.
            package var same: Bool
            package var speculation: SpeculationCounts

            enum CodingKeys: String, CodingKey {
                case speculate, ratio, same, speculation
                case tokensPerSecond = "tokens_per_second"
            }
        }
    }

    package var details: Details {
        Details(
            question: question, budget: budget, tokens: tokens, answer: answer,
            results: results.map {
                Details.Entry(speculate: $0.setting.description, tokensPerSecond: $0.rate.json, ratio: $0.ratio.json, same: $0.isSame, speculation: $0.counts)
            })
    }

    package var csv: String {
        let header = ["speculate", "tokens", "tokens_per_second", "ci95", "ratio_median", "ratio_min", "n", "drafted", "accepted", "verifications", "same"]
        return ExperimentText.csv(
            [header]
                + results.map { result in
                    [
                        result.setting.description, "\(tokens)", "\(result.rate.mean)", result.rate.meanMargin.map { "\($0)" } ?? "", "\(result.ratio.median)",
                        "\(result.ratio.minimum)", "\(result.rate.count)", "\(result.counts.drafted)", "\(result.counts.accepted)", "\(result.counts.verifications)",
                        "\(result.isSame)",
                    ]
                })
    }

    package var lines: [String] {
        let header = ["drafts", "t/s", "ratio", "n", "accepted", "a step", "answer"]
        let table = [header] + results.map { result in
            let steps = Double(max(result.counts.verifications, 1))
            return [
                result.setting.description, ExperimentText.mean(result.rate), String(format: "%.2f", result.ratio.median), "\(result.rate.count)",
                result.acceptance.map { String(format: "%.0f %%", $0 * 100) } ?? "-",
                result.counts.drafted > 0 ? String(format: "%.1f", Double(result.counts.drafted) / steps) : "-", result.isSame ? "same" : "DIFFERENT",
            ]
        }
        return ["question \(ExperimentText.shortened(question, to: 100))", "answer   \(ExperimentText.shortened(answer, to: 100))", ""]
            + ExperimentText.markdown(table, textColumns: [0, 6])
            + [
                "", "t/s: decode of \(tokens) tokens, whatever ends the answer; ratio: median over rounds of the time without drafts beside the time with them",
                "a step: tokens drafted for a verification; " + ExperimentText.meanNote,
            ]
    }

    package func chartScript(to path: String, format: ChartFormat) -> String {
        var chart = Chart(
            title: "Drafted tokens: \(model.name), \(model.threads) thread\(model.threads == 1 ? "" : "s")", xLabel: "drafted tokens a verification",
            yLabel: "decode beside decode without drafts", series: [])
        for result in results {
            let drafted = Double(result.counts.drafted) / Double(max(result.counts.verifications, 1))
            chart.series.append(Chart.Series(name: result.setting.description, points: [(drafted, result.ratio.median)], style: .points))
        }
        chart.minimumHeight = 1
        return Gnuplot.script(chart, to: path, format: format)
    }
}
