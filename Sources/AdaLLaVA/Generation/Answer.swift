import Foundation

/// Options of one answer.
public struct GenerationOptions: Sendable {
    /// The longest answer, in tokens.
    public var maxTokens = 512
    /// The fewest tokens before the answer may end by itself, at most ``maxTokens``; stop texts and deadlines still end it.
    public var minTokens = 0
    /// How tokens are chosen.
    public var sampling = SamplingOptions()
    /// Texts that end the answer; they are not part of it.
    public var stop: [String] = []
    /// The system prompt, instead of the template's.
    public var system: String?
    /// Plan that replaces the scheduler's, for experiments. The latency token still carries the budget.
    public var plan: ExecutionPlan?
    /// Whether cached results of earlier requests with the same images and prompts are used, and results of this one are cached. Answers are the same
    /// without; measurements turn it off.
    public var reusesEarlierWork = true
    /// Whether the prompt is kept for other requests as soon as it has been read, so that several answers to it read it once.
    public var keepsPromptEarly = false
    /// Whether tokens are drafted cheaply and verified several in a step, which leaves the answer as it is; `nil` takes
    /// ``AdaptiveModel/Options/speculation``.
    public var speculation: Speculation?
    /// Number of likeliest tokens that ``AnswerEvent/logProbabilities(_:)`` lists for each token of the answer; `nil` sends no probabilities.
    public var logProbabilities: Int?
    /// Makes the filter of the tokens that may come next.
    package var filter: (@Sendable () -> any TokenFilter)?
    /// Called on the model's thread with the prefix layers' output; adaptive models only.
    package var onStates: (@Sendable (PrefixStates) -> Void)?
    /// Requests with lower numbers are read first; among equals, those with the earliest deadline.
    public var priority = 0
    /// Called on the model's thread with the predicted times whenever they become more certain; only if times are predicted.
    package var onPrediction: (@Sendable (PhaseTimes) -> Void)?
    /// Treatment of this answer's time budget.
    public var deadlines = DeadlineOptions()
    /// Called on the model's thread while images are encoded, the prompt is read and the answer grows.
    public var onProgress: (@Sendable (GenerationProgress) -> Void)?

    /// Greedy, at most 512 tokens.
    public init() {}

    /// Checks the options without running anything.
    /// - Throws: an ``AdaLLaVAError`` naming the option that is out of range.
    public func validate() throws {
        try sampling.validate()
        guard deadlines.confidence >= 0.5, deadlines.confidence < 1 else {
            throw SamplingError(option: "confidence", expected: "0.5 or more, below 1", found: deadlines.confidence)
        }
        guard 0 ... max(maxTokens, 1) ~= minTokens else {
            throw SamplingError(option: "min-tokens", expected: "from 0 to the most tokens, \(maxTokens)", found: Double(minTokens))
        }
        if case .tokens(let count)? = speculation, !(1 ... Speculation.mostTokens ~= count) {
            throw SamplingError(option: "speculate", expected: "auto, off or 1 to \(Speculation.mostTokens) tokens", found: Double(count))
        }
        if maxTokens < 1 { throw SamplingError(option: "max-tokens", expected: "1 or more", found: Double(maxTokens)) }
    }
}

/// One event of an ``AnswerStream``.
public enum AnswerEvent: Sendable {
    /// New text: whole characters, without stop texts. It covers several tokens if they come within milliseconds.
    case text(String)
    /// Log-probabilities of the tokens since the last event of this kind, sent before their text if ``GenerationOptions/logProbabilities`` is set. The
    /// token that ends an answer has none.
    case logProbabilities([TokenLogProbability])
    /// The answer is complete. Always the last event.
    case finished(AnswerSummary)
}

/// How likely a token of an answer was, of all tokens of the vocabulary, before temperature and penalties.
public struct TokenLogProbability: Sendable, Equatable {
    /// A token that was or could have been chosen.
    public struct Candidate: Sendable, Equatable {
        /// The token's id.
        public let token: Int
        /// Its text as bytes, possibly half a character.
        public let bytes: [UInt8]
        /// Natural logarithm of its probability.
        public let logProbability: Double
    }

    /// The token of the answer.
    public let chosen: Candidate
    /// The likeliest tokens in its place, the likeliest first.
    public let likeliest: [Candidate]
}

