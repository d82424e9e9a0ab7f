/// What a checkpoint proposes for generating text (`generation_config.json`). `nil` means that it says nothing.
public struct GenerationDefaults: Sendable, Equatable {
    /// The token that starts a sequence.
    public var bosTokenID: Int?
    /// Tokens that end an answer.
    public var eosTokenIDs: [Int]
    /// The token that fills up batches.
    public var padTokenID: Int?
    /// Whether to sample; greedy otherwise.
    public var doSample: Bool?
    /// See ``SamplingOptions/temperature``.
    public var temperature: Double?
    /// See ``SamplingOptions/topP``.
    public var topP: Double?
    /// See ``SamplingOptions/topK``.
    public var topK: Int?
    /// See ``SamplingOptions/minP``.
    public var minP: Double?
    /// See ``SamplingOptions/repetitionPenalty``.
    public var repetitionPenalty: Double?
    /// The longest answer, in tokens.
    public var maxNewTokens: Int?
    /// Prompt and answer together.
    public var maxLength: Int?

    /// Defaults that propose nothing but their tokens.
    public init(bosTokenID: Int? = nil, eosTokenIDs: [Int] = [], padTokenID: Int? = nil) {
        (self.bosTokenID, self.eosTokenIDs, self.padTokenID) = (bosTokenID, eosTokenIDs, padTokenID)
    }

    /// The special tokens of a model's configuration, for checkpoints without a `generation_config.json`.
    public init(_ language: DecoderConfiguration) {
        self.init(bosTokenID: language.bosTokenID, eosTokenIDs: language.eosTokenIDs, padTokenID: language.padTokenID)
    }

    /// Reads `generation_config.json`; special tokens that it does not name are those of `language`.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    public static func read(_ json: JSONValue, file: String, language: DecoderConfiguration) throws -> GenerationDefaults {
        let fields = try ConfigurationFields(json, file: file)
        var defaults = GenerationDefaults(language)
        if fields.has("bos_token_id") { defaults.bosTokenID = try fields.tokenID("bos_token_id") }
        if fields.has("eos_token_id") { defaults.eosTokenIDs = try fields.tokenIDs("eos_token_id") }
        if fields.has("pad_token_id") { defaults.padTokenID = try fields.tokenID("pad_token_id") }
        for token in defaults.eosTokenIDs where token >= language.vocabularySize {
            throw fields.invalid("eos_token_id", expected: "below the vocabulary's \(language.vocabularySize) tokens")
        }
        if fields.has("do_sample") { defaults.doSample = try fields.bool("do_sample", missing: false) }
        defaults.temperature = try fields.optionalNumber("temperature", in: 0...1e6)
        defaults.topP = try fields.optionalNumber("top_p", in: 0...1)
        defaults.topK = try fields.optionalInteger("top_k", in: 0...ConfigurationLimits.vocabulary.upperBound)
        defaults.minP = try fields.optionalNumber("min_p", in: 0...1)
        defaults.repetitionPenalty = try fields.optionalNumber("repetition_penalty", in: 1e-6...1e6)
        defaults.maxNewTokens = try fields.optionalInteger("max_new_tokens", in: 0...Int.max)
        defaults.maxLength = try fields.optionalInteger("max_length", in: 0...Int.max)
        return defaults
    }
}
