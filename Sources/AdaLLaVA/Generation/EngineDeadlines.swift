import Foundation

/// Answers within time budgets: the remaining time is predicted from the counts of the plan, the machine's load comes from the newest layers and tokens, units are chosen
/// after the prompt has passed the prefix, and turned off later where the time left no longer pays for them.
extension Engine {
    // MARK: - Beginning

    /// Makes the predictor where a request needs it, or where measurements were kept.
    private func prepareTimes(_ request: EngineRequest) {
        guard planner == nil, let timings else { return }
        if case .time = request.budget {} else if !timings.hasMeasurements { return }
        planner = timings.makePlanner()
    }

    /// Begins to keep a request's limits.
    /// - Throws: ``BudgetError/cannotBeMet(limit:least:)`` for a strict request that not even the smallest plan answers in time;
    ///   ``BudgetError/timesNotHere(_:)`` for a trace.
    func beginTiming(_ task: GenerationTask) throws {
        // A trace shows what the model computes; copying its values out takes time of its own.
        let isTime = if case .time = task.request.budget { true } else { false }
        if task.trace != nil {
            if isTime { throw BudgetError.timesNotHere(task.request.budget.description) }
            return
        }
        prepareTimes(task.request)
        guard let planner else {
            if isTime { throw GenerationError.noTimes(model: parts.name) }
            return
        }
        planner.load.pause(until: .now)
        let request = task.request
        let limits: TimeLimits? = if case .time(let limits) = request.budget { limits } else { nil }
        let whole = planner.costPlan(parts.fullPlan)
        var timing = TaskTiming(
            limits: limits, confidence: min(max(request.deadlines.confidence, 0.5), 0.9999), shares: whole.shares, times: planner.times(whole))
        timing.expected = planner.lengths.expected(kind: request.kind, soFar: max(request.minTokens - 1, 0), atMost: max(request.maxTokens, 1))
        timing.firstTokenMargin = planner.firstTokenMargin.factor(confidence: timing.confidence)
        timing.wholeMargin = planner.wholeMargin.factor(confidence: timing.confidence)
        timing.prediction.isFitted = planner.isFitted
        timing.row = planner.row(timing.times)
        task.timing = timing

        let work = remaining(task), expected = planner.predict(work, timing.times) * loads(task, planner)
        task.timing?.prediction.set(
            encode: Duration(nanoseconds: expected.encode), prefill: Duration(nanoseconds: expected.prefill), decode: Duration(nanoseconds: expected.decode),
            waited: task.start - task.called)
        tellPrediction(task)
        guard let limits, request.deadlines.isStrict else { return }
        var situation = TimePlanner.Situation(limits: limits, work: work)
        situation.elapsed = (ContinuousClock.now - task.called).nanoseconds
        situation.loads = loads(task, planner)
        let times = parts.adaptive == nil ? timing.times : planner.times(units: 0)
        guard planner.need(situation, times) > 1 else { return }
        let phases = planner.predict(work, times) * situation.loads
        let least = limits.answer != nil ? phases.whole : limits.firstToken != nil ? phases.firstToken : times.token(at: work.slot) * situation.loads.decode
        throw BudgetError.cannotBeMet(limit: request.budget.shown, least: Duration(nanoseconds: situation.elapsed + least))
    }

    /// One more sample of the machine's load.
    func noteEncode(_ task: GenerationTask) {
        // The error of a guess for towers does not apply to layers.
        guard task.timing != nil, let planner, planner.isFitted, task.result.encodedImages > 0 else { return }
        planner.load.add(measured: task.encodeNanoseconds, predicted: Double(task.result.encodedTiles) * planner.imageNanoseconds, .encode)
    }

    /// Predicts a request; one with limits at all units, until they are chosen.
    func predict(_ task: GenerationTask) {
        guard let planner, task.timing != nil else { return }
        let units = task.units ?? planner.mostUnits
        var prefix = RemainingWork()
        let work = remaining(task)
        (prefix.early, prefix.prefix, prefix.dropped) = (work.early, work.prefix, work.dropped)
        let loads = loads(task, planner)
        if var timing = task.timing {
            timing.prefix = planner.predict(prefix, timing.times).prefill * loads.prefill
            if let limits = timing.limits, parts.adaptive == nil {
                timing.prediction.isLate = planner.need(situation(task, timing, limits), timing.times) > 1
            }
            task.timing = timing
        }
        record(task, planner, parts.adaptive == nil ? planner.times(planner.costPlan(parts.fullPlan)) : planner.times(units: units))
    }

