import AdaLLaVA
import Foundation

/// Result of an evaluation, for people (``table``) and programs (``json``, ``csv``).
package struct EvaluationReport: Sendable {
    /// One budget's part.
    package struct Result: Sendable {
        package let budget: Budget
        package let samples: Int
        /// The benchmark's scores, the main one first; empty where the answers are kept by a server.
        package let scores: [BenchmarkScore]
        /// Milliseconds of `encode_ms`, `prefill_ms`, `decode_ms`, `ttft_ms`, `tpot_ms`; a phase that never ran is left out.
        package let measured: [(name: String, statistics: SampleStatistics)]
        /// The means of the reference's keys; `nil` without a cost model.
        package let costs: RequestCost?
        /// The mean fraction of heads and neuron groups that ran.
        package let executedShare: Double
        package let generatedTokens: Double
        /// Images that were read although they are damaged.
        package let damagedImages: Int

        init(budget: Budget, scores: [BenchmarkScore], records: [SampleRecord]) {
            (self.budget, samples, self.scores) = (budget, records.count, scores)
            let phases: [(String, (SampleRecord) -> Double?)] = [
                ("encode_ms", { $0.measured.encode }), ("prefill_ms", { $0.measured.prefill }), ("decode_ms", { $0.measured.decode }),
                ("ttft_ms", { $0.measured.timeToFirstToken }), ("tpot_ms", { $0.timePerOutputToken }),
            ]
            measured = phases.compactMap { name, value in SampleStatistics(records.compactMap(value)).map { (name, $0) } }
            costs = RequestCost(meanOf: records.compactMap(\.cost))
            executedShare = records.map(\.plan.executedShare).mean ?? 1
            damagedImages = Set(records.compactMap(\.imageDamage)).count
            generatedTokens = records.map { Double($0.plan.generatedTokens) }.mean ?? 0
        }

        /// The mean in milliseconds of a phase of ``measured``.
        package func meanTime(_ name: String) -> Double? { measured.first { $0.name == name }?.statistics.mean }
    }

    package let task: String
    package let model: String
    package let limit: Int?
    package let seed: UInt64?
    package let shard: Shard
    /// The score that charts show; `nil` where there are no scores.
    package let mainScore: String?
    package let results: [Result]
    /// Whether every sample was answered at every budget.
    package let isComplete: Bool

    init(settings: EvaluationSettings, benchmark: any Benchmark, results: [Result], isComplete: Bool) {
        (task, model, limit, seed, shard) = (settings.task, settings.model, settings.limit, settings.seed, settings.shard)
        mainScore = results.contains { !$0.scores.isEmpty } ? benchmark.mainScore : nil
        (self.results, self.isComplete) = (results, isComplete)
    }

    // MARK: - JSON

    /// The output of `eval --json`.
    package struct JSON: Codable, Sendable {
        package var task: String
        package var model: String
        @Nullable package var limit: Int?
        @Nullable package var seed: UInt64?
        package var shard: String
        @Nullable package var mainScore: String?
        package var complete: Bool
        package var results: [Entry]

        enum CodingKeys: String, CodingKey {
            case task, model, limit, seed, shard, complete, results
            case mainScore = "main_score"
        }
    }

    package var json: JSON {
        JSON(
            task: task, model: model, limit: limit, seed: seed, shard: shard.description, mainScore: mainScore, complete: isComplete,
            results: results.map(\.json))
    }

    /// ``json`` as a file.
    package func jsonData() throws -> Data { try RunFiles.encode(json) }

    // MARK: - CSV and table

    private func columns(percentiles: Bool) -> [(name: String, value: (Result) -> Double?)] {
        func names(_ list: (Result) -> [String]) -> [String] {
            var seen = Set<String>()
            return results.flatMap(list).filter { seen.insert($0).inserted }
        }
        var columns: [(name: String, value: (Result) -> Double?)] = [
            ("samples", { Double($0.samples) }), ("executed_share", { $0.executedShare }),
        ]
        if results.contains(where: { $0.damagedImages > 0 }) { columns.append(("damaged_images", { Double($0.damagedImages) })) }
        for name in names({ $0.scores.map(\.name) }) {
            func score(_ result: Result) -> BenchmarkScore? { result.scores.first { $0.name == name } }
            columns.append((name, { score($0)?.value }))
            guard percentiles, results.contains(where: { score($0)?.count != nil }) else { continue }
            columns.append((name + "_n", { score($0)?.count.map(Double.init) }))
            columns.append((name + "_se", { score($0)?.standardError }))
        }
        for name in names({ $0.measured.map(\.name) }) {
            columns.append((name + (percentiles ? "_mean" : ""), { $0.meanTime(name) }))
            guard percentiles else { continue }
            for percent in [50, 90, 99] {
                columns.append((
                    "\(name)_p\(percent)", { result in result.measured.first { $0.name == name }?.statistics.percentile(Double(percent)) }
                ))
            }
        }
        if results.contains(where: { $0.costs != nil }) {
            columns += RequestCost.fields.map { field in (field.name, { $0.costs.map(field.value) }) }
        }
        return columns
    }

    /// One line for each budget under one of names (RFC 4180).
    package var csv: String {
        let columns = columns(percentiles: true)
        let header = (["task", "model", "budget"] + columns.map(\.name)).map(EvaluationReport.quoted).joined(separator: ",")
        let lines = results.map { result in
            ([task, model, result.budget.exactText].map(EvaluationReport.quoted) + columns.map { $0.value(result).map { "\($0)" } ?? "" })
                .joined(separator: ",")
        }
        return ([header] + lines).joined(separator: "\n") + "\n"
    }

    static func quoted(_ field: String) -> String {
        guard field.contains(where: { ",\"\n\r".contains($0) }) else { return field }
        return "\"" + field.replacingOccurrences(of: "\"", with: "\"\"") + "\""
    }

    /// One column for each budget, one row for each number.
    package var table: String {
        let columns = columns(percentiles: false)
        var rows = columns.map { column in
            [column.name] + results.map { result in
                let spread = result.scores.first { $0.name == column.name }.map(EvaluationReport.spread) ?? ""
                return column.value(result).map { EvaluationReport.short($0, column.name) + spread } ?? "-"
            }
        }
        rows.insert(contentsOf: [["budget"] + results.map(\.budget.description), []], at: 0)
        let widths = (0...results.count).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        let lines = rows.map { row in
            row.enumerated().map { index, cell in
                let padding = String(repeating: " ", count: widths[index] - cell.count)
                return index == 0 ? cell + padding : padding + cell
            }.joined(separator: "  ")
        }
        let rule = String(repeating: "-", count: widths.reduce(0, +) + 2 * results.count)
        let notes = results.contains { $0.scores.contains { $0.count != nil } } ? ["±: standard error of the mean; n: samples"] : []
        return (["\(task), \(model)\(shard == .whole ? "" : ", shard \(shard)")"] + lines.map { $0.isEmpty ? rule : $0 } + notes)
            .joined(separator: "\n")
    }

    /// How sure a mean is: ` ± 0.0042 (n 2000)`.
    private static func spread(_ score: BenchmarkScore) -> String {
        guard let count = score.count else { return "" }
        return (score.standardError.map { String(format: " ± %.4f", $0) } ?? "") + " (n \(count))"
    }

    private static func short(_ value: Double, _ name: String) -> String {
        if ["samples", "damaged_images", unreadAnswers].contains(name) { return String(format: "%.0f", value) }
        if name.hasSuffix("_ms") { return String(format: value < 10 ? "%.2f" : "%.1f", value) }
        // Seconds of a small model on large hardware have no digit among the first four.
        return value == 0 || (0.001 ..< 1000).contains(abs(value)) ? String(format: "%.4f", value) : String(format: "%.4g", value)
    }
}

