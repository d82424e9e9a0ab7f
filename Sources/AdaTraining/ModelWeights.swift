import AdaLLaVA
import Foundation

extension TorchModel {
    /// The name of a parameter in a checkpoint, by the part of the checkpoint that holds it.
    static func source(of name: String, in checkpoint: Checkpoint) -> (any TensorSource)? {
        if name.hasPrefix(TensorNames.visionPrefix) { return checkpoint.vision }
        if name.hasPrefix("model.mm_projector") { return checkpoint.projector ?? checkpoint.language }
        return checkpoint.language
    }

    /// Sets parameters to the checkpoint's values, widened to float32.
    /// - Parameter skipping: parameters that are not read and stay as they are: those that the checkpoint cannot have, LoRA's matrices.
    /// - Returns: the parameters that were skipped.
    /// - Throws: ``CheckpointError`` for tensors that are missing or have another shape.
    @discardableResult
    package func load(_ checkpoint: Checkpoint, skipping: (String) -> Bool = { $0.contains(".lora_") }) throws -> [Parameter] {
        for parameter in parameters where !skipping(parameter.name) {
            guard let tensor = TorchModel.source(of: parameter.name, in: checkpoint)?.find(parameter.name) else {
                throw CheckpointError.missingTensor(name: parameter.name, file: checkpoint.folder.path)
            }
            guard tensor.shape == parameter.shape else {
                throw CheckpointError.shape(
                    tensor: parameter.name, expected: parameter.shape, found: tensor.shape, file: checkpoint.folder.path)
            }
            try write(try tensor.widened(), to: parameter)
        }
        return parameters.filter { skipping($0.name) }
    }

    /// Fills parameters with random values: normal with a deviation of `deviation` for matrices and embeddings (Hugging Face's
    /// `initializer_range`), ones for norms, zeros for biases and LoRA's second matrices.
    /// - Parameter mimetic: given, queries and keys of the decoder start as it says.
    package func initialize(_ parameters: [Parameter], seed: UInt64, deviation: Float = 0.02, mimetic: MimeticAttention? = nil) throws {
        for parameter in parameters {
            if let mimetic, let values = mimetic.values(parameter.name, shape: parameter.shape, seed: seed) {
                try write(values, to: parameter)
                continue
            }
            // A generator for each name, so that a parameter's values do not depend on which others there are.
            var generator = SplitMix64(seed: seed ^ FNV1a(parameter.name).value)
            try write(TorchModel.initialValues(parameter.name, shape: parameter.shape, deviation: deviation, using: &generator), to: parameter)
        }
    }

    static func initialValues(_ name: String, shape: [Int], deviation: Float, using generator: inout SplitMix64) -> [Float] {
        let count = shape.reduce(1, *)
        if name.hasSuffix(".bias") || name.hasSuffix(".lora_B.weight") { return [Float](repeating: 0, count: count) }
        // Vectors called weights are those of norms.
        if shape.count == 1, name.hasSuffix(".weight") { return [Float](repeating: 1, count: count) }
        return (0 ..< count).map { _ in deviation * Float(generator.normal()) }
    }
}

/// Query and key matrices that start equal, so that a position attends to positions with similar contents before training ("Mimetic
/// Initialization of Self-Attention Layers", Trockman and Kolter, ICML 2023). A small model that must find the name of a question among the
/// things of a picture otherwise stays at chance for a long time.
package struct MimeticAttention: Sendable, Equatable {
    package let headDim: Int
    /// Query heads per key head.
    package let group: Int
    /// The initial mean logit of a position for itself.
    static let ownLogit: Float = 4

    package init(_ c: DecoderConfiguration) { (headDim, group) = (c.headDim, max(1, c.numAttentionHeads / max(1, c.numKeyValueHeads))) }

    /// The values of a decoder's `q_proj` or `k_proj`, `[heads * headDim, hidden]`; `nil` for all others.
    func values(_ name: String, shape: [Int], seed: UInt64) -> [Float]? {
        let (query, key) = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
        guard name.hasPrefix("model.layers."), shape.count == 2, name.hasSuffix(query) || name.hasSuffix(key) else { return nil }
        // Normalized hidden states have a squared length of `hidden`.
        let deviation = (MimeticAttention.ownLogit / (Float(headDim).squareRoot() * Float(shape[1]))).squareRoot()
        let layer = FNV1a(name.replacing(query, with: "").replacing(key, with: "")).value
        let step = headDim * shape[1]
        let share = name.hasSuffix(query) ? group : 1
        var values: [Float] = []
        values.reserveCapacity(shape[0] * shape[1])
        for head in 0 ..< shape[0] / max(1, headDim) {
            var generator = SplitMix64(seed: seed ^ layer &+ UInt64(head / share))
            values += (0 ..< step).map { _ in deviation * Float(generator.normal()) }
        }
        return values.count == shape[0] * shape[1] ? values : nil
    }
}

extension SplitMix64 {
    /// Uniform in (0, 1).
    mutating func uniform() -> Double { (Double(next() >> 11) + 0.5) * 0x1p-53 }

    /// Standard normal (Box and Muller, 1958).
    mutating func normal() -> Double { (-2 * log(uniform())).squareRoot() * cos(2 * .pi * uniform()) }
}

/// IEEE half precision, by its bits: `Float16` is not available on every platform.
func halfToFloat(_ bits: UInt16) -> Float {
    let sign: Float = bits & 0x8000 == 0 ? 1 : -1
    let exponent = Int(bits >> 10 & 0x1F)
    let fraction = Float(bits & 0x3FF)
    switch exponent {
    case 0: return sign * fraction * 0x1p-24
    case 31: return fraction == 0 ? sign * .infinity : .nan
    default: return sign * (1 + fraction / 1024) * Float(sign: .plus, exponent: exponent - 15, significand: 1)
    }
}
