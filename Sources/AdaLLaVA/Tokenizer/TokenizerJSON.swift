/// Reads Hugging Face's tokenizer.json into the steps of a ``BytePairTokenizer``.
///
/// Steps and options that this reader does not know are refused by name, because a tokenizer that is nearly right is wrong.
struct TokenizerJSON {
    private let root: ByteJSON
    private let file: String

    init(_ bytes: [UInt8], file: String) throws {
        self.file = file
        root = try ByteJSON(parsing: bytes, file: file)
        guard root.object != nil else { throw CheckpointError.malformed(file: file, reason: "expected an object, found \(root.kind)") }
    }

    /// - Parameter settings: the content of tokenizer_config.json.
    func makeTokenizer(settings: TokenizerSettings = TokenizerSettings()) throws -> BytePairTokenizer {
        let model = try readModel()
        var options = BytePairTokenizer.Options()
        var reader = TokenizerJSONSteps(file: file)
        options.normalizers = try reader.normalizers(root["normalizer"])
        options.preTokenizers = try reader.preTokenizers(root["pre_tokenizer"])
        options.decoders = try reader.decoders(root["decoder"])
        options.addedTokens = try readAddedTokens()
        let find = { (text: String) -> Int? in
            if let token = options.addedTokens.last(where: { $0.content.utf8.elementsEqual(text.utf8) }) { return token.id }
            let id = model.pieces.find(Array(text.utf8))
            return id >= 0 ? id : nil
        }
        (options.prefix, options.suffix) = try reader.postProcessor(root["post_processor"])
        options.bosToken = settings.bosToken.flatMap(find) ?? (settings.isPresent ? nil : find("<s>") ?? options.prefix.first)
        options.eosToken = settings.eosToken.flatMap(find) ?? (settings.isPresent ? nil : find("</s>"))
        options.unknownToken = settings.unknownToken.flatMap(find) ?? model.options.unknownID
        options.padToken = settings.padToken.flatMap(find)
        for id in [options.bosToken, options.eosToken] {
            guard let id, !options.addedTokens.contains(where: { $0.id == id }) else { continue }
            let content = String(decoding: model.pieces[id], as: UTF8.self)
            options.addedTokens.append(AddedToken(id: id, content: content, isSpecial: true))
        }
        options.endOfGeneration = EndOfGeneration.ids { name in
            options.addedTokens.last { $0.content.utf8.elementsEqual(name.utf8) && $0.isSpecial }?.id
        }
        // Hugging Face's Llama classes build their own post-processor from these two switches.
        if settings.isLlama {
            options.prefix = settings.addsBOS ?? true ? options.bosToken.map { [$0] } ?? [] : []
            options.suffix = settings.addsEOS ?? false ? options.eosToken.map { [$0] } ?? [] : []
        }
        return BytePairTokenizer(model: model, options: options)
    }

    private func malformed(_ reason: String) -> CheckpointError { .malformed(file: file, reason: reason) }

