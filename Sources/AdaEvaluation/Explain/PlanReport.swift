import AdaImages
import AdaLLaVA
import Foundation

/// One self-contained HTML page about a ``PlanStudy``: no scripts, nothing from elsewhere. Also the study as a table and as JSON.
package struct PlanReport: Sendable {
    /// An input that the page shows by itself.
    package struct Example: Sendable {
        package let sample: BenchmarkSample
        package let image: RGBImage?
        /// By budget.
        package let attention: [(budget: Double, attention: LatencyAttention)]
        /// Its place among the study's samples.
        package let index: Int

        package init(sample: BenchmarkSample, image: RGBImage?, attention: [(budget: Double, attention: LatencyAttention)], index: Int) {
            (self.sample, self.image, self.attention, self.index) = (sample, image, attention, index)
        }
    }

    package let model: String
    package let data: String
    package let prefixLayers: Int
    /// The model sees the middle square of an image, instead of all of it with margins.
    package let cropsImages: Bool
    package let results: [PlanStudy.Result]
    package let examples: [Example]
    /// Images that were read although they are damaged.
    package let damagedImages: Int
    /// The gain of the best plans of each budget's size, if requested.
    package let oracle: PlanOracle?
    /// The gain of `auto` budgets; `nil` for a model without a budget head.
    package let auto: BudgetStudy?

    package init(
        model: String, data: String, prefixLayers: Int, cropsImages: Bool, results: [PlanStudy.Result], examples: [Example], damagedImages: Int = 0,
        oracle: PlanOracle? = nil, auto: BudgetStudy? = nil
    ) {
        (self.oracle, self.auto) = (oracle, auto)
        (self.model, self.data, self.prefixLayers, self.cropsImages) = (model, data, prefixLayers, cropsImages)
        (self.results, self.examples, self.damagedImages) = (results, examples, damagedImages)
    }

    // MARK: - Terminal and programs

    /// The page's table as text for a terminal.
    package var table: String {
        func padded(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
        let isScored = results.contains { !$0.scores.isEmpty }
        var rows = [["budget", "units", "plans", "Hamming"] + PlanSource.allCases.map { isScored || $0 == .own ? $0.rawValue : "≠ \($0.rawValue)" }]
        if !isScored { rows[0].remove(at: 4) }
        for result in results {
            var cells = [
                String(format: "%g", result.budget), result.units.map(String.init) ?? "-", "\(result.distinctPlans)",
                result.meanHamming.map { String(format: "%.2f", $0) } ?? "-",
            ]
            for source in PlanSource.allCases where isScored || source != .own {
                let value = isScored ? result.accuracy(source) : result.changedAnswers(source)
                cells.append(value.map { String(format: "%.3f", $0) } ?? "-")
            }
            rows.append(cells)
        }
        var lines = rows.map { row in row.map { padded($0, 9) }.joined() }
        lines.append(
            isScored
                ? "own … fixed: mean score under the scheduler's plans, those of other inputs, random ones of the same size, one for all"
                : "≠: share of answers that change under plans of other inputs, random ones of the same size, one for all")
        for result in results {
            let gains = PlanSource.allCases.compactMap { source in
                result.gain(over: source).map { String(format: "%@ %+.1f (%+.1f to %+.1f)", source.rawValue, 100 * $0.mean, 100 * $0.low, 100 * $0.high) }
            }
            if !gains.isEmpty { lines.append(String(format: "budget %g: own plans gain, in points (95%% interval), over ", result.budget) + gains.joined(separator: ", ")) }
        }
        if let note = DamagedImages.note(damagedImages) { lines.append(note) }
        if let oracle { lines += ["", oracle.table] }
        if let auto { lines += ["", auto.table] }
        return lines.joined(separator: "\n")
    }

    package var json: JSON {
        JSON(
            model: model, data: data, prefixLayers: prefixLayers, damagedImages: damagedImages, budgets: results.map(\.json),
            examples: examples.map { example in
                JSON.Example(
                    id: example.sample.id, question: example.sample.question,
                    attention: example.attention.map { budget, attention in
                        JSON.Example.Attention(
                            budget: budget,
                            layers: attention.layers.map {
                                JSON.Example.Layer(layer: $0.index, image: $0.imageShare, latencyToken: $0.ownShare)
                            })
                    })
            }, oracle: oracle?.json, auto: auto?.json)
    }

    // MARK: - Page

    /// - Throws: `ImageError` if a picture cannot be written.
    package func html() throws -> String {
        let count = results.first?.plans.count ?? 0
        var page = """
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
            <title>Plans of \(SVG.escape(model))</title>
            <style>
            \(PlanReport.style)
            </style></head><body><main>
            <h1>Which parts of \(SVG.escape(model)) run, and whether it matters</h1>
            <p>\(counted(count, "input")) from \(SVG.escape(data)), at \(counted(results.count, "budget")). Of \(counted(results.first?.frequencies?.layers ?? 0, "decoder layer")) the first \
            \(prefixLayers) always run; behind them the scheduler reads the latency token and decides \(counted(results.first?.switches.count ?? 0, "switch", "switches")).\(DamagedImages.note(damagedImages).map { " \($0)." } ?? "")</p>

            """
        page += comparison() + maps()
        if let oracle { page += "<h2>The best possible plans</h2>\n<pre>\(SVG.escape(oracle.table))</pre>\n" }
        if let auto { page += BudgetChart.section(auto) }
        if !examples.isEmpty {
            page += "<h2>Single inputs</h2>\n<p>The parts that ran for each, the answers under each plan, and the latency token's attention.</p>\n"
        }
        for example in examples { page += try PlanReportExample(report: self, example: example).html() }
        return page + "</main></body></html>\n"
    }

    /// Writes the page; it appears whole or not at all.
    /// - Throws: ``EvaluationError/file(path:reason:)``, `ImageError`
    package func write(to file: URL) throws { try RunFiles.write(Data(try html().utf8), to: file) }

    private func comparison() -> String {
        let isScored = results.contains { !$0.scores.isEmpty }
        let others = PlanSource.allCases.filter { $0 != .own }
        var html = """
            <h2>Do plans depend on the input, and does it matter?</h2>
            <p>Each input is answered under the plan that the scheduler made for it (own), under the plan it made for another input (swapped), under a
            random plan of the same size, and under one plan for all inputs: the switches that were on most often (fixed). The Hamming distance of two plans
            is the number of switches that differ; its mean is over all pairs of inputs.\(isScored ? " Gains of own plans are in percentage points, with a 95% interval. If own plans score no better than the others, the plans differ but the differences do not help." : "")</p>
            <p class="hint">The table is wider than this screen: swipe it sideways.</p>
            <div class="scroll"><table><thead><tr><th>budget</th><th>optional units</th><th>distinct plans</th><th>mean Hamming distance</th>

            """
        for source in PlanSource.allCases where isScored || source != .own { html += "<th>\(source.rawValue)</th>" }
        html += "</tr></thead><tbody>\n"
        for result in results {
            html += "<tr><td>\(trimmed(result.budget))</td><td>\(result.units.map(String.init) ?? "–")</td><td>\(result.distinctPlans) of \(result.plans.count)</td>"
            html += "<td class=\"line\">\(result.meanHamming.map { String(format: "%.2f", $0) } ?? "–") of \(result.switches.count)</td>"
            if isScored { html += "<td>\(result.accuracy(.own).map { String(format: "%.3f", $0) } ?? "–")</td>" }
            for source in others {
                var lines: [String] = []
                if result.changedPlans[source] == 0 {
                    lines.append("the same plans")
                } else {
                    if let gain = result.gain(over: source) {
                        lines.append(String(format: "own %+.1f (%+.1f to %+.1f)", 100 * gain.mean, 100 * gain.low, 100 * gain.high))
                    }
                    if let plans = result.changedPlans[source] { lines.append("other plans \(SVG.percent(plans))") }
                    if let answers = result.changedAnswers(source) { lines.append("other answers \(SVG.percent(answers))") }
                }
                let score = isScored ? result.accuracy(source).map { String(format: "%.3f", $0) } ?? "–" : lines.isEmpty ? "–" : ""
                html += "<td>\(score)\(lines.map { " <span class=\"small\">\($0)</span>" }.joined())</td>"
            }
            html += "</tr>\n"
        }
        html += "</tbody></table></div>\n"
        if let chart = GainChart.draw(results) {
            html += "<figure><div class=\"scroll\">\(chart)</div><figcaption>Right of zero, own plans are better. An interval that contains zero does not distinguish them (paired bootstrap, \(PairedDifference.draws) draws).</figcaption></figure>\n"
        }
        return html
    }

    private func maps() -> String {
        let known = results.compactMap { result in result.frequencies.map { (label: trimmed(result.budget), frequencies: $0, result: result) } }
        guard let first = known.first else { return "" }
        let areLayers = first.result.plans.first.map(first.result.switches.areLayers) ?? false
        var html = "<h2>How often each part runs</h2>\n<p>Averaged over all inputs. The pointer over a cell shows its exact share.</p>\n" + SwitchMap.legend(graded: true)
        if areLayers {
            let drawing = SwitchMap.layers(known.map { ($0.label, $0.frequencies) }, prefix: prefixLayers, title: "How often each layer runs at each budget")
            html += "<figure><div class=\"scroll\">\(drawing)</div></figure>\n"
        } else {
            html += "<div class=\"row\">\n"
            for item in known {
                let drawing = SwitchMap.heads(item.frequencies, prefix: prefixLayers, title: "How often each head and group runs at budget \(item.label)")
                html += "<figure><figcaption>Budget \(item.label)</figcaption><div class=\"scroll\">\(drawing)</div></figure>\n"
            }
            html += "</div>\n"
        }
        html += "<details><summary>The same in numbers, by layer</summary><div class=\"scroll\"><table><thead><tr><th>layer</th>"
        for item in known { html += "<th>budget \(item.label)</th>" }
        html += "</tr></thead><tbody>\n"
        for layer in 0 ..< first.frequencies.layers {
            html += "<tr><td>\(layer)</td>"
            for item in known {
                let (heads, groups) = (item.frequencies.row(layer: layer, part: 0), item.frequencies.row(layer: layer, part: 1))
                let text =
                    areLayers
                    ? SVG.percent(item.frequencies.share(layer: layer))
                    : String(format: "%.2f heads, %.2f groups", heads.reduce(0, +), groups.reduce(0, +))
                html += "<td>\(text)</td>"
            }
            html += "</tr>\n"
        }
        return html + "</tbody></table></div></details>\n"
    }

    func trimmed(_ budget: Double) -> String { String(format: "%g", budget) }

    private func counted(_ count: Int, _ word: String, _ plural: String? = nil) -> String {
        "\(count) \(count == 1 ? word : plural ?? word + "s")"
    }
}
