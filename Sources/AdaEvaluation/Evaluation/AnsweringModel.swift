import AdaLLaVA

/// What a model answered and what ran for it.
public struct ModelResponse: Sendable {
    public var text: String
    public var plan: ExecutionPlan
    public var units: Int?
    public var promptTokens: Int
    public var generatedTokens: Int
    public var keyValueBytes: Int
    public var measured: MeasuredTimes

    public init(
        text: String, plan: ExecutionPlan, units: Int?, promptTokens: Int, generatedTokens: Int, keyValueBytes: Int, measured: MeasuredTimes
    ) {
        (self.text, self.plan, self.units, self.promptTokens) = (text, plan, units, promptTokens)
        (self.generatedTokens, self.keyValueBytes, self.measured) = (generatedTokens, keyValueBytes, measured)
    }
}

/// Answers a benchmark's questions, greedily.
public protocol AnsweringModel: Sendable {
    func respond(to question: String, image: RGBImage?, budget: Double, maxTokens: Int) async throws -> ModelResponse
}

extension AdaptiveModel: AnsweringModel {
    public func respond(to question: String, image: RGBImage?, budget: Double, maxTokens: Int) async throws -> ModelResponse {
        var options = GenerationOptions()
        options.maxTokens = maxTokens
        var text = ""
        var summary: AnswerSummary?
        for try await piece in answer(question, images: image.map { [$0] } ?? [], budget: .fraction(budget), options: options) {
            text += piece.text
            summary = piece.summary ?? summary
        }
        guard let summary else { throw CancellationError() }
        return ModelResponse(
            text: text, plan: summary.plan, units: summary.units, promptTokens: summary.promptTokens, generatedTokens: summary.tokens.count,
            keyValueBytes: summary.keyValueBytes, measured: summary.measured)
    }
}
