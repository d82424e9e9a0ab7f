import Foundation

/// What one answer may be.
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
    /// What runs of each layer, instead of what the scheduler picks: for experiments. The latency token still carries the budget.
    public var plan: ExecutionPlan?
    /// Whether what earlier requests computed of the same images and prompts is used, and what this one computes is kept. Answers are the same
    /// without; measurements compute everything themselves.
    public var reusesEarlierWork = true
    /// Whether the prompt is kept for other requests as soon as it has been read, so that several answers to it read it once.
    public var keepsPromptEarly = false
    /// How many of the likeliest tokens ``AnswerPiece/logProbabilities`` has beside each token of the answer; `nil` tells no probabilities.
    public var logProbabilities: Int?
    /// Makes what says which tokens may come next.
    package var filter: (@Sendable () -> any TokenFilter)?
    /// Called on the model's thread with what the prefix layers put out; not for a model that is not adaptive.
    package var onStates: (@Sendable (PrefixStates) -> Void)?
    /// Requests with lower numbers are read first; among equals, those with the earliest deadline.
    public var priority = 0
    /// Called on the model's thread with what is predicted of the answer, whenever that becomes more certain; where times are predicted.
    package var onPrediction: (@Sendable (PhaseTimes) -> Void)?
    /// What a time budget means for this answer.
    public var deadlines = DeadlineOptions()
    /// Called on the model's thread while images are encoded, the prompt is read and the answer grows.
    public var onProgress: (@Sendable (GenerationProgress) -> Void)?

    /// Greedy, at most 512 tokens.
    public init() {}

    /// Checks the options without running anything.
    /// - Throws: ``SamplingError`` naming the option that is out of range.
    public func validate() throws {
        try sampling.validate()
        guard deadlines.confidence >= 0.5, deadlines.confidence < 1 else {
            throw SamplingError(option: "confidence", expected: "0.5 or more, below 1", found: deadlines.confidence)
        }
        guard 0 ... max(maxTokens, 1) ~= minTokens else {
            throw SamplingError(option: "min-tokens", expected: "from 0 to the most tokens, \(maxTokens)", found: Double(minTokens))
        }
        if maxTokens < 1 { throw SamplingError(option: "max-tokens", expected: "1 or more", found: Double(maxTokens)) }
    }
}

/// A piece of an answer: newly completed text, of several tokens where they come within milliseconds; the last piece carries the summary.
public struct AnswerPiece: Sendable {
    /// Text that is certain now: whole characters, nothing of a stop text. May be empty.
    public let text: String
    /// What ran; with the last piece only.
    public let summary: AnswerSummary?
    /// Of the tokens since the last piece, if ``GenerationOptions/logProbabilities`` asks for them; the token that ends an answer is left out.
    public var logProbabilities: [TokenLogProbability] = []
}

/// How likely a token of an answer was, of all tokens of the vocabulary, before temperature and penalties.
public struct TokenLogProbability: Sendable, Equatable {
    /// A token that was or could have been chosen.
    public struct Candidate: Sendable, Equatable {
        /// The token's id.
        public let token: Int
        /// What it stands for inside a text; maybe half a character.
        public let bytes: [UInt8]
        /// Natural logarithm of its probability.
        public let logProbability: Double
    }

    /// The token of the answer.
    public let chosen: Candidate
    /// The likeliest tokens in its place, the likeliest first.
    public let likeliest: [Candidate]
}

