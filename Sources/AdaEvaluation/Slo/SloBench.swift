import AdaLLaVA
import Foundation
import Synchronization

/// Measures how many requests meet their deadlines when more arrive than the machine can answer: one trace, replayed at several loads and by several
/// policies, through the server's own admission and engine.
package struct SloBench: Sendable {
    /// The order in which requests are admitted, and their budgets.
    package enum Policy: String, Sendable, CaseIterable {
        /// As the server does: budgets that shrink, deadlines, refusals.
        case ours
        /// At the full budget: in the order of arrival, and by the earliest deadline.
        case arrival = "arrival, full budget"
        case deadline = "deadline, full budget"

        var admission: Admission.Policy {
            switch self {
            case .ours: .fair
            case .arrival: .arrival
            case .deadline: .deadline
            }
        }
    }

    package var trace: SloTrace
    /// Answers that are computed at once; requests that wait are not limited, so that all policies see the same ones.
    package var concurrent = 32
    /// Seconds of a replay at a load of 1.
    package var seconds: Double
    /// Time in which requests without a deadline should be answered.
    package var patience = Duration.seconds(30)
    /// Tokens of an image.
    package var imageTokens: Int
    /// The smallest budget, and the steps from it to 1.
    package var floor: Double, steps: Int

    /// The times of one request.
    package struct Outcome: Sendable {
        /// Seconds from the arrival to the first token and to the last; `nil` for a request that was refused.
        package var firstToken: Double?, whole: Double?
        /// Seconds that it was allowed; `nil` for bulk work.
        package var allowed: Double?
        /// The budget that it got; 0 if it was refused.
        package var budget = 0.0

        package var isInTime: Bool { whole.map { time in allowed.map { time <= $0 } ?? true } ?? false }
    }

    /// One replay.
    package struct Run: Sendable {
        package let load: Double
        package let policy: Policy
        package let outcomes: [Outcome]
        /// Seconds until the last answer.
        package let seconds: Double
    }

    package init(trace: SloTrace, seconds: Double, imageTokens: Int, floor: Double, steps: Int) {
        (self.trace, self.seconds, self.imageTokens, self.floor, self.steps) = (trace, seconds, imageTokens, floor, steps)
    }

    /// Lets no token end an answer, so that its length is the trace's.
    private final class Endless: TokenFilter {
        private let endTokens: Set<Int>

        init(_ endTokens: Set<Int>) { self.endTokens = endTokens }

        func mask(_ logits: UnsafeMutableBufferPointer<Float>) {
            for token in endTokens where logits.indices.contains(token) { logits[token] = -.infinity }
        }

        func accept(_ token: Int) {}
    }

    /// Counts from 1 on, for tasks that run at the same time.
    private final class Tally: Sendable {
        private let count = Mutex(0)

        var value: Int { count.withLock { $0 } }

        func next() -> Int {
            count.withLock { count in
                count += 1
                return count
            }
        }
    }

    /// The model's side of a request.
    struct Prompts: Sendable {
        let image: [PreparedImage]
        let endTokens: Set<Int>
        let vocabulary: Int

        init(_ model: AdaptiveModel) throws {
            image = model.hasVision ? try SyntheticInput.image().map { [try model.imagePreparation($0)] } ?? [] : []
            let table = try model.tokenTable()
            (endTokens, vocabulary) = (table.endTokens, table.bytes.count)
        }

        func tokens(_ request: SloTrace.Request, _ index: Int) -> [Int] {
            let text = SyntheticInput.tokens(request.prompt, vocabulary: vocabulary, seed: UInt64(index) &+ 1)
            return Array(repeating: PromptEncoder.imageToken, count: min(request.images, image.count)) + text
        }
    }

    // MARK: - Measuring

    /// Seconds that requests take by themselves at a budget, fitted to some of them.
    func isolated(_ model: AdaptiveModel, _ prompts: Prompts, budget: Double, onProgress: (Int, Int) -> Void) async throws -> IsolatedTimes {
        let count = min(16, trace.requests.count)
        // The shortest, the longest, and those between, of both kinds.
        let sorted = trace.requests.enumerated().sorted { ($0.element.images, $0.element.prompt + $0.element.answer) < ($1.element.images, $1.element.prompt + $1.element.answer) }
        let chosen = (0 ..< count).map { sorted[$0 * (sorted.count - 1) / max(count - 1, 1)] }
        var seconds: [Double] = []
        for (place, item) in chosen.enumerated() {
            onProgress(place, count)
            var least = Double.infinity
            for _ in 0 ..< 2 {
                let (tokens, request) = (prompts.tokens(item.element, item.offset), item.element)
                least = min(least, try await answer(model, prompts, request, tokens, .fraction(budget), GenerationOptions()).whole)
            }
            seconds.append(least)
        }
        return IsolatedTimes(chosen.map(\.element), seconds: seconds, imageTokens: imageTokens)
    }

    /// Requests that the machine answers in a second at the full budget, when there is always one that waits.
    func capacity(_ model: AdaptiveModel, _ prompts: Prompts, seconds: Double, onProgress: @escaping @Sendable (Int) -> Void) async throws -> Double {
        let start = ContinuousClock.now, done = Tally(), asked = Tally()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0 ..< concurrent {
                group.addTask {
                    while (.now - start) / .seconds(1) < seconds {
                        let index = (asked.next() - 1) % trace.requests.count
                        let request = trace.requests[index]
                        _ = try await answer(model, prompts, request, prompts.tokens(request, index), .full, GenerationOptions())
                        // A request that ends after the measured time counts for its part before the end.
                        if (.now - start) / .seconds(1) <= seconds { onProgress(done.next()) }
                    }
                }
            }
            try await group.waitForAll()
        }
        return Double(max(done.value, 1)) / seconds
    }

    private func answer(
        _ model: AdaptiveModel, _ prompts: Prompts, _ request: SloTrace.Request, _ tokens: [Int], _ budget: Budget, _ options: GenerationOptions
    ) async throws -> (firstToken: Double, whole: Double, summary: AnswerSummary) {
        var options = options
        (options.maxTokens, options.reusesEarlierWork) = (request.answer, false)
        options.filter = { [endTokens = prompts.endTokens] in Endless(endTokens) }
        let start = ContinuousClock.now
        let images = request.images > 0 ? prompts.image : []
        let summary = try await model.complete(tokens, prepared: images, budget: budget, options: options).whole().summary
        return (summary.measured.timeToFirstToken / .seconds(1), (.now - start) / .seconds(1), summary)
    }

    // MARK: - Replay

    /// Replays the trace.
    /// - Parameters:
    ///   - load: the rate of requests over the measured capacity.
    ///   - allowed: seconds that each request is allowed; `nil` for bulk work.
    func replay(
        _ model: AdaptiveModel, _ prompts: Prompts, _ policy: Policy, load: Double, allowed: [Double?], onProgress: @escaping @Sendable (Int, Int) -> Void
    ) async throws -> Run {
        try await model.forgetErrors()
        let admission = Admission(
            limit: concurrent, waitingLimit: .max, longestWait: policy == .ours ? patience : nil, policy: policy.admission,
            outlook: { policy == .ours ? model.outlook : nil })
        try await model.balance(patience: policy == .ours ? patience : nil) { admission.backlog }
        let start = ContinuousClock.now, done = Tally()
        let outcomes = try await withThrowingTaskGroup(of: (index: Int, outcome: Outcome).self) { group in
            for (index, request) in trace.requests.enumerated() {
                let arrival = start + .seconds(request.arrival * seconds / load)
                try await Task.sleep(until: arrival, clock: .continuous)
                group.addTask {
                    let outcome = try await serve(model, prompts, policy, admission, index, request, arrival, allowed[index], start)
                    onProgress(done.next(), trace.requests.count)
                    return (index, outcome)
                }
            }
            return try await group.reduce(into: [Outcome](repeating: Outcome(), count: trace.requests.count)) { $0[$1.index] = $1.outcome }
        }
        return Run(load: load, policy: policy, outcomes: outcomes, seconds: (.now - start) / .seconds(1))
    }

    private func serve(
        _ model: AdaptiveModel, _ prompts: Prompts, _ policy: Policy, _ admission: Admission, _ index: Int, _ request: SloTrace.Request,
        _ arrival: ContinuousClock.Instant, _ allowed: Double?, _ start: ContinuousClock.Instant
    ) async throws -> Outcome {
        var outcome = Outcome()
        outcome.allowed = allowed
        let tokens = prompts.tokens(request, index), deadline = allowed.map { arrival + .seconds($0) }
        var work = model.queued(tokens: tokens, images: request.images, budget: .full, maxTokens: request.answer, question: "")
        (work.deadline, work.called, work.priority) = (deadline, arrival, allowed == nil ? 1 : 0)
        do {
            let order = Admission.Order(priority: work.priority, deadline: deadline, client: "\(request.key)", work: policy == .ours ? work : nil)
            let lease = try await admission.lease(order, slots: 1)
            defer { lease.end() }
            var options = GenerationOptions(), budget = Budget.full
            switch policy {
            case .ours:
                options.priority = work.priority
                if let deadline { budget = .answer(within: max(deadline - .now, .microseconds(1))) }
            // The engine reads prompts by priority.
            case .deadline: options.priority = deadline.map { Int(($0 - start) / .microseconds(1)) } ?? .max
            case .arrival: options.priority = index
            }
            let waited = (ContinuousClock.now - arrival) / .seconds(1)
            let answer = try await answer(model, prompts, request, tokens, budget, options)
            admission.count(promptTokens: answer.summary.promptTokens, answerTokens: answer.summary.tokens.count, client: order.client)
            (outcome.firstToken, outcome.whole) = (waited + answer.firstToken, (.now - arrival) / .seconds(1))
            outcome.budget = answer.summary.units.flatMap { model.fraction(buying: $0) } ?? 1
        } catch is AdmissionError {}
        return outcome
    }

    /// Requests that the machine answers in a second, measured for a fifth of ``seconds``.
    package func rate(_ model: AdaptiveModel, onProgress: @escaping @Sendable (Int) -> Void) async throws -> Double {
        try await capacity(model, Prompts(model), seconds: max(seconds / 5, 1), onProgress: onProgress)
    }

    /// Runs the whole benchmark: times of requests alone, the capacity, and a replay for each load and policy.
    /// - Parameters:
    ///   - loads: over the measured capacity.
    ///   - onProgress: called with the name of the work, the amount done, and the total.
    package func run(
        _ model: AdaptiveModel, _ description: ExperimentModel, environment: ExperimentEnvironment, loads: [Double], policies: [Policy] = Policy.allCases,
        onProgress: @escaping @Sendable (String, Int, Int) -> Void
    ) async throws -> SloReport {
        let prompts = try Prompts(model)
        let full = try await isolated(model, prompts, budget: 1) { onProgress("timing requests", $0, $1) }
        let least = model.isAdaptive ? try await isolated(model, prompts, budget: floor) { onProgress("timing requests at the floor", $0, $1) } : full
        let measured = max(seconds / 5, 1)
        let capacity = try await capacity(model, prompts, seconds: measured) { onProgress("measuring the capacity", $0, 0) }
        let times = trace.requests.map { (full: full.seconds($0, imageTokens: imageTokens), floor: least.seconds($0, imageTokens: imageTokens)) }
        let allowed = zip(trace.requests, times).map { request, time in request.deadlineFactor.map { $0 * time.full } }
        // With this length the trace's rate is the capacity at a load of 1.
        var bench = self
        bench.seconds = Double(trace.requests.count) / capacity
        var runs: [Run] = []
        for load in loads {
            for policy in policies {
                let name = String(format: "load %g, ", load) + policy.rawValue
                runs.append(try await bench.replay(model, prompts, policy, load: load, allowed: allowed) { onProgress(name, $0, $1) })
            }
        }
        try await model.balance(patience: nil) { [] }
        return SloReport(environment: environment, model: description, bench: bench, capacity: capacity, times: times, allowed: allowed, runs: runs)
    }
}