    /// Stores the prediction from here on, with the prefix layers' part as predicted before they ran.
    func record(_ task: GenerationTask, _ planner: TimePlanner, _ times: PlanTimes) {
        guard var timing = task.timing else { return }
        var work = remaining(task)
        (work.early, work.prefix) = (0 ..< 0, 0 ..< 0)
        let loads = loads(task, planner), phases = planner.predict(work, times) * loads
        let (prefillCenter, decodeCenter) = (planner.firstTokenMargin.center, planner.wholeMargin.center)
        timing.prediction.set(
            encode: timing.prediction.times.encode, prefill: Duration(nanoseconds: (timing.prefix + phases.prefill * timing.crowding) * prefillCenter),
            decode: Duration(nanoseconds: phases.decode * timing.crowding * decodeCenter),
            waited: task.start - task.called)
        timing.prediction.perToken = Duration(
            nanoseconds: times.token(at: task.elements.count + 1, dropped: work.dropped ?? 0) * loads.decode * timing.crowding * decodeCenter)
        (timing.prediction.tokens, timing.prediction.load) = (timing.expected, loads.prefill)
        (timing.chosen, timing.loadsAtChoice) = (.now, loads)
        (timing.idle, timing.idleToFirstToken) = (PhaseNanoseconds(), PhaseNanoseconds())
        (timing.others, timing.othersToFirstToken) = (0, 0)
        task.timing = timing
        tellPrediction(task)
    }

    private func tellPrediction(_ task: GenerationTask) {
        if let times = task.timing?.prediction.times { task.request.onPrediction?(times) }
    }

    // MARK: - Choosing

    func loads(_ task: GenerationTask, _ planner: TimePlanner) -> PhaseLoads {
        task.request.deadlines.followsLoad ? planner.load.values : PhaseLoads()
    }

    /// Remaining work of a task. Before its images are encoded, only cached features are known of earlier results.
    func remaining(_ task: GenerationTask) -> RemainingWork {
        let isBegun = !task.elements.isEmpty, isAdaptive = parts.adaptive != nil
        let prompt = isBegun ? task.elements.count : parts.leastPositions(task.request)
        let rows = prompt - task.droppedRows
        var work = RemainingWork()
        work.dropped = task.dropping == nil ? nil : task.droppedRows
        work.slot = prompt + (isAdaptive ? 1 : 0)
        work.tokens = max((task.timing?.expected ?? 1) - 1, 0)
        switch task.stage {
        case .early(let next):
            work.setPrompt(prompt, dropped: task.droppedRows, isAdaptive: isAdaptive)
            work.early = min(next, prompt) ..< prompt
        case .prefix(let next):
            work.prefix = min(next, rows) ..< rows
            if isAdaptive { (work.latencySlot, work.rest) = (prompt, 0 ..< rows + 1) }
        case .latency: (work.latencySlot, work.rest) = (task.schedulerLogits.isEmpty ? prompt : nil, 0 ..< rows + 1)
        case .rest(let next): work.rest = next ..< rows + 1
        case .decode:
            work.slot = task.length
            work.tokens = max((task.timing?.expected ?? 1) - task.result.tokens.count, 1)
            work.isBeforeFirstToken = false
        case .waiting, .encode:
            let images = task.request.images.dropFirst(task.features.count)
            work.images = images.reduce(-(task.encoding?.tile ?? 0)) { $0 + (task.request.reuses && featureCache.find($1.key) != nil ? 0 : $1.tiles) }
            work.setPrompt(prompt, dropped: leastDropped(task.request), isAdaptive: isAdaptive)
        case .done: break
        }
        return work
    }

    private func situation(_ task: GenerationTask, _ timing: TaskTiming, _ limits: TimeLimits) -> TimePlanner.Situation {
        var situation = TimePlanner.Situation(limits: limits, work: remaining(task))
        let now = ContinuousClock.now
        situation.elapsed = (now - task.called).nanoseconds
        if let prefilled = task.prefilled { situation.decoding = (now - prefilled).nanoseconds }
        situation.decoded = max(task.result.tokens.count - 1, 0)
        situation.crowding = timing.crowding
        if let planner { situation.loads = loads(task, planner) }
        (situation.firstTokenMargin, situation.wholeMargin) = (timing.firstTokenMargin, timing.wholeMargin)
        situation.canShrink = parts.adaptive != nil && task.request.plan == nil && task.request.deadlines.changesPlans
        return situation
    }

