import AdaKernels
import Foundation

/// One running request: its stage, its sequence, and its results so far.
final class GenerationTask {
    /// The next stage.
    enum Stage {
        /// Nothing yet.
        case waiting
        /// Images, which become features.
        case encode
        /// Prompt rows from `next` on, through the layers before image tokens are dropped; see ``TokenDropping``.
        case early(next: Int)
        /// Prompt rows from `next` on, through the prefix layers (all layers, of a model without a scheduler).
        case prefix(next: Int)
        /// The budget becomes units, and the one latency row passes the prefix.
        case latency
        /// Rows from `next` on, through the layers after the prefix, under the plan.
        case rest(next: Int)
        /// One token after the other: this one's rows come next.
        case decode(token: Int)
        case done
    }

    let request: EngineRequest
    let cancellation: Cancellation
    let trace: Trace?
    private let onProgress: ((GenerationProgress) -> Void)?
    private let onToken: (Int) -> Bool
    /// Called with a token and the likeliest alternatives, before `onToken`.
    let onProbabilities: ((TokenProbability, [TokenProbability]) -> Void)?
    /// Says which tokens may come next.
    let filter: (any TokenFilter)?
    /// Whether the text so far ends a sentence.
    let endsSentence: () -> Bool
    /// Sentences that have ended.
    var sentences = 0
    private let onEnd: ((Result<EngineResult, any Error>) -> Void)?

    var stage = Stage.waiting
    var result: EngineResult
    private(set) var outcome: Result<EngineResult, any Error>?

    // Set when the request is begun.
    var sequence: TokenSequence?
    var elements: [PromptElement] = []
    var keys: PromptKeys?
    var features: [Tensor] = []
    /// The image that is being encoded, and nanoseconds that this request's images took.
    var encoding: ImageEncoding?
    var encodeNanoseconds = 0.0
    /// `nil` where a row's position is its place in the prompt.
    var positions: PromptPositions?
    /// `nil` where the decoder keeps all image tokens.
    var dropping: TokenDropping?
    /// Hidden states after the prefix, the latency row's last: `[promptRows + 1, hidden]`.
    var hidden: Tensor?
    var units: Int?
    var schedulerLogits: [Float] = []
    /// Whether the plan is still the one that the scheduler made.
    var hasOnePlan = true
    var sampler: Sampler
    /// `nil` where nothing is drafted.
    var speculation: TaskSpeculation?
    /// Tokens that the next step verifies.
    var draft: Draft?
    /// Slots that are filled.
    var length = 0
    /// Slots that prompt and answer may fill.
    var capacity = 0
    /// Position times layers of the prompt that are done.
    var readRows = 0
    /// Predictions and limits; `nil` where nothing is predicted.
    var timing: TaskTiming?
    /// Whether no plan keeps the limits, so that other requests come first.
    var isLate = false

    private let clock = ContinuousClock()
    /// When the caller asked.
    let called: ContinuousClock.Instant
    private(set) var start: ContinuousClock.Instant
    private(set) var prefilled: ContinuousClock.Instant?

    /// - Parameters:
    ///   - onToken: called with each token; `false` ends the answer.
    ///   - onEnd: called once, after the last token.
    init(
        _ request: EngineRequest, cancellation: Cancellation, trace: Trace? = nil, onProgress: ((GenerationProgress) -> Void)? = nil,
        onToken: @escaping (Int) -> Bool, onEnd: ((Result<EngineResult, any Error>) -> Void)? = nil, endsSentence: @escaping () -> Bool = { false },
        onProbabilities: ((TokenProbability, [TokenProbability]) -> Void)? = nil
    ) {
        (self.endsSentence, self.onProbabilities) = (endsSentence, onProbabilities)
        filter = request.filter?()
        (self.request, self.cancellation, self.trace) = (request, cancellation, trace)
        (self.onProgress, self.onToken, self.onEnd) = (onProgress, onToken, onEnd)
        result = EngineResult(plan: ExecutionPlan(headCount: 0, rows: []))
        sampler = Sampler(request.sampling, prompt: request.tokens)
        start = clock.now
        called = request.called ?? start
    }

    var isDone: Bool { outcome != nil }
    var isDecoding: Bool { if case .decode = stage { true } else { false } }
    var isEncoding: Bool { if case .encode = stage { true } else { false } }
    var wantsProgress: Bool { onProgress != nil }

    /// When the answer, or else its first token, is to be there.
    var deadline: ContinuousClock.Instant? {
        guard case .time(let limits) = request.budget else { return nil }
        return (limits.answer ?? limits.firstToken).map { called + $0 }
    }

    /// The place of its prompt among those that are read.
    var order: WorkOrder { WorkOrder(priority: request.priority, isLate: isLate, deadline: deadline, called: called) }

    /// Rows of the prompt after image tokens were dropped: ``elements``, if none are.
    var promptRows: Int { dropping?.kept?.count ?? elements.count }

    /// Rows of the prompt that are dropped; how many is known before which ones.
    var droppedRows: Int {
        guard let dropping else { return 0 }
        return dropping.kept.map { elements.count - $0.count } ?? dropping.fastV.dropped(of: result.imageTokens)
    }

    func report(_ progress: GenerationProgress) { onProgress?(progress) }

    // MARK: - Phases

    func begin() { start = clock.now }

    func endEncode() { result.measured.encode = clock.now - start }

    func endPrefill() {
        let now = clock.now
        prefilled = now
        result.measured.prefill = now - start - result.measured.encode
    }

    /// Takes the next token.
    /// - Returns: whether it is fed back.
    func take(_ token: Int) -> Bool {
        result.tokens.append(token)
        report(.answering(done: result.tokens.count, atMost: request.maxTokens))
        if result.tokens.count == 1 { result.measured.timeToFirstToken = clock.now - called }
        let isEnd = request.endTokens.contains(token)
        let goesOn = onToken(token)
        if isEnd {
            result.finish = .endOfAnswer
        } else if !goesOn {
            result.finish = .stopText
        } else if result.tokens.count >= request.maxTokens {
            result.finish = .maxTokens
        } else if length >= capacity {
            result.finish = .contextFull
        } else {
            return true
        }
        return false
    }

    func finish() {
        let now = clock.now
        if let prefilled { result.measured.decode = now - prefilled }
        result.measured.whole = now - called
        if let sequence {
            result.keyValueBytes = sequence.keyValueBytes
            if let layout = sequence.layers.lazy.compactMap(\.self).first?.layout { result.keyValueType = layout.type == AK_Q8_0 ? .q8 : .f16 }
            result.keyValueShapes = sequence.layers.enumerated().map { index, layer in
                layer.map { [1, $0.heads.count, sequence.slots(length, in: index), $0.layout.headDim] }
            }
        }
        end(.success(result))
    }

    func fail(_ error: any Error) { end(.failure(error)) }

    private func end(_ outcome: Result<EngineResult, any Error>) {
        if self.outcome != nil { return }
        self.outcome = outcome
        stage = .done
        // Tasks of the same step can use the memory at once.
        (sequence, hidden, features, encoding, speculation) = (nil, nil, [], nil, nil)
        onEnd?(outcome)
    }
}
