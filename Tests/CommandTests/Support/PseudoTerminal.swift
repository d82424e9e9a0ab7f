#if os(Linux)
    import Foundation
    import Testing

    /// A terminal with a process on it, as a person has it: what is sent are keys, what is expected is what the screen shows.
    final class PseudoTerminal {
        /// What was not shown in time.
        struct Missing: Error, CustomStringConvertible { let description: String }

        /// How long anything may take on a machine that is busy with other work.
        private static let patience = Duration.seconds(240)

        let process: pid_t
        private let near: Int32
        private var shown = ""
        private var undecoded: [UInt8] = []
        private var hasEnded = false
        /// All that was written to the terminal.
        private var written = ""

        /// Starts a program in a session of its own, whose terminal this is.
        init(_ program: URL, _ arguments: [String], environment: [String: String] = [:]) throws {
            let near = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
            // TIOCSPTLCK and TIOCGPTN: unlock the far end and ask for its number.
            var (locked, number) = (Int32(0), UInt32(0))
            try #require(near >= 0 && ioctl(near, 0x4004_5431, &locked) == 0 && ioctl(near, 0x8004_5430, &number) == 0)
            // Wide, so that no path is broken into rows.
            var size = winsize(ws_row: 50, ws_col: 1000, ws_xpixel: 0, ws_ypixel: 0)
            try #require(ioctl(near, UInt(TIOCSWINSZ), &size) == 0)
            var actions = posix_spawn_file_actions_t()
            posix_spawn_file_actions_init(&actions)
            defer { posix_spawn_file_actions_destroy(&actions) }
            // The first terminal that a session's leader opens becomes the session's.
            for descriptor in 0 ..< Int32(3) { posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/pts/\(number)", O_RDWR, 0) }
            var attributes = posix_spawnattr_t()
            posix_spawnattr_init(&attributes)
            defer { posix_spawnattr_destroy(&attributes) }
            // POSIX_SPAWN_SETSID, POSIX_SPAWN_SETSIGMASK and POSIX_SPAWN_SETSIGDEF.
            posix_spawnattr_setflags(&attributes, 0x80 | 0x08 | 0x04)
            var signals = sigset_t()
            sigemptyset(&signals)
            posix_spawnattr_setsigmask(&attributes, &signals)
            for number in [SIGINT, SIGQUIT, SIGTSTP, SIGTTOU, SIGPIPE, SIGHUP, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU] { sigaddset(&signals, number) }
            posix_spawnattr_setsigdefault(&attributes, &signals)
            let variables = ProcessInfo.processInfo.environment.merging(["TERM": "xterm", "LC_ALL": "C.UTF-8", "ADALLAVA_HISTORY": ""]) { $1 }
                .merging(environment) { $1 }
            let argv = ([program.path] + arguments).map { strdup($0) } + [nil]
            let envp = variables.map { strdup("\($0)=\($1)") } + [nil]
            defer { for string in argv + envp { free(string) } }
            var child = pid_t()
            let failure = posix_spawn(&child, program.path, &actions, &attributes, argv, envp)
            try #require(failure == 0, "\(String(cString: strerror(failure)))")
            (self.near, process) = (near, child)
        }

        deinit {
            close(near)
            if !hasEnded {
                kill(process, SIGKILL)
                waitpid(process, nil, 0)
            }
        }

        func send(_ keys: String) throws {
            var bytes = Array(keys.utf8)[...]
            while !bytes.isEmpty {
                let written = bytes.withUnsafeBytes { write(near, $0.baseAddress, $0.count) }
                try #require(written > 0)
                bytes = bytes.dropFirst(written)
            }
        }

        /// Waits until the screen shows `text` after what was expected before.
        /// - Returns: what it showed up to the end of `text`, without the terminal's control sequences.
        @discardableResult func expect(_ text: String) throws -> String {
            try wait(for: text.debugDescription) { visible in visible.range(of: text)?.upperBound }
        }

        /// Waits until the screen shows more than what was expected before.
        func expectAnything() throws { try wait(for: "anything") { $0.isEmpty ? nil : $0.startIndex } }

        @discardableResult private func wait(for wanted: String, _ end: (String) -> String.Index?) throws -> String {
            let deadline = ContinuousClock.now + Self.patience
            while true {
                let visible = visible
                if let end = end(visible) {
                    shown = String(visible[end...])
                    return String(visible[..<end])
                }
                guard ContinuousClock.now < deadline, let piece = more() else {
                    throw Missing(description: "expected \(wanted), the screen showed \(visible.debugDescription)")
                }
                shown += piece
            }
        }

        /// Waits for the end of the process.
        /// - Returns: its exit code; negative: the signal that ended it.
        func exitCode() throws -> Int32 {
            let deadline = ContinuousClock.now + Self.patience
            var status: Int32 = 0
            while waitpid(process, &status, WNOHANG) != process {
                guard ContinuousClock.now < deadline else { throw Missing(description: "the process did not end; the screen showed \(visible.debugDescription)") }
                // What it still writes has to be taken from it.
                if let piece = more() { shown += piece } else { usleep(5_000) }
            }
            hasEnded = true
            return status & 0x7F == 0 ? status >> 8 & 0xFF : -(status & 0x7F)
        }

        /// Whether the terminal echoes and edits lines itself, as a shell leaves it to programs.
        var isCooked: Bool {
            var settings = termios()
            let wanted = tcflag_t(ECHO | ICANON | ISIG)
            return tcgetattr(near, &settings) == 0 && settings.c_lflag & wanted == wanted
        }

        /// Whether the terminal was asked to mark what is pasted (bracketed paste), and not to stop.
        var marksPastes: Bool {
            while let piece = more(), !piece.isEmpty { shown += piece }
            return written.ranges(of: "\u{1B}[?2004").last.map { written[$0.upperBound...].hasPrefix("h") } ?? false
        }

        /// Processes that the process has started.
        var children: [pid_t] {
            let list = (try? String(contentsOfFile: "/proc/\(process)/task/\(process)/children", encoding: .utf8)) ?? ""
            return list.split(whereSeparator: \.isWhitespace).compactMap { pid_t($0) }
        }

        private var visible: String {
            shown.replacing(/\u{1B}\[[0-9;?]*[A-Za-z]/, with: "").replacing("\r\n", with: "\n").replacing("\r", with: "").replacing("\u{07}", with: "")
        }

        /// What the screen shows next, waiting a while; `nil` at the end.
        private func more() -> String? {
            var from = pollfd(fd: near, events: Int16(POLLIN), revents: 0)
            guard poll(&from, 1, 200) > 0 else { return "" }
            var bytes = [UInt8](repeating: 0, count: 1 << 16)
            let count = read(near, &bytes, bytes.count)
            // Nothing has the far end open any more.
            guard count > 0 else { return nil }
            undecoded += bytes.prefix(count)
            // A character may come in two pieces.
            let whole = (0 ..< 4).map { undecoded.count - $0 }.first { $0 >= 0 && String(validating: undecoded.prefix($0), as: UTF8.self) != nil }
            defer { undecoded.removeFirst(whole ?? undecoded.count) }
            let text = String(decoding: undecoded.prefix(whole ?? undecoded.count), as: UTF8.self)
            written += text
            return text
        }
    }
#endif
