import AdaLLaVA

/// How costs are counted.
package enum CostFormula: String, Sendable, CaseIterable {
    /// The published experiments' own count, number for number.
    case reference
    /// The engine's own operations: see ``ExactFormula``.
    case exact
}

/// The count of one model under one plan, stage by stage.
protocol StageCosting: Sendable {
    /// Encoding the images; `nil` if there are none or the formula leaves them out.
    func encode() -> StageCost?
    /// Reading the prompt, up to the first generated token.
    func prefill() -> StageCost
    /// Making the token after `step` others, `step` at least 1.
    func decode(step: Int) -> StageCost
    /// Bytes of the whole request, from those of its stages.
    /// - Parameter decode: the sum over the decode steps of their footprints, and the last of them.
    func memory(prefill: StageCost, decode: (sum: Double, last: StageCost?)) -> Double
}

extension ExactFormula: StageCosting {
    init(_ model: AnalyzedModel, _ hardware: Hardware, _ settings: CostSettings, _ plan: CostPlan) {
        self.init(model.configuration, hardware, settings, plan)
    }
}

/// AdaLLaVA's count of FLOPs, bytes and roofline times, which descends from LLM-Viewer (Yuan et al., 2024).
///
/// Per layer, with `n` of `H` heads on, everything but norms, residual additions and stored keys and values is scaled by `n / H`, rounded
/// down to whole operations and bytes:
///
///     linear     OPs 2·in·out·tokens,  reads in·out weights and in·tokens activations,  writes out·tokens
///     scores     OPs 2·tokens·keys·hidden, twice (q·k, s·v);  softmax 5·tokens·keys·H
///     norm       OPs 7·hidden·tokens;  addition hidden·tokens;  gated activation 2·hidden·tokens
///
/// Kept as published, although ``ExactFormula`` counts differently: every query attends to every key; a multiply-add of the output layer counts
/// as one operation; decode step `i` attends to `prompt + i − 1` keys of all heads; grouped-query attention does not reduce the reads of prefill;
/// the memory of a request is the sum over its steps. Where image tokens are dropped inside the decoder, later layers have so many tokens and keys fewer.
struct ReferenceFormula: StageCosting {
    let model: AnalyzedModel
    let hardware: Hardware
    let settings: CostSettings
    let plan: CostPlan
    private let peak: Double
    private let kinds: [(share: LayerShare, layers: [Int])]
    /// The first layer without the dropped image tokens, and how many those are.
    private let drop: (layer: Int, tokens: Int)
    /// Bytes of the kept layers' weights, and of one position's keys and values in those before the drop and in the others.
    private var resident: (weights: Double, early: Double, late: Double)

    /// - Throws: ``EvaluationError/argument(name:expected:found:)`` for plans that the formula cannot express, for bits without a peak.
    init(_ model: AnalyzedModel, _ hardware: Hardware, _ settings: CostSettings, _ plan: CostPlan) throws {
        (self.model, self.hardware, self.settings, self.plan) = (model, hardware, settings, plan)
        peak = try hardware.referencePeak(settings)
        if let layer = plan.shares.firstIndex(where: { $0.switches != $0.groups }) {
            throw EvaluationError.argument(
                name: "plan, layer \(layer)", expected: "as many neuron groups as heads, which is all that the reference's formula knows; or --formula exact",
                found: "\(plan.shares[layer].switches) heads and \(plan.shares[layer].groups) groups")
        }
        let drop = settings.drop(model.configuration) ?? (.max, 0)
        self.drop = drop
        kinds = plan.kinds(split: drop.layer)
        resident = (0, 0, 0)
        let parts = kinds.map { CostPart(name: "", layers: $0.layers, operations: layer(heads: $0.share.heads, tokens: 1, keys: 1, isPrefill: true)) }
        func traffic(_ isTaken: (Int) -> Bool) -> RooflineOperation.Traffic {
            StageCost(parts: parts.filter { isTaken($0.layers.first ?? 0) }, memory: MemoryFootprint()).totals.traffic
        }
        resident = (traffic { _ in true }.loadWeight, traffic { $0 < drop.layer }.storeKeyValue, traffic { $0 >= drop.layer }.storeKeyValue)
    }

    func encode() -> StageCost? { nil }

    func prefill() -> StageCost { stage(tokens: settings.promptTokens, keys: settings.promptTokens, isPrefill: true) }

    func decode(step: Int) -> StageCost { stage(tokens: 1, keys: settings.promptTokens + step - 1, isPrefill: false) }

    func memory(prefill: StageCost, decode: (sum: Double, last: StageCost?)) -> Double { prefill.memory.total + decode.sum }

    private func stage(tokens: Int, keys: Int, isPrefill: Bool) -> StageCost {
        let layers = layerParts(tokens: tokens, keys: keys, isPrefill: isPrefill)
        // The activations of one layer are counted: the last one that runs.
        let last = layers.max { ($0.layers.last ?? 0) < ($1.layers.last ?? 0) }
        let activations = last?.operations.reduce(0) { $0 + $1.traffic.storeActivation } ?? 0
        return StageCost(
            parts: layers + [CostPart(name: "lm_head", layers: [], operations: [head])],
            memory: MemoryFootprint(temporaryActivations: activations, weights: resident.weights, keyValueCache: resident.early * Double(keys) + resident.late * Double(keys - drop.tokens)))
    }

