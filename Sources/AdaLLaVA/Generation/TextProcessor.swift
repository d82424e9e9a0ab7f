/// Text in and out of a model: its tokenizer and its chat template.
struct TextProcessor: Sendable {
    let tokenizer: any Tokenizer
    /// Tokens that end an answer.
    let endTokens: Set<Int>
    let template: Result<ChatTemplate, any Error>
    /// Placeholder of an image in a template's text.
    private let imageMark: String
    /// Whether the vocabulary's beginning of sequence is put in front of a prompt whose template does not write it. transformers does so for models
    /// whose processor takes images.
    private let addsMissingStart: Bool

    /// Finds the checkpoint's tokenizer and chat template.
    /// - Parameter choice: the template that a person asks for; `nil` takes the checkpoint's.
    /// - Returns: `nil` if the checkpoint has no tokenizer, so that it can still be run on token ids.
    /// - Throws: ``CheckpointError`` for a damaged tokenizer, ``ChatTemplateError/unknownName(_:)``. A template that cannot be chosen is an
    ///   error only once a conversation needs it.
    init?(_ checkpoint: Checkpoint, template choice: ChatTemplateChoice?) throws {
        let chatTemplate: String?
        let specialTokens: [String: String]
        if let metadata = checkpoint.ggufMetadata, metadata.keys.contains(where: { $0.hasPrefix(EmbeddedFiles.prefix) }) {
            // A GGUF of ours brings the tokenizer's own files.
            let loaded = try TokenizerLoader.load(from: checkpoint.name) { name in
                guard case .string(let bytes)? = metadata[EmbeddedFiles.prefix + name] else { return nil }
                return (bytes, "\(name) in \(checkpoint.name)")
            }
            (tokenizer, chatTemplate, specialTokens) = (loaded.tokenizer, loaded.chatTemplate, loaded.specialTokens)
        } else if let metadata = checkpoint.ggufMetadata {
            guard let vocabulary = try GGUFVocabulary(metadata) else { return nil }
            tokenizer = try vocabulary.makeTokenizer(file: checkpoint.folder.appendingPathComponent(checkpoint.name).path)
            chatTemplate = try metadata.string("tokenizer.chat_template")
            specialTokens = tokenizer.namedTokens
        } else {
            do {
                let loaded = try TokenizerLoader.load(folder: checkpoint.folder)
                (tokenizer, chatTemplate, specialTokens) = (loaded.tokenizer, loaded.chatTemplate, loaded.specialTokens)
            } catch CheckpointError.missing {
                return nil
            }
        }
        endTokens = tokenizer.endOfGenerationTokens.union(checkpoint.generation.eosTokenIDs)
        let tokenizer = tokenizer
        // llava-hf's vocabularies name the placeholder token of an image.
        let image = checkpoint.configuration.llava?.imageTokenID.map { String(decoding: tokenizer.bytes(of: $0), as: UTF8.self) }
        let imageMark = image.flatMap { $0.isEmpty ? nil : $0 } ?? ChatMessage.imageMark
        self.imageMark = imageMark
        addsMissingStart = image != nil && checkpoint.ggufMetadata == nil
        if let choice {
            template = .success(try choice.load(specialTokens: specialTokens, imageMark: imageMark))
        } else {
            template = Result { try TextProcessor.chooseTemplate(checkpoint, chatTemplate, specialTokens, imageMark) }
        }
    }

    private static func chooseTemplate(
        _ checkpoint: Checkpoint, _ jinja: String?, _ specialTokens: [String: String], _ imageMark: String
    ) throws -> ChatTemplate {
        let configuration = checkpoint.configuration
        let type: String
        switch configuration.language.architecture {
        case .llama: type = configuration.adaptive != nil ? "ada_llava_llama" : configuration.llava != nil ? "llava" : "llama"
        case .mistral: type = configuration.adaptive != nil || configuration.llava != nil ? "llava_mistral" : "mistral"
        // LLaVA's scripts know no template for these: theirs is the one that they bring.
        case let other: type = other.rawValue
        }
        // Conversions made before text models' own templates were rendered name a built-in one beside it.
        let isText = configuration.adaptive == nil && configuration.llava == nil
        if !isText || jinja == nil, let name = try checkpoint.ggufMetadata?.string(EmbeddedFiles.templateKey) {
            return try ChatTemplate.named(name)
        }
        // Checkpoints in transformers' layout, with any folder name, and GGUF pairs, which say in their metadata what LLaVA's scripts
        // read from a folder's name: the template that they bring, or the one that LLaVA's decoders were trained with.
        if configuration.llava?.imageTokenID != nil || type == "llava" && checkpoint.ggufMetadata != nil {
            if jinja == nil, configuration.llava?.tiling != .idefics3, configuration.language.architecture == .llama { return .vicunaV1 }
            if jinja == nil, configuration.llava?.tiling != .idefics3, configuration.language.architecture == .mistral { return .mistralInstruct }
            return try ChatTemplate.forCheckpoint(
                name: checkpoint.name, modelType: "llama", chatTemplate: jinja, specialTokens: specialTokens, imageMark: imageMark)
        }
        if let llava = configuration.llava, llava.visionTowerReference == nil, configuration.language.architecture == .phi2, jinja == nil { return .mipha }
        return try ChatTemplate.forCheckpoint(
            name: checkpoint.name, modelType: type, chatTemplate: jinja, specialTokens: specialTokens, imageMark: imageMark)
    }

