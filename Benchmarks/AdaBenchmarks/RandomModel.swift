import AdaLLaVA
import AdaProbes
import Foundation

/// A decoder with random weights in one GGUF file: what a checkpoint of that shape costs, without a checkpoint.
///
/// Weights are spread evenly around zero with the deviation of a layer that keeps its input's size, so activations stay finite. They
/// come from a block of a few megabytes that is read from a new place for every tensor: writing takes as long as the disk.
struct RandomModel {
    let language: DecoderConfiguration
    /// `nil` writes a model without a scheduler.
    let adaptive: AdaptiveConfiguration?
    /// Of all matrices of the decoder; vectors are float32 and the scheduler's matrices half floats.
    let type: ElementType
    let seed: UInt64

    /// Types that ``write(to:)`` can fill with random values.
    static let types = RandomWeights.types

    func write(to url: URL) throws {
        var blocks: [String: RandomWeights] = [:]
        var random = SplitMix64(seed: seed)
        try GGUFWriter.write(tensors, metadata: metadata, to: url) { tensor, sink in
            if tensor.shape.count == 1 {
                let isBias = tensor.name.hasSuffix(".bias")
                return try sink.write([Float](repeating: isBias ? 0 : 1, count: tensor.shape[0]))
            }
            let (rows, inputs) = (tensor.shape[0], tensor.shape[1])
            guard let rowBytes = tensor.type.bytes(for: inputs) else { return }
            // The embedding's rows are looked up, not multiplied: they have deviation 1.
            let deviation = tensor.name == "token_embd.weight" ? 1 : 1 / Float(inputs).squareRoot()
            let key = "\(tensor.type.rawValue) \(deviation)"
            if blocks[key] == nil { blocks[key] = RandomWeights(tensor.type, deviation: deviation, &random) }
            try blocks[key]?.read(rows * rowBytes, &random) { try sink.write($0) }
        }
    }

    private var metadata: [(key: String, value: GGUFValue)] {
        get throws { try language.ggufMetadata() + (adaptive?.ggufMetadata ?? []) }
    }

    private var tensors: [TensorDescription] {
        let c = language
        let (hidden, queryWidth, keyWidth) = (c.hiddenSize, c.numAttentionHeads * c.headDim, c.numKeyValueHeads * c.headDim)
        func matrix(_ name: String, _ rows: Int, _ inputs: Int, _ type: ElementType) -> TensorDescription {
            TensorDescription(name: TensorNames.gguf(canonical: name + ".weight"), type: type, shape: [rows, inputs])
        }
        func vector(_ name: String, _ count: Int) -> TensorDescription {
            TensorDescription(name: TensorNames.gguf(canonical: name), type: .f32, shape: [count])
        }
        var tensors = [matrix("model.embed_tokens", c.vocabularySize, hidden, type), vector("model.norm.weight", hidden)]
        if !c.tieWordEmbeddings { tensors.append(matrix("lm_head", c.vocabularySize, hidden, type)) }
        for layer in 0 ..< c.numHiddenLayers {
            let name = "model.layers.\(layer)."
            tensors += [
                vector(name + "input_layernorm.weight", hidden),
                matrix(name + "self_attn.q_proj", queryWidth, hidden, type), matrix(name + "self_attn.k_proj", keyWidth, hidden, type),
                matrix(name + "self_attn.v_proj", keyWidth, hidden, type), matrix(name + "self_attn.o_proj", hidden, queryWidth, type),
                vector(name + "post_attention_layernorm.weight", hidden),
                matrix(name + "mlp.gate_proj", c.intermediateSize, hidden, type), matrix(name + "mlp.up_proj", c.intermediateSize, hidden, type),
                matrix(name + "mlp.down_proj", hidden, c.intermediateSize, type),
            ]
        }
        guard let adaptive else { return tensors }
        let optional = c.numHiddenLayers - adaptive.numPrefixLayers
        let switches = adaptive.schedulerType == .layers ? optional : optional * 2 * c.numAttentionHeads
        let encoder = "scheduler.scheduler_up_proj.net."
        tensors += [
            vector(encoder + "0.weight", 256), vector(encoder + "0.bias", 256),
            matrix(encoder + "1", hidden, 256, .f16), vector(encoder + "1.bias", hidden),
            matrix(encoder + "3", hidden, hidden, .f16), vector(encoder + "3.bias", hidden),
            matrix("scheduler.mlp_head", switches, hidden, .f16), vector("scheduler.mlp_head.bias", switches),
        ]
        return tensors
    }
}
