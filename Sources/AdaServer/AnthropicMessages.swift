import AdaLLaVA
import HTTPTypes
import Hummingbird
import NIOCore

/// The body of `/v1/messages` and `/v1/messages/count_tokens` (Anthropic's Messages API).
struct MessagesRequest: Sendable {
    let model: String?
    let conversation: [ChatMessage]
    let images: [ImageReference]
    let generation: GenerationFields
    let delivery: Delivery

    /// - Parameter counts: whether only tokens are counted, so that no length is required.
    init(_ fields: RequestFields, headers: HTTPFields, counts: Bool = false) throws {
        var fields = fields
        model = try fields.string("model")
        var turns: [ChatMessage] = [], images: [ImageReference] = []
        if let system = fields.take("system") { turns.append(ChatMessage(.system, parts: try Self.content(system, "system", takesImages: false).parts)) }
        guard let messages = try fields.array("messages"), !messages.isEmpty else {
            throw APIError.parameter("messages", expected: "at least one message", found: "none")
        }
        for (index, message) in messages.enumerated() {
            var message = try RequestFields(message, path: "messages[\(index)]")
            let name = try message.string("role") ?? ""
            guard let role = ["user": ChatRole.user, "assistant": .assistant][name] else {
                throw message.wrong("role", expected: "user or assistant", found: .string(name))
            }
            let content = try Self.content(message.take("content") ?? .null, message.path + "content", takesImages: role == .user)
            try message.expectNothingElse()
            turns.append(ChatMessage(role, parts: content.parts))
            images += content.images
        }
        guard turns.last?.role == .user else { throw APIError.parameter("messages", expected: "the user's turn last", found: "the assistant's") }
        (conversation, self.images) = (turns, images)
        let stop = try GenerationFields.stop(&fields, "stop_sequences")
        try fields.neutral("n") { $0 == .integer(1) }
        var generation = try GenerationFields(&fields, headers: headers, maxTokens: ["max_tokens"], standard: counts ? 1 : 0)
        generation.options.stop += stop
        self.generation = generation
        delivery = try Delivery(&fields)
        for name in ["tools", "mcp_servers"] { try fields.neutral(name) { $0 == .array([]) } }
        try fields.neutral("tool_choice") { $0 == .object(["type": .string("auto")]) || $0 == .object(["type": .string("none")]) }
        try fields.neutral("thinking") { $0 == .object(["type": .string("disabled")]) }
        try fields.neutral("service_tier") { $0 == .string("auto") || $0 == .string("standard_only") }
        _ = try fields.object("metadata")
        try fields.expectNothingElse()
    }

    /// A text, or a list of text and image blocks.
    private static func content(_ value: JSONValue, _ path: String, takesImages: Bool) throws -> (parts: [ChatMessage.Part], images: [ImageReference]) {
        if case .string(let text) = value { return ([.text(text)], []) }
        guard case .array(let blocks) = value else { throw APIError.parameter(path, expected: "a text or a list of blocks", found: value.summary) }
        var parts: [ChatMessage.Part] = [], images: [ImageReference] = []
        for (index, block) in blocks.enumerated() {
            var block = try RequestFields(block, path: "\(path)[\(index)]")
            let type = try block.string("type")
            switch type {
            case "text":
                guard let text = try block.string("text") else { throw block.wrong("text", expected: "a text", found: nil) }
                parts.append(.text(text))
            case "image" where takesImages:
                guard var source = try block.object("source") else { throw block.wrong("source", expected: "an image's source", found: nil) }
                switch try source.string("type") {
                case "base64":
                    let media = try source.string("media_type") ?? "image/png", data = try source.string("data") ?? ""
                    images.append(ImageReference(url: "data:\(media);base64,\(data)"))
                case "url": images.append(ImageReference(url: try source.string("url") ?? ""))
                case let other: throw source.wrong("type", expected: "base64 or url", found: other.map(JSONValue.string))
                }
                try source.expectNothingElse()
                parts.append(.image)
            default: throw block.wrong("type", expected: takesImages ? "text or image" : "text", found: type.map(JSONValue.string))
            }
            // Earlier prompts are cached without being requested.
            _ = try block.object("cache_control")
            try block.expectNothingElse()
        }
        return (MessageContent.ordered(parts), images)
    }

    /// Positions that the prompt takes.
    func promptTokens(_ model: AdaptiveModel) throws -> Int {
        let tokens = try model.tokenize(conversation).count
        return images.isEmpty ? tokens : tokens + images.count * (try model.imagePreparation.tokens - 1)
    }
}

/// Anthropic's form of answers.
struct MessagesFormat: AnswerFormat {
    let id: String
    let model: String
    let promptTokens: Int
    let stop: [String]
    /// The text of an answer's tokens, the stop text included.
    let decode: @Sendable ([Int]) -> String

    var endsWithMark: Bool { false }

