/// Qwen2 (Yang et al., 2024): LLaMA's block with biases on queries, keys and values, which must be there.
enum Qwen2: DecoderFamily {
    static func layer(_ load: LayerLoader) throws -> DecoderLayer {
        for name in ["q_proj", "k_proj", "v_proj"] { _ = try load.source.tensor("\(load.prefix)self_attn.\(name).bias") }
        return try Llama.layer(load)
    }

    static func finalNorm(_ source: any TensorSource, _ c: DecoderConfiguration) throws -> Norm { try Llama.finalNorm(source, c) }
}
