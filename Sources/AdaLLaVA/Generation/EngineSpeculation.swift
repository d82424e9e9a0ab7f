import AdaKernels
import Foundation

/// Drafts and their verification. The prefix layers draft token after token in steps of their own; then the rows of each sequence pass the layers after
/// the prefix in one step with the rows of all others. A drafted row's slot beyond the accepted ones is filled anew before any row attends to it.
extension Engine {
    /// Drafts of one step.
    struct StepDrafts {
        let kind: SpeculationCosts.Kind
        let share: Double
        var drafted = 0
        /// Whether what the step takes is measured for the choice of later ones.
        var isMeasured = true
    }

    /// Begins to speculate for a request that wants it, where positions can be taken back: states of convolutions cannot.
    func beginSpeculation(_ task: GenerationTask) {
        guard task.request.speculation != .off, task.trace == nil, !parts.hasConvolutions else { return }
        task.speculation = TaskSpeculation(task.request.speculation, task.sampler)
        task.result.speculation = SpeculationCounts()
    }

    /// Drafts for the running answers that speculate.
    /// - Parameter held: tasks that the step leaves out.
    /// - Returns: `nil` if there are none.
    func makeDrafts(_ held: HeldTasks) -> StepDrafts? {
        let decoding = tasks.filter { !$0.isDone && $0.isDecoding && !held.contains($0) }
        guard decoding.contains(where: { $0.speculation != nil }) else { return nil }
        // The newest token is counted among the context's.
        var drafting: [(task: GenerationTask, draft: Draft, most: Int)] = [], isFloor = false
        for task in decoding {
            task.draft = nil
            guard let speculation = task.speculation else { continue }
            keepInTime(task)
            let room = min(task.request.maxTokens - task.result.tokens.count, task.capacity - task.length) - 1
            var most = min(room, Speculation.mostTokens)
            if case .tokens(let count) = speculation.mode { most = min(most, count) }
            guard most > 0 else { continue }
            if runsRest(task) {
                drafting.append((task, Draft(source: .floor), most))
                isFloor = true
            } else if let found = lookUp(task, most) {
                drafting.append((task, Draft(source: .lookup(matched: found.matched), tokens: found.tokens), found.tokens.count))
            }
        }
        let units = decoding.reduce(0) { $0 + ($1.units ?? 0) }
        let layers = Double(parts.decoder.layers.count), prefix = Double(parts.prefixLayers)
        var step = StepDrafts(
            kind: SpeculationCosts.Kind(sequences: decoding.count, units: units, isFloor: isFloor), share: isFloor ? (prefix + 1) / (layers + 1) : 0.1)
        // Where prompts are read, multiplications bound the step.
        let isMixed = decoding.count < tasks.count { !$0.isDone && !held.contains($0) }
        step.isMeasured = !isMixed
        let automatic = drafting.filter { $0.task.speculation?.mode == .auto }
        var count = 0
        if !automatic.isEmpty, !isMixed {
            let candidates = automatic.map { SpeculationCosts.Candidate(most: $0.most, acceptance: rate($0.task, $0.draft.source)) }
            count = costs.choose(step.kind, candidates, share: step.share, others: decoding.count - automatic.count)
        }
        var floor: [(task: GenerationTask, draft: Draft, most: Int)] = []
        for var item in drafting {
            let most = item.task.speculation?.mode == .auto ? min(item.most, count) : item.most
            guard most > 0, reserveDraft(item.task, item.draft.source, rows: most + 1) else { continue }
            item.most = most
            if item.draft.source == .floor {
                floor.append(item)
            } else {
                item.draft.tokens.removeLast(item.draft.tokens.count - most)
                item.draft.rows = most + 1
                item.task.draft = item.draft
            }
        }
        draftWithPrefix(floor)
        step.drafted = decoding.reduce(0) { $0 + ($1.draft?.tokens.count ?? 0) }
        return step
    }

    /// Learns what a step with or without drafts took.
    func note(_ step: StepDrafts, nanoseconds: Double) {
        if step.isMeasured { costs.add(step.kind, drafts: step.drafted, nanoseconds: nanoseconds, share: step.share) }
    }

    private func rate(_ task: GenerationTask, _ source: DraftSource) -> Double {
        task.speculation?.rates[source]?.value ?? costs.rate(source)
    }

    /// Whether layers after the prefix run for a request: else drafting takes as long as answering.
    private func runsRest(_ task: GenerationTask) -> Bool {
        guard parts.adaptive != nil, let sequence = task.sequence else { return false }
        return (parts.prefixLayers ..< parts.decoder.layers.count).contains { !sequence.selections[$0].isSkipped }
    }

    private func lookUp(_ task: GenerationTask, _ count: Int) -> (tokens: [Int], matched: Int)? {
        guard var known = task.speculation?.context.count else { return nil }
        if known == 0 {
            task.speculation?.context = task.elements.map { if case .token(let token) = $0 { token } else { -1 } }
            known = task.elements.count
        }
        task.speculation?.context += task.result.tokens.dropFirst(known - task.elements.count).map(Int32.init)
        return PromptLookup.find(task.speculation?.context ?? [], count: count)
    }

