import Dispatch
import Foundation
import Synchronization

/// Turns Ctrl-C (SIGINT), SIGTERM and SIGHUP (a closed terminal) into the cancellation of a task, so that work stops at its next safe point and
/// the terminal is left whole. A second signal, or one while nothing runs, ends the process at once; so do the signals that a process ends
/// by if it does not handle them.
func withInterruption<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
    let task = Task { try await body() }
    Interruption.shared.begin {
        if task.isCancelled { return false }
        task.cancel()
        return true
    }
    defer { Interruption.shared.end() }
    return try await task.value
}

/// Whether the process should end after the interrupted work: after any signal but Ctrl-C.
func interruptionEndsProcess() -> Bool { Interruption.shared.endsProcess.load(ordering: .relaxed) }

/// Keeps Ctrl-C from ending the process while `isBetween`: between a conversation's answer and its next line nothing runs, and a person who
/// stops an answer by pressing twice means the answer.
func ignoringInterruption(_ isBetween: Bool) { Interruption.shared.isBetweenLines.store(isBetween, ordering: .relaxed) }

/// The process's signal handlers. Installed once and kept: on Linux a source does not fire if one for the same signal was cancelled before.
private final class Interruption: @unchecked Sendable {
    static let shared = Interruption()

    /// Cancels the current work; `false` if it was cancelled before.
    private let cancel = Mutex<(@Sendable () -> Bool)?>(nil)
    /// Set once, before anything else can see this.
    private var sources: [any DispatchSourceSignal] = []
    /// Whether a signal asked the whole process to end, not only its current work.
    let endsProcess = Atomic(false)
    let isBetweenLines = Atomic(false)

    /// Signals that end the process at once, as they would without a handler, with the terminal restored before.
    private static let fatal = [SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU]

    private init() {
        let queue = DispatchQueue(label: "adallava.signals")
        // Who started the process may have asked it to outlive its terminal (nohup) or its keys (a script's background).
        sources = ([SIGINT, SIGTERM, SIGHUP] + Self.fatal).filter { [SIGINT, SIGTERM].contains($0) || !isIgnored($0) }.map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            source.setEventHandler { [weak self] in self?.interrupt(number) }
            source.resume()
            return source
        }
    }

    func begin(_ cancel: @escaping @Sendable () -> Bool) { self.cancel.withLock { $0 = cancel } }

    func end() { cancel.withLock { $0 = nil } }

    private func interrupt(_ number: Int32) {
        // Ctrl-\ is for a program that no longer listens; the terminal is still left whole.
        if Self.fatal.contains(number) { Exit.by(number) }
        if number != SIGINT { endsProcess.store(true, ordering: .relaxed) }
        let cancel = cancel.withLock { $0 }
        if cancel?() ?? false { return }
        if number == SIGINT, cancel == nil, isBetweenLines.load(ordering: .relaxed) { return }
        Exit.atOnce(130)
    }
}

private func isIgnored(_ number: Int32) -> Bool {
    let before = signal(number, SIG_IGN)
    signal(number, before)
    return unsafeBitCast(before, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
}
