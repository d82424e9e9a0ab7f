/// A conversation as training sees it: ids, and which of them are scored (LLaVA's `preprocess_multimodal` and `preprocess_v1`).
package struct TrainingConversation: Sendable {
    /// Marks positions that are not scored.
    package static let ignoredLabel = -100

    /// A conversation as ids and labels.
    package struct Labels: Sendable, Equatable {
        /// `-200` where images go.
        package let inputIDs: [Int]
        /// The ids again, ``TrainingConversation/ignoredLabel`` where nothing is scored: only answers and the tokens that end them are.
        package let labels: [Int]
        /// The rounds, encoded one by one, do not add up to the whole; then nothing is scored. Happens when a turn contains the
        /// assistant's mark, or when the tokenizer is not in legacy mode and spells a round's start differently alone.
        package let lengthMismatch: Bool
    }

    /// Turns in order, the user's first, `<image>` where images go.
    package let turns: [String]

    /// A conversation of turns, the person's first.
    package init(turns: [String]) {
        self.turns = turns
    }

    /// Every turn that mentions an image begins with it and a line break.
    package var withImagesInFront: TrainingConversation {
        let mark = ChatMessage.imageMark
        return TrainingConversation(
            turns: turns.map { turn in
                guard ByteText.contains(mark, in: turn) else { return turn }
                return ByteText.trimmed(mark + "\n" + ByteText.trimmed(ByteText.replacing(mark, with: "", in: turn)))
            })
    }

    /// Ids and labels under the vicuna_v1 template.
    /// - Parameters:
    ///   - hasImage: `<image>` is the placeholder of an image; otherwise it is text.
    ///   - maximumLength: longer conversations are cut there when they have no image (`model_max_length`).
    /// - Throws: ``ChatTemplateError/turns(template:reason:)``
    package func labels(with tokenizer: any Tokenizer, hasImage: Bool, maximumLength: Int = 2048) throws -> Labels {
        let template = ChatTemplate.vicunaV1
        let messages = turns.enumerated().map { ChatMessage($0 % 2 == 0 ? .user : .assistant, $1) }
        let prompt = ChatTemplate.text(of: try template.render(messages, opensAnswer: false))
        let encoder = PromptEncoder(tokenizer)
        func encode(_ text: String) -> [Int] { hasImage ? encoder.encode(prompt: text) : tokenizer.encode(text, addSpecialTokens: true) }
        var inputIDs = encode(prompt)
        if !hasImage { inputIDs = Array(inputIDs.prefix(max(0, maximumLength))) }
        var labels = inputIDs
        func ignore(_ range: Range<Int>) {
            for index in range.clamped(to: labels.indices) { labels[index] = Self.ignoredLabel }
        }
        let answerMark = " ASSISTANT: "
        var length = 1
        ignore(0..<1)
        for (round, text) in ByteText.split(prompt, by: "</s>").enumerated() {
            let parts = ByteText.split(text, by: answerMark)
            guard !text.isEmpty, parts.count == 2 else { break }
            var roundLength = encode(text).count
            // Without the beginning of sequence. The mark's last space belongs to the answer; LLaVA encodes it and takes off one token for
            // it, which is the same except for models that drop spaces at the end of a text.
            var questionLength = encode(parts[0] + answerMark.dropLast()).count - 1
            if round > 0, let tokenizer = tokenizer as? SentencePieceTokenizer, !tokenizer.isLegacy {
                roundLength -= 1
                questionLength -= 1
            }
            ignore(length..<max(length, length + questionLength))
            length += roundLength
        }
        ignore(length..<max(length, labels.count))
        let total = tokenizer.padToken.map { pad in inputIDs.count { $0 != pad } } ?? inputIDs.count
        let mismatch = length < maximumLength && length != total
        if mismatch { ignore(labels.indices) }
        return Labels(inputIDs: inputIDs, labels: labels, lengthMismatch: mismatch)
    }
}
