import Foundation

/// Charts that are more than points and lines in one frame.
enum ExperimentCharts {
    private static let colours = ["#1f5fd2", "#d2691e", "#2c962c", "#9a9a9a"]

    private static func fontSize(_ format: ChartFormat) -> Int { format == .svg ? 13 : 10 }

    // MARK: - Requests

    /// One bar a pattern: the mean time from one request to the next, made up of its phases.
    static func requests(_ report: RequestsReport, to path: String, format: ChartFormat) -> String {
        var lines = Gnuplot.preamble(to: path, format: format) + [
            "set title \(Gnuplot.quoted("Requests one after another: \(report.model.name), \(threads(report.model)), budget \(String(format: "%g", report.budget))"))",
            "set ylabel 'mean time to the next request (ms)'", "set grid ytics lt 1 lw 1 lc rgb '#d0d0d0'", "set border 3", "set tics nomirror",
            "set style fill solid 1 border rgb '#ffffff'", "set boxwidth 0.5", "set key bmargin center horizontal maxcols 3", "set bmargin 9",
        ]
        // In double quotes, where gnuplot breaks lines; the titles are our own.
        let names = report.rows.enumerated().map { "\"\($1.pattern.title.replacingOccurrences(of: ", ", with: ",\\n"))\\n(n = \($1.whole.count))\" \($0)" }
        lines.append("set xtics (\(names.joined(separator: ", ")))")
        var top = 0.0
        // Cumulative sums, so that each part is drawn over the larger ones.
        lines.append("$bars << END")
        for (index, row) in report.rows.enumerated() {
            let parts = [row.encode.mean, row.prefill.mean, row.decode.mean]
            let sums = parts.indices.map { parts[...$0].reduce(0, +) }
            let mean = row.interRequest.mean
            let margin = row.interRequest.meanMargin ?? 0
            top = max(top, mean + margin, sums.last ?? 0)
            lines.append("\(index) " + sums.map { "\($0)" }.joined(separator: " ") + " \(max(mean, sums.last ?? 0)) \(mean) \(margin)")
        }
        lines.append("END")
        for (index, row) in report.rows.enumerated() {
            let label = ExperimentText.mean(row.interRequest) + " ms"
            lines.append(
                "set label \(Gnuplot.quoted(label)) at \(index),\(row.interRequest.mean + (row.interRequest.meanMargin ?? 0)) center offset character 0,0.7 font ',\(fontSize(format))'")
        }
        lines += ["set xrange [-0.6:\(Double(max(report.rows.count, 1)) - 0.4)]", "set yrange [0:\(max(top, 1e-6) * 1.15)]"]
        let layers = [(5, "image file, resizing, text", 3), (4, "decode", 2), (3, "prefill", 1), (2, "encode", 0)]
        var plots = layers.map { "$bars using 1:\($0.0) with boxes lc rgb '\(colours[$0.2])' title \(Gnuplot.quoted($0.1))" }
        plots.append("$bars using 1:($6-$7):(0):(2*$7) with vectors heads size screen 0.008,90 lw 1.5 lc rgb '#222222' title '95 % interval'")
        lines.append("plot " + plots.joined(separator: ", "))
        return lines.joined(separator: "\n") + "\n"
    }

    // MARK: - Linearity

    /// Three frames: time to the first token, whole answers and single tokens against FLOPs, each with its line.
    static func linearity(_ report: LinearityReport, to path: String, format: ChartFormat) -> String {
        var lines = Gnuplot.preamble(to: path, format: format, width: 1260, height: 520) + [
            "set multiplot layout 1,3 title \(Gnuplot.quoted("Time against FLOPs: \(report.model.name), \(threads(report.model)), \(report.repeats.done) repeats")) offset character 0,-0.3",
            "set grid lt 1 lw 1 lc rgb '#d0d0d0'", "set border 3", "set tics nomirror", "set key bmargin center horizontal", "set bmargin 7",
            "set tmargin 4", "set lmargin 10", "set rmargin 2",
        ]
        let times: [(LinearityReport.Point) -> LinearityReport.Time] = [\.firstToken, \.whole, \.perToken]
        let labels = ["time to the first token (ms)", "whole answer of \(report.answerTokens) tokens (ms)", "each token after the first (ms)"]
        let flops = report.points.map(\.flops)
        let (low, high) = (flops.min() ?? 0, flops.max() ?? 1)
        let (unit, scale) = high >= 1e12 ? ("TFLOP", 1e12) : ("GFLOP", 1e9)
        let margin = max(high - low, high * 1e-6, 1e-9) * 0.08
        for (index, time) in times.enumerated() {
            let fit = report.fits[index]
            lines.append("$points\(index) << END")
            var top = 0.0
            for point in report.points {
                let value = time(point).value
                let interval = time(point).interval ?? value ... value
                top = max(top, interval.upperBound, value)
                lines.append("\(point.flops / scale) \(value) \(interval.lowerBound) \(interval.upperBound)")
            }
            lines += ["END", "$line\(index) << END"]
            for x in [low - margin, high + margin] { lines.append("\(x / scale) \(fit.fit(x))") }
            lines += [
                "END", "set title \(Gnuplot.quoted(String(format: "%@: R² %.4f", fit.name, fit.fit.rSquared)))",
                "set xlabel 'FLOPs of the request (\(unit))'", "set ylabel \(Gnuplot.quoted(labels[index]))", "set yrange [0:\(max(top, 1e-6) * 1.12)]",
                "set xrange [\((low - 2 * margin) / scale):\((high + 2 * margin) / scale)]",
                "plot $line\(index) using 1:2 with lines lw 1.5 dt 2 lc rgb '#888888' title 'least squares', $points\(index) using 1:2:3:4 with yerrorbars pt 7 ps 0.9 lw 1.5 lc rgb '\(colours[index])' title 'median, 95 % interval'",
            ]
        }
        lines.append("unset multiplot")
        return lines.joined(separator: "\n") + "\n"
    }

