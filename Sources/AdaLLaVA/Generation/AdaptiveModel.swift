import Foundation

/// A vision-language model that answers within a budget (AdaLLaVA, Xu et al., ICCV 2025), or any LLaVA-1.5 or LLaMA model run whole.
///
///     let model = try await AdaptiveModel(contentsOf: url)
///     for try await piece in model.answer("What is on the left?", images: [image], budget: .fraction(0.7)) { print(piece.text) }
///
/// A model answers one request at a time; requests made meanwhile wait their turn. Cancelling the task that reads an answer stops a
/// decode within one token, and encode and prefill within one layer.
public final class AdaptiveModel: Sendable {
    /// How a model is loaded.
    public struct Options: Sendable {
        /// Threads to compute with; `nil` takes one for each processor.
        public var threads: Int?
        /// In what arithmetic to compute.
        public var precision = Precision.automatic
        /// Where Q8_0, Q4_0 and Q4_1 weights lie.
        public var placement = WeightPlacement.automatic
        /// The projector file (`mmproj`) of a LLaVA GGUF pair; `nil` looks beside the model.
        public var projector: URL?
        /// The chat template's name; `nil` chooses from the checkpoint.
        public var template: String?

        /// Everything as the checkpoint and the machine suggest.
        public init() {}
    }

    let loaded: LoadedModel
    let queue: DispatchQueue

