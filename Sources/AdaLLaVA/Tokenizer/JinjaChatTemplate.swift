import Foundation

/// A chat template in Jinja, as checkpoints bring it, with the names of special tokens that it may print.
struct JinjaChatTemplate: Sendable, Equatable {
    let template: JinjaTemplate
    /// `bos_token`, `eos_token` and the like, by name.
    let specialTokens: [String: String]
    /// The template's placeholder of an image, if messages are lists of parts.
    let imageMark: String
    let content: JinjaContentFormat

    /// - Throws: ``JinjaError`` if the source cannot be parsed.
    init(_ source: String, specialTokens: [String: String], imageMark: String) throws {
        template = try JinjaTemplate(source)
        (self.specialTokens, self.imageMark) = (specialTokens, imageMark)
        content = JinjaContentReader.format(of: template.statements)
    }

    /// The prompt of a conversation, as transformers' `apply_chat_template` renders it without tools and documents.
    /// - Parameters:
    ///   - opensAnswer: `add_generation_prompt`
    ///   - now: the time for `strftime_now`.
    /// - Returns: the template's text, messages' text and images in order.
    /// - Throws: ``JinjaError``
    func render(_ messages: [ChatMessage], opensAnswer: Bool, now: Date = Date()) throws -> [PromptSegment] {
        let images = messages.reduce(0) { $0 + $1.parts.count { $0 == .image } }
        var image = 0
        var variables: [String: JinjaValue] = [
            "messages": .list(JinjaList(messages.map { .dict(value(of: $0, image: &image)) })), "add_generation_prompt": .bool(opensAnswer),
            "tools": .none, "documents": .none,
        ]
        for (name, token) in specialTokens { variables[name] = .text(token) }
        let length = messages.reduce(0) { $0 + $1.text.unicodeScalars.count }
        let text = try template.render(variables, inputLength: length, now: now)
        var segments: [PromptSegment] = []
        for (stretch, origin) in text.stretches {
            switch origin {
            case .message: segments.append(.text(stretch))
            case .image: segments.append(.image)
            case .template where images > 0 && content != .text:
                for (index, chunk) in ByteText.split(stretch, by: imageMark).enumerated() {
                    if index > 0 { segments.append(.image) }
                    if !chunk.isEmpty { segments.append(.template(chunk)) }
                }
            case .template: segments.append(.template(stretch))
            }
        }
        let written = segments.count { $0 == .image }
        guard written == images else {
            throw JinjaError(line: 1, .evaluation("the conversation has \(images) image(s), the template writes \(written)"))
        }
        return segments
    }

    /// A message as the template takes it.
    private func value(of message: ChatMessage, image: inout Int) -> JinjaDict {
        let hasImage = message.parts.contains(.image)
        let value: JinjaValue
        if content == .parts || (content == .either && hasImage) {
            value = .list(JinjaList(parts(of: message).map(JinjaValue.dict)))
        } else {
            var text = JinjaText()
            for part in message.parts {
                switch part {
                case .text(let more): text.append(more, .message)
                case .image:
                    text.append(ChatMessage.imageMark, .image(image))
                    image += 1
                }
            }
            value = .text(text)
        }
        return JinjaDict([("role", .text(message.role.rawValue)), ("content", value)])
    }

    private func parts(of message: ChatMessage) -> [JinjaDict] {
        var parts: [JinjaDict] = []
        var followsImage = false
        for part in message.parts {
            switch part {
            case .image: parts.append(JinjaDict([("type", .text("image"))]))
            case .text(var text):
                // LLaVA's line break after an image; here the template separates them.
                if followsImage, text.unicodeScalars.first == "\n" { text.unicodeScalars.removeFirst() }
                if !text.isEmpty || !followsImage {
                    parts.append(JinjaDict([("type", .text("text")), ("text", .text(JinjaText(text, .message)))]))
                }
            }
            followsImage = part == .image
        }
        return parts
    }

    /// Texts by which well-known models end an answer, as far as the template writes them.
    var endMarks: [String] { EndOfGeneration.texts.filter { ByteText.contains($0, in: template.source) } }
}

extension ChatTemplate {
    /// A template in Jinja.
    /// - Parameters:
    ///   - name: the name in messages.
    ///   - specialTokens: `bos_token`, `eos_token` and the like, by name.
    ///   - imageMark: its placeholder of an image, if it takes messages as lists of parts.
    /// - Throws: ``ChatTemplateError/jinja(template:error:)``
    package init(
        jinja source: String, name: String, specialTokens: [String: String] = [:], imageMark: String = ChatMessage.imageMark
    ) throws {
        do {
            let template = try JinjaChatTemplate(source, specialTokens: specialTokens, imageMark: imageMark)
            self.init(name: name, systemPrompt: "", style: .jinja(template), stopStrings: template.endMarks)
        } catch let error as JinjaError {
            throw ChatTemplateError.jinja(template: name, error: error)
        }
    }

    /// The source, if the template is one in Jinja.
    var jinjaSource: String? {
        if case .jinja(let template) = style { template.template.source } else { nil }
    }
}
