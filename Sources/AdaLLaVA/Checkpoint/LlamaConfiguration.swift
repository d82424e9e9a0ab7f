/// The shape of a LLaMA-family decoder, whichever file it was read from.
public struct LlamaConfiguration: Sendable, Equatable {
    public var vocabularySize: Int
    /// Values of a hidden state.
    public var hiddenSize: Int
    /// Neurons of a layer's MLP.
    public var intermediateSize: Int
    /// Decoder layers.
    public var numHiddenLayers: Int
    /// Heads of queries.
    public var numAttentionHeads: Int
    /// Heads of keys and values; smaller than `numAttentionHeads` with grouped-query attention.
    public var numKeyValueHeads: Int
    /// Values of one head.
    public var headDim: Int
    /// Added to the mean square in RMSNorm.
    public var rmsNormEpsilon: Float
    /// The base of the rotary position embedding's frequencies.
    public var ropeTheta: Double
    /// How the frequencies are changed for longer contexts; `nil` leaves them as they are.
    public var ropeScaling: RopeScaling?
    /// Whether the weights of queries and keys are ordered for rotating the pairs (2i, 2i+1), as GGUF's llama tensors are, and not
    /// (i, i + headDim/2), as Hugging Face's.
    public var ropeInterleaved: Bool
    /// Positions as the file names them; see ``contextLength``.
    public var maxPositionEmbeddings: Int
    /// Whether the output layer is the embedding table.
    public var tieWordEmbeddings: Bool
    /// Whether q, k, v and o have biases.
    public var attentionBias: Bool
    /// Whether gate, up and down have biases.
    public var mlpBias: Bool
    /// The token that starts a sequence.
    public var bosTokenID: Int?
    /// Tokens that end an answer.
    public var eosTokenIDs: [Int]
    /// The token that fills up batches.
    public var padTokenID: Int?
    /// The activation of the MLP's gate.
    public var hiddenActivation: Activation

    /// A shape given by value; what is left out is LLaMA's. Files are checked when they are read, this is not.
    public init(
        vocabularySize: Int, hiddenSize: Int, intermediateSize: Int, numHiddenLayers: Int, numAttentionHeads: Int,
        numKeyValueHeads: Int? = nil, headDim: Int? = nil, rmsNormEpsilon: Float = 1e-6, ropeTheta: Double = 10000,
        ropeScaling: RopeScaling? = nil, ropeInterleaved: Bool = false, maxPositionEmbeddings: Int = 2048,
        tieWordEmbeddings: Bool = false, attentionBias: Bool = false, mlpBias: Bool = false,
        bosTokenID: Int? = 1, eosTokenIDs: [Int] = [2], padTokenID: Int? = nil, hiddenActivation: Activation = .silu
    ) {
        self.vocabularySize = vocabularySize
        self.hiddenSize = hiddenSize
        self.intermediateSize = intermediateSize
        self.numHiddenLayers = numHiddenLayers
        self.numAttentionHeads = numAttentionHeads
        self.numKeyValueHeads = numKeyValueHeads ?? numAttentionHeads
        self.headDim = headDim ?? (numAttentionHeads > 0 ? hiddenSize / numAttentionHeads : 0)
        self.rmsNormEpsilon = rmsNormEpsilon
        self.ropeTheta = ropeTheta
        self.ropeScaling = ropeScaling
        self.ropeInterleaved = ropeInterleaved
        self.maxPositionEmbeddings = maxPositionEmbeddings
        self.tieWordEmbeddings = tieWordEmbeddings
        self.attentionBias = attentionBias
        self.mlpBias = mlpBias
        self.bosTokenID = bosTokenID
        self.eosTokenIDs = eosTokenIDs
        self.padTokenID = padTokenID
        self.hiddenActivation = hiddenActivation
    }

    /// Positions that prompt and answer may take together: `maxPositionEmbeddings`, stretched where the scaling of the rotary
    /// embedding says so. Configurations name the unstretched number for `linear` and `dynamic`, the stretched one for the others.
    public var contextLength: Int {
        let stretched: Double =
            switch ropeScaling {
            case .linear(let factor), .dynamic(let factor, _): Double(maxPositionEmbeddings) * factor
            case .yarn(let yarn): Double(yarn.originalMaxPositionEmbeddings) * yarn.factor
            default: 0
            }
        return max(maxPositionEmbeddings, Int(min(stretched, Double(ConfigurationLimits.positions.upperBound))))
    }

    /// Checks what ties the numbers to each other.
    /// - Parameter headDimGiven: whether the file names the head size; if not, the heads must divide the hidden size.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    func validate(headDimGiven: Bool, file: String) throws {
        func require(_ holds: Bool, _ field: String, _ expected: String, _ found: Int) throws {
            guard !holds else { return }
            throw CheckpointError.configuration(field: field, expected: expected, found: "\(found)", file: file)
        }
        try require(
            headDimGiven || hiddenSize % numAttentionHeads == 0, "hidden_size",
            "a multiple of the \(numAttentionHeads) attention heads", hiddenSize)
        try require(
            numAttentionHeads % numKeyValueHeads == 0, "num_key_value_heads",
            "a divisor of the \(numAttentionHeads) attention heads", numKeyValueHeads)
        try require(headDim >= 2 && headDim % 2 == 0, "head_dim", "an even number, for the rotary embedding turns pairs", headDim)
        for (field, token) in [("bos_token_id", bosTokenID)] + eosTokenIDs.map({ ("eos_token_id", $0) }) {
            if let token { try require(token < vocabularySize, field, "below the vocabulary's \(vocabularySize) tokens", token) }
        }
        try ropeScaling?.validate(headDim: headDim, maxPositionEmbeddings: maxPositionEmbeddings, file: file)
    }
}

