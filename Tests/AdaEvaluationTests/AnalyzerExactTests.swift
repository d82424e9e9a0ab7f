import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

@Suite struct AnalyzerExactTests {
    private let hardware = Hardware(name: "test", bandwidth: 1e9, fp16: 1e12, int8: 2e12, fp32: 5e11, onChipBuffer: 1_048_576)

    private func operations(_ stage: StageCost, _ part: String, layer: Int? = nil) -> [String: RooflineOperation] {
        let found = stage.parts.first { $0.name == part && (layer.map($0.layers.contains) ?? true) }
        return Dictionary((found?.operations ?? []).map { ($0.name, $0) }) { first, _ in first }
    }

    // A mismatch means that the exact formula counts other work than the decoder does for a layer of which everything runs.
    @Test("whole layer counted by hand") func wholeLayerCountedByHand() throws {
        let model = tinyModel(adaptive: false)
        let settings = CostSettings(promptTokens: 3, generatedTokens: 1)
        let analysis = try CostAnalysis(model: model, hardware: hardware, settings: settings, budget: 1, formula: .exact)
        let found = operations(analysis.prefill, "layer", layer: 0).mapValues(\.operations)
        // 3 positions, hidden 8, queries 4 · 2, keys 2 · 2; pairs 1 + 2 + 3 = 6.
        let expected: [String: Double] = [
            "attn_norm": 3 * 8 * 4, "q_proj": 2 * 8 * 8 * 3, "k_proj": 2 * 8 * 4 * 3, "v_proj": 2 * 8 * 4 * 3, "rope": 3 * (8 + 4) * 3,
            "qk_matmul": 2 * 6 * 2 * 4, "softmax": 5 * 6 * 4, "sv_matmul": 2 * 6 * 2 * 4, "out_proj": 2 * 8 * 8 * 3, "attn_add": 3 * 8,
            "mlp_norm": 3 * 8 * 4, "gate_proj": 2 * 8 * 10 * 3, "up_proj": 2 * 8 * 10 * 3, "mlp_act": 3 * 10 * 5, "down_proj": 2 * 8 * 10 * 3,
            "mlp_add": 3 * 8,
        ]
        #expect(differences(found, expected) == [])
        let head = operations(analysis.prefill, "lm_head").mapValues(\.operations)
        #expect(differences(head, ["final_norm": 32, "lm_head": 256]) == [])
        let whole: Double = 2 * expected.values.reduce(0, +) + 32 + 256
        #expect(analysis.prefill.totals.operations == whole)
    }

    // A mismatch means that bytes are not those which the kernels read and write, so that decode times are wrong.
    @Test("bytes of a decode step counted by hand") func bytesOfADecodeStepCountedByHand() throws {
        let model = tinyModel(adaptive: false)
        let settings = CostSettings(promptTokens: 3, generatedTokens: 3, weightBits: 8, activationBits: 16, keyValueBits: 32)
        let formula = ExactFormula(model, hardware, settings, CostPlan(whole: model))
        typealias Traffic = RooflineOperation.Traffic
        // The second step: 3 prompt positions, the first two generated tokens.
        let found = operations(formula.decode(step: 2), "layer", layer: 1)
        let key = try #require(found["k_proj"]).traffic
        #expect(key == Traffic(loadWeight: 32, loadActivation: 16, storeKeyValue: 16))
        let product = try #require(found["qk_matmul"])
        // 4 queries of 2 values, 5 keys of 2 key-value heads, 5 scores for each of 4 heads.
        #expect(product.traffic == Traffic(loadActivation: 16, storeActivation: 40, loadKeyValue: 80))
        #expect(product.operations == 80)
        #expect(try #require(found["down_proj"]).traffic == Traffic(loadWeight: 80, loadActivation: 20, storeActivation: 16))
        #expect(try #require(found["gate_proj"]).peak == hardware.fp16)
    }

    // A mismatch means that a dropped head or group still costs something, or that unequal groups are taken for equal ones.
    @Test("part of a layer counted by hand") func partOfALayerCountedByHand() throws {
        let model = tinyModel()
        let full = ExecutionPlan.full(layers: 1, heads: 4).rows[0]
        // Head 3 alone reads the second key-value head; groups 0 and 3 have 3 + 2 neurons.
        let plan = try CostPlan(ExecutionPlan(headCount: 4, rows: [full, .init(heads: [3], groups: [0, 3])]), model: model)
        #expect(plan.shares[1].keyValueHeads == 1 && plan.shares[1].neurons == 5)
        let formula = ExactFormula(model, hardware, CostSettings(promptTokens: 2), plan)
        // Two prompt positions and the latency token.
        let found = operations(formula.prefill(), "layer", layer: 1)
        let expected: [String: Double] = ["q_proj": 2 * 8 * 2 * 3, "k_proj": 2 * 8 * 2 * 3, "qk_matmul": 2 * 6 * 2, "gate_proj": 2 * 8 * 5 * 3]
        #expect(differences(found.mapValues(\.operations).filter { expected[$0.key] != nil }, expected) == [])
        // The input of a projection is read whole.
        let query = try #require(found["q_proj"])
        #expect(query.traffic.loadActivation == Double(8 * 3 * 2))
        // One cache of 2 heads, one of 1 head: keys and values, 2 values of 2 bytes, 3 positions.
        #expect(formula.prefill().memory.keyValueCache == Double(3 * 2 * 2 * 2 * 3))
    }

