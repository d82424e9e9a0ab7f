import AdaKernels
import Foundation

/// A loaded model's parts and the one way an answer flows through them: image pixels → tower → token selection → projector → prompt with
/// image features and the latency token → prefix layers → scheduler → plan → remaining layers → logits → sampler → tokens.
///
/// Not thread-safe: ``AdaptiveModel`` gives it one request at a time.
final class Engine: @unchecked Sendable {
    let backend: Backend
    let decoder: LlamaDecoder
    let vision: VisionPart?
    let adaptive: AdaptivePart?
    let name: String
    private var featureCache = FeatureCache()

    /// What turns pixels into image features.
    struct VisionPart: Sendable {
        let tower: any VisionNetwork
        let projector: Projector
        let selection: LlavaConfiguration.TokenSelection
        let keepsClassToken: Bool
    }

    /// What turns a budget into a plan.
    struct AdaptivePart: Sendable {
        let encoder: LatencyEncoder
        let scheduler: Scheduler
        let units: BudgetUnits
    }

    init(name: String, backend: Backend, decoder: LlamaDecoder, vision: VisionPart?, adaptive: AdaptivePart?) {
        (self.name, self.backend, self.decoder, self.vision, self.adaptive) = (name, backend, decoder, vision, adaptive)
    }

    /// The token that stands for an image in a prompt, as LLaVA's code has it.
    static let imageToken = -200

    // MARK: - Encode

    /// The features of one image, `[tokens, hidden]`, after token selection and the projector.
    /// - Parameter pixels: `[3, S, S]` normalized values.
    func encode(pixels: [Float], cancellation: Cancellation, progress: (Int, Int) -> Void) throws -> (vision: Tensor, features: Tensor) {
        guard let vision else { throw GenerationError.noVision(model: name) }
        let output = try vision.tower(pixels, cancellation: cancellation, progress: progress)
        var features = output.rows(withClassToken: vision.keepsClassToken)
        if vision.selection != .none, let query = output.lastQuery, let key = output.lastKey {
            let attention = PruMerge.classAttention(query: query, key: key)
            features = PruMerge.merge(features: output.features, key: key, attention: attention, plus: vision.selection == .pruMergePlus).merged
        }
        return (output.features, vision.projector(features))
    }

    // MARK: - Generate

    /// Answers one request, reporting tokens as they come.
    /// - Returns: what ran and how long it took.
    /// - Throws: ``GenerationError``, ``BudgetError``, `CancellationError`.
    func generate(
        _ request: EngineRequest, cancellation: Cancellation, onProgress: @escaping (GenerationProgress) -> Void, onToken: (Int) -> Bool
    ) throws -> EngineResult {
        let clock = ContinuousClock()
        let start = clock.now
        var result = EngineResult(layers: decoder.configuration.numHiddenLayers, heads: decoder.configuration.numAttentionHeads)
        let units = try grantedUnits(request.budget)
        try check(request)

        let features = try encodeImages(request, cancellation, onProgress)
        result.measured.encode = clock.now - start

        var sequence = try prefill(request, features, units: units, &result, cancellation, onProgress)
        let prefilled = clock.now
        result.measured.prefill = prefilled - start - result.measured.encode

        try decode(request, &sequence, &result, cancellation, since: start, onProgress, onToken: onToken)
        result.measured.decode = clock.now - prefilled
        result.keyValueBytes = sequence.cache.byteCount
        result.keyValueShapes = sequence.cache.layers.map { layer in
            layer.map { [1, $0.heads.count, sequence.length, $0.headDim] }
        }
        return result
    }

    /// A sequence between prefill and decode.
    struct Sequence {
        let cache: KeyValueCache
        /// Positions that the caches hold.
        var length: Int
        let selections: [LayerSelection?]
        var logits: Tensor
    }

    private func grantedUnits(_ budget: Budget) throws -> Int? {
        let fraction = try budget.validFraction()
        guard let adaptive else {
            if fraction < 1 { throw BudgetError.notAdaptive(budget: Double(fraction), model: name) }
            return nil
        }
        return adaptive.units.granted(fraction: fraction)
    }

    private func check(_ request: EngineRequest) throws {
        let vocabulary = decoder.configuration.vocabularySize
        if request.tokens.isEmpty { throw GenerationError.emptyPrompt }
        for (index, token) in request.tokens.enumerated() where token != Engine.imageToken && !(0 ..< vocabulary).contains(token) {
            throw GenerationError.token(token, position: index, vocabulary: vocabulary)
        }
        let marks = request.tokens.count { $0 == Engine.imageToken }
        if marks != request.images.count { throw GenerationError.imageCount(marks: marks, images: request.images.count) }
        if let plan = request.plan { try check(plan) }
    }

