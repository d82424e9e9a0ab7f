import AdaLLaVA
import Foundation

extension AnswerSummary {
    /// One line for people: the part of the model that ran, and the times.
    var line: String {
        let milliseconds = { (duration: Duration) in String(format: "%.0f ms", duration / .milliseconds(1)) }
        var parts: [String] = []
        if units != nil {
            let heads = plan.headsPerLayer.reduce(0, +)
            let groups = plan.groupsPerLayer.reduce(0, +)
            let all = plan.rows.count * plan.headCount
            parts.append("budget \(budget.shown): \(plan.rows.count { !$0.isSkipped }) of \(plan.rows.count) layers, \(heads)/\(all) heads, \(groups)/\(all) MLP groups")
        }
        if measured.encode > .microseconds(100) { parts.append("encode \(milliseconds(measured.encode))") }
        let kept = keptImageTokens.map { ", \($0) of \(imageTokens) image tokens kept" } ?? ""
        parts.append("prefill \(milliseconds(measured.prefill)) (\(promptTokens) tokens\(kept))")
        let seconds = measured.decode / .seconds(1)
        let rate = seconds > 0 && tokens.count > 1 ? String(format: ", %.0f tokens/s", Double(tokens.count - 1) / seconds) : ""
        parts.append("decode \(milliseconds(measured.decode)) (\(tokens.count) token\(tokens.count == 1 ? "" : "s")\(rate))")
        if let speculation, speculation.verifications > 0 {
            parts.append("\(speculation.accepted) of \(speculation.drafted) drafted tokens accepted in \(speculation.verifications) steps")
        }
        parts.append("TTFT \(milliseconds(measured.timeToFirstToken))")
        return parts.joined(separator: " | ")
    }
}