/// Plan, counts and times of an answer.
public struct AnswerSummary: Sendable {
    /// Generated tokens, the ending one included.
    public let tokens: [Int]
    /// Positions that the prompt took, images included, the latency token not.
    public let promptTokens: Int
    /// Positions among them that features of images took.
    public let imageTokens: Int
    /// Those of them that the layers after token selection inside the decoder had; `nil` where all layers had all of them.
    public let keptImageTokens: Int?
    /// The budget that was asked for.
    public let budget: Budget
    /// Optional units granted; `nil` if the model is not adaptive.
    public let units: Int?
    /// Units that the budget granted at first, where the requests of an overloaded server left fewer; `nil` otherwise.
    public let shrunkFrom: Int?
    /// Where below nothing more is saved; `nil` if the model is not adaptive.
    public let budgetFloor: Double?
    /// Heads and neuron groups that ran, by layer.
    public let plan: ExecutionPlan
    /// How long each phase took.
    public let measured: PhaseTimes
    /// Why the answer ended.
    public let finish: FinishReason
    /// Memory that keys and values took, in bytes.
    public let keyValueBytes: Int
    /// How they were stored.
    public let keyValueType: KeyValueType
    /// Positions of the prompt that an earlier request had computed: in the prefix layers, and in the layers after them.
    public let cachedTokens: (prefix: Int, rest: Int)
    /// Drafts of the answer; `nil` where nothing could be drafted.
    public let speculation: SpeculationCounts?
    /// Predicted times; `nil` for fractions of compute before this model was measured on this machine.
    package let prediction: AnswerPrediction?

    init(_ result: EngineResult, budget: Budget) {
        tokens = result.tokens
        promptTokens = result.promptTokens
        imageTokens = result.imageTokens
        keptImageTokens = result.keptImageTokens
        self.budget = budget
        units = result.adaptive?.units
        shrunkFrom = result.shrunkFrom
        budgetFloor = result.adaptive?.floor
        plan = result.plan
        measured = result.measured
        finish = result.finish
        keyValueBytes = result.keyValueBytes
        keyValueType = result.keyValueType
        cachedTokens = (result.cachedPrefix, result.cachedRest)
        prediction = result.prediction
        speculation = result.speculation
    }

    /// A budget below the floor was answered at the floor, one of 1 could not buy everything, or a time was not kept.
    public var warning: String? {
        if case .time(let limits) = budget { return lateness(limits) }
        guard let floor = budgetFloor, case .fraction(let fraction) = budget else { return nil }
        let all = plan.rows.count * plan.headCount
        let (heads, groups) = (all - plan.headsPerLayer.reduce(0, +), all - plan.groupsPerLayer.reduce(0, +))
        if fraction >= 1, heads + groups > 0 {
            return "budget 1 left out \(heads) heads and \(groups) MLP groups: this model's scheduler_rank does not divide the \(plan.headCount) of a layer"
        }
        guard fraction < floor - 1e-6 else { return nil }
        return String(format: "budget %g is below this model's floor of %.3g: its first layers always run", fraction, floor)
    }

    /// Which limits were not kept, and why.
    private func lateness(_ limits: TimeLimits) -> String? {
        let steps = max(tokens.count - 1, 1)
        let all = [
            ("the answer", limits.answer, measured.whole), ("the first token", limits.firstToken, measured.timeToFirstToken),
            ("a token on average", limits.perToken, tokens.count > 1 ? measured.decode / steps : .zero),
        ]
        let late = all.compactMap { name, limit, time -> String? in
            guard let limit, time > limit else { return nil }
            return String(format: "%@ took %.1f ms, %.1f ms more than allowed", name, time / .milliseconds(1), (time - limit) / .milliseconds(1))
        }
        if late.isEmpty { return nil }
        let why = units == nil
            ? "this model has no scheduler, so nothing can be turned off; --cut ends answers in time"
            : prediction?.isLate == true ? "its smallest plan needs more" : "the machine became slower, or the answer longer, than expected"
        return "budget \(budget.shown): " + late.joined(separator: "; ") + ": " + why
    }
}

/// The intermediates and results of a traced request.
package struct TraceResult: Sendable {
    /// The tensors by name.
    package let entries: [String: Trace.Entry]
    /// The generated text; `nil` for a model without a tokenizer.
    package let text: String?
    /// Tokens, plan and times.
    package let summary: AnswerSummary
    let insertPosition: Int?
    let lengthWithLatencyToken: Int
    let keyValueShapes: [[Int]?]

    init(entries: [String: Trace.Entry], text: String?, summary: AnswerSummary, result: EngineResult) {
        (self.entries, self.text, self.summary) = (entries, text, summary)
        insertPosition = result.adaptive?.insertPosition
        lengthWithLatencyToken = result.lengthWithLatencyToken
        keyValueShapes = result.keyValueShapes
    }

    /// Writes the tensors as float32 safetensors.
    package func write(to url: URL) throws {
        try SafetensorsWriter.write(entries.sorted { $0.key < $1.key }.map { ($0.key, $0.value.shape, $0.value.values) }, to: url)
    }
}
