import Dispatch
import Foundation

/// Turns Ctrl-C (SIGINT) and SIGTERM into the cancellation of a task, so that work stops at its next safe point and the terminal is left
/// whole. A second signal ends the process at once.
func withInterruption<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
    let task = Task { try await body() }
    let queue = DispatchQueue(label: "adallava.signals")
    let sources = [SIGINT, SIGTERM].map { number in
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
        source.setEventHandler {
            if task.isCancelled { _exit(130) }
            task.cancel()
        }
        source.resume()
        return source
    }
    defer {
        for source in sources { source.cancel() }
        for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) }
    }
    return try await task.value
}
