import Foundation

/// The remaining work of an answer.
package struct RemainingWork: Sendable, Equatable {
    /// Images that are still to be encoded; of images that are cut, their tiles.
    package var images = 0
    /// Rows of the prompt that are still to pass the layers before image tokens are dropped.
    package var early = 0 ..< 0
    /// Rows of the prompt that are still to pass the prefix layers; where image tokens are dropped, those that are kept, in the layers after the drop.
    package var prefix = 0 ..< 0
    /// Image tokens that later layers do not have; `nil` where no layers but the prefix and the others are to be told apart.
    package var dropped: Int?
    /// The row of the latency token; `nil` once it is computed, and without a scheduler.
    package var latencySlot: Int?
    /// Rows that are still to pass the layers after the prefix.
    package var rest = 0 ..< 0
    /// Tokens that are still fed back, and the slot of the first.
    package var tokens = 0, slot = 0
    /// Whether the first token is still to come.
    package var isBeforeFirstToken = true

    package init() {}

    /// A whole prompt.
    /// - Parameter dropped: image tokens that the decoder drops; `nil`: it does not choose.
    package mutating func setPrompt(_ prompt: Int, dropped: Int?, isAdaptive: Bool) {
        let rows = prompt - (dropped ?? 0)
        (early, prefix, self.dropped) = (dropped == nil ? 0 ..< 0 : 0 ..< prompt, 0 ..< rows, dropped)
        if isAdaptive { (latencySlot, rest) = (prompt, 0 ..< rows + 1) }
    }
}

/// Nanoseconds of each phase.
package struct PhaseNanoseconds: Sendable, Equatable {
    package var encode = 0.0, prefill = 0.0, decode = 0.0
    package var firstToken: Double { encode + prefill }
    package var whole: Double { encode + prefill + decode }

    package init(encode: Double = 0, prefill: Double = 0, decode: Double = 0) { (self.encode, self.prefill, self.decode) = (encode, prefill, decode) }

    static func * (times: PhaseNanoseconds, loads: PhaseLoads) -> PhaseNanoseconds {
        PhaseNanoseconds(encode: times.encode * loads.encode, prefill: times.prefill * loads.prefill, decode: times.decode * loads.decode)
    }
}