    private var head: RooflineOperation {
        let language = model.configuration.language
        let (hidden, vocabulary) = (Double(language.hiddenSize), Double(language.vocabularySize))
        return operation(
            "lm_head", Double(settings.batchSize) * hidden * vocabulary,
            .init(
                loadWeight: hidden * vocabulary * settings.weightBytes, loadActivation: hidden * settings.activationBytes,
                storeActivation: vocabulary * settings.activationBytes))
    }

    private func layerParts(tokens: Int, keys: Int, isPrefill: Bool) -> [CostPart] {
        kinds.map { kind in
            let dropped = kind.layers.first ?? 0 >= drop.layer ? drop.tokens : 0
            return CostPart(
                name: "layer", layers: kind.layers,
                operations: layer(
                    heads: kind.share.heads, tokens: Double(isPrefill ? tokens - dropped : tokens), keys: Double(keys - dropped), isPrefill: isPrefill))
        }
    }

    private func operation(_ name: String, _ operations: Double, _ traffic: RooflineOperation.Traffic) -> RooflineOperation {
        RooflineOperation(name: name, operations: operations, traffic: traffic, peak: peak, bandwidth: hardware.bandwidth)
    }

    /// The operations of one layer with `heads` heads on.
    func layer(heads: Int, tokens: Double, keys: Double, isPrefill: Bool) -> [RooflineOperation] {
        let language = model.configuration.language
        let allHeads = Double(language.numAttentionHeads)
        let keyValueHeads = Double(language.numKeyValueHeads)
        let (hidden, intermediate) = (Double(language.hiddenSize), Double(language.intermediateSize))
        let headSize = Double(language.hiddenSize / language.numAttentionHeads)
        let (batch, parallel) = (Double(settings.batchSize), Double(settings.tensorParallel))
        let (weight, activation, keyValue) = (settings.weightBytes, settings.activationBytes, settings.keyValueBytes)
        func kept(_ all: Double) -> Double { (all * Double(heads) / allHeads).rounded(.down) }

        func linear(_ name: String, _ inputs: Double, _ outputs: Double, stores: Bool = false) -> RooflineOperation {
            operation(
                name, kept(2 * inputs * outputs * batch * tokens),
                .init(
                    loadWeight: kept(inputs * outputs * weight), loadActivation: kept(inputs * batch * tokens * activation),
                    storeActivation: stores ? 0 : kept(outputs * batch * tokens * activation),
                    storeKeyValue: stores ? outputs * batch * tokens * keyValue : 0))
        }
        func elementwise(_ name: String, _ perValue: Double) -> RooflineOperation {
            let bytes = batch * hidden * tokens * activation
            return operation(name, batch * hidden * tokens * perValue, .init(loadActivation: bytes, storeActivation: bytes))
        }
        let keyWidth = hidden * keyValueHeads / allHeads
        let linears = [
            linear("q_proj", hidden, hidden / parallel), linear("k_proj", hidden, keyWidth / parallel, stores: true),
            linear("v_proj", hidden, keyWidth / parallel, stores: true), linear("out_proj", hidden / parallel, hidden),
            linear("gate_proj", hidden, intermediate / parallel), linear("up_proj", hidden, intermediate / parallel),
            linear("down_proj", intermediate / parallel, hidden),
        ]

        let product = 2 * tokens * keys * headSize * allHeads * batch
        let softmax = 5 * batch * allHeads * tokens * keys
        let queryBytes = tokens * headSize * batch * allHeads * activation
        let scoreBytes = tokens * keys * batch * allHeads * activation
        // Prefill reads the kept heads' part of all heads' keys; decode reads all stored keys.
        func read(_ keys: Double) -> Double {
            let bytes = keys * headSize * batch * keyValue
            return isPrefill ? kept(bytes * allHeads) : bytes * keyValueHeads
        }
        let attention: [RooflineOperation]
        if settings.flashAttention {
            let rows = min((hardware.onChipBuffer / (keyValue * headSize)).rounded(.up), headSize)
            let blocks = (tokens / rows).rounded(.up)
            attention = [
                operation(
                    "fused_attention", kept(2 * product + softmax),
                    .init(loadActivation: kept(queryBytes), storeActivation: kept(2 * scoreBytes), loadKeyValue: read(2 * blocks * keys)))
            ]
        } else {
            attention = [
                operation(
                    "qk_matmul", kept(product),
                    .init(loadActivation: kept(queryBytes), storeActivation: kept(scoreBytes), loadKeyValue: read(keys))),
                operation(
                    "sv_matmul", kept(product),
                    .init(loadActivation: kept(scoreBytes), storeActivation: kept(queryBytes), loadKeyValue: read(keys))),
                operation("softmax", kept(softmax), .init(loadActivation: kept(scoreBytes), storeActivation: kept(scoreBytes))),
            ]
        }
        let values = batch * hidden * tokens
        return linears + attention + [
            elementwise("attn_norm", 7), elementwise("mlp_norm", 7), elementwise("attn_add", 1), elementwise("mlp_add", 1),
            operation(
                "mlp_act", kept(2 * values),
                .init(loadActivation: kept(2 * values * activation), storeActivation: kept(values * activation))),
        ]
    }
}
