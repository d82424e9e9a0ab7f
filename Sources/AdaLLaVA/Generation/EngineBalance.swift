/// Policy of a server under overload.
struct LoadBalance: Sendable {
    /// Time limit of requests without a budget of time.
    var patience = Duration.seconds(30)
}

/// Rows of prompts and images that a step may take besides decoded tokens.
struct StepPace {
    /// Rows of prompts.
    var promptRows = BatchRunner.chunk
    /// Nanoseconds for an image; `nil`: as long as it takes.
    var imageNanoseconds: Double?
    /// Predicted nanoseconds of the answers' rows, and of one row of the first prompt; `nil` where nothing is predicted.
    var single: Double?, row: Double?
}

/// How requests share a step, and the time that they have together.
extension Engine {
    /// Rows of prompts and images that the next step may take, so that no running answer waits much longer for its next token.
    func pace(_ held: HeldTasks = HeldTasks()) -> StepPace {
        let decoding = tasks.filter { !$0.isDone && $0.isDecoding && !held.contains($0) }
        var pace = StepPace()
        if decoding.isEmpty {
            if !held.answers.isEmpty { pace.imageNanoseconds = Engine.heldImageNanoseconds }
            return pace
        }
        guard let planner else {
            pace.promptRows = Engine.mixedChunk
            pace.imageNanoseconds = pacing.single.map { $0 * (StepPacing.imageFactor - 1) } ?? 0
            return pace
        }
        let whole = planner.times(units: planner.mostUnits)
        var longest = 0.0, rows = 0.0
        for task in decoding {
            let token = (task.timing?.times ?? whole).token(at: task.length), row = min(task.timing?.row ?? 0, token)
            (longest, rows) = (max(longest, token - row), rows + row)
        }
        let single = (longest + rows) * planner.load.values.decode
        pace.single = single
        pace.imageNanoseconds = single * (StepPacing.imageFactor - 1)
        guard let row = tasks.lazy.compactMap({ self.rowNanoseconds($0, planner) }).first else { return pace }
        let limits = decoding.compactMap { $0.timing?.limits?.perToken?.nanoseconds }
        pace.row = row
        pace.promptRows = pacing.promptRows(single: single, limits: limits, row: row, atMost: BatchRunner.chunk)
        return pace
    }

    /// Predicted nanoseconds of one more row of a prompt, beside the weights that the step reads anyhow.
    private func rowNanoseconds(_ task: GenerationTask, _ planner: TimePlanner) -> Double? {
        let (first, layers): (Int, Range<Int>)
        switch task.stage {
        case .early(let next): (first, layers) = (next, 0 ..< (task.dropping?.fastV.layer ?? 0))
        case .prefix(let next): (first, layers) = (next, (task.dropping?.fastV.layer ?? 0) ..< parts.prefixLayers)
        case .rest(let next): (first, layers) = (next, parts.prefixLayers ..< parts.decoder.layers.count)
        default: return nil
        }
        let times = task.timing?.times ?? planner.times(units: planner.mostUnits), count = 32
        func chunk(_ rows: Int) -> Double { planner.nanoseconds(first ..< first + rows, of: .chunk, layers: layers, hasLogits: false, times) }
        return max(chunk(count + 1) - chunk(1), 0) / Double(count)
    }

    /// A request that needs time, beside the others.
    private struct Claim {
        let order: WorkOrder
        let item: SharedBudget.Item
        /// `nil` for one that is not admitted yet.
        let task: GenerationTask?
        let hasDeadline: Bool
    }

    /// Who needs time now, in the order in which prompts are read.
    private func claims(_ planner: TimePlanner, _ balance: LoadBalance) -> [Claim] {
        let now = ContinuousClock.now
        func claim(
            _ order: WorkOrder, _ work: RemainingWork, _ most: Int, firstToken: ContinuousClock.Instant?, whole: ContinuousClock.Instant?, _ task: GenerationTask?
        ) -> Claim {
            var item = SharedBudget.Item(work: work, most: most)
            if let firstToken { item.leftToFirstToken = (firstToken - now).nanoseconds }
            if let whole { item.left = (whole - now).nanoseconds }
            let hasDeadline = firstToken != nil || whole != nil
            if !hasDeadline { item.left = (order.called + balance.patience - now).nanoseconds }
            return Claim(order: order, item: item, task: task, hasDeadline: hasDeadline)
        }
        let admitted = tasks.filter { !$0.isDone && !$0.isDecoding }.map { task in
            let limits = task.timing?.limits
            return claim(
                task.order, remaining(task), task.units ?? planner.mostUnits, firstToken: (limits?.firstToken).map { task.called + $0 },
                whole: (limits?.answer).map { task.called + $0 }, task)
        }
        let waiting = backlog().map { waiting in
            let work = waiting.remaining(isAdaptive: true, tokens: planner.lengths.expected(kind: waiting.kind, atMost: max(waiting.maxTokens, 1)))
            let most = parts.adaptive?.units.granted(fraction: Float(waiting.fraction)) ?? planner.mostUnits
            let order = WorkOrder(priority: waiting.priority, deadline: waiting.deadline ?? waiting.firstTokenDeadline, called: waiting.called)
            return claim(order, work, most, firstToken: waiting.firstTokenDeadline, whole: waiting.deadline, nil)
        }
        return (admitted + waiting).sorted { $0.order < $1.order }
    }

    /// Total time of all claims, with the load and the confidence of one task.
    private func budget(_ claims: [Claim], _ planner: TimePlanner, _ task: GenerationTask) -> SharedBudget {
        let loads = loads(task, planner), confidence = task.timing?.confidence ?? DeadlineOptions().confidence
        let (first, whole) = (planner.firstTokenMargin.factor(confidence: confidence), planner.wholeMargin.factor(confidence: confidence))
        return SharedBudget(claims.map(\.item), most: planner.mostUnits, promptMargin: first, tokenMargin: whole) { work, units in
            planner.predict(work, planner.times(units: units)) * loads
        }
    }

    /// Marks requests that are late under any plan: they come after the others from now on.
    /// - Returns: their places.
    @discardableResult
    private func markLate(_ claims: [Claim], _ budget: SharedBudget) -> Set<Int> {
        let hopeless = budget.hopeless
        for place in claims.indices where claims[place].hasDeadline { claims[place].task?.isLate = hopeless.contains(place) }
        return hopeless
    }

    /// Looks at requests that have just begun.
    func judge(_ task: GenerationTask) {
        guard let balance, let planner, planner.isFitted, task.deadline != nil else { return }
        let claims = claims(planner, balance)
        markLate(claims, budget(claims, planner, task))
    }

    /// The units that a request gets of those that its budget grants, when others need time too.
    func shared(_ units: Int, _ task: GenerationTask) -> Int {
        guard let balance, let planner, planner.isFitted, parts.adaptive != nil, task.request.plan == nil, units > 0 else { return units }
        let claims = claims(planner, balance)
        let budget = budget(claims, planner, task)
        let hopeless = markLate(claims, budget)
        // Somebody waits longer than anybody should: as little as possible for all without limits.
        let isOverdue = hopeless.contains { !claims[$0].hasDeadline }
        let isHopeless = claims.firstIndex { $0.task === task }.map(hopeless.contains) ?? false
        let granted = isHopeless || (isOverdue && task.timing?.limits == nil) ? 0 : min(units, budget.units)
        if granted < units {
            task.result.shrunkFrom = units
            record(task, planner, planner.times(units: granted))
        }
        return granted
    }
}
