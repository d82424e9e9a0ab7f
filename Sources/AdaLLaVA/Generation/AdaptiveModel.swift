import Foundation

/// A vision-language model that answers within a budget (AdaLLaVA, Xu et al., ICCV 2025), or any LLaVA-1.5 or LLaMA model run whole.
///
///     let model = try await AdaptiveModel(contentsOf: url)
///     print(try await model.answer("What is on the left?", image: image, budget: .fraction(0.7)).whole().text)
///
/// A model answers several requests at once: their rows share one read of the weights per step. Cancelling the task that reads an answer stops a
/// decode within one token, and encode and prefill within one layer.
public final class AdaptiveModel: Sendable {
    /// How a model is loaded.
    public struct Options: Sendable {
        /// Threads to compute with; `nil` takes one for each processor.
        public var threads: Int?
        /// Arithmetic of the computation.
        public var precision = Precision.automatic
        /// How the decoder stores keys and values.
        public var keyValueType = KeyValueType.f16
        /// Memory that holds Q8_0, Q4_0 and Q4_1 weights.
        public var placement = WeightPlacement.automatic
        /// The projector file (`mmproj`) of a LLaVA GGUF pair; `nil` looks beside the model.
        public var projector: URL?
        /// The folder of the tower that `mm_vision_tower` names; `nil` looks beside the checkpoint and in the Hugging Face cache.
        public var visionTower: URL?
        /// Which image tokens are left out; by default as the checkpoint says.
        public var selection = TokenSelection()
        /// The chat template; `nil` takes the checkpoint's.
        public var template: ChatTemplateChoice?
        /// The most requests that are computed at once; others wait.
        public var concurrentRequests = 32
        /// The most bytes that keys and values take together; `nil`: nine tenths of the memory that the machine has free when the model is loaded.
        public var keyValueLimit: Int?
        /// The most bytes that are kept of earlier prompts, so that a later request with the same beginning reads less; `nil`: a quarter of the free
        /// memory, 4 GiB at most.
        public var promptCacheLimit: Int?
        /// Whether tokens are drafted and verified several in a step, for requests that do not say it themselves.
        public var speculation = Speculation.off
        /// Where measurements of the model's times on this machine are kept; `nil`: `adallava/timings` in the user's cache folder.
        public var timingFolder: URL?

        /// Everything as the checkpoint and the machine suggest.
        public init() {}
    }

    let loaded: LoadedModel
    package let requests: AnswerQueue
    let kernelSet: KernelSet
    /// Threads, the caller's included.
    public let threads: Int
    private let speculation: Speculation

    /// Loads a checkpoint folder, a `.safetensors`, `.bin` or `.gguf` file.
    /// - Parameters:
    ///   - url: the folder or file.
    ///   - options: threads, precision and limits of the model.
    ///   - onProgress: called after each layer, on the loading thread.
    /// - Throws: an ``AdaLLaVAError``; `CancellationError` within one layer.
    public convenience init(
        contentsOf url: URL, options: Options = Options(), onProgress: @escaping @Sendable (LoadProgress) -> Void = { _ in }
    ) async throws {
        let checkpoint = try await DispatchQueue(label: "adallava.open", qos: .userInitiated).run {
            try Checkpoint.open(at: url, projector: options.projector, visionTower: options.visionTower)
        }
        try await self.init(checkpoint, options: options, onProgress: onProgress)
    }

