import AdaLLaVA
import Foundation

/// The page's section about one input.
struct PlanReportExample {
    let report: PlanReport
    let example: PlanReport.Example

    /// - Throws: `ImageError`
    func html() throws -> String {
        let overlay = try example.image.map { try AttentionOverlay($0, identifier: "picture\(example.index)", crops: report.cropsImages) }
        var html = "<section><h3 class=\"question\">\(SVG.escape(example.sample.question))</h3>\n<div class=\"row\">\n"
        if let overlay { html += overlay.picture(title: "The picture of this input, as the model sees it") }
        html += answers() + "</div>\n" + plans()
        if let overlay { html += attention(overlay) }
        return html + "</section>\n"
    }

    private func answers() -> String {
        let sources = PlanSource.allCases.filter { source in report.results.contains { $0.answers[source] != nil } }
        var html = "<div class=\"scroll answers\"><table><thead><tr><th>budget</th>"
        for source in sources { html += "<th>\(source.rawValue) plan</th>" }
        html += "</tr></thead><tbody>\n"
        for result in report.results {
            html += "<tr><td>\(report.trimmed(result.budget))</td>"
            for source in sources {
                let answer = value(result.answers[source]) ?? ""
                let score = value(result.scores[source]).map { $0 >= 1 ? " ✓" : $0 <= 0 ? " ✗" : String(format: " (%.2f)", $0) } ?? ""
                html += "<td>\(SVG.escape(answer))\(score)</td>"
            }
            html += "</tr>\n"
        }
        html += "</tbody></table>"
        if let reference = example.sample.references.first { html += "<p>Right: \(SVG.escape(reference))</p>" }
        return html + "</div>\n"
    }

    private func value<Value>(_ list: [Value]?) -> Value? {
        list.flatMap { $0.indices.contains(example.index) ? $0[example.index] : nil }
    }

    private func plans() -> String {
        let known = report.results.compactMap { result -> (label: String, frequencies: SwitchFrequencies, areLayers: Bool)? in
            guard let plan = value(result.plans), let frequencies = SwitchFrequencies([plan]) else { return nil }
            return (report.trimmed(result.budget), frequencies, result.switches.areLayers(of: plan))
        }
        guard let first = known.first else { return "" }
        var html = "<p>Parts that ran:</p>\n" + SwitchMap.legend(graded: false)
        if first.areLayers {
            let drawing = SwitchMap.layers(
                known.map { ($0.label, $0.frequencies) }, prefix: report.prefixLayers, title: "Layers that ran for this input at each budget", cell: 28,
                numbers: false)
            return html + "<div class=\"scroll\">\(drawing)</div>\n"
        }
        html += "<div class=\"row\">\n"
        for item in known {
            let drawing = SwitchMap.heads(
                item.frequencies, prefix: report.prefixLayers, title: "Heads and groups that ran for this input at budget \(item.label)", cell: 11, tips: false)
            html += "<figure><figcaption>Budget \(item.label)</figcaption><div class=\"scroll\">\(drawing)</div></figure>\n"
        }
        return html + "</div>\n"
    }

    private func attention(_ overlay: AttentionOverlay) -> String {
        guard example.attention.contains(where: { !$0.attention.layers.isEmpty }) else { return "" }
        var html = "<p>The latency token's attention in the last prefix layer, whose output the scheduler reads; averaged over heads. The "
        html += "brightest patch has the largest weight, so brightness compares patches of one picture, not pictures.</p>\n<div class=\"row\">\n"
        for (budget, attention) in example.attention {
            if let layer = attention.layers.last { html += figure(overlay, attention, layer, budget) }
        }
        html += "</div>\n"
        guard example.attention.contains(where: { $0.attention.layers.count > 1 }) else { return html }
        html += "<details><summary>All prefix layers</summary>\n"
        for (budget, attention) in example.attention {
            html += "<div class=\"row\">\n"
            for layer in attention.layers { html += figure(overlay, attention, layer, budget) }
            html += "</div>\n"
        }
        return html + "</details>\n"
    }

    private func figure(_ overlay: AttentionOverlay, _ attention: LatencyAttention, _ layer: LatencyAttention.Layer, _ budget: Double) -> String {
        let place = "budget \(report.trimmed(budget)), layer \(layer.index)"
        var html = "<figure>"
        if let (grid, weights) = attention.patchWeights(layer) {
            html += overlay.drawing(weights, grid: grid, title: "Attention of the latency token over the picture, \(place)")
        } else {
            // Selected or merged tokens have no place in the picture.
            html += "<p>no grid of patches</p>"
        }
        let text = max(0, 1 - layer.imageShare - layer.ownShare)
        return html + "<figcaption>\(place)<span class=\"small\">image \(SVG.percent(layer.imageShare)), text \(SVG.percent(text)),<br>itself \(SVG.percent(layer.ownShare))</span></figcaption></figure>\n"
    }
}
