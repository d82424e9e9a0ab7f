/// An image of a request: the key of its content, its tokens in the prompt, and the function that makes the tower's input if the content is not cached
/// yet.
struct EngineImage: Sendable {
    let key: ContentKey
    /// Inputs of the tower that it is encoded as.
    let tiles: Int
    /// Its tokens in a prompt: ``Engine/imageToken`` for its features, and tokens between them.
    let layout: [Int]
    /// Rows of features of each ``Engine/imageToken`` of the layout; empty: all rows, divided evenly.
    private let markRows: [Int]
    /// Rows of features; `nil`: as many as one input of the tower has at least.
    let rows: Int?
    /// Order of the tiles' features; `nil`: one tile after the other.
    let arrangement: TileArrangement?
    /// The patches of each tile, where tiles have other proportions than the tower's square; empty for others.
    let grids: [PatchGrid]
    /// The rows of features that the patches of one input become, where a decoder knows their rows and columns; `nil` for others.
    let featureGrid: PatchGrid?
    /// `[tiles, 3, S, S]` normalized values, or rows of patches, tile after tile.
    let pixels: @Sendable () throws -> [Float]

    init(
        key: ContentKey, tiles: Int = 1, layout: [Int] = [Engine.imageToken], rows: Int? = nil, markRows: [Int] = [], arrangement: TileArrangement? = nil,
        grids: [PatchGrid] = [], featureGrid: PatchGrid? = nil, pixels: @escaping @Sendable () throws -> [Float]
    ) {
        (self.key, self.tiles, self.layout, self.rows, self.arrangement, self.pixels) = (key, tiles, layout, rows, arrangement, pixels)
        (self.markRows, self.grids, self.featureGrid) = (markRows, grids, featureGrid)
    }

    /// An image given as the tower's input.
    init(pixels: [Float]) {
        self.init(key: ContentKey(pixels: pixels, context: ContentKey("pixels"))) { pixels }
    }

    /// Number of places for its features in the layout.
    var marks: Int { layout.count { $0 == Engine.imageToken } }

    /// The rows of features that one mark of the layout stands for.
    /// - Parameter rows: of features, in all.
    func rows(ofMark index: Int, of rows: Int) -> Range<Int> {
        guard markRows.indices.contains(index) else { return rows * index / marks ..< rows * (index + 1) / marks }
        let first = markRows[..<index].reduce(0, +)
        return first ..< first + markRows[index]
    }

    /// The layout with a token for each row of features.
    func expanded(_ rows: Int, token mark: Int) -> [Int] {
        var index = -1
        return layout.flatMap { token -> [Int] in
            guard token == Engine.imageToken else { return [token] }
            index += 1
            return Array(repeating: mark, count: self.rows(ofMark: index, of: rows).count)
        }
    }

    /// Positions of a prompt that it takes.
    /// - Parameter leastRows: of one input of the tower.
    func positions(leastRows: Int) -> Int { layout.count - marks + (rows ?? leastRows) }
}

/// One request in the engine's terms.
struct EngineRequest: Sendable {
    /// Prompt ids, with ``Engine/imageToken`` for each image.
    var tokens: [Int]
    /// In order of use.
    var images: [EngineImage]
    var budget: Budget
    var maxTokens: Int
    var sampling = SamplingOptions()
    /// Tokens that end the answer.
    var endTokens: Set<Int> = []
    /// Tokens of the answer before which none of ``endTokens`` is chosen.
    var minTokens = 0
    /// Plan that replaces the scheduler's.
    var plan: ExecutionPlan?
    /// Whether cached results of earlier requests with the same images and prompts are used, and results of this one are cached. Measurements compute
    /// everything themselves.
    var reuses = true
    /// Whether the prompt is cached for other requests as soon as it has been read, instead of when the answer has ended.
    var keepsPromptEarly = false
    /// Number of likeliest alternatives reported for each token; `nil` reports no probabilities.
    var logProbabilities: Int?
    /// Makes the filter of the tokens that may come next.
    var filter: (@Sendable () -> any TokenFilter)?
    /// Whether tokens are drafted and verified several in a step.
    var speculation = Speculation.off
    /// Called with the prefix layers' output, before the layers after them run.
    var onStates: (@Sendable (PrefixStates) -> Void)?
    /// Requests with lower ones are read first.
    var priority = 0
    /// Called with the predicted times whenever they become more certain.
    var onPrediction: (@Sendable (PhaseTimes) -> Void)?
    /// When the caller asked; `nil`: when the request is begun.
    var called: ContinuousClock.Instant?
    /// Treatment of this request's time budget.
    var deadlines = DeadlineOptions()
    /// The kind of the question, for the expected length of its answer.
    var kind = ""
}

