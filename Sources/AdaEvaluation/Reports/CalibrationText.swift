import AdaLLaVA
import Foundation

/// The output of `calibrate`.
package struct CalibrationText {
    private let report: CalibrationReport
    private let ceilings: MachineCeilings?

    /// - Parameter ceilings: this machine's, where they are known.
    package init(_ report: CalibrationReport, _ ceilings: MachineCeilings?) { (self.report, self.ceilings) = (report, ceilings) }

    /// The unit of each term, and the meaning of its time.
    private static let terms: [(name: String, meaning: String, unit: String)] = [
        ("chunkHeads", "prompt rows, queries and outputs", "ns per million multiply-adds"),
        ("chunkKeyValues", "prompt rows, keys and values", "ns per million multiply-adds"),
        ("chunkNeurons", "prompt rows, MLP", "ns per million multiply-adds"),
        ("chunkPairs", "prompt rows, attention", "ns per million multiply-adds"),
        ("chunkValues", "prompt rows, hidden states", "ns per million values"),
        ("chunkWeights", "chunks, weights read", "ns per MB"), ("chunkLayers", "chunks, a layer", "ns"), ("lastLayers", "chunks, the last layer", "ns"),
        ("singleAttention", "tokens, attention weights read", "ns per MB"), ("singleNeurons", "tokens, MLP weights read", "ns per MB"),
        ("singleKeys", "tokens, keys and values read", "ns per million values"), ("singleLayers", "tokens, a layer", "ns"),
        ("logits", "logits", "ns per million multiply-adds"), ("steps", "a step", "ns"),
        ("stepValues", "chunks, hidden states in and out", "ns per million values"), ("latencyTokens", "latency token, scheduler and plan", "ns"),
    ]

    /// A table for people.
    package var text: String {
        var lines = ["# \(report.identity)", "", "Fitted times (non-negative least squares over counts):", ""]
        for term in CalibrationText.terms where report.nanoseconds[term.name, default: 0] > 0 {
            let value = String(format: "%12.1f", report.nanoseconds[term.name, default: 0])
            lines.append("\(value)  \(term.unit.padding(toLength: 30, withPad: " ", startingAt: 0))\(term.meaning)")
        }
        if report.imageMilliseconds > 0 { lines.append(String(format: "%12.2f  %@%@", report.imageMilliseconds, "ms".padding(toLength: 30, withPad: " ", startingAt: 0), "encoding an image")) }
        lines += ["", "Error of the fit, |predicted - measured| / measured:", ""]
        for phase in report.phases where phase.measurements > 0 {
            let name = phase.name.replacingOccurrences(of: "_", with: " ").padding(toLength: 16, withPad: " ", startingAt: 0)
            lines.append(String(format: "%@ median %5.1f %%   largest %5.1f %%   of %d", name, 100 * phase.medianError, 100 * phase.largestError, phase.measurements))
        }
        if let ceilings {
            let bf16 = ceilings.bf16.map { String(format: ", BF16 %.0f GFLOPS", $0 / 1e9) } ?? ""
            lines += [
                "", String(format: "Ceilings: memory %.1f GB/s, int8 %.0f GOPS%@, float32 %.0f GFLOPS", ceilings.bandwidth / 1e9, ceilings.int8 / 1e9, bf16, ceilings.fp32 / 1e9),
            ]
        }
        return (lines + ["", String(format: "Measured in %.1f s, kept in %@", report.seconds, report.file)]).joined(separator: "\n")
    }

    /// The output of `calibrate --json`.
    package struct JSON: Codable, Sendable {
        package var calibration: CalibrationReport
        /// Absent where they were not measured.
        package var ceilings: MachineCeilings?
    }

    /// The report and the ceilings as one object.
    package func json() throws -> String {
        String(decoding: try JSONText.data(JSON(calibration: report, ceilings: ceilings), isPretty: true), as: UTF8.self)
    }
}
