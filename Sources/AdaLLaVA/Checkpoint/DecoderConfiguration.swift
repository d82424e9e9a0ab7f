/// The decoders that can be run: the structure of a block, and the names of its weights.
package enum DecoderArchitecture: String, Sendable, CaseIterable {
    /// LLaMA (Touvron et al., 2023).
    case llama
    /// Mistral 7B (Jiang et al., 2023): LLaMA's block whose attention slides over a window.
    case mistral
    /// Qwen2 (Yang et al., 2024): LLaMA's block with biases on queries, keys and values.
    case qwen2
    /// Phi-2 (Javaheripi et al., 2023): attention and a plain MLP in parallel after one LayerNorm, with a part of each head rotated.
    case phi2
    /// Gemma 3 (Gemma Team, 2025): GeGLU between sandwich norms, heads normed, most layers with a window.
    case gemma3
    /// LFM2 (Liquid AI, 2025): gated short convolutions between layers with attention, heads normed.
    case lfm2

    /// The name that its authors use.
    package var name: String {
        switch self {
        case .llama: "LLaMA"
        case .mistral: "Mistral"
        case .qwen2: "Qwen2"
        case .phi2: "Phi-2"
        case .gemma3: "Gemma 3"
        case .lfm2: "LFM2"
        }
    }

    /// Whether the MLP's middle is a product with a gate, so that it has three matrices and not two.
    package var hasGate: Bool { self != .phi2 }
}

/// How a decoder layer mixes positions.
package enum DecoderLayerKind: String, Sendable, Hashable {
    /// Attention to all positions before.
    case attention = "full_attention"
    /// Attention to the last positions, as many as the window has.
    case slidingAttention = "sliding_attention"
    /// A gated convolution over the last few positions.
    case convolution = "conv"
}