    // MARK: - Throughput

    /// Two frames of bars, prefill and decode, one bar a model, number of threads and budget.
    static func throughput(_ report: ThroughputReport, to path: String, format: ChartFormat) -> String {
        func name(_ result: ThroughputReport.Result) -> String {
            "\(ExperimentText.shortened(URL(fileURLWithPath: result.model.name).deletingPathExtension().lastPathComponent, to: 36)), \(threads(result.model)), \(result.model.keyValueType == .f16 ? "" : "kv \(result.model.keyValueType.rawValue), ")budget \(String(format: "%g", result.budget))\(result.isBelowFloor ? " (floor)" : "")"
        }
        var names: [String] = []
        for result in report.results where !names.contains(name(result)) { names.append(name(result)) }
        let kinds = ThroughputReport.Kind.allCases.filter { kind in report.results.contains { $0.kind == kind } }
        let (width, height) = (1260.0, 170 + 34 * Double(max(names.count, 1)))
        // Names are left of the first frame, at this many points per character.
        let nameShare = (Double(names.map(\.count).max() ?? 0) * 9.2 + 24) / width
        let frame = max(0.1, 0.985 - nameShare) / Double(max(kinds.count, 1))
        var lines = Gnuplot.preamble(to: path, format: format, width: Int(width), height: Int(height)) + [
            "set multiplot title \(Gnuplot.quoted("Tokens a second: \(report.environment.processor), \(Set(report.models.map(\.kernels)).sorted().joined(separator: ", "))"))",
            "set grid xtics lt 1 lw 1 lc rgb '#d0d0d0'", "set border 3", "set tics nomirror", "set style fill solid 1 noborder", "unset key",
            "set tmargin at screen \(1 - 72 / height)", "set bmargin at screen \(64 / height)",
            "set yrange [\(Double(max(names.count, 1)) - 0.4):-0.6]", "set xlabel 'tokens a second, mean and 95 % interval'",
        ]
        for (place, kind) in kinds.enumerated() {
            let results = report.results.filter { $0.kind == kind }
            let left = nameShare + frame * Double(place)
            let most = results.map { $0.rate.mean + ($0.rate.meanMargin ?? 0) }.max() ?? 1
            let tics = names.enumerated().map { "\(Gnuplot.quoted(place == 0 ? $1 : "")) \($0)" }
            lines += [
                "set lmargin at screen \(left + (place == 0 ? 0 : 0.02))", "set rmargin at screen \(left + frame - 0.01)",
                "set title \(Gnuplot.quoted("\(kind.rawValue): \(Set(results.map(\.test)).sorted().joined(separator: ", "))"))",
                "set ytics (\(tics.joined(separator: ", ")))", "set xrange [0:\(most * 1.5)]", "set xtics \(step(most * 1.5))", "unset label", "$\(kind.rawValue) << END",
            ]
            var labels: [String] = []
            for result in results {
                guard let index = names.firstIndex(of: name(result)) else { continue }
                let margin = result.rate.meanMargin ?? 0
                lines.append("\(index) \(result.rate.mean) \(margin)")
                labels.append(
                    "set label \(Gnuplot.quoted(ExperimentText.mean(result.rate))) at \(result.rate.mean + margin),\(index) left offset character 0.7,0 font ',\(fontSize(format))' front")
            }
            lines += ["END"] + labels + [
                "plot $\(kind.rawValue) using ($2/2):1:($2/2):(0.32) with boxxyerror lc rgb '\(colours[place])', $\(kind.rawValue) using 2:1:3 with xerrorbars pt 7 ps 0.2 lw 1.5 lc rgb '#222222'"
            ]
        }
        lines.append("unset multiplot")
        return lines.joined(separator: "\n") + "\n"
    }

    /// 1, 2 or 5 times a power of ten: at most five of it make `range`, so that numbers below an axis keep apart.
    static func step(_ range: Double) -> Double {
        guard range.isFinite, range > 0 else { return 1 }
        let scale = pow(10, (log10(range / 5)).rounded(.down))
        return [1, 2, 5, 10].map { $0 * scale }.first { range / $0 <= 5 } ?? 10 * scale
    }

    private static func threads(_ model: ExperimentModel) -> String { "\(model.threads) thread\(model.threads == 1 ? "" : "s")" }
}
