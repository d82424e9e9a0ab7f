import AdaLLaVA

/// What the engine computes, reads and writes for a request, counted operation by operation.
///
/// - Inputs of a layer's linear maps are read whole, whatever heads are on; only kept outputs are written.
/// - Keys and values are those of the kept key-value heads; a decode step reads no others and stores no others.
/// - A query meets the keys up to its own position: `t (t + 1) / 2` pairs for `t` positions, not `t²`.
/// - A layer's attention (MLP) costs nothing when no head (group) of it is on: no norm, no addition.
/// - MLP groups have the neurons they have, one more in the first groups where the heads do not divide them.
/// - The latency token is a position of the prompt; its encoder and the scheduler are counted.
/// - The output layer runs once, for the prompt's last position, a multiply-add counting as two.
/// - The vision tower and the projector are a stage of their own.
/// - A request's memory is its peak: all weights, which stay loaded whatever the plan, and the cache at its longest.
///
/// Per value: RMS norm 4 operations (square, sum, two products), layer norm 7, softmax 5, gated SiLU 5, GELU 4, rotary embedding 3.
/// Biases, token sampling, PruMerge's merging and traffic between devices are not counted.
struct ExactFormula: StageCosting {
    let model: AnalyzedModel
    let hardware: Hardware
    let settings: CostSettings
    let plan: CostPlan
    private let kinds: [(share: LayerShare, layers: [Int])]
    private let weights: Double

    init(_ model: AnalyzedModel, _ hardware: Hardware, _ settings: CostSettings, _ plan: CostPlan) {
        (self.model, self.hardware, self.settings, self.plan) = (model, hardware, settings, plan)
        kinds = plan.kinds
        weights = ExactFormula.weightValues(model, tensorParallel: settings.tensorParallel) * settings.weightBytes
    }

    private var language: LlamaConfiguration { model.configuration.language }
    private var batch: Double { Double(settings.batchSize) }
    private var parallel: Double { Double(settings.tensorParallel) }

    /// Positions before the first generated token.
    var promptPositions: Int { settings.promptTokens + (model.configuration.adaptive == nil ? 0 : 1) }

    func encode() -> StageCost? {
        guard settings.images > 0, let vision = model.configuration.vision, let llava = model.configuration.llava else { return nil }
        let parts = VisionCost(counter: counter, vision: vision, llava: llava, hidden: language.hiddenSize, images: batch * Double(settings.images)).parts
        return StageCost(parts: parts, memory: MemoryFootprint(temporaryActivations: ExactFormula.activations(parts), weights: weights))
    }

    func prefill() -> StageCost {
        let positions = Double(promptPositions)
        var parts = [embedding(positions)]
        parts += layerParts(tokens: positions, pairs: positions * (positions + 1) / 2, keys: positions)
        if let adaptive = model.configuration.adaptive { parts.append(scheduling(adaptive)) }
        return stage(parts + [head], keys: positions)
    }

    func decode(step: Int) -> StageCost {
        let keys = Double(promptPositions + step)
        return stage([embedding(1)] + layerParts(tokens: 1, pairs: keys, keys: keys) + [head], keys: keys)
    }

    func memory(prefill: StageCost, decode: (sum: Double, last: StageCost?)) -> Double {
        max(prefill.memory.total, decode.last?.memory.total ?? 0)
    }

    private func stage(_ parts: [CostPart], keys: Double) -> StageCost {
        let heads = plan.shares.reduce(0) { $0 + $1.keyValueHeads }
        let cache = 2 * Double(heads) * Double(language.headDim) * keys * batch * settings.keyValueBytes / parallel
        return StageCost(
            parts: parts,
            memory: MemoryFootprint(temporaryActivations: ExactFormula.activations(parts), weights: weights, keyValueCache: cache))
    }

    /// Activations of the part that writes the most; the next one can reuse their memory.
    private static func activations(_ parts: [CostPart]) -> Double {
        parts.map { $0.operations.reduce(0) { $0 + $1.traffic.storeActivation } }.max() ?? 0
    }

    // MARK: - Parts

    private var counter: OperationCounter { OperationCounter(hardware: hardware, settings: settings) }

    private func layerParts(tokens: Double, pairs: Double, keys: Double) -> [CostPart] {
        kinds.map { kind in
            CostPart(name: "layer", layers: kind.layers, operations: layer(kind.share, tokens: tokens, pairs: pairs, keys: keys))
        }
    }

