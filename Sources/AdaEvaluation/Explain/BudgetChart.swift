import Foundation

/// Accuracy over mean budget: budgets of `auto` against every fixed one and the oracle.
enum BudgetChart {
    static func draw(_ study: BudgetStudy) -> String {
        let points = study.fixed + study.curve.map(\.own) + [study.oracle]
        let lowest = points.map(\.accuracy).min() ?? 0, highest = points.map(\.accuracy).max() ?? 1
        let step = GainChart.niceStep(max(highest - lowest, 0.01) / 5)
        let (first, last) = ((lowest / step).rounded(.down) * step, (highest / step).rounded(.up) * step)
        let (left, top, width, height) = (60.0, 14.0, 520.0, 260.0)
        func x(_ mean: Double) -> Double { left + mean * width }
        func y(_ accuracy: Double) -> Double { top + (last - accuracy) / (last - first) * height }
        var drawing = ""
        for index in 0 ... Int(((last - first) / step).rounded()) {
            let value = first + Double(index) * step
            drawing += SVG.line(left, y(value), left + width, y(value), class: "grid") + SVG.text(left - 8, y(value) + 4, String(format: "%.3g", value), "end")
        }
        for index in 0 ... 4 { drawing += SVG.text(x(Double(index) / 4), top + height + 18, String(format: "%g", Double(index) / 4), "middle") }
        func series(_ name: String, _ points: [BudgetStudy.Point], class style: String) -> String {
            let sorted = points.sorted { $0.mean < $1.mean }
            let lines = zip(sorted, sorted.dropFirst()).map { SVG.line(x($0.mean), y($0.accuracy), x($1.mean), y($1.accuracy), class: style) }
            let dots = sorted.map { point in
                let tip = String(format: "%@: accuracy %.4f at a mean of %.3f", name, point.accuracy, point.mean)
                return "<circle class=\"point\" cx=\"\(SVG.number(x(point.mean)))\" cy=\"\(SVG.number(y(point.accuracy)))\" r=\"3.5\"><title>\(tip)</title></circle>\n"
            }
            let label = sorted.first.map { SVG.text(x($0.mean) + 8, y($0.accuracy) + (style == "zero" ? 14 : -6), name) } ?? ""
            return lines.joined() + dots.joined() + label
        }
        drawing += series("fixed", study.fixed, class: "zero") + series("auto", study.curve.map(\.own), class: "interval") + series("oracle", [study.oracle], class: "zero")
        drawing += SVG.text(left + width / 2, top + height + 38, "mean budget (fraction of the full model's units)", "middle")
        return SVG.picture(left + width + 30, top + height + 48, title: "Accuracy over mean budget: auto, fixed budgets and the oracle", class: "chart", drawing)
    }

    /// The page's section.
    static func section(_ study: BudgetStudy) -> String {
        """
        <h2>How much each input needs</h2>
        <p>A budget of auto gives each input the units that the budget head expects it to need. The line of fixed budgets gives all inputs the same; the
        oracle gives each the least units with its best score. The curve is measured on the inputs of this page.</p>
        <figure><div class="scroll">\(draw(study))</div></figure>
        <details><summary>The same in numbers</summary><pre>\(SVG.escape(study.table))</pre></details>

        """
    }
}
