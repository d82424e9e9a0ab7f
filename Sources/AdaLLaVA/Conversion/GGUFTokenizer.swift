/// A tokenizer in GGUF's own keys, for programs that read nothing else.
struct GGUFTokenizer {
    let vocabulary: GGUFVocabulary
    /// Why other programs would read some texts as other tokens; `nil` if they would not.
    private(set) var problem: String?

    /// - Parameters:
    ///   - rows: of the embedding: there is a token for each.
    ///   - ends: tokens that end an answer, the most important first.
    init(_ tokenizer: any Tokenizer, rows: Int, ends: [Int]) {
        var vocabulary: GGUFVocabulary
        switch tokenizer {
        case let tokenizer as SentencePieceTokenizer: vocabulary = GGUFVocabulary(tokenizer, rows: rows)
        case let tokenizer as BytePairTokenizer: vocabulary = GGUFVocabulary(tokenizer, rows: rows)
        default:
            self.init(vocabulary: GGUFVocabulary(model: "no_vocab", tokens: []), problem: "a tokenizer of another kind")
            return
        }
        func known(_ id: Int?) -> Int? { id.flatMap { (0 ..< rows).contains($0) ? $0 : nil } }
        // In GGUF the token after every text is the end of sequence.
        let closing = (tokenizer as? BytePairTokenizer)?.options.suffix.first
        let all = ([closing].compactMap { $0 } + ends + [tokenizer.eosToken].compactMap { $0 }).filter { known($0) != nil }
        (vocabulary.bosToken, vocabulary.eosToken, vocabulary.eotToken) = (known(tokenizer.bosToken), all.first, all.dropFirst().first { $0 != all[0] })
        (vocabulary.unknownToken, vocabulary.padToken) = (known(tokenizer.unknownToken), known(tokenizer.padToken))
        vocabulary.addsBOS = tokenizer.addsBOS && vocabulary.bosToken != nil
        self.init(vocabulary: vocabulary, problem: nil)
        problem = difference(from: tokenizer)
    }

    init(vocabulary: GGUFVocabulary, problem: String? = nil) { (self.vocabulary, self.problem) = (vocabulary, problem) }

    /// Reads the written tokenizer as other programs do, and compares.
    private func difference(from tokenizer: any Tokenizer) -> String? {
        if vocabulary.model == "gpt2", vocabulary.pre == nil { return "GGUF has no name for how its tokenizer cuts text into words" }
        guard let other = try? vocabulary.makeTokenizer(file: "") else { return "GGUF has no form for its tokenizer" }
        let text = GGUFTokenizer.samples.first { other.encode($0, addSpecialTokens: true) != tokenizer.encode($0, addSpecialTokens: true) }
        return text.map { "GGUF's form of its tokenizer reads some texts as other tokens, such as \"\($0.prefix(40))\"" }
    }

    /// Texts on which tokenizers differ: white space, digits, scripts, contractions, marks, code.
    private static let samples = [
        "Hello, world! How's it going?", " leading and trailing ", "a  b   c\n\n\td", "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n",
        "3 33 333 3333 33333 333333 3333333 3.3 3..3 3...3", "I've been 'told he's there, 'RE you sure? We'Ve a'lL", "déjà vu, naïve, Ångström",
        "これはペンです。我想在apple工作1314151天～", "нещо на Български", "កាន់តែពិសេសអាច", "🚀 (normal) 😶‍🌫️ ✅ 🦙🦙", "------======= ''''''```````\"\"\"\"......!!!!!!??????",
        "def f(x):\n    return x ** 2  # squared\n", "USER: What is on the left? ASSISTANT:",
    ]

    /// The name of llama.cpp's pre-tokenizer that cuts text as these steps do; `nil` if none does.
    static func preTokenizer(_ steps: [PreTokenizer], ignoresMerges: Bool) -> String? {
        func words(_ text: String, _ steps: [PreTokenizer]) -> [ArraySlice<UInt8>] {
            var tokens = PreTokens(Array(text.utf8), isAtStart: true)
            for step in steps { step.apply(&tokens) }
            return tokens.ranges.map { tokens.bytes[$0] }
        }
        let names = ["gpt-2", "llama-bpe", "smaug-bpe", "qwen2", "smollm", "gpt-4o", "deepseek-llm", "deepseek-coder", "falcon", "default"]
        return names.first { name in
            guard let rules = try? GGUFPreTokenizer(named: name, file: ""), rules.ignoresMerges == ignoresMerges else { return false }
            let theirs = rules.steps + [.byteLevel(addsPrefixSpace: false, splits: false)]
            return samples.allSatisfy { words($0, theirs) == words($0, steps) }
        }
    }
}

