/// An image of a request: what names its content, and what makes the tower's input when that content is not known yet.
struct EngineImage: Sendable {
    let key: ContentKey
    /// `[3, S, S]` normalized values.
    let pixels: @Sendable () throws -> [Float]

    init(key: ContentKey, pixels: @escaping @Sendable () throws -> [Float]) { (self.key, self.pixels) = (key, pixels) }

    /// An image given as the tower's input.
    init(pixels: [Float]) {
        key = ContentKey(pixels: pixels, context: ContentKey("pixels"))
        self.pixels = { pixels }
    }
}

/// One request in the engine's terms.
struct EngineRequest: Sendable {
    /// Prompt ids; ``Engine/imageToken`` stands where an image goes.
    var tokens: [Int]
    /// In order of use.
    var images: [EngineImage]
    var budget: Budget
    var maxTokens: Int
    var sampling = SamplingOptions()
    /// Tokens that end the answer.
    var endTokens: Set<Int> = []
    /// What runs, instead of what the scheduler picks.
    var plan: ExecutionPlan?
    /// Whether what earlier requests computed of the same images and prompts is used, and what this one computes is kept. Measurements compute
    /// everything themselves.
    var reuses = true
}

/// How long each phase of an answer took.
public struct MeasuredTimes: Sendable, Equatable {
    /// Vision tower, token selection and projector, all images.
    public var encode: Duration = .zero
    /// The prompt through the decoder, plan included.
    public var prefill: Duration = .zero
    /// All tokens after the first forward pass.
    public var decode: Duration = .zero
    /// From the start of encode to the first token.
    public var timeToFirstToken: Duration = .zero
}

/// Why an answer ended.
public enum FinishReason: String, Sendable {
    case endOfAnswer = "stop"
    case stopText = "stop_text"
    case maxTokens = "length"
    case contextFull = "context"
}

/// What the engine did for one request.
struct EngineResult {
    struct Adaptive {
        let units: Int
        /// Position of the latency token.
        let insertPosition: Int
        let floor: Double
    }

    var tokens: [Int] = []
    var promptTokens = 0
    /// Positions of the first pass.
    var lengthWithLatencyToken = 0
    var adaptive: Adaptive?
    var plan: ExecutionPlan
    var measured = MeasuredTimes()
    var finish = FinishReason.maxTokens
    var keyValueBytes = 0
    /// Positions of the prompt whose prefix layers, and whose later layers, were not computed again.
    var cachedPrefix = 0, cachedRest = 0
    /// Images that were encoded for this request.
    var encodedImages = 0
    /// `[1, kept heads, positions, head size]` per layer after the last token; `nil` for a dropped layer.
    var keyValueShapes: [[Int]?] = []

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
public enum GenerationError: EngineError, Equatable {
    case emptyPrompt
    case token(Int, position: Int, vocabulary: Int)
    case imageCount(marks: Int, images: Int)
    case promptTooLong(positions: Int, limit: Int)
    case noVision(model: String)
    case otherPreparation(model: String)
    case noTokenizer(model: String)
    case plan(reason: String)
    case notFinite(what: String, model: String)

    public var category: ErrorCategory {
        if case .notFinite = self { .badData } else { .usage }
    }

    public var description: String {
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
        case .noTokenizer(let model): "\(model) has no tokenizer (tokenizer.model or tokenizer.json); give the prompt as token ids"
        }
    }
}
