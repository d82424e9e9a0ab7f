import AdaLLaVA
import Foundation
import Synchronization

/// What a server knows of itself: its model, and whether work goes on.
final class ServerState: Sendable {
    enum Phase: Sendable {
        case loading
        case ready(AdaptiveModel)
        /// Answers under way are given, then the server ends.
        case draining(AdaptiveModel?)
    }

    private struct Work {
        /// When a layer or a token was done last, or the first request came after a pause.
        var last = ContinuousClock.now
        /// The longest time between two of those.
        var longest = Duration.zero
    }

    private let phase = Mutex(Phase.loading)
    private let work = Mutex(Work())
    let started = Date()

    var model: AdaptiveModel? {
        switch phase.withLock({ $0 }) {
        case .loading: nil
        case .ready(let model): model
        case .draining(let model): model
        }
    }

    func setReady(_ model: AdaptiveModel) {
        phase.withLock { if case .loading = $0 { $0 = .ready(model) } }
    }

    func setDraining() {
        phase.withLock { phase in
            if case .ready(let model) = phase { phase = .draining(model) } else if case .loading = phase { phase = .draining(nil) }
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
        case .ready(let loaded): model = loaded
        }
        let load = model.load
        guard requests > 0, load.runningRequests + load.waitingRequests > 0 else { return nil }
        // Layers of a large model take seconds.
        return work.withLock { .now - $0.last > max(.seconds(5), $0.longest * 3) } ? "stalled" : nil
    }
}
