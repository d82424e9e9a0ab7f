import AdaLLaVA
import Synchronization

/// OpenAI's form of responses.
struct ResponsesFormat: AnswerFormat {
    let id: String
    let created: Int
    let model: String
    let request: ResponsesRequest
    private let numbers = Numbers()

    init(id: String, created: Int, model: String, request: ResponsesRequest) {
        (self.id, self.created, self.model, self.request) = (id, created, model, request)
    }

    var endsWithMark: Bool { false }

    /// Numbers of one stream's events.
    private final class Numbers: Sendable {
        private let last = Atomic(-1)

        func next() -> Int { last.add(1, ordering: .relaxed).newValue }
    }

    struct Part: Encodable, Sendable {
        let type = "output_text"
        let text: String
        let annotations: [String] = []
        let logprobs: [String] = []
    }

    struct Item: Encodable, Sendable {
        let type = "message"
        let id: String
        let status: String
        let role = "assistant"
        let content: [Part]
    }

    struct Response: Encodable, Sendable {
        struct Incomplete: Encodable, Sendable { let reason: String }

        struct ResponseUsage: Encodable, Sendable {
            struct Input: Encodable, Sendable {
                let cachedTokens: Int
                let imageTokens: Int
            }
            struct Output: Encodable, Sendable { let reasoningTokens = 0 }

            let inputTokens: Int
            let inputTokensDetails: Input
            let outputTokens: Int
            let outputTokensDetails = Output()
            let totalTokens: Int
        }

        struct Text: Encodable, Sendable {
            struct Format: Encodable, Sendable { let type = "text" }
            let format = Format()
        }

        let id: String
        let object = "response"
        let createdAt: Int
        let status: String
        let error = Nullable<String>(nil)
        let incompleteDetails: Nullable<Incomplete>
        let instructions: Nullable<String>
        let maxOutputTokens: Int
        let model: String
        let output: [Item]
        let parallelToolCalls = true
        let previousResponseId = Nullable<String>(nil)
        let store = false
        let temperature: Double
        let text = Text()
        let toolChoice = "auto"
        let tools: [String] = []
        let topP: Double
        let truncation = "disabled"
        let usage: Nullable<ResponseUsage>
        let metadata: [String: String] = [:]
        let adaptive: AdaptiveReport?
    }

    private var itemID: String { "msg_" + id.dropFirst("resp_".count) }

    private func response(_ answer: FinishedAnswer?) -> Response {
        let isCut = answer?.summary.finish.openAI == "length", options = request.generation.options
        let item = answer.map { Item(id: itemID, status: isCut ? "incomplete" : "completed", content: [Part(text: $0.text)]) }
        let usage = answer.map { answer in
            let usage = Usage([answer.summary])
            return Response.ResponseUsage(
                inputTokens: usage.promptTokens,
                inputTokensDetails: .init(cachedTokens: usage.promptTokensDetails.cachedTokens, imageTokens: usage.promptTokensDetails.imageTokens),
                outputTokens: usage.completionTokens, totalTokens: usage.totalTokens)
        }
        return Response(
            id: id, createdAt: created, status: answer == nil ? "in_progress" : isCut ? "incomplete" : "completed",
            incompleteDetails: Nullable(isCut ? .init(reason: "max_output_tokens") : nil), instructions: Nullable(request.instructions),
            maxOutputTokens: options.maxTokens, model: model, output: item.map { [$0] } ?? [], temperature: options.sampling.temperature,
            topP: options.sampling.topP, usage: Nullable(usage), adaptive: answer.map { AdaptiveReport($0.summary) })
    }

    /// One event of a stream; which members it has depends on its type.
    private struct Event: Encodable, Sendable {
        let type: String
        let sequenceNumber: Int
        var response: Response?
        var outputIndex: Int?
        var contentIndex: Int?
        var itemId: String?
        var item: Item?
        var part: Part?
        var delta: String?
        var text: String?
        var logprobs: [String]?
        var progress: ProgressReport?
        var code: String?
        var message: String?
    }

    private func event(_ type: String, _ change: (inout Event) -> Void) -> StreamEvent {
        var event = Event(type: type, sequenceNumber: numbers.next())
        change(&event)
        return StreamEvent(name: type, data: event)
    }

    /// One that is about the text of the only part of the only item.
    private func textEvent(_ type: String, _ change: (inout Event) -> Void) -> StreamEvent {
        event(type) {
            ($0.itemId, $0.outputIndex, $0.contentIndex) = (itemID, 0, 0)
            change(&$0)
        }
    }

    func whole(_ answers: [FinishedAnswer]) -> any Encodable & Sendable { response(answers.first) }

    func opening(choices: Int) -> [StreamEvent] {
        [
            event("response.created") { $0.response = response(nil) }, event("response.in_progress") { $0.response = response(nil) },
            event("response.output_item.added") { ($0.outputIndex, $0.item) = (0, Item(id: itemID, status: "in_progress", content: [])) },
            textEvent("response.content_part.added") { $0.part = Part(text: "") },
        ]
    }

    func text(_ delta: AnswerDelta, choice: Int) -> [StreamEvent] {
        delta.text.isEmpty ? [] : [textEvent("response.output_text.delta") { ($0.delta, $0.logprobs) = (delta.text, []) }]
    }

    func ended(_ answer: FinishedAnswer) -> [StreamEvent] {
        let whole = response(answer)
        return [
            textEvent("response.output_text.done") { ($0.text, $0.logprobs) = (answer.text, []) },
            textEvent("response.content_part.done") { $0.part = Part(text: answer.text) },
            event("response.output_item.done") { ($0.outputIndex, $0.item) = (0, whole.output.first) },
            event(whole.status == "incomplete" ? "response.incomplete" : "response.completed") { $0.response = whole },
        ]
    }

    func closing(_ answers: [FinishedAnswer]) -> [StreamEvent] { [] }

    func progress(_ progress: ProgressReport) -> [StreamEvent] {
        [event("response.progress") { $0.progress = progress }]
    }

    func failure(_ error: APIError) -> [StreamEvent] { [event("error") { ($0.code, $0.message) = (error.code ?? error.type, error.message) }] }
}
