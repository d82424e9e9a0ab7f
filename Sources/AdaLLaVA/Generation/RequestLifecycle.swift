import AdaKernels
import Foundation

/// Begin and end of a request: images to features, prompt to positions, and reuse of earlier results.
extension Engine {
    // MARK: - Beginning

    /// Checks a request; its images are encoded next.
    /// - Throws: ``GenerationError``, ``BudgetError``, ``ComputeError``, `CancellationError`
    func begin(_ task: GenerationTask) throws {
        task.begin()
        try task.cancellation.check()
        let request = task.request
        task.units = try parts.grantedUnits(request.budget)
        try parts.check(request)
        // A prompt that does not fit is refused before any image is encoded.
        try checkRoom(promptLength: parts.leastPositions(request))
        try beginTiming(task)
        task.stage = .encode
        if request.images.isEmpty { try beginPrompt(task) }
    }

    /// Assembles a prompt once its images are encoded, and looks it up in the prompt cache.
    /// - Throws: ``GenerationError``, ``ComputeError``
    func beginPrompt(_ task: GenerationTask) throws {
        task.endEncode()
        noteEncode(task)
        let c = parts.decoder.configuration, request = task.request
        var image = 0
        for token in request.tokens {
            if token == Engine.imageToken {
                let (picture, rows) = (request.images[image], task.features[image].rows)
                var marks = 0
                for token in picture.layout {
                    guard token == Engine.imageToken else {
                        task.elements.append(.token(Int32(token)))
                        continue
                    }
                    task.elements += picture.rows(ofMark: marks, of: rows).map { .image(picture.key, row: Int32($0)) }
                    marks += 1
                }
                image += 1
            } else {
                task.elements.append(.token(Int32(token)))
            }
        }
        let promptLength = task.elements.count, length = promptLength + (parts.adaptive == nil ? 0 : 1)
        try checkRoom(promptLength: promptLength)
        if !c.ropeSections.isEmpty { task.positions = PromptPositions(task.elements, grids: request.images.map { $0.featureGrid ?? PatchGrid(rows: 1, columns: 1) }) }
        task.capacity = length + min(max(request.maxTokens, 0), c.contextLength - length)
        task.result.promptTokens = promptLength
        task.result.imageTokens = task.features.reduce(0) { $0 + $1.rows }
        task.result.plan = parts.fullPlan
        let sequence = TokenSequence(parts.decoder)
        sequence.promptLength = length
        beginSpeculation(task)
        task.sequence = sequence
        if parts.adaptive != nil { task.hidden = try Tensor(checked: length, columns: c.hiddenSize, what: "hidden states of \(length) positions") }
        try beginDropping(task)
        let known = task.trace == nil && request.reuses ? reuse(task, sequence) : 0
        // Of a prompt that is known whole the drop is known too.
        if task.dropping == nil { task.stage = .prefix(next: known) } else if case .encode = task.stage { task.stage = .early(next: known) }
        if let trace = task.trace, trace.includesLayers { trace.recordInput(try inputRows(task)) }
        if parts.adaptive != nil, case .prefix(promptLength) = task.stage { task.stage = .latency }
        predict(task)
    }

    /// The prompt, the latency token where there is one, and at least one answer token have to fit.
    /// - Throws: ``GenerationError/promptTooLong(positions:limit:)``, ``ComputeError``
    private func checkRoom(promptLength: Int) throws {
        let c = parts.decoder.configuration, length = promptLength + (parts.adaptive == nil ? 0 : 1)
        guard length < c.contextLength else { throw GenerationError.promptTooLong(positions: length, limit: c.contextLength) }
        let bytes = runner.keyValueBytes(positions: length)
        if bytes > runner.pages.limit {
            throw ComputeError.memory(what: "keys and values of \(length) positions", bytes: bytes, used: 0, limit: runner.pages.limit)
        }
    }

    /// Reuses an earlier request's prefix layers for the same beginning.
    /// - Returns: how many positions that is.
    private func reuse(_ task: GenerationTask, _ sequence: TokenSequence) -> Int {
        let rotary = parts.decoder.rotary
        // Length-dependent rotary frequencies: keys of another length are turned otherwise.
        let key = rotary.dependsOnSequenceLength
            ? ContentKey("\(modelKey) \(rotary.frequencies(sequenceLength: sequence.promptLength))") : modelKey
        let keys = PromptKeys(task.elements, model: key)
        task.keys = keys
        guard let found = promptCache.find(task.elements, keys) else { return 0 }
        if let dropping = task.dropping {
            let length = reuseDropped(task, sequence, found.entry, length: found.length)
            (task.result.cachedPrefix, task.readRows) = (length, length * dropping.fastV.layer)
            return length
        }
        // Without a scheduler the last row's logits have to be computed.
        let most = min(found.length, parts.adaptive == nil ? task.elements.count - 1 : task.elements.count), prefix = parts.prefixLayers
        let length = found.entry.state.longest(most, layers: Array(0 ..< prefix), parts.decoder.configuration)
        guard length > 0 else { return 0 }
        if let hidden = task.hidden {
            guard let known = found.entry.hidden, known.rows >= length else { return 0 }
            hidden.copyRows(from: known.rows(0 ..< length), to: 0)
        }
        sequence.share(found.entry.state, layers: 0 ..< prefix, length: length)
        task.result.cachedPrefix = length
        task.readRows = length * prefix
        return length
    }

