import AdaLLaVA
import Foundation

/// The format of a chart.
package enum ChartFormat: String, Sendable, CaseIterable {
    case svg, png
}

/// Points and lines to be drawn in one frame.
package struct Chart: Sendable {
    package struct Series: Sendable {
        package enum Style: String, Sendable {
            case line = "linespoints"
            case points
            /// A line without points that keeps each value until the next point: fronts.
            case steps
        }

        package var name: String
        package var points: [(x: Double, y: Double)]
        package var style: Style

        package init(name: String, points: [(x: Double, y: Double)], style: Style = .line) {
            (self.name, self.points, self.style) = (name, points, style)
        }
    }

    package var title: String
    /// With its unit.
    package var xLabel: String
    package var yLabel: String
    package var series: [Series]
    /// The y axis covers at least this much, so that noise does not look like a difference.
    package var minimumHeight = 0.0
    /// The most that a y value can be, where the y axis ends: 1 for a fraction.
    package var yLimit: Double?
    /// Text next to a point, where it overlaps no other.
    package var labels: [(x: Double, y: Double, text: String)] = []

    package init(title: String, xLabel: String, yLabel: String, series: [Series]) {
        (self.title, self.xLabel, self.yLabel, self.series) = (title, xLabel, yLabel, series)
    }
}

