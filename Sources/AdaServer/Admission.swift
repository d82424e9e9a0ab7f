import Foundation
import Synchronization

/// Which requests are computed, which wait, and which are refused.
///
/// Waiting requests are taken by priority, then those with deadlines by the earliest, then those of the client who has had least: a virtual token
/// counter for each client, as in VTC (Sheng et al., 2024), tokens of answers counting twice.
final class Admission: Sendable {
    /// Where a request stands among those that wait.
    struct Order: Sendable {
        /// Lower ones first, as vLLM has it.
        var priority = 0
        /// When the answer is to be complete.
        var deadline: ContinuousClock.Instant?
        /// Whose request it is.
        var client = ""
    }

    private struct Waiting {
        let id: Int
        let order: Order
        let slots: Int
        let continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var running = 0
        var waiting: [Waiting] = []
        var next = 0
        /// Requests that were cancelled before they began to wait.
        var cancelled: Set<Int> = []
        /// Tokens that each client has had.
        var served: [String: Double] = [:]
        /// Seconds that a slot is taken for, on average over the newest requests.
        var seconds = 1.0
    }

    /// Answers that are computed at once, and that may wait.
    let limit: Int, waitingLimit: Int
    private let state = Mutex(State())

    init(limit: Int, waitingLimit: Int) { (self.limit, self.waitingLimit) = (max(limit, 1), max(waitingLimit, 0)) }

    /// Answers that run, and requests that wait.
    var counts: (running: Int, waiting: Int) { state.withLock { ($0.running, $0.waiting.count) } }

    /// Runs `body` when it is the request's turn.
    /// - Parameter slots: answers that it takes.
    /// - Throws: ``APIError`` with 429 at once if too many wait already.
    func admit<Result: Sendable>(_ order: Order, slots: Int, _ body: () async throws -> Result) async throws -> Result {
        let lease = try await lease(order, slots: slots)
        defer { lease.end() }
        return try await body()
    }

    /// A turn, to be given back with ``Lease/end()``.
    func lease(_ order: Order, slots: Int) async throws -> Lease {
        let slots = min(slots, limit)
        let id = state.withLock { state in
            state.next += 1
            return state.next
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let outcome: Result<Void, any Error>? = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return .failure(CancellationError()) }
                    if state.waiting.isEmpty, state.running + slots <= limit {
                        state.running += slots
                        return .success(())
                    }
                    if state.waiting.count >= waitingLimit { return .failure(refusal(state)) }
                    // Who was away does not save up turns.
                    let least = state.waiting.compactMap { state.served[$0.order.client] }.min() ?? 0
                    state.served[order.client] = max(state.served[order.client] ?? 0, least)
                    state.waiting.append(Waiting(id: id, order: order, slots: slots, continuation: continuation))
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
                return state.waiting.remove(at: index)
            }
            waiting?.continuation.resume(throwing: CancellationError())
        }
        state.withLock { _ = $0.cancelled.remove(id) }
        return Lease(admission: self, client: order.client, slots: slots)
    }

    private func refusal(_ state: State) -> APIError {
        let seconds = Double(state.waiting.count + state.running) * state.seconds / Double(limit)
        return APIError(
            .tooManyRequests, "\(state.running) answers are being computed and \(state.waiting.count) requests wait, as many as this server takes",
            code: "overloaded", retryAfter: max(1, min(Int(seconds.rounded(.up)), 60)))
    }

    /// Notes the tokens that a client has had.
    func count(promptTokens: Int, answerTokens: Int, client: String) {
        state.withLock { state in
            state.served[client, default: 0] += Double(promptTokens + 2 * answerTokens)
            // Only differences matter; names of clients who left would pile up.
            if state.served.count > 1024 { state.served = [:] }
        }
    }

    fileprivate func release(_ slots: Int, after seconds: Double) {
        let next: [Waiting] = state.withLock { state in
            state.running -= slots
            state.seconds += (seconds - state.seconds) / 16
            var next: [Waiting] = []
            while let index = Self.first(state.waiting, state.served), state.running + state.waiting[index].slots <= limit {
                let waiting = state.waiting.remove(at: index)
                state.running += waiting.slots
                next.append(waiting)
            }
            return next
        }
        for waiting in next { waiting.continuation.resume() }
    }

    private static func first(_ waiting: [Waiting], _ served: [String: Double]) -> Int? {
        waiting.indices.min { a, b in
            let (a, b) = (waiting[a], waiting[b])
            if a.order.priority != b.order.priority { return a.order.priority < b.order.priority }
            switch (a.order.deadline, b.order.deadline) {
            case (let first?, let second?) where first != second: return first < second
            case (_?, nil): return true
            case (nil, _?): return false
            default: break
            }
            let (first, second) = (served[a.order.client] ?? 0, served[b.order.client] ?? 0)
            return first != second ? first < second : a.id < b.id
        }
    }

    /// A request's turn.
    final class Lease: Sendable {
        private let admission: Admission
        let client: String
        private let slots: Int
        private let began = ContinuousClock.now
        private let isOver = Mutex(false)

        fileprivate init(admission: Admission, client: String, slots: Int) { (self.admission, self.client, self.slots) = (admission, client, slots) }

        /// Lets the next request in. More than once is no error.
        func end() {
            let isFirst = isOver.withLock { isOver in
                defer { isOver = true }
                return !isOver
            }
            if isFirst { admission.release(slots, after: (.now - began) / .seconds(1)) }
        }

        deinit { end() }
    }
}
