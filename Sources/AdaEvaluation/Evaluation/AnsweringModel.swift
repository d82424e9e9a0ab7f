import AdaLLaVA

/// A model's answer and the plan that ran.
package struct ModelResponse: Sendable {
    package var text: String
    package var plan: ExecutionPlan
    package var units: Int?
    package var promptTokens: Int
    /// Those of them that hold features of images.
    package var imageTokens: Int
    package var generatedTokens: Int
    package var keyValueBytes: Int
    package var measured: PhaseTimes

    package init(
        text: String, plan: ExecutionPlan, units: Int?, promptTokens: Int, imageTokens: Int = 0, generatedTokens: Int, keyValueBytes: Int, measured: PhaseTimes
    ) {
        (self.text, self.plan, self.units, self.promptTokens, self.imageTokens) = (text, plan, units, promptTokens, imageTokens)
        (self.generatedTokens, self.keyValueBytes, self.measured) = (generatedTokens, keyValueBytes, measured)
    }
}

/// Answers a benchmark's questions, greedily.
package protocol AnsweringModel: Sendable {
    func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse

    /// The same, with everything computed for this question, so that times do not depend on earlier questions.
    func respondAfresh(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse
}

extension AnsweringModel {
    package func respondAfresh(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        try await respond(to: question, image: image, budget: budget, maxTokens: maxTokens)
    }
}

/// A model whose plans can be read and replaced.
package protocol PlannedModel: AnsweringModel {
    /// - Parameter plan: the plan to run; `nil`: the scheduler's.
    func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int, plan: ExecutionPlan?) async throws -> ModelResponse
    /// Switches that the scheduler decides.
    var switchCount: Int { get }
    /// Layers that always run.
    var prefixLayers: Int { get }
    /// The scheduler's plan for given logits.
    func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan
}

extension PlannedModel {
    package func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        try await respond(to: question, image: image, budget: budget, maxTokens: maxTokens, plan: nil)
    }
}

/// A model that sees grey pictures of the right size: the baseline without images.
package struct BlankImages<Model: AnsweringModel>: AnsweringModel {
    private let model: Model

    package init(_ model: Model) { self.model = model }

    package func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        try await model.respond(to: question, image: image.flatMap(RGBImage.grey), budget: budget, maxTokens: maxTokens)
    }

    package func respondAfresh(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        try await model.respondAfresh(to: question, image: image.flatMap(RGBImage.grey), budget: budget, maxTokens: maxTokens)
    }
}

extension RGBImage {
    /// A grey picture of the same size, so that only the question remains of an input.
    static func grey(_ image: RGBImage) -> RGBImage? {
        RGBImage(width: image.width, height: image.height, pixels: Array(repeating: 128, count: image.pixels.count))
    }
}

extension AdaptiveModel: PlannedModel {
    package func respond(
        to question: String, image: RGBImage?, budget: Budget, maxTokens: Int, plan: ExecutionPlan?
    ) async throws -> ModelResponse {
        try await respond(to: question, image: image, budget: budget, maxTokens: maxTokens, plan: plan, reuses: true)
    }

    package func respondAfresh(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        try await respond(to: question, image: image, budget: budget, maxTokens: maxTokens, plan: nil, reuses: false)
    }

    private func respond(
        to question: String, image: RGBImage?, budget: Budget, maxTokens: Int, plan: ExecutionPlan?, reuses: Bool
    ) async throws -> ModelResponse {
        var options = GenerationOptions()
        options.reusesEarlierWork = reuses
        options.maxTokens = maxTokens
        options.plan = plan
        let (text, summary) = try await answer(question, images: image.map { [$0] } ?? [], budget: budget, options: options).whole()
        return ModelResponse(
            text: text, plan: summary.plan, units: summary.units, promptTokens: summary.promptTokens, imageTokens: summary.imageTokens, generatedTokens: summary.tokens.count,
            keyValueBytes: summary.keyValueBytes, measured: summary.measured)
    }
}
