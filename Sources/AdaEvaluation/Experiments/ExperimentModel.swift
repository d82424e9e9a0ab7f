import AdaLLaVA
import AdaProbes
import Foundation

/// Operations of a model that experiments need besides answers.
package protocol MeasurableModel: AnsweringModel {
    /// Threads that it computes with.
    var threads: Int { get }
    /// The kernels in use: `avx512`, ….
    var kernels: String { get }

    /// Runs token ids that no token ends early; -200 is the placeholder of an image, and images are encoded anew every time.
    func measure(tokens: [Int], images: [RGBImage], budget: Double, maxTokens: Int) async throws -> ModelResponse

    /// Reads the prompts of several sequences, then generates `steps` tokens of each, all together in every step.
    /// - Returns: milliseconds of all prompts and of all steps, and the first sequence's plan.
    func measureTogether(prompts: [[Int]], budget: Double, steps: Int) async throws -> (prefill: Double, decode: Double, plan: ExecutionPlan)
}

extension AdaptiveModel: MeasurableModel {
    package func measure(tokens: [Int], images: [RGBImage], budget: Double, maxTokens: Int) async throws -> ModelResponse {
        let summary = try await measure(tokens: tokens, images: images, budget: .fraction(budget), maxTokens: maxTokens)
        return ModelResponse(
            text: "", plan: summary.plan, units: summary.units, promptTokens: summary.promptTokens, imageTokens: summary.imageTokens, generatedTokens: summary.tokens.count,
            keyValueBytes: summary.keyValueBytes, measured: summary.measured)
    }

    package func measureTogether(
        prompts: [[Int]], budget: Double, steps: Int
    ) async throws -> (prefill: Double, decode: Double, plan: ExecutionPlan) {
        let times: TogetherTimes = try await measureTogether(prompts: prompts, budget: .fraction(budget), steps: steps)
        return (times.prefill / .milliseconds(1), times.decode / .milliseconds(1), times.plan)
    }
}

/// A measured model in numbers: its shape, kernels and precision.
package struct ExperimentModel: Sendable {
    /// Shape and scheduler, as the analyzer needs them.
    package let analyzed: AnalyzedModel
    package let parameters: Int
    /// Bytes of the weights, as the file holds them.
    package let weightBytes: Int
    /// The type of most weights.
    package let weightType: String
    /// Tokens that one image takes in the prompt, before token selection; `nil` for text models.
    package let imageTokens: Int?
    package let threads: Int
    package let kernels: String
    package let precision: Precision
    /// How keys and values are stored.
    package let keyValueType: KeyValueType

    package init(
        analyzed: AnalyzedModel, parameters: Int, weightBytes: Int, weightType: String, imageTokens: Int?, threads: Int, kernels: String,
        precision: Precision, keyValueType: KeyValueType = .f16
    ) {
        self.keyValueType = keyValueType
        (self.analyzed, self.parameters, self.weightBytes, self.weightType) = (analyzed, parameters, weightBytes, weightType)
        (self.imageTokens, self.threads, self.kernels, self.precision) = (imageTokens, threads, kernels, precision)
    }

    /// - Parameters:
    ///   - report: of the checkpoint that `model` was loaded from.
    ///   - url: names the model.
    ///   - options: with which it was loaded.
    package init(_ report: ModelReport, at url: URL, loadedAs model: some MeasurableModel, _ options: AdaptiveModel.Options) {
        let parameters = report.parameters
        self.init(
            analyzed: AnalyzedModel(name: HuggingFaceCache.displayName(of: url), configuration: report.configuration, weightType: report.types.first?.type),
            parameters: parameters.language + parameters.vision + parameters.projector + parameters.scheduler,
            weightBytes: report.weightBytes, weightType: report.types.first.map { $0.name.uppercased() } ?? "none",
            imageTokens: report.imageTokens, threads: model.threads, kernels: model.kernels, precision: options.precision,
            keyValueType: options.keyValueType)
    }

    package var name: String { analyzed.name }

    /// Where below nothing more is saved; `nil` for models that always run whole.
    package var budgetFloor: Double? { analyzed.units?.floor }

    /// Positions that prompt and answer may take together; an adaptive model's latency token needs one of them.
    package var contextLength: Int { analyzed.configuration.language.contextLength }
    var latencyTokens: Int { analyzed.configuration.adaptive == nil ? 0 : 1 }

    /// Bits of a key or value in the cache.
    var keyValueBits: Int { keyValueType.bits(precision) }

    /// The effect of a budget: below the floor, or between two units, less or more runs than requested.
    func isBelowFloor(_ budget: Double) -> Bool { budgetFloor.map { budget < $0 - 1e-6 } ?? false }

    /// - Throws: `BudgetError/notAdaptive(budget:model:)` for a budget below 1 where nothing can be left out.
    func require(budget: Double) throws {
        if budget < 1, analyzed.units == nil { throw BudgetError.notAdaptive(budget: budget, model: name) }
    }

    var size: String { String(format: weightBytes < 1_000_000_000 ? "%.1f MB" : "%.2f GB", Double(weightBytes) / (weightBytes < 1_000_000_000 ? 1e6 : 1e9)) }
    var parameterCount: String { String(format: parameters < 1_000_000_000 ? "%.1f M" : "%.2f B", Double(parameters) / (parameters < 1_000_000_000 ? 1e6 : 1e9)) }

    /// One line for people.
    var line: String {
        let floor = budgetFloor.map { String(format: "floor %.3g", $0) } ?? "not adaptive"
        return "model    \(name): \(parameterCount) parameters, \(weightType), \(size), \(floor); \(threads) thread\(threads == 1 ? "" : "s"), \(kernels), precision \(precision.rawValue)"
            + (keyValueType == .f16 ? "" : ", keys and values \(keyValueType.rawValue)")
    }

    /// A model in the JSON of experiments.
    package struct JSON: Codable, Sendable {
        package var name: String
        package var parameters: Int
        package var weightBytes: Int
        package var weightType: String
        @Nullable package var floor: Double?
        package var contextLength: Int
        package var threads: Int
        package var kernels: String
        package var precision: String
        package var kvType: String

        enum CodingKeys: String, CodingKey {
            case name, parameters, floor, threads, kernels, precision
            case weightBytes = "weight_bytes"
            case weightType = "weight_type"
            case contextLength = "context_length"
            case kvType = "kv_type"
        }
    }

    var json: JSON {
        JSON(
            name: name, parameters: parameters, weightBytes: weightBytes, weightType: weightType, floor: budgetFloor, contextLength: contextLength,
            threads: threads, kernels: kernels, precision: precision.rawValue, kvType: keyValueType.rawValue)
    }
}

extension ExecutionPlan {
    /// The fraction of all heads and neuron groups that run.
    var executedShare: Double {
        let mask = mask
        return mask.isEmpty ? 1 : Double(mask.reduce(0, +)) / Double(mask.count)
    }
}

extension ModelResponse {
    /// The fraction of all heads and neuron groups that ran.
    var executedShare: Double { plan.executedShare }

    /// Milliseconds of each phase.
    var encodeMilliseconds: Double { measured.encode / .milliseconds(1) }
    var prefillMilliseconds: Double { measured.prefill / .milliseconds(1) }
    var decodeMilliseconds: Double { measured.decode / .milliseconds(1) }
    var firstTokenMilliseconds: Double { measured.timeToFirstToken / .milliseconds(1) }
    var wholeMilliseconds: Double { measured.whole / .milliseconds(1) }
}
