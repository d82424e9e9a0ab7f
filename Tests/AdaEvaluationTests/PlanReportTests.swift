import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

#if canImport(FoundationXML)
    import FoundationXML
#endif

/// `adallava explain`'s page.
@Suite struct PlanReportTests {
    private func row(_ heads: Int, _ groups: Int) -> ExecutionPlan.Row { .init(heads: Array(0 ..< heads), groups: Array(0 ..< groups)) }

    /// Two samples at two budgets; whole layers, or heads and groups.
    private func results(layers areLayers: Bool, heads: Int = 4, scored: Bool = true) -> [PlanStudy.Result] {
        let on = row(heads, heads)
        let plans = areLayers ? [[on, on, row(0, 0)], [on, row(0, 0), on]] : [[on, row(1, 2), row(2, 0)], [on, row(2, 1), row(0, 1)]]
        let switches = PlanSwitches(prefixLayers: 1, count: areLayers ? 2 : 2 * 2 * heads)
        return [1, 0.6].map { budget in
            let used = plans.map { ExecutionPlan(headCount: heads, rows: budget < 1 ? $0 : [on, on, on]) }
            var result = PlanStudy.Result(
                budget: budget, switches: switches, plans: used, units: 1, fixedPlan: used[0], answers: [.own: ["<yes>", "no"]],
                scores: scored ? [.own: [1, 0]] : [:])
            for source in PlanSource.allCases.dropFirst() {
                result.add(source, plans: used.reversed(), answers: ["no", "no"], scores: scored ? [0, 0] : nil, seed: 1)
            }
            return result
        }
    }

    private func report(_ results: [PlanStudy.Result], grid: Int?) throws -> PlanReport {
        let image = try #require(RGBImage(width: 8, height: 4, pixels: [UInt8](repeating: 90, count: 96)))
        let sample = BenchmarkSample(id: "x", image: nil, question: "Is 1 < 2 & \"3\"?\n</section><script>alert('1')</script>\u{0}", references: ["<yes>"])
        let layers = (0 ..< 2).map { LatencyAttention.Layer(index: $0, imageShare: 0.4, ownShare: 0.1, weights: [0.05, 0.05, 0.2, 0.1]) }
        let attention = [1, 0.6].map { (budget: $0, attention: LatencyAttention(layers: layers, grid: grid)) }
        return PlanReport(
            model: "m<b>", data: "d & e", prefixLayers: 1, cropsImages: false, results: results,
            examples: [PlanReport.Example(sample: sample, image: image, attention: attention, index: 0)])
    }

    /// Each drawing of a page by itself.
    private func drawings(_ html: String) -> [String] {
        html.components(separatedBy: "<svg").dropFirst().compactMap { $0.components(separatedBy: "</svg>").first.map { "<svg" + $0 + "</svg>" } }
    }

    @Test("the page holds everything itself", arguments: [true, false], [2, nil]) func thePageHoldsEverythingItself(areLayers: Bool, grid: Int?) throws {
        // A mismatch means that the page needs other files, or that the text of a question becomes part of the page.
        let html = try report(results(layers: areLayers), grid: grid).html()
        #expect(html.contains("Is 1 &lt; 2 &amp; &quot;3&quot;?") && html.contains("m&lt;b&gt;") && html.contains("&lt;yes&gt;"))
        #expect(!html.contains("http") && !html.contains("<script") && !html.contains("<link") && !html.contains("\u{0}") && !html.contains("url("))
        // The picture's data once, however often it is drawn.
        #expect(html.components(separatedBy: "data:image/jpeg;base64,").count == 2)
        let overlays = html.components(separatedBy: "class=\"overlay\"").count - 1
        // For each budget the last prefix layer, and then all of them again.
        #expect(overlays == (grid == nil ? 0 : 2 * 3))
        #expect(html.components(separatedBy: "<use href=\"#picture0\"/>").count - 1 == overlays)
        for tag in ["section", "figure", "table", "details", "div", "svg"] {
            #expect(html.components(separatedBy: "<\(tag)").count == html.components(separatedBy: "</\(tag)>").count, "\(tag)")
        }
    }

