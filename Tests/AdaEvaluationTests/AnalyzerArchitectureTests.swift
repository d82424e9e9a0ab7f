import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// Decoders that are not LLaMA's, and switches that are not single heads.
@Suite struct AnalyzerArchitectureTests {
    private let hardware = Hardware(name: "test", bandwidth: 1e9, fp16: 1e12, int8: 2e12, fp32: 5e11, onChipBuffer: 1_048_576)

    /// 2 layers, hidden 8, 2 heads of 4, 10 neurons, vocabulary 16.
    private func decoder(_ architecture: DecoderArchitecture, keyValueHeads: Int = 2) -> DecoderConfiguration {
        var decoder = DecoderConfiguration(
            vocabularySize: 16, hiddenSize: 8, intermediateSize: 10, numHiddenLayers: 2, numAttentionHeads: 2, numKeyValueHeads: keyValueHeads)
        decoder.architecture = architecture
        return decoder
    }

    private func formula(_ configuration: ModelConfiguration, prompt: Int, plan: CostPlan? = nil) -> ExactFormula {
        ExactFormula(configuration, hardware, CostSettings(promptTokens: prompt), plan ?? CostPlan(whole: configuration))
    }

    private func operations(_ stage: StageCost, _ part: String, layer: Int? = nil) -> [String: RooflineOperation] {
        let found = stage.parts.first { $0.name == part && (layer.map($0.layers.contains) ?? true) }
        return Dictionary((found?.operations ?? []).map { ($0.name, $0) }) { first, _ in first }
    }

    // A mismatch means that a plain MLP is charged for a gate, a shared norm twice, or biases and unturned values not as they are computed.
    @Test("parallel block with plain MLP") func parallelBlockWithPlainMLP() throws {
        var decoder = decoder(.phi2)
        decoder.rotaryDim = 2
        let formula = formula(ModelConfiguration(language: decoder), prompt: 3)
        let found = operations(formula.prefill(), "layer").mapValues(\.operations)
        let expected: [String: Double] = [
            "attn_norm": 3 * 8 * 7, "q_proj": 2 * 8 * 8 * 3 + 8 * 3, "k_proj": 2 * 8 * 8 * 3 + 8 * 3, "v_proj": 2 * 8 * 8 * 3 + 8 * 3,
            "rope": 3 * (4 + 4) * 3, "qk_matmul": 2 * 6 * 4 * 2, "softmax": 5 * 6 * 2, "sv_matmul": 2 * 6 * 4 * 2, "out_proj": 2 * 8 * 8 * 3 + 8 * 3,
            "attn_add": 3 * 8, "up_proj": 2 * 8 * 10 * 3 + 10 * 3, "mlp_act": 3 * 10 * 4, "down_proj": 2 * 10 * 8 * 3 + 8 * 3, "mlp_add": 3 * 8,
        ]
        #expect(differences(found, expected) == [])
        #expect(differences(operations(formula.prefill(), "lm_head").mapValues(\.operations), ["final_norm": 8 * 7, "lm_head": 2 * 8 * 16 + 16]) == [])
        // Per layer: four attention matrices, two of the MLP, their biases, one norm of two vectors; beside them the last norm, two tables, the head's bias.
        let layer = 4 * (64 + 8) + (80 + 10) + (80 + 8) + 16
        #expect(formula.prefill().memory.weights == Double(2 * (2 * layer + 16 + 2 * 128 + 16)))
    }

    // A mismatch means that a block whose attention is off loses the norm that its MLP reads as well.
    @Test("shared norm runs for the MLP alone") func sharedNormRunsForTheMLPAlone() throws {
        let configuration = ModelConfiguration(
            language: decoder(.phi2), adaptive: AdaptiveConfiguration(schedulerType: .heads, schedulerRank: 1, numPrefixLayers: 1))
        let plan = CostPlan(counts: [(2, 2), (0, 1)], of: configuration)
        let found = operations(formula(configuration, prompt: 2, plan: plan).prefill(), "layer", layer: 1)
        #expect(Set(found.keys) == ["attn_norm", "up_proj", "mlp_act", "down_proj", "mlp_add"])
    }