    /// The units that the time left pays for, with the newest load; or those that the input needs.
    func chooseUnits(_ task: GenerationTask) -> Int {
        if case .automatic(let automatic) = task.request.budget {
            guard let adaptive = parts.adaptive, let head = adaptive.budgetHead, let hidden = task.hidden else { return 0 }
            let units = head.units(hidden.row(task.promptRows - 1), automatic, of: adaptive.units)
            if let planner { record(task, planner, planner.times(units: units)) }
            return units
        }
        guard let planner, let timing = task.timing, let limits = timing.limits else { return 0 }
        let choice = planner.choose(situation(task, timing, limits), atMost: planner.mostUnits)
        record(task, planner, planner.times(units: choice.units))
        task.timing?.prediction.isLate = choice.isLate
        return choice.units
    }

    /// Turns off units that the remaining time does not allow. None is turned on again, because its keys and values do not exist.
    func keepInTime(_ task: GenerationTask) {
        guard let planner, task.request.plan == nil, task.request.deadlines.changesPlans else { return }
        // Once more where the scheduler's choice turns out to cost more than as many units spread evenly.
        while let units = task.units, units > 0, var timing = task.timing, let limits = timing.limits {
            switch task.stage {
            case .latency where !task.schedulerLogits.isEmpty, .rest, .decode: break
            default: return
            }
            if task.result.tokens.count >= timing.expected {
                timing.expected = planner.lengths.expected(kind: task.request.kind, soFar: task.result.tokens.count, atMost: task.request.maxTokens)
                task.timing = timing
            }
            var now = situation(task, timing, limits)
            // Half the margin: the scheduler's units may cost slightly more than evenly spread ones, which is no reason for a change.
            now.firstTokenMargin = timing.firstTokenMargin.squareRoot()
            if planner.need(now, timing.times) <= 1 { return }
            let evenly = planner.times(units: units).token(at: now.work.slot, dropped: task.droppedRows)
            now.crowding *= evenly > 0 ? timing.times.token(at: now.work.slot, dropped: task.droppedRows) / evenly : 1
            let choice = planner.choose(now, atMost: units - 1)
            guard shrink(task, to: choice.units) || task.units != units else { return }
            task.timing?.note(PlanChange(tokens: task.result.tokens.count, from: units, to: choice.units))
        }
    }

    /// Whether an answer ends here because its time is over, or because no further sentence fits.
    func isCut(_ task: GenerationTask) -> Bool {
        guard task.request.deadlines.cutsAnswers, let planner, let timing = task.timing, let limit = timing.limits?.answer else { return false }
        let left = limit.nanoseconds - (ContinuousClock.now - task.called).nanoseconds
        let token = timing.times.token(at: task.length, dropped: task.droppedRows) * loads(task, planner).decode * timing.crowding * timing.wholeMargin
        let count = task.result.tokens.count
        // A sentence as long as those so far, and at least of a few words.
        let ends = task.endsSentence()
        if ends { task.sentences += 1 }
        let isAtSentence = ends && left < token * Double(max(count / task.sentences, 8))
        guard left < token || isAtSentence else { return false }
        task.result.finish = .deadline
        return true
    }

    // MARK: - Learning

    /// Predicts a step, and notes each task's share of it.
    /// - Returns: nanoseconds of the step on an idle machine, and of each task's own rows.
    func predictStep(_ tasks: [GenerationTask], _ segments: [BatchSegment]) -> (step: Double, own: [Double]) {
        var own = [Double](repeating: 0, count: tasks.count), single = 0.0, rows = 0.0, chunks = 0.0
        guard let planner else { return (0, own) }
        for (index, task) in tasks.enumerated() {
            guard let timing = task.timing else { continue }
            let segment = segments[index]
            own[index] = planner.nanoseconds(
                segment.slot ..< segment.slot + segment.rows, of: segment.role == .single ? .single : .chunk, layers: segment.layers,
                hasLogits: segment.logitRows > 0, dropped: task.droppedRows, timing.times)
            if segment.role == .single {
                // One read of the weights serves all single rows; each row beside the longest is multiplied.
                let row = min(timing.row, own[index])
                rows += row
                single = max(single, own[index] - row)
            } else {
                chunks += own[index]
            }
        }
        let step = single + rows + chunks
        for (index, task) in tasks.enumerated() where own[index] > 0 { task.timing?.ownShare = own[index] / step }
        return (step, own)
    }

