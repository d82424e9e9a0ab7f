import AdaLLaVA
import ArgumentParser
import Dispatch
import Foundation

/// Standard error as people see it: progress on one line of a terminal, plain lines elsewhere; nothing while a step takes under a second.
final class Console: @unchecked Sendable {
    private let lock = NSLock()
    private let start = ContinuousClock.now
    private var report: ProgressReport
    private var timer: (any DispatchSourceTimer)?

    /// Print only errors: ``note(_:)`` and ``progress(_:done:of:detail:)`` do nothing.
    var isQuiet: Bool {
        get { lock.withLock { quiet } }
        set { lock.withLock { quiet = newValue } }
    }
    private var quiet = false

    static let shared = Console()

    private init() {
        let isTerminal = isatty(STDERR_FILENO) != 0 && ProcessInfo.processInfo.environment["TERM"] != "dumb"
        report = ProgressReport(style: isTerminal ? .terminal : .plain)
    }

    /// Reports how far a step is; the first report of a step starts its clock.
    /// - Parameters:
    ///   - total: 0 if it is not known.
    ///   - detail: more about the current state of the step.
    func progress(_ name: String, done: Int, of total: Int, detail: String = "") {
        let (name, detail) = (TerminalText.shown(name), TerminalText.shown(detail))
        lock.withLock {
            if quiet { return }
            write(report.update(name, done: done, of: total, detail: detail, at: ContinuousClock.now - start))
            if timer == nil { timer = startTimer() }
        }
    }

    /// Writes a line, in place of a progress line if there is one. Control characters in it are shown, not obeyed.
    func message(_ text: String) {
        let text = TerminalText.shown(text)
        lock.withLock { write(report.interrupt() + text + "\n") }
    }

    /// Writes a line that an answer can do without, unless ``isQuiet``.
    func note(_ text: String) {
        if !isQuiet { message(text) }
    }

    /// Ends a progress line before an answer is printed.
    func finishProgress() {
        lock.withLock {
            write(report.finish())
            timer?.cancel()
            timer = nil
        }
    }

    /// Shows steps from which no report comes.
    private func startTimer() -> any DispatchSourceTimer {
        let timer = DispatchSource.makeTimerSource(queue: DispatchQueue(label: "adallava.console"))
        timer.schedule(deadline: .now() + 1, repeating: 1)
        timer.setEventHandler { [weak self] in
            guard let self else { return }
            lock.withLock { self.write(self.report.tick(at: ContinuousClock.now - self.start)) }
        }
        timer.resume()
        return timer
    }

    /// If standard error itself fails, there is nobody to report to.
    private func write(_ text: String?) {
        guard let text, !text.isEmpty else { return }
        try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
    }
}

/// Prints to standard output at once, also into a pipe; control characters are shown, not obeyed. If the output cannot be written (full disk),
/// the process ends with exit code 74.
func printNow(_ text: String, terminator: String = "\n") {
    write(TerminalText.shown(text) + terminator)
}

/// Prints newly completed text of an answer. A terminal shows control characters escaped; a program gets the model's text unchanged.
func printAnswer(_ text: String, terminator: String = "") {
    write((isatty(STDOUT_FILENO) != 0 ? TerminalText.shown(text) : text) + terminator)
}

private func write(_ text: String) {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
        let written = bytes.withUnsafeBytes { Foundation.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
        if written >= 0 {
            bytes = bytes.dropFirst(written)
        } else if errno == EPIPE {
            Exit.ofClosedPipe()
        } else if errno != EINTR {
            Console.shared.message("adallava: standard output cannot be written: \(SystemError().localizedDescription)")
            Exit.now(ErrorCategory.inputOutput.exitCode)
        }
    }
}

/// Streams an answer to standard output. The line is always ended, however the answer ends.
struct AnswerLine {
    private(set) var text = ""
    /// Print nothing, only collect.
    let isQuiet: Bool

    mutating func append(_ new: String) {
        text += new
        if isQuiet { return }
        Console.shared.finishProgress()
        printAnswer(new)
    }

    /// Ends the line after a whole answer, an empty one included.
    func finish() {
        Console.shared.finishProgress()
        if !isQuiet { printNow("") }
    }

    /// Ends the line after an answer that stopped short, if there is anything on it.
    func abandon() {
        Console.shared.finishProgress()
        if !isQuiet, !text.isEmpty { printNow("") }
    }
}

/// Runs a command's body; errors of the library become a message on standard error and the category's exit code.
func reporting(_ body: () async throws -> Void) async throws {
    do {
        try await body()
    } catch {
        Console.shared.finishProgress()
        switch error {
        case let error as any AdaLLaVAError:
            Console.shared.message("adallava: " + error.description)
            throw ExitCode(error.category.exitCode)
        case is CancellationError:
            Console.shared.message("adallava: stopped")
            throw ExitCode(130)
        // Errors that the argument parser reports itself.
        case is ExitCode, is CleanExit, is ValidationError: throw error
        default:
            Console.shared.message("adallava: unexpected error: \(error)")
            throw ExitCode(ErrorCategory.software.exitCode)
        }
    }
}

/// JSON with sorted keys, one object a line.
func json(_ value: some Encodable) throws -> String { TerminalText.shown(json: String(decoding: try JSONText.data(value), as: UTF8.self)) }
