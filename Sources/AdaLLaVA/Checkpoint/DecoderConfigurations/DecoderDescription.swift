/// Fields of one decoder architecture, and their defaults, in Hugging Face's `config.json` and in GGUF's metadata.
///
/// Sizes, rotary embedding and special tokens are read alike for all; an architecture's own file has the rest.
protocol DecoderDescription {
    /// `model_type` of a text model's `config.json`.
    static var modelType: String { get }
    /// The rest of the model type after `llava_` and `ada_llava_` in LLaVA's own layout.
    static var llavaName: String { get }
    /// `general.architecture` of its GGUF files, with which the names of their keys begin.
    static var ggufArchitecture: String { get }
    /// Whether its GGUF files have the rows of queries and keys ordered for rotating the pairs (2i, 2i+1).
    static var ggufIsInterleaved: Bool { get }
    /// Whether its safetensors store the weights of RMSNorms less 1.
    static var normsAddOne: Bool { get }
    /// The fields of the norms' epsilon.
    static var epsilonField: (huggingFace: String, gguf: String) { get }
    /// Defaults of absent fields, as in transformers.
    static var defaults: DecoderDefaults { get }
    /// The field of the neurons of an MLP.
    static func intermediateSizeField(_ fields: ConfigurationFields) -> String
    /// Modules that Hugging Face's class calls otherwise than LLaMA's: its name, canonical name. Those of a layer without `model.layers.N.`.
    static var huggingFaceModules: [(own: String, canonical: String)] { get }
    /// Modules outside the layers that GGUF calls otherwise than LLaMA's: name in GGUF, canonical name.
    static var ggufModules: [(gguf: String, canonical: String)] { get }
    /// Modules of a layer that GGUF calls otherwise than LLaMA's: name in GGUF, canonical name.
    static var ggufLayerModules: [(gguf: String, canonical: String)] { get }
    /// Reads the fields of this architecture alone, and refuses fields that it does not have.
    /// - Parameter rope: read from the same fields.
    static func read(_ fields: ConfigurationFields, _ rope: RopeParameters, into c: inout DecoderConfiguration) throws
    /// The same of GGUF metadata.
    static func read(_ fields: GGUFFields, into c: inout DecoderConfiguration) throws
    /// The keys of GGUF metadata that other architectures do not have.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for features without GGUF keys.
    static func ggufMetadata(_ c: DecoderConfiguration) throws -> [(key: String, value: GGUFValue)]
    /// The fields of `config.json` that other architectures do not have.
    static func huggingFaceFields(_ c: DecoderConfiguration) -> [String: JSONValue]
    /// Hugging Face's class for text is called this, and `ForCausalLM`.
    static var className: String { get }
}

/// Defaults of absent fields of a decoder's configuration, as in transformers.
struct DecoderDefaults {
    var vocabularySize = 32000
    var hiddenSize = 4096
    var intermediateSize = 11008
    var numHiddenLayers = 32
    var numAttentionHeads = 32
    /// `nil`: as many as there are heads.
    var numKeyValueHeads: Int?
    var maxPositionEmbeddings = 2048
    var normEpsilon = 1e-6
    var bosTokenID: Int? = 1
    var eosTokenIDs = [2]
    var activation = Activation.silu
    var tiesWordEmbeddings = false
    /// `nil`: the hidden size over the heads.
    var headDim: Int?
    var ropeTheta = 10000.0
}

extension DecoderDescription {
    static var epsilonField: (huggingFace: String, gguf: String) { ("rms_norm_eps", "attention.layer_norm_rms_epsilon") }

    static var ggufIsInterleaved: Bool { false }

    static var normsAddOne: Bool { false }

    static func intermediateSizeField(_ fields: ConfigurationFields) -> String { "intermediate_size" }

    static var huggingFaceModules: [(own: String, canonical: String)] { [] }

    static var ggufModules: [(gguf: String, canonical: String)] { [] }

    static var ggufLayerModules: [(gguf: String, canonical: String)] { [] }

    static func ggufMetadata(_ c: DecoderConfiguration) throws -> [(key: String, value: GGUFValue)] { [] }

    /// Refuses features of Phi-2.
    static func requireWholeHeadsAndSiLU(_ fields: ConfigurationFields, _ rope: RopeParameters, _ c: DecoderConfiguration) throws {
        if rope.partialFactor ?? 1 != 1 {
            throw CheckpointError.unsupported(
                what: "partial_rotary_factor below 1 in a \(modelType) model", file: fields.file, hint: "\(Phi2Description.modelType) has it")
        }
        guard c.hiddenActivation == .silu else { throw fields.invalid("hidden_act", expected: "silu") }
    }

