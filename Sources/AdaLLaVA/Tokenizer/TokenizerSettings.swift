/// Files next to a tokenizer in a checkpoint: tokenizer_config.json, special_tokens_map.json, added_tokens.json.
struct TokenizerSettings: Sendable {
    /// Whether a tokenizer_config.json was there at all.
    var isPresent = false
    var className: String?
    var bosToken: String?
    var eosToken: String?
    var unknownToken: String?
    var padToken: String?
    var additionalSpecialTokens: [String] = []
    /// Special tokens by the names that chat templates know them by: `bos_token`, `eos_token`, …
    var specialTokens: [String: String] = [:]
    var addsBOS: Bool?
    var addsEOS: Bool?
    var isLegacy: Bool?
    var addedTokens: [AddedToken] = []
    /// The Jinja chat template, if there is one.
    var chatTemplate: String?

    init() {}

    /// Whether Hugging Face would use one of its Llama classes.
    var isLlama: Bool { className.map { $0.hasPrefix("LlamaTokenizer") || $0.hasPrefix("CodeLlamaTokenizer") } ?? false }

    /// - Throws: ``CheckpointError/malformed(file:reason:)``
    mutating func readConfiguration(_ bytes: [UInt8], file: String) throws {
        let root = try Self.parse(bytes, file)
        isPresent = true
        className = root["tokenizer_class"]?.text
        readNames(root)
        addsBOS = root["add_bos_token"]?.bool
        addsEOS = root["add_eos_token"]?.bool
        isLegacy = root["legacy"]?.bool
        chatTemplate = Self.template(root["chat_template"])
        guard let decoder = root["added_tokens_decoder"], !decoder.isNull else { return }
        guard let entries = decoder.object else {
            throw CheckpointError.malformed(file: file, reason: "added_tokens_decoder: expected an object, found \(decoder.kind)")
        }
        for (key, value) in entries {
            guard let id = Int(String(decoding: key, as: UTF8.self)), AddedToken.validIDs.contains(id), let content = value["content"]?.text else {
                throw CheckpointError.malformed(
                    file: file, reason: "added_tokens_decoder: expected an id and a content, found \"\(String(decoding: key, as: UTF8.self))\"")
            }
            addedTokens.append(
                AddedToken(
                    id: id, content: content, isSpecial: value["special"]?.bool ?? false, stripsLeft: value["lstrip"]?.bool ?? false,
                    stripsRight: value["rstrip"]?.bool ?? false, isSingleWord: value["single_word"]?.bool ?? false,
                    isNormalized: value["normalized"]?.bool ?? false))
        }
    }

    /// special_tokens_map.json supplies values that tokenizer_config.json lacks.
    mutating func readSpecialTokensMap(_ bytes: [UInt8], file: String) throws {
        let root = try Self.parse(bytes, file)
        var names = TokenizerSettings()
        names.readNames(root)
        bosToken = bosToken ?? names.bosToken
        eosToken = eosToken ?? names.eosToken
        unknownToken = unknownToken ?? names.unknownToken
        padToken = padToken ?? names.padToken
        specialTokens.merge(names.specialTokens) { configured, _ in configured }
        if additionalSpecialTokens.isEmpty { additionalSpecialTokens = names.additionalSpecialTokens }
    }

    /// added_tokens.json: texts and ids; only read where tokenizer_config.json does not list added tokens itself.
    mutating func readAddedTokens(_ bytes: [UInt8], file: String) throws {
        let root = try Self.parse(bytes, file)
        guard addedTokens.isEmpty else { return }
        for (key, value) in root.object ?? [] {
            guard let id = value.int, AddedToken.validIDs.contains(id) else {
                throw CheckpointError.malformed(
                    file: file, reason: "the id of \"\(String(decoding: key, as: UTF8.self))\" is \(value.kind); expected a whole number")
            }
            addedTokens.append(AddedToken(id: id, content: String(decoding: key, as: UTF8.self), isSpecial: false, isNormalized: true))
        }
    }

    private mutating func readNames(_ root: ByteJSON) {
        bosToken = Self.name(root["bos_token"])
        eosToken = Self.name(root["eos_token"])
        unknownToken = Self.name(root["unk_token"])
        padToken = Self.name(root["pad_token"])
        additionalSpecialTokens = root["additional_special_tokens"]?.array?.compactMap(Self.name) ?? []
        for (key, value) in root.object ?? [] {
            let key = String(decoding: key, as: UTF8.self)
            if key.hasSuffix("_token"), let name = Self.name(value) { specialTokens[key] = name }
        }
    }

    /// A token is named by its text or by an object with its `content`.
    private static func name(_ value: ByteJSON?) -> String? { value?.text ?? value?["content"]?.text }

    /// One template, or several by name, of which `default` counts.
    private static func template(_ value: ByteJSON?) -> String? {
        if let text = value?.text { return text }
        let named = value?.array ?? []
        return (named.first { $0["name"]?.text == "default" } ?? (named.count == 1 ? named[0] : nil))?["template"]?.text
    }

    /// The template in a chat_template.json or tokenizer_config.json.
    static func template(inFile bytes: [UInt8], file: String) throws -> String? { template(try parse(bytes, file)["chat_template"]) }

    private static func parse(_ bytes: [UInt8], _ file: String) throws -> ByteJSON {
        let root = try ByteJSON(parsing: bytes, file: file)
        guard root.object != nil else { throw CheckpointError.malformed(file: file, reason: "expected an object, found \(root.kind)") }
        return root
    }
}
