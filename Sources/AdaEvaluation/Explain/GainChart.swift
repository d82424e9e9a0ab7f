import Foundation

/// Gain of own plans over swapped, random and fixed ones: a point and its 95 % interval for each budget.
enum GainChart {
    /// - Returns: `nil` where nothing was scored.
    static func draw(_ results: [PlanStudy.Result]) -> String? {
        let rows = results.flatMap { result in
            PlanSource.allCases.compactMap { source in result.gain(over: source).map { (budget: result.budget, source: source, gain: $0) } }
        }
        guard !rows.isEmpty else { return nil }
        // In percentage points, with zero always in sight.
        let low = min(100 * (rows.map(\.gain.low).min() ?? 0), -1)
        let high = max(100 * (rows.map(\.gain.high).max() ?? 0), 1)
        let step = niceStep((high - low) / 6)
        let (first, last) = ((low / step).rounded(.down) * step, (high / step).rounded(.up) * step)
        let (left, top, plot, height, space) = (190.0, 10.0, 480.0, 22.0, 12.0)
        func x(_ points: Double) -> Double { left + (points - first) / (last - first) * plot }

        var marks = ""
        var y = top
        for result in results {
            let gains = rows.filter { $0.budget == result.budget }
            if gains.isEmpty { continue }
            y += space
            marks += SVG.text(0, y + Double(gains.count) * height / 2 + 1, "budget \(String(format: "%g", result.budget))", class: "strong")
            for (_, source, gain) in gains {
                let middle = y + height / 2 - 3
                marks += SVG.text(left - 10, middle + 4, "over \(source.rawValue)", "end")
                marks += SVG.line(x(100 * gain.low), middle, x(100 * gain.high), middle, class: "interval")
                let tip = String(format: "own over %@ at budget %g: %+.1f points, %+.1f to %+.1f", source.rawValue, result.budget, 100 * gain.mean, 100 * gain.low, 100 * gain.high)
                marks += "<circle class=\"point\" cx=\"\(SVG.number(x(100 * gain.mean)))\" cy=\"\(SVG.number(middle))\" r=\"5\"><title>\(tip)</title></circle>\n"
                y += height
            }
        }
        let bottom = y + 4
        var axis = ""
        for index in 0 ... Int(((last - first) / step).rounded()) {
            let points = first + Double(index) * step
            axis += SVG.line(x(points), top, x(points), bottom, class: abs(points) < step / 1e6 ? "zero" : "grid")
            axis += SVG.text(x(points), bottom + 16, points == 0 ? "0" : String(format: step < 1 ? "%+.1f" : "%+.0f", points), "middle")
        }
        axis += SVG.text(left + plot / 2, bottom + 36, "score of own plans minus the other's, percentage points (95% interval)", "middle")
        let title = "What own plans gain over swapped, random and fixed plans, with 95% intervals; the table above holds the numbers"
        return SVG.picture(left + plot + 30, bottom + 44, title: title, class: "chart", axis + marks)
    }

    /// 1, 2 or 5 times a power of ten, at least `value`.
    static func niceStep(_ value: Double) -> Double {
        guard value.isFinite, value > 0 else { return 1 }
        let power = pow(10, log10(value).rounded(.down))
        return ([1, 2, 5].first { $0 * power >= value * 0.999 } ?? 10) * power
    }
}