    /// Embeddings of some positions of the prompt, `[positions, hidden]`.
    func embed(_ task: GenerationTask, _ range: Range<Int>) throws -> Tensor {
        let rows = try Tensor(checked: range.count, columns: parts.decoder.configuration.hiddenSize, what: "the prompt's embeddings")
        var image = -1
        for (row, element) in task.elements[range].enumerated() {
            switch element {
            case .token(let token): try parts.decoder.embed(Int(token), into: rows, row: row)
            case .image(_, let number):
                if image < 0 || number == 0 { image = imageIndex(task, at: range.lowerBound + row) }
                rows.copyRows(from: task.features[image].rows(Int(number) ..< Int(number) + 1), to: row)
            }
        }
        return rows
    }

    /// Which image a position belongs to: as many as began before or at it.
    private func imageIndex(_ task: GenerationTask, at position: Int) -> Int {
        let begun = task.elements[...position].count { if case .image(_, 0) = $0 { true } else { false } }
        return max(begun - 1, 0)
    }

    /// Input of the first layer, the latency token included if there is one.
    private func inputRows(_ task: GenerationTask) throws -> Tensor {
        let prompt = try embed(task, 0 ..< task.elements.count)
        guard let adaptive = parts.adaptive, let units = task.units else { return prompt }
        let all = try Tensor(checked: prompt.rows + 1, columns: prompt.columns, what: "the prompt's embeddings")
        all.copyRows(from: prompt, to: 0)
        all.copyRows(from: adaptive.encoder(adaptive.units.normalized(units), workspace), to: prompt.rows)
        return all
    }

    // MARK: - Ending

    /// Ends a task and caches its results for later requests.
    func finish(_ task: GenerationTask) {
        let (sequence, hidden) = (task.sequence, task.hidden)
        // Slots of drafts are not part of the answer.
        if task.speculation != nil { sequence?.truncate(to: task.length) }
        learn(task)
        task.finish()
        keepTimes(task)
        keepPrompt(task, sequence, hidden)
    }

    /// Caches the results of a prompt for later requests.
    func keepPrompt(_ task: GenerationTask, _ sequence: TokenSequence?, _ hidden: Tensor?) {
        guard task.request.reuses, task.trace == nil, let sequence, let keys = task.keys else { return }
        promptCache.insert(parts.adaptive == nil ? whole(task, sequence, keys) : adaptive(task, sequence, keys, hidden))
    }

    /// Of a model without a scheduler prompt and answer: everything that was fed back is history.
    private func whole(_ task: GenerationTask, _ sequence: TokenSequence, _ keys: PromptKeys) -> PromptCache.Entry {
        let fed = task.result.tokens.prefix(max(task.length - task.elements.count, 0))
        // With frequencies that depend on the length, each token of the answer was turned by its own.
        if fed.isEmpty || parts.decoder.rotary.dependsOnSequenceLength {
            return PromptCache.Entry(elements: task.elements, keys: keys, state: sequence.state, hidden: nil, plan: nil, dropping: task.dropping)
        }
        let elements = task.elements + fed.map { .token(Int32($0)) }
        if task.isDone { sequence.seal() }
        return PromptCache.Entry(
            elements: elements, keys: PromptKeys(elements, model: modelKey), state: sequence.state, hidden: nil, plan: nil, dropping: task.dropping)
    }

    /// Of an adaptive model the prompt alone: the answer's rows attended to the latency token, and are one position later than they will be as history.
    private func adaptive(_ task: GenerationTask, _ sequence: TokenSequence, _ keys: PromptKeys, _ hidden: Tensor?) -> PromptCache.Entry {
        // Rows that were read before a plan shrank are of no one plan.
        let plan = task.hasOnePlan ? task.result.plan : nil
        let state = plan != nil ? sequence.state : sequence.state.prefix(parts.prefixLayers)
        return PromptCache.Entry(elements: task.elements, keys: keys, state: state, hidden: hidden, plan: plan, dropping: task.dropping)
    }
}