/// Draws charts with gnuplot, as a child process.
package struct Gnuplot: Sendable {
    package let executable: URL

    /// - Throws: ``EvaluationError/plotterMissing(searched:)``
    package static func locate(path: String? = ProcessInfo.processInfo.environment["PATH"]) throws -> Gnuplot {
        let folders = (path ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":").map(String.init)
        for folder in folders {
            let file = URL(fileURLWithPath: folder).appendingPathComponent("gnuplot")
            if FileManager.default.isExecutableFile(atPath: file.path) { return Gnuplot(executable: file) }
        }
        throw EvaluationError.plotterMissing(searched: folders)
    }

    /// Draws one chart, 900 by 560 points.
    /// - Throws: ``EvaluationError/plotterFailed(chart:output:)``, ``EvaluationError/file(path:reason:)``
    package func draw(_ chart: Chart, to url: URL, format: ChartFormat) throws {
        try run(to: url) { Gnuplot.script(chart, to: $0, format: format) }
    }

    /// Runs a script that draws into a temporary file; the file is renamed to `url` when it is complete.
    /// - Throws: as ``draw(_:to:format:)``.
    func run(to url: URL, script: (String) -> String) throws {
        // gnuplot writes to the path it is given as soon as it starts, so a failure would leave half a picture.
        let partial = url.deletingLastPathComponent().appendingPathComponent(".\(url.lastPathComponent).partial")
        defer { try? Files.remove(partial) }
        let process = Process()
        process.executableURL = executable
        process.arguments = ["-"]
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = FileHandle.nullDevice
        process.standardError = output
        do {
            try process.run()
            try input.fileHandleForWriting.write(contentsOf: Data(script(partial.path).utf8))
            try input.fileHandleForWriting.close()
        } catch {
            throw EvaluationError.plotterFailed(chart: url.lastPathComponent, output: error.localizedDescription)
        }
        let messages = String(decoding: (try? output.fileHandleForReading.readToEnd()) ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw EvaluationError.plotterFailed(chart: url.lastPathComponent, output: String(messages.suffix(400)))
        }
        do {
            try RunFiles.write(try Files.data(partial), to: url)
        } catch let error as EvaluationError {
            throw error
        } catch {
            throw EvaluationError.plotterFailed(chart: url.lastPathComponent, output: "it wrote nothing. \(messages.suffix(400))")
        }
    }

    // MARK: - Script

    /// The beginning of every script.
    static func preamble(to path: String, format: ChartFormat, width: Int = 900, height: Int = 560) -> [String] {
        let terminal = switch format {
        case .svg: "svg size \(width),\(height) dynamic noenhanced font 'DejaVu Sans,14' background '#ffffff'"
        case .png: "pngcairo size \(width),\(height) noenhanced font 'DejaVu Sans,12' background '#ffffff'"
        }
        return ["set terminal \(terminal)", "set output \(quoted(path))", "set encoding utf8"]
    }

    static func script(_ chart: Chart, to path: String, format: ChartFormat) -> String {
        let series = chart.series.map { series in
            Chart.Series(name: series.name, points: series.points.filter { $0.x.isFinite && $0.y.isFinite }, style: series.style)
        }.filter { !$0.points.isEmpty }
        var lines = preamble(to: path, format: format) + [
            "set title \(quoted(chart.title))",
            "set xlabel \(quoted(chart.xLabel))", "set ylabel \(quoted(chart.yLabel))", "set grid lt 1 lw 1 lc rgb '#d0d0d0'", "set border 3",
            "set tics nomirror",
            // The key below the axis label, in rows of three.
            "set key bmargin center horizontal maxcols 3", "set bmargin \(5 + (series.count + 2) / 3)",
        ]
        let points = series.flatMap(\.points)
        if let x = range(points.map(\.x), least: 0, margin: 0.07),
            let y = range(points.map(\.y), least: chart.minimumHeight, margin: 0.1, limit: chart.yLimit)
        {
            lines += ["set xrange [\(x.lowerBound):\(x.upperBound)]", "set yrange [\(y.lowerBound):\(y.upperBound)]"]
            lines += labels(chart.labels.filter { $0.x.isFinite && $0.y.isFinite }, among: points, x: x, y: y)
        }
        for (index, item) in series.enumerated() {
            lines += ["$data\(index) << END"] + item.points.map { "\($0.x) \($0.y)" } + ["END"]
        }
        let colours = ["#1f5fd2", "#d2691e", "#2c962c", "#8a3caa", "#c0272d", "#0f8b8d", "#6b6b6b"]
        let plots = series.enumerated().map { index, item in
            let colour = item.style == .steps ? "#888888" : colours[index % colours.count]
            let pointType = item.style == .steps ? "dt 2" : "pt \([7, 5, 9, 13, 11][index % 5]) ps 1"
            return "$data\(index) using 1:2 with \(item.style.rawValue) lw 2 \(pointType) lc rgb '\(colour)' title \(quoted(String(item.name.prefix(40))))"
        }
        lines.append(plots.isEmpty ? "plot [0:1][0:1] NaN notitle" : "plot " + plots.joined(separator: ", "))
        return lines.joined(separator: "\n") + "\n"
    }

    /// The range of an axis: the values with a margin, at least this wide; nothing below 0 or above the limit unless a value is.
    static func range(_ values: [Double], least: Double, margin: Double, limit: Double? = nil) -> ClosedRange<Double>? {
        guard let low = values.min(), let high = values.max() else { return nil }
        let extent = max(high - low, least, abs(high) * 1e-6, 1e-12)
        let middle = (low + high) / 2
        let bounds = (middle - (0.5 + margin) * extent, middle + (0.5 + margin) * extent)
        let upper = limit.map { high <= $0 ? min($0, bounds.1) : bounds.1 } ?? bounds.1
        // Below a limit the axis still covers the least.
        let lower = min(bounds.0, upper - least)
        return (low >= 0 ? max(0, lower) : lower) ... upper
    }

    private static func labels(
        _ labels: [(x: Double, y: Double, text: String)], among points: [(x: Double, y: Double)], x: ClosedRange<Double>, y: ClosedRange<Double>
    ) -> [String] {
        // The frame is about 800 by 400 of the page's 900 by 560 points.
        func place(_ point: (x: Double, y: Double)) -> (x: Double, y: Double) {
            ((point.x - x.lowerBound) / (x.upperBound - x.lowerBound) * 800, (point.y - y.lowerBound) / (y.upperBound - y.lowerBound) * 400)
        }
        var placement = LabelPlacement(marks: points.map(place))
        return labels.map { label in
            let width = 7 * Double(label.text.count) + 4
            let side = width / 2 + 7
            let around: [(Double, Double)] = [(side, -10), (side, 10), (-side, 10), (-side, -10), (0, 16), (0, -16)]
            let offsets = [1.0, 1.6, 2.4].flatMap { (distance: Double) -> [(Double, Double)] in
                around.map { ($0.0 * distance, $0.1 * distance) }
            }
            let offset = placement.place(place((label.x, label.y)), width: width, height: 14, among: offsets)
            return "set label \(quoted(label.text)) at \(label.x),\(label.y) center offset screen \(offset.0 / 900), screen \(offset.1 / 560) font ',10' front"
        }
    }

    /// A text in single quotes, which gnuplot reads without escapes; control characters would end the command.
    static func quoted(_ text: String) -> String {
        let safe = text.map { $0.isNewline || $0.unicodeScalars.contains { $0.value < 32 } ? " " : $0 == "'" ? "''" : String($0) }.joined()
        return "'\(safe)'"
    }
}
