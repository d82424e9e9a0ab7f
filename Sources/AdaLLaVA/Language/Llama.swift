/// LLaMA (Touvron et al., 2023), with grouped-query attention as in Llama 2.
///
///     x += attention(rmsNorm(x))
///     x += down(silu(gate(rmsNorm(x))) * up(rmsNorm(x)))
enum Llama: DecoderFamily {
    static func layer(_ load: LayerLoader) throws -> DecoderLayer {
        DecoderLayer(
            inputNorm: try load.rmsNorm("input_layernorm"), attention: try load.attention(), mlpNorm: try load.rmsNorm("post_attention_layernorm"),
            mlp: .gated(try load.gatedMLP()))
    }

    static func finalNorm(_ source: any TensorSource, _ c: DecoderConfiguration) throws -> Norm { try Norm(rms: source, "model.norm", c) }
}
