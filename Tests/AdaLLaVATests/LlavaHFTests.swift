import Foundation
import Testing

@testable import AdaLLaVA

/// `Tests/Fixtures/llava-hf`: plain LLaVA-1.5 in Hugging Face's layouts, and `llava-gguf`: the same weights as a GGUF pair.
@Suite struct LlavaHFTests {
    struct CaseFile: Decodable {
        struct Case: Decodable {
            let id: String
            let inputIdsOneImageToken: [Int]
            let sequenceLengthAfterMerge: Int
            let generatedIds: [Int]
        }
        let imageTokenIndex: Int
        let cases: [Case]
    }

    // A mismatch means that a checkpoint saved by one of transformers' generations, or converted to GGUF, answers differently from transformers.
    @Test("every form of a llava-hf checkpoint answers as transformers does", arguments: ["llava-hf/old-layout", "llava-hf/new-layout", "llava-gguf"], kernelSets) func reproducesEveryCase(layout: String, kernels: String) throws {
        let file: CaseFile = try Fixtures.json("llava-hf/cases.json")
        let recorded = try Recorded("llava-hf/expected.safetensors")
        let model = try TestModel(Fixtures.url(layout), kernels: kernels)
        #expect(model.loaded.checkpoint.configuration.language.vocabularySize == 328)
        for item in file.cases {
            let tokens = item.inputIdsOneImageToken.map { $0 == file.imageTokenIndex ? Engine.imageToken : $0 }
            let pixels = try recorded.find("\(item.id).pixel_values").map { [$0] } ?? []
            let trace = Trace(includesLayers: true)
            let result = try model.run(tokens, pixels: tokens.contains(Engine.imageToken) ? pixels : [], trace: trace)
            #expect(result.tokens == item.generatedIds, "\(item.id)")
            #expect(result.lengthWithLatencyToken == item.sequenceLengthAfterMerge, "\(item.id)")
            #expect(result.adaptive == nil)
            let expected = try recorded.values("\(item.id).logits")
            let last = Array(expected.suffix(328))
            #expect(largestDifference(trace.entries["prefill_last_logits"]?.values ?? [], last) <= 3e-4, "\(item.id)")
        }
    }

    // A failure means that prompts copied from transformers, with its own image token once or once for each feature, are refused.
    @Test("takes transformers' image tokens") func takesTransformersImageTokens() throws {
        let file: CaseFile = try Fixtures.json("llava-hf/cases.json")
        let model = try TestModel(Fixtures.url("llava-hf/new-layout"))
        let vision = try #require(model.loaded.checkpoint.configuration.vision)
        let mark = file.imageTokenIndex
        let many = [Int](repeating: mark, count: vision.patches)
        #expect(model.loaded.withImageMarks([1, mark, 5]) == [1, -200, 5])
        #expect(model.loaded.withImageMarks([1] + many + [5]) == [1, -200, 5])
        #expect(model.loaded.withImageMarks(many + many + [7] + many) == [-200, -200, 7, -200])
        #expect(model.loaded.withImageMarks([3, 4]) == [3, 4] && model.loaded.withImageMarks([]) == [])
    }

    // A failure means that the image part of a GGUF pair is overlooked when the model's file is named instead of their folder.
    @Test("finds the projector beside its model") func findsTheProjectorBesideItsModel() throws {
        #expect(try Checkpoint.open(at: Fixtures.url("llava-gguf/text.gguf")).vision != nil)
        #expect(try Checkpoint.open(at: Fixtures.url("llava-gguf/text.gguf")).configuration.llava != nil)
    }

    // A failure means that a model without a scheduler silently ignores a budget, or takes one that it cannot keep.
    @Test("refuses budgets below one") func refusesBudgetsBelowOne() throws {
        let model = try TestModel(Fixtures.url("llava-hf/old-layout"))
        #expect(throws: BudgetError.notAdaptive(budget: 0.5, model: "old-layout")) { try model.run([1, 5, 6], budget: 0.5) }
    }
}