    /// Loads a checkpoint folder, a `.safetensors` or a `.gguf` file.
    /// - Parameter onProgress: called after each layer, on the loading thread.
    /// - Throws: ``CheckpointError``, ``ComputeError``, ``TokenizerError``; `CancellationError` within one layer.
    public init(
        contentsOf url: URL, options: Options = Options(), onProgress: @escaping @Sendable (LoadProgress) -> Void = { _ in }
    ) async throws {
        let queue = DispatchQueue(label: "adallava.model", qos: .userInitiated)
        let cancellation = Cancellation()
        self.queue = queue
        loaded = try await withTaskCancellationHandler {
            try await queue.run {
                let checkpoint = try Checkpoint.open(at: url, projector: options.projector)
                let backend = try Backend(threads: options.threads, precision: options.precision, placement: options.placement)
                return try LoadedModel(
                    checkpoint, backend: backend, template: options.template, cancellation: cancellation, onProgress: onProgress)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }

    // MARK: - What it is

    /// Whether the model has a scheduler, so that budgets below 1 mean something.
    public var isAdaptive: Bool { loaded.engine.adaptive != nil }

    /// The smallest budget that still changes anything: the prefix layers' share. `nil` if the model is not adaptive.
    public var budgetFloor: Double? { loaded.engine.adaptive?.units.floor }

    /// Whether it takes images.
    public var hasVision: Bool { loaded.engine.vision != nil }

    /// Whether images are cut to their middle square, instead of being squared with margins.
    public var cropsImages: Bool { loaded.checkpoint.configuration.llava?.imageAspectRatio == .crop }

    /// Features of an image that stand before those of its patches: the class token's, where it is kept. `nil` where token selection leaves
    /// no grid of patches, or without a vision tower.
    public var featuresBeforePatches: Int? {
        guard let llava = loaded.checkpoint.configuration.llava, llava.tokenSelection == .none else { return nil }
        return llava.selectFeature == .classAndPatches ? 1 : 0
    }

    /// Checks a budget without running anything.
    /// - Throws: ``BudgetError``
    public func check(_ budget: Budget) throws {
        let fraction = try budget.validFraction()
        if fraction < 1, !isAdaptive { throw BudgetError.notAdaptive(budget: Double(fraction), model: loaded.engine.name) }
    }

    // MARK: - Answers

    /// Answers one question about some images, streaming the text.
    /// - Throws: (through the stream) ``BudgetError``, ``GenerationError``, ``SamplingError``, `CancellationError`.
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
    public func respond(
        to conversation: [ChatMessage], images: [RGBImage], budget: Budget = .full, options: GenerationOptions = GenerationOptions()
    ) -> AnswerStream {
        let cancellation = Cancellation()
        let pieces = AsyncThrowingStream<AnswerPiece, any Error> { continuation in
            continuation.onTermination = { _ in cancellation.cancel() }
            queue.async { [self] in
                do {
                    try cancellation.check()
                    try answerNow(conversation, images, budget, options, cancellation) { continuation.yield($0) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
        return AnswerStream(pieces)
    }

    private func answerNow(
        _ conversation: [ChatMessage], _ images: [RGBImage], _ budget: Budget, _ options: GenerationOptions,
        _ cancellation: Cancellation, yield: (AnswerPiece) -> Void
    ) throws {
        try check(budget)
        try options.validate()
        guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.engine.name) }
        let prompt = try text.prompt(conversation, system: options.system)
        var request = EngineRequest(tokens: prompt, images: try images.map(loaded.pixels), budget: budget, maxTokens: options.maxTokens)
        request.sampling = options.sampling
        request.endTokens = text.endTokens
        request.plan = options.plan
        var output = AnswerText(text, stop: options.stop + text.stopTexts)
        let onProgress = options.onProgress
        var joined = JoinedText()
        let result: EngineResult
        do {
            result = try loaded.engine.generate(request, cancellation: cancellation, onProgress: { onProgress?($0) }) { token in
                let text = joined.add(output.append(token, isEnd: request.endTokens.contains(token)), at: .now)
                if !text.isEmpty { yield(AnswerPiece(text: text, summary: nil)) }
                return !output.isStopped
            }
        } catch {
            let text = joined.rest()
            if !text.isEmpty { yield(AnswerPiece(text: text, summary: nil)) }
            throw error
        }
        yield(AnswerPiece(text: joined.rest() + output.finish(), summary: AnswerSummary(result, budget: budget, engine: loaded.engine)))
    }

    // MARK: - Trace

    /// The ids of a whole prompt given as text, `<image>` becoming -200, as LLaVA's `tokenizer_image_token` makes them.
    public func tokenize(prompt: String) throws -> [Int] {
        guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.engine.name) }
        return text.tokenize(prompt: prompt)
    }

    /// The ids of a conversation in the model's chat template, -200 where images go: what ``respond(to:images:budget:options:)`` reads.
    /// - Parameter system: the system prompt, instead of the template's.
    public func tokenize(_ conversation: [ChatMessage], system: String? = nil) throws -> [Int] {
        guard let text = loaded.text else { throw GenerationError.noTokenizer(model: loaded.engine.name) }
        return try text.prompt(conversation, system: system)
    }

    /// The plan that the scheduler makes of some logits: with random ones, a random plan of the budget's size.
    /// - Parameters:
    ///   - switchLogits: one for each switch that the scheduler decides, ``switchCount``.
    ///   - units: optional units granted, as ``AnswerSummary/units`` says them.
    public func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan {
        guard let adaptive = loaded.engine.adaptive else { throw GenerationError.plan(reason: "\(loaded.engine.name) is not adaptive, so everything runs") }
        guard switchLogits.count == switchCount, switchLogits.allSatisfy(\.isFinite) else {
            throw GenerationError.plan(reason: "expected \(switchCount) finite logits, found \(switchLogits.count)")
        }
        guard (0 ... adaptive.units.total - adaptive.units.prefix).contains(units) else {
            throw GenerationError.plan(reason: "expected 0 to \(adaptive.units.total - adaptive.units.prefix) units, found \(units)")
        }
        return adaptive.scheduler.plan(switchLogits, units: units)
    }

    /// Switches that the scheduler decides: optional layers (L), or their heads and neuron groups (H); 0 if the model is not adaptive.
    public var switchCount: Int {
        guard let adaptive = loaded.engine.adaptive else { return 0 }
        let c = loaded.engine.decoder.configuration
        let optional = c.numHiddenLayers - adaptive.scheduler.configuration.numPrefixLayers
        return adaptive.scheduler.configuration.schedulerType == .layers ? optional : optional * 2 * c.numAttentionHeads
    }

    /// Layers that always run; 0 if the model is not adaptive.
    public var prefixLayers: Int { loaded.engine.adaptive?.scheduler.configuration.numPrefixLayers ?? 0 }

    /// Runs one greedy request and keeps its intermediates.
    /// - Parameter tokens: the whole prompt's ids; -200 stands where an image goes, or, for llava-hf's checkpoints, their own image token, once
    ///   or as often as an image has features.
    public func trace(
        tokens: [Int], images: [RGBImage], budget: Budget, maxTokens: Int, includesLayers: Bool = false, includesAttention: Bool = false,
        onProgress: @escaping @Sendable (GenerationProgress) -> Void = { _ in }
    ) async throws -> TraceResult {
        try check(budget)
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await queue.run { [self] in
                let trace = Trace(includesLayers: includesLayers, includesAttention: includesAttention)
                let prompt = loaded.withImageMarks(tokens)
                var request = EngineRequest(tokens: prompt, images: try images.map(loaded.pixels), budget: budget, maxTokens: maxTokens)
                request.endTokens = loaded.text?.endTokens ?? Set(loaded.checkpoint.generation.eosTokenIDs)
                request.trace = trace
                let result = try loaded.engine.generate(request, cancellation: cancellation, onProgress: onProgress) { _ in true }
                let text = loaded.text?.decode(result.tokens)
                return TraceResult(
                    entries: trace.entries, text: text, summary: AnswerSummary(result, budget: budget, engine: loaded.engine), result: result)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }

    // MARK: - Measuring

    /// Runs one greedy request given as token ids, which no token ends early, and says what ran and how long it took.
    /// - Parameters:
    ///   - tokens: the whole prompt's ids; -200 stands where an image goes.
    ///   - images: encoded anew each time, also if the last request had the same.
    /// - Throws: ``BudgetError``, ``GenerationError``, `CancellationError`.
    public func measure(tokens: [Int], images: [RGBImage] = [], budget: Budget, maxTokens: Int) async throws -> AnswerSummary {
        try check(budget)
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await queue.run { [self] in
                var request = EngineRequest(tokens: tokens, images: try images.map(loaded.pixels), budget: budget, maxTokens: maxTokens)
                request.reusesFeatures = false
                let result = try loaded.engine.generate(request, cancellation: cancellation, onProgress: { _ in }) { _ in true }
                return AnswerSummary(result, budget: budget, engine: loaded.engine)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }
}

extension DispatchQueue {
    /// Runs blocking work on this queue and waits for it without holding a thread of the concurrency pool.
    func run<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            async { continuation.resume(with: Swift.Result { try work() }) }
        }
    }
}
