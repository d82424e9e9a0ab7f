/// A stretch of a prompt as a chat template writes it.
package enum PromptSegment: Sendable, Equatable {
    /// Text, of the template or of a person; never holds a special token.
    case text(String)
    /// Text of a checkpoint's own template, in which special tokens of the vocabulary count as such.
    case template(String)
    /// A special token by its text, such as `</s>`. A vocabulary that lacks it spells it as text.
    case special(String)
    /// Where an image's features go.
    case image
}

/// Who speaks.
public enum ChatRole: String, Sendable, Equatable {
    /// The instructions, the person, the model.
    case system, user, assistant
}

/// One turn: text with images between.
public struct ChatMessage: Sendable, Equatable {
    /// A piece of a turn.
    public enum Part: Sendable, Equatable {
        /// Text, which may be empty.
        case text(String)
        /// The position of the next image.
        case image
    }

    /// Who speaks.
    public var role: ChatRole
    /// Texts and images in order.
    public var parts: [Part]

    /// A turn given by its parts.
    public init(_ role: ChatRole, parts: [Part]) {
        (self.role, self.parts) = (role, parts)
    }

    /// A turn of text alone; `<image>` in it stays text.
    public init(_ role: ChatRole, _ text: String) {
        self.init(role, parts: [.text(text)])
    }

    /// A turn whose `<image>` marks are images, as in LLaVA's prompts.
    public init(_ role: ChatRole, marked text: String) {
        var parts: [Part] = []
        for (index, chunk) in ByteText.split(text, by: ChatMessage.imageMark).enumerated() {
            if index > 0 { parts.append(.image) }
            if !chunk.isEmpty { parts.append(.text(chunk)) }
        }
        self.init(role, parts: parts)
    }

    /// A question about images, in LLaVA's order: each image, a line break, then the question.
    public static func question(_ text: String, images: Int) -> ChatMessage {
        let parts = (0..<max(0, images)).flatMap { _ in [Part.image, .text("\n")] }
        return ChatMessage(.user, parts: parts + [.text(text)])
    }

    /// The placeholder of an image in a text.
    public static let imageMark = "<image>"

    /// Its text without the images.
    var text: String { parts.compactMap { if case .text(let text) = $0 { text } else { nil } }.joined() }
}

