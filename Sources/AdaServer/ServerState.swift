import AdaLLaVA
import Foundation
import Synchronization

/// State of the server: its model, and whether requests are running.
final class ServerState: Sendable {
    enum Phase: Sendable {
        case loading
        case ready(AdaptiveModel)
        /// Nobody has used the model for a while; the next request loads it again.
        case unloaded
        /// It is loaded again.
        case reloading(Task<AdaptiveModel, any Error>)
        /// Answers under way are given, then the server ends.
        case draining(AdaptiveModel?)
    }

    private struct Work {
        /// When a layer or a token was done last, or the first request came after a pause.
        var last = ContinuousClock.now
        /// The longest time between two of those.
        var longest = Duration.zero
    }

    private struct Known {
        var description: ModelDescription?
        var load: (@Sendable () async throws -> AdaptiveModel)?
        var lastUse = ContinuousClock.now
    }

    private let phase = Mutex(Phase.loading)
    private let known = Mutex(Known())
    private let work = Mutex(Work())
    let started = Date()

    /// The model while it is loaded.
    var model: AdaptiveModel? {
        switch phase.withLock({ $0 }) {
        case .loading, .unloaded, .reloading: nil
        case .ready(let model): model
        case .draining(let model): model
        }
    }

    /// Facts about the model, known once it has been loaded.
    var description: ModelDescription? { known.withLock { $0.description } }

    var isUnloaded: Bool { if case .unloaded = phase.withLock({ $0 }) { true } else { false } }

    /// - Parameter load: loads the model again after ``unload(after:)``.
    func setReady(_ model: AdaptiveModel, _ description: ModelDescription, load: (@Sendable () async throws -> AdaptiveModel)? = nil) {
        known.withLock { ($0.description, $0.load, $0.lastUse) = (description, load, .now) }
        phase.withLock { if case .loading = $0 { $0 = .ready(model) } }
    }

    // MARK: - Unloading

    func noteUse() { known.withLock { $0.lastUse = .now } }

    /// Unloads a model that was not used for this long. Running answers keep it until they end.
    func unload(after limit: Duration) {
        guard known.withLock({ $0.load != nil && .now - $0.lastUse >= limit }) else { return }
        phase.withLock { if case .ready = $0 { $0 = .unloaded } }
    }

    /// The model for a request, loaded again if it was unloaded.
    /// - Throws: ``APIError`` while the model loads for the first time, or once the server shuts down; errors of loading.
    func use() async throws -> AdaptiveModel {
        noteUse()
        let load = known.withLock { $0.load }
        let loading: Task<AdaptiveModel, any Error>? = phase.withLock { phase in
            if case .reloading(let task) = phase { return task }
            guard case .unloaded = phase, let load else { return nil }
            let task = Task { [self] in
                do {
                    let model = try await load()
                    self.phase.withLock { if case .reloading = $0 { $0 = .ready(model) } }
                    return model
                } catch {
                    self.phase.withLock { if case .reloading = $0 { $0 = .unloaded } }
                    throw error
                }
            }
            phase = .reloading(task)
            return task
        }
        if let loading {
            let model = try await loading.value
            noteUse()
            return model
        }
        guard let model else { throw APIError(.serviceUnavailable, "the model is still being loaded", code: "loading", retryAfter: 1) }
        return model
    }

    func setDraining() {
        phase.withLock { phase in
            if case .ready(let model) = phase { phase = .draining(model) } else if case .draining = phase {} else { phase = .draining(nil) }
        }
    }

    // MARK: - Progress

    /// A request arrived: on an idle machine the time without work ends here.
    func noteArrival() {
        let load = model?.load
        guard let load, load.runningRequests + load.waitingRequests == 0 else { return }
        work.withLock { $0.last = .now }
    }

    /// A layer or a token is done.
    func noteWork() {
        work.withLock { work in
            let now = ContinuousClock.now
            work.longest = max(work.longest, now - work.last)
            work.last = now
        }
    }

    /// Why the server cannot answer; `nil` if it can.
    /// - Parameter requests: those of this server that are under way or wait: only their progress is known, and others may use the model too.
    func trouble(requests: Int) -> String? {
        let model: AdaptiveModel
        switch phase.withLock({ $0 }) {
        case .loading: return "loading"
        case .draining: return "draining"
        case .unloaded, .reloading: return nil
        case .ready(let loaded): model = loaded
        }
        let load = model.load
        guard requests > 0, load.runningRequests + load.waitingRequests > 0 else { return nil }
        // Layers of a large model take seconds.
        return work.withLock { .now - $0.last > max(.seconds(5), $0.longest * 3) } ? "stalled" : nil
    }
}
