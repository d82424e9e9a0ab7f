/// Text in and out of a model: its tokenizer and its chat template.
struct TextProcessor: Sendable {
    let tokenizer: any Tokenizer
    /// Tokens that end an answer.
    let endTokens: Set<Int>
    private let template: Result<ChatTemplate, any Error>

    /// Finds the checkpoint's tokenizer and chat template.
    /// - Parameter template: the template's name; `nil` chooses as LLaVA does.
    /// - Returns: `nil` if the checkpoint has no tokenizer, so that it can still be run on token ids.
    /// - Throws: ``CheckpointError`` for a damaged tokenizer, ``ChatTemplateError/unknownName(_:)``. A template that cannot be chosen is an
    ///   error only once a conversation needs it.
    init?(_ checkpoint: Checkpoint, template name: String?) throws {
        let chatTemplate: String?
        if let metadata = checkpoint.ggufMetadata, metadata.keys.contains(where: { $0.hasPrefix(EmbeddedFiles.prefix) }) {
            // A GGUF of ours brings the tokenizer's own files.
            let loaded = try TokenizerLoader.load(from: checkpoint.name) { name in
                guard case .string(let bytes)? = metadata[EmbeddedFiles.prefix + name] else { return nil }
                return (bytes, "\(name) in \(checkpoint.name)")
            }
            (tokenizer, chatTemplate) = (loaded.tokenizer, loaded.chatTemplate)
        } else if let metadata = checkpoint.ggufMetadata {
            guard let vocabulary = try GGUFVocabulary(metadata) else { return nil }
            tokenizer = try vocabulary.makeTokenizer(file: checkpoint.folder.appendingPathComponent(checkpoint.name).path)
            chatTemplate = try metadata.string("tokenizer.chat_template")
        } else {
            do {
                let loaded = try TokenizerLoader.load(folder: checkpoint.folder)
                (tokenizer, chatTemplate) = (loaded.tokenizer, loaded.chatTemplate)
            } catch CheckpointError.missing {
                return nil
            }
        }
        endTokens = tokenizer.endOfGenerationTokens.union(checkpoint.generation.eosTokenIDs)
        if let name {
            template = .success(try ChatTemplate.named(name))
        } else {
            template = Result { try TextProcessor.chooseTemplate(checkpoint, chatTemplate) }
        }
    }

    private static func chooseTemplate(_ checkpoint: Checkpoint, _ jinja: String?) throws -> ChatTemplate {
        if let name = try checkpoint.ggufMetadata?.string(EmbeddedFiles.templateKey) { return try ChatTemplate.named(name) }
        let configuration = checkpoint.configuration
        let type = configuration.adaptive != nil ? "ada_llava_llama" : configuration.llava != nil ? "llava" : "llama"
        // llava-hf's conversions of LLaVA-1.5, whatever their folder is called.
        if type == "llava", configuration.llava?.imageTokenID != nil { return .vicunaV1 }
        // A GGUF pair says in its metadata what LLaVA's scripts read from a folder's name.
        if type == "llava", checkpoint.ggufMetadata != nil {
            return try jinja.map { try ChatTemplate.forCheckpoint(name: checkpoint.name, modelType: "llama", chatTemplate: $0) } ?? .vicunaV1
        }
        return try ChatTemplate.forCheckpoint(name: checkpoint.name, modelType: type, chatTemplate: jinja)
    }

    /// The template's name, or `nil` if none could be chosen.
    var templateName: String? { try? template.get().name }

    /// Texts that end an answer.
    var stopTexts: [String] { (try? template.get().stopStrings) ?? [] }

    /// The prompt of a conversation, -200 where images go.
    /// - Parameter system: replaces the template's system prompt.
    func prompt(_ conversation: [ChatMessage], system: String?) throws -> [Int] {
        let messages = (system.map { [ChatMessage(.system, $0)] } ?? []) + conversation
        return PromptEncoder(tokenizer).encode(try template.get().render(messages))
    }

    /// The ids of a whole prompt given as text, `<image>` becoming -200.
    func tokenize(prompt: String) -> [Int] { PromptEncoder(tokenizer).encode(prompt: prompt) }

