/// A checkpoint's defaults for generation (`generation_config.json`). `nil`: not given.
package struct GenerationDefaults: Sendable, Equatable {
    /// The token that starts a sequence.
    package var bosTokenID: Int?
    /// Tokens that end an answer.
    package var eosTokenIDs: [Int]
    /// The token that fills up batches.
    package var padTokenID: Int?
    /// Whether to sample; greedy otherwise.
    package var doSample: Bool?
    /// See ``SamplingOptions/temperature``.
    package var temperature: Double?
    /// See ``SamplingOptions/topP``.
    package var topP: Double?
    /// See ``SamplingOptions/topK``.
    package var topK: Int?
    /// See ``SamplingOptions/minP``.
    package var minP: Double?
    /// See ``SamplingOptions/repetitionPenalty``.
    package var repetitionPenalty: Double?
    /// The longest answer, in tokens.
    package var maxNewTokens: Int?
    /// Prompt and answer together.
    package var maxLength: Int?
    /// Proposals that are out of range and were ignored, each in words.
    package var ignored: [String] = []

    /// Defaults that propose nothing but their tokens.
    package init(bosTokenID: Int? = nil, eosTokenIDs: [Int] = [], padTokenID: Int? = nil) {
        (self.bosTokenID, self.eosTokenIDs, self.padTokenID) = (bosTokenID, eosTokenIDs, padTokenID)
    }

    /// The special tokens of a model's configuration, for checkpoints without a `generation_config.json`.
    package init(_ language: DecoderConfiguration) {
        self.init(bosTokenID: language.bosTokenID, eosTokenIDs: language.eosTokenIDs, padTokenID: language.padTokenID)
        ignored = language.ignoredTokens
    }

    /// Reads `generation_config.json`; special tokens that it does not name are those of `language`.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    package static func read(_ json: JSONValue, file: String, language: DecoderConfiguration) throws -> GenerationDefaults {
        let fields = try ConfigurationFields(json, file: file)
        var defaults = GenerationDefaults(language)
        if fields.has("bos_token_id") { defaults.bosTokenID = try fields.tokenID("bos_token_id") }
        if fields.has("eos_token_id") {
            // Both files' tokens end an answer; an empty list says that none does.
            let ends = try fields.tokenIDs("eos_token_id")
            defaults.eosTokenIDs = ends.isEmpty ? [] : ends + language.eosTokenIDs.filter { !ends.contains($0) }
        }
        if fields.has("pad_token_id") { defaults.padTokenID = try fields.tokenID("pad_token_id") }
        for token in defaults.eosTokenIDs where token >= language.vocabularySize {
            defaults.ignored.append(language.unknownToken("eos_token_id", token, file: file))
        }
        defaults.eosTokenIDs.removeAll { $0 >= language.vocabularySize }
        if fields.has("do_sample") { defaults.doSample = try? fields.bool("do_sample", missing: false) }
        // Defaults only: one that is invalid here (a top_k of -1 means "no limit" elsewhere) does not prevent using the model.
        func hint<Value>(_ read: () throws -> Value?) -> Value? {
            do { return try read() } catch {
                defaults.ignored.append((error as? any AdaLLaVAError)?.description ?? "\(error)")
                return nil
            }
        }
        defaults.temperature = hint { try fields.optionalNumber("temperature", in: 0...1e6) }
        defaults.topP = hint { try fields.optionalNumber("top_p", in: 0...1) }
        defaults.topK = hint { try fields.optionalInteger("top_k", in: 0...ConfigurationLimits.vocabulary.upperBound) }
        defaults.minP = hint { try fields.optionalNumber("min_p", in: 0...1) }
        defaults.repetitionPenalty = hint { try fields.optionalNumber("repetition_penalty", in: 1e-6...1e6) }
        defaults.maxNewTokens = hint { try fields.optionalInteger("max_new_tokens", in: 0...Int.max) }
        defaults.maxLength = hint { try fields.optionalInteger("max_length", in: 0...Int.max) }
        return defaults
    }
}
