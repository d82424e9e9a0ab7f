/// LLaMA's `LlamaConfig`, and GGUF's `llama`.
enum LlamaDescription: DecoderDescription {
    static let modelType = "llama"
    static let llavaName = "llama"
    static let ggufArchitecture = "llama"
    static let ggufIsInterleaved = true
    static let defaults = DecoderDefaults()

    static func read(_ fields: ConfigurationFields, _ rope: RopeParameters, into c: inout DecoderConfiguration) throws {
        try requireWholeHeadsAndSiLU(fields, rope, c)
        c.attentionBias = try fields.bool("attention_bias", missing: false)
        c.mlpBias = try fields.bool("mlp_bias", missing: false)
    }

    static let className = "Llama"

    static func huggingFaceFields(_ c: DecoderConfiguration) -> [String: JSONValue] { ["attention_bias": .bool(c.attentionBias), "mlp_bias": .bool(c.mlpBias)] }

    static func read(_ fields: GGUFFields, into c: inout DecoderConfiguration) throws {
        try requireWholeHeads(fields, c)
        // Mistral has no GGUF architecture of its own.
        if c.slidingWindow != nil { c.architecture = .mistral }
    }
}
