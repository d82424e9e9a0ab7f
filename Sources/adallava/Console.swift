import AdaLLaVA
import ArgumentParser
import Foundation

/// Standard error as people see it: progress on one line of a terminal, plain lines elsewhere; nothing while a step takes under a second.
final class Console: @unchecked Sendable {
    private let lock = NSLock()
    private let isTerminal = isatty(STDERR_FILENO) != 0
    private var lineIsOpen = false
    private var step = ""
    private var stepStart = ContinuousClock.now
    private var lastShown = ContinuousClock.now

    static let shared = Console()

    /// Reports how far a step is; the first report of a step starts its clock.
    func progress(_ name: String, done: Int, of total: Int) {
        lock.withLock {
            let now = ContinuousClock.now
            if name != step {
                closeLine()
                (step, stepStart, lastShown) = (name, now, now)
            }
            let elapsed = now - stepStart
            let interval: Duration = isTerminal ? .milliseconds(100) : .seconds(2)
            guard elapsed > .seconds(1) || (!isTerminal && done == total && elapsed > .seconds(1)), now - lastShown >= interval || done == total
            else { return }
            lastShown = now
            var line = "\(name): \(done)/\(total)"
            if done > 0, done < total {
                let left = elapsed / .seconds(1) / Double(done) * Double(total - done)
                line += String(format: ", about %.0f s left", left.rounded(.up))
            }
            if isTerminal {
                write("\r\u{1B}[K" + line)
                lineIsOpen = true
            } else {
                write(line + "\n")
            }
        }
    }

    func message(_ text: String) {
        lock.withLock {
            closeLine()
            write(text + "\n")
        }
    }

    /// Ends a progress line before an answer is printed.
    func finishProgress() {
        lock.withLock {
            closeLine()
            step = ""
        }
    }

    private func closeLine() {
        if lineIsOpen { write("\r\u{1B}[K") }
        lineIsOpen = false
    }

    private func write(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}

/// Prints to standard output at once, also into a pipe.
func printNow(_ text: String, terminator: String = "\n") {
    FileHandle.standardOutput.write(Data((text + terminator).utf8))
}

/// Runs a command's body; what the library throws becomes a message on standard error and the category's exit code.
func reporting(_ body: () async throws -> Void) async throws {
    do {
        try await body()
    } catch let error as any EngineError {
        Console.shared.message("adallava: " + error.description)
        throw ExitCode(error.category.rawValue)
    } catch is CancellationError {
        Console.shared.message("adallava: stopped")
        throw ExitCode(130)
    }
}

/// JSON with sorted keys, one object a line.
func json(_ object: Any) throws -> String {
    let data = try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
    return String(decoding: data, as: UTF8.self)
}

extension Duration {
    var milliseconds: Double { self / .milliseconds(1) }
}
