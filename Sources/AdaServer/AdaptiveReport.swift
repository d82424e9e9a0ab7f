import AdaLLaVA

/// Parts of the model that ran for an answer: `adaptive` in answers and last chunks.
struct AdaptiveReport: Encodable, Sendable {
    /// Milliseconds of each phase.
    struct Times: Encodable, Sendable {
        let encode: Double
        let prefill: Double
        let decode: Double
        let ttft: Double
        let whole: Double

        init(_ times: PhaseTimes) {
            encode = times.encode / .milliseconds(1)
            prefill = times.prefill / .milliseconds(1)
            decode = times.decode / .milliseconds(1)
            ttft = times.timeToFirstToken / .milliseconds(1)
            whole = times.whole / .milliseconds(1)
        }
    }

    /// Switches that ran in each layer, in the order of layers.
    struct Plan: Encodable, Sendable {
        let attentionHeadsPerLayer: [Int]
        let mlpGroupsPerLayer: [Int]
        /// One digit for each switch, 1 if it ran.
        let heads: [String]
        let mlpGroups: [String]

        init(_ plan: ExecutionPlan) {
            func digits(_ kept: [Int]) -> String {
                let kept = Set(kept)
                return String((0 ..< plan.headCount).map { kept.contains($0) ? "1" : "0" })
            }
            (attentionHeadsPerLayer, mlpGroupsPerLayer) = (plan.headsPerLayer, plan.groupsPerLayer)
            (heads, mlpGroups) = (plan.rows.map { digits($0.heads) }, plan.rows.map { digits($0.groups) })
        }
    }

    struct Change: Encodable, Sendable {
        let tokens: Int
        let unitsFrom: Int
        let unitsTo: Int
    }

    let budget: String
    let units: Nullable<Int>
    /// Units that the budget granted, where other requests needed the time and left fewer.
    let shrunkFromUnits: Nullable<Int>
    let floor: Nullable<Double>
    let plan: Plan
    let predictedMs: Nullable<Times>
    let measuredMs: Times
    /// Measured over predicted time when the plan was chosen: 1 on an idle machine.
    let load: Nullable<Double>
    let predictedTokens: Nullable<Int>
    let changes: [Change]
    let finish: String
    let cachedTokens: Int
    /// Image tokens that all layers had; `null` where all image tokens are kept.
    let imageTokensKept: Nullable<Int>
    let warning: Nullable<String>

    init(_ summary: AnswerSummary) {
        budget = summary.budget.description
        units = Nullable(summary.units)
        shrunkFromUnits = Nullable(summary.shrunkFrom)
        floor = Nullable(summary.budgetFloor)
        plan = Plan(summary.plan)
        predictedMs = Nullable(summary.prediction.map { Times($0.times) })
        measuredMs = Times(summary.measured)
        load = Nullable(summary.prediction?.load)
        predictedTokens = Nullable(summary.prediction?.tokens)
        changes = summary.prediction?.changes.map { Change(tokens: $0.tokens, unitsFrom: $0.from, unitsTo: $0.to) } ?? []
        finish = summary.finish.rawValue
        cachedTokens = summary.cachedTokens.prefix
        imageTokensKept = Nullable(summary.keptImageTokens)
        warning = Nullable(summary.warning)
    }
}

extension FinishReason {
    /// OpenAI's word for it.
    var openAI: String {
        switch self {
        case .endOfAnswer, .stopText: "stop"
        case .maxTokens, .contextFull, .deadline: "length"
        }
    }
}

/// How many tokens a request took.
struct Usage: Encodable, Sendable {
    struct PromptDetails: Encodable, Sendable {
        let cachedTokens: Int
        let imageTokens: Int
    }

    let promptTokens: Int
    let completionTokens: Int
    let totalTokens: Int
    let promptTokensDetails: PromptDetails

    /// - Parameter summaries: of all answers to one prompt, which counts once.
    init(_ summaries: [AnswerSummary]) {
        promptTokens = summaries.first?.promptTokens ?? 0
        completionTokens = summaries.reduce(0) { $0 + $1.tokens.count }
        totalTokens = promptTokens + completionTokens
        promptTokensDetails = PromptDetails(cachedTokens: summaries.first?.cachedTokens.prefix ?? 0, imageTokens: summaries.first?.imageTokens ?? 0)
    }
}
