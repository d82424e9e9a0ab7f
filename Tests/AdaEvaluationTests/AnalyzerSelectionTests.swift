import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// What dropping image tokens inside the decoder saves, by calculation.
@Suite struct AnalyzerSelectionTests {
    private func analysis(
        _ selection: [String] = [], prompt: Int = 600, images: Int? = nil, budget: Double = 1, formula: CostFormula, change: (inout CostSettings) -> Void = { _ in }
    ) throws -> CostAnalysis {
        let model = try AnalyzedModel.shape("llava-1.5-7b").selecting(TokenSelection(parsing: selection))
        var settings = CostSettings(promptTokens: prompt, generatedTokens: 20)
        settings.imageTokens = images
        change(&settings)
        return try CostAnalysis(model: model, hardware: .named("nvidia_V100"), settings: settings, budget: budget, formula: formula)
    }

    // The published figure: half of an image's 576 tokens dropped before the fourth layer leaves 57 % of the prompt's operations.
    @Test("LLaVA-1.5-7B at K = 3, R = 0.5 takes 57 % of the operations", arguments: CostFormula.allCases)
    func publishedShare(formula: CostFormula) throws {
        let whole = try analysis(formula: formula), dropping = try analysis(["fastv:k=3,r=0.5"], formula: formula)
        let share = dropping.request.prefillFlops / whole.request.prefillFlops
        #expect(abs(share - 0.57) <= 0.02, "\(share)")
        #expect(dropping.decodeTotals.operations < whole.decodeTotals.operations)
        #expect(dropping.prefill.memory.keyValueCache < whole.prefill.memory.keyValueCache * 0.6)
        // An early drop of everything leaves little, and none at all leaves all but the choice.
        #expect(try analysis(["fastv:k=1,r=1"], formula: formula).request.prefillFlops < whole.request.prefillFlops * 0.08)
        let none = try analysis(["fastv:k=3,r=0"], formula: formula).request.prefillFlops
        #expect(none >= whole.request.prefillFlops && none < whole.request.prefillFlops * 1.00001)
    }

    // A mismatch means that a layer is counted with tokens that it does not have, or without some that it has.
    @Test("layers before the drop cost what a whole prompt costs, the others what a shorter one costs", arguments: CostFormula.allCases)
    func layersAreThoseOfOtherPrompts(formula: CostFormula) throws {
        for budget in [1, 0.75] {
            let whole = try analysis(budget: budget, formula: formula), short = try analysis(prompt: 600 - 288, budget: budget, formula: formula)
            let dropping = try analysis(["fastv:k=3,r=0.5"], budget: budget, formula: formula)
            for (stage, expectedStages) in [
                (dropping.prefill, (whole.prefill, short.prefill)), (dropping.decode, (whole.decode, short.decode)),
            ] {
                for layer in [0, 2, 3, 15] {
                    func part(_ stage: StageCost) -> [RooflineOperation]? { stage.parts.first { $0.layers.contains(layer) }?.operations }
                    let expected = try #require(part(layer < 3 ? expectedStages.0 : expectedStages.1)), found = try #require(part(stage))
                    #expect(found.map(\.name) == expected.map(\.name))
                    #expect(found.map(\.operations) == expected.map(\.operations) && found.map(\.traffic) == expected.map(\.traffic), "layer \(layer)")
                }
            }
            let cache = (3 * whole.prefill.memory.keyValueCache + 29 * short.prefill.memory.keyValueCache) / 32
            if budget == 1 { #expect(abs(dropping.prefill.memory.keyValueCache / cache - 1) < 1e-12) }
        }
    }

    // A failure means that the number of image tokens is guessed where nothing says it.
    @Test("PruMerge leaves a number of tokens that has to be given") func imageTokens() throws {
        let both = ["prumerge+", "fastv:k=3,r=0.5"]
        let error = #expect(throws: EvaluationError.self) { try analysis(both, formula: .exact) }
        #expect(error?.description.contains("--image-tokens") == true)
        let few = try analysis(both, prompt: 168, images: 144, formula: .exact)
        #expect(few.settings.drop(few.model.configuration)?.tokens == 72)
        #expect(throws: EvaluationError.self) { try analysis(prompt: 100, images: 101, formula: .exact) }
        // Without an image nothing is dropped.
        let text = try analysis(["fastv:k=3,r=0.5"], formula: .reference) { $0.images = 0 }
        #expect(abs(try text.request.flops / analysis(formula: .reference).request.flops - 1) < 1e-12)
    }

    @Test("reports name the selection") func reports() throws {
        let json = CostReport(try analysis(["fastv:k=3,r=0.5"], formula: .exact)).json.details
        #expect(json.tokenSelection == "none fastv:k=3,r=0.5")
        #expect(json.imageTokens == 576 && json.imageTokensDropped == 288)
    }
}
