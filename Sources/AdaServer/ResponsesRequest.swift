import AdaLLaVA
import HTTPTypes

/// The body of `/v1/responses`, without the fields that need stored conversations.
struct ResponsesRequest: Sendable {
    let model: String?
    let conversation: [ChatMessage]
    let images: [ImageReference]
    let instructions: String?
    let generation: GenerationFields
    let delivery: Delivery

    init(_ fields: RequestFields, headers: HTTPFields) throws {
        var fields = fields
        model = try fields.string("model")
        instructions = try fields.string("instructions")
        var turns = instructions.map { [ChatMessage(.system, $0)] } ?? [], images: [ImageReference] = []
        switch fields.take("input") {
        case .string(let text): turns.append(ChatMessage(.user, text))
        case .array(let items) where !items.isEmpty:
            for (index, item) in items.enumerated() {
                let turn = try Self.turn(item, "input[\(index)]")
                turns.append(turn.message)
                images += turn.images
            }
        case let other: throw fields.wrong("input", expected: "a text or a list of messages", found: other)
        }
        guard turns.last?.role == .user else { throw APIError.parameter("input", expected: "the user's message last", found: "another") }
        (conversation, self.images) = (turns, images)
        try fields.neutral("n") { $0 == .integer(1) }
        generation = try GenerationFields(&fields, headers: headers, maxTokens: ["max_output_tokens"], standard: 512)
        delivery = try Delivery(&fields)
        try fields.neutral("text") { $0 == .object(["format": .object(["type": .string("text")])]) || $0 == .object([:]) }
        try fields.neutral("truncation") { $0 == .string("disabled") }
        try fields.neutral("background") { $0 == .bool(false) }
        try fields.neutral("include") { $0 == .array([]) }
        try fields.neutral("top_logprobs") { $0 == .integer(0) }
        try fields.takeNeutral()
        try fields.expectNothingElse()
    }

    private static func turn(_ value: JSONValue, _ path: String) throws -> (message: ChatMessage, images: [ImageReference]) {
        var item = try RequestFields(value, path: path)
        try item.neutral("type") { $0 == .string("message") }
        let name = try item.string("role") ?? ""
        guard let role = ["system": ChatRole.system, "developer": .system, "user": .user, "assistant": .assistant][name] else {
            throw item.wrong("role", expected: "system, developer, user or assistant", found: .string(name))
        }
        // An answer that is sent back has them.
        _ = try item.string("id")
        _ = try item.string("status")
        let content = item.take("content")
        try item.expectNothingElse()
        if case .string(let text) = content { return (ChatMessage(role, text), []) }
        guard case .array(let elements) = content else { throw item.wrong("content", expected: "a text or a list of parts", found: content) }
        var parts: [ChatMessage.Part] = [], images: [ImageReference] = []
        for (index, element) in elements.enumerated() {
            var part = try RequestFields(element, path: "\(path).content[\(index)]")
            let type = try part.string("type")
            switch type {
            case "input_text" where role != .assistant, "output_text" where role == .assistant:
                guard let text = try part.string("text") else { throw part.wrong("text", expected: "a text", found: nil) }
                parts.append(.text(text))
                try part.neutral("annotations") { $0 == .array([]) }
                try part.neutral("logprobs") { $0 == .array([]) }
            case "input_image" where role == .user:
                guard let url = try part.string("image_url") else { throw part.wrong("image_url", expected: "a data: URL", found: nil) }
                images.append(ImageReference(url: url))
                parts.append(.image)
                try part.neutral("detail") { [.string("low"), .string("high"), .string("auto")].contains($0) }
            default: throw part.wrong("type", expected: role == .assistant ? "output_text" : "input_text or input_image", found: type.map(JSONValue.string))
            }
            try part.expectNothingElse()
        }
        return (ChatMessage(role, parts: MessageContent.ordered(parts)), images)
    }
}