    /// The keys with which a GGUF file names a part of the head's values, all of which must be rotated.
    static func requireWholeHeads(_ fields: GGUFFields, _ c: DecoderConfiguration) throws {
        guard c.rotaryDim != c.headDim else { return }
        throw CheckpointError.unsupported(
            what: "\(fields.key("rope.dimension_count")) \(c.rotaryDim) with heads of \(c.headDim) values", file: fields.location,
            hint: "they must be equal")
    }
}

extension DecoderArchitecture {
    /// Its name in files.
    var fileDescription: any DecoderDescription.Type {
        switch self {
        case .llama: LlamaDescription.self
        case .mistral: MistralDescription.self
        case .qwen2: Qwen2Description.self
        case .phi2: Phi2Description.self
        case .gemma3: Gemma3Description.self
        case .lfm2: LFM2Description.self
        }
    }

    /// The architecture that Hugging Face calls `modelType`.
    init?(modelType: String) {
        guard let found = Self.allCases.first(where: { $0.fileDescription.modelType == modelType }) else { return nil }
        self = found
    }

    static var modelTypes: [String] { allCases.map { $0.fileDescription.modelType } }
    static var llavaNames: [String] { allCases.map { $0.fileDescription.llavaName } }

    /// GGUF architectures, each once.
    static var ggufArchitectures: [String] {
        allCases.reduce(into: []) { names, architecture in
            let name = architecture.fileDescription.ggufArchitecture
            if !names.contains(name) { names.append(name) }
        }
    }
}

extension DecoderConfiguration {
    /// Reads the decoder's part of a Hugging Face configuration.
    /// - Parameters:
    ///   - fields: the whole of a text model's or LLaVA's own `config.json`, or the `text_config` of llava-hf's.
    ///   - architecture: decides which fields exist and their defaults.
    ///   - requiresSizes: whether the sizes must be there. Hugging Face leaves defaults out of nested configurations only.
    /// - Throws: ``CheckpointError``
    init(huggingFace fields: ConfigurationFields, architecture: DecoderArchitecture, requiresSizes: Bool) throws {
        typealias Limits = ConfigurationLimits
        let (description, defaults) = (architecture.fileDescription, architecture.fileDescription.defaults)
        func size(_ name: String, _ range: ClosedRange<Int>, _ missing: Int) throws -> Int {
            try fields.integer(name, in: range, missing: requiresSizes ? nil : missing)
        }
        let heads = try size("num_attention_heads", Limits.heads, defaults.numAttentionHeads)
        let keyValueHeads = try fields.optionalInteger("num_key_value_heads", in: Limits.heads)
        let headDim = try fields.optionalInteger("head_dim", in: Limits.headDim) ?? defaults.headDim
        let hidden = try size("hidden_size", Limits.hidden, defaults.hiddenSize)
        let positions = try fields.integer("max_position_embeddings", in: Limits.positions, missing: defaults.maxPositionEmbeddings)
        let rope = try RopeParameters(huggingFace: fields, maxPositionEmbeddings: positions, missingTheta: defaults.ropeTheta)
        self.init(
            architecture: architecture,
            vocabularySize: try size("vocab_size", Limits.vocabulary, defaults.vocabularySize),
            hiddenSize: hidden,
            intermediateSize: try size(description.intermediateSizeField(fields), Limits.intermediate, defaults.intermediateSize),
            numHiddenLayers: try size("num_hidden_layers", Limits.layers, defaults.numHiddenLayers),
            numAttentionHeads: heads,
            numKeyValueHeads: keyValueHeads ?? (requiresSizes ? heads : defaults.numKeyValueHeads ?? heads),
            headDim: headDim,
            normEpsilon: Float(try fields.number(description.epsilonField.huggingFace, in: Limits.epsilon, missing: defaults.normEpsilon)),
            ropeTheta: rope.theta,
            ropeScaling: rope.scaling,
            maxPositionEmbeddings: positions,
            tieWordEmbeddings: try fields.bool("tie_word_embeddings", missing: defaults.tiesWordEmbeddings),
            bosTokenID: fields.has("bos_token_id") ? try fields.tokenID("bos_token_id") : defaults.bosTokenID,
            eosTokenIDs: fields.has("eos_token_id") ? try fields.tokenIDs("eos_token_id") : defaults.eosTokenIDs,
            padTokenID: try fields.tokenID("pad_token_id"),
            hiddenActivation: try fields.activation("hidden_act", missing: defaults.activation))
        (normsAddOne, ropeSections) = (description.normsAddOne, rope.sections)
        try description.read(fields, rope, into: &self)
        try validate(headDimGiven: headDim != nil, file: fields.file)
    }
}
