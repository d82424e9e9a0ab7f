/// The most units that every request may run so that all of them are in time: budgets of all shrink together before any request is refused.
///
/// Prompts are read one after the other, in order; answers grow beside each other, slowed by the prompts that are read meanwhile. A request is then in time if
///
///     its own and earlier prompts + its tokens + later prompts, as far as they slow its tokens  <=  its time left
///
/// and fewer units shorten every term. Requests that are late even at the floor are left out: they go last, and cost nobody else a deadline.
package struct SharedBudget {
    /// One request, in the order in which prompts are read.
    package struct Item {
        package var work: RemainingWork
        /// The most units that it was granted.
        package var most: Int
        /// Nanoseconds until the answer is to be complete, and until its first token.
        package var left = Double.infinity, leftToFirstToken = Double.infinity

        package init(work: RemainingWork, most: Int, left: Double = .infinity, leftToFirstToken: Double = .infinity) {
            (self.work, self.most, self.left, self.leftToFirstToken) = (work, most, left, leftToFirstToken)
        }
    }

    private let items: [Item]
    private let predict: (RemainingWork, Int) -> PhaseNanoseconds
    private let most: Int
    /// What tokens take at most while prompts are read, over what they take without.
    private let slowdown: Double

    /// - Parameters:
    ///   - items: in the order in which their prompts are read.
    ///   - predict: nanoseconds of work under so many units, with load and margin.
    package init(_ items: [Item], most: Int, slowdown: Double = StepPacing.promptFactor, predict: @escaping (RemainingWork, Int) -> PhaseNanoseconds) {
        (self.items, self.most, self.slowdown, self.predict) = (items, most, slowdown, predict)
    }

    /// Which requests are late however little runs, by place.
    package var hopeless: Set<Int> { late(units: 0, without: []) }

    /// The most units at which all requests but those of `hopeless` are in time.
    package func units(without hopeless: Set<Int>) -> Int {
        var (fitting, tooMany) = (0, most + 1)
        while tooMany - fitting > 1 {
            let middle = (fitting + tooMany) / 2
            if late(units: middle, without: hopeless).isEmpty { fitting = middle } else { tooMany = middle }
        }
        return fitting
    }

    /// Requests that are not in time if each runs at most `units`. Prompts of those that are found late are not waited for.
    private func late(units: Int, without left: Set<Int>) -> Set<Int> {
        let phases = items.map { predict($0.work, min(units, $0.most)) }
        var after = phases.indices.reduce(0) { left.contains($1) ? $0 : $0 + phases[$1].firstToken }
        var before = 0.0, late: Set<Int> = []
        for (place, item) in items.enumerated() where !left.contains(place) {
            let (prompt, tokens) = (phases[place].firstToken, phases[place].decode)
            after -= prompt
            let whole = before + prompt + tokens + min(max(after, 0), tokens * (slowdown - 1))
            if before + prompt > item.leftToFirstToken || whole > item.left { late.insert(place) } else { before += prompt }
        }
        return late
    }
}

/// A request that waits to be computed, as far as its time can be predicted.
package struct QueuedWork: Sendable, Equatable {
    /// Positions of its prompt, images included, and images that may have to be encoded.
    package var positions: Int, images: Int
    /// The longest answer, and the kind of question for the expected length.
    package var maxTokens: Int, kind: String
    /// The fraction of compute that it asks for at most.
    package var fraction = 1.0
    /// Lower ones come first.
    package var priority = 0
    /// When the answer, and its first token, are to be there.
    package var deadline: ContinuousClock.Instant?, firstTokenDeadline: ContinuousClock.Instant?
    package var called: ContinuousClock.Instant

    package init(positions: Int, images: Int, maxTokens: Int, kind: String = "", called: ContinuousClock.Instant = .now) {
        (self.positions, self.images, self.maxTokens, self.kind, self.called) = (positions, images, maxTokens, kind, called)
    }

    /// - Parameter tokens: that the answer is expected to have.
    func remaining(isAdaptive: Bool, tokens: Int) -> RemainingWork {
        var work = RemainingWork()
        (work.images, work.prefix) = (images, 0 ..< positions)
        if isAdaptive { (work.latencySlot, work.rest) = (positions, 0 ..< positions + 1) }
        (work.tokens, work.slot) = (max(tokens - 1, 0), positions + (isAdaptive ? 1 : 0))
        return work
    }
}

/// The order in which requests' prompts are read.
package struct WorkOrder: Comparable, Sendable {
    /// Lower ones first.
    package let priority: Int
    /// Whether the deadline cannot be kept: such requests come after those that can be in time.
    package let isLate: Bool
    /// `nil` comes last.
    package let deadline: ContinuousClock.Instant?
    package let called: ContinuousClock.Instant

    package init(priority: Int, isLate: Bool = false, deadline: ContinuousClock.Instant?, called: ContinuousClock.Instant) {
        (self.priority, self.isLate, self.deadline, self.called) = (priority, isLate, deadline, called)
    }

    package static func < (a: WorkOrder, b: WorkOrder) -> Bool {
        if a.priority != b.priority { return a.priority < b.priority }
        if a.isLate != b.isLate { return b.isLate }
        switch (a.deadline, b.deadline) {
        case (let first?, let second?) where first != second: return first < second
        case (_?, nil): return true
        case (nil, _?): return false
        default: return a.called < b.called
        }
    }
}
