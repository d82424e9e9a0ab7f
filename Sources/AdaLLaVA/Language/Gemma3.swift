/// Gemma 3 (Gemma Team, 2025): a norm before and after attention and MLP, norms of each head's query and key, and GeGLU. Most layers see a window of
/// positions and turn heads by a base of their own; embeddings are multiplied by √hidden.
///
///     x += rmsNorm(attention(rmsNorm(x)))
///     x += rmsNorm(down(geluTanh(gate(rmsNorm(x))) * up(rmsNorm(x))))
enum Gemma3: DecoderFamily {
    static func layer(_ load: LayerLoader) throws -> DecoderLayer {
        DecoderLayer(
            inputNorm: try load.rmsNorm("input_layernorm"), attention: try load.attention(normsHeads: true),
            attentionOutputNorm: try load.rmsNorm("post_attention_layernorm"), mlpNorm: try load.rmsNorm("pre_feedforward_layernorm"),
            mlp: .gated(try load.gatedMLP()), mlpOutputNorm: try load.rmsNorm("post_feedforward_layernorm"))
    }

    static func finalNorm(_ source: any TensorSource, _ c: DecoderConfiguration) throws -> Norm { try Norm(rms: source, "model.norm", c) }
}
