import AdaLLaVA

/// OpenAI's form of chat answers.
struct ChatFormat: AnswerFormat {
    let id: String
    let created: Int
    let model: String
    let includesUsage: Bool
    let choices: Int

    struct Completion: Encodable, Sendable {
        struct Message: Encodable, Sendable {
            let role = "assistant"
            let content: String
            let refusal = Nullable<String>(nil)
        }

        struct Choice: Encodable, Sendable {
            let index: Int
            let message: Message
            let logprobs: Nullable<ChatLogprobs>
            let finishReason: String
            /// With several answers, each has its own.
            let adaptive: AdaptiveReport?
        }

        let id: String
        let object = "chat.completion"
        let created: Int
        let model: String
        let choices: [Choice]
        let usage: Usage
        let adaptive: AdaptiveReport?
    }

    struct Chunk: Encodable, Sendable {
        struct Delta: Encodable, Sendable {
            var role: String?
            var content: String?
        }

        struct Choice: Encodable, Sendable {
            let index: Int
            let delta: Delta
            var logprobs = Nullable<ChatLogprobs>(nil)
            var finishReason = Nullable<String>(nil)
        }

        let id: String
        let object = "chat.completion.chunk"
        let created: Int
        let model: String
        var choices: [Choice] = []
        var usage: Nullable<Usage>?
        var adaptive: AdaptiveReport?
        var progress: ProgressReport?
    }

    func whole(_ answers: [FinishedAnswer]) -> any Encodable & Sendable {
        Completion(
            id: id, created: created, model: model,
            choices: answers.map { answer in
                Completion.Choice(
                    index: answer.choice, message: Completion.Message(content: answer.text),
                    logprobs: Nullable(ChatLogprobs(answer.logProbabilities)), finishReason: answer.summary.finish.openAI,
                    adaptive: choices > 1 ? AdaptiveReport(answer.summary) : nil)
            }, usage: Usage(answers.map(\.summary)), adaptive: answers.first.map { AdaptiveReport($0.summary) })
    }

    /// A chunk without choices. Where usage is wanted, all but the last say that it is still to come.
    private var chunk: Chunk { Chunk(id: id, created: created, model: model, usage: includesUsage ? Nullable(nil) : nil) }

    private func chunk(_ choice: Chunk.Choice) -> Chunk {
        var chunk = chunk
        chunk.choices = [choice]
        return chunk
    }

    func opening(choices: Int) -> [StreamEvent] {
        (0 ..< choices).map { StreamEvent(data: chunk(Chunk.Choice(index: $0, delta: Chunk.Delta(role: "assistant", content: "")))) }
    }

    func text(_ delta: AnswerDelta, choice: Int) -> [StreamEvent] {
        let content = Chunk.Delta(content: delta.text)
        return [StreamEvent(data: chunk(Chunk.Choice(index: choice, delta: content, logprobs: Nullable(ChatLogprobs(delta.logProbabilities)))))]
    }

    func ended(_ answer: FinishedAnswer) -> [StreamEvent] {
        var last = chunk(Chunk.Choice(index: answer.choice, delta: Chunk.Delta(), finishReason: Nullable(answer.summary.finish.openAI)))
        last.adaptive = AdaptiveReport(answer.summary)
        return [StreamEvent(data: last)]
    }

    func closing(_ answers: [FinishedAnswer]) -> [StreamEvent] {
        guard includesUsage else { return [] }
        var last = chunk
        last.usage = Nullable(Usage(answers.map(\.summary)))
        last.adaptive = answers.first.map { AdaptiveReport($0.summary) }
        return [StreamEvent(data: last)]
    }

    func progress(_ progress: ProgressReport) -> [StreamEvent] {
        var news = chunk
        news.progress = progress
        return [StreamEvent(data: news)]
    }
}
