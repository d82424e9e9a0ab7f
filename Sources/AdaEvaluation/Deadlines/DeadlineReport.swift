import AdaLLaVA
import Foundation

/// Result of ``DeadlineBench``.
package struct DeadlineReport: ExperimentReport {
    package static let name = "deadline"
    package let environment: ExperimentEnvironment
    package let models: [ExperimentModel]
    package let repeats: ExperimentRepeats
    /// Optional units and those of the prefix.
    let units: (total: Int, prefix: Int)
    let modes: [(mode: DeadlineBench.Mode, runs: [DeadlineBench.Run])]
    /// The optional units that an oracle which knows every repeat would choose; `nil` if no fixed budget was in time.
    let oracle: [Int?]
    let predictions: [(name: String, results: [DeadlineBench.Prediction])]
    let neighbours: Int
    let seconds: Double

    package init(
        environment: ExperimentEnvironment, model: ExperimentModel, units: (total: Int, prefix: Int), modes: [(mode: DeadlineBench.Mode, runs: [DeadlineBench.Run])],
        fixed: [(units: Int, repeats: [[DeadlineBench.Run]])], predictions: [(name: String, results: [DeadlineBench.Prediction])], neighbours: Int,
        seconds: Double
    ) {
        (self.environment, models, self.units, self.modes, self.predictions) = (environment, [model], units, modes, predictions)
        (self.neighbours, self.seconds, repeats) = (neighbours, seconds, ExperimentRepeats(done: 1, asked: 1))
        let count = modes.first?.runs.count ?? 0
        oracle = fixed.isEmpty ? [] : (0 ..< count).map { index in
            fixed.filter { item in item.repeats.count { $0[index].isInTime } * 2 > item.repeats.count }.map(\.units).max()
        }
    }

    private func share(_ optional: Double) -> Double { (optional + Double(units.prefix)) / Double(max(units.total, 1)) }

    /// Requests whose deadline the smallest plan met, if it was run.
    private var feasible: [Int] {
        guard let floor = modes.first(where: { if case .fixed(let budget) = $0.mode { budget <= share(0) + 1e-9 } else { false } }) else { return [] }
        return floor.runs.indices.filter { floor.runs[$0].isInTime }
    }

    struct Row {
        let name: String
        /// Of all requests, and of those that the floor met.
        let kept: Double, keptOfFeasible: Double?
        let budget: Double, budgetOfFeasible: Double?
        /// Over the oracle's mean budget, of the requests that it has one for.
        let ofOracle: Double?
        let accuracy: Double?
        let changed: Double
    }

    private func row(_ mode: DeadlineBench.Mode, _ runs: [DeadlineBench.Run]) -> Row {
        let feasible = feasible
        func mean(_ values: [Double]) -> Double? { values.isEmpty ? nil : values.reduce(0, +) / Double(values.count) }
        let budget = { (run: DeadlineBench.Run) in share((run.firstShare + run.lastShare) / 2) }
        let known = oracle.indices.filter { oracle[$0] != nil && (feasible.isEmpty || feasible.contains($0)) }
        let own = mean(known.map { budget(runs[$0]) }), best = mean(known.map { share(Double(oracle[$0] ?? 0)) })
        let scores = runs.compactMap(\.score)
        return Row(
            name: mode.name, kept: mean(runs.map { $0.isInTime ? 1 : 0 }) ?? 0, keptOfFeasible: mean(feasible.map { runs[$0].isInTime ? 1 : 0 }),
            budget: mean(runs.map(budget)) ?? 0, budgetOfFeasible: mean(feasible.map { budget(runs[$0]) }), ofOracle: own.flatMap { own in best.map { own / $0 } },
            accuracy: mean(scores), changed: mean(runs.map { $0.changes > 0 ? 1 : 0 }) ?? 0)
    }

    var rows: [Row] { modes.map { row($0.mode, $0.runs) } }

    struct ErrorRow {
        let name: String
        let count: Int
        /// Median and 90th percentile of |measured - predicted| / predicted.
        let firstToken: (median: Double, high: Double), whole: (median: Double, high: Double)
    }

    var errors: [ErrorRow] {
        predictions.map { name, results in
            func quantiles(_ pairs: [(predicted: Double, measured: Double)]) -> (Double, Double) {
                let errors = pairs.map { abs($0.measured - $0.predicted) / max($0.predicted, 1e-6) }.sorted()
                if errors.isEmpty { return (0, 0) }
                return (errors[errors.count / 2], errors[min(errors.count * 9 / 10, errors.count - 1)])
            }
            return ErrorRow(name: name, count: results.count, firstToken: quantiles(results.map(\.firstToken)), whole: quantiles(results.map(\.whole)))
        }
    }

    package var lines: [String] {
        var lines = ["", "Error of predictions, |measured - predicted| / predicted, median (90th percentile):", ""]
        for row in errors {
            lines.append(String(
                format: "%@ first token %.1f %% (%.1f %%)   whole answer %.1f %% (%.1f %%)   of %d", row.name.padding(toLength: 20, withPad: " ", startingAt: 0),
                100 * row.firstToken.median, 100 * row.firstToken.high, 100 * row.whole.median, 100 * row.whole.high, row.count))
        }
        if modes.isEmpty { return lines }
        lines += [
            "", "\(modes[0].runs.count) requests in \(String(format: "%.0f", seconds)) s, 0 to \(neighbours) neighbours; \(feasible.count) deadlines were met by the floor:", "",
            "                          in time   of the floor's   budget   of the oracle's   accuracy   changed mid-answer",
        ]
        let percent = { (value: Double?) in value.map { String(format: "%.1f %%", 100 * $0) } ?? "-" }
        for row in rows {
            let cells = [
                row.name.padding(toLength: 24, withPad: " ", startingAt: 0), percent(row.kept).leftPadded(9), percent(row.keptOfFeasible).leftPadded(17),
                String(format: "%.3f", row.budgetOfFeasible ?? row.budget).leftPadded(9), (row.ofOracle.map { String(format: "%.2f", $0) } ?? "-").leftPadded(18),
                (row.accuracy.map { String(format: "%.3f", $0) } ?? "-").leftPadded(11), percent(row.changed).leftPadded(21),
            ]
            lines.append(cells.joined())
        }
        return lines
    }

    package var csv: String {
        var text = "mode,request,time_s,deadline_ms,measured_ms,predicted_ms,share_first,share_last,load,changes,score\r\n"
        for (mode, runs) in modes {
            for (index, run) in runs.enumerated() {
                let values = [run.time, run.deadline, run.measured, run.predicted, share(run.firstShare), share(run.lastShare), run.load].map { String(format: "%.4f", $0) }
                text += "\(mode.name),\(index)," + values.joined(separator: ",") + ",\(run.changes),\(run.score.map { "\($0)" } ?? "")\r\n"
            }
        }
        return text
    }

    package struct Details: Codable, Sendable {
        package var neighbours: Int
        package var seconds: Double
        /// Deadlines that the smallest plan met.
        package var metByFloor: Int
        package var predictions: [PredictionErrors]
        package var modes: [ModeJSON]

        enum CodingKeys: String, CodingKey {
            case neighbours, seconds, predictions, modes
            case metByFloor = "met_by_floor"
        }

        /// Errors are |measured - predicted| / predicted.
        package struct PredictionErrors: Codable, Sendable {
            package var name: String
            package var count: Int
            package var ttftMs: [Pair]
            package var wholeMs: [Pair]
            package var ttftMedianError: Double
            package var ttftP90Error: Double
            package var wholeMedianError: Double
            package var wholeP90Error: Double

            package struct Pair: Codable, Sendable {
                package var predicted: Double
                package var measured: Double
            }

            enum CodingKeys: String, CodingKey {
                case name, count
                case ttftMs = "ttft_ms"
                case wholeMs = "whole_ms"
                case ttftMedianError = "ttft_median_error"
                case ttftP90Error = "ttft_p90_error"
                case wholeMedianError = "whole_median_error"
                case wholeP90Error = "whole_p90_error"
            }
        }

        /// One way to choose budgets. Fractions of requests, and mean budgets.
        package struct ModeJSON: Codable, Sendable {
            package var name: String
            package var inTime: Double
            @Nullable package var inTimeOfFloor: Double?
            package var budget: Double
            @Nullable package var budgetOfFloor: Double?
            @Nullable package var ofOracle: Double?
            @Nullable package var accuracy: Double?
            package var changed: Double

            enum CodingKeys: String, CodingKey {
                case name, budget, accuracy, changed
                case inTime = "in_time"
                case inTimeOfFloor = "in_time_of_floor"
                case budgetOfFloor = "budget_of_floor"
                case ofOracle = "of_oracle"
            }
        }
    }

    package var details: Details {
        func pair(_ times: (predicted: Double, measured: Double)) -> Details.PredictionErrors.Pair {
            Details.PredictionErrors.Pair(predicted: times.predicted, measured: times.measured)
        }
        return Details(
            neighbours: neighbours, seconds: seconds, metByFloor: feasible.count,
            predictions: zip(errors, predictions).map { row, item in
                Details.PredictionErrors(
                    name: row.name, count: row.count, ttftMs: item.results.map { pair($0.firstToken) }, wholeMs: item.results.map { pair($0.whole) },
                    ttftMedianError: row.firstToken.median, ttftP90Error: row.firstToken.high, wholeMedianError: row.whole.median,
                    wholeP90Error: row.whole.high)
            },
            modes: rows.map { row in
                Details.ModeJSON(
                    name: row.name, inTime: row.kept, inTimeOfFloor: row.keptOfFeasible, budget: row.budget, budgetOfFloor: row.budgetOfFeasible,
                    ofOracle: row.ofOracle, accuracy: row.accuracy, changed: row.changed)
            })
    }

    /// One run over time: load, budget, and predicted and measured time over the deadline.
    package func chartScript(to path: String, format: ChartFormat) -> String {
        let runs = modes.first?.runs ?? []
        var chart = Chart(
            title: "Answers with deadlines beside 0 to \(neighbours) other programs", xLabel: "seconds", yLabel: "load; budget; times over the deadline",
            series: [
                Chart.Series(name: "machine's load", points: runs.map { ($0.time, min($0.load, 6)) }, style: .steps),
                Chart.Series(name: "budget", points: runs.map { ($0.time, share($0.lastShare)) }, style: .steps),
                Chart.Series(name: "predicted / deadline", points: runs.map { ($0.time, min($0.predicted / $0.deadline, 3)) }, style: .points),
                Chart.Series(name: "measured / deadline", points: runs.map { ($0.time, min($0.measured / $0.deadline, 3)) }, style: .points),
            ])
        chart.minimumHeight = 1
        return Gnuplot.script(chart, to: path, format: format)
    }
}

extension String {
    fileprivate func leftPadded(_ width: Int) -> String { String(repeating: " ", count: max(width - count, 0)) + self }
}