/// Output of the prefix layers for two rows of a request: hidden states without a norm.
package struct PrefixStates: Sendable, Equatable {
    /// The last prompt row's, input of the budget head. It does not depend on the budget.
    package let prompt: [Float]
    /// The latency token's, input of the scheduler.
    package let latency: [Float]

    package init(prompt: [Float], latency: [Float]) { (self.prompt, self.latency) = (prompt, latency) }
}

/// Treatment of answers with time budgets.
public struct DeadlineOptions: Sendable, Equatable {
    /// Whether a request is refused whose limits not even the smallest plan keeps, before anything is computed.
    public var isStrict = false
    /// Whether an answer ends at its deadline, or at the end of a sentence shortly before it.
    public var cutsAnswers = false
    /// Fraction of the deadlines that the safety margin is chosen to keep, in (0.5, 1).
    public var confidence = 0.97
    /// For experiments: whether switches may be turned off while an answer is under way, and whether the machine's load is taken into account.
    package var changesPlans = true, followsLoad = true

    /// The defaults: the fastest answer if a limit cannot be kept, without cutting it.
    public init() {}
}

/// How long each phase of an answer took, or is predicted to take.
public struct PhaseTimes: Sendable, Equatable {
    /// Vision tower, token selection and projector, all images.
    public var encode: Duration = .zero
    /// The prompt through the decoder, plan included.
    public var prefill: Duration = .zero
    /// All tokens after the first forward pass.
    public var decode: Duration = .zero
    /// From the call to the first token (TTFT), waiting for other requests included.
    public var timeToFirstToken: Duration = .zero
    /// From the call to the last token.
    public var whole: Duration = .zero
}

/// Why an answer ended.
public enum FinishReason: String, Sendable {
    /// The model ended the answer with its own token.
    case endOfAnswer = "stop"
    /// One of ``GenerationOptions/stop``, or of the chat template's stop strings.
    case stopText = "stop_text"
    /// ``GenerationOptions/maxTokens`` was reached.
    case maxTokens = "length"
    /// The model's context is full.
    case contextFull = "context"
    /// The time was over, and the caller wanted the answer cut.
    case deadline
}

/// A plan that was made smaller while an answer was under way.
package struct PlanChange: Sendable, Equatable {
    /// Tokens that had been given.
    package let tokens: Int
    /// Optional units before and after.
    package let from: Int, to: Int
}

/// Prediction for an answer, and the machine's load during it.
package struct AnswerPrediction: Sendable, Equatable {
    /// Predicted times; of the decode, for ``tokens`` tokens.
    package var times = PhaseTimes()
    /// Predicted time of each token after the first.
    package var perToken = Duration.zero
    /// Tokens that the answer was expected to have: nine of ten of its kind have been no longer.
    package var tokens = 0
    /// Measured over predicted time of the newest layers and tokens when the plan was chosen: 1 on an idle machine.
    package var load = 1.0
    /// Reductions of the plan during the answer.
    package var changes: [PlanChange] = []
    /// Whether a limit was expected to be missed when the plan was chosen.
    package var isLate = false
    /// Whether the times come from measurements of this machine; guesses before the first answer.
    package var isFitted = false

    mutating func set(encode: Duration, prefill: Duration, decode: Duration, waited: Duration) {
        (times.encode, times.prefill, times.decode) = (encode, prefill, decode)
        times.timeToFirstToken = waited + encode + prefill
        times.whole = times.timeToFirstToken + decode
    }
}

/// The engine's result for one request.
struct EngineResult {
    struct Adaptive {
        let units: Int
        /// Position of the latency token.
        let insertPosition: Int
        let floor: Double
    }

