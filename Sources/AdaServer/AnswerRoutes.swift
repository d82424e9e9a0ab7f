import AdaLLaVA
import Foundation
import HTTPTypes

/// Routes that answer a prompt, each in the form of one API.
enum AnswerRoute: String, CaseIterable, Sendable {
    case chat = "/v1/chat/completions"
    case completions = "/v1/completions"
    case responses = "/v1/responses"
    case messages = "/v1/messages"
}

extension ModelServer {
    /// The request in the body of a call of one of the routes.
    /// - Throws: ``APIError``, ``BudgetError``, ``SamplingError``, ``GenerationError``
    func answerRequest(_ route: AnswerRoute, _ fields: RequestFields, headers: HTTPFields) async throws -> AnswerRequest {
        switch route {
        case .chat: try await chat(ChatRequest(fields, headers: headers))
        case .completions: try await completion(CompletionRequest(fields, headers: headers))
        case .responses: try await response(ResponsesRequest(fields, headers: headers))
        case .messages: try await message(MessagesRequest(fields, headers: headers))
        }
    }

    private static func name(_ prefix: String) -> String { prefix + UUID().uuidString.replacing("-", with: "").lowercased() }

    private static var now: Int { Int(Date().timeIntervalSince1970) }

    /// Facts from which an answer's time is predicted.
    private func queued(
        _ model: AdaptiveModel, _ conversation: [ChatMessage], _ images: [ImageReference], _ generation: GenerationFields
    ) throws -> QueuedWork {
        let question = conversation.last?.parts.map { if case .text(let text) = $0 { text } else { "" } }.joined(separator: " ")
        return queued(model, try model.tokenize(conversation), images: images.count, generation, question: question ?? "")
    }

    private func queued(_ model: AdaptiveModel, _ tokens: [Int], images: Int, _ generation: GenerationFields, question: String) -> QueuedWork {
        model.queued(tokens: tokens, images: images, budget: generation.asked, maxTokens: generation.options.maxTokens, question: question)
    }

    /// Reads a conversation's images and answers its last turn.
    private func answers(_ model: AdaptiveModel, _ conversation: [ChatMessage], _ references: [ImageReference]) -> @Sendable () async throws -> MakeAnswer {
        { [media] in
            let images = try await media.images(references, for: model)
            return { model.respond(to: conversation, prepared: images, budget: $0, options: $1) }
        }
    }

    private func chat(_ chat: ChatRequest) async throws -> AnswerRequest {
        let model = try await model(named: chat.model)
        var generation = chat.generation
        generation.options.filter = try grammars.filter(chat.form, model)
        let format = ChatFormat(
            id: Self.name("chatcmpl-"), created: Self.now, model: modelName(model), includesUsage: chat.delivery.includesUsage, choices: generation.choices)
        return AnswerRequest(
            model: model, generation: generation, work: try queued(model, chat.conversation, chat.images, generation), delivery: chat.delivery, format: format,
            prepare: answers(model, chat.conversation, chat.images))
    }

    private func completion(_ completion: CompletionRequest) async throws -> AnswerRequest {
        let model = try await model(named: completion.model)
        let tokens = switch completion.prompt {
        case .text(let text): try model.tokenize(prompt: text)
        case .tokens(let tokens): tokens
        }
        let format = CompletionFormat(
            id: Self.name("cmpl-"), created: Self.now, model: modelName(model), includesUsage: completion.delivery.includesUsage,
            choices: completion.generation.choices)
        let work = queued(model, tokens, images: 0, completion.generation, question: "")
        return AnswerRequest(model: model, generation: completion.generation, work: work, delivery: completion.delivery, format: format) {
            { model.complete(tokens, budget: $0, options: $1) }
        }
    }

    private func response(_ response: ResponsesRequest) async throws -> AnswerRequest {
        let model = try await model(named: response.model)
        let format = ResponsesFormat(id: Self.name("resp_"), created: Self.now, model: modelName(model), request: response)
        return AnswerRequest(
            model: model, generation: response.generation, work: try queued(model, response.conversation, response.images, response.generation),
            delivery: response.delivery, format: format,
            prepare: answers(model, response.conversation, response.images))
    }

    private func message(_ message: MessagesRequest) async throws -> AnswerRequest {
        let model = try await model(named: message.model)
        let format = MessagesFormat(
            id: Self.name("msg_"), model: modelName(model), promptTokens: try message.promptTokens(model), stop: message.generation.options.stop,
            decode: { (try? model.detokenize($0)) ?? "" })
        return AnswerRequest(
            model: model, generation: message.generation, work: try queued(model, message.conversation, message.images, message.generation),
            delivery: message.delivery, format: format,
            prepare: answers(model, message.conversation, message.images))
    }
}