    /// A plan from outside: of this model's shape, and with the prefix running whole.
    private func check(_ plan: ExecutionPlan) throws {
        let c = decoder.configuration
        guard let adaptive else { throw GenerationError.plan(reason: "\(name) is not adaptive, so everything runs") }
        guard plan.rows.count == c.numHiddenLayers, plan.headCount == c.numAttentionHeads else {
            throw GenerationError.plan(
                reason: "expected \(c.numHiddenLayers) layers of \(c.numAttentionHeads) heads, found \(plan.rows.count) of \(plan.headCount)")
        }
        for (layer, row) in plan.rows.enumerated() {
            for (what, indices) in [("heads", row.heads), ("groups", row.groups)] {
                let ascends = zip(indices, indices.dropFirst()).allSatisfy { $0 < $1 }
                guard ascends, indices.allSatisfy({ (0 ..< plan.headCount).contains($0) }) else {
                    throw GenerationError.plan(
                        reason: "layer \(layer): expected \(what) from 0 to \(plan.headCount - 1), ascending, found \(indices)")
                }
                if layer < adaptive.scheduler.configuration.numPrefixLayers, indices.count < plan.headCount {
                    throw GenerationError.plan(reason: "layer \(layer) is a prefix layer and always runs whole")
                }
            }
        }
    }

    private func encodeImages(
        _ request: EngineRequest, _ cancellation: Cancellation, _ onProgress: @escaping (GenerationProgress) -> Void
    ) throws -> [Tensor] {
        var features: [Tensor] = []
        for (index, pixels) in request.images.enumerated() {
            // A trace shows every step, so it takes none from the cache.
            if request.trace == nil, request.reusesFeatures, let known = featureCache.find(pixels) {
                features.append(known)
                continue
            }
            let encoded = try encode(pixels: pixels, cancellation: cancellation) { layer, layers in
                onProgress(.encoding(image: index + 1, of: request.images.count, layer: layer, layers: layers))
            }
            request.trace?.recordPixels("pixel_values", pixels)
            request.trace?.recordFeatures("vision_features", encoded.vision)
            request.trace?.recordFeatures("image_features", encoded.features)
            featureCache.insert(pixels, encoded.features)
            features.append(encoded.features)
        }
        return features
    }

