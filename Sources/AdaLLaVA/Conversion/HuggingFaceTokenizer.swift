import Foundation

/// A GGUF vocabulary as the files that Hugging Face's fast tokenizers read: `tokenizer.json` and `tokenizer_config.json`.
struct HuggingFaceTokenizer {
    /// Names and contents.
    let files: [(String, String)]

    /// - Parameters:
    ///   - template: the chat template, in Jinja.
    ///   - file: where the vocabulary comes from, for messages.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for vocabularies that are not text or not BPE.
    init(_ vocabulary: GGUFVocabulary, template: String?, file: String) throws {
        _ = try vocabulary.makeTokenizer(file: file)
        let texts = try vocabulary.tokens.map { bytes in
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw CheckpointError.unsupported(
                    what: "a token that is no UTF-8 in a tokenizer.json", file: file, hint: "the original checkpoint has its tokenizer")
            }
            return text
        }
        let added = vocabulary.tokens.indices.filter { vocabulary.isAdded($0) }
        let tokenizer = vocabulary.model == "gpt2" ? try Self.bytePair(vocabulary, texts, added, file) : Self.sentencePiece(vocabulary, texts, added)
        files = [("tokenizer.json", tokenizer), ("tokenizer_config.json", Self.configuration(vocabulary, texts, template))]
    }

    private static func addedTokens(_ vocabulary: GGUFVocabulary, _ texts: [String], _ added: [Int]) -> String {
        added.map {
            "{\"id\":\($0),\"content\":\(quoted(texts[$0])),\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":\(vocabulary.isSpecial($0))}"
        }.joined(separator: ",")
    }

    /// The component that puts the beginning of a sequence before a text.
    private static func postProcessor(_ vocabulary: GGUFVocabulary, _ texts: [String], addsBOS: Bool) -> String {
        let (bos, eos) = (addsBOS ? vocabulary.bosToken : nil, vocabulary.addsEOS ?? false ? vocabulary.eosToken : nil)
        let special = [bos, eos].compactMap { $0 }
        if special.isEmpty { return "null" }
        func item(_ id: Int) -> String { "{\"SpecialToken\":{\"id\":\(quoted(texts[id])),\"type_id\":0}}" }
        func sequence(_ name: String) -> [String] {
            [bos.map(item), "{\"Sequence\":{\"id\":\"\(name)\",\"type_id\":0}}", eos.map(item)].compactMap { $0 }
        }
        let tokens = special.map { "\(quoted(texts[$0])):{\"id\":\(quoted(texts[$0])),\"ids\":[\($0)],\"tokens\":[\(quoted(texts[$0]))]}" }
        return object([
            ("type", "\"TemplateProcessing\""), ("single", "[\(sequence("A").joined(separator: ","))]"),
            ("pair", "[\((sequence("A") + sequence("B")).joined(separator: ","))]"),
            ("special_tokens", "{\(Set(tokens).sorted().joined(separator: ","))}"),
        ])
    }

    private static func object(_ members: [(String, String)]) -> String {
        "{" + members.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",") + "}"
    }

    private static func document(
        added: String, normalizer: String, preTokenizer: String, postProcessor: String, decoder: String, model: String
    ) -> String {
        object([
            ("version", "\"1.0\""), ("truncation", "null"), ("padding", "null"), ("added_tokens", "[\(added)]"), ("normalizer", normalizer),
            ("pre_tokenizer", preTokenizer), ("post_processor", postProcessor), ("decoder", decoder), ("model", model),
        ]) + "\n"
    }

    /// - Parameter merges: lowest rank first, each as JSON.
    private static func model(
        unknown: String, fusesUnknown: Bool, fallsBackToBytes: Bool, ignoresMerges: Bool, _ texts: [String], merges: [String]
    ) -> String {
        let vocabulary = texts.enumerated().map { "\(quoted($1)):\($0)" }.joined(separator: ",")
        return object([
            ("type", "\"BPE\""), ("dropout", "null"), ("unk_token", unknown), ("continuing_subword_prefix", "null"), ("end_of_word_suffix", "null"),
            ("fuse_unk", "\(fusesUnknown)"), ("byte_fallback", "\(fallsBackToBytes)"), ("ignore_merges", "\(ignoresMerges)"),
            ("vocab", "{\(vocabulary)}"), ("merges", "[\(merges.joined(separator: ","))]"),
        ])
    }

    private static func bytePair(_ vocabulary: GGUFVocabulary, _ texts: [String], _ added: [Int], _ file: String) throws -> String {
        let name = vocabulary.pre ?? "default"
        let rules = try GGUFPreTokenizer(named: name, file: file)
        let splits = GGUFPreTokenizer.patterns(named: name).map {
            "{\"type\":\"Split\",\"pattern\":{\"Regex\":\(quoted($0))},\"behavior\":\"Isolated\",\"invert\":false}"
        }
        let level = "\"type\":\"ByteLevel\",\"add_prefix_space\":\(vocabulary.addsSpacePrefix ?? false),\"trim_offsets\":true,\"use_regex\":false"
        return document(
            added: addedTokens(vocabulary, texts, added), normalizer: "null",
            preTokenizer: object([("type", "\"Sequence\""), ("pretokenizers", "[\((splits + ["{\(level)}"]).joined(separator: ","))]")]),
            postProcessor: postProcessor(vocabulary, texts, addsBOS: vocabulary.addsBOS ?? rules.addsBOS), decoder: "{\(level)}",
            model: model(
                unknown: "null", fusesUnknown: false, fallsBackToBytes: false, ignoresMerges: rules.ignoresMerges, texts,
                merges: vocabulary.merges.map { quoted(String(decoding: $0, as: UTF8.self)) }))
    }

    /// SentencePiece BPE as Hugging Face converts it: of all ways to put a piece together from two others, the better piece first.
    private static func sentencePiece(_ vocabulary: GGUFVocabulary, _ texts: [String], _ added: [Int]) -> String {
        var ids: [[UInt8]: Int] = [:]
        for (id, bytes) in vocabulary.tokens.enumerated() where vocabulary.isPiece(id) { ids[bytes] = id }
        var merges: [(score: Float, left: Int, right: Int, pair: String)] = []
        for (bytes, id) in ids where bytes.count > 1 {
            for middle in 1 ..< bytes.count {
                guard let left = ids[Array(bytes[..<middle])], let right = ids[Array(bytes[middle...])] else { continue }
                merges.append((vocabulary.scores[id], left, right, "[\(quoted(texts[left])),\(quoted(texts[right]))]"))
            }
        }
        merges.sort { ($1.score, $0.left, $0.right) < ($0.score, $1.left, $1.right) }
        let prefix = "\u{2581}"
        let addsPrefix = vocabulary.addsSpacePrefix ?? true
        func replace(_ pattern: String, _ content: String) -> String {
            object([("type", "\"Replace\""), ("pattern", object([("String", quoted(pattern))])), ("content", quoted(content))])
        }
        let prepend = object([("type", "\"Prepend\""), ("prepend", quoted(prefix))])
        let normalizers = (addsPrefix ? [prepend] : []) + [replace(" ", prefix)]
        let strip = object([("type", "\"Strip\""), ("content", "\" \""), ("start", "1"), ("stop", "0")])
        let decoders = [replace(prefix, " "), object([("type", "\"ByteFallback\"")]), object([("type", "\"Fuse\"")])] + (addsPrefix ? [strip] : [])
        let unknown = vocabulary.unknownToken ?? vocabulary.tokenTypes.firstIndex(of: 2)
        return document(
            added: addedTokens(vocabulary, texts, added),
            normalizer: object([("type", "\"Sequence\""), ("normalizers", "[\(normalizers.joined(separator: ","))]")]), preTokenizer: "null",
            postProcessor: postProcessor(vocabulary, texts, addsBOS: vocabulary.addsBOS ?? true),
            decoder: object([("type", "\"Sequence\""), ("decoders", "[\(decoders.joined(separator: ","))]")]),
            model: model(
                unknown: unknown.map { quoted(texts[$0]) } ?? "null", fusesUnknown: true, fallsBackToBytes: true, ignoresMerges: false, texts,
                merges: merges.map(\.pair)))
    }

    private static func configuration(_ vocabulary: GGUFVocabulary, _ texts: [String], _ template: String?) -> String {
        var members: [String] = []
        for (name, id) in [
            ("bos_token", vocabulary.bosToken), ("eos_token", vocabulary.eosToken), ("unk_token", vocabulary.unknownToken), ("pad_token", vocabulary.padToken),
        ] {
            if let id { members.append("\(quoted(name)): \(quoted(texts[id]))") }
        }
        if let template { members.append("\"chat_template\": \(quoted(template))") }
        members += ["\"clean_up_tokenization_spaces\": false", "\"tokenizer_class\": \"PreTrainedTokenizerFast\""]
        return "{\n  " + members.sorted().joined(separator: ",\n  ") + "\n}\n"
    }
}

extension GGUFVocabulary {
    private func type(_ id: Int) -> Int { tokenTypes.indices.contains(id) ? tokenTypes[id] : 1 }

    /// Cut out of texts before merging.
    fileprivate func isAdded(_ id: Int) -> Bool { [2, 3, 4].contains(type(id)) || [bosToken, eosToken, eotToken].contains(id) }

    fileprivate func isSpecial(_ id: Int) -> Bool { [2, 3].contains(type(id)) || [bosToken, eosToken, eotToken].contains(id) }

    /// Merged from other pieces: a normal one, or one that is cut out of texts as well.
    fileprivate func isPiece(_ id: Int) -> Bool { [1, 4].contains(type(id)) }
}
