import AdaLLaVA
import Foundation

/// A decoder with random weights in one GGUF file: what a checkpoint of that shape costs, without a checkpoint.
///
/// Weights are spread evenly around zero with the deviation of a layer that keeps its input's size, so activations stay finite. They
/// come from a block of a few megabytes that is read from a new place for every tensor: writing takes as long as the disk.
struct RandomModel {
    let language: LlamaConfiguration
    /// `nil` writes a model without a scheduler.
    let adaptive: AdaptiveConfiguration?
    /// Of all matrices of the decoder; vectors are float32 and the scheduler's matrices half floats.
    let type: ElementType
    let seed: UInt64

    /// Types that ``write(to:)`` can fill with random values.
    static let types: [ElementType] = [.f32, .f16, .bf16, .q8_0, .q4_0, .q4_1]

    func write(to url: URL) throws {
        var blocks: [String: RandomBlock] = [:]
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
            if blocks[key] == nil { blocks[key] = RandomBlock(tensor.type, deviation: deviation, &random) }
            try blocks[key]?.write(rows * rowBytes, to: sink, &random)
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

/// A few megabytes of random values in a type's own blocks.
private struct RandomBlock {
    private let bytes: [UInt8]
    private let blockBytes: Int

    /// - Parameter deviation: the values' standard deviation.
    init(_ type: ElementType, deviation: Float, _ random: inout SplitMix64) {
        blockBytes = type.block.bytes
        var bytes: [UInt8] = []
        let blocks = (4 << 20) / type.block.bytes
        bytes.reserveCapacity(blocks * type.block.bytes)
        // Uniform in (-limit, limit) has the deviation limit / sqrt(3).
        let limit = deviation * Float(3).squareRoot()
        func append<Value: BitwiseCopyable>(_ value: Value) { withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) } }
        func value(_ random: inout SplitMix64) -> Float { (2 * Float(random.unit()) - 1) * limit }
        for _ in 0 ..< blocks {
            switch type {
            case .f16: append(halfBits(value(&random)))
            case .bf16: append(UInt16(truncatingIfNeeded: value(&random).bitPattern >> 16))
            case .q8_0:
                append(halfBits(limit / 127))
                for _ in 0 ..< 4 { append(random.next()) }
            case .q4_0, .q4_1:
                append(halfBits(limit / 7.5))
                if type == .q4_1 { append(halfBits(-limit)) }
                for _ in 0 ..< 2 { append(random.next()) }
            default: append(value(&random))
            }
        }
        self.bytes = bytes
    }

    /// Appends `count` bytes, starting at a random place.
    func write(_ count: Int, to sink: TensorSink, _ random: inout SplitMix64) throws {
        var start = Int(random.unit() * Double(bytes.count / blockBytes)) * blockBytes
        var left = count
        while left > 0 {
            let length = min(left, bytes.count - start)
            try bytes.withUnsafeBytes { try sink.write(UnsafeRawBufferPointer(rebasing: $0[start ..< start + length])) }
            left -= length
            start = 0
        }
    }
}

/// A positive or negative normal number as the bits of a half float, fractions dropped; numbers below the smallest normal become zero.
private func halfBits(_ value: Float) -> UInt16 {
    let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
    let exponent = Int(value.bitPattern >> 23 & 0xff) - 127 + 15
    guard exponent > 0 else { return sign }
    return sign | UInt16(min(exponent, 30)) << 10 | UInt16(truncatingIfNeeded: value.bitPattern >> 13 & 0x3ff)
}