    var tokens: [Int] = []
    var promptTokens = 0
    /// Those of the prompt's positions that hold features of images.
    var imageTokens = 0
    /// Those of them that the layers after the drop have; `nil` where the decoder drops none.
    var keptImageTokens: Int?
    /// Positions of the first pass.
    var lengthWithLatencyToken = 0
    var adaptive: Adaptive?
    /// Units that the budget granted, where requests that needed time too left fewer; `nil` where they did not.
    var shrunkFrom: Int?
    var plan: ExecutionPlan
    var measured = PhaseTimes()
    var finish = FinishReason.maxTokens
    var keyValueBytes = 0
    var keyValueType = KeyValueType.f16
    /// Positions of the prompt whose prefix layers, and whose later layers, were not computed again.
    var cachedPrefix = 0, cachedRest = 0
    /// Images that were encoded for this request.
    var encodedImages = 0
    /// Inputs of the tower that they were.
    var encodedTiles = 0
    /// `[1, kept heads, positions, head size]` per layer after the last token; `nil` for a dropped layer.
    var keyValueShapes: [[Int]?] = []
    /// `nil` where nothing was predicted: fractions of compute before this model was measured.
    var prediction: AnswerPrediction?
    /// `nil` without speculation.
    var speculation: SpeculationCounts?

    init(plan: ExecutionPlan) { self.plan = plan }
}

/// How far a request is.
public enum GenerationProgress: Sendable {
    /// The vision tower: layers done of this image's.
    case encoding(image: Int, of: Int, layer: Int, layers: Int)
    /// Token selection of one image: kept patches done of all.
    case selecting(image: Int, of: Int, done: Int, total: Int)
    /// The prompt: positions times layers done, of all that this prompt takes.
    case reading(done: Int, total: Int)
    /// The answer: tokens so far, the newest included, of at most so many.
    case answering(done: Int, atMost: Int)
}

/// A request that cannot be answered.
package enum GenerationError: AdaLLaVAError, Equatable {
    /// A prompt without tokens.
    case emptyPrompt
    /// A token id outside the vocabulary.
    case token(Int, position: Int, vocabulary: Int)
    /// The number of image placeholders in the prompt differs from the number of images.
    case imageCount(marks: Int, images: Int)
    /// A prompt that leaves no position for an answer in the model's context.
    case promptTooLong(positions: Int, limit: Int)
    /// An image for a model without a vision tower.
    case noVision(model: String)
    /// An image that was prepared for another model.
    case otherPreparation(model: String)
    /// Text for a model without a tokenizer.
    case noTokenizer(model: String)
    /// A time budget for an engine that does not store measured times.
    case noTimes(model: String)
    /// A given plan that does not fit the model.
    case plan(reason: String)
    /// Values that are not finite: damaged weights, or an overflow.
    case notFinite(what: String, model: String)

    package var category: ErrorCategory {
        if case .notFinite = self { .badData } else { .usage }
    }

    package var description: String {
        switch self {
        case .emptyPrompt: "the prompt is empty; expected at least one token"
        case .token(let token, let position, let vocabulary):
            "token \(token) at position \(position) of the prompt: expected 0 to \(vocabulary - 1), or \(Engine.imageToken) for an image"
        case .imageCount(let marks, let images):
            "the prompt has \(marks) image mark\(marks == 1 ? "" : "s") (\(Engine.imageToken)) but \(images) image\(images == 1 ? " was" : "s were") given"
        case .promptTooLong(let positions, let limit):
            "the prompt takes \(positions) positions, but the model's context holds \(limit) and the answer needs at least one; shorten the prompt or use fewer images"
        case .noVision(let model): "\(model) has no vision tower; ask without an image"
        case .otherPreparation(let model): "an image was prepared for another model than \(model); expected this model's ImagePreparation"
        case .notFinite(let what, let model):
            "\(model): \(what) are not numbers; its weights are damaged, or overflow in this precision (--precision f32 computes in float32)"
        case .plan(let reason): "the given plan: \(reason)"
        case .noTimes(let model): "\(model): times are not measured for engines without a place to keep them"
        case .noTokenizer(let model): "\(model) has no tokenizer (tokenizer.model or tokenizer.json); give the prompt as token ids"
        }
    }
}