    // A mismatch means that Gemma's norms are not counted, or that layers with and without a window are charged for the same keys.
    @Test("windows in some layers and sandwich norms") func windowsInSomeLayersAndSandwichNorms() throws {
        var decoder = decoder(.gemma3, keyValueHeads: 1)
        (decoder.layerKinds, decoder.slidingWindow, decoder.tieWordEmbeddings) = ([.slidingAttention, .attention], 2, true)
        let formula = formula(ModelConfiguration(language: decoder), prompt: 3)
        func found(_ stage: StageCost, _ layer: Int) -> [String: Double] { operations(stage, "layer", layer: layer).mapValues(\.operations) }
        for (layer, pairs) in [(0, 5.0), (1, 6.0)] {
            let expected: [String: Double] = [
                "attn_norm": 3 * 8 * 4, "q_proj": 2 * 8 * 8 * 3, "k_proj": 2 * 8 * 4 * 3, "v_proj": 2 * 8 * 4 * 3, "rope": 3 * (8 + 4) * 3,
                "head_norms": 3 * (8 + 4) * 4, "qk_matmul": 2 * pairs * 4 * 2, "softmax": 5 * pairs * 2, "sv_matmul": 2 * pairs * 4 * 2,
                "out_proj": 2 * 8 * 8 * 3, "attn_add": 3 * 8, "attn_output_norm": 3 * 8 * 4, "mlp_norm": 3 * 8 * 4, "gate_proj": 2 * 8 * 10 * 3,
                "up_proj": 2 * 8 * 10 * 3, "mlp_act": 3 * 10 * 5, "down_proj": 2 * 10 * 8 * 3, "mlp_add": 3 * 8, "mlp_output_norm": 3 * 8 * 4,
            ]
            #expect(differences(found(formula.prefill(), layer), expected) == [], "layer \(layer)")
        }
        #expect(found(formula.decode(step: 2), 0)["softmax"] == 5 * 2 * 2 && found(formula.decode(step: 2), 1)["softmax"] == 5 * 5 * 2)
        // Keys and values of 2 and of 5 positions, of one head.
        #expect(formula.decode(step: 2).memory.keyValueCache == Double(2 * 4 * (2 + 5) * 2))
        let layer = 8 * (8 + 8 + 4 + 4) + 3 * 80 + 4 * 8 + 2 * 4
        #expect(formula.prefill().memory.weights == Double(2 * (2 * layer + 8 + 128)))
    }

    // A mismatch means that a plan's convolutions are charged as attention, or for channels that it leaves out.
    @Test("convolutions replace attention") func convolutionsInAttentionsPlace() throws {
        var decoder = decoder(.lfm2, keyValueHeads: 1)
        (decoder.layerKinds, decoder.convolutionTaps, decoder.tieWordEmbeddings) = ([.attention, .convolution], 3, true)
        let configuration = ModelConfiguration(
            language: decoder, adaptive: AdaptiveConfiguration(schedulerType: .heads, schedulerRank: 1, numPrefixLayers: 1))
        func layer(_ plan: CostPlan?) -> [String: Double] { operations(formula(configuration, prompt: 2, plan: plan).prefill(), "layer", layer: 1).mapValues(\.operations) }
        // Two tokens and the latency token.
        let expected: [String: Double] = [
            "attn_norm": 3 * 8 * 4, "conv_in": 2 * 8 * 24 * 3, "conv_gates": 3 * 8 * 2, "conv": 3 * 8 * 6, "conv_out": 2 * 8 * 8 * 3, "conv_add": 3 * 8,
            "mlp_norm": 3 * 8 * 4, "gate_proj": 2 * 8 * 10 * 3, "up_proj": 2 * 8 * 10 * 3, "mlp_act": 3 * 10 * 5, "down_proj": 2 * 10 * 8 * 3, "mlp_add": 3 * 8,
        ]
        #expect(differences(layer(nil), expected) == [])
        let half = layer(CostPlan(counts: [(2, 2), (1, 0)], of: configuration))
        #expect(half["conv_in"] == Double(2 * 8 * 12 * 3) && half["conv"] == Double(3 * 4 * 6) && half["conv_out"] == Double(2 * 4 * 8 * 3) && half.count == 6)
        #expect(layer(CostPlan(counts: [(2, 2), (0, 1)], of: configuration))["conv_in"] == nil)
        // No keys and values in the layer with the convolution.
        #expect(formula(configuration, prompt: 2).decode(step: 1).memory.keyValueCache == Double(2 * 4 * 4 * 2))
    }