    /// Loads a checkpoint that is open; projector and vision tower of `options` were given when it was opened.
    /// - Parameters:
    ///   - checkpoint: from ``Checkpoint/open(at:projector:visionTower:)``.
    ///   - options: threads, precision and limits of the model.
    ///   - onProgress: called after each layer, on the loading thread.
    /// - Throws: ``CheckpointError``, ``ComputeError``; `CancellationError` within one layer.
    package init(
        _ checkpoint: Checkpoint, options: Options = Options(), onProgress: @escaping @Sendable (LoadProgress) -> Void = { _ in }
    ) async throws {
        let checkpoint = try checkpoint.selecting(options.selection)
        let queue = DispatchQueue(label: "adallava.model", qos: .userInitiated)
        let cancellation = Cancellation()
        let made = try await withTaskCancellationHandler {
            try await queue.run {
                let workspace = try Workspace(threads: options.threads, precision: options.precision)
                let loaded = try LoadedModel(
                    checkpoint, packer: WeightPacker(kernels: workspace.kernels, pool: workspace.pool, placement: options.placement),
                    template: options.template, cancellation: cancellation, onProgress: onProgress)
                var memory = MemoryLimits()
                memory.keyValueType = options.keyValueType
                if let limit = options.keyValueLimit { memory.keyValueBytes = max(limit, 0) }
                if let limit = options.promptCacheLimit { memory.promptCacheBytes = max(limit, 0) }
                let engine = Engine(loaded.parts, workspace: workspace, memory: memory, timings: loaded.timings(workspace, options.keyValueType, in: options.timingFolder))
                let requests = AnswerQueue(engine, queue: queue, limit: options.concurrentRequests)
                return (loaded, requests, workspace.kernels, workspace.pool.threads)
            }
        } onCancel: {
            cancellation.cancel()
        }
        (loaded, requests, kernelSet, threads) = made
        speculation = options.speculation
    }

    /// The name of the kernels in use: `portable`, `avx2`, `avx512`, `amx`, `neon`.
    public var kernels: String { kernelSet.name }

    // MARK: - Properties

    /// The checkpoint's name.
    public var name: String { loaded.parts.name }

    /// Positions that prompt and answer may take together.
    public var contextLength: Int { loaded.parts.decoder.configuration.contextLength }

    /// Layers of the decoder, and the attention heads and MLP groups that each can leave out.
    public var planShape: (layers: Int, switches: Int) { (loaded.parts.space.layers.count, loaded.parts.space.switchesPerLayer) }

