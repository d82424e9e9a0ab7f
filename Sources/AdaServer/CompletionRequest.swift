import AdaLLaVA
import HTTPTypes

/// The body of `/v1/completions`: a prompt that no chat template wrote.
struct CompletionRequest: Sendable {
    enum Prompt: Sendable {
        case text(String)
        case tokens([Int])
    }

    let model: String?
    let prompt: Prompt
    let generation: GenerationFields
    let delivery: Delivery

    /// - Throws: ``APIError``, ``BudgetError``, ``SamplingError``
    init(_ fields: RequestFields, headers: HTTPFields) throws {
        var fields = fields
        model = try fields.string("model")
        prompt = try Self.prompt(&fields)
        var generation = try GenerationFields(&fields, headers: headers, maxTokens: ["max_tokens"], standard: 16)
        generation.options.logProbabilities = try fields.integer("logprobs", in: 0 ... 20)
        self.generation = generation
        delivery = try Delivery(&fields)
        try fields.neutral("suffix") { $0 == .string("") }
        try fields.takeNeutral()
        try fields.expectNothingElse()
    }

    /// A text, token ids, or a list of one of them.
    private static func prompt(_ fields: inout RequestFields) throws -> Prompt {
        let value = fields.take("prompt")
        switch value {
        case .string(let text): return .text(text)
        case .array(let elements):
            if elements.count == 1, case .string(let text) = elements[0] { return .text(text) }
            var ids = elements
            if elements.count == 1, case .array(let inner) = elements[0] { ids = inner }
            let tokens = ids.compactMap { if case .integer(let id) = $0 { id } else { nil } }
            if !ids.isEmpty, tokens.count == ids.count { return .tokens(tokens) }
        default: break
        }
        throw fields.wrong("prompt", expected: "one text or one list of token ids", found: value)
    }
}
