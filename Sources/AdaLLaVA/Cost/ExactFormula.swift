/// Computation, reads and writes of the engine for a request, counted operation by operation.
///
/// - Inputs of a layer's linear maps are read whole, whichever heads are on; only kept outputs are written.
/// - Keys and values are those of the kept key-value heads; a decode step reads no others and stores no others.
/// - A query attends to the keys up to its own position: `t (t + 1) / 2` pairs for `t` positions, not `t²`; with a sliding window those in the
///   window.
/// - A block has the operations of its architecture: ``BlockShape``.
/// - A layer's attention (MLP) costs nothing when no head (group) of it is on: no norm, no addition.
/// - MLP groups have the neurons they have, one more in the first groups where the heads do not divide them.
/// - The latency token is a position of the prompt; its encoder and the scheduler are counted.
/// - The output layer runs once, for the prompt's last position, a multiply-add counting as two.
/// - The vision tower and the projector are a stage of their own.
/// - Layers from the one on which image tokens are dropped (``FastV``) compute, store and read so many positions fewer; choosing them costs the last row's
///   attention once more.
/// - A request's memory is its peak: all weights, which stay loaded under any plan, and the cache at its longest.
///
/// Per value: RMS norm 4 operations (square, sum, two products), layer norm 7, softmax 5, gated SiLU 5, GELU 4, rotary embedding 3.
/// The tower's biases, token sampling, PruMerge's merging and traffic between devices are not counted.
package struct ExactFormula: Sendable {
    let configuration: ModelConfiguration
    let hardware: Hardware
    let settings: CostSettings
    let plan: CostPlan
    private let block: BlockShape
    private let kinds: [(share: LayerShare, layers: [Int])]
    /// The first layer without the dropped image tokens, and how many those are.
    private let drop: (layer: Int, tokens: Int)
    private let weights: Double

    package init(_ configuration: ModelConfiguration, _ hardware: Hardware, _ settings: CostSettings, _ plan: CostPlan) {
        (self.configuration, self.hardware, self.settings, self.plan) = (configuration, hardware, settings, plan)
        block = BlockShape(configuration.language)
        drop = settings.drop(configuration) ?? (.max, 0)
        kinds = plan.kinds(split: drop.layer)
        weights = ExactFormula.weightValues(configuration, block, tensorParallel: settings.tensorParallel) * settings.weightBytes
    }

    private var language: DecoderConfiguration { configuration.language }
    private var batch: Double { Double(settings.batchSize) }
    private var parallel: Double { Double(settings.tensorParallel) }

    /// Positions before the first generated token.
    var promptPositions: Int { settings.promptTokens + (configuration.adaptive == nil ? 0 : 1) }

    package func encode() -> StageCost? {
        guard settings.images > 0, let vision = configuration.vision, let llava = configuration.llava else { return nil }
        let parts = VisionCost(counter: counter, vision: vision, llava: llava, hidden: language.hiddenSize, images: batch * Double(settings.images)).parts
        return StageCost(parts: parts, memory: MemoryFootprint(temporaryActivations: ExactFormula.activations(parts), weights: weights))
    }

    package func prefill() -> StageCost {
        let positions = Double(promptPositions)
        var parts = [embedding(positions)]
        parts += layerParts { kind, dropped in
            let positions = positions - dropped
            return (positions, pairs(positions, kind), positions)
        }
        if drop.layer < .max { parts.append(choosing(positions)) }
        if let adaptive = configuration.adaptive { parts.append(scheduling(adaptive)) }
        return stage(parts + [head], keys: positions)
    }

    package func decode(step: Int) -> StageCost {
        let positions = Double(promptPositions + step)
        let layers = layerParts { kind, dropped in
            let keys = seen(positions - dropped, kind)
            return (1, keys, keys)
        }
        return stage([embedding(1)] + layers + [head], keys: positions)
    }

    /// Of so many positions those that the last one sees in layers of a kind.
    private func seen(_ positions: Double, _ kind: DecoderLayerKind) -> Double {
        language.window(kind).map { min(positions, Double($0)) } ?? positions
    }

    /// Pairs of a query and a key that it may see in layers of a kind, of the first `positions` positions.
    private func pairs(_ positions: Double, _ kind: DecoderLayerKind) -> Double {
        let window = seen(positions, kind)
        return window * (window + 1) / 2 + (positions - window) * window
    }

    package func memory(prefill: StageCost, decode: (sum: Double, last: StageCost?)) -> Double {
        max(prefill.memory.total, decode.last?.memory.total ?? 0)
    }

    private func stage(_ parts: [CostPart], keys: Double) -> StageCost {
        let heads = plan.shares.enumerated().reduce(0) { $0 + Double($1.element.keyValueHeads) * seen(keys - dropped($1.offset), $1.element.kind) }
        let cache = 2 * heads * Double(language.headDim) * batch * settings.keyValueBytes / parallel
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

    /// Image tokens that a layer does not have.
    private func dropped(_ layer: Int) -> Double { layer >= drop.layer ? Double(drop.tokens) : 0 }

    /// - Parameter counts: positions, pairs and keys of layers of a kind that do not have so many image tokens.
    private func layerParts(_ counts: (DecoderLayerKind, Double) -> (tokens: Double, pairs: Double, keys: Double)) -> [CostPart] {
        kinds.map { kind in
            let (tokens, pairs, keys) = counts(kind.share.kind, dropped(kind.layers.first ?? 0))
            return CostPart(name: "layer", layers: kind.layers, operations: layer(kind.share, tokens: tokens, pairs: pairs, keys: keys))
        }
    }

    /// The last row's attention in the layer before the drop, averaged over its heads.
    private func choosing(_ positions: Double) -> CostPart {
        let heads = Double(language.numAttentionHeads), scores = heads * positions * batch / parallel
        return CostPart(
            name: "token selection", layers: [],
            operations: [counter.elementwise("token_selection", values: scores, operations: 2 * Double(language.headDim) + 5 + 1)])
    }

    /// One decoder layer.
    /// - Parameters:
    ///   - tokens: positions computed.
    ///   - pairs: pairs of a query and a key that it may see, for one head.
    ///   - keys: positions in the cache once these tokens are stored.
    func layer(_ share: LayerShare, tokens: Double, pairs: Double, keys: Double) -> [RooflineOperation] {
        let (count, hidden, rows) = (counter, Double(language.hiddenSize), tokens * batch)
        let (runsAttention, runsMLP) = (share.heads > 0, share.neurons > 0)
        var operations: [RooflineOperation] = []
        if share.runsMixer || (block.sharesNorm && runsMLP) { operations.append(norm("attn_norm", rows)) }
        if share.channels > 0 { operations += convolution(share, rows: rows) }
        if runsAttention {
            let headDim = Double(language.headDim)
            let queryWidth = Double(share.heads) * headDim / parallel
            let keyWidth = Double(share.keyValueHeads) * headDim / parallel
            let turned = Double(language.rotaryDim) / headDim
            operations += [
                count.linear("q_proj", inputs: hidden, outputs: queryWidth, rows: rows, hasBias: block.hasQueryBias),
                count.linear("k_proj", inputs: hidden, outputs: keyWidth, rows: rows, stores: true, hasBias: block.hasQueryBias),
                count.linear("v_proj", inputs: hidden, outputs: keyWidth, rows: rows, stores: true, hasBias: block.hasQueryBias),
                count.elementwise("rope", values: rows * (queryWidth + keyWidth) * turned, operations: 3),
            ]
            if block.hasHeadNorms {
                operations.append(
                    count.elementwise("head_norms", values: rows * (queryWidth + keyWidth), operations: block.normOperations, parameters: 2 * headDim))
            }
            operations += count.attention(
                heads: Double(share.heads) / parallel, keyValueHeads: Double(share.keyValueHeads) / parallel, headDim: headDim,
                queries: tokens, pairs: pairs, keys: keys, sequences: batch)
            operations += [
                count.linear("out_proj", inputs: queryWidth, outputs: hidden, rows: rows, hasBias: block.hasOutputBias),
                count.elementwise("attn_add", values: rows * hidden, operations: 1, inputs: 2),
            ]
            if block.hasOutputNorms { operations.append(norm("attn_output_norm", rows)) }
        }
        if runsMLP {
            let neurons = Double(share.neurons) / parallel
            func linear(_ name: String, _ inputs: Double, _ outputs: Double) -> RooflineOperation {
                count.linear(name, inputs: inputs, outputs: outputs, rows: rows, hasBias: block.hasMLPBias)
            }
            if !block.sharesNorm { operations.append(norm("mlp_norm", rows)) }
            if block.isGated { operations.append(linear("gate_proj", hidden, neurons)) }
            operations += [
                linear("up_proj", hidden, neurons),
                block.isGated
                    ? count.elementwise("mlp_act", values: rows * neurons, operations: 5, inputs: 2)
                    : count.elementwise("mlp_act", values: rows * neurons, operations: 4),
                linear("down_proj", neurons, hidden), count.elementwise("mlp_add", values: rows * hidden, operations: 1, inputs: 2),
            ]
            if block.hasOutputNorms { operations.append(norm("mlp_output_norm", rows)) }
        }
        return operations
    }

    /// A gated convolution: three projections, a product with the first gate, the taps, a product with the second, and the output projection.
    private func convolution(_ share: LayerShare, rows: Double) -> [RooflineOperation] {
        let (count, hidden, channels) = (counter, Double(language.hiddenSize), Double(share.channels) / parallel)
        let (taps, biases) = (Double(language.convolutionTaps), language.convolutionBias)
        return [
            count.linear("conv_in", inputs: hidden, outputs: 3 * channels, rows: rows, hasBias: biases),
            count.elementwise("conv_gates", values: rows * channels, operations: 2, inputs: 3),
            count.elementwise("conv", values: rows * channels, operations: 2 * taps + (biases ? 1 : 0), parameters: (taps + (biases ? 1 : 0)) * channels),
            count.linear("conv_out", inputs: channels, outputs: hidden, rows: rows, hasBias: biases),
            count.elementwise("conv_add", values: rows * hidden, operations: 1, inputs: 2),
        ]
    }

    /// A norm of `rows` hidden states.
    private func norm(_ name: String, _ rows: Double) -> RooflineOperation {
        let hidden = Double(language.hiddenSize)
        return counter.elementwise(name, values: rows * hidden, operations: block.normOperations, parameters: block.normVectors * hidden)
    }

    private func embedding(_ tokens: Double) -> CostPart {
        let values = tokens * batch * Double(language.hiddenSize)
        return CostPart(
            name: "embed_tokens", layers: [],
            operations: [
                counter.operation(
                    "embed_tokens", block.scalesEmbeddings ? values : 0,
                    .init(loadWeight: values * settings.weightBytes, storeActivation: values * settings.activationBytes), .vector)
            ])
    }

    private var head: CostPart {
        let (hidden, vocabulary) = (Double(language.hiddenSize), Double(language.vocabularySize))
        return CostPart(
            name: "lm_head", layers: [],
            operations: [
                norm("final_norm", batch),
                counter.linear("lm_head", inputs: hidden, outputs: vocabulary / parallel, rows: batch, hasBias: block.hasHeadBias),
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
                counter.linear("scheduler_head", inputs: hidden, outputs: Double(ExactFormula.scores(adaptive, language)), rows: batch),
            ])
    }

    // MARK: - Weights

    /// Sines and cosines that a budget is encoded as.
    private static let latencyWidth = 256

    /// Outputs of the scheduler.
    private static func scores(_ adaptive: AdaptiveConfiguration, _ language: DecoderConfiguration) -> Int {
        let layers = language.numHiddenLayers - adaptive.numPrefixLayers
        return adaptive.schedulerType == .layers ? layers : layers * 2 * adaptive.switchesPerLayer(language)
    }

    /// Weights of the whole model on one device, under any plan. Norms, scheduler and vision tower are on every device.
    private static func weightValues(_ configuration: ModelConfiguration, _ block: BlockShape, tensorParallel: Int) -> Double {
        let language = configuration.language
        let (hidden, intermediate) = (Double(language.hiddenSize), Double(language.intermediateSize))
        let (queryWidth, keyWidth) = (
            Double(language.numAttentionHeads * language.headDim), Double(language.numKeyValueHeads * language.headDim)
        )
        let table = hidden * Double(language.vocabularySize)
        let biases = (block.hasQueryBias ? queryWidth + 2 * keyWidth : 0) + (block.hasMLPBias ? (block.isGated ? 2 : 1) * intermediate : 0)
        let outputBiases = (block.hasOutputBias ? hidden : 0) + (block.hasMLPBias ? hidden : 0)
        let attention = hidden * (2 * queryWidth + 2 * keyWidth)
        let matrices = attention + (block.isGated ? 3 : 2) * hidden * intermediate
        let norms = (block.sharesNorm ? 1 : 2) + (block.hasOutputNorms ? 2 : 0)
        let headNorms = block.hasHeadNorms ? 2 * Double(language.headDim) : 0
        let layer = (matrices + biases) / Double(tensorParallel) + Double(norms) * block.normVectors * hidden + headNorms + outputBiases
        var values = layer * Double(language.numHiddenLayers) + block.normVectors * hidden + table
        // A convolution replaces attention: the difference between the two.
        let convolutions = Double((0 ..< language.numHiddenLayers).count { language.kind($0) == .convolution })
        let taps = Double(language.convolutionTaps) + (language.convolutionBias ? 5 : 0)
        values += convolutions * ((4 * hidden * hidden + taps * hidden - attention) / Double(tensorParallel) - headNorms)
        if block.hasHeadBias { values += Double(language.vocabularySize) / Double(tensorParallel) }
        if !language.tieWordEmbeddings { values += table / Double(tensorParallel) }
        if let adaptive = configuration.adaptive {
            let width = Double(latencyWidth)
            values += 2 * width + width * hidden + hidden * hidden + hidden * Double(scores(adaptive, language))
        }
        if let vision = configuration.vision, let llava = configuration.llava {
            values += VisionCost.weightValues(vision, llava, hidden: language.hiddenSize)
        }
        return values
    }
}
