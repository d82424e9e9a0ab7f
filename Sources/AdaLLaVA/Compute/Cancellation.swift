import Synchronization

/// A flag that any thread may raise to stop work at its next safe point: between two layers, or between two tokens.
package final class Cancellation: Sendable {
    private let raised = Atomic<Bool>(false)

    /// A flag that is not raised.
    package init() {}

    /// Raises the flag. It is never lowered again.
    package func cancel() { raised.store(true, ordering: .relaxed) }

    /// Whether ``cancel()`` was called.
    package var isCancelled: Bool { raised.load(ordering: .relaxed) }

    /// - Throws: `CancellationError` once ``cancel()`` was called.
    package func check() throws {
        if isCancelled { throw CancellationError() }
    }
}