extension GGUFVocabulary {
    /// Text that replaces a token which a vocabulary lacks, or has twice.
    private static func placeholder(_ id: Int) -> [UInt8] { Array("[PAD\(id)]".utf8) }

    /// Tokens and their types by id.
    private init(
        model: String, rows: Int, pieces: PieceTable, added: [AddedToken], unknown: Int?, kind: (Int) -> SentencePieceModel.Kind
    ) {
        let byID = Dictionary(added.map { ($0.id, $0) }, uniquingKeysWith: { $1 })
        var seen: Set<[UInt8]> = []
        var (tokens, types): ([[UInt8]], [Int]) = ([], [])
        for id in 0 ..< rows {
            var text = byID[id].map { Array($0.content.utf8) } ?? Array(pieces[id])
            var type = byID[id].map { $0.isSpecial ? .control : .userDefined } ?? (id < pieces.count ? kind(id) : .unused)
            if id == unknown { type = .unknown }
            // llama.cpp wants every text once.
            if text.isEmpty || !seen.insert(text).inserted { (text, type) = (Self.placeholder(id), .unused) }
            tokens.append(text)
            types.append(Int(type.rawValue))
        }
        self.init(model: model, tokens: tokens, tokenTypes: types)
    }

    fileprivate init(_ tokenizer: SentencePieceTokenizer, rows: Int) {
        let model = tokenizer.model
        self.init(
            model: "llama", rows: rows, pieces: model.pieces, added: tokenizer.added.tokens, unknown: model.unknownID, kind: { model.kinds[$0] })
        pre = "default"
        // Merging only compares scores, so ranks can replace them.
        scores = (0 ..< rows).map { $0 < model.ranks.count ? -Float(model.ranks[$0]) : -1e6 }
        addsSpacePrefix = model.normalization.addsDummyPrefix
        addsEOS = tokenizer.addsEOS
    }

    fileprivate init(_ tokenizer: BytePairTokenizer, rows: Int) {
        let (model, options) = (tokenizer.model, tokenizer.options)
        let isByteLevel = options.preTokenizers.contains { if case .byteLevel = $0 { true } else { false } }
        self.init(
            model: isByteLevel ? "gpt2" : "llama", rows: rows, pieces: model.pieces, added: options.addedTokens, unknown: isByteLevel ? nil : tokenizer.unknownToken,
            kind: { !isByteLevel && SentencePieceModel.byteValue(model.pieces[$0]) != nil ? .byte : .normal })
        let ordered = model.orderedMerges
        addsEOS = !options.suffix.isEmpty
        if isByteLevel {
            pre = GGUFTokenizer.preTokenizer(options.preTokenizers, ignoresMerges: model.options.ignoresMerges)
            merges = ordered.map { Array(model.pieces[$0.left]) + [UInt8(ascii: " ")] + Array(model.pieces[$0.right]) }
        } else {
            // A list of merges made from a SentencePiece model: a piece's score follows from the rank of the first merge that makes it.
            pre = "default"
            scores = [Float](repeating: -1e6, count: rows)
            for (rank, merge) in ordered.enumerated().reversed() where merge.result < rows { scores[merge.result] = -Float(rank) }
            addsSpacePrefix = options.normalizers.contains { if case .prepend = $0 { true } else { false } }
                || options.preTokenizers.contains { if case .metaspace(_, let scheme, _) = $0 { scheme != .never } else { false } }
        }
    }

    /// The keys that say all this.
    var ggufMetadata: [(key: String, value: GGUFValue)] {
        var pairs: [(key: String, value: GGUFValue)] = [("tokenizer.ggml.model", .string(model))]
        guard !tokens.isEmpty else { return pairs }
        if let pre { pairs.append(("tokenizer.ggml.pre", .string(pre))) }
        pairs.append(("tokenizer.ggml.tokens", .array(GGUFArray(tokens))))
        if !scores.isEmpty { pairs.append(("tokenizer.ggml.scores", .array(GGUFArray(scores)))) }
        pairs.append(("tokenizer.ggml.token_type", .array(GGUFArray(tokenTypes.map { Int32(clamping: $0) }))))
        if model == "gpt2" { pairs.append(("tokenizer.ggml.merges", .array(GGUFArray(merges)))) }
        for (key, id) in [
            ("bos", bosToken), ("eos", eosToken), ("eot", eotToken), ("unknown", unknownToken), ("padding", padToken),
        ] {
            if let id { pairs.append(("tokenizer.ggml.\(key)_token_id", .uint32(UInt32(clamping: id)))) }
        }
        for (key, value) in [("bos_token", addsBOS), ("eos_token", addsEOS), ("space_prefix", addsSpacePrefix)] {
            if let value { pairs.append(("tokenizer.ggml.add_\(key)", .bool(value))) }
        }
        return pairs
    }
}