    /// The template's name, or `nil` if none could be chosen.
    var templateName: String? { try? template.get().name }

    /// Problem of the checkpoint's template; `nil` if it has none.
    var templateProblem: String? {
        if case .failure(let error as ChatTemplateError) = template, case .jinja = error { error.description } else { nil }
    }

    /// The template's name, if it is a built-in one.
    var builtInTemplateName: String? {
        guard let template = try? template.get(), template.jinjaSource == nil else { return nil }
        return template.name
    }

    /// Texts that end an answer.
    var stopTexts: [String] {
        guard let template = try? template.get() else { return [] }
        guard template.jinjaSource != nil else { return template.stopStrings }
        // Where the template's mark is no special token of the vocabulary, a model that was trained with the template spells it.
        return template.stopStrings.filter { text in tokenizer.token(text).map { !endTokens.contains($0) } ?? true }
    }

    /// The prompt of a conversation, -200 where images go.
    /// - Parameter system: replaces the template's system prompt.
    /// - Throws: ``ChatTemplateError``
    func prompt(_ conversation: [ChatMessage], system: String?) throws -> [Int] {
        let messages = (system.map { [ChatMessage(.system, $0)] } ?? []) + conversation
        let template = try template.get()
        let (encoder, segments) = (PromptEncoder(tokenizer), try template.render(messages))
        return template.jinjaSource.map { encoder.encode(segments, writtenBy: $0, addsMissingStart: addsMissingStart) } ?? encoder.encode(segments)
    }

    /// Placeholder of an image in a prompt of Idefics3 or SmolVLM, as their processors write it: each tile after its row and column, then the whole
    /// image, -200 for the features of each.
    /// - Parameters: tiles from top to bottom and from left to right; zeros if the image is one.
    func idefics3Layout(rows: Int, columns: Int) -> [Int] {
        let (frame, mark) = ("<fake_token_around_image>", imageMark)
        var text = ""
        for row in 0 ..< rows {
            for column in 0 ..< columns { text += "\(frame)<row_\(row + 1)_col_\(column + 1)>\(mark)" }
            text += "\n"
        }
        text += "\(rows > 0 ? "\n" : "")\(frame)<global-img>\(mark)\(frame)"
        return layout(of: text)
    }

    /// Placeholder of an image in a prompt of LFM2-VL, as its processor writes it: each tile after its row and column, then the whole image, -200 for the
    /// features of each.
    /// - Parameters:
    ///   - rows, columns: tiles from top to bottom and from left to right; zeros if the image is one.
    ///   - hasWhole: whether the whole image follows them.
    func lfm2VLLayout(rows: Int, columns: Int, hasWhole: Bool) -> [Int] {
        var text = "<|image_start|>"
        for row in 0 ..< rows {
            for column in 0 ..< columns { text += "<|img_row_\(row + 1)_col_\(column + 1)|>\(imageMark)" }
        }
        if hasWhole { text += (rows > 0 ? "<|img_thumbnail|>" : "") + imageMark }
        return layout(of: text + "<|image_end|>")
    }

    private func layout(of text: String) -> [Int] {
        let mark = imageMark
        let markID = tokenizer.token(mark)
        return tokenizer.encode(tokenizer.segments(of: text) { _ in true }, addSpecialTokens: false).map { $0 == markID ? PromptEncoder.imageToken : $0 }
    }

    /// The ids of a whole prompt given as text, `<image>` becoming -200.
    func tokenize(prompt: String) -> [Int] { PromptEncoder(tokenizer).encode(prompt: prompt) }

    func decode(_ tokens: [Int]) -> String { tokenizer.decode(tokens) }

    /// Remark of `inspect` on duplicate entries of the vocabulary; `nil` if there are none.
    var doubledTokens: String? {
        let pieces = (tokenizer as? SentencePieceTokenizer)?.model.pieces ?? (tokenizer as? BytePairTokenizer)?.model.pieces
        guard let pieces, let example = pieces.doubled.first else { return nil }
        let (count, text) = (pieces.doubled.count, String(decoding: pieces[example], as: UTF8.self))
        let found = pieces.find(pieces[example])
        return "\(count) token\(count == 1 ? " stands" : "s stand") in the vocabulary twice, such as \"\(text)\" (\(found) and \(example)); texts become \(count == 1 ? "\(found)" : "one of the two")"
    }

    /// Description of the tokenizer for `inspect`.
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
    /// - Parameter isEnd: the token ends the answer and has no text.
    mutating func append(_ token: Int, isEnd: Bool) -> String {
        if isEnd || isStopped { return "" }
        return release(decoder.push(token))
    }

    /// Text that was held back, once no more tokens come.
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
            merges: bytes(try metadata.array("tokenizer.ggml.merges")), bosToken: try metadata.tokenID("tokenizer.ggml.bos_token_id"),
            eosToken: try metadata.tokenID("tokenizer.ggml.eos_token_id"), eotToken: try metadata.tokenID("tokenizer.ggml.eot_token_id"),
            unknownToken: try metadata.tokenID("tokenizer.ggml.unknown_token_id"), padToken: try metadata.tokenID("tokenizer.ggml.padding_token_id"),
            addsBOS: try metadata.bool("tokenizer.ggml.add_bos_token"), addsEOS: try metadata.bool("tokenizer.ggml.add_eos_token"),
            addsSpacePrefix: try metadata.bool("tokenizer.ggml.add_space_prefix"))
    }
}
