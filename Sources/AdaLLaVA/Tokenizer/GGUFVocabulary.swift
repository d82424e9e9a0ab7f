/// The tokenizer of a GGUF file, as its `tokenizer.ggml.*` fields give it.
package struct GGUFVocabulary: Sendable {
    /// `tokenizer.ggml.model`: `llama` (SentencePiece BPE) or `gpt2` (byte-level BPE).
    package var model: String
    /// `tokenizer.ggml.pre`: which pre-tokenizer a `gpt2` vocabulary was trained with.
    package var pre: String?
    /// By id; bytes, because nothing makes sure that they are UTF-8.
    package var tokens: [[UInt8]]
    /// By id; empty when the file has none.
    package var scores: [Float]
    /// By id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; empty when the file has none.
    package var tokenTypes: [Int]
    /// "left right", lowest rank first.
    package var merges: [[UInt8]]
    /// The token that starts a sequence.
    package var bosToken: Int?
    /// The token that ends a sequence.
    package var eosToken: Int?
    /// End of a turn.
    package var eotToken: Int?
    /// The token for text that the vocabulary cannot encode.
    package var unknownToken: Int?
    /// The token that fills up batches.
    package var padToken: Int?
    /// `tokenizer.ggml.add_bos_token`; `nil`: the model's default.
    package var addsBOS: Bool?
    /// `tokenizer.ggml.add_eos_token`; `nil`: the model's default.
    package var addsEOS: Bool?
    /// `tokenizer.ggml.add_space_prefix`; `nil`: the model's default.
    package var addsSpacePrefix: Bool?

    /// A vocabulary given by value; checked by ``makeTokenizer(file:)``.
    package init(
        model: String, pre: String? = nil, tokens: [[UInt8]], scores: [Float] = [], tokenTypes: [Int] = [], merges: [[UInt8]] = [],
        bosToken: Int? = nil, eosToken: Int? = nil, eotToken: Int? = nil, unknownToken: Int? = nil, padToken: Int? = nil,
        addsBOS: Bool? = nil, addsEOS: Bool? = nil, addsSpacePrefix: Bool? = nil
    ) {
        (self.model, self.pre, self.tokens, self.scores) = (model, pre, tokens, scores)
        (self.tokenTypes, self.merges) = (tokenTypes, merges)
        (self.bosToken, self.eosToken, self.eotToken) = (bosToken, eosToken, eotToken)
        (self.unknownToken, self.padToken) = (unknownToken, padToken)
        (self.addsBOS, self.addsEOS, self.addsSpacePrefix) = (addsBOS, addsEOS, addsSpacePrefix)
    }

    /// The tokenizer that these fields describe.
    /// - Parameter file: where they come from, for messages.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for models and pre-tokenizers that are not known,
    ///   ``CheckpointError/configuration(field:expected:found:file:)`` and ``CheckpointError/malformed(file:reason:)`` for damaged ones.
    package func makeTokenizer(file: String) throws -> any Tokenizer {
        try check(file)
        switch model {
        case "llama": return try makeSentencePiece(file)
        case "gpt2": return try makeBytePair(file)
        default:
            throw CheckpointError.unsupported(
                what: "tokenizer.ggml.model \"\(model)\"", file: file, hint: "llama (SentencePiece BPE) and gpt2 (byte-level BPE) are read")
        }
    }

    private func check(_ file: String) throws {
        func field(_ name: String, _ expected: String, _ found: String) -> CheckpointError {
            .configuration(field: "tokenizer.ggml.\(name)", expected: expected, found: found, file: file)
        }
        guard !tokens.isEmpty else { throw field("tokens", "at least one token", "none") }
        guard tokens.count <= AddedToken.validIDs.upperBound else {
            throw field("tokens", "at most \(AddedToken.validIDs.upperBound)", "\(tokens.count)")
        }
        guard tokenTypes.isEmpty || tokenTypes.count == tokens.count else {
            throw field("token_type", "\(tokens.count) values, one for each token", "\(tokenTypes.count)")
        }
        guard scores.isEmpty || scores.count == tokens.count else {
            throw field("scores", "\(tokens.count) values, one for each token", "\(scores.count)")
        }
        let ids = [
            ("bos_token_id", bosToken), ("eos_token_id", eosToken), ("eot_token_id", eotToken), ("unknown_token_id", unknownToken),
            ("padding_token_id", padToken),
        ]
        for case (let name, let id?) in ids where !tokens.indices.contains(id) {
            throw field(name, "0 to \(tokens.count - 1)", "\(id)")
        }
    }

    private func kind(of id: Int) -> SentencePieceModel.Kind {
        guard tokenTypes.indices.contains(id) else { return .normal }
        return UInt8(exactly: tokenTypes[id]).flatMap(SentencePieceModel.Kind.init(rawValue:)) ?? .normal
    }

    /// Control, unknown and user-defined tokens, cut out of texts before merging; the latter are ordinary text.
    private func addedTokens() -> [AddedToken] {
        let special = Set([bosToken, eosToken, eotToken].compactMap { $0 })
        return tokens.indices.compactMap { id in
            let content = String(decoding: tokens[id], as: UTF8.self)
            switch kind(of: id) {
            case .control, .unknown: return AddedToken(id: id, content: content, isSpecial: true)
            case .userDefined: return AddedToken(id: id, content: content, isSpecial: special.contains(id))
            default: return special.contains(id) ? AddedToken(id: id, content: content, isSpecial: true) : nil
            }
        }
    }

    private func endOfGeneration(_ added: [AddedToken]) -> Set<Int> {
        var ids: [String: Int] = [:]
        for token in added where token.isSpecial { ids[token.content] = token.id }
        return EndOfGeneration.ids { ids[$0] }.union(eotToken.map { [$0] } ?? [])
    }

    private func makeSentencePiece(_ file: String) throws -> SentencePieceTokenizer {
        guard scores.count == tokens.count else {
            throw CheckpointError.configuration(
                field: "tokenizer.ggml.scores", expected: "a score for each of \(tokens.count) tokens", found: "\(scores.count)", file: file)
        }
        var normalization = SentencePieceModel.Normalization()
        normalization.addsDummyPrefix = addsSpacePrefix ?? true
        normalization.removesExtraWhitespace = false
        let kinds = tokens.indices.map(kind)
        let added = addedTokens()
        let isByteComplete = kinds.count { $0 == .byte } >= 256
        let model = try SentencePieceModel(
            pieces: tokens, scores: scores, kinds: kinds, normalization: normalization, byteFallback: isByteComplete,
            unknownID: unknownToken ?? kinds.firstIndex(of: .unknown), bosID: bosToken, eosID: eosToken, padID: padToken, file: file)
        var options = SentencePieceTokenizer.Options()
        options.addsBOS = addsBOS ?? true
        options.addsEOS = addsEOS ?? false
        (options.bosToken, options.eosToken, options.padToken) = (bosToken, eosToken, padToken)
        options.unknownToken = model.unknownID
        options.addedTokens = added
        options.decodesAsHuggingFace = false
        options.endOfGeneration = endOfGeneration(added)
        return SentencePieceTokenizer(model: model, options: options)
    }

    private func makeBytePair(_ file: String) throws -> BytePairTokenizer {
        let rules = try GGUFPreTokenizer(named: pre ?? "default", file: file)
        let space = UInt8(ascii: " ")
        let pairs = try merges.enumerated().map { rank, merge -> (ArraySlice<UInt8>, ArraySlice<UInt8>) in
            // A token can begin with a space, but not be empty.
            guard let middle = merge.dropFirst().firstIndex(of: space) else {
                throw CheckpointError.malformed(
                    file: file,
                    reason: "tokenizer.ggml.merges: merge \(rank) is \"\(String(decoding: merge, as: UTF8.self))\"; expected two tokens with a space between")
            }
            return (merge[..<middle], merge[(middle + 1)...])
        }
        var modelOptions = BytePairModel.Options()
        modelOptions.ignoresMerges = rules.ignoresMerges
        let model = try BytePairModel(pieces: tokens, merges: pairs, options: modelOptions, unknownMerge: .isSkipped, file: file)
        let added = addedTokens()
        var options = BytePairTokenizer.Options()
        options.preTokenizers = rules.steps + [.byteLevel(addsPrefixSpace: addsSpacePrefix ?? false, splits: false)]
        options.decoders = [.byteLevel]
        options.addedTokens = added
        (options.bosToken, options.eosToken, options.padToken) = (bosToken, eosToken, padToken)
        options.unknownToken = unknownToken
        options.prefix = addsBOS ?? rules.addsBOS ? bosToken.map { [$0] } ?? [] : []
        options.suffix = addsEOS ?? false ? eosToken.map { [$0] } ?? [] : []
        options.endOfGeneration = endOfGeneration(added)
        return BytePairTokenizer(model: model, options: options)
    }
}