    /// Text of each token as bytes, none for control tokens; and the tokens that end an answer.
    /// - Throws: ``GenerationError/noTokenizer(model:)``
    package func tokenTable() throws -> (bytes: [[UInt8]], endTokens: Set<Int>) {
        guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.parts.name) }
        let count = loaded.parts.decoder.configuration.vocabularySize
        return ((0 ..< count).map { text.tokenizer.isSpecial($0) ? [] : text.tokenizer.bytes(of: $0) }, text.endTokens)
    }

    /// Load of the model.
    package var load: ModelLoad { requests.load }

    /// Predicts requests that are not admitted yet; `nil` where nothing is predicted.
    package var outlook: WorkOutlook? { requests.outlook }

    /// Lets budgets shrink when requests, those of the backlog included, need more time together than they have.
    /// - Parameter patience: the time in which requests without limits are to be answered; `nil`: budgets never shrink for others.
    package func balance(patience: Duration?, backlog: @escaping @Sendable () -> [QueuedWork]) async throws {
        try await requests.setBacklog(patience.map { LoadBalance(patience: $0) }, backlog)
    }

    /// A waiting request: the facts from which its time is predicted.
    package func queued(tokens: [Int], images: Int, budget: Budget, maxTokens: Int, question: String) -> QueuedWork {
        let rows = loaded.preparation.map(\.tokens) ?? 1
        var work = QueuedWork(
            positions: tokens.count + images * (rows - 1), images: images, maxTokens: min(maxTokens, contextLength),
            kind: AnswerLengths.kind(of: question, images: images))
        if case .fraction(let fraction) = budget { work.fraction = fraction }
        return work
    }

    /// Whether the model has a scheduler, so that budgets below 1 mean something.
    public var isAdaptive: Bool { loaded.parts.adaptive != nil }

    /// The smallest budget that still changes anything: the prefix layers' share. `nil` if the model is not adaptive.
    public var budgetFloor: Double? { loaded.parts.adaptive?.units.floor }

    /// The smallest fraction of compute that grants so many optional units; `nil` if the model is not adaptive.
    package func fraction(buying units: Int) -> Double? { loaded.parts.adaptive?.units.fraction(buying: units) }

    /// Predicts how many units an input needs; `nil` for a model that cannot take a budget of `auto`.
    package var budgetHead: BudgetHead? { loaded.parts.adaptive?.budgetHead }

    /// Units of the whole model and of its prefix; `nil` if the model is not adaptive.
    package var budgetUnits: BudgetUnits? { loaded.parts.adaptive?.units }

    /// Whether it takes images.
    public var hasVision: Bool { loaded.parts.vision != nil }

    /// Whether images are cut to their middle square, instead of being squared with margins.
    package var cropsImages: Bool { loaded.checkpoint.configuration.llava?.imageAspectRatio == .crop }

    /// Features of an image before those of its patches: the class token's, if it is kept. `nil` where token selection or
    /// tiles leave no grid of patches, or without a vision tower.
    package var featuresBeforePatches: Int? {
        guard let llava = loaded.checkpoint.configuration.llava, llava.tokenSelection == .none, llava.tiling == .none else { return nil }
        return llava.selectFeature == .classAndPatches ? 1 : 0
    }

    /// Resizes and normalizes an image for this model's vision tower; the result takes a few hundred kilobytes.
    /// - Throws: an ``AdaLLaVAError`` for text models.
    public func prepare(_ image: RGBImage) throws -> PreparedImage { try imagePreparation(image) }

    /// The image processing before this model's tower.
    /// - Throws: ``GenerationError/noVision(model:)`` for text models.
    package var imagePreparation: ImagePreparation { get throws { try loaded.requirePreparation() } }

    /// Positions of a prompt that a picture takes; at least, where tokens are selected.
    /// - Throws: ``GenerationError``
    package func positions(of image: PreparedImage) throws -> Int { try loaded.image(image).positions(leastRows: loaded.parts.vision?.leastRows ?? 0) }

    /// Checks a budget without running anything.
    /// - Throws: ``BudgetError``
    public func check(_ budget: Budget) throws {
        _ = try loaded.parts.grantedUnits(budget)
    }

    // MARK: - Answers

    /// Answers one question about some images, streaming the text.
    /// - Throws: (through the stream) ``BudgetError``, another ``AdaLLaVAError``, `CancellationError`.
    public func answer(
        _ question: String, images: [RGBImage] = [], budget: Budget = .full, options: GenerationOptions = GenerationOptions()
    ) -> AnswerStream {
        respond(
            to: [ChatMessage.question(question, images: images.count)], images: images, budget: budget, options: options)
    }

    /// Answers one question about one image, streaming the text.
    public func answer(
        _ question: String, image: RGBImage, budget: Budget = .full, options: GenerationOptions = GenerationOptions()
    ) -> AnswerStream {
        answer(question, images: [image], budget: budget, options: options)
    }

    /// Answers the last turn of a conversation.
    /// - Parameters:
    ///   - conversation: turns in order, the last one the user's; a turn's images are taken from `images` in order.
    ///   - images: the images of all turns.
    ///   - budget: a fraction of compute, times, or `auto`.
    ///   - options: sampling, length and stops.
    public func respond(
        to conversation: [ChatMessage], images: [RGBImage], budget: Budget = .full, options: GenerationOptions = GenerationOptions()
    ) -> AnswerStream {
        stream(budget, options, question: conversation.last, images: { try images.map($0.image) }) {
            try $0.prompt(conversation, system: options.system)
        }
    }

    /// The same with images from ``prepare(_:)``, which take little memory while they wait.
    public func respond(
        to conversation: [ChatMessage], prepared images: [PreparedImage], budget: Budget = .full, options: GenerationOptions = GenerationOptions()
    ) -> AnswerStream {
        stream(budget, options, question: conversation.last, images: { try images.map($0.image) }) {
            try $0.prompt(conversation, system: options.system)
        }
    }

    /// Continues a prompt given as token ids, with -200 for each image. No chat template is applied, and the answer ends at the vocabulary's end tokens.
    public func complete(
        _ prompt: [Int], images: [RGBImage] = [], budget: Budget = .full, options: GenerationOptions = GenerationOptions()
    ) -> AnswerStream {
        stream(budget, options, question: nil, images: { try images.map($0.image) }) { _ in prompt }
    }

    /// The same with prepared images.
    package func complete(
        _ prompt: [Int], prepared images: [PreparedImage], budget: Budget = .full, options: GenerationOptions = GenerationOptions()
    ) -> AnswerStream {
        stream(budget, options, question: nil, images: { try images.map($0.image) }) { _ in prompt }
    }

    /// - Parameter question: the turn that is answered; `nil` for a prompt that no template wrote.
    private func stream(
        _ budget: Budget, _ options: GenerationOptions, question: ChatMessage?, images: (LoadedModel) throws -> [EngineImage],
        prompt: (TextProcessor) throws -> [Int]
    ) -> AnswerStream {
        let called = ContinuousClock.now
        let cancellation = Cancellation()
        let (events, continuation) = AsyncThrowingStream<AnswerEvent, any Error>.makeStream()
        let requests = requests
        continuation.onTermination = { reason in
            guard case .cancelled = reason else { return }
            cancellation.cancel()
            requests.dropCancelled()
        }
        do {
            try check(budget)
            try options.validate()
            guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.parts.name) }
            var request = EngineRequest(tokens: try prompt(text), images: try images(loaded), budget: budget, maxTokens: options.maxTokens)
            request.sampling = options.sampling
            (request.endTokens, request.minTokens) = (text.endTokens, options.minTokens)
            request.plan = options.plan
            (request.reuses, request.keepsPromptEarly) = (options.reusesEarlierWork, options.keepsPromptEarly)
            (request.called, request.deadlines) = (called, options.deadlines)
            request.speculation = options.speculation ?? speculation
            (request.logProbabilities, request.filter) = (options.logProbabilities, options.filter)
            request.onStates = options.onStates
            let words = question?.parts.map { if case .text(let text) = $0 { text } else { "" } }.joined(separator: " ")
            request.kind = AnswerLengths.kind(of: words ?? "", images: request.images.count)
            let stop = options.stop + (question == nil ? [] : text.stopTexts)
            (request.priority, request.onPrediction) = (options.priority, options.onPrediction)
            requests.submit(
                cancellation, positions: loaded.parts.leastPositions(request) + 1 + min(options.maxTokens, contextLength),
                make: { [request] in Self.task(request, text, options, stop, budget, cancellation, continuation) },
                drop: { continuation.finish(throwing: $0) })
        } catch {
            continuation.finish(throwing: error)
        }
        return AnswerStream(events)
    }

    /// The task of one answer, which yields its events.
    private static func task(
        _ request: EngineRequest, _ text: TextProcessor, _ options: GenerationOptions, _ stop: [String], _ budget: Budget,
        _ cancellation: Cancellation, _ continuation: AsyncThrowingStream<AnswerEvent, any Error>.Continuation
    ) -> GenerationTask {
        var output = AnswerText(text, stop: stop), joined = JoinedText()
        var last: Character = " ", isFresh = false
        // Of tokens whose text has not been sent.
        var probabilities: [TokenLogProbability] = []
        func yield(_ text: String, isLast: Bool = false) {
            if text.isEmpty, !isLast { return }
            if !probabilities.isEmpty { continuation.yield(.logProbabilities(probabilities)) }
            if !text.isEmpty { continuation.yield(.text(text)) }
            probabilities = []
        }
        return GenerationTask(
            request, cancellation: cancellation, onProgress: options.onProgress,
            onToken: { token in
                let added = output.append(token, isEnd: request.endTokens.contains(token))
                isFresh = !added.isEmpty
                last = added.last ?? last
                yield(joined.add(added, at: .now))
                return !output.isStopped
            },
            onEnd: { outcome in
                switch outcome {
                case .success(let result):
                    yield(joined.rest() + output.finish(), isLast: true)
                    continuation.yield(.finished(AnswerSummary(result, budget: budget)))
                    continuation.finish()
                case .failure(let error):
                    yield(joined.rest())
                    continuation.finish(throwing: error)
                }
            }, endsSentence: { isFresh && ".!?\n。！？".contains(last) },
            onProbabilities: { chosen, likeliest in
                if request.endTokens.contains(chosen.token) { return }
                func candidate(_ item: TokenProbability) -> TokenLogProbability.Candidate {
                    .init(token: item.token, bytes: text.tokenizer.bytes(of: item.token), logProbability: item.logProbability)
                }
                probabilities.append(TokenLogProbability(chosen: candidate(chosen), likeliest: likeliest.map(candidate)))
            })
    }

    // MARK: - Trace

    /// The text of token ids; ids outside the vocabulary are left out.
    /// - Throws: an ``AdaLLaVAError`` for a model without a tokenizer.
    public func detokenize(_ tokens: [Int]) throws -> String {
        guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.parts.name) }
        return text.decode(tokens)
    }

    /// The ids of a whole prompt given as text, `<image>` becoming -200, as LLaVA's `tokenizer_image_token` makes them.
    public func tokenize(prompt: String) throws -> [Int] {
        guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.parts.name) }
        return text.tokenize(prompt: prompt)
    }

    /// The ids of a conversation in the model's chat template, with -200 for each image: the prompt of ``respond(to:images:budget:options:)``.
    /// - Parameters:
    ///   - conversation: turns in order, the last one the user's.
    ///   - system: the system prompt, instead of the template's.
    public func tokenize(_ conversation: [ChatMessage], system: String? = nil) throws -> [Int] {
        guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.parts.name) }
        return try text.prompt(conversation, system: system)
    }

    /// The plan that the scheduler makes of some logits: with random ones, a random plan of the budget's size.
    /// - Parameters:
    ///   - switchLogits: one for each switch that the scheduler decides, ``switchCount``.
    ///   - units: optional units granted, as ``AnswerSummary/units`` says them.
    package func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan {
        guard let adaptive = loaded.parts.adaptive else { throw GenerationError.plan(reason: "\(loaded.parts.name) is not adaptive, so everything runs") }
        guard switchLogits.count == switchCount, switchLogits.allSatisfy(\.isFinite) else {
            throw GenerationError.plan(reason: "expected \(switchCount) finite logits, found \(switchLogits.count)")
        }
        guard (0 ... adaptive.units.total - adaptive.units.prefix).contains(units) else {
            throw GenerationError.plan(reason: "expected 0 to \(adaptive.units.total - adaptive.units.prefix) units, found \(units)")
        }
        return adaptive.scheduler.plan(switchLogits, units: units)
    }

    /// Switches that the scheduler decides: optional layers (L), or their heads and neuron groups (H); 0 if the model is not adaptive.
    package var switchCount: Int {
        guard let adaptive = loaded.parts.adaptive else { return 0 }
        let space = loaded.parts.space
        let optional = space.layers.count - adaptive.scheduler.configuration.numPrefixLayers
        return adaptive.scheduler.configuration.schedulerType == .layers ? optional : optional * 2 * space.switchesPerLayer
    }

    /// Layers that always run; 0 if the model is not adaptive.
    package var prefixLayers: Int { loaded.parts.adaptive?.scheduler.configuration.numPrefixLayers ?? 0 }

    /// Runs one greedy request and keeps its intermediates.
    /// - Parameter tokens: the whole prompt's ids, with -200 for each image, or, for llava-hf's checkpoints, their own image token, once
    ///   or as often as an image has features.
    package func trace(
        tokens: [Int], images: [RGBImage], budget: Budget, maxTokens: Int, includesLayers: Bool = false, includesAttention: Bool = false,
        onProgress: @escaping @Sendable (GenerationProgress) -> Void = { _ in }
    ) async throws -> TraceResult {
        try await trace(
            tokens, try images.map(loaded.image), budget, maxTokens, includesLayers: includesLayers, includesAttention: includesAttention, onProgress)
    }

    /// The same with pictures that ``imagePreparation`` brought to the tower's size.
    package func trace(
        tokens: [Int], prepared images: [PreparedImage], budget: Budget, maxTokens: Int, includesLayers: Bool = false,
        includesAttention: Bool = false, onProgress: @escaping @Sendable (GenerationProgress) -> Void = { _ in }
    ) async throws -> TraceResult {
        try await trace(
            tokens, try images.map(loaded.image), budget, maxTokens, includesLayers: includesLayers, includesAttention: includesAttention, onProgress)
    }

    private func trace(
        _ tokens: [Int], _ images: [EngineImage], _ budget: Budget, _ maxTokens: Int, includesLayers: Bool, includesAttention: Bool,
        _ onProgress: @escaping @Sendable (GenerationProgress) -> Void
    ) async throws -> TraceResult {
        try check(budget)
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await requests.exclusively { [self] engine in
                let trace = Trace(includesLayers: includesLayers, includesAttention: includesAttention)
                let prompt = loaded.withImageMarks(tokens, images)
                var request = EngineRequest(tokens: prompt, images: images, budget: budget, maxTokens: maxTokens)
                request.endTokens = loaded.text?.endTokens ?? Set(loaded.checkpoint.generation.eosTokenIDs)
                let result = try engine.generate(request, cancellation: cancellation, trace: trace, onProgress: onProgress) { _ in true }
                let text = loaded.text?.decode(result.tokens)
                return TraceResult(entries: trace.entries, text: text, summary: AnswerSummary(result, budget: budget), result: result)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }

    // MARK: - Measuring

    /// Measures how long layers and tokens take on this machine, as time budgets need it; kept in the user's cache folder for the next process. Without a
    /// call it happens after the first answer with a time budget.
    /// - Parameters:
    ///   - limit: the most time that this takes, but for one round that is always made.
    ///   - onProgress: called with the requests that were measured and all of them.
    /// - Throws: an ``AdaLLaVAError``, or `CancellationError`.
    public func calibrate(limit: Duration = .seconds(8), onProgress: @escaping @Sendable (Int, Int) -> Void = { _, _ in }) async throws {
        _ = try await calibrationReport(limit: limit, onProgress: onProgress)
    }

    /// Calibrates, and returns the measured and fitted times.
    package func calibrationReport(
        limit: Duration = .seconds(8), onProgress: @escaping @Sendable (Int, Int) -> Void = { _, _ in }
    ) async throws -> CalibrationReport {
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await requests.exclusively { try $0.calibrate(limit: limit, cancellation: cancellation, onProgress: onProgress) }
        } onCancel: {
            cancellation.cancel()
        }
    }

    /// Encodes an empty image and answers a made-up prompt with one token, so that weights and scratch memory are in place: the first answer of a process
    /// is otherwise a few milliseconds later than others, which time budgets cannot know.
    /// - Throws: an ``AdaLLaVAError``, `CancellationError`
    public func warmUp() async throws {
        let cancellation = Cancellation()
        try await withTaskCancellationHandler {
            try await requests.exclusively { try $0.warmUp(cancellation) }
        } onCancel: {
            cancellation.cancel()
        }
    }

    /// Resets the learned load and errors of predictions, so that all modes of an experiment begin alike.
    package func forgetErrors() async throws {
        try await requests.exclusively { engine in
            engine.planner?.load = LoadFactor()
            engine.planner?.wholeMargin = DeadlineMargin()
            engine.planner?.firstTokenMargin = DeadlineMargin()
        }
    }

    /// Whether times are predicted from guesses, because this model was not measured on this machine yet.
    public var wantsCalibration: Bool {
        get async { (try? await requests.exclusively { $0.wantsCalibration }) ?? false }
    }

    /// Runs one greedy request given as token ids, which no token ends early, and returns its summary.
    /// - Parameters:
    ///   - tokens: the whole prompt's ids, with -200 for each image.
    ///   - images: encoded anew each time, also if the last request had the same.
    /// - Throws: ``BudgetError``, ``GenerationError``, `CancellationError`.
    package func measure(
        tokens: [Int], images: [RGBImage] = [], budget: Budget, maxTokens: Int, deadlines: DeadlineOptions = DeadlineOptions()
    ) async throws -> AnswerSummary {
        let called = ContinuousClock.now
        try check(budget)
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await requests.exclusively { [self] engine in
                var request = EngineRequest(tokens: tokens, images: try images.map(loaded.image), budget: budget, maxTokens: maxTokens)
                request.reuses = false
                // Made-up prompts of one length are answered at one length.
                (request.called, request.deadlines, request.kind) = (called, deadlines, "made up \(maxTokens)")
                return AnswerSummary(try engine.generate(request, cancellation: cancellation) { _ in true }, budget: budget)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }
}