/// Activation functions by the names configurations use.
public enum Activation: String, Sendable, CaseIterable {
    case silu
    /// x · sigmoid(1.702 x), as the original CLIP.
    case quickGELU = "quick_gelu"
    /// With the error function.
    case gelu
    /// The tanh approximation.
    case geluTanh = "gelu_tanh"

    /// The activation that Hugging Face calls `name`.
    init?(huggingFaceName name: String) {
        switch name {
        case "silu", "swish": self = .silu
        case "quick_gelu": self = .quickGELU
        case "gelu", "gelu_python": self = .gelu
        case "gelu_new", "gelu_pytorch_tanh", "gelu_tanh", "gelu_fast", "gelu_accurate": self = .geluTanh
        default: return nil
        }
    }
}

extension ConfigurationFields {
    func activation(_ name: String, missing: Activation) throws -> Activation {
        guard let text = try optionalString(name) else { return missing }
        guard let activation = Activation(huggingFaceName: text) else {
            throw invalid(name, expected: "one of silu, quick_gelu, gelu, gelu_new, gelu_pytorch_tanh")
        }
        return activation
    }
}

extension LlamaConfiguration {
    /// `model_type`s of decoders that are LLaMA's architecture under one name or another.
    static let huggingFaceModelTypes = ["llama", "mistral"]

    /// Reads the decoder's part of a Hugging Face configuration.
    /// - Parameters:
    ///   - fields: the whole of a `LlamaForCausalLM` or LLaVA `config.json`, or the `text_config` of llava-hf's.
    ///   - modelType: `llama` or `mistral`; decides what absent fields mean.
    ///   - requiresSizes: whether the sizes must be there. Hugging Face leaves defaults out of nested configurations only.
    init(huggingFace fields: ConfigurationFields, modelType: String, requiresSizes: Bool) throws {
        typealias Limits = ConfigurationLimits
        let isMistral = modelType == "mistral"
        func size(_ name: String, _ range: ClosedRange<Int>, _ missing: Int) throws -> Int {
            try fields.integer(name, in: range, missing: requiresSizes ? nil : missing)
        }
        let heads = try size("num_attention_heads", Limits.heads, 32)
        let keyValueHeads = try fields.optionalInteger("num_key_value_heads", in: Limits.heads)
        let headDim = try fields.optionalInteger("head_dim", in: Limits.headDim)
        let hidden = try size("hidden_size", Limits.hidden, 4096)

        var positions = try fields.integer("max_position_embeddings", in: Limits.positions, missing: isMistral ? 4096 * 32 : 2048)
        let absentWindow = isMistral && !fields.has("sliding_window") && !requiresSizes ? 4096 : nil
        if isMistral, let window = try fields.optionalInteger("sliding_window", in: Limits.positions) ?? absentWindow {
            // Up to the window's length every token sees all before it, so the model is plain LLaMA there.
            positions = min(positions, window)
        }
        if try fields.optionalNumber("partial_rotary_factor", in: 0...1) ?? 1 != 1 {
            throw CheckpointError.unsupported(what: "partial_rotary_factor below 1", file: fields.file, hint: "")
        }
        let rope = try RopeParameters(huggingFace: fields, maxPositionEmbeddings: positions)

        self.init(
            vocabularySize: try size("vocab_size", Limits.vocabulary, 32000),
            hiddenSize: hidden,
            intermediateSize: try size("intermediate_size", Limits.intermediate, isMistral ? 14336 : 11008),
            numHiddenLayers: try size("num_hidden_layers", Limits.layers, 32),
            numAttentionHeads: heads,
            numKeyValueHeads: keyValueHeads ?? (isMistral && !requiresSizes ? 8 : heads),
            headDim: headDim,
            rmsNormEpsilon: Float(try fields.number("rms_norm_eps", in: Limits.epsilon, missing: 1e-6)),
            ropeTheta: rope.theta,
            ropeScaling: rope.scaling,
            maxPositionEmbeddings: positions,
            tieWordEmbeddings: try fields.bool("tie_word_embeddings", missing: false),
            attentionBias: try fields.bool("attention_bias", missing: false),
            mlpBias: try fields.bool("mlp_bias", missing: false),
            bosTokenID: fields.has("bos_token_id") ? try fields.tokenID("bos_token_id") : 1,
            eosTokenIDs: fields.has("eos_token_id") ? try fields.tokenIDs("eos_token_id") : [2],
            padTokenID: try fields.tokenID("pad_token_id"),
            hiddenActivation: try fields.activation("hidden_act", missing: .silu))
        guard hiddenActivation == .silu else { throw fields.invalid("hidden_act", expected: "silu") }
        try validate(headDimGiven: headDim != nil, file: fields.file)
    }
}
