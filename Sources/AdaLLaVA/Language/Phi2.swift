/// Phi-2 (Javaheripi et al., 2023): attention and a plain MLP side by side, both of one LayerNorm; part of each head is rotated; biases everywhere.
///
///     h = layerNorm(x)
///     x += attention(h) + down(geluTanh(up(h)))
enum Phi2: DecoderFamily {
    static let headNeedsBias = true

    static func layer(_ load: LayerLoader) throws -> DecoderLayer {
        DecoderLayer(
            inputNorm: try load.layerNorm("input_layernorm"), attention: try load.attention(), mlpNorm: nil, mlp: .plain(try load.plainMLP()))
    }

    static func finalNorm(_ source: any TensorSource, _ c: DecoderConfiguration) throws -> Norm { try Norm(layer: source, "model.norm", c) }
}