/// How turns become a prompt, exactly as LLaVA's conversation.py (and, for text models, their own templates) writes them.
package struct ChatTemplate: Sendable, Equatable {
    enum Style: Sendable, Equatable {
        /// `SYSTEM SEP USER: … SEP ASSISTANT: … END`
        case colon(user: String, assistant: String, separator: String, end: PromptSegment)
        /// `<|im_start|>role\n … <|im_end|>` and maybe a line break.
        case chatML(lineBreak: Bool)
        /// `[INST] <<SYS>> … <</SYS>> … [/INST] … </s>`
        case instruction(wrapsSystem: Bool, start: [PromptSegment])
        /// `<|start_header_id|>role<|end_header_id|>\n\n … <|eot_id|>`
        case headers
        /// The texts alone, a line break after each.
        case plain
        /// A checkpoint's own template.
        case jinja(JinjaChatTemplate)
    }

    /// The name that `--template` takes.
    package let name: String
    /// The default system prompt; empty for none.
    package var systemPrompt: String
    let style: Style
    /// Texts that end an answer even when the model does not end it with its own token.
    package let stopStrings: [String]

    /// The prompt of a conversation.
    /// - Parameters:
    ///   - messages: turns in order, a user's first. System messages replace ``systemPrompt``, joined with a line break.
    ///   - opensAnswer: end with the mark after which the assistant speaks.
    /// - Returns: segments, neighbouring texts joined, so that encoding sees a text as a whole.
    /// - Throws: ``ChatTemplateError/turns(template:reason:)`` when the turns do not alternate and the template has no form for that,
    ///   ``ChatTemplateError/jinja(template:error:)`` when a template in Jinja fails or refuses.
    package func render(_ messages: [ChatMessage], opensAnswer: Bool = true) throws -> [PromptSegment] {
        if case .jinja(let template) = style {
            do {
                return try template.render(messages, opensAnswer: opensAnswer)
            } catch let error as JinjaError {
                throw ChatTemplateError.jinja(template: name, error: error)
            }
        }
        let turns = messages.filter { $0.role != .system }
        let given = messages.filter { $0.role == .system }
        var system = systemPrompt
        if !given.isEmpty { system = given.map(\.text).joined(separator: "\n") }
        switch style {
        case .chatML, .headers, .jinja: break
        case .colon, .instruction, .plain:
            for (index, turn) in turns.enumerated() where turn.role != (index % 2 == 0 ? .user : .assistant) {
                throw ChatTemplateError.turns(
                    template: name, reason: "turn \(index + 1) is the \(turn.role.rawValue)'s; user and assistant must alternate, the user first")
            }
        }
        var writer = SegmentWriter()
        switch style {
        case .colon(let user, let assistant, let separator, let end):
            writer.text(system + separator)
            for turn in turns {
                writer.text((turn.role == .user ? user : assistant) + ": ")
                writer.parts(turn.parts)
                if turn.role == .user { writer.text(separator) } else { writer.segment(end) }
            }
            if opensAnswer { writer.text(assistant + ":") }
        case .chatML(let lineBreak):
            let end = lineBreak ? "\n" : ""
            if !system.isEmpty || !given.isEmpty { writer.chatML("system", [.text(system)], end) }
            for turn in turns { writer.chatML(turn.role.rawValue, turn.parts, end) }
            if opensAnswer {
                writer.segment(.special("<|im_start|>"))
                writer.text("assistant\n")
            }
        case .headers:
            if !system.isEmpty { writer.header("system", [.text(system)]) }
            for turn in turns { writer.header(turn.role.rawValue, turn.trimmed.parts) }
            if opensAnswer { writer.openHeader("assistant") }
        case .instruction(let wrapsSystem, let start):
            for (index, turn) in turns.enumerated() {
                if turn.role == .user {
                    // The tokenizer puts the first beginning of sequence itself.
                    if index > 0 { for segment in start { writer.segment(segment) } }
                    writer.text("[INST] ")
                    if index == 0, wrapsSystem, !system.isEmpty { writer.text("<<SYS>>\n\(system)\n<</SYS>>\n\n") }
                    writer.parts(turn.parts)
                    writer.text(" [/INST]")
                } else {
                    writer.text(" ")
                    writer.parts(turn.parts)
                    writer.text(" ")
                    writer.segment(.special("</s>"))
                }
            }
        case .plain:
            writer.text(system)
            for turn in turns {
                writer.parts(turn.parts)
                writer.text("\n")
            }
        case .jinja: break
        }
        return writer.segments
    }

    /// A prompt as one string, images as `<image>`: for people and for comparison, not for encoding.
    package static func text(of segments: [PromptSegment]) -> String {
        segments.map { segment in
            switch segment {
            case .text(let text), .template(let text), .special(let text): text
            case .image: ChatMessage.imageMark
            }
        }.joined()
    }
}

extension ChatMessage {
    /// Without whitespace at the ends, as Llama 3's template takes turns.
    fileprivate var trimmed: ChatMessage {
        guard parts.count == 1, case .text(let text) = parts[0] else { return self }
        return ChatMessage(role, ByteText.trimmed(text))
    }
}

/// Collects segments and joins neighbouring texts.
private struct SegmentWriter {
    private(set) var segments: [PromptSegment] = []

    mutating func text(_ more: String) {
        guard !more.isEmpty else { return }
        if case .text(let text)? = segments.last {
            segments[segments.count - 1] = .text(text + more)
        } else {
            segments.append(.text(more))
        }
    }

    mutating func segment(_ segment: PromptSegment) {
        if case .text(let more) = segment { text(more) } else { segments.append(segment) }
    }

    mutating func parts(_ parts: [ChatMessage.Part]) {
        for part in parts {
            switch part {
            case .text(let more): text(more)
            case .image: segments.append(.image)
            }
        }
    }

    mutating func chatML(_ role: String, _ content: [ChatMessage.Part], _ end: String) {
        segment(.special("<|im_start|>"))
        text(role + "\n")
        parts(content)
        segment(.special("<|im_end|>"))
        text(end)
    }

    mutating func openHeader(_ role: String) {
        segment(.special("<|start_header_id|>"))
        text(role)
        segment(.special("<|end_header_id|>"))
        text("\n\n")
    }

    mutating func header(_ role: String, _ content: [ChatMessage.Part]) {
        openHeader(role)
        parts(content)
        segment(.special("<|eot_id|>"))
    }
}
