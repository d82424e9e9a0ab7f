import AdaLLaVA
import Foundation

/// Result of ``Linearity``.
package struct LinearityReport: ExperimentReport {
    /// A time at one budget, milliseconds.
    ///
    /// Ratios to the largest budget are taken within a round, so that other load of the machine affects both sides; their median times the
    /// largest budget's median is the reported time.
    package struct Time: Sendable {
        package let value: Double
        /// The 95 % confidence interval of the median that ``value`` is, or is scaled by; `nil` below six repeats.
        package let interval: ClosedRange<Double>?
        /// Against the largest budget of the same round, the median.
        package let ratio: Double
        /// As measured.
        package let measured: SampleStatistics

        init?(_ responses: [ModelResponse], largest: [ModelResponse], isLargest: Bool, _ time: (ModelResponse) -> Double) {
            guard let measured = SampleStatistics(responses.map(time)), let base = SampleStatistics(largest.map(time)),
                let ratios = SampleStatistics(zip(responses, largest).map { time($0) / max(time($1), 1e-9) })
            else { return nil }
            self.measured = measured
            ratio = ratios.median
            value = ratios.median * base.median
            interval =
                isLargest
                ? base.medianInterval
                : ratios.medianInterval.map { $0.lowerBound * base.median ... $0.upperBound * base.median }
        }

        var margin: Double? { interval.map { ($0.upperBound - $0.lowerBound) / 2 } }
        var text: String { ExperimentText.number(value, margin: margin) }
    }

    /// One budget.
    package struct Point: Sendable {
        package let budget: Double
        /// Units that ran, of all.
        package let units: Int
        package let allUnits: Int
        /// Of prompt and answer without the vision tower, by the exact formula.
        package let flops: Double
        package let encodeFlops: Double
        package let prefillFlops: Double
        /// Of one later token, on average.
        package let tokenFlops: Double
        package let firstToken: Time
        package let whole: Time
        package let perToken: Time
        package let prefill: Time
        /// The vision tower's fraction of the time to the first token, the median.
        package let towerShare: Double

        package var unitsShare: Double { Double(units) / Double(max(allUnits, 1)) }

        /// - Parameter isLargest: whether `responses` are `largest`, those at the largest budget.
        init?(
            budget: Double, responses: [ModelResponse], largest: [ModelResponse], isLargest: Bool, model: ExperimentModel, images: Int
        ) throws {
            func time(_ value: (ModelResponse) -> Double) -> Time? { Time(responses, largest: largest, isLargest: isLargest, value) }
            guard let last = responses.last, let units = model.analyzed.units, let firstToken = time(\.firstTokenMilliseconds),
                let prefill = time(\.prefillMilliseconds), let whole = time(\.wholeMilliseconds), let perToken = time(\.perTokenMilliseconds),
                let towerShare = SampleStatistics(responses.map { $0.encodeMilliseconds / max($0.firstTokenMilliseconds, 1e-9) })
            else { return nil }
            let analysis = try CostAnalysis(
                model: model.analyzed, hardware: Hardware.table[0],
                settings: CostSettings(promptTokens: last.promptTokens, generatedTokens: last.generatedTokens, images: images),
                plan: CostPlan(last.plan, model: model.analyzed), formula: .exact)
            self.budget = budget
            (self.units, allUnits) = (units.prefix + units.granted(fraction: Float(budget)), units.total)
            (flops, prefillFlops) = (analysis.request.flops, analysis.request.prefillFlops)
            encodeFlops = analysis.encode?.totals.operations ?? 0
            tokenFlops = analysis.decodeTotals.operations / Double(max(1, last.generatedTokens - 1))
            (self.firstToken, self.prefill, self.whole, self.perToken) = (firstToken, prefill, whole, perToken)
            self.towerShare = towerShare.median
        }
    }

    package static let name = "linearity"
    package let repeats: ExperimentRepeats
    package let environment: ExperimentEnvironment
    package let model: ExperimentModel
    /// The largest budget first.
    package let points: [Point]
    /// Positions of the prompt, image tokens included.
    package let promptPositions: Int
    package let answerTokens: Int
    package let hasImage: Bool
    /// Lines through the points, milliseconds against FLOPs.
    package let firstToken: LinearFit
    package let whole: LinearFit
    package let perToken: LinearFit

    /// - Throws: ``EvaluationError/argument(name:expected:found:)`` for points between which no line can be drawn.
    init(
        repeats: ExperimentRepeats, environment: ExperimentEnvironment, model: ExperimentModel, points: [Point], promptPositions: Int,
        answerTokens: Int, hasImage: Bool
    ) throws {
        func fit(_ time: (Point) -> Time) throws -> LinearFit {
            guard let fit = LinearFit(points.map { ($0.flops, time($0).value) }) else {
                throw EvaluationError.argument(name: "--budgets", expected: "budgets that differ in FLOPs", found: "\(points.count) that do not")
            }
            return fit
        }
        (self.repeats, self.environment, self.model, self.points) = (repeats, environment, model, points)
        (self.promptPositions, self.answerTokens, self.hasImage) = (promptPositions, answerTokens, hasImage)
        (firstToken, whole, perToken) = (try fit(\.firstToken), try fit(\.whole), try fit(\.perToken))
    }

    package var models: [ExperimentModel] { [model] }

    /// Fits with their names for people and programs.
    var fits: [(name: String, key: String, fit: LinearFit)] {
        [("TTFT", "ttft", firstToken), ("whole answer", "whole", whole), ("per token", "decode", perToken)]
    }

    // MARK: - For programs

    /// Other programs read `points` and `r_squared`.
    package struct Details: Codable, Sendable {
        package var formula: String
        package var promptTokens: Int
        package var answerTokens: Int
        /// By phase: `ttft`, `whole`, `decode`.
        package var rSquared: [String: Double]
        package var fits: [String: Fit]
        package var points: [PointJSON]

        enum CodingKeys: String, CodingKey {
            case formula, fits, points
            case promptTokens = "prompt_tokens"
            case answerTokens = "answer_tokens"
            case rSquared = "r_squared"
        }

        /// A line through the points.
        package struct Fit: Codable, Sendable {
            package var slope: Double
            package var intercept: Double
            package var rSquared: Double

            enum CodingKeys: String, CodingKey {
                case slope = "slope_ms_per_gflop"
                case intercept = "intercept_ms"
                case rSquared = "r_squared"
            }
        }

        /// One budget. Times in milliseconds, ratios to the largest budget.
        package struct PointJSON: Codable, Sendable {
            package var budget: Double
            package var units: Int
            package var unitsShare: Double
            package var flops: Double
            package var encodeFlops: Double
            package var prefillFlops: Double
            package var tokenFlops: Double
            package var ttftMs: Double
            package var prefillMs: Double
            package var wholeMs: Double
            package var perTokenMs: Double
            package var prefillRatio: Double
            package var perTokenRatio: Double
            package var wholeRatio: Double
            /// `null` without an image.
            @Nullable package var towerShare: Double?
            /// By `ttft_ms`, `prefill_ms`, `whole_ms`, `per_token_ms`.
            package var measured: [String: SampleStatistics.JSON]

            enum CodingKeys: String, CodingKey {
                case budget, units, flops, measured
                case unitsShare = "units_share"
                case encodeFlops = "encode_flops"
                case prefillFlops = "prefill_flops"
                case tokenFlops = "token_flops"
                case ttftMs = "ttft_ms"
                case prefillMs = "prefill_ms"
                case wholeMs = "whole_ms"
                case perTokenMs = "per_token_ms"
                case prefillRatio = "prefill_ratio"
                case perTokenRatio = "per_token_ratio"
                case wholeRatio = "whole_ratio"
                case towerShare = "tower_share"
            }
        }
    }

    package var details: Details {
        Details(
            formula: CostFormula.exact.rawValue, promptTokens: promptPositions, answerTokens: answerTokens,
            rSquared: Dictionary(uniqueKeysWithValues: fits.map { ($0.key, $0.fit.rSquared) }),
            fits: Dictionary(uniqueKeysWithValues: fits.map {
                ($0.key, Details.Fit(slope: $0.fit.slope * 1e9, intercept: $0.fit.intercept, rSquared: $0.fit.rSquared))
            }),
            points: points.map { point in
                Details.PointJSON(
                    budget: point.budget, units: point.units, unitsShare: point.unitsShare, flops: point.flops, encodeFlops: point.encodeFlops,
                    prefillFlops: point.prefillFlops, tokenFlops: point.tokenFlops, ttftMs: point.firstToken.value, prefillMs: point.prefill.value,
                    wholeMs: point.whole.value, perTokenMs: point.perToken.value, prefillRatio: point.prefill.ratio,
                    perTokenRatio: point.perToken.ratio, wholeRatio: point.whole.ratio, towerShare: hasImage ? point.towerShare : nil,
                    measured: [
                        "ttft_ms": point.firstToken.measured.json, "prefill_ms": point.prefill.measured.json, "whole_ms": point.whole.measured.json,
                        "per_token_ms": point.perToken.measured.json,
                    ])
            })
    }

    package var csv: String {
        let header = [
            "budget", "units_share", "flops", "ttft_ms", "ttft_ms_ci95", "whole_ms", "whole_ms_ci95", "per_token_ms", "per_token_ms_ci95",
            "prefill_ratio", "per_token_ratio", "tower_share", "n",
        ]
        func cells(_ time: Time) -> [String] { ["\(time.value)", time.margin.map { "\($0)" } ?? ""] }
        return ExperimentText.csv(
            [header]
                + points.map { point in
                    ["\(point.budget)", "\(point.unitsShare)", "\(point.flops)"] + cells(point.firstToken) + cells(point.whole)
                        + cells(point.perToken) + [
                            "\(point.prefill.ratio)", "\(point.perToken.ratio)", hasImage ? "\(point.towerShare)" : "",
                            "\(point.whole.measured.count)",
                        ]
                })
    }

    // MARK: - For people

    package var lines: [String] {
        let header = ["budget", "units", "share", "GFLOP", "TTFT ms", "whole ms", "per token ms", "prefill", "token", "tower", "n"]
        let table = [header] + points.map { point in
            [
                String(format: "%g", point.budget), "\(point.units)/\(point.allUnits)", String(format: "%.3f", point.unitsShare),
                ExperimentText.number(point.flops / 1e9), point.firstToken.text, point.whole.text, point.perToken.text,
                String(format: "%.3f", point.prefill.ratio), String(format: "%.3f", point.perToken.ratio),
                hasImage ? String(format: "%.1f %%", point.towerShare * 100) : "-", "\(point.whole.measured.count)",
            ]
        }
        var lines = [
            "request  \(promptPositions) positions, \(hasImage ? "an image that is encoded anew each time and made-up text" : "made-up text"); \(answerTokens) tokens generated",
            "",
        ]
        lines += CostReport.aligned(table, textColumns: []) + [""] + fitLines + [""] + conclusions
        return lines + [
            "GFLOP: prompt and answer without the tower, exact formula. prefill, token: time over that at the largest budget, medians of in-round ratios;",
            "times: such a median times the largest budget's. ± is half the 95 % interval of the median (order statistics; none below six repeats)",
        ]
    }

    private var fitLines: [String] {
        CostReport.aligned(
            [["fit", "ms for each GFLOP", "ms at 0 FLOPs", "R²"]]
                + fits.map { name, _, fit in
                    [name, ExperimentText.number(fit.slope * 1e9), ExperimentText.number(fit.intercept), String(format: "%.4f", fit.rSquared)]
                }, textColumns: [0])
    }

    private var conclusions: [String] {
        guard let first = points.first, let last = points.last, last.whole.ratio > 0 else { return [] }
        var lines = [
            String(format: "a whole answer at budget %g takes 1/%.2f of its time at %g", last.budget, 1 / last.whole.ratio, first.budget)
        ]
        if hasImage {
            lines.append(
                String(
                    format: "the vision tower costs %.1f %% of TTFT at budget %g and %.1f %% at %g: plans do not reach it", first.towerShare * 100,
                    first.budget, last.towerShare * 100, last.budget))
        }
        return lines
    }

    package func chartScript(to path: String, format: ChartFormat) -> String { ExperimentCharts.linearity(self, to: path, format: format) }
}

extension ModelResponse {
    /// Milliseconds of each token after the first.
    var perTokenMilliseconds: Double { decodeMilliseconds / Double(max(1, generatedTokens - 1)) }
}