    @Test("every drawing is named and well formed", arguments: [true, false]) func everyDrawingIsNamedAndWellFormed(areLayers: Bool) throws {
        // A mismatch means that a drawing does not show, that screen readers say nothing of it, or that part of it lies outside its frame.
        for heads in [1, 4, 40] {
            let html = try report(results(layers: areLayers, heads: heads), grid: 2).html()
            let all = drawings(html)
            #expect(all.count > 6)
            for drawing in all {
                let parser = XMLParser(data: Data(drawing.utf8))
                #expect(parser.parse(), "\(drawing.prefix(300))")
                #expect(drawing.contains("role=\"img\" aria-label=\""))
                let size = try #require(drawing.firstMatch(of: /viewBox="0 0 ([0-9.]+) ([0-9.]+)"/))
                let (width, height) = (try #require(Double(size.1)), try #require(Double(size.2)))
                for shape in drawing.matches(of: /<rect [^>]*x="([-0-9.]+)" y="([-0-9.]+)" width="([0-9.]+)" height="([0-9.]+)"/) {
                    let (x, y) = (try #require(Double(shape.1)), try #require(Double(shape.2)))
                    #expect(x >= 0 && y >= 0 && x + (Double(shape.3) ?? .infinity) <= width + 0.01 && y + (Double(shape.4) ?? .infinity) <= height + 0.01)
                }
                for text in drawing.matches(of: /<text [^>]*x="([-0-9.]+)" y="([-0-9.]+)"/) {
                    #expect((0 ... width).contains(Double(text.1) ?? -1) && (0 ... height).contains(Double(text.2) ?? -1))
                }
            }
        }
    }

    @Test("brightness follows the weights") func brightnessFollowsTheWeights() throws {
        // A mismatch means that overlays light other patches than those that the token attends to.
        let image = try #require(RGBImage(width: 2, height: 2, pixels: [UInt8](repeating: 0, count: 12)))
        let drawing = try AttentionOverlay(image, identifier: "p", crops: false).drawing([0, 0.1, 0.2, 0], grid: 2, title: "t")
        // Upper right at half the brightness of lower left; nothing elsewhere.
        #expect(drawing.contains("fill-opacity=\"0.4\" d=\"M84 0h84v84h-84z\"") && drawing.contains("fill-opacity=\"0.8\" d=\"M0 84h84v84h-84z\""))
        #expect(drawing.components(separatedBy: "<path").count == 3 && drawing.contains("row 2, column 1 of 2"))
        #expect(try !AttentionOverlay(image, identifier: "p", crops: true).drawing([0, 0, 0, 0], grid: 2, title: "t").contains("<path"))
    }

    @Test("class tokens are no patches") func classTokensAreNoPatches() {
        // A mismatch means that overlays are shifted by a patch for models that keep the class token.
        let layer = LatencyAttention.Layer(index: 0, imageShare: 1, ownShare: 0, weights: [0.9, 0.01, 0.02, 0.03, 0.04])
        #expect(LatencyAttention(layers: [layer], grid: 2, leadingRows: 1).patchWeights(layer)?.weights == [0.01, 0.02, 0.03, 0.04])
        #expect(LatencyAttention(layers: [layer], grid: 3).patchWeights(layer) == nil && LatencyAttention(layers: [layer], grid: nil).patchWeights(layer) == nil)
    }

    @Test("axes have round numbers") func axesHaveRoundNumbers() {
        // A mismatch means that an axis is crowded, empty or never ends.
        #expect([0.03, 0.1, 1.1, 2.4, 5, 7, 33].map(GainChart.niceStep) == [0.05, 0.1, 2, 5, 5, 10, 50])
        #expect(GainChart.niceStep(0) == 1 && GainChart.niceStep(.nan) == 1)
        #expect(SwitchMap.ticks(6, spacing: 18) == [0, 2, 4] && SwitchMap.ticks(32, spacing: 9).count < 15 && SwitchMap.ticks(0, spacing: 9).isEmpty)
    }

    @Test("the table says what was compared") func theTableSaysWhatWasCompared() throws {
        // A mismatch means that the terminal shows no numbers, or scores where there are none.
        let scored = try report(results(layers: true), grid: nil).table
        #expect(scored.contains("own") && scored.contains("0.500") && scored.contains("budget 0.6: own plans gain"))
        let plain = try report(results(layers: true, scored: false), grid: nil)
        #expect(plain.table.contains("≠ swapped") && !plain.table.contains("own plans gain"))
        let budgets = plain.json.budgets
        #expect(budgets[1].accuracy == nil && budgets[1].changedAnswers["swapped"] == 0.5)
    }
}
