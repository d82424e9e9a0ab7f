import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// A model whose times are a formula: `encode` for each image, and so much for each unit that runs.
final class FormulaModel: MeasurableModel, @unchecked Sendable {
    let threads = 2
    let kernels = "formula"
    let analyzed: AnalyzedModel
    /// Milliseconds: of an image, of prefill and of each later token without units, and for each unit.
    var encode = 4.0
    var prefill = (base: 2.0, unit: 10.0)
    var token = (base: 0.5, unit: 1.0)
    /// The machine gets slower by this factor with each measurement, as when another program starts.
    var slowdown = 1.0
    /// Answers before the task is cancelled, and what cancels it.
    var cancelsAfter = Int.max
    private let lock = NSLock()
    private var asked: [Double] = []

    init(_ analyzed: AnalyzedModel) { self.analyzed = analyzed }

    var budgets: [Double] { lock.withLock { asked } }

    func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        try response(budget: Double(budget.validFraction() ?? 1), images: image == nil ? 0 : 1, promptTokens: 20, tokens: 5, text: "The answer to \(question)")
    }

    func measure(tokens: [Int], images: [RGBImage], budget: Double, maxTokens: Int) async throws -> ModelResponse {
        let room = analyzed.configuration.language.contextLength - tokens.count
        return try response(budget: budget, images: images.count, promptTokens: tokens.count, tokens: min(maxTokens, room), text: "")
    }

    /// Prompts one after the other; a step costs as much however many sequences share it.
    func measureTogether(prompts: [[Int]], budget: Double, steps: Int) async throws -> (prefill: Double, decode: Double, plan: ExecutionPlan) {
        let one = try response(budget: budget, images: 0, promptTokens: prompts.first?.count ?? 0, tokens: steps + 1, text: "")
        return (one.prefillMilliseconds * Double(prompts.count), one.decodeMilliseconds, one.plan)
    }

    private func response(budget: Double, images: Int, promptTokens: Int, tokens: Int, text: String) throws -> ModelResponse {
        let number = lock.withLock {
            asked.append(budget)
            return asked.count
        }
        if number > cancelsAfter { throw CancellationError() }
        let language = analyzed.configuration.language
        let heads = language.numAttentionHeads
        let units = analyzed.units
        let granted = units?.granted(fraction: Float(budget))
        let run = granted.flatMap { granted in units.map { $0.prefix + granted } } ?? language.numHiddenLayers
        let row = ExecutionPlan.Row(heads: Array(0 ..< heads), groups: Array(0 ..< heads))
        let rows = (0 ..< language.numHiddenLayers).map { $0 < run ? row : ExecutionPlan.Row(heads: [], groups: []) }
        func time(_ milliseconds: Double) -> Duration { .nanoseconds(Int64(milliseconds * pow(slowdown, Double(number)) * 1e6)) }
        var measured = PhaseTimes()
        measured.encode = time(encode * Double(images))
        measured.prefill = time(prefill.base + prefill.unit * Double(run))
        measured.timeToFirstToken = measured.encode + measured.prefill
        measured.decode = time((token.base + token.unit * Double(run)) * Double(max(0, tokens - 1)))
        measured.whole = measured.timeToFirstToken + measured.decode
        return ModelResponse(
            text: text, plan: ExecutionPlan(headCount: heads, rows: rows), units: granted, promptTokens: promptTokens, generatedTokens: tokens,
            keyValueBytes: 1000, measured: measured)
    }
}

enum Experiments {
    static let environment = ExperimentEnvironment(package: "adallava test")

    /// 8 layers, of which 4 always run; context of 512 positions.
    static func analyzed(adaptive: Bool = true) -> AnalyzedModel {
        AnalyzedModel(
            name: "formula",
            configuration: ModelConfiguration(
                language: DecoderConfiguration(
                    vocabularySize: 64, hiddenSize: 32, intermediateSize: 64, numHiddenLayers: 8, numAttentionHeads: 4, maxPositionEmbeddings: 512),
                adaptive: adaptive ? AdaptiveConfiguration(schedulerType: .layers, schedulerRank: 1, numPrefixLayers: 4) : nil))
    }

    static func description(_ model: FormulaModel) -> ExperimentModel {
        ExperimentModel(
            analyzed: model.analyzed, parameters: 1000, weightBytes: 2000, weightType: "F16", imageTokens: nil, threads: model.threads,
            kernels: model.kernels, precision: .automatic)
    }
}

extension ExperimentReport {
    /// ``json`` as a program reads it.
    func decoded() throws -> [String: Any] { try written(json) }
}

/// The members of a result's JSON, as a program without the type reads them.
func written(_ value: some Encodable) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: JSONText.data(value)) as? [String: Any])
}
