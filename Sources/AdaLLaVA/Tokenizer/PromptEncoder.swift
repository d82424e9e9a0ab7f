/// Turns prompts into token ids with image marks, as LLaVA's `tokenizer_image_token` does.
public struct PromptEncoder: Sendable {
    /// Stands for "an image's features go here".
    public static let imageToken = -200

    /// What turns the texts between images into ids.
    public let tokenizer: any Tokenizer

    /// An encoder on a tokenizer.
    public init(_ tokenizer: any Tokenizer) {
        self.tokenizer = tokenizer
    }

    /// Token ids of a rendered conversation. Text in it never becomes a special token.
    public func encode(_ segments: [PromptSegment]) -> [Int] {
        var chunks: [[TokenizerSegment]] = [[]]
        for segment in segments {
            switch segment {
            case .image: chunks.append([])
            case .text(let text): chunks[chunks.count - 1].append(.text(text))
            case .special(let text):
                chunks[chunks.count - 1].append(tokenizer.token(text).map(TokenizerSegment.token) ?? .text(text))
            }
        }
        return join(chunks.map { tokenizer.encode($0, addSpecialTokens: true) })
    }

    /// Token ids of a prompt given as text, `<image>` where images go: special tokens written in it count as such, as in the reference.
    public func encode(prompt: String) -> [Int] {
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
