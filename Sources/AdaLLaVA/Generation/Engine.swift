import AdaKernels
import Foundation

/// A loaded model's parts and the one way answers flow through them: image pixels → tower → token selection → projector → prompt with image
/// features → prefix layers → budget in units → latency token through the prefix → scheduler → plan → remaining layers → logits → sampler → tokens.
///
/// ``step(_:)`` is the only way to compute: each call takes every task a step further, their rows in one batch. One thread at a time:
/// ``AnswerQueue`` gives the engine its tasks.
package final class Engine {
    package let parts: ModelParts
    package let workspace: Workspace
    package let runner: BatchRunner
    let promptCache: PromptCache
    /// Predicts times; `nil` until a request has a time budget, or measurements of this machine were kept.
    var planner: TimePlanner?
    var timings: TimingStore?
    var featureCache: FeatureCache
    let modelKey: ContentKey
    /// How much of prompts and images a step takes while answers grow.
    var pacing = StepPacing()
    /// Costs and successes of drafts.
    var costs = SpeculationCosts()
    /// Whether budgets shrink when requests need more time together than they have, and the time limit of those without a budget of time.
    var balance: LoadBalance?
    /// The requests of the step that runs, in the order in which their prompts are read.
    var tasks: [GenerationTask] = []
    /// When the present step of several requests began.
    var stepStart: ContinuousClock.Instant?
    /// Requests that are not admitted yet.
    var backlog: () -> [QueuedWork] = { [] }

    static let imageToken = PromptEncoder.imageToken

    /// Prompt rows of a step while other sequences decode, which wait for them.
    static let mixedChunk = 128

    /// - Parameter timings: measurements of this model on this machine; without it times are not predicted.
    init(_ parts: ModelParts, workspace: Workspace, memory: MemoryLimits = MemoryLimits(), timings: TimingStore? = nil) {
        (self.parts, self.workspace, self.timings) = (parts, workspace, timings)
        runner = BatchRunner(
            parts.decoder, workspace, pages: PagePool(limit: memory.keyValueBytes, spareLimit: memory.spareBytes),
            keyValues: memory.keyValueType)
        promptCache = PromptCache(limit: memory.promptCacheBytes)
        featureCache = FeatureCache(limit: memory.featureCacheBytes)
        modelKey = ContentKey("\(parts.name) \(parts.decoder.configuration) \(workspace.kernels.name) \(workspace.kernels.precision) \(memory.keyValueType)")
    }

    // MARK: - Steps

    /// Takes every task a step further: new ones are begun, images encoded piece by piece, prompts read chunk by chunk, answers a token at a time.
    ///
    /// A step takes either images or prompts further, those of the first request in ``WorkOrder``. While answers grow, it takes as much as lets no answer
    /// wait much longer for its token. Errors of one task end that task and no other.
    func step(_ given: [GenerationTask]) {
        // Answers that all grow stay in one order, for which the runner's layers are prepared.
        tasks = given.count > 1 && given.contains { !$0.isDecoding } ? given.sorted { $0.order < $1.order } : given
        defer { tasks = [] }
        for task in tasks where !task.isDone {
            attempt(task) {
                try task.cancellation.check()
                if case .waiting = task.stage {
                    try begin(task)
                    judge(task)
                }
            }
        }
        stepStart = given.count > 1 ? ContinuousClock.now : nil
        var encoded: GenerationTask?, layers = 0.0
        defer { noteOthers(encoded: encoded, computing: layers) }
        let held = heldTasks()
        let pace = pace(held)
        var left = held.reading ? 0 : pace.promptRows
        if !held.reading, let first = tasks.first(where: { !$0.isDone && !$0.isDecoding }), first.isEncoding {
            encoded = first
            attempt(first) { try encode(first, within: pace.imageNanoseconds) }
            left = 0
        }
        let computing = ContinuousClock.now
        let drafts = makeDrafts(held)
        var running: [GenerationTask] = [], segments: [BatchSegment] = []
        for task in tasks where !task.isDone && !held.contains(task) {
            attempt(task) {
                keepInTime(task)
                guard let segment = try segment(task, atMost: left) else { return }
                try reserve(segment)
                if segment.role == .chunk { left -= segment.rows }
                running.append(task)
                segments.append(segment)
            }
        }
        if segments.isEmpty { return }
        let isTimed = running.contains { $0.timing != nil }, isChunked = segments.contains { $0.role == .chunk }
        let observer = (isTimed && isChunked) || running.contains { $0.wantsProgress || $0.trace != nil }
            ? StepObserver(running, segments, parts, planner: isTimed && isChunked ? planner : nil) : nil
        let predicted = isTimed ? predictStep(running, segments) : (0, [])
        let output: BatchRunner.Output
        do { output = try runner.step(segments, observer: observer) } catch {
            for task in running { task.fail(error) }
            return
        }
        for (index, task) in running.enumerated() {
            attempt(task) {
                try task.cancellation.check()
                if let draft = task.draft, let logits = output.all(index) { return try verify(task, draft, logits) }
                try advance(task, segments[index], logits: output.last(index))
            }
        }
        let elapsed = (ContinuousClock.now - computing).nanoseconds
        layers = elapsed
        if !isChunked { pacing.note(single: elapsed) }
        if let drafts { note(drafts, nanoseconds: elapsed) }
        if isChunked, let single = pace.single, let row = pace.row {
            pacing.note(measured: elapsed, single: single, rows: row * Double(segments.reduce(0) { $0 + ($1.role == .chunk ? $1.rows : 0) }))
        }
        if isTimed {
            account(running, segments, predicted: predicted, elapsed: elapsed, isChunked: isChunked, isDrafted: drafts?.drafted ?? 0 > 0)
        }
    }

    private func attempt(_ task: GenerationTask, _ body: () throws -> Void) {
        do { try body() } catch { task.fail(error) }
    }

    /// Reserves memory for a segment's keys and values, evicting cached prompts if necessary.
    private func reserve(_ segment: BatchSegment) throws {
        while true {
            do { return try runner.reserve(segment) } catch {
                if !promptCache.evict() { throw error }
            }
        }
    }

    /// The rows that a task computes next; `nil` if this step has no room for them.
    private func segment(_ task: GenerationTask, atMost limit: Int) throws -> BatchSegment? {
        guard let sequence = task.sequence else { return nil }
        let (prefix, layers, prompt) = (parts.prefixLayers, parts.decoder.layers.count, task.elements.count)
        // Of the layers that have all image tokens or only those that are kept.
        let (kept, promptRows) = (task.dropping?.kept, task.promptRows)
        switch task.stage {
        case .early(let next):
            let rows = next ..< min(next + limit, prompt)
            return rows.isEmpty ? nil : try earlySegment(task, sequence, rows)
        case .prefix(let next):
            let rows = next ..< min(next + limit, promptRows)
            if rows.isEmpty { return nil }
            let input = try task.dropping.map { try keptRows($0, (kept ?? [])[rows]) } ?? embed(task, rows)
            var segment = BatchSegment(
                sequence: sequence, role: .chunk, position: next, slot: next, layers: (task.dropping?.fastV.layer ?? 0) ..< prefix, input: .hidden(input),
                output: task.hidden?.rows(rows), logitRows: parts.adaptive == nil && rows.upperBound == promptRows ? 1 : 0,
                cancellation: task.cancellation)
            segment.positions = task.rowPositions(rows, kept: kept)
            return segment
        case .latency:
            guard let adaptive = parts.adaptive, let hidden = task.hidden else { return nil }
            let chosen = task.units ?? chooseUnits(task)
            task.units = chosen
            let units = shared(chosen, task)
            task.units = units
            let latency = adaptive.encoder(adaptive.units.normalized(units), workspace)
            task.trace?.record("latency_embedding", latency)
            return BatchSegment(
                sequence: sequence, role: .single, position: task.position(prompt), slot: prompt, layers: 0 ..< prefix, input: .hidden(latency),
                output: hidden.rows(promptRows ..< promptRows + 1), cancellation: task.cancellation)
        case .rest(let next):
            guard let hidden = task.hidden else { return nil }
            let rows = next ..< min(next + limit, promptRows + 1)
            if rows.isEmpty { return nil }
            var segment = BatchSegment(
                sequence: sequence, role: .chunk, position: next, slot: next, layers: prefix ..< layers, input: .hidden(hidden.rows(rows)),
                logitRows: rows.upperBound == promptRows + 1 ? 1 : 0, cancellation: task.cancellation)
            segment.positions = task.rowPositions(rows, kept: kept)
            return segment
        case .decode(let token):
            if let draft = task.draft { return verification(task, draft, sequence, token: token) }
            return BatchSegment(
                sequence: sequence, role: .single, position: task.position(task.length), slot: task.length, layers: 0 ..< layers, input: .token(token), logitRows: 1,
                cancellation: task.cancellation)
        case .waiting, .encode, .done: return nil
        }
    }

    /// Advances a task after its rows were computed.
    private func advance(_ task: GenerationTask, _ segment: BatchSegment, logits: Tensor?) throws {
        let prompt = task.elements.count
        switch task.stage {
        case .early:
            let next = segment.slot + segment.rows
            task.length = next
            if next < prompt { task.stage = .early(next: next) } else { drop(task) }
        case .prefix:
            let next = segment.slot + segment.rows
            if task.dropping == nil { task.length = next }
            if next < task.promptRows {
                task.stage = .prefix(next: next)
            } else if parts.adaptive != nil {
                task.stage = .latency
            } else if let logits {
                try endPrefill(task, logits)
            }
        case .latency:
            task.length = prompt + 1
            try plan(task)
        case .rest:
            let next = segment.slot + segment.rows
            task.stage = .rest(next: next)
            if let logits { try endPrefill(task, logits) }
        case .decode:
            task.length += 1
            if let logits { try sample(task, logits) }
        case .waiting, .encode, .done: break
        }
    }

    /// Makes the plan from the latency token's hidden state.
    private func plan(_ task: GenerationTask) throws {
        guard let adaptive = parts.adaptive, let units = task.units, let hidden = task.hidden, let sequence = task.sequence else { return }
        let (prompt, promptRows) = (task.elements.count, task.promptRows)
        let input = hidden.rows(promptRows ..< promptRows + 1)
        task.request.onStates?(PrefixStates(prompt: hidden.row(promptRows - 1), latency: hidden.row(promptRows)))
        task.trace?.record("scheduler_input", input)
        let scores = adaptive.scheduler.logits(input, workspace)
        // Comparisons with not-a-number are all false: a plan made of them would look like a plan.
        guard scores.allSatisfy(\.isFinite) else { throw GenerationError.notFinite(what: "the scheduler's logits", model: parts.name) }
        task.schedulerLogits = scores
        let plan = task.request.plan ?? adaptive.scheduler.plan(scores, units: units)
        task.trace?.record("scheduler_logits", scores)
        task.trace?.record("plan", plan.mask, shape: [plan.rows.count, 2, plan.headCount])
        task.result.adaptive = EngineResult.Adaptive(units: units, insertPosition: prompt, floor: adaptive.units.floor)
        apply(plan, task, sequence)
        keepInTime(task)

        let made = task.result.plan, prefix = parts.prefixLayers, optional = prefix ..< parts.decoder.layers.count
        var first = 0
        let attending = optional.filter { sequence.selections[$0].runsAttention }
        // Not always the entry of the prefix: the same prompt may be kept under several plans.
        if let keys = task.keys, let (cached, length) = promptCache.find(task.elements, keys, plan: made) {
            let known = knownRest(task, cached, length: length, layers: attending)
            if known > 0 {
                sequence.share(cached.state, layers: optional, length: known)
                (first, task.result.cachedRest) = (known, known)
            }
        }
        // Where no later layer attends, rows before the latency token change nothing.
        if attending.isEmpty, task.trace == nil { first = promptRows }
        task.stage = .rest(next: first)
    }

    private func apply(_ plan: ExecutionPlan, _ task: GenerationTask, _ sequence: TokenSequence) {
        task.result.plan = plan
        task.timing?.use(plan, planner)
        sequence.select(Array(plan.selections(parts.space, parts.decoder).dropFirst(parts.prefixLayers)), from: parts.prefixLayers)
    }

    /// Takes a plan down to fewer units: those of the highest scores stay, so that everything that still runs has its keys cached.
    /// - Returns: whether the plan changed.
    @discardableResult
    func shrink(_ task: GenerationTask, to units: Int) -> Bool {
        guard let adaptive = parts.adaptive, let current = task.units, units < current, units >= 0, let sequence = task.sequence else { return false }
        task.units = units
        // Before the plan is made nothing of it has run: the latency token simply carries the new budget.
        if task.schedulerLogits.isEmpty { return true }
        let smaller = adaptive.scheduler.plan(task.schedulerLogits, units: units)
        guard task.request.plan == nil, smaller != task.result.plan else { return false }
        task.result.adaptive = EngineResult.Adaptive(units: units, insertPosition: task.elements.count, floor: adaptive.units.floor)
        apply(smaller, task, sequence)
        // Until the remaining layers have begun, all rows are of the new plan.
        if case .latency = task.stage {} else { task.hasOnePlan = false }
        return true
    }

    private func endPrefill(_ task: GenerationTask, _ logits: Tensor) throws {
        task.endPrefill()
        task.result.lengthWithLatencyToken = task.length
        task.trace?.record("prefill_last_logits", logits)
        if task.request.maxTokens <= 0 { return finish(task) }
        if task.request.keepsPromptEarly { keepPrompt(task, task.sequence, task.hidden) }
        try sample(task, logits)
    }

    /// Chooses the next token.
    /// - Parameter drafted: the token that was drafted in its place.
    func sample(_ task: GenerationTask, _ logits: Tensor, drafted: Int? = nil) throws {
        task.trace?.append("step_logits", logits)
        let probabilities = task.request.logProbabilities.map { _ in LogProbabilities(logits, workspace.kernels.table) }
        try task.filter?.mask(UnsafeMutableBufferPointer(start: logits.data, count: logits.columns))
        if task.result.tokens.count < task.request.minTokens {
            for token in task.request.endTokens where token < logits.columns { logits.data[token] = -.infinity }
        }
        var token = task.sampler.next(logits, workspace.kernels.table)
        // The rounding of sums can carry a draw past the last token that was left to choose.
        if logits.data[token] == -.infinity { token = Int(workspace.kernels.table.argmax(logits.data, Int32(logits.columns))) }
        guard logits.data[token].isFinite else { throw GenerationError.notFinite(what: "the logits", model: parts.name) }
        task.filter?.accept(token)
        if token == drafted { task.result.speculation?.accepted += 1 }
        if let probabilities { task.onProbabilities?(probabilities[token], probabilities.top(task.request.logProbabilities ?? 0)) }
        if task.take(token), !isCut(task) {
            task.stage = .decode(token: token)
        } else {
            finish(task)
        }
    }

    // MARK: - One request

    /// Answers one request on the calling thread.
    /// - Throws: ``GenerationError``, ``BudgetError``, ``ComputeError``, `CancellationError`.
    func generate(
        _ request: EngineRequest, cancellation: Cancellation, trace: Trace? = nil, onProgress: ((GenerationProgress) -> Void)? = nil,
        onTask: ((GenerationTask) -> Void)? = nil, onToken: (Int) -> Bool
    ) throws -> EngineResult {
        try withoutActuallyEscaping(onToken) { onToken in
            let task = GenerationTask(request, cancellation: cancellation, trace: trace, onProgress: onProgress, onToken: onToken)
            onTask?(task)
            while !task.isDone { step([task]) }
            return try task.outcome?.get() ?? task.result
        }
    }
}
