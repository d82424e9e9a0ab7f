import Foundation
import Testing

@testable import AdaLLaVA

/// `Tests/Fixtures/ada-L` and `ada-H`: the reference's numbers for whole requests.
@Suite struct AdaptiveInferenceTests {
    struct CaseFile: Decodable {
        struct Prompt: Decodable {
            let inputIds: [Int]
            let images: [String]
        }
        struct Case: Decodable {
            let id: String
            let prompt: String
            let latency: Double
            let units: Int
            let insertPosition: Int
            let lengthWithLatencyToken: Int
            let generatedIds: [Int]
            let attentionHeadsPerLayer: [Int]
            let mlpGroupsPerLayer: [Int]
            let kvCacheShapesAtEnd: [[Int]?]
        }
        let prompts: [String: Prompt]
        let cases: [Case]
        let maxNewTokens: Int
    }

    static let all: [(String, String)] = ["ada-L", "ada-H"].flatMap { folder in kernelSets.map { (folder, $0) } }

    // A mismatch means that requests answer differently from the reference implementation: another plan, other tokens, or drifting numbers.
    @Test("every recorded case has the reference's plan, tokens and numbers", arguments: all) func reproducesEveryCase(folder: String, kernels: String) throws {
        let file: CaseFile = try Fixtures.json(folder + "/cases.json")
        let recorded = try Recorded(folder + "/expected.safetensors")
        let model = try TestModel(Fixtures.url(folder), kernels: kernels)
        for item in file.cases {
            let prompt = try #require(file.prompts[item.prompt])
            let pixels = try prompt.images.map { try recorded.values("image.\($0).pixel_values") }
            let trace = Trace(includesLayers: true)
            let result = try model.run(
                prompt.inputIds, pixels: pixels, budget: item.latency, maxTokens: file.maxNewTokens, endTokens: [2], trace: trace)

            #expect(result.tokens == item.generatedIds, "\(item.id)")
            #expect(result.adaptive?.units == item.units, "\(item.id)")
            #expect(result.adaptive?.insertPosition == item.insertPosition, "\(item.id)")
            #expect(result.lengthWithLatencyToken == item.lengthWithLatencyToken, "\(item.id)")
            #expect(result.plan.headsPerLayer == item.attentionHeadsPerLayer, "\(item.id)")
            #expect(result.plan.groupsPerLayer == item.mlpGroupsPerLayer, "\(item.id)")
            #expect(result.keyValueShapes == item.kvCacheShapesAtEnd, "\(item.id)")

            func compare(_ name: String, _ expected: String, within tolerance: Float) throws {
                guard let expected = try recorded.find(expected) else { return }
                let difference = largestDifference(trace.entries[name]?.values ?? [], expected)
                #expect(difference <= tolerance, "\(item.id) \(name)")
            }
            let name = "case.\(item.id)."
            try compare("vision_features", "prompt.\(item.prompt).vision_features", within: 1e-4)
            try compare("image_features", "prompt.\(item.prompt).image_features", within: 1e-4)
            try compare("latency_embedding", name + "latency_embedding", within: 1e-5)
            try compare("scheduler_input", name + "scheduler_input", within: 3e-4)
            try compare("scheduler_logits", name + "scheduler_logits", within: 3e-4)
            try compare("plan", name + "plan", within: 0)
            try compare("prefill_last_logits", name + "prefill_last_logits", within: 3e-4)
            try compare("step_logits", name + "step_logits", within: 3e-4)
            try compare("inputs_embeds", name + "debug.inputs_embeds", within: 3e-4)
            for layer in 0 ..< result.plan.rows.count {
                try compare("layer_output.\(layer)", name + "debug.layer_output.\(layer)", within: 3e-4)
            }
        }
    }

    // A failure means that the numbers of a fixture are not there, so the comparison above would pass without comparing.
    @Test("fixtures hold what is compared", arguments: ["ada-L", "ada-H"]) func fixturesHoldWhatIsCompared(folder: String) throws {
        let file: CaseFile = try Fixtures.json(folder + "/cases.json")
        let recorded = try Recorded(folder + "/expected.safetensors")
        #expect(file.cases.count == 53)
        for item in file.cases {
            for name in ["latency_embedding", "scheduler_input", "scheduler_logits", "plan", "prefill_last_logits"] {
                #expect(recorded.file.find("case.\(item.id).\(name)") != nil)
            }
        }
    }
}