/// What ran for an answer, and how long it took.
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
    /// What ran of each layer.
    public let plan: ExecutionPlan
    /// How long each phase took.
    public let measured: PhaseTimes
    /// Why the answer ended.
    public let finish: FinishReason
    /// Memory that keys and values took, in bytes.
    public let keyValueBytes: Int
    /// Positions of the prompt that an earlier request had computed: in the prefix layers, and in the layers after them.
    public let cachedTokens: (prefix: Int, rest: Int)
    /// What was predicted; `nil` for fractions of compute before this model was measured on this machine.
    public let prediction: AnswerPrediction?

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
        cachedTokens = (result.cachedPrefix, result.cachedRest)
        prediction = result.prediction
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

    /// One line for people: what ran and how long it took.
    public var line: String {
        let milliseconds = { (duration: Duration) in String(format: "%.0f ms", duration / .milliseconds(1)) }
        var parts: [String] = []
        if units != nil {
            let heads = plan.headsPerLayer.reduce(0, +)
            let groups = plan.groupsPerLayer.reduce(0, +)
            let all = plan.rows.count * plan.headCount
            parts.append("budget \(budget.shown): \(plan.rows.count { !$0.isSkipped }) of \(plan.rows.count) layers, \(heads)/\(all) heads, \(groups)/\(all) MLP groups")
        }
        if measured.encode > .microseconds(100) { parts.append("encode \(milliseconds(measured.encode))") }
        let kept = keptImageTokens.map { ", \($0) of \(imageTokens) image tokens kept" } ?? ""
        parts.append("prefill \(milliseconds(measured.prefill)) (\(promptTokens) tokens\(kept))")
        let seconds = measured.decode / .seconds(1)
        let rate = seconds > 0 && tokens.count > 1 ? String(format: ", %.0f tokens/s", Double(tokens.count - 1) / seconds) : ""
        parts.append("decode \(milliseconds(measured.decode)) (\(tokens.count) token\(tokens.count == 1 ? "" : "s")\(rate))")
        parts.append("TTFT \(milliseconds(measured.timeToFirstToken))")
        return parts.joined(separator: " | ")
    }

    /// What `ask --json` prints.
    package func jsonObject(answer: String) -> [String: Any] {
        var adaptive: [String: Any] = [
            "attention_heads_per_layer": plan.headsPerLayer, "mlp_groups_per_layer": plan.groupsPerLayer, "units": units ?? NSNull(),
            "floor": budgetFloor ?? NSNull(),
        ]
        switch budget {
        case .fraction(let fraction): adaptive["budget"] = fraction
        case .time, .automatic: adaptive["budget"] = budget.description
        }
        if let prediction {
            adaptive["predicted"] = prediction.times.jsonObject
            adaptive["predicted_tokens"] = prediction.tokens
            adaptive["predicted_tpot_ms"] = prediction.perToken / .milliseconds(1)
            adaptive["load"] = prediction.load
            adaptive["changes"] = prediction.changes.map { ["tokens": $0.tokens, "units_from": $0.from, "units_to": $0.to] }
            adaptive["calibrated"] = prediction.isFitted
        }
        if let keptImageTokens { adaptive["image_tokens_kept"] = keptImageTokens }
        return [
            "answer": answer, "tokens": tokens, "adaptive": adaptive, "measured": measured.jsonObject, "finish_reason": finish.rawValue,
            "prompt_tokens": promptTokens, "image_tokens": imageTokens, "cached_tokens": cachedTokens.prefix,
        ]
    }
}

extension PhaseTimes {
    /// Milliseconds of each phase.
    package var jsonObject: [String: Any] {
        [
            "encode_ms": encode / .milliseconds(1), "prefill_ms": prefill / .milliseconds(1), "decode_ms": decode / .milliseconds(1),
            "ttft_ms": timeToFirstToken / .milliseconds(1), "whole_ms": whole / .milliseconds(1),
        ]
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

    /// What `trace` prints, named as the fixtures' `cases.json` names it.
    package var jsonObject: [String: Any] {
        [
            "generated_ids": summary.tokens, "generated_text": text ?? NSNull(), "units": summary.units ?? NSNull(),
            "insert_position": insertPosition ?? NSNull(), "length_with_latency_token": lengthWithLatencyToken,
            "attention_heads_per_layer": summary.plan.headsPerLayer, "mlp_groups_per_layer": summary.plan.groupsPerLayer,
            "kv_cache_shapes_at_end": keyValueShapes.map { $0 as Any? ?? NSNull() }, "stopped_at_eos": summary.finish == .endOfAnswer,
            "measured": summary.measured.jsonObject,
        ]
    }
}
