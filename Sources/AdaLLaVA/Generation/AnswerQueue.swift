import Foundation
import Synchronization

/// The requests of one engine: those that were admitted are computed together, one batch a step, on one thread; the others wait their turn.
package final class AnswerQueue: @unchecked Sendable {
    /// Touched on `queue` only.
    private let engine: Engine
    private let queue: DispatchQueue
    /// Measurements of the model under way, between requests.
    var idleCalibration: TimeCalibration?
    /// The most requests that are computed at once.
    private let limit: Int

    private struct Waiting: Sendable {
        let cancellation: Cancellation
        /// Positions that prompt and answer take at most.
        let positions: Int
        /// Makes the task, on the engine's thread.
        let make: @Sendable () -> GenerationTask
        /// The request ends before it was begun.
        let drop: @Sendable (any Error) -> Void
    }

    private struct State {
        var waiting: [Waiting] = []
        /// As of the end of the newest step.
        var load: ModelLoad
        /// Works that want the engine for themselves.
        var exclusive = 0
        var isRunning = false
        /// Predicts requests that are not admitted yet; `nil` where nothing is predicted.
        var outlook: WorkOutlook?
        /// Requests that wait elsewhere.
        var backlog: @Sendable () -> [QueuedWork] = { [] }
    }
    private let state: Mutex<State>

    /// - Parameter limit: the most requests that are computed at once.
    init(_ engine: Engine, queue: DispatchQueue, limit: Int) {
        (self.engine, self.queue, self.limit) = (engine, queue, max(limit, 1))
        state = Mutex(State(load: engine.load([])))
        engine.backlog = { [weak self] in self?.state.withLock { $0.backlog }() ?? [] }
    }

    /// Predicts requests that are not admitted yet; `nil` where nothing is predicted.
    var outlook: WorkOutlook? { state.withLock { $0.outlook } }

    /// Sets the backlog of other queues, and predicts times from now on, also for fractions of compute.
    func setBacklog(_ balance: LoadBalance?, _ backlog: @escaping @Sendable () -> [QueuedWork]) async throws {
        state.withLock { $0.backlog = backlog }
        try await exclusively { [self] engine in
            engine.balance = balance
            engine.planner = engine.planner ?? engine.timings?.makePlanner()
            note([], union: true)
            engine.runner.pages.keepReady(AnswerQueue.readyBytes)
        }
    }

    /// Bytes of prefaulted memory for keys and values where many requests share the engine: the pages of a few prompts.
    private static let readyBytes = 32 << 20

    /// Adds a request.
    /// - Parameters:
    ///   - positions: that prompt and answer take at most: a request is admitted once memory for all of them is left.
    ///   - make: makes its task when it is admitted; called on the engine's thread.
    ///   - drop: called instead when it is cancelled before.
    func submit(
        _ cancellation: Cancellation, positions: Int = 0, make: @escaping @Sendable () -> GenerationTask, drop: @escaping @Sendable (any Error) -> Void
    ) {
        let starts = state.withLock { state in
            state.waiting.append(Waiting(cancellation: cancellation, positions: positions, make: make, drop: drop))
            defer { state.isRunning = true }
            return !state.isRunning
        }
        if starts { queue.async { [self] in run() } }
    }

    /// Lets go of requests that were cancelled while they waited, with their images.
    func dropCancelled() {
        let dropped = state.withLock { state in
            let dropped = state.waiting.filter(\.cancellation.isCancelled)
            state.waiting.removeAll(where: \.cancellation.isCancelled)
            return dropped
        }
        for waiting in dropped { waiting.drop(CancellationError()) }
    }

    /// Requests that wait to be admitted.
    var waitingCount: Int { state.withLock { $0.waiting.count } }

    /// Load of the engine at the end of its newest step.
    var load: ModelLoad {
        state.withLock { state in
            var load = state.load
            load.waitingRequests = state.waiting.count
            return load
        }
    }

    /// Gives the engine to one work, between requests.
    package func exclusively<Result: Sendable>(_ work: @escaping @Sendable (Engine) throws -> Result) async throws -> Result {
        state.withLock { $0.exclusive += 1 }
        return try await queue.run { [self] in
            defer { state.withLock { $0.exclusive -= 1 } }
            return try work(engine)
        }
    }

    /// Steps until no request is left, or until an exclusive caller waits and the admitted ones have ended.
    private func run() {
        var tasks: [GenerationTask] = [], reserved: [ObjectIdentifier: Int] = [:], steps = 0
        while true {
            let used = reserved.values.reduce(0, +)
            let admitted = state.withLock { state -> [Waiting]? in
                if state.exclusive > 0 || state.waiting.isEmpty {
                    if tasks.isEmpty {
                        state.isRunning = !state.waiting.isEmpty
                        return nil
                    }
                    return []
                }
                let count = fitting(state.waiting.prefix(max(limit - tasks.count, 0)), used: used, isAlone: tasks.isEmpty)
                defer { state.waiting.removeFirst(count) }
                return Array(state.waiting.prefix(count))
            }
            guard let admitted else { break }
            for waiting in admitted {
                let task = waiting.make()
                tasks.append(task)
                reserved[ObjectIdentifier(task)] = engine.keyValueBytes(positions: waiting.positions)
            }
            engine.step(tasks)
            for task in tasks where task.isDone { reserved[ObjectIdentifier(task)] = nil }
            tasks.removeAll(where: \.isDone)
            steps += 1
            note(tasks, union: steps % Self.unionInterval == 0 || tasks.isEmpty || !admitted.isEmpty)
        }
        // After exclusive callers.
        if state.withLock(\.isRunning) {
            queue.async { [self] in run() }
        } else if engine.wantsCalibration {
            queue.async { [self] in rest() }
        }
    }

    /// How many of some requests are admitted: as many as have memory to their longest end, so that none fails half way for another one's growth.
    private func fitting(_ waiting: ArraySlice<Waiting>, used: Int, isAlone: Bool) -> Int {
        var (used, count) = (used, 0)
        for request in waiting {
            used += engine.keyValueBytes(positions: request.positions)
            // A request that does not fit even alone fails when it begins.
            if used > engine.runner.pages.limit, !(isAlone && count == 0) { break }
            count += 1
        }
        return count
    }

    /// Steps from one look at the plans to the next: comparing them takes longer than the rest.
    private static let unionInterval = 16

    private func note(_ tasks: [GenerationTask], union: Bool) {
        let load = engine.load(tasks), planUnion = union ? engine.planUnion(tasks) : nil
        let outlook = union ? engine.outlook(tasks) : nil
        state.withLock { state in
            if let outlook { state.outlook = outlook }
            let known = state.load.planUnion
            state.load = load
            state.load.planUnion = planUnion ?? known
        }
    }

    /// Uses idle time for one more measurement.
    private func rest() {
        if state.withLock({ $0.isRunning || $0.exclusive > 0 }) { return }
        measureWhenIdle(engine)
        if engine.wantsCalibration { queue.async { [self] in rest() } }
    }
}

extension DispatchQueue {
    /// Runs blocking work on this queue and waits for it without holding a thread of the concurrency pool.
    package func run<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            async { continuation.resume(with: Swift.Result { try work() }) }
        }
    }
}
