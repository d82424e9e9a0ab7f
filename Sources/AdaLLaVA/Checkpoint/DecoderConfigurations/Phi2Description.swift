/// Phi-2's `PhiConfig`, and GGUF's `phi2`.
enum Phi2Description: DecoderDescription {
    static let modelType = "phi"
    static let llavaName = "phi"
    static let ggufArchitecture = "phi2"
    static let epsilonField = (huggingFace: "layer_norm_eps", gguf: "attention.layer_norm_epsilon")
    static let defaults = DecoderDefaults(
        vocabularySize: 51200, hiddenSize: 2048, intermediateSize: 8192, numHiddenLayers: 24, normEpsilon: 1e-5, activation: .geluTanh)

    static func read(_ fields: ConfigurationFields, _ rope: RopeParameters, into c: inout DecoderConfiguration) throws {
        guard try !fields.bool("qk_layernorm", missing: false) else {
            throw CheckpointError.unsupported(
                what: "qk_layernorm (norms of queries and keys)", file: fields.file, hint: "Phi-1, Phi-1.5 and Phi-2 are published without it")
        }
        let factor = rope.partialFactor ?? 0.5
        // As transformers rounds it.
        c.rotaryDim = Int(Double(c.headDim) * factor)
        guard c.rotaryDim >= 2, c.rotaryDim % 2 == 0 else {
            throw CheckpointError.configuration(
                field: "partial_rotary_factor", expected: "a share that leaves an even number of the \(c.headDim) values of a head to rotate",
                found: "\(factor), which leaves \(c.rotaryDim)", file: fields.file)
        }
        (c.attentionBias, c.mlpBias) = (true, true)
    }

    static let className = "Phi"
    static let huggingFaceModules: [(own: String, canonical: String)] = [
        (own: "model.final_layernorm", canonical: "model.norm"), ("self_attn.dense", "self_attn.o_proj"), ("mlp.fc1", "mlp.up_proj"),
        ("mlp.fc2", "mlp.down_proj"),
    ]

    static func huggingFaceFields(_ c: DecoderConfiguration) -> [String: JSONValue] { ["partial_rotary_factor": .number(Double(c.rotaryDim) / Double(c.headDim))] }

    static func read(_ fields: GGUFFields, into c: inout DecoderConfiguration) throws {
        c.hiddenActivation = .geluTanh
        (c.attentionBias, c.mlpBias) = (true, true)
    }
}
