import AdaLLaVA
import HTTPTypes

/// The body of `/v1/chat/completions`.
struct ChatRequest: Sendable {
    let model: String?
    let conversation: [ChatMessage]
    /// The conversation's images in order.
    let images: [ImageReference]
    let generation: GenerationFields
    let delivery: Delivery
    let form: ResponseForm

    /// - Throws: ``APIError``, ``BudgetError``, ``SamplingError``
    init(_ fields: RequestFields, headers: HTTPFields) throws {
        var fields = fields
        model = try fields.string("model")
        (conversation, images) = try Self.conversation(&fields)
        var generation = try GenerationFields(&fields, headers: headers, maxTokens: ["max_completion_tokens", "max_tokens"], standard: 512)
        delivery = try Delivery(&fields)
        let tellsProbabilities = try fields.bool("logprobs") ?? false
        let likeliest = try fields.integer("top_logprobs", in: 0 ... 20)
        if likeliest ?? 0 > 0, !tellsProbabilities { throw fields.wrong("top_logprobs", expected: "logprobs: true beside it", found: .bool(false)) }
        if tellsProbabilities { generation.options.logProbabilities = likeliest ?? 0 }
        self.generation = generation
        form = try ResponseForm(&fields)
        if form.schema != nil, generation.options.minTokens > 0 {
            throw APIError.parameter("response_format", expected: "no min_tokens or ignore_eos beside it, since the form says where the answer ends", found: "one of them")
        }
        try fields.takeNeutral()
        try fields.expectNothingElse()
    }

    /// The turns of `messages`, the last one the user's.
    static func conversation(_ fields: inout RequestFields) throws -> ([ChatMessage], [ImageReference]) {
        guard let messages = try fields.array("messages"), !messages.isEmpty else {
            throw APIError.parameter("messages", expected: "at least one message", found: "none")
        }
        var turns: [ChatMessage] = [], images: [ImageReference] = []
        for (index, message) in messages.enumerated() {
            var message = try RequestFields(message, path: "messages[\(index)]")
            let name = try message.string("role") ?? ""
            guard let role = ["system": ChatRole.system, "developer": .system, "user": .user, "assistant": .assistant][name] else {
                throw message.wrong("role", expected: "system, developer, user or assistant", found: .string(name))
            }
            let content = try MessageContent(&message, takesImages: role == .user)
            try message.neutral("refusal") { _ in false }
            try message.neutral("tool_calls") { $0 == .array([]) }
            try message.expectNothingElse()
            turns.append(ChatMessage(role, parts: content.parts))
            images += content.images
        }
        guard turns.last?.role == .user else {
            throw APIError.parameter("messages", expected: "the user's turn last", found: "the \(turns.last?.role.rawValue ?? "")'s")
        }
        return (turns, images)
    }
}

/// How an answer reaches its client.
struct Delivery: Sendable {
    /// As events while it grows.
    var streams = false
    /// With a last event that says how many tokens were used.
    var includesUsage = false
    /// With events that say how far encode and prefill are.
    var returnsProgress = false

    init() {}

    init(_ fields: inout RequestFields) throws {
        streams = try fields.bool("stream") ?? false
        if var options = try fields.object("stream_options") {
            guard streams else { throw APIError.parameter("stream_options", expected: "stream: true beside it", found: "stream: false") }
            includesUsage = try options.bool("include_usage") ?? false
            try options.neutral("continuous_usage_stats") { $0 == .bool(false) }
            try options.neutral("include_obfuscation") { $0 == .bool(false) }
            try options.expectNothingElse()
        }
        returnsProgress = try fields.bool("return_progress") ?? false
        if returnsProgress, !streams { throw APIError.parameter("return_progress", expected: "stream: true beside it", found: "stream: false") }
    }
}

/// Texts and images of one message.
struct MessageContent {
    private(set) var parts: [ChatMessage.Part] = []
    private(set) var images: [ImageReference] = []

    init(_ message: inout RequestFields, takesImages: Bool) throws {
        let name = "content"
        guard let value = message.take(name) else { throw message.wrong(name, expected: "a text or a list of parts", found: nil) }
        if case .string(let text) = value {
            parts = [.text(text)]
            return
        }
        guard case .array(let elements) = value else { throw message.wrong(name, expected: "a text or a list of parts", found: value) }
        var given: [ChatMessage.Part] = []
        for (index, element) in elements.enumerated() {
            var part = try RequestFields(element, path: "\(message.path)\(name)[\(index)]")
            let type = try part.string("type")
            switch type {
            case "text":
                guard let text = try part.string("text") else { throw part.wrong("text", expected: "a text", found: nil) }
                given.append(.text(text))
            case "image_url" where takesImages:
                images.append(try ImageReference(&part))
                given.append(.image)
            default:
                throw part.wrong("type", expected: takesImages ? "text or image_url" : "text", found: type.map(JSONValue.string))
            }
            try part.expectNothingElse()
        }
        parts = Self.ordered(given)
    }

    /// Parts in LLaVA's order: the images, a line break after each, then the text. Images with text between them stay where they are.
    static func ordered(_ parts: [ChatMessage.Part]) -> [ChatMessage.Part] {
        let images = parts.indices.filter { parts[$0] == .image }
        let texts = parts.compactMap { if case .text(let text) = $0 { text } else { nil } }
        if let first = images.first, let last = images.last, last - first >= images.count {
            return parts.flatMap { $0 == .image ? [$0, .text("\n")] : [$0] }
        }
        return ChatMessage.question(texts.joined(separator: "\n"), images: images.count).parts
    }
}
