import Foundation
import Synchronization

/// Which requests are computed, which wait, and which are refused.
///
/// Waiting requests are taken by priority, then those with deadlines by the earliest, then those of the client who has had least: a virtual token
/// counter for each client, as in VTC (Sheng et al., 2024), tokens of answers counting twice. Where times are predicted, a request is refused once it could
/// not be answered in time although everybody's budget were at the floor; until then budgets shrink (``SharedBudget``).
package final class Admission: Sendable {
    /// Order of requests.
    package enum Policy: String, Sendable, CaseIterable {
        /// As above.
        case fair
        /// For experiments: as they arrive, or by the earliest deadline; no request is refused for time.
        case arrival, deadline
    }

    /// Place of a request in the queue.
    package struct Order: Sendable {
        /// Lower ones first, as vLLM has it.
        package var priority: Int
        /// When the answer is to be complete.
        package var deadline: ContinuousClock.Instant?
        /// Whose request it is.
        package var client: String
        /// Facts from which its time is predicted; `nil` for no prediction.
        package var work: QueuedWork?

        package init(priority: Int = 0, deadline: ContinuousClock.Instant? = nil, client: String = "", work: QueuedWork? = nil) {
            (self.priority, self.deadline, self.client, self.work) = (priority, deadline, client, work)
        }

        var place: WorkOrder { WorkOrder(priority: priority, deadline: deadline, called: work?.called ?? .now) }
        /// Charge of a client before its tokens are counted.
        var charge: Double { Double(work?.positions ?? 0) }
    }

    private struct Waiting {
        let id: Int
        let order: Order
        let slots: Int
        /// Whether the deadline could be kept when the request arrived.
        let isPossible: Bool
        let continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var running = 0
        var waiting: [Waiting] = []
        var next = 0
        /// Requests that were cancelled before they began to wait.
        var cancelled: Set<Int> = []
        /// Tokens that each client has had, and its requests that wait or run.
        var served: [String: Double] = [:], active: [String: Int] = [:]
        /// Seconds that a slot is taken for, on average over the newest requests.
        var seconds = 1.0
    }

    /// Answers that are computed at once, and that may wait.
    package let limit: Int, waitingLimit: Int
    private let longestWait: Duration?
    private let policy: Policy
    private let outlook: @Sendable () -> WorkOutlook?
    private let state = Mutex(State())

    /// - Parameters:
    ///   - longestWait: predicted wait from which requests without a deadline are refused; `nil` refuses none for time.
    ///   - outlook: predicts requests; `nil` where nothing is predicted.
    package init(
        limit: Int, waitingLimit: Int, longestWait: Duration? = nil, policy: Policy = .fair, outlook: @escaping @Sendable () -> WorkOutlook? = { nil }
    ) {
        (self.limit, self.waitingLimit) = (max(limit, 1), max(waitingLimit, 0))
        (self.longestWait, self.policy, self.outlook) = (longestWait, policy, outlook)
    }

    /// Answers that run, and requests that wait.
    package var counts: (running: Int, waiting: Int) { state.withLock { ($0.running, $0.waiting.count) } }

    /// Waiting requests whose time can be predicted.
    package var backlog: [QueuedWork] { state.withLock { $0.waiting.compactMap(\.order.work) } }

    /// Runs `body` when it is the request's turn.
    /// - Parameter slots: answers that it takes.
    /// - Throws: ``AdmissionError`` at once if too many wait already, or if it would be answered too late.
    package func admit<Result: Sendable>(_ order: Order, slots: Int, _ body: () async throws -> Result) async throws -> Result {
        let lease = try await lease(order, slots: slots)
        defer { lease.end() }
        return try await body()
    }

    /// A turn, to be given back with ``Lease/end()``.
    package func lease(_ order: Order, slots: Int) async throws -> Lease {
        let slots = min(slots, limit)
        let id = state.withLock { state in
            state.next += 1
            return state.next
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let outlook = policy == .fair ? outlook() : nil
                let outcome: Result<Void, any Error>? = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return .failure(CancellationError()) }
                    let runs = state.waiting.isEmpty && state.running + slots <= limit
                    if !runs, state.waiting.count >= waitingLimit { return .failure(full(state)) }
                    let time = outlook.map { predict(order, state, $0) }
                    if let refusal = time?.refusal { return .failure(refusal) }
                    enter(order, &state)
                    if runs {
                        start(order, slots, &state)
                        return .success(())
                    }
                    state.waiting.append(Waiting(id: id, order: order, slots: slots, isPossible: time?.isPossible ?? false, continuation: continuation))
                    return nil
                }
                if let outcome { continuation.resume(with: outcome) }
            }
        } onCancel: {
            let waiting: Waiting? = state.withLock { state in
                guard let index = state.waiting.firstIndex(where: { $0.id == id }) else {
                    state.cancelled.insert(id)
                    return nil
                }
                return leave(index, &state)
            }
            waiting?.continuation.resume(throwing: CancellationError())
        }
        state.withLock { _ = $0.cancelled.remove(id) }
        return Lease(admission: self, order: order, slots: slots)
    }

    // MARK: - Time

    /// Whether a request can be in time by itself, and why it is refused if others leave it no time even at the floor.
    private func predict(_ order: Order, _ state: State, _ outlook: WorkOutlook) -> (isPossible: Bool, refusal: AdmissionError?) {
        guard let work = order.work else { return (false, nil) }
        let (own, now) = (outlook.floor(work), ContinuousClock.now)
        let left = order.deadline.map { ($0 - now).nanoseconds } ?? longestWait?.nanoseconds ?? .infinity
        let needed = own.prompt + (work.deadline == nil ? 0 : own.tokens)
        guard needed <= left else { return (false, nil) }
        var before = outlook.before(order.place)
        for other in state.waiting where other.order.place < order.place { before += other.order.work.map { outlook.floor($0).prompt } ?? 0 }
        if before + needed <= left { return (true, nil) }
        return (true, AdmissionError.late(wait: Duration(nanoseconds: before + needed), retryAfter: seconds(before + needed - left)))
    }

    /// Lets go of waiting requests whose time is over: others can still be in time.
    private func dropLate(_ state: inout State, _ outlook: WorkOutlook) -> [(Waiting, AdmissionError)] {
        var dropped: [(Waiting, AdmissionError)] = []
        for index in state.waiting.indices.reversed() where state.waiting[index].isPossible {
            let waiting = state.waiting[index]
            guard let deadline = waiting.order.deadline, let work = waiting.order.work else { continue }
            let own = outlook.floor(work), left = (deadline - ContinuousClock.now).nanoseconds
            let needed = own.prompt + (work.deadline == nil ? 0 : own.tokens)
            if needed > left { dropped.append((leave(index, &state), .late(wait: Duration(nanoseconds: needed), retryAfter: seconds(needed - left)))) }
        }
        return dropped
    }

    private func seconds(_ nanoseconds: Double) -> Int { max(1, min(Int((nanoseconds / 1e9).rounded(.up)), 60)) }

    private func full(_ state: State) -> AdmissionError {
        let seconds = Double(state.waiting.count + state.running) * state.seconds / Double(limit)
        return .full(running: state.running, waiting: state.waiting.count, retryAfter: self.seconds(seconds * 1e9))
    }

    // MARK: - Fairness

    /// Notes the tokens that a client has had.
    package func count(promptTokens: Int, answerTokens: Int, client: String) {
        state.withLock { state in
            state.served[client, default: 0] += Double(promptTokens + 2 * answerTokens)
            // Only differences matter; names of clients who left would pile up.
            if state.served.count > 1024 { state.served = state.served.filter { state.active[$0.key] != nil } }
        }
    }

    /// A client who was away does not save up turns: it begins with the least that others who ask now have had.
    private func enter(_ order: Order, _ state: inout State) {
        if state.active[order.client] == nil, let least = state.active.keys.compactMap({ state.served[$0] }).min() {
            state.served[order.client] = max(state.served[order.client] ?? 0, least)
        }
        state.active[order.client, default: 0] += 1
    }

    private func exit(_ order: Order, _ state: inout State) {
        guard let count = state.active[order.client] else { return }
        state.active[order.client] = count > 1 ? count - 1 : nil
    }

    private func start(_ order: Order, _ slots: Int, _ state: inout State) {
        state.running += slots
        state.served[order.client, default: 0] += order.charge
    }

    private func leave(_ index: Int, _ state: inout State) -> Waiting {
        let waiting = state.waiting.remove(at: index)
        exit(waiting.order, &state)
        return waiting
    }

    fileprivate func release(_ order: Order, _ slots: Int, after seconds: Double) {
        let outlook = policy == .fair ? outlook() : nil
        let (next, late): ([Waiting], [(Waiting, AdmissionError)]) = state.withLock { state in
            state.running -= slots
            // The counted tokens replace the charge.
            state.served[order.client, default: 0] -= order.charge
            exit(order, &state)
            state.seconds += (seconds - state.seconds) / 16
            let late = outlook.map { dropLate(&state, $0) } ?? []
            var next: [Waiting] = []
            while let index = first(state), state.running + state.waiting[index].slots <= limit {
                let waiting = state.waiting.remove(at: index)
                start(waiting.order, waiting.slots, &state)
                next.append(waiting)
            }
            return (next, late)
        }
        for (waiting, error) in late { waiting.continuation.resume(throwing: error) }
        for waiting in next { waiting.continuation.resume() }
    }

    private func first(_ state: State) -> Int? {
        state.waiting.indices.min { a, b in
            let (a, b) = (state.waiting[a], state.waiting[b])
            if policy == .arrival { return a.id < b.id }
            if a.order.priority != b.order.priority { return a.order.priority < b.order.priority }
            switch (a.order.deadline, b.order.deadline) {
            case (let first?, let second?) where first != second: return first < second
            case (_?, nil): return true
            case (nil, _?): return false
            default: break
            }
            let (first, second) = (state.served[a.order.client] ?? 0, state.served[b.order.client] ?? 0)
            return policy == .fair && first != second ? first < second : a.id < b.id
        }
    }

    /// A request's turn.
    package final class Lease: Sendable {
        private let admission: Admission
        private let order: Order
        private let slots: Int
        private let began = ContinuousClock.now
        private let isOver = Mutex(false)

        fileprivate init(admission: Admission, order: Order, slots: Int) { (self.admission, self.order, self.slots) = (admission, order, slots) }

        /// Lets the next request in. More than once is no error.
        package func end() {
            let isFirst = isOver.withLock { isOver in
                defer { isOver = true }
                return !isOver
            }
            if isFirst { admission.release(order, slots, after: (.now - began) / .seconds(1)) }
        }

        deinit { end() }
    }
}

/// A request that is not taken now.
package enum AdmissionError: AdaLLaVAError, Equatable {
    /// As many run and wait as are taken.
    case full(running: Int, waiting: Int, retryAfter: Int)
    /// Not in time, even with every budget at the floor.
    case late(wait: Duration, retryAfter: Int)

    /// Seconds after which the same request may be taken.
    package var retryAfter: Int {
        switch self {
        case .full(_, _, let seconds), .late(_, let seconds): seconds
        }
    }

    package var category: ErrorCategory { .badData }

    package var description: String {
        switch self {
        case .full(let running, let waiting, _): "\(running) answers are being computed and \(waiting) requests wait, as many as this server takes"
        case .late(let wait, _):
            "this request would be answered after \(String(format: "%.1f", wait / .seconds(1))) s, too late although all budgets are at the floor; ask again later, or allow more time"
        }
    }
}
