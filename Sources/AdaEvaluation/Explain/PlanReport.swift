import AdaImages
import AdaLLaVA
import Foundation

/// One self-contained HTML page about a ``PlanStudy``: no scripts, nothing from elsewhere.
public struct PlanReport: Sendable {
    /// An input that the page shows by itself.
    public struct Example: Sendable {
        public let sample: BenchmarkSample
        public let image: RGBImage?
        /// By budget.
        public let attention: [(budget: Double, attention: LatencyAttention)]
        /// Its place among the study's samples.
        public let index: Int

        public init(sample: BenchmarkSample, image: RGBImage?, attention: [(budget: Double, attention: LatencyAttention)], index: Int) {
            (self.sample, self.image, self.attention, self.index) = (sample, image, attention, index)
        }
    }

    public let model: String
    public let data: String
    public let prefixLayers: Int
    public let cropsImages: Bool
    public let results: [PlanStudy.Result]
    public let examples: [Example]

    public init(model: String, data: String, prefixLayers: Int, cropsImages: Bool, results: [PlanStudy.Result], examples: [Example]) {
        (self.model, self.data, self.prefixLayers, self.cropsImages) = (model, data, prefixLayers, cropsImages)
        (self.results, self.examples) = (results, examples)
    }

    /// What the page's table says, for a terminal.
    public var table: String {
        var lines = ["budget  units  plans  Hamming     own  swapped   random    fixed"]
        for result in results {
            func cell(_ source: PlanSource) -> String { result.accuracy(source).map { String(format: "%.3f", $0) } ?? "-" }
            func padded(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
            let cells = [
                (String(format: "%.2f", result.budget), 6), (result.units.map(String.init) ?? "-", 7), ("\(result.distinctPlans)", 7),
                (result.meanHamming.map { String(format: "%.2f", $0) } ?? "-", 9), (cell(.own), 8), (cell(.swapped), 9), (cell(.random), 9),
                (cell(.fixed), 9),
            ]
            lines.append(cells.map { padded($0.0, $0.1) }.joined())
        }
        return lines.joined(separator: "\n")
    }

    public func html() throws -> String {
        let count = results.first?.plans.count ?? 0
        var page = """
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
            <title>Plans of \(PlanDrawing.escape(model))</title>
            <style>\(PlanReport.style)</style></head><body><main>
            <h1>Which parts of \(PlanDrawing.escape(model)) run</h1>
            <p>\(count) input\(count == 1 ? "" : "s") from \(PlanDrawing.escape(data)), at \(results.count) budget\(results.count == 1 ? "" : "s").</p>
            <h2>Do plans depend on the input, and does it matter?</h2>
            <p>Each input is answered under the plan that the scheduler made for it (own), under the plan made for another input (swapped), under a
            random plan of the same size, and under one plan for all inputs: the switches that were on most often (fixed). Differences in
            brackets are own minus the other, with a 95 % interval (paired bootstrap). Where own plans are no better than swapped ones, plans
            differ without using what they see.</p>

            """
        page += summary()
        page += "<h2>How often each part runs</h2>\n<p>The darker (on a dark page: the brighter), the more inputs run it. Exact shares: hold the pointer over a cell.</p>\n"
        for result in results {
            guard let frequencies = result.frequencies else { continue }
            page += "<figure><figcaption>Budget \(trimmed(result.budget))</figcaption>\n"
            page += PlanDrawing.heatMap(frequencies, prefix: prefixLayers, title: "How often each part runs at budget \(trimmed(result.budget))") + "</figure>\n"
        }
        if !examples.isEmpty { page += "<h2>Single inputs</h2>\n" }
        for example in examples { page += try section(example) }
        return page + "</main></body></html>\n"
    }

    private func summary() -> String {
        let scored = results.contains { !$0.scores.isEmpty }
        var html = "<div class=\"scroll\"><table><thead><tr><th>budget</th><th>optional units</th><th>distinct plans</th><th>mean Hamming distance, switches</th>"
        if scored { for source in PlanSource.allCases { html += "<th>\(source.rawValue)</th>" } }
        html += "</tr></thead><tbody>\n"
        for result in results {
            html += "<tr><td>\(trimmed(result.budget))</td><td>\(result.units.map(String.init) ?? "–")</td><td>\(result.distinctPlans) of \(result.plans.count)</td>"
            html += "<td>\(result.meanHamming.map { String(format: "%.2f", $0) } ?? "–")</td>"
            if scored {
                for source in PlanSource.allCases {
                    var cell = result.accuracy(source).map { String(format: "%.3f", $0) } ?? "–"
                    if source != .own, let gain = result.gain(over: source) {
                        cell += String(format: " <span class=\"small\">(%+.3f, %+.3f to %+.3f)</span>", gain.mean, gain.low, gain.high)
                    }
                    html += "<td>\(cell)</td>"
                }
            }
            html += "</tr>\n"
        }
        return html + "</tbody></table></div>\n"
    }

    private func section(_ example: Example) throws -> String {
        var html = "<section><h3>\(PlanDrawing.escape(example.sample.question.replacingOccurrences(of: "\n", with: " ")))</h3>\n"
        let picture = try example.image.map { "data:image/jpeg;base64," + Data(try ImageEncoder.jpeg($0, quality: 85)).base64EncodedString() }
        html += "<div class=\"row\">\n"
        if let picture { html += "<img src=\"\(picture)\" alt=\"The picture of this input\" width=\"168\">\n" }
        html += "<table><thead><tr><th>budget</th><th>answer</th></tr></thead><tbody>\n"
        for result in results {
            let answer = result.answers[.own].flatMap { $0.indices.contains(example.index) ? $0[example.index] : nil } ?? ""
            html += "<tr><td>\(trimmed(result.budget))</td><td>\(PlanDrawing.escape(answer))</td></tr>\n"
        }
        if let reference = example.sample.references.first { html += "<tr><td>right</td><td>\(PlanDrawing.escape(reference))</td></tr>\n" }
        html += "</tbody></table></div>\n"
        if let picture {
            html += "<p>What the latency token attends to in the layers before the scheduler (the brightest patch has the largest weight):</p><div class=\"row\">\n"
            for (budget, attention) in example.attention {
                for layer in attention.layers {
                    guard let grid = attention.grid else { continue }
                    let title = "budget \(trimmed(budget)), layer \(layer.index)"
                    html += "<figure>" + PlanDrawing.overlay(layer.weights, grid: grid, picture: picture, crops: cropsImages, title: "Attention of the latency token, \(title)")
                    html += "<figcaption>\(title)<br>\(PlanDrawing.percent(layer.imageShare)) on the image</figcaption></figure>\n"
                }
            }
            html += "</div>\n"
        }
        html += "<div class=\"row\">\n"
        for result in results where result.plans.indices.contains(example.index) {
            guard let frequencies = SwitchFrequencies([result.plans[example.index]]) else { continue }
            html += "<figure>" + PlanDrawing.heatMap(frequencies, prefix: prefixLayers, title: "What runs at budget \(trimmed(result.budget))", cell: 11)
            html += "<figcaption>budget \(trimmed(result.budget))</figcaption></figure>\n"
        }
        return html + "</div></section>\n"
    }

    private func trimmed(_ budget: Double) -> String { String(format: "%g", budget) }

    private static let style = """
        :root { color-scheme: light dark; --ink: #1d2733; --paper: #fff; --faint: #d5dbe2; --cell: #1f5fae; --prefix: #6b7785; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --paper: #14181d; --faint: #39434e; --cell: #7db4ff; --prefix: #98a4b1; } }
        body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
        main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
        table { border-collapse: collapse; } th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid var(--faint); text-align: left; }
        th { font-weight: 600; } .scroll { overflow-x: auto; } .small, svg .small { font-size: 12px; opacity: 0.8; }
        figure { margin: 0.8rem 0; } figcaption { font-size: 14px; } section { border-top: 1px solid var(--faint); margin-top: 1.5rem; }
        .row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
        svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
        svg .cell { fill: var(--cell); } svg .prefix { fill: var(--prefix); } svg .light { fill: #ffd84a; }
        """
}
