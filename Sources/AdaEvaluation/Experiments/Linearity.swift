import AdaLLaVA
import Foundation

/// Whether time falls with compute: time to the first token, whole answers and single tokens against FLOPs at each budget, and straight
/// lines through them.
package struct Linearity: Sendable {
    package var budgets = stride(from: 10, through: 5, by: -1).map { Double($0) / 10 }
    /// `nil` takes as many as fit 20 seconds, 9 to 101.
    package var repeats: Int?
    /// Text tokens of the prompt, without those of the image.
    package var promptTokens = 64
    /// Tokens of an answer.
    package var answerTokens = 50
    /// The picture that a vision model encodes, anew for each request; `nil` takes a synthetic one.
    package var image: RGBImage?

    package init() {}

    /// Checks the settings without running anything.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``, `BudgetError` if a budget cannot be run or there are too few points for
    ///   a line.
    package func validate(for model: ExperimentModel? = nil) throws {
        try ExperimentLimits.require(budgets: budgets)
        if let repeats { try ExperimentLimits.require(repeats, in: ExperimentLimits.repeats, "--repeat") }
        try ExperimentLimits.require(promptTokens, in: ExperimentLimits.tokens, "--prompt-tokens")
        try ExperimentLimits.require(answerTokens, in: 2 ... ExperimentLimits.tokens.upperBound, "--generate")
        guard let model else { return }
        guard let units = model.analyzed.units else { throw BudgetError.notAdaptive(budget: budgets.min() ?? 1, model: model.name) }
        if let image = model.imageTokens, model.analyzed.configuration.llava?.tokenSelection == LlavaConfiguration.TokenSelection.none {
            try requireContext(model, positions: promptTokens + image + model.latencyTokens + answerTokens - 1)
        }
        let amounts = Set(runnable(model).map { units.granted(fraction: Float($0)) })
        guard amounts.count >= 3 else {
            throw EvaluationError.argument(
                name: "--budgets", expected: "at least three above the floor of \(ExperimentText.number(units.floor)) that run different amounts",
                found: "\(amounts.count) of \(model.name)'s")
        }
    }

    private func requireContext(_ model: ExperimentModel, positions: Int) throws {
        guard positions > model.contextLength else { return }
        throw EvaluationError.argument(
            name: "--prompt-tokens and --generate", expected: "at most \(model.contextLength) positions in all, the context of \(model.name)",
            found: "\(positions) with the image and the latency token")
    }

    /// Budgets that are not below the floor, the largest first.
    private func runnable(_ model: ExperimentModel) -> [Double] {
        budgets.filter { !model.isBelowFloor($0) }.sorted(by: >)
    }

    /// Runs every budget once a round.
    /// - Throws: ``EvaluationError``, `BudgetError`, `GenerationError`, `CancellationError` before the first repeat is whole.
    package func run(
        _ model: some MeasurableModel, as description: ExperimentModel, environment: ExperimentEnvironment,
        onProgress: (ExperimentProgress) -> Void = { _ in }
    ) async throws -> LinearityReport {
        try validate(for: description)
        let budgets = runnable(description)
        let images = description.imageTokens == nil ? [] : [image ?? SyntheticInput.image()].compactMap { $0 }
        let vocabulary = description.analyzed.configuration.language.vocabularySize
        let tokens = images.map { _ in PromptEncoder.imageToken } + SyntheticInput.tokens(promptTokens, vocabulary: vocabulary)
        var responses = [[ModelResponse]](repeating: [], count: budgets.count)
        let rounds = InterleavedRounds(repeats: repeats, cases: budgets.count)
        let repeats = try await rounds.run(name: { String(format: "budget %g", budgets[$0]) }, onProgress: onProgress) { index, counts in
            let response = try await model.measure(tokens: tokens, images: images, budget: budgets[index], maxTokens: answerTokens)
            guard response.generatedTokens == answerTokens else {
                throw EvaluationError.argument(
                    name: "--prompt-tokens and --generate", expected: "at most \(description.contextLength) positions in all, the context of \(description.name)",
                    found: "\(response.promptTokens) of the prompt and \(answerTokens) of the answer")
            }
            if counts { responses[index].append(response) }
        }
        // A round that was stopped half-way has no partners to compare with.
        responses = responses.map { Array($0.prefix(repeats.done)) }
        let largest = responses.first ?? []
        let points = try budgets.enumerated().compactMap { index, budget in
            try LinearityReport.Point(
                budget: budget, responses: responses[index], largest: largest, isLargest: index == 0, model: description, images: images.count)
        }
        return try LinearityReport(
            repeats: repeats, environment: environment, model: description, points: points, promptPositions: largest.last?.promptTokens ?? 0,
            answerTokens: answerTokens, hasImage: !images.isEmpty)
    }
}