    private func readModel() throws -> BytePairModel {
        guard let model = root["model"], model.object != nil else {
            throw malformed("model: expected an object, found \(root["model"]?.kind ?? "nothing")")
        }
        // Old files leave the type out.
        let type = model["type"]?.text ?? (model["merges"] == nil ? "without merges" : "BPE")
        guard type == "BPE" else {
            throw CheckpointError.unsupported(what: "a tokenizer model of type \(type)", file: file, hint: "only BPE is read")
        }
        for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if let value = model[field], !value.isNull, value.bytes != [] {
                throw CheckpointError.unsupported(what: "model.\(field) \(value.kind)", file: file, hint: "")
            }
        }
        if let dropout = model["dropout"], !dropout.isNull, dropout.number != 0 {
            throw CheckpointError.unsupported(what: "model.dropout \(dropout.kind)", file: file, hint: "it makes encoding random")
        }
        let pieces = try readVocabulary(model["vocab"])
        var options = BytePairModel.Options()
        if let unknown = model["unk_token"], !unknown.isNull {
            guard let text = unknown.bytes else { throw malformed("model.unk_token: expected a string, found \(unknown.kind)") }
            options.unknownID = pieces.firstIndex(of: text)
            if options.unknownID == nil { throw malformed("model.unk_token \(unknown.kind) is not in the vocabulary") }
        }
        options.fusesUnknown = model["fuse_unk"]?.bool ?? false
        options.byteFallback = model["byte_fallback"]?.bool ?? false
        options.ignoresMerges = model["ignore_merges"]?.bool ?? false
        return try BytePairModel(
            pieces: pieces, merges: try readMerges(model["merges"]), options: options, unknownMerge: .fails, file: file)
    }

    private func readVocabulary(_ value: ByteJSON?) throws -> [[UInt8]] {
        guard let entries = value?.object else { throw malformed("model.vocab: expected an object, found \(value?.kind ?? "nothing")") }
        // Vocabularies have few holes; an id far beyond the number of entries is a damaged file, not a reason to allocate.
        let limit = entries.count * 4 + 65536
        var pieces: [[UInt8]] = []
        pieces.reserveCapacity(entries.count)
        var isTaken: [Bool] = []
        for (key, value) in entries {
            guard let id = value.int, id >= 0, id < limit else {
                throw malformed("model.vocab: the id of \"\(String(decoding: key, as: UTF8.self))\" is \(value.kind); expected 0 to \(limit - 1)")
            }
            while pieces.count <= id {
                pieces.append([])
                isTaken.append(false)
            }
            guard !isTaken[id] else { throw malformed("model.vocab: two tokens have the id \(id)") }
            pieces[id] = key
            isTaken[id] = true
        }
        return pieces
    }

    private func readMerges(_ value: ByteJSON?) throws -> [(ArraySlice<UInt8>, ArraySlice<UInt8>)] {
        guard let values = value?.array else { throw malformed("model.merges: expected an array, found \(value?.kind ?? "nothing")") }
        let space = UInt8(ascii: " ")
        var merges: [(ArraySlice<UInt8>, ArraySlice<UInt8>)] = []
        merges.reserveCapacity(values.count)
        for (rank, value) in values.enumerated() {
            switch value {
            case .string(let text):
                guard let middle = text.firstIndex(of: space), !text[(middle + 1)...].contains(space) else {
                    throw malformed("merge \(rank) is \(value.kind); expected two tokens with a space between")
                }
                merges.append((text[..<middle], text[(middle + 1)...]))
            case .array(let pair) where pair.count == 2:
                guard let left = pair[0].bytes, let right = pair[1].bytes else { fallthrough }
                merges.append((left[...], right[...]))
            default: throw malformed("merge \(rank) is \(value.kind); expected two tokens")
            }
        }
        return merges
    }

    private func readAddedTokens() throws -> [AddedToken] {
        guard let value = root["added_tokens"], !value.isNull else { return [] }
        guard let entries = value.array else { throw malformed("added_tokens: expected an array, found \(value.kind)") }
        return try entries.map { entry in
            guard let id = entry["id"]?.int, AddedToken.validIDs.contains(id), let content = entry["content"]?.text else {
                throw malformed("added_tokens: expected an id and a content, found \(entry.kind) with id \(entry["id"]?.kind ?? "missing")")
            }
            return AddedToken(
                id: id, content: content, isSpecial: entry["special"]?.bool ?? false, stripsLeft: entry["lstrip"]?.bool ?? false,
                stripsRight: entry["rstrip"]?.bool ?? false, isSingleWord: entry["single_word"]?.bool ?? false,
                isNormalized: entry["normalized"]?.bool ?? false)
        }
    }
}

extension AddedToken {
    /// Ids that an added token can have: far more than any model's embedding has rows.
    static let validIDs = 0..<(1 << 24)
}

/// Tokens that end an answer, by the texts that well-known models give them; only special tokens, since a piece of the vocabulary that looks
/// like one is text.
enum EndOfGeneration {
    static let texts = [
        "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<end_of_utterance>",
        "</s>", "<EOT>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>",
    ]

    static func ids(_ find: (String) -> Int?) -> Set<Int> { Set(texts.compactMap(find)) }
}