    // A mismatch means that a layer whose heads (or groups) are all off is charged for a norm that never runs.
    @Test("parts that are off cost nothing") func whatIsOffCostsNothing() throws {
        let model = tinyModel()
        let full = ExecutionPlan.full(layers: 1, heads: 4).rows[0]
        func names(_ row: ExecutionPlan.Row) throws -> Set<String> {
            let plan = try CostPlan(ExecutionPlan(headCount: 4, rows: [full, row]), model: model)
            return Set(operations(ExactFormula(model, hardware, CostSettings(promptTokens: 2), plan).prefill(), "layer", layer: 1).keys)
        }
        #expect(try names(.init(heads: [], groups: [])).isEmpty)
        #expect(try names(.init(heads: [], groups: [1])) == ["mlp_norm", "gate_proj", "up_proj", "mlp_act", "down_proj", "mlp_add"])
        let attention = try names(.init(heads: [1], groups: []))
        #expect(attention.contains("attn_norm") && !attention.contains("mlp_norm") && !attention.contains("down_proj"))
    }

    // A mismatch means that an adaptive model's own additions are forgotten, so its time at full budget equals the plain model's.
    @Test("latency token and scheduler are counted") func latencyTokenAndSchedulerAreCounted() throws {
        let settings = CostSettings(promptTokens: 3, generatedTokens: 2)
        let plain = ExactFormula(tinyModel(adaptive: false), hardware, settings, CostPlan(whole: tinyModel(adaptive: false)))
        let adaptive = ExactFormula(tinyModel(), hardware, settings, CostPlan(whole: tinyModel()))
        #expect(plain.promptPositions == 3 && adaptive.promptPositions == 4)
        let found = operations(adaptive.prefill(), "scheduler").mapValues(\.operations)
        let expected: [String: Double] = [
            "latency_norm": 256 * 7, "latency_up": 2 * 256 * 8, "latency_act": 8 * 4, "latency_out": 2 * 8 * 8, "scheduler_head": 2 * 8 * 8,
        ]
        #expect(differences(found, expected) == [])
        #expect(operations(plain.prefill(), "scheduler").isEmpty)
        let product = operations(adaptive.decode(step: 1), "layer", layer: 0)["qk_matmul"]
        #expect(product?.operations == Double(2 * 5 * 2 * 4))
    }

    // A mismatch means that the share of the first token's time which the vision tower takes is wrong.
    @Test("vision tower is its own stage") func visionTowerIsItsOwnStage() throws {
        let model = try AnalyzedModel.shape("llava-1.5-7b")
        let settings = CostSettings(promptTokens: 600)
        let one = try CostAnalysis(model: model, hardware: hardware, settings: settings, budget: 1, formula: .exact)
        let encode = try #require(one.encode)
        // CLIP ViT-L/14 at 336 pixels, 577 positions, 23 of 24 layers (hidden state -2), then 576 patches through two projections.
        let positions = 577.0
        let weights = Double(4 * 1024 * 1024 + 2 * 1024 * 4096)
        let layer = 2 * positions * weights + 4 * positions * positions * 1024
        let (patches, projector) = (Double(2 * 576 * 3 * 14 * 14 * 1024), Double(2 * 576 * (1024 * 4096 + 4096 * 4096)))
        let linear = 23 * layer + patches + projector
        let elementwise = encode.totals.operations - linear
        #expect(elementwise > 0 && elementwise < 0.01 * linear)
        #expect(isClose(one.timeToFirstToken, encode.totals.time + one.prefill.totals.time))
        var two = settings
        two.images = 2
        let more = try CostAnalysis(model: model, hardware: hardware, settings: two, budget: 1, formula: .exact)
        #expect(try isClose(#require(more.encode).totals.operations, 2 * encode.totals.operations))
        #expect(one.request.prefillFlops == more.request.prefillFlops)
        two.images = 0
        #expect(try CostAnalysis(model: model, hardware: hardware, settings: two, budget: 1, formula: .exact).encode == nil)
    }

    // A mismatch means that weights are counted twice or not at all in the memory that a model needs.
    @Test("resident weights are the parameters") func residentWeightsAreTheParameters() throws {
        // SmolLM2-135M has 134 515 008 parameters (its model card), with the embedding table tied to the output layer.
        let model = try AnalyzedModel.shape("smollm2-135m")
        let analysis = try CostAnalysis(
            model: model, hardware: hardware, settings: CostSettings(promptTokens: 8), budget: 1, formula: .exact)
        #expect(analysis.prefill.memory.weights == Double(134_515_008 * 2))
        // 30 layers, 3 key-value heads of 64, keys and values of 2 bytes, 8 positions.
        #expect(analysis.prefill.memory.keyValueCache == Double(30 * 3 * 64 * 2 * 2 * 8))
    }

    // A mismatch means that devices which share the layers do more or less than their part of the work.
    @Test("tensor parallel shares the linear maps") func tensorParallelSharesTheLinearMaps() throws {
        let model = tinyModel(adaptive: false)
        var settings = CostSettings(promptTokens: 3)
        let one = ExactFormula(model, hardware, settings, CostPlan(whole: model)).prefill()
        settings.tensorParallel = 2
        let half = ExactFormula(model, hardware, settings, CostPlan(whole: model)).prefill()
        for name in ["q_proj", "k_proj", "out_proj", "qk_matmul", "softmax", "gate_proj", "down_proj"] {
            let (all, part) = (operations(one, "layer")[name]?.operations, operations(half, "layer")[name]?.operations)
            #expect(part == all.map { $0 / 2 }, "\(name)")
        }
        #expect(operations(half, "layer")["attn_norm"] == operations(one, "layer")["attn_norm"])
        // The reference's formula shares the linear maps alone.
        let reference = try ReferenceFormula(model, hardware, settings, CostPlan(whole: model)).prefill()
        #expect(operations(reference, "layer")["q_proj"]?.operations == Double(2 * 8 * 4 * 3))
        #expect(operations(reference, "layer")["qk_matmul"]?.operations == Double(2 * 9 * 2 * 4))
    }
}