    /// Reserves memory for a draft's keys and values, if there is some: an answer does not fail for its draft.
    private func reserveDraft(_ task: GenerationTask, _ source: DraftSource, rows: Int) -> Bool {
        guard let sequence = task.sequence else { return false }
        let (prefix, layers, slots) = (parts.prefixLayers, parts.decoder.layers.count, task.length ..< task.length + rows)
        do {
            if source != .floor {
                try runner.reserve(sequence, slots, layers: 0 ..< layers)
            } else {
                let first = sequence.slots(task.length, in: prefix)
                try runner.reserve(sequence, first ..< first + rows, layers: prefix ..< layers)
                // Last, for the steps that draft.
                try runner.reserve(sequence, slots, layers: 0 ..< prefix)
            }
            return true
        } catch { return false }
    }

    /// Drafts token after token with the prefix layers and the output layer.
    private func draftWithPrefix(_ drafting: [(task: GenerationTask, draft: Draft, most: Int)]) {
        var running = drafting
        for index in running.indices {
            let task = running[index].task
            if task.speculation?.states == nil {
                task.speculation?.states = Tensor(rows: Speculation.mostTokens + 1, columns: parts.decoder.configuration.hiddenSize)
            }
            task.speculation?.sampler.follow(task.sampler)
        }
        while !running.isEmpty {
            var segments: [BatchSegment] = []
            for (task, draft, most) in running {
                guard case .decode(let token) = task.stage, let sequence = task.sequence, let states = task.speculation?.states else { return }
                let slot = task.length + draft.rows
                segments.append(
                    BatchSegment(
                        sequence: sequence, role: .single, position: task.position(slot), slot: slot, layers: 0 ..< parts.prefixLayers,
                        input: .token(draft.tokens.last ?? token), output: states.rows(draft.rows ..< draft.rows + 1),
                        logitRows: draft.tokens.count < most ? 1 : 0, cancellation: task.cancellation))
            }
            // Without drafts answers go on as ever; an error of the model shows in their own steps.
            guard let output = try? runner.step(segments) else { return }
            var next: [(task: GenerationTask, draft: Draft, most: Int)] = []
            for (index, item) in running.enumerated() {
                if item.task.cancellation.isCancelled { continue }
                var item = item
                item.draft.rows += 1
                guard let logits = output.last(index) else {
                    item.task.draft = item.draft
                    continue
                }
                let token = draftedToken(item.task, logits, after: item.draft.tokens.count)
                item.draft.tokens.append(token)
                // Nothing follows the end.
                if item.task.request.endTokens.contains(token) { item.task.draft = item.draft } else { next.append(item) }
            }
            running = next
        }
    }

    private func draftedToken(_ task: GenerationTask, _ logits: Tensor, after count: Int) -> Int {
        if task.result.tokens.count + count < task.request.minTokens {
            for token in task.request.endTokens where token < logits.columns { logits.data[token] = -.infinity }
        }
        return task.speculation?.sampler.next(logits, workspace.kernels.table) ?? 0
    }

    /// The rows that verify a draft: those of the prefix layers go on from there.
    func verification(_ task: GenerationTask, _ draft: Draft, _ sequence: TokenSequence, token: Int) -> BatchSegment {
        let (prefix, layers) = (parts.prefixLayers, parts.decoder.layers.count)
        if draft.source == .floor, let states = task.speculation?.states {
            return BatchSegment(
                sequence: sequence, role: .single, position: task.position(task.length), slot: sequence.slots(task.length, in: prefix),
                layers: prefix ..< layers, input: .hidden(states.rows(0 ..< draft.rows)), logitRows: draft.rows, cancellation: task.cancellation)
        }
        return BatchSegment(
            sequence: sequence, role: .single, position: task.position(task.length), slot: task.length, layers: 0 ..< layers,
            input: .tokens([token] + draft.tokens.prefix(draft.rows - 1)), logitRows: draft.rows, cancellation: task.cancellation)
    }

    /// Chooses token after token as long as each is the one that was drafted; the first that is not comes from the same logits as without drafts.
    func verify(_ task: GenerationTask, _ draft: Draft, _ logits: Tensor) throws {
        task.draft = nil
        task.result.speculation?.drafted += draft.tokens.count
        task.result.speculation?.verifications += 1
        let accepted = task.result.speculation?.accepted ?? 0, sequence = task.sequence
        var row = 0
        while true {
            task.length += 1
            let expected = row < draft.tokens.count ? draft.tokens[row] : nil
            try sample(task, logits.rows(row ..< row + 1), drafted: expected)
            row += 1
            guard row < draft.rows, case .decode(let token) = task.stage, token == expected else { break }
            try task.cancellation.check()
        }
        let right = (task.result.speculation?.accepted ?? 0) - accepted, isRejected = right < min(row, draft.tokens.count)
        costs.add(draft.source, accepted: right, isRejected: isRejected)
        task.speculation?.rates[draft.source, default: AcceptanceRate(expected: costs.rate(draft.source), weight: 3, decay: 0.9)]
            .add(accepted: right, isRejected: isRejected)
        if row < draft.rows { sequence?.truncate(to: task.length) }
    }
}
