/// Turns prompts into token ids with image marks, as LLaVA's `tokenizer_image_token` does.
package struct PromptEncoder: Sendable {
    /// The placeholder of an image's features among token ids, as in LLaVA's code.
    package static let imageToken = -200

    /// Encodes the texts between images.
    package let tokenizer: any Tokenizer

    /// An encoder on a tokenizer.
    package init(_ tokenizer: any Tokenizer) {
        self.tokenizer = tokenizer
    }

    /// Token ids of a rendered conversation. Text in it never becomes a special token.
    package func encode(_ segments: [PromptSegment]) -> [Int] {
        var chunks: [[TokenizerSegment]] = [[]]
        for segment in segments {
            switch segment {
            case .image: chunks.append([])
            case .text(let text): chunks[chunks.count - 1].append(.text(text))
            case .template(let text): chunks[chunks.count - 1] += tokenizer.segments(of: text)
            case .special(let text):
                chunks[chunks.count - 1].append(tokenizer.token(text).map(TokenizerSegment.token) ?? .text(text))
            }
        }
        return join(chunks.map { tokenizer.encode($0, addSpecialTokens: true) })
    }

    /// Token ids of the text of a Jinja template, equal to those of transformers' `apply_chat_template`: the template itself writes the
    /// beginning of sequence, and images are inside one text.
    ///
    /// Special tokens count where the template wrote them. Tokens that the vocabulary does not call special but the template uses as marks
    /// (DeepSeek's `<｜User｜>`) are treated likewise; other added tokens are found everywhere, as their tokenizers do.
    /// - Parameters:
    ///   - source: the template.
    ///   - addsMissingStart: add the vocabulary's special tokens around a prompt that does not begin with the beginning of sequence.
    func encode(_ segments: [PromptSegment], writtenBy source: String, addsMissingStart: Bool = false) -> [Int] {
        var marks = tokenizer.addedTokens(in: source)
        for case .template(let text) in segments { marks.formUnion(tokenizer.addedTokens(in: text)) }
        marks = marks.filter { !tokenizer.isSpecial($0) && Self.isMark(tokenizer.bytes(of: $0)) }
        var parts: [TokenizerSegment] = []
        for segment in segments {
            switch segment {
            case .image: parts.append(.token(Self.imageToken))
            case .text(let text): parts.append(.text(text))
            case .template(let text): parts += tokenizer.segments(of: text) { marks.contains($0) || tokenizer.isSpecial($0) }
            case .special(let text): parts.append(tokenizer.token(text).map(TokenizerSegment.token) ?? .text(text))
            }
        }
        let hasStart = if case .token(let first)? = parts.first { first == tokenizer.bosToken } else { false }
        return tokenizer.encode(parts, addSpecialTokens: addsMissingStart && !hasStart, spelling: marks)
    }

    /// Whether an added token looks like a mark, not like a word or white space: it begins and ends with other characters than letters.
    private static func isMark(_ bytes: [UInt8]) -> Bool {
        let text = UnicodeText(bytes[...])
        guard text.count > 2, let first = text.classes.first, let last = text.classes.last else { return false }
        return first.isOther && last.isOther
    }

    /// Token ids of a prompt given as text, `<image>` where images go: special tokens written in it count as such, as in the reference.
    package func encode(prompt: String) -> [Int] {
        join(ByteText.split(prompt, by: ChatMessage.imageMark).map { tokenizer.encode($0, addSpecialTokens: true) })
    }

    /// Joins chunks with image marks; the beginning of sequence stays only in front of the first.
    private func join(_ chunks: [[Int]]) -> [Int] {
        let hasBOS = chunks[0].first != nil && chunks[0].first == tokenizer.bosToken
        var ids: [Int] = hasBOS ? [chunks[0][0]] : []
        for (index, chunk) in chunks.enumerated() {
            if index > 0 { ids.append(Self.imageToken) }
            ids.append(contentsOf: chunk.dropFirst(hasBOS ? 1 : 0))
        }
        return ids
    }
}