    /// Reads the prompt: through the prefix in chunks, then, under the plan made there, through the remaining layers in chunks.
    func prefill(
        _ request: EngineRequest, _ features: [Tensor], units: Int?, _ result: inout EngineResult, _ cancellation: Cancellation,
        _ onProgress: @escaping (GenerationProgress) -> Void
    ) throws -> Sequence {
        let c = decoder.configuration
        let promptLength = request.tokens.count - features.count + features.reduce(0) { $0 + $1.rows }
        let length = promptLength + (adaptive == nil ? 0 : 1)
        // The prompt and at least one answer token have to fit.
        guard length < c.contextLength else {
            throw GenerationError.promptTooLong(positions: length, limit: c.contextLength)
        }
        let hidden = Tensor(rows: length, columns: c.hiddenSize)
        var row = 0
        var image = 0
        for token in request.tokens {
            if token == Engine.imageToken {
                hidden.copyRows(from: features[image], to: row)
                row += features[image].rows
                image += 1
            } else {
                try decoder.embed(token, into: hidden, row: row)
                row += 1
            }
        }
        result.promptTokens = promptLength
        let cache = KeyValueCache(
            layerCount: c.numHiddenLayers, capacity: length + min(max(request.maxTokens, 0), c.contextLength - length),
            spares: backend.spareSlabs)
        let everything = [LayerSelection?](repeating: nil, count: c.numHiddenLayers)
        var done = 0
        let observe: (Int, Int, Tensor) -> Void = { layer, first, chunk in
            done += chunk.rows
            onProgress(.reading(done: done, total: length * c.numHiddenLayers))
            request.trace?.recordLayer(layer, rows: first ..< first + chunk.rows, of: length, chunk)
        }

        guard let adaptive, let units else {
            request.trace?.recordInput(hidden)
            try decoder.run(
                0 ..< c.numHiddenLayers, on: hidden, first: 0, cache: cache, selections: everything, lastRowOnly: request.trace == nil,
                cancellation: cancellation, observe: observe)
            return Sequence(cache: cache, length: length, selections: everything, logits: decoder.logits(hidden, row: length - 1))
        }

        let latency = adaptive.encoder(adaptive.units.normalized(units), backend)
        hidden.copyRows(from: latency, to: promptLength)
        request.trace?.record("latency_embedding", latency)
        request.trace?.recordInput(hidden)
        let prefix = adaptive.scheduler.configuration.numPrefixLayers
        let probe = request.trace?.includesAttention == true ? AttentionProbe(position: promptLength) : nil
        // At the least budget nothing follows the prefix, whatever the scheduler says.
        let endsWithPrefix = units == 0 && request.plan == nil && request.trace == nil
        try decoder.run(
            0 ..< prefix, on: hidden, first: 0, cache: cache, selections: everything, lastRowOnly: endsWithPrefix,
            cancellation: cancellation, observe: observe, probe: probe)
        for (layer, weights) in probe?.weights ?? [:] {
            request.trace?.record("latency_attention.\(layer)", weights, shape: [c.numAttentionHeads, length])
        }

        let input = hidden.rows(promptLength ..< length)
        request.trace?.record("scheduler_input", input)
        let scores = adaptive.scheduler.logits(input, backend)
        // Comparisons with not-a-number are all false: a plan made of them would look like a plan.
        guard scores.allSatisfy(\.isFinite) else { throw GenerationError.notFinite(what: "the scheduler's logits", model: name) }
        let plan = request.plan ?? adaptive.scheduler.plan(scores, units: units)
        request.trace?.record("scheduler_logits", scores)
        request.trace?.record("plan", plan.mask, shape: [c.numHiddenLayers, 2, c.numAttentionHeads])
        result.adaptive = EngineResult.Adaptive(units: units, insertPosition: promptLength, floor: adaptive.units.floor)
        result.plan = plan

        let selections = (0 ..< c.numHiddenLayers).map { layer in plan.selection(layer).map { LayerSelection($0, c) } }
        try decoder.run(
            prefix ..< c.numHiddenLayers, on: hidden, first: 0, cache: cache, selections: selections, lastRowOnly: request.trace == nil,
            cancellation: cancellation, observe: observe)
        return Sequence(cache: cache, length: length, selections: selections, logits: decoder.logits(hidden, row: length - 1))
    }

    private func decode(
        _ request: EngineRequest, _ sequence: inout Sequence, _ result: inout EngineResult, _ cancellation: Cancellation,
        since start: ContinuousClock.Instant, _ onProgress: (GenerationProgress) -> Void, onToken: (Int) -> Bool
    ) throws {
        let c = decoder.configuration
        result.lengthWithLatencyToken = sequence.length
        request.trace?.record("prefill_last_logits", sequence.logits)
        var sampler = Sampler(request.sampling, prompt: request.tokens)
        let hidden = Tensor(rows: 1, columns: c.hiddenSize)
        while result.tokens.count < request.maxTokens {
            try cancellation.check()
            request.trace?.append("step_logits", sequence.logits)
            let token = sampler.next(sequence.logits, backend.kernels)
            guard sequence.logits.data[token].isFinite else { throw GenerationError.notFinite(what: "the logits", model: name) }
            result.tokens.append(token)
            onProgress(.answering(done: result.tokens.count, atMost: request.maxTokens))
            if result.tokens.count == 1 { result.measured.timeToFirstToken = ContinuousClock.now - start }
            if request.endTokens.contains(token) {
                result.finish = .endOfAnswer
                _ = onToken(token)
                return
            }
            if !onToken(token) {
                result.finish = .stopText
                return
            }
            if result.tokens.count == request.maxTokens { break }
            if sequence.length == sequence.cache.capacity {
                result.finish = .contextFull
                return
            }
            try step(token, &sequence, hidden, cancellation)
        }
        result.finish = .maxTokens
    }

    /// Appends one token to a sequence that has room for it.
    /// - Parameter hidden: room for its hidden states, `[1, hidden]`.
    func step(_ token: Int, _ sequence: inout Sequence, _ hidden: Tensor, _ cancellation: Cancellation) throws {
        try decoder.embed(token, into: hidden, row: 0)
        try decoder.run(
            0 ..< decoder.configuration.numHiddenLayers, on: hidden, first: sequence.length, cache: sequence.cache, selections: sequence.selections,
            cancellation: cancellation)
        sequence.length += 1
        sequence.logits = decoder.logits(hidden, row: 0)
    }
}
