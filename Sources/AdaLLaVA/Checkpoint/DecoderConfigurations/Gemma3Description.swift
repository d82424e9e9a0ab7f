import Foundation

/// Gemma 3's `Gemma3TextConfig`, alone or as the `text_config` of `Gemma3Config`, and GGUF's `gemma3`.
enum Gemma3Description: DecoderDescription {
    static let modelType = "gemma3_text"
    static let llavaName = "gemma3"
    static let ggufArchitecture = "gemma3"
    static let className = "Gemma3"
    static let normsAddOne = true
    static let defaults = DecoderDefaults(
        vocabularySize: 262_208, hiddenSize: 2304, intermediateSize: 9216, numHiddenLayers: 26, numAttentionHeads: 8, numKeyValueHeads: 4,
        maxPositionEmbeddings: 131_072, bosTokenID: 2, eosTokenIDs: [1], activation: .geluTanh, tiesWordEmbeddings: true, headDim: 256,
        ropeTheta: 1_000_000)
    static let ggufLayerModules: [(gguf: String, canonical: String)] = [
        (gguf: "post_attention_norm", canonical: "post_attention_layernorm"), ("ffn_norm", "pre_feedforward_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ]

    /// One layer of so many sees all positions.
    private static let pattern = 6
    private static let localTheta = 10000.0
    /// Layers of the 27B model, whose queries are scaled by another number; GGUF files do not say so.
    private static let layersOf27B = 62

    static func read(_ fields: ConfigurationFields, _ rope: RopeParameters, into c: inout DecoderConfiguration) throws {
        guard try fields.activation("hidden_activation", missing: .geluTanh) == .geluTanh, c.hiddenActivation == .geluTanh else {
            throw fields.invalid("hidden_activation", expected: "gelu_pytorch_tanh")
        }
        for name in ["attn_logit_softcapping", "use_bidirectional_attention"] where fields.has(name) && fields.raw(name) != JSONValue.bool(false) {
            throw CheckpointError.unsupported(what: "\(name) in a \(modelType) model", file: fields.file, hint: "Gemma 3 is published without it")
        }
        c.attentionBias = try fields.bool("attention_bias", missing: false)
        c.queryScalar = try fields.number("query_pre_attn_scalar", in: 1e-3...1e6, missing: 256)
        c.finalLogitSoftcap = try fields.optionalNumber("final_logit_softcapping", in: 1e-3...1e6).map(Float.init)
        let window = fields.isNull("sliding_window") ? nil : try fields.integer("sliding_window", in: ConfigurationLimits.positions, missing: 4096)
        setKinds(try kinds(fields, layers: c.numHiddenLayers), window: window, into: &c)
        let local = try fields.optionalObject("rope_parameters")?.optionalObject(DecoderLayerKind.slidingAttention.rawValue)
        let type = try local?.optionalString("rope_type") ?? "default"
        guard type == "default" else {
            throw CheckpointError.unsupported(what: "the rope_type \"\(type.prefix(40))\" in layers with a window", file: fields.file, hint: "supported: default")
        }
        let theta = try local?.optionalNumber("rope_theta", in: RopeParameters.bases)
        c.localRopeTheta = try theta ?? fields.number("rope_local_base_freq", in: RopeParameters.bases, missing: localTheta)
    }

    /// `layer_types`, or `sliding_window_pattern` of earlier versions.
    private static func kinds(_ fields: ConfigurationFields, layers: Int) throws -> [DecoderLayerKind] {
        guard fields.has("layer_types") else {
            let pattern = try fields.integer("sliding_window_pattern", in: ConfigurationLimits.layers, missing: pattern)
            return (1 ... layers).map { $0 % pattern == 0 ? .attention : .slidingAttention }
        }
        return try fields.layerKinds([.attention, .slidingAttention], layers: layers)
    }

    /// `query_pre_attn_scalar` as readers of GGUF take it.
    private static func impliedQueryScalar(_ c: DecoderConfiguration) -> Int {
        c.numHiddenLayers == layersOf27B ? c.hiddenSize / c.numAttentionHeads : c.headDim
    }

    private static func setKinds(_ kinds: [DecoderLayerKind], window: Int?, into c: inout DecoderConfiguration) {
        c.slidingWindow = kinds.contains(.slidingAttention) ? window : nil
        c.layerKinds = c.slidingWindow == nil ? [] : kinds
    }

    static func read(_ fields: GGUFFields, into c: inout DecoderConfiguration) throws {
        try requireWholeHeads(fields, c)
        c.hiddenActivation = .geluTanh
        c.queryScalar = Double(impliedQueryScalar(c))
        let cap = fields.key("final_logit_softcapping")
        if fields.metadata[cap] != nil { c.finalLogitSoftcap = Float(try fields.number(cap, in: 0...1e6, missing: 0)) }
        if c.finalLogitSoftcap == 0 { c.finalLogitSoftcap = nil }
        let key = fields.key("attention.sliding_window_pattern")
        let kinds: [DecoderLayerKind]
        if case .array(let array)? = fields.metadata[key] {
            guard let flags = array.bools(), flags.count == c.numHiddenLayers else {
                throw fields.invalid(key, expected: "true or false for each of the \(c.numHiddenLayers) layers")
            }
            kinds = flags.map { $0 ? .slidingAttention : .attention }
        } else {
            let pattern = try fields.optionalInteger(key, in: ConfigurationLimits.layers) ?? pattern
            kinds = (1 ... c.numHiddenLayers).map { $0 % pattern == 0 ? .attention : .slidingAttention }
        }
        setKinds(kinds, window: c.slidingWindow, into: &c)
        c.localRopeTheta = try fields.number(fields.key("rope.freq_base_swa"), in: RopeParameters.bases, missing: localTheta)
    }

    static func ggufMetadata(_ c: DecoderConfiguration) throws -> [(key: String, value: GGUFValue)] {
        let implied = impliedQueryScalar(c)
        guard c.queryScalar == nil || c.queryScalar == Double(implied) else {
            throw CheckpointError.unsupported(
                what: "query_pre_attn_scalar \(c.queryScalar ?? 0) in a GGUF file, whose readers take \(implied)", file: "the model",
                hint: "write safetensors")
        }
        var pairs: [(key: String, value: GGUFValue)] = [("\(ggufArchitecture).rope.freq_base_swa", .float32(Float(c.localRopeTheta ?? localTheta)))]
        if !c.layerKinds.isEmpty {
            pairs.append(("\(ggufArchitecture).attention.sliding_window_pattern", .array(GGUFArray(c.layerKinds.map { $0 == .slidingAttention }))))
        }
        if let cap = c.finalLogitSoftcap { pairs.append(("\(ggufArchitecture).final_logit_softcapping", .float32(cap))) }
        return pairs
    }

    static func huggingFaceFields(_ c: DecoderConfiguration) -> [String: JSONValue] {
        [
            "hidden_activation": "gelu_pytorch_tanh", "attention_bias": .bool(c.attentionBias),
            "query_pre_attn_scalar": .number(c.queryScalar ?? Double(c.headDim)), "sliding_window": JSONValue(c.slidingWindow),
            "rope_local_base_freq": .number(c.localRopeTheta ?? localTheta),
            "layer_types": .array((0 ..< c.numHiddenLayers).map { .string(c.kind($0).rawValue) }),
            "final_logit_softcapping": JSONValue(c.finalLogitSoftcap.map { Double($0) }),
        ]
    }
}