    /// Learns the machine's load, and how long requests wait for each other, from a step.
    /// - Parameters:
    ///   - predicted: the result of ``predictStep(_:_:)``.
    ///   - isDrafted: whether the step verified drafts: then its time says how long drafts take, and not how loaded the machine is.
    func account(
        _ tasks: [GenerationTask], _ segments: [BatchSegment], predicted: (step: Double, own: [Double]), elapsed: Double, isChunked: Bool,
        isDrafted: Bool
    ) {
        guard let planner else { return }
        if isDrafted { return accountDrafts(tasks, elapsed: elapsed) }
        let (step, own) = predicted
        if let onSample = planner.onSample, tasks.count == 1, let timing = tasks[0].timing {
            let segment = segments[0]
            let isLatency = !isChunked && segment.logitRows == 0
            var counts = planner.counter.step(
                logitRows: segment.logitRows, chunkRows: isChunked ? Double(segment.rows) : 0, latencyTokens: isLatency ? 1 : 0)
            if !isChunked {
                for layer in segment.layers {
                    let share = timing.shares[layer]
                    counts += planner.counter.single(share, keys: planner.counter.keys(segment.slot(in: layer), share.kind))
                }
            }
            onSample(counts, elapsed - (isChunked ? planner.layerNanoseconds : 0))
        }
        planner.layerNanoseconds = 0
        // The layers of chunks have been counted one by one.
        if !isChunked { planner.load.add(measured: elapsed, predicted: step, tasks.contains(where: \.isDecoding) ? .decode : .prefill) }
        for (index, task) in tasks.enumerated() where own[index] > 0 {
            guard var timing = task.timing else { continue }
            timing.crowding = tasks.count == 1 ? 1 : (timing.crowding + step / own[index]) / 2
            if task.result.tokens.count <= 1 { timing.idle.prefill += own[index] } else { timing.idle.decode += own[index] }
            if task.result.tokens.count <= 1 { timing.idleToFirstToken = timing.idle }
            task.timing = timing
        }
    }

    /// Counts a step with drafts as predicted as it was: the margins of predictions are learned from other steps.
    private func accountDrafts(_ tasks: [GenerationTask], elapsed: Double) {
        for task in tasks {
            guard var timing = task.timing else { continue }
            timing.idle.decode += elapsed * timing.ownShare / max(timing.loadsAtChoice.decode, 1e-3)
            if task.result.tokens.count <= 1 { timing.idleToFirstToken = timing.idle }
            task.timing = timing
        }
    }

    /// Learns errors of predictions, and lengths of answers, from a finished answer.
    func learn(_ task: GenerationTask) {
        guard let planner, let timing = task.timing, task.trace == nil else { return }
        let now = ContinuousClock.now
        // The step that ends the answer is not counted yet.
        let others = stepStart.map { (now - $0).nanoseconds * (1 - timing.ownShare) } ?? 0
        let othersToFirstToken = task.result.tokens.count > 1 ? 0 : others
        task.result.prediction = timing.prediction
        let isComplete = task.result.finish == .endOfAnswer || task.result.finish == .stopText || task.result.finish == .maxTokens
        // A least length says nothing about how long answers of this kind are by themselves.
        if isComplete, !task.request.kind.isEmpty, task.request.minTokens == 0 { planner.lengths.add(task.result.tokens.count, kind: task.request.kind) }
        guard let chosen = timing.chosen else { return }
        func missed(_ limit: Duration?, _ time: Duration) -> Bool? { timing.prediction.isLate ? nil : limit.map { time > $0 } }
        let firstToken = task.called.advanced(by: task.result.measured.timeToFirstToken)
        planner.firstTokenMargin.add(
            measured: max((firstToken - chosen).nanoseconds - timing.othersToFirstToken - othersToFirstToken, 1), predicted: (timing.idleToFirstToken * timing.loadsAtChoice).whole,
            missed: missed(timing.limits?.firstToken, task.result.measured.timeToFirstToken), confidence: timing.confidence)
        planner.wholeMargin.add(
            measured: max((now - chosen).nanoseconds - timing.others - others, 1), predicted: (timing.idle * timing.loadsAtChoice).whole,
            missed: missed(timing.limits?.answer, now - task.called),
            confidence: timing.confidence)
    }

    /// Stores the learned values after an answer.
    func keepTimes(_ task: GenerationTask) {
        if let planner, planner.isFitted, task.timing?.limits != nil { timings?.keep(planner) }
    }
}