extension Budget {
    /// With all digits of a fraction.
    var exactText: String { if case .fraction(let fraction) = self { "\(fraction)" } else { description } }
}

extension EvaluationReport.JSON {
    /// One budget. With a cost model the means of the reference's keys (``RequestCost``) are members of the object itself.
    package struct Entry: Codable, Sendable {
        package var scores: Scores
        package var costs: RequestCost?

        package struct Scores: Codable, Sendable {
            /// A number for a fraction, a text for times and `auto`.
            package var budget: Budget
            package var samples: Int
            package var executedShare: Double
            package var generatedTokens: Double
            package var damagedImages: Int
            package var scores: [String: Double]
            package var scoreStatistics: [String: ScoreStatistics]
            /// By `encode_ms`, `prefill_ms`, `decode_ms`, `ttft_ms`, `tpot_ms`.
            package var measured: [String: SampleStatistics.Percentiles]

            enum CodingKeys: String, CodingKey {
                case budget, samples, scores, measured
                case executedShare = "executed_share"
                case generatedTokens = "generated_tokens"
                case damagedImages = "damaged_images"
                case scoreStatistics = "score_statistics"
            }
        }

        package struct ScoreStatistics: Codable, Sendable {
            package var n: Int
            @Nullable package var standardError: Double?

            enum CodingKeys: String, CodingKey {
                case n
                case standardError = "standard_error"
            }
        }

        init(scores: Scores, costs: RequestCost?) { (self.scores, self.costs) = (scores, costs) }

        package init(from decoder: any Swift.Decoder) throws { (scores, costs) = (try Scores(from: decoder), try? RequestCost(from: decoder)) }

        package func encode(to encoder: any Encoder) throws {
            try scores.encode(to: encoder)
            try costs?.encode(to: encoder)
        }
    }
}

extension EvaluationReport.Result {
    var json: EvaluationReport.JSON.Entry {
        let statistics = scores.compactMap { score in
            score.count.map { (score.name, EvaluationReport.JSON.Entry.ScoreStatistics(n: $0, standardError: score.standardError)) }
        }
        return EvaluationReport.JSON.Entry(
            scores: EvaluationReport.JSON.Entry.Scores(
                budget: budget, samples: samples, executedShare: executedShare, generatedTokens: generatedTokens, damagedImages: damagedImages,
                scores: Dictionary(scores.map { ($0.name, $0.value) }) { first, _ in first },
                scoreStatistics: Dictionary(statistics) { first, _ in first },
                measured: Dictionary(measured.map { ($0.name, $0.statistics.percentiles) }) { first, _ in first }),
            costs: costs)
    }
}