    // A mismatch means that Qwen2's attention is charged for a bias that it does not have, or not for those that it has.
    @Test("biases of queries keys and values alone") func biasesOfQueriesKeysAndValuesAlone() throws {
        var decoder = decoder(.qwen2)
        decoder.attentionBias = true
        let found = operations(formula(ModelConfiguration(language: decoder), prompt: 1).prefill(), "layer").mapValues(\.operations)
        #expect(found["q_proj"] == Double(2 * 8 * 8 + 8) && found["out_proj"] == Double(2 * 8 * 8) && found["up_proj"] == Double(2 * 8 * 10))
    }

    // A mismatch means that keys which the window left behind are still counted.
    @Test("keys are counted up to the window") func keysAreCountedUpToTheWindow() throws {
        var decoder = decoder(.mistral)
        decoder.slidingWindow = 4
        let formula = formula(ModelConfiguration(language: decoder), prompt: 6)
        // Queries see 1, 2, 3, 4, 4 and 4 keys.
        #expect(operations(formula.prefill(), "layer")["qk_matmul"]?.operations == Double(2 * 18 * 4 * 2))
        let step = try #require(operations(formula.decode(step: 2), "layer")["qk_matmul"])
        #expect(step.operations == Double(2 * 4 * 4 * 2) && step.traffic.loadKeyValue == Double(4 * 8 * 2))
        // Keys and values of 2 layers, 2 heads of 4 values, 2 bytes, 4 positions.
        #expect(formula.decode(step: 2).memory.keyValueCache == Double(2 * 2 * 2 * 4 * 2 * 4))
    }

    // A mismatch means that a switch of a whole key-value group is taken for one head, so a plan's cost is a fraction of what it is.
    @Test("key value groups are switches") func keyValueGroupsAreSwitches() throws {
        let language = DecoderConfiguration(
            vocabularySize: 16, hiddenSize: 8, intermediateSize: 10, numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2)
        let model = AnalyzedModel(
            name: "grouped",
            configuration: ModelConfiguration(
                language: language,
                adaptive: AdaptiveConfiguration(schedulerType: .heads, schedulerRank: 1, numPrefixLayers: 1, switchesKeyValueGroups: true)))
        #expect(model.units == BudgetUnits(total: 4, prefix: 2))
        let full = ExecutionPlan.full(layers: 1, heads: 2).rows[0]
        let plan = try CostPlan(ExecutionPlan(headCount: 2, rows: [full, .init(heads: [1], groups: [0])]), model: model)
        let share = plan.shares[1]
        #expect(share.switches == 1 && share.heads == 2 && share.keyValueHeads == 1 && share.groups == 1 && share.neurons == 5)
        #expect(try CostPlan(budget: 0.75, model: model).shares == plan.shares)
        #expect(plan.shares[0].heads == 4)
        // One score for each of 2 groups of heads and 2 of neurons.
        let scheduler = operations(formula(model.configuration, prompt: 1).prefill(), "scheduler")
        #expect(scheduler["scheduler_head"]?.operations == Double(2 * 8 * 4))
        #expect(throws: EvaluationError.self) { try model.scheduled(type: nil, rank: 3, prefixLayers: nil) }
        #expect(throws: EvaluationError.self) { try CostPlan(headsPerLayer: [2, 3], model: model) }
    }
}