    /// One decoder layer.
    /// - Parameters:
    ///   - tokens: positions computed.
    ///   - pairs: pairs of a query and a key that it may see, for one head.
    ///   - keys: positions in the cache once these tokens are stored.
    func layer(_ share: LayerShare, tokens: Double, pairs: Double, keys: Double) -> [RooflineOperation] {
        let (count, hidden) = (counter, Double(language.hiddenSize))
        var operations: [RooflineOperation] = []
        let rows = tokens * batch
        if share.heads > 0 {
            let headDim = Double(language.headDim)
            let queryWidth = Double(share.heads) * headDim / parallel
            let keyWidth = Double(share.keyValueHeads) * headDim / parallel
            operations += [
                count.elementwise("attn_norm", values: rows * hidden, operations: 4, parameters: hidden),
                count.linear("q_proj", inputs: hidden, outputs: queryWidth, rows: rows),
                count.linear("k_proj", inputs: hidden, outputs: keyWidth, rows: rows, stores: true),
                count.linear("v_proj", inputs: hidden, outputs: keyWidth, rows: rows, stores: true),
                count.elementwise("rope", values: rows * (queryWidth + keyWidth), operations: 3),
            ]
            operations += count.attention(
                heads: Double(share.heads) / parallel, keyValueHeads: Double(share.keyValueHeads) / parallel, headDim: headDim,
                queries: tokens, pairs: pairs, keys: keys, sequences: batch)
            operations += [
                count.linear("out_proj", inputs: queryWidth, outputs: hidden, rows: rows),
                count.elementwise("attn_add", values: rows * hidden, operations: 1, inputs: 2),
            ]
        }
        if share.neurons > 0 {
            let neurons = Double(share.neurons) / parallel
            operations += [
                count.elementwise("mlp_norm", values: rows * hidden, operations: 4, parameters: hidden),
                count.linear("gate_proj", inputs: hidden, outputs: neurons, rows: rows),
                count.linear("up_proj", inputs: hidden, outputs: neurons, rows: rows),
                count.elementwise("mlp_act", values: rows * neurons, operations: 5, inputs: 2),
                count.linear("down_proj", inputs: neurons, outputs: hidden, rows: rows),
                count.elementwise("mlp_add", values: rows * hidden, operations: 1, inputs: 2),
            ]
        }
        return operations
    }

    private func embedding(_ tokens: Double) -> CostPart {
        let values = tokens * batch * Double(language.hiddenSize)
        return CostPart(
            name: "embed_tokens", layers: [],
            operations: [
                counter.operation(
                    "embed_tokens", 0,
                    .init(loadWeight: values * settings.weightBytes, storeActivation: values * settings.activationBytes), .vector)
            ])
    }

    private var head: CostPart {
        let (hidden, vocabulary) = (Double(language.hiddenSize), Double(language.vocabularySize))
        return CostPart(
            name: "lm_head", layers: [],
            operations: [
                counter.elementwise("final_norm", values: batch * hidden, operations: 4, parameters: hidden),
                counter.linear("lm_head", inputs: hidden, outputs: vocabulary / parallel, rows: batch),
            ])
    }

    /// The latency token's encoder and the linear layer that scores the switches (AdaLLaVA, section 3).
    private func scheduling(_ adaptive: AdaptiveConfiguration) -> CostPart {
        let hidden = Double(language.hiddenSize)
        let width = Double(ExactFormula.latencyWidth)
        return CostPart(
            name: "scheduler", layers: [],
            operations: [
                counter.elementwise("latency_norm", values: batch * width, operations: 7, parameters: 2 * width),
                counter.linear("latency_up", inputs: width, outputs: hidden, rows: batch),
                counter.elementwise("latency_act", values: batch * hidden, operations: 4),
                counter.linear("latency_out", inputs: hidden, outputs: hidden, rows: batch),
                counter.linear("scheduler_head", inputs: hidden, outputs: Double(ExactFormula.switches(adaptive, language)), rows: batch),
            ])
    }

    // MARK: - Weights

    /// Sines and cosines that a budget is encoded as.
    private static let latencyWidth = 256

    /// Outputs of the scheduler.
    private static func switches(_ adaptive: AdaptiveConfiguration, _ language: LlamaConfiguration) -> Int {
        let layers = language.numHiddenLayers - adaptive.numPrefixLayers
        return adaptive.schedulerType == .layers ? layers : layers * 2 * language.numAttentionHeads
    }

    /// Weights of the whole model on one device, whatever the plan. Norms, scheduler and vision tower are on every device.
    private static func weightValues(_ model: AnalyzedModel, tensorParallel: Int) -> Double {
        let language = model.configuration.language
        let (hidden, intermediate) = (Double(language.hiddenSize), Double(language.intermediateSize))
        let (queryWidth, keyWidth) = (
            Double(language.numAttentionHeads * language.headDim), Double(language.numKeyValueHeads * language.headDim)
        )
        let table = hidden * Double(language.vocabularySize)
        let layer = (hidden * (2 * queryWidth + 2 * keyWidth) + 3 * hidden * intermediate) / Double(tensorParallel) + 2 * hidden
        var values = layer * Double(language.numHiddenLayers) + hidden + table
        if !language.tieWordEmbeddings { values += table / Double(tensorParallel) }
        if let adaptive = model.configuration.adaptive {
            let width = Double(latencyWidth)
            values += 2 * width + width * hidden + hidden * hidden + hidden * Double(switches(adaptive, language))
        }
        if let vision = model.configuration.vision, let llava = model.configuration.llava {
            values += VisionCost.weightValues(vision, llava, hidden: language.hiddenSize)
        }
        return values
    }
}
