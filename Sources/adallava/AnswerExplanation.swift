import AdaLLaVA
import Foundation

/// The output of `ask --explain`: the parts that ran, predicted and measured times, the machine's load, and the parts turned off during the
/// answer.
struct AnswerExplanation {
    let summary: AnswerSummary

    var text: String { ([plan] + times + notes).joined(separator: "\n") }

    /// A column for each layer: how much of its attention, and of its MLP, ran.
    private var plan: String {
        let levels = Array(" ▁▂▃▄▅▆▇█")
        func bar(_ counts: [Int]) -> String {
            String(counts.map { count in
                let share = Double(count) / Double(max(summary.plan.headCount, 1))
                return count == 0 ? "·" : levels[min(max(Int((share * 8).rounded()), 1), 8)]
            })
        }
        let units = summary.units.map { ", \($0) optional units" } ?? ""
        return """
            plan        layers \(summary.plan.rows.count { !$0.isSkipped }) of \(summary.plan.rows.count)\(units)
              attention \(bar(summary.plan.headsPerLayer))
              MLP       \(bar(summary.plan.groupsPerLayer))
            """
    }

    private var times: [String] {
        let predicted = summary.prediction?.times, measured = summary.measured
        func row(_ name: String, _ path: KeyPath<PhaseTimes, Duration>) -> String {
            let left = predicted.map { String(format: "%9.1f ms", $0[keyPath: path] / .milliseconds(1)) } ?? "           -"
            return name.padding(toLength: 12, withPad: " ", startingAt: 0) + left + String(format: "%9.1f ms", measured[keyPath: path] / .milliseconds(1))
        }
        return [
            "               predicted    measured", row("encode", \.encode), row("prefill", \.prefill), row("decode", \.decode),
            row("first token", \.timeToFirstToken), row("whole", \.whole),
        ]
    }

    private var notes: [String] {
        guard let prediction = summary.prediction else { return ["times were not predicted: `adallava calibrate` measures this model on this machine"] }
        var notes = [
            String(
                format: "length      %d tokens expected, %d given; %.2f ms a token predicted", prediction.tokens, summary.tokens.count,
                prediction.perToken / .milliseconds(1)),
            String(format: "load        %.2f times the quiet machine's time", prediction.load),
        ]
        if !prediction.isFitted { notes.append("times are guesses: this model was not measured on this machine before this answer") }
        for change in prediction.changes { notes.append("change      after \(change.tokens) tokens: \(change.from) to \(change.to) optional units") }
        return notes
    }
}
