/// LFM2's `Lfm2Config`, and GGUF's `lfm2`.
enum LFM2Description: DecoderDescription {
    static let modelType = "lfm2"
    static let llavaName = "lfm2"
    static let ggufArchitecture = "lfm2"
    static let className = "Lfm2"
    static let epsilonField = (huggingFace: "norm_eps", gguf: "attention.layer_norm_rms_epsilon")
    static let defaults = DecoderDefaults(
        vocabularySize: 65536, hiddenSize: 2560, intermediateSize: 12288, numHiddenLayers: 32, numAttentionHeads: 32, numKeyValueHeads: 8,
        maxPositionEmbeddings: 128_000, normEpsilon: 1e-5, bosTokenID: 1, eosTokenIDs: [2], tiesWordEmbeddings: true, ropeTheta: 1_000_000)
    static let huggingFaceModules: [(own: String, canonical: String)] = [
        (own: "model.embedding_norm", canonical: "model.norm"), ("operator_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"),
        ("self_attn.out_proj", "self_attn.o_proj"), ("self_attn.q_layernorm", "self_attn.q_norm"), ("self_attn.k_layernorm", "self_attn.k_norm"),
        ("feed_forward.w1", "mlp.gate_proj"), ("feed_forward.w2", "mlp.down_proj"), ("feed_forward.w3", "mlp.up_proj"),
    ]
    static let ggufModules: [(gguf: String, canonical: String)] = [(gguf: "token_embd_norm", canonical: "model.norm")]
    static let ggufLayerModules: [(gguf: String, canonical: String)] = [
        (gguf: "shortconv.conv", canonical: "conv.conv"), ("shortconv.in_proj", "conv.in_proj"), ("shortconv.out_proj", "conv.out_proj"),
    ]

    private static let taps = 2 ... 64

    /// Whether a tensor holds the taps of a convolution.
    static func isConvolution(_ name: String) -> Bool { name.hasSuffix(".conv.conv.weight") }

    /// Before they are adjusted; published files have the first name.
    static func intermediateSizeField(_ fields: ConfigurationFields) -> String { fields.has("block_ff_dim") ? "block_ff_dim" : "intermediate_size" }

    static func read(_ fields: ConfigurationFields, _ rope: RopeParameters, into c: inout DecoderConfiguration) throws {
        try requireWholeHeadsAndSiLU(fields, rope, c)
        c.intermediateSize = try neurons(fields, c.intermediateSize)
        c.convolutionTaps = try fields.integer("conv_L_cache", in: taps, missing: 3)
        c.convolutionBias = try fields.bool("conv_bias", missing: false)
        if fields.has("tie_embedding") { c.tieWordEmbeddings = try fields.bool("tie_embedding", missing: true) }
        let layers = c.numHiddenLayers
        if fields.has("layer_types") {
            setKinds(try fields.layerKinds([.convolution, .attention], layers: layers), into: &c)
        } else if let indices = try fields.optionalNumbers("full_attn_idxs", counts: 0 ... layers, in: 0 ... Double(layers - 1)) {
            setKinds((0 ..< layers).map { indices.contains(Double($0)) ? .attention : .convolution }, into: &c)
        }
    }

    /// `Lfm2MLP`'s size: two thirds of the field, times a factor, rounded up to a multiple.
    private static func neurons(_ fields: ConfigurationFields, _ size: Int) throws -> Int {
        let limits = ConfigurationLimits.intermediate
        guard try fields.bool("block_auto_adjust_ff_dim", missing: true) else { return size }
        let two = Int(Double(2 * size) / 3)
        guard !fields.isNull("block_ffn_dim_multiplier") else { return two }
        let factor = try fields.number("block_ffn_dim_multiplier", in: 1e-3 ... 64, missing: 1)
        let multiple = try fields.integer("block_multiple_of", in: limits, missing: 256)
        let adjusted = (Int(factor * Double(two)) + multiple - 1) / multiple * multiple
        guard limits.contains(adjusted) else {
            throw fields.invalid("block_ffn_dim_multiplier", expected: "a factor that leaves 1 to \(limits.upperBound) neurons, not \(adjusted)")
        }
        return adjusted
    }

    private static func setKinds(_ kinds: [DecoderLayerKind], into c: inout DecoderConfiguration) {
        c.layerKinds = kinds.contains(.convolution) ? kinds : []
    }

    static func read(_ fields: GGUFFields, into c: inout DecoderConfiguration) throws {
        try requireWholeHeads(fields, c)
        guard c.slidingWindow == nil else {
            throw CheckpointError.unsupported(
                what: fields.key("attention.sliding_window"), file: fields.location, hint: "LFM2 is published without a window")
        }
        c.convolutionTaps = try fields.integer(fields.key("shortconv.l_cache"), in: taps)
        let key = fields.key("attention.head_count_kv")
        guard case .array(let array)? = fields.metadata[key] else { return }
        guard let heads = array.integers(), heads.count == c.numHiddenLayers else {
            throw fields.invalid(key, expected: "a number of heads for each of the \(c.numHiddenLayers) layers")
        }
        setKinds(heads.map { $0 == 0 ? .convolution : .attention }, into: &c)
    }

    static func ggufMetadata(_ c: DecoderConfiguration) throws -> [(key: String, value: GGUFValue)] {
        guard !c.convolutionBias else {
            throw CheckpointError.unsupported(what: "biases of convolutions (conv_bias) in a GGUF file", file: "the model", hint: "write safetensors")
        }
        let heads = (0 ..< c.numHiddenLayers).map { c.kind($0) == .convolution ? 0 : Int32(clamping: c.numKeyValueHeads) }
        return [
            ("\(ggufArchitecture).attention.head_count_kv", .array(GGUFArray(heads))),
            ("\(ggufArchitecture).shortconv.l_cache", .uint32(UInt32(clamping: c.convolutionTaps))),
        ]
    }

    static func huggingFaceFields(_ c: DecoderConfiguration) -> [String: JSONValue] {
        [
            "block_auto_adjust_ff_dim": false, "conv_L_cache": .integer(c.convolutionTaps), "conv_bias": .bool(c.convolutionBias),
            "layer_types": .array((0 ..< c.numHiddenLayers).map { .string(c.kind($0).rawValue) }),
        ]
    }
}
