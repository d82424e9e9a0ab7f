/// The most units that every request may run so that all of them are in time: budgets of all shrink together before any request is refused.
///
/// Prompts are read one after the other, in order, and what comes later is held where it would make an answer late (``Engine/heldTasks()``). A request is then
/// in time if
///
///     earlier prompts + (its own prompt + its tokens) * margin  <=  its time left
///
/// and fewer units shorten every term. The margin is for errors of predictions, which earlier prompts have in both directions. Requests that are late even at
/// the floor and without a margin are left out: they go last, and cost nobody else a deadline. Those that are late at the floor only with a margin count without.
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
    /// Factors that a request's own prompt and tokens are kept with.
    private let promptMargin, tokenMargin: Double
    /// Which requests are late however little runs, by place.
    package private(set) var hopeless: Set<Int> = []
    /// Requests that are in time at the floor only if nothing takes longer than expected.
    private var tight: Set<Int> = []

    /// - Parameters:
    ///   - items: in the order in which their prompts are read.
    ///   - predict: the expected nanoseconds of work under so many units.
    package init(
        _ items: [Item], most: Int, promptMargin: Double = 1, tokenMargin: Double = 1, predict: @escaping (RemainingWork, Int) -> PhaseNanoseconds
    ) {
        (self.items, self.most, self.promptMargin, self.tokenMargin, self.predict) = (items, most, promptMargin, tokenMargin, predict)
        hopeless = late(units: 0, withMargin: false)
        tight = late(units: 0, withMargin: true)
    }

    /// The most units at which all requests but the hopeless ones are in time.
    package var units: Int {
        var (fitting, tooMany) = (0, most + 1)
        while tooMany - fitting > 1 {
            let middle = (fitting + tooMany) / 2
            if late(units: middle, withMargin: true).isEmpty { fitting = middle } else { tooMany = middle }
        }
        return fitting
    }

    /// Requests that are not in time if each runs at most `units`. Prompts of those that are found late are not waited for.
    private func late(units: Int, withMargin: Bool) -> Set<Int> {
        var before = 0.0, late: Set<Int> = []
        for (place, item) in items.enumerated() where !hopeless.contains(place) {
            let phases = predict(item.work, min(units, item.most)), hasMargin = withMargin && !tight.contains(place)
            let prompt = phases.firstToken * (hasMargin ? promptMargin : 1), tokens = phases.decode * (hasMargin ? tokenMargin : 1)
            if before + prompt > item.leftToFirstToken || before + prompt + tokens > item.left { late.insert(place) } else { before += phases.firstToken }
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
