import AdaLLaVA
import CLineEditor
import Foundation
import Synchronization

extension ErrorCategory {
    /// The exit code of a command that ends with this kind of error (BSD sysexits).
    var exitCode: Int32 {
        switch self {
        case .usage: 64
        case .badData: 65
        case .missingInput: 66
        case .software: 70
        case .inputOutput: 74
        }
    }
}

/// The ways out of the process: each leaves the terminal as it was and no half-written file.
enum Exit {
    /// Ends the process.
    static func now(_ code: Int32) -> Never {
        cleanUp()
        exit(code)
    }

    /// Ends the process at once, from a signal's handler.
    static func atOnce(_ code: Int32) -> Never {
        cleanUp()
        _exit(code)
    }

    /// Ends the process after its output was closed: silently, as the system would.
    static func ofClosedPipe() -> Never {
        Console.shared.finishProgress()
        by(SIGPIPE)
    }

    /// Ends the process by a signal, as the system would, also where a line of progress cannot be written.
    static func by(_ number: Int32) -> Never {
        EditedTerminal.restore()
        PartialFiles.abandonAll()
        signal(number, SIG_DFL)
        // Threads of the system's queues have signals blocked.
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, number)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        raise(number)
        _exit(128 + number)
    }

    private static func cleanUp() {
        Console.shared.finishProgress()
        EditedTerminal.restore()
        PartialFiles.abandonAll()
    }
}

/// The terminal that standard input is, while a line editor has its settings changed.
enum EditedTerminal {
    private static let settings = Mutex<termios?>(nil)

    /// Lets `body` change the settings; they are restored however the process ends.
    static func editing<Result>(_ body: () -> Result) -> Result {
        var before = termios()
        let isTerminal = tcgetattr(STDIN_FILENO, &before) == 0
        settings.withLock { $0 = isTerminal ? before : nil }
        defer { settings.withLock { $0 = nil } }
        return body()
    }

    static func restore() {
        settings.withLock { settings in
            guard var before = settings else { return }
            // Else a process in the background would be stopped here.
            signal(SIGTTOU, SIG_IGN)
            cle_abandon()
            tcsetattr(STDIN_FILENO, TCSANOW, &before)
        }
    }
}