/// Predicts how long answers of one model take on this machine, and chooses the most units for which the time left suffices.
package final class TimePlanner {
    private let configuration: ModelConfiguration
    package let counter: StepCounter
    package private(set) var model: TimeModel
    /// Whether the model was fitted on this machine.
    package private(set) var isFitted = false
    /// Nanoseconds of encoding one image, its pixels included.
    package private(set) var imageNanoseconds: Double
    /// The machine's state.
    package var load = LoadFactor()
    /// Of whole answers and of first tokens.
    package var wholeMargin = DeadlineMargin(), firstTokenMargin = DeadlineMargin()
    package var lengths = AnswerLengths()
    /// Called with the counts and time of each layer of a chunk while the machine is measured.
    package var onSample: ((StepCounts, Double) -> Void)?

    /// Nanoseconds of the layers of the step that runs.
    package var layerNanoseconds = 0.0

    /// By optional units; one entry without a scheduler.
    private var byUnits: [PlanTimes] = []
    private var prefix: PlanTimes
    /// The prefix layers before image tokens are dropped, and after; `nil` where there are none.
    private var early, late: PlanTimes?
    private let prefixLayers: Int
    private let dropLayer: Int?
    private let wholeShares: [LayerShare]

    /// - Parameter weightBytes: bytes of a weight of the decoder's layers as it is read.
    package init(_ configuration: ModelConfiguration, weightBytes: Double) {
        self.configuration = configuration
        counter = StepCounter(configuration.language, weightBytes: weightBytes)
        prefixLayers = configuration.adaptive?.numPrefixLayers ?? configuration.language.numHiddenLayers
        wholeShares = CostPlan(whole: configuration).shares
        dropLayer = configuration.llava?.fastV?.layer
        imageNanoseconds = configuration.vision == nil ? 0 : 50e6
        (model, prefix) = (.guess, PlanTimes(CostPlan(whole: configuration), layers: 0 ..< 0, dropsRows: false, .guess, counter))
        rebuild()
    }

    /// Takes over a fitted model.
    package func use(_ model: TimeModel, imageNanoseconds: Double) {
        (self.model, self.imageNanoseconds, isFitted) = (model, imageNanoseconds, true)
        rebuild()
    }

    private func rebuild() {
        let layers = configuration.language.numHiddenLayers, isAdaptive = configuration.adaptive != nil
        let whole = CostPlan(whole: configuration)
        prefix = PlanTimes(whole, layers: 0 ..< prefixLayers, dropsRows: !isAdaptive, model, counter)
        if let dropLayer {
            early = PlanTimes(whole, layers: 0 ..< dropLayer, dropsRows: false, model, counter)
            late = dropLayer < prefixLayers ? PlanTimes(whole, layers: dropLayer ..< prefixLayers, dropsRows: !isAdaptive, model, counter) : nil
        }
        let optional = configuration.budgetUnits.map { $0.total - $0.prefix } ?? 0
        byUnits = (0 ... optional).map { units in
            PlanTimes(CostPlan(units: units, of: configuration), layers: prefixLayers ..< layers, dropsRows: true, dropLayer: dropLayer, model, counter)
        }
    }

    /// Optional units that there are; 0 without a scheduler.
    package var mostUnits: Int { byUnits.count - 1 }

    /// Times of a plan that the scheduler made.
    package func times(_ plan: CostPlan) -> PlanTimes {
        PlanTimes(plan, layers: prefixLayers ..< configuration.language.numHiddenLayers, dropsRows: true, dropLayer: dropLayer, model, counter)
    }

    /// Times of so many units, spread evenly.
    package func times(units: Int) -> PlanTimes { byUnits[min(max(units, 0), mostUnits)] }

    // MARK: - Prediction

    /// Rows of a prompt that one step takes.
    private static let chunk = 640

    /// Nanoseconds that work takes on an idle machine under a plan's times.
    package func predict(_ work: RemainingWork, _ times: PlanTimes) -> PhaseNanoseconds {
        let row = work.latencySlot.map { latencyRow($0, dropped: work.dropped ?? 0) } ?? 0
        return TimePlanner.predict(
            work, times, prefix: (prefix, early, late), latencyRow: row, image: imageNanoseconds, isAdaptive: configuration.adaptive != nil)
    }

    /// The same for other threads, of a plan of so many units.
    package func predictor(units: Int) -> @Sendable (RemainingWork) -> PhaseNanoseconds {
        let (times, image, isAdaptive) = (times(units: units), imageNanoseconds, configuration.adaptive != nil), prefix = (whole: prefix, early: early, late: late)
        // A latency row attends to the whole prompt, whose keys are few bytes compared with the weights.
        let row = isAdaptive ? latencyRow(0, dropped: 0) : 0
        return { TimePlanner.predict($0, times, prefix: prefix, latencyRow: $0.latencySlot == nil ? 0 : row, image: image, isAdaptive: isAdaptive) }
    }

    private static func predict(
        _ work: RemainingWork, _ times: PlanTimes, prefix: (whole: PlanTimes, early: PlanTimes?, late: PlanTimes?), latencyRow: Double, image: Double, isAdaptive: Bool
    ) -> PhaseNanoseconds {
        var phases = PhaseNanoseconds()
        phases.encode = Double(work.images) * image
        let dropped = work.dropped ?? 0
        phases.prefill = prefix.early?.prefill(work.early, chunk: TimePlanner.chunk, isEnd: false) ?? 0
        let remaining = work.dropped == nil ? prefix.whole : prefix.late
        phases.prefill += (remaining?.prefill(work.prefix, chunk: TimePlanner.chunk, isEnd: !isAdaptive) ?? 0) + latencyRow
        phases.prefill += times.prefill(work.rest, chunk: TimePlanner.chunk, isEnd: true)
        phases.decode = times.tokens(work.tokens, from: work.slot, dropped: dropped)
        return phases
    }

    /// Whether rows are bound by arithmetic or by memory.
    package enum Kind { case chunk, single }

    /// Nanoseconds of one step of a request: rows of its prompt in either stage, its latency token, or one token.
    /// - Parameter dropped: image tokens that later layers do not have.
    package func nanoseconds(
        _ rows: Range<Int>, of kind: Kind, layers: Range<Int>, hasLogits: Bool, dropped: Int = 0, _ times: PlanTimes
    ) -> Double {
        switch kind {
        case .chunk where layers.lowerBound < prefixLayers:
            (layers.lowerBound > 0 ? late ?? prefix : layers.upperBound == dropLayer ? early ?? prefix : prefix)
                .prefill(rows, chunk: TimePlanner.chunk, isEnd: hasLogits)
        case .chunk: times.prefill(rows, chunk: TimePlanner.chunk, isEnd: hasLogits)
        case .single where hasLogits: times.token(at: rows.lowerBound, dropped: dropped)
        case .single: latencyRow(rows.lowerBound, dropped: dropped)
        }
    }

    /// Predicted nanoseconds of one more row of all layers beside others, which the same read of the weights serves.
    package func row(_ times: PlanTimes) -> Double {
        let count = 32
        func chunk(_ rows: Int) -> Double {
            (early?.prefill(0 ..< rows, chunk: TimePlanner.chunk, isEnd: false) ?? 0) + ((early == nil ? prefix : late)?.prefill(0 ..< rows, chunk: TimePlanner.chunk, isEnd: false) ?? 0)
                + times.prefill(0 ..< rows, chunk: TimePlanner.chunk, isEnd: false)
        }
        return max(chunk(count + 1) - chunk(1), 0) / Double(count)
    }

    /// The counts of a plan.
    package func costPlan(_ plan: ExecutionPlan) -> CostPlan { CostPlan(plan, of: configuration) }

    private func latencyRow(_ slot: Int, dropped: Int) -> Double {
        let counts = (0 ..< prefixLayers).reduce(counter.step(logitRows: 0, latencyTokens: 1)) {
            $0 + counter.single(wholeShares[$1], keys: counter.keys($1 >= dropLayer ?? .max ? slot - dropped : slot, wholeShares[$1].kind))
        }
        return model.nanoseconds(counts)
    }

    // MARK: - Choice

    /// The units that the remaining time allows.
    package struct Choice: Sendable, Equatable {
        package let units: Int
        /// Whether a limit is not kept even so.
        package let isLate: Bool
    }

    /// The state of a request with time limits.
    package struct Situation: Sendable {
        package var limits: TimeLimits
        package var work: RemainingWork
        /// Nanoseconds since the call, and since the first token.
        package var elapsed = 0.0, decoding = 0.0
        /// Tokens after the first one that are done.
        package var decoded = 0
        /// The machine's load, and the time of steps shared with other requests over that of this one alone.
        package var loads = PhaseLoads(), crowding = 1.0
        /// Factors for recent errors of predictions: of the first token, and of the rest.
        package var firstTokenMargin = 1.0, wholeMargin = 1.0
        /// Whether units may be turned off at each token that follows.
        package var canShrink = false

        package init(limits: TimeLimits, work: RemainingWork) { (self.limits, self.work) = (limits, work) }
    }

    /// Tokens over which a limit for each token is kept on average.
    private static let tokenWindow = 8
    /// Tokens that a plan is kept for at least, where it can be made smaller later.
    private static let keptTokens = 2

    /// Time needed over time remaining, of the tightest limit; above 1 some limit is missed.
    package func need(_ situation: Situation, _ times: PlanTimes) -> Double {
        let phases = predict(situation.work, times) * situation.loads
        var need = 0.0
        func add(_ nanoseconds: Double, _ left: Double) { need = max(need, nanoseconds <= 0 ? 0 : left <= 0 ? .infinity : nanoseconds * situation.crowding / left) }
        if let limit = situation.limits.firstToken, situation.work.isBeforeFirstToken {
            add(phases.firstToken * situation.firstTokenMargin, limit.nanoseconds - situation.elapsed)
        }
        if let limit = situation.limits.answer {
            let left = limit.nanoseconds - situation.elapsed
            if situation.canShrink {
                // A wrong prediction can be made good at the tokens that follow, so the whole margin is for the work until then and the smallest plan's rest.
                let kept = min(situation.work.tokens, TimePlanner.keptTokens)
                let (slot, dropped) = (situation.work.slot, situation.work.dropped ?? 0)
                let decode = times.tokens(kept, from: slot, dropped: dropped) + byUnits[0].tokens(situation.work.tokens - kept, from: slot + kept, dropped: dropped)
                add(phases.whole * situation.wholeMargin.squareRoot(), left)
                add((phases.firstToken + decode * situation.loads.decode) * situation.wholeMargin, left)
            } else {
                add(phases.whole * situation.wholeMargin, left)
            }
        }
        if let limit = situation.limits.perToken, situation.work.tokens > 0 {
            let count = min(situation.work.tokens, TimePlanner.tokenWindow)
            let margin = situation.canShrink ? situation.wholeMargin.squareRoot() : situation.wholeMargin
            let time = times.tokens(count, from: situation.work.slot, dropped: situation.work.dropped ?? 0) * situation.loads.decode * margin
            add(time, limit.nanoseconds * Double(situation.decoded + count) - situation.decoding)
        }
        return need
    }

    /// The most units, at most `limit`, whose predicted times keep all limits with the confidence's margin; none if no plan keeps them.
    package func choose(_ situation: Situation, atMost limit: Int) -> Choice {
        var (fits, tooMany) = (-1, min(limit, mostUnits) + 1)
        while tooMany - fits > 1 {
            let middle = (fits + tooMany) / 2
            if need(situation, byUnits[middle]) <= 1 { fits = middle } else { tooMany = middle }
        }
        return Choice(units: max(fits, 0), isLate: fits < 0)
    }
}

extension Duration {
    package var nanoseconds: Double { self / .nanoseconds(1) }

    /// - Parameter nanoseconds: values that no duration holds become the nearest that one does.
    package init(nanoseconds: Double) { self = .nanoseconds(Int64(min(max(nanoseconds.isNaN ? 0 : nanoseconds, 0), 9e18))) }
}