    struct Block: Encodable, Sendable {
        let type = "text"
        let text: String
    }

    struct MessageUsage: Encodable, Sendable {
        let inputTokens: Int
        let cacheCreationInputTokens = 0
        let cacheReadInputTokens: Int
        let outputTokens: Int
    }

    struct Message: Encodable, Sendable {
        let id: String
        let type = "message"
        let role = "assistant"
        let model: String
        let content: [Block]
        let stopReason: Nullable<String>
        let stopSequence: Nullable<String>
        let usage: MessageUsage
        var adaptive: AdaptiveReport?
    }

    private struct Start: Encodable, Sendable {
        let type = "message_start"
        let message: Message
    }

    private struct BlockStart: Encodable, Sendable {
        let type = "content_block_start"
        let index = 0
        let contentBlock = Block(text: "")
    }

    private struct BlockDelta: Encodable, Sendable {
        struct Delta: Encodable, Sendable {
            let type = "text_delta"
            let text: String
        }

        let type = "content_block_delta"
        let index = 0
        let delta: Delta
    }

    private struct Mark: Encodable, Sendable {
        let type: String
        var index: Int?
    }

    private struct MessageDelta: Encodable, Sendable {
        struct Delta: Encodable, Sendable {
            let stopReason: String
            let stopSequence: Nullable<String>
        }

        let type = "message_delta"
        let delta: Delta
        let usage: MessageUsage
        let adaptive: AdaptiveReport
    }

    private struct Progress: Encodable, Sendable {
        let type = "ping"
        let progress: ProgressReport
    }

    private func ending(_ answer: FinishedAnswer) -> (reason: String, sequence: String?) {
        if case .stopText = answer.summary.finish {
            let text = decode(answer.summary.tokens)
            let found = stop.compactMap { stop in text.range(of: stop).map { ($0.lowerBound, stop) } }.min { $0.0 < $1.0 }?.1
            return found == nil ? ("end_turn", nil) : ("stop_sequence", found)
        }
        return (answer.summary.finish.openAI == "length" ? "max_tokens" : "end_turn", nil)
    }

    private func usage(_ summary: AnswerSummary) -> MessageUsage {
        MessageUsage(
            inputTokens: summary.promptTokens - summary.cachedTokens.prefix, cacheReadInputTokens: summary.cachedTokens.prefix, outputTokens: summary.tokens.count)
    }

    func whole(_ answers: [FinishedAnswer]) -> any Encodable & Sendable {
        guard let answer = answers.first else { return MessagesErrorBody(APIError(.internalServerError, "there is no answer")) }
        let ending = ending(answer)
        return Message(
            id: id, model: model, content: [Block(text: answer.text)], stopReason: Nullable(ending.reason), stopSequence: Nullable(ending.sequence),
            usage: usage(answer.summary), adaptive: AdaptiveReport(answer.summary))
    }

    private func event(_ name: String, _ data: any Encodable & Sendable) -> StreamEvent { StreamEvent(name: name, data: data) }

    func opening(choices: Int) -> [StreamEvent] {
        let message = Message(
            id: id, model: model, content: [], stopReason: Nullable(nil), stopSequence: Nullable(nil),
            usage: MessageUsage(inputTokens: promptTokens, cacheReadInputTokens: 0, outputTokens: 0))
        return [event("message_start", Start(message: message)), event("content_block_start", BlockStart())]
    }

    func text(_ delta: AnswerDelta, choice: Int) -> [StreamEvent] {
        delta.text.isEmpty ? [] : [event("content_block_delta", BlockDelta(delta: .init(text: delta.text)))]
    }

    func ended(_ answer: FinishedAnswer) -> [StreamEvent] {
        let ending = ending(answer)
        let delta = MessageDelta(
            delta: .init(stopReason: ending.reason, stopSequence: Nullable(ending.sequence)), usage: usage(answer.summary),
            adaptive: AdaptiveReport(answer.summary))
        return [
            event("content_block_stop", Mark(type: "content_block_stop", index: 0)), event("message_delta", delta), event("message_stop", Mark(type: "message_stop")),
        ]
    }

    func closing(_ answers: [FinishedAnswer]) -> [StreamEvent] { [] }

    func progress(_ progress: ProgressReport) -> [StreamEvent] { [event("ping", Progress(progress: progress))] }

    func failure(_ error: APIError) -> [StreamEvent] { [event("error", MessagesErrorBody(error))] }
}

/// Anthropic's form of errors.
struct MessagesErrorBody: Encodable, Sendable {
    struct Content: Encodable, Sendable {
        let type: String
        let message: String
    }

    let type = "error"
    let error: Content

    init(_ error: APIError) {
        let type = switch error.status.code {
        case 404: "not_found_error"
        case 413: "request_too_large"
        case 503: "overloaded_error"
        case 500...: "api_error"
        default: error.type
        }
        self.error = Content(type: type, message: error.message)
    }
}
