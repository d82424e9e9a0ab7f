import Foundation

/// Finds and reads the tokenizer of a checkpoint's folder.
package enum TokenizerLoader {
    /// Which file a tokenizer is read from when a folder has both.
    package enum Source: Sendable {
        /// `tokenizer.model` if there is one, else `tokenizer.json`. LLaVA and AdaLLaVA were trained with the former.
        case automatic
        /// Only `tokenizer.model`: SentencePiece with the rules of Hugging Face's slow `LlamaTokenizer`.
        case sentencePiece
        /// Only `tokenizer.json`: the rules of Hugging Face's fast tokenizers.
        case tokenizerJSON
    }

    /// A tokenizer and the Jinja chat template that came with it.
    package struct Loaded: Sendable {
        /// The tokenizer.
        package let tokenizer: any Tokenizer
        /// The Jinja template; `nil` if there is none.
        package let chatTemplate: String?
        /// Special tokens by the names that the template knows them by: `bos_token`, `eos_token`, …
        package let specialTokens: [String: String]

        init(_ tokenizer: any Tokenizer, _ settings: TokenizerSettings) {
            (self.tokenizer, chatTemplate) = (tokenizer, settings.chatTemplate)
            specialTokens = settings.specialTokens.merging(tokenizer.namedTokens) { configured, _ in configured }
        }
    }

    /// Every file that a tokenizer may be read from.
    static let fileNames = [
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "chat_template.json",
    ]

    /// Larger files are no tokenizers.
    private static let largestFile = 1 << 28

    /// Reads `tokenizer.model` or `tokenizer.json` with `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
    /// - Throws: ``CheckpointError``: missing files, damaged ones, kinds of tokenizer that are not known.
    package static func load(folder: URL, source: Source = .automatic) throws -> Loaded {
        try load(from: folder.path, source: source) { try read($0, in: folder) }
    }

    /// Reads the same files from wherever `read` finds them.
    /// - Parameters:
    ///   - place: the name in messages.
    ///   - read: returns the bytes of a file and its name in messages; `nil` if there is no such file.
    static func load(
        from place: String, source: Source = .automatic, read: (String) throws -> (bytes: [UInt8], file: String)?
    ) throws -> Loaded {
        var settings = TokenizerSettings()
        if let (bytes, file) = try read("tokenizer_config.json") { try settings.readConfiguration(bytes, file: file) }
        if let (bytes, file) = try read("special_tokens_map.json") { try settings.readSpecialTokensMap(bytes, file: file) }
        if let (bytes, file) = try read("added_tokens.json") { try settings.readAddedTokens(bytes, file: file) }
        // Newer checkpoints keep the template in a file of its own, processors of images in one of theirs. Either counts before the settings.
        if let (bytes, _) = try read("chat_template.jinja") {
            settings.chatTemplate = String(decoding: bytes, as: UTF8.self)
        } else if let (bytes, file) = try read("chat_template.json"), let template = try TokenizerSettings.template(inFile: bytes, file: file) {
            settings.chatTemplate = template
        }
        if source != .tokenizerJSON, let (bytes, file) = try read("tokenizer.model") {
            return Loaded(try sentencePiece(bytes, settings: settings, file: file), settings)
        }
        if source != .sentencePiece, let (bytes, file) = try read("tokenizer.json") {
            return Loaded(try TokenizerJSON(bytes, file: file).makeTokenizer(settings: settings), settings)
        }
        let wanted = switch source {
        case .automatic: "tokenizer.model or tokenizer.json"
        case .sentencePiece: "tokenizer.model"
        case .tokenizerJSON: "tokenizer.json"
        }
        throw CheckpointError.missing(file: place, needed: "the tokenizer: expected \(wanted) in this folder")
    }

    private static func read(_ name: String, in folder: URL) throws -> (bytes: [UInt8], file: String)? {
        let url = folder.appendingPathComponent(name)
        guard let status = Files.status(url) else { return nil }
        do {
            if status.st_size > largestFile {
                throw CheckpointError.malformed(
                    file: url.path, reason: "\(status.st_size) bytes are too many for a tokenizer; at most \(largestFile) are read")
            }
            return ([UInt8](try Files.data(url)), url.path)
        } catch let error as CheckpointError {
            throw error
        } catch {
            throw CheckpointError.unreadable(file: url.path, reason: error.localizedDescription)
        }
    }

    /// A `tokenizer.model` with the rules of Hugging Face's slow `LlamaTokenizer`.
    static func sentencePiece(_ bytes: [UInt8], settings: TokenizerSettings, file: String) throws -> SentencePieceTokenizer {
        let model = try SentencePieceModel(tokenizerModel: bytes, file: file)
        var options = SentencePieceTokenizer.Options()
        options.isLegacy = settings.isLegacy ?? true
        options.addsBOS = settings.addsBOS ?? true
        options.addsEOS = settings.addsEOS ?? false
        options.addedTokens = settings.addedTokens
        var nextID = max(model.count, (settings.addedTokens.map(\.id).max() ?? -1) + 1)
        // A special token is an added token if it is listed as one, else a piece, else a new token at the end.
        func special(_ name: String) -> Int? {
            guard !name.isEmpty else { return nil }
            if let index = options.addedTokens.lastIndex(where: { $0.content.utf8.elementsEqual(name.utf8) }) {
                options.addedTokens[index].isSpecial = true
                return options.addedTokens[index].id
            }
            var id = model.pieces.find(Array(name.utf8))
            if id < 0 {
                id = nextID
                nextID += 1
            }
            options.addedTokens.append(AddedToken(id: id, content: name, isSpecial: true))
            return id
        }
        options.bosToken = special(settings.bosToken ?? "<s>")
        options.eosToken = special(settings.eosToken ?? "</s>")
        options.unknownToken = special(settings.unknownToken ?? "<unk>")
        options.padToken = settings.padToken.flatMap(special)
        for name in settings.additionalSpecialTokens { _ = special(name) }
        options.endOfGeneration = EndOfGeneration.ids { name in
            options.addedTokens.first { $0.isSpecial && $0.content.utf8.elementsEqual(name.utf8) }?.id
        }
        return SentencePieceTokenizer(model: model, options: options)
    }
}

extension Tokenizer {
    /// The tokens that a vocabulary itself names, by the names that chat templates know them by.
    var namedTokens: [String: String] {
        let tokens = [("bos_token", bosToken), ("eos_token", eosToken), ("unk_token", unknownToken), ("pad_token", padToken)]
        return Dictionary(uniqueKeysWithValues: tokens.compactMap { name, id in id.map { (name, String(decoding: bytes(of: $0), as: UTF8.self)) } })
    }
}