/// The shape of a decoder, independent of the file's format.
package struct DecoderConfiguration: Sendable, Equatable {
    /// Which block the layers have.
    package var architecture = DecoderArchitecture.llama
    package var vocabularySize: Int
    /// Values of a hidden state.
    package var hiddenSize: Int
    /// Neurons of a layer's MLP.
    package var intermediateSize: Int
    /// Decoder layers.
    package var numHiddenLayers: Int
    /// Heads of queries.
    package var numAttentionHeads: Int
    /// Heads of keys and values; smaller than `numAttentionHeads` with grouped-query attention.
    package var numKeyValueHeads: Int
    /// Values of one head.
    package var headDim: Int
    /// Added to the mean square in RMSNorm, or to the variance in LayerNorm.
    package var normEpsilon: Float
    /// Positions that a query sees, its own included, in layers with a window; `nil`: all before it (Mistral, Jiang et al., 2023).
    package var slidingWindow: Int?
    /// How each layer mixes positions; empty: all alike, with the window where there is one.
    package var layerKinds: [DecoderLayerKind] = []
    /// Values of a head that the rotary embedding turns, its first; the others keep no position (Phi-2). Usually `headDim`.
    package var rotaryDim: Int
    /// The base of the rotary position embedding's frequencies.
    package var ropeTheta: Double
    /// Pairs of a head that are turned by the position in time, in height and in width, and so on in turn (Qwen2-VL); empty: all by one position.
    package var ropeSections: [Int] = []
    /// Positions that a convolution reads, its own included, and whether its parts must have biases.
    package var convolutionTaps = 0
    package var convolutionBias = false
    /// The base in layers with a window, where it differs (Gemma 3); frequencies are not scaled there.
    package var localRopeTheta: Double?
    /// How the frequencies are changed for longer contexts; `nil` leaves them as they are.
    package var ropeScaling: RopeScaling?
    /// Whether the weights of queries and keys are ordered for rotating the pairs (2i, 2i+1), as GGUF's llama tensors are, and not
    /// (i, i + headDim/2), as Hugging Face's.
    package var ropeInterleaved: Bool
    /// Positions as the file names them; see ``contextLength``.
    package var maxPositionEmbeddings: Int
    /// Whether the output layer is the embedding table.
    package var tieWordEmbeddings: Bool
    /// Whether q, k, v and o must have biases. A bias that is there is always added.
    package var attentionBias: Bool
    /// Whether the MLP's matrices must have biases. A bias that is there is always added.
    package var mlpBias: Bool
    /// The token that starts a sequence.
    package var bosTokenID: Int?
    /// Tokens that end an answer.
    package var eosTokenIDs: [Int]
    /// The token that fills up batches.
    package var padTokenID: Int?
    /// Special tokens that the file names and the vocabulary does not hold, each in words: they are left out.
    package internal(set) var ignoredTokens: [String] = []
    /// The activation of the MLP's gate, or of its only middle.
    package var hiddenActivation: Activation
    /// Products of queries and keys are divided by the square root of this; `nil`: of ``headDim``.
    package var queryScalar: Double?
    /// Whether the file stores the weights of RMSNorms less 1, as Gemma's safetensors do.
    package var normsAddOne = false
    /// Logits become `cap * tanh(logits / cap)`; `nil` leaves them as they are.
    package var finalLogitSoftcap: Float?

    /// A shape given by value; defaults are LLaMA's. Only shapes from files are checked.
    package init(
        architecture: DecoderArchitecture = .llama, vocabularySize: Int, hiddenSize: Int, intermediateSize: Int, numHiddenLayers: Int, numAttentionHeads: Int,
        numKeyValueHeads: Int? = nil, headDim: Int? = nil, normEpsilon: Float = 1e-6,
        slidingWindow: Int? = nil, rotaryDim: Int? = nil, ropeTheta: Double = 10000, ropeScaling: RopeScaling? = nil, ropeInterleaved: Bool = false,
        maxPositionEmbeddings: Int = 2048, tieWordEmbeddings: Bool = false, attentionBias: Bool = false, mlpBias: Bool = false,
        bosTokenID: Int? = 1, eosTokenIDs: [Int] = [2], padTokenID: Int? = nil, hiddenActivation: Activation = .silu
    ) {
        self.architecture = architecture
        self.vocabularySize = vocabularySize
        self.hiddenSize = hiddenSize
        self.intermediateSize = intermediateSize
        self.numHiddenLayers = numHiddenLayers
        self.numAttentionHeads = numAttentionHeads
        self.numKeyValueHeads = numKeyValueHeads ?? numAttentionHeads
        self.headDim = headDim ?? (numAttentionHeads > 0 ? hiddenSize / numAttentionHeads : 0)
        self.normEpsilon = normEpsilon
        self.slidingWindow = slidingWindow
        self.rotaryDim = rotaryDim ?? self.headDim
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

    /// How a layer mixes positions.
    package func kind(_ layer: Int) -> DecoderLayerKind {
        layerKinds.indices.contains(layer) ? layerKinds[layer] : slidingWindow == nil ? .attention : .slidingAttention
    }

    /// Positions that a query sees in a layer, its own included; `nil`: all before it.
    package func window(_ layer: Int) -> Int? { window(kind(layer)) }

    /// Positions that a query sees in layers of a kind; `nil`: all before it.
    func window(_ kind: DecoderLayerKind) -> Int? { kind == .slidingAttention ? slidingWindow : nil }

    /// Factor of the products of queries and keys.
    var attentionScale: Float { Float(1 / (queryScalar ?? Double(headDim)).squareRoot()) }

    /// Factor of token embeddings; `nil` for none.
    var embeddingScale: Float? { architecture == .gemma3 ? Float(hiddenSize).squareRoot() : nil }

    /// Positions that prompt and answer may take together: `maxPositionEmbeddings`, stretched where the scaling of the rotary
    /// embedding says so. Configurations name the unstretched number for `linear` and `dynamic`, but for Gemma's, the stretched one for the others.
    package var contextLength: Int {
        if architecture == .gemma3 { return maxPositionEmbeddings }
        let stretched: Double =
            switch ropeScaling {
            case .linear(let factor), .dynamic(let factor, _): Double(maxPositionEmbeddings) * factor
            case .yarn(let yarn): Double(yarn.originalMaxPositionEmbeddings) * yarn.factor
            default: 0
            }
        return max(maxPositionEmbeddings, Int(min(stretched, Double(ConfigurationLimits.positions.upperBound))))
    }

    /// Checks the relations between the numbers.
    /// - Parameter headDimGiven: whether the file names the head size; if not, the heads must divide the hidden size.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    mutating func validate(headDimGiven: Bool, file: String) throws {
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
        try require(
            (2 ... headDim).contains(rotaryDim) && rotaryDim % 2 == 0, "the rotary size",
            "an even number from 2 to the \(headDim) values of a head", rotaryDim)
        let tokens: [(String, Int?)] = [("bos_token_id", bosTokenID)] + eosTokenIDs.map { ("eos_token_id", $0) }
        let known = 0 ..< vocabularySize
        for case (let field, let token?) in tokens where !known.contains(token) {
            ignoredTokens.append(unknownToken(field, token, file: file))
        }
        bosTokenID = bosTokenID.flatMap { known.contains($0) ? $0 : nil }
        eosTokenIDs.removeAll { !known.contains($0) }
        try ropeScaling?.validate(rotaryDim: rotaryDim, maxPositionEmbeddings: maxPositionEmbeddings, file: file)
    }
}

extension DecoderConfiguration {
    /// Warning about a special token outside the vocabulary: the model cannot generate it, so it is ignored.
    func unknownToken(_ field: String, _ token: Int, file: String) -> String {
        CheckpointError.configuration(field: field, expected: "below the vocabulary's \(vocabularySize) tokens", found: "\(token)", file: file).description
    }
}

/// Activation functions by the names configurations use.
package enum Activation: String, Sendable, CaseIterable {
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
    /// `layer_types`: how each layer mixes positions.
    /// - Parameter known: the kinds that the architecture has.
    func layerKinds(_ known: [DecoderLayerKind], layers: Int) throws -> [DecoderLayerKind] {
        var kinds: [DecoderLayerKind] = []
        if case .array(let types) = raw("layer_types") {
            kinds = types.compactMap { type in known.first { type == .string($0.rawValue) } }
            if kinds.count != types.count { kinds = [] }
        }
        guard kinds.count == layers else {
            throw invalid("layer_types", expected: "\(known.map(\.rawValue).joined(separator: " or ")) for each of the \(layers) layers")
        }
        return kinds
    }

    func activation(_ name: String, missing: Activation) throws -> Activation {
        guard let text = try optionalString(name) else { return missing }
        guard let activation = Activation(huggingFaceName: text) else {
            throw invalid(name, expected: "one of silu, quick_gelu, gelu, gelu_new, gelu_pytorch_tanh")
        }
        return activation
    }
}
