/// Mistral 7B (Jiang et al., 2023): LLaMA's block; a query sees the last `slidingWindow` positions, its own included, and pages that no later query
/// sees are given back.
enum Mistral: DecoderFamily {
    static func layer(_ load: LayerLoader) throws -> DecoderLayer { try Llama.layer(load) }

    static func finalNorm(_ source: any TensorSource, _ c: DecoderConfiguration) throws -> Norm { try Llama.finalNorm(source, c) }
}
