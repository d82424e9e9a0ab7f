import AdaLLaVA

/// OpenAI's form of completions.
struct CompletionFormat: AnswerFormat {
    let id: String
    let created: Int
    let model: String
    let includesUsage: Bool
    let choices: Int

    struct Completion: Encodable, Sendable {
        struct Choice: Encodable, Sendable {
            let index: Int
            let text: String
            var logprobs = Nullable<CompletionLogprobs>(nil)
            var finishReason = Nullable<String>(nil)
            var adaptive: AdaptiveReport?
        }

        let id: String
        let object = "text_completion"
        let created: Int
        let model: String
        var choices: [Choice] = []
        var usage: Nullable<Usage>?
        var adaptive: AdaptiveReport?
        var progress: ProgressReport?
    }

    private func completion(_ choices: [Completion.Choice]) -> Completion {
        Completion(id: id, created: created, model: model, choices: choices, usage: includesUsage ? Nullable(nil) : nil)
    }

    func whole(_ answers: [FinishedAnswer]) -> any Encodable & Sendable {
        var whole = completion(answers.map { answer in
            Completion.Choice(
                index: answer.choice, text: answer.text, logprobs: Nullable(CompletionLogprobs(answer.logProbabilities)),
                finishReason: Nullable(answer.summary.finish.openAI), adaptive: choices > 1 ? AdaptiveReport(answer.summary) : nil)
        })
        whole.usage = Nullable(Usage(answers.map(\.summary)))
        whole.adaptive = answers.first.map { AdaptiveReport($0.summary) }
        return whole
    }

    func text(_ delta: AnswerDelta, choice: Int) -> [StreamEvent] {
        [StreamEvent(data: completion([.init(index: choice, text: delta.text, logprobs: Nullable(CompletionLogprobs(delta.logProbabilities)))]))]
    }

    func ended(_ answer: FinishedAnswer) -> [StreamEvent] {
        var last = completion([.init(index: answer.choice, text: "", finishReason: Nullable(answer.summary.finish.openAI))])
        last.adaptive = AdaptiveReport(answer.summary)
        return [StreamEvent(data: last)]
    }

    func closing(_ answers: [FinishedAnswer]) -> [StreamEvent] {
        guard includesUsage else { return [] }
        var last = completion([])
        last.usage = Nullable(Usage(answers.map(\.summary)))
        last.adaptive = answers.first.map { AdaptiveReport($0.summary) }
        return [StreamEvent(data: last)]
    }

    func progress(_ progress: ProgressReport) -> [StreamEvent] {
        var news = completion([])
        news.progress = progress
        return [StreamEvent(data: news)]
    }
}