    func decode(_ tokens: [Int]) -> String { tokenizer.decode(tokens) }

    /// What `inspect` says of the tokenizer.
    var tokenizerDescription: String {
        "\(tokenizer is SentencePieceTokenizer ? "SentencePiece BPE" : "byte-level BPE"), \(tokenizer.vocabularySize) tokens"
    }
}

/// An answer's text while it grows: whole characters only, ending before a stop text.
struct AnswerText {
    private var decoder: StreamingDecoder
    private let stops: [[UInt8]]
    /// Text that may be the start of a stop text.
    private var held: [UInt8] = []
    private(set) var isStopped = false

    init(_ text: TextProcessor, stop: [String]) {
        decoder = StreamingDecoder(text.tokenizer)
        stops = stop.map { Array($0.utf8) }.filter { !$0.isEmpty }
    }

    /// Adds a token and returns the text that is certain now.
    /// - Parameter isEnd: the token ends the answer and stands for no text.
    mutating func append(_ token: Int, isEnd: Bool) -> String {
        if isEnd || isStopped { return "" }
        return release(decoder.push(token))
    }

    /// What was held back, once no more tokens come.
    mutating func finish() -> String {
        if isStopped { return "" }
        let last = release(decoder.finish())
        defer { held = [] }
        return isStopped ? last : last + String(decoding: held, as: UTF8.self)
    }

    private mutating func release(_ text: String) -> String {
        held += Array(text.utf8)
        let found = stops.compactMap { firstOccurrence(of: $0) }.min()
        if let found {
            isStopped = true
            defer { held = [] }
            return String(decoding: held[..<found], as: UTF8.self)
        }
        // The longest end of the text that some stop text starts with stays back.
        let longest = (stops.map(\.count).max() ?? 1) - 1
        let keep = stride(from: min(longest, held.count), to: 0, by: -1).first { length in
            stops.contains { $0.starts(with: held.suffix(length)) }
        } ?? 0
        defer { held = Array(held.suffix(keep)) }
        return String(decoding: held.dropLast(keep), as: UTF8.self)
    }

    private func firstOccurrence(of stop: [UInt8]) -> Int? {
        guard held.count >= stop.count else { return nil }
        return (0 ... held.count - stop.count).first { held[$0...].starts(with: stop) }
    }
}

extension GGUFVocabulary {
    /// The vocabulary of a GGUF file; `nil` if it has none.
    /// - Throws: ``CheckpointError`` when a key has another type than it should.
    init?(_ metadata: GGUFMetadata) throws {
        guard let model = try metadata.string("tokenizer.ggml.model"), let tokens = try metadata.array("tokenizer.ggml.tokens") else { return nil }
        func bytes(_ array: GGUFArray?) -> [[UInt8]] {
            var strings: [[UInt8]] = []
            strings.reserveCapacity(array?.count ?? 0)
            _ = array?.forEachString { _, bytes in strings.append(Array(bytes)) }
            return strings
        }
        self.init(
            model: model, pre: try metadata.string("tokenizer.ggml.pre"), tokens: bytes(tokens),
            scores: try metadata.floats("tokenizer.ggml.scores") ?? [], tokenTypes: try metadata.ints("tokenizer.ggml.token_type") ?? [],
            merges: bytes(try metadata.array("tokenizer.ggml.merges")), bosToken: try metadata.int("tokenizer.ggml.bos_token_id"),
            eosToken: try metadata.int("tokenizer.ggml.eos_token_id"), eotToken: try metadata.int("tokenizer.ggml.eot_token_id"),
            unknownToken: try metadata.int("tokenizer.ggml.unknown_token_id"), padToken: try metadata.int("tokenizer.ggml.padding_token_id"),
            addsBOS: try metadata.bool("tokenizer.ggml.add_bos_token"), addsEOS: try metadata.bool("tokenizer.ggml.add_eos_token"),
            addsSpacePrefix: try metadata.bool("tokenizer.ggml.add_space_prefix"))
    }
}
