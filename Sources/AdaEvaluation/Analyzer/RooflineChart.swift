import AdaLLaVA
import Foundation

/// The roofline of an analysis: the hardware's ceilings, and each operation of prefill and decode below them.
package struct RooflineChart: Sendable {
    private let analysis: CostAnalysis

    package init(_ analysis: CostAnalysis) { self.analysis = analysis }

    /// Draws to `url`, as its ending says.
    /// - Throws: ``EvaluationError``: another ending than svg or png, gnuplot missing or failed, a file that cannot be written.
    package func draw(to url: URL) throws {
        guard let format = ChartFormat(rawValue: url.pathExtension.lowercased()) else {
            throw EvaluationError.argument(name: "--chart", expected: "a file that ends in .svg or .png", found: url.lastPathComponent)
        }
        try Gnuplot.locate().run(to: url) { script(to: $0, format: format) }
    }

    /// Operations of one kind: drawn once, however many layers have them.
    struct Point: Equatable {
        let name: String
        let intensity: Double
        let performance: Double
    }

    /// One point for each operation's name and place, those at the same place under one name.
    static func points(_ stage: StageCost?) -> [Point] {
        var points: [Point] = []
        for part in stage?.parts ?? [] {
            for operation in part.operations where operation.arithmeticIntensity > 0 {
                let (x, y) = (operation.arithmeticIntensity, operation.performance)
                // Closer than a mark is wide.
                if let index = points.firstIndex(where: { abs(log(x / $0.intensity)) < 0.12 && abs(log(y / $0.performance)) < 0.12 }) {
                    let names = points[index].name.components(separatedBy: ", ")
                    if !names.contains(operation.name) {
                        points[index] = Point(
                            name: points[index].name + ", " + operation.name, intensity: points[index].intensity,
                            performance: points[index].performance)
                    }
                } else {
                    points.append(Point(name: operation.name, intensity: x, performance: y))
                }
            }
        }
        return points.sorted { ($0.intensity, $0.name) < ($1.intensity, $1.name) }
    }

    /// Numbered marks in the frame and a list of their names next to it, because names at the marks would overlap.
    func script(to path: String, format: ChartFormat) -> String {
        let hardware = analysis.hardware
        // Marks of the svg terminal are twice as large as pngcairo's of the same size. They are open and smaller from stage to stage, so
        // that marks at the same position are nested.
        let markSize = format == .svg ? 0.5 : 1.0
        let stages: [(name: String, colour: String, mark: String, points: [Point])] = [
            ("encode", "#2c962c", "pt 8 ps \(2.2 * markSize) lw 1.5", RooflineChart.points(analysis.encode)),
            ("prefill", "#1f5fd2", "pt 6 ps \(1.5 * markSize) lw 1.5", RooflineChart.points(analysis.prefill)),
            ("decode", "#d2691e", "pt 5 ps \(0.7 * markSize)", RooflineChart.points(analysis.decode)),
        ].filter { !$0.points.isEmpty }
        var ceilings = [(name: "16-bit floats", value: hardware.fp16)]
        if let int8 = hardware.int8 { ceilings.append(("8-bit integers", int8)) }
        if let fp32 = hardware.fp32, fp32 != hardware.fp16 { ceilings.append(("32-bit floats", fp32)) }

        let all = stages.flatMap(\.points)
        let ridge = (ceilings.map(\.value).max() ?? 1) / hardware.bandwidth
        let low = min(all.map(\.intensity).min() ?? 0.1, ridge) / 3
        let high = max(all.map(\.intensity).max() ?? 1, ridge) * 4
        let top = (ceilings.map(\.value).max() ?? 1) * 3
        let bottom = min(low * hardware.bandwidth, all.map(\.performance).min() ?? top) / 2
        let (unit, scale) = top >= 1e13 ? ("Top/s", 1e12) : ("Gop/s", 1e9)
        // The same number is a size in pixels for one terminal and in points for the other.
        let fontSize = format == .svg ? 13 : 10
        var lines = Gnuplot.preamble(to: path, format: format, width: 1200, height: 680) + [
            "set title \(Gnuplot.quoted("Roofline of \(analysis.model.name) on \(hardware.name), \(analysis.formula.rawValue) formula"))",
            "set xlabel 'arithmetic intensity (operations / byte)'", "set ylabel 'performance (\(unit))'",
            "set logscale xy 10", "set format x '%g'", "set format y '%g'", "set grid xtics ytics lt 1 lw 1 lc rgb '#d0d0d0'", "set border 3",
            "set tics nomirror", "set xrange [\(low):\(high)]", "set yrange [\(bottom / scale):\(top / scale)]",
            "set lmargin at screen 0.09", "set rmargin at screen 0.60", "set bmargin at screen 0.19", "set tmargin at screen 0.92",
            "set key at screen 0.345, screen 0.05 center horizontal maxrows 1 samplen 2",
        ]
        // A ceiling is a line of two segments.
        for (index, ceiling) in ceilings.enumerated() {
            let corner = ceiling.value / hardware.bandwidth
            lines += [
                "$ceiling\(index) << END", "\(low) \(low * hardware.bandwidth / scale)", "\(corner) \(ceiling.value / scale)",
                "\(high) \(ceiling.value / scale)", "END",
            ]
        }
        var plots = ceilings.enumerated().map { index, ceiling in
            let dash = ["1", "2", "4"][index % 3]
            return "$ceiling\(index) using 1:2 with lines lw 2 dt \(dash) lc rgb '#444444' title \(Gnuplot.quoted(ceiling.name))"
        }
        var number = 0
        var rows: [(text: String, colour: String)] = []
        for (index, stage) in stages.enumerated() {
            rows.append((stage.name, stage.colour))
            lines.append("$stage\(index) << END")
            for point in stage.points {
                number += 1
                lines.append("\(point.intensity) \(point.performance / scale) \(number)")
                rows += RooflineChart.wrapped("\(number)  \(point.name)").map { ($0, "#222222") }
            }
            lines.append("END")
            plots.append(
                "$stage\(index) using 1:2 with points \(stage.mark) lc rgb '\(stage.colour)' title \(Gnuplot.quoted(stage.name))")
        }
        lines += RooflineChart.numbers(stages.map { ($0.colour, $0.points) }, x: (low, high), y: (bottom, top), fontSize: fontSize - 1)
        let pitch = min(0.032, 0.9 / Double(max(rows.count, 1)))
        for (index, row) in rows.enumerated() {
            let size = pitch < 0.024 ? fontSize - 2 : fontSize
            lines.append(
                "set label \(Gnuplot.quoted(row.text)) at screen 0.63, screen \(0.93 - pitch * Double(index)) font ',\(size)' tc rgb '\(row.colour)'")
        }
        lines.append("plot " + plots.joined(separator: ", "))
        return lines.joined(separator: "\n") + "\n"
    }

    /// The marks' numbers, each at the first place around its mark where no other number or mark is.
    static func numbers(
        _ stages: [(colour: String, points: [Point])], x: (Double, Double), y: (Double, Double), fontSize: Int
    ) -> [String] {
        // The frame is 612 by 496 points on the page.
        func place(_ point: Point) -> (x: Double, y: Double) {
            (log(point.intensity / x.0) / log(x.1 / x.0) * 612, log(point.performance / y.0) / log(y.1 / y.0) * 496)
        }
        var placement = LabelPlacement(marks: stages.flatMap { $0.points.map(place) })
        var number = 0
        var labels: [String] = []
        for stage in stages {
            for point in stage.points {
                number += 1
                let (px, py) = place(point)
                // The ceiling is next to a mark, so numbers go above and below.
                let around: [(Double, Double)] = [16.0, 30, 44, 58].flatMap { radius in
                    [(0.0, -1.0), (0, 1), (1, -0.8), (-1, 0.8), (0.8, -1), (-0.8, 1)].map { ($0.0 * radius, $0.1 * radius) }
                }
                let offset = placement.place((px, py), width: 18, height: 15, among: around)
                let (lx, ly) = (0.09 + (px + offset.0) / 1200, 0.19 + (py + offset.1) / 680)
                // A thin line leads to a number that had to go further away.
                if hypot(offset.0, offset.1) > 24 {
                    labels.append(
                        "set arrow from screen \(0.09 + (px + offset.0 * 0.75) / 1200), screen \(0.19 + (py + offset.1 * 0.75) / 680) "
                            + "to screen \(0.09 + px / 1200), screen \(0.19 + py / 680) nohead lw 0.6 lc rgb '\(stage.colour)' back")
                }
                labels.append("set label '\(number)' at screen \(lx), screen \(ly) center font ',\(fontSize)' tc rgb '\(stage.colour)' front")
            }
        }
        return labels
    }

    /// A line of names, broken at commas to fit next to the frame.
    private static func wrapped(_ text: String) -> [String] {
        var lines: [String] = []
        for word in text.components(separatedBy: ", ") {
            if let last = lines.last, last.count + word.count < 56 {
                lines[lines.count - 1] = last + ", " + word
            } else {
                lines.append(lines.isEmpty ? word : "     " + word)
            }
        }
        return lines
    }
}
