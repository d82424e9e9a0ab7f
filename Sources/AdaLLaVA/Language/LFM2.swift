/// LFM2 (Liquid AI, 2025): LLaMA's block with norms of each head's query and key; in most layers a gated short convolution replaces attention.
///
///     x += attention(rmsNorm(x))            or    x += output(c * convolution(b * v)) with b, c, v = in(rmsNorm(x))
///     x += down(silu(gate(rmsNorm(x))) * up(rmsNorm(x)))
enum LFM2: DecoderFamily {
    static func layer(_ load: LayerLoader) throws -> DecoderLayer {
        let mixer: Mixer = try load.configuration.kind(load.index) == .convolution
            ? .convolution(load.shortConvolution()) : .attention(load.attention(normsHeads: true))
        return DecoderLayer(
            inputNorm: try load.rmsNorm("input_layernorm"), mixer: mixer, mlpNorm: try load.rmsNorm("post_attention_layernorm"),
            mlp: .gated(try load.gatedMLP()))
    }

    static func finalNorm(_ source: any TensorSource, _ c: DecoderConfiguration) throws -> Norm { try Norm(rms: source, "model.norm", c) }
}
