import Foundation
import Testing

/// Ctrl-C (SIGINT) while the executable works. Each test waits for a sign that the phase has begun, sends the signal, and needs the process
/// to end long before its work would be done.
@Suite(.serialized, .timeLimit(.minutes(3))) struct InterruptionTests {
    /// A prompt that takes long to read.
    private static let longPrompt = Array(repeating: "5", count: 60_000).joined(separator: ",")

    /// Reads from `handle` until `mark` was seen or the other end is closed.
    private func read(_ handle: FileHandle, until mark: String) -> String {
        var data = Data()
        while true {
            let piece = handle.availableData
            data.append(piece)
            if piece.isEmpty || data.range(of: Data(mark.utf8)) != nil { return String(decoding: data, as: UTF8.self) }
        }
    }

    // A failure means that an answer cannot be stopped, that a stopped one looks like a whole one, or that the prompt of the shell ends up
    // behind half a line.
    @Test("an answer can be stopped, and its line ends") func answer() throws {
        try Files.withSlowModel { model in
            let process = Command.process(["ask", "Hello?", "--model", model.path, "--max-tokens", "90000"])
            let (output, errors) = (Pipe(), Pipe())
            (process.standardOutput, process.standardError, process.standardInput) = (output, errors, FileHandle.nullDevice)
            try process.run()
            let first = output.fileHandleForReading.availableData
            #expect(!first.isEmpty)
            process.interrupt()
            let rest = first + output.fileHandleForReading.readDataToEndOfFile()
            let messages = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 130)
            #expect(rest.last == UInt8(ascii: "\n"))
            // A busy machine may have taken long enough over the prompt to be told of it.
            #expect(messages.split(separator: "\n").filter { !$0.hasPrefix("reading the prompt: ") && !$0.hasPrefix("model: ") } == ["adallava: stopped"])
        }
    }

    // A failure means that a long prompt cannot be stopped, or that a file is left by a trace that did not finish.
    @Test("reading a prompt can be stopped without leaving a file") func prompt() throws {
        try Files.withSlowModel { model in
            let output = model.appendingPathComponent("trace.safetensors")
            let process = Command.process([
                "trace", model.path, "--no-image", "--tokens", Self.longPrompt, "--precision", "f32", "--output", output.path,
            ])
            let (answers, errors) = (Pipe(), Pipe())
            (process.standardOutput, process.standardError, process.standardInput) = (answers, errors, FileHandle.nullDevice)
            try process.run()
            // Off a terminal, progress is plain lines.
            let progress = read(errors.fileHandleForReading, until: "reading the prompt: ")
            #expect(progress.contains("reading the prompt: ") && !progress.contains("\u{1B}"))
            process.interrupt()
            let messages = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 130)
            #expect(messages.hasSuffix("adallava: stopped\n"))
            #expect(answers.fileHandleForReading.readDataToEndOfFile().isEmpty)
            #expect(try FileManager.default.contentsOfDirectory(atPath: model.path).allSatisfy { !$0.contains("trace") })
        }
    }

    #if os(Linux)
        /// A terminal's two ends: what a person would see, and what the process writes to.
        private func pseudoTerminal() throws -> (FileHandle, FileHandle) {
            let near = try #require(FileHandle(forUpdatingAtPath: "/dev/ptmx"))
            // TIOCSPTLCK and TIOCGPTN: unlock the far end and ask for its number.
            var (locked, number) = (Int32(0), UInt32(0))
            try #require(ioctl(near.fileDescriptor, 0x4004_5431, &locked) == 0 && ioctl(near.fileDescriptor, 0x8004_5430, &number) == 0)
            return (near, try #require(FileHandle(forUpdatingAtPath: "/dev/pts/\(number)")))
        }

        // A failure means that Ctrl-C leaves a progress line on the terminal, with the message behind it.
        @Test("Ctrl-C removes the progress line") func terminal() throws {
            try Files.withSlowModel { model in
                let (terminal, other) = try pseudoTerminal()
                let process = Command.process(
                    [
                        "trace", model.path, "--no-image", "--tokens", Self.longPrompt, "--precision", "f32", "--output",
                        model.appendingPathComponent("t.safetensors").path,
                    ], environment: ["TERM": "xterm"])
                process.standardError = other
                (process.standardOutput, process.standardInput) = (FileHandle.nullDevice, FileHandle.nullDevice)
                try process.run()
                var shown = read(terminal, until: "reading the prompt: ")
                process.interrupt()
                shown += read(terminal, until: "stopped")
                process.waitUntilExit()
                #expect(process.terminationReason == .exit && process.terminationStatus == 130)
                let erase = "\r\u{1B}[K"
                #expect(shown.contains(erase + "reading the prompt: "))
                #expect(shown.components(separatedBy: erase).last?.hasPrefix("adallava: stopped") == true, "\(shown.debugDescription)")
            }
        }

        // A failure means that a chat which is ended while it waits for a line leaves the terminal without echo and line editing.
        @Test("terminal settings are restored", arguments: [SIGTERM, SIGINT, SIGHUP]) func terminalSettingsAreRestored(number: Int32) throws {
            try Files.withSlowModel { model in
                let (terminal, other) = try pseudoTerminal()
                var before = termios()
                try #require(tcgetattr(other.fileDescriptor, &before) == 0)
                func isAsBefore() -> Bool {
                    var now = termios()
                    return tcgetattr(other.fileDescriptor, &now) == 0 && now.c_lflag == before.c_lflag && now.c_iflag == before.c_iflag
                        && now.c_oflag == before.c_oflag
                }
                let process = Command.process(["chat", "--model", model.path], environment: ["TERM": "xterm"])
                (process.standardInput, process.standardOutput, process.standardError) = (other, FileHandle.nullDevice, other)
                try process.run()
                _ = read(terminal, until: "> ")
                for _ in 0 ..< 100 where isAsBefore() { usleep(20_000) }
                #expect(!isAsBefore(), "the line editor changed nothing, so nothing was tried")
                kill(process.processIdentifier, number)
                process.waitUntilExit()
                #expect(process.terminationReason == .exit && process.terminationStatus == 130)
                #expect(isAsBefore())
            }
        }
    #endif

    // A failure means that Ctrl-C during an answer ends the whole conversation, or that a stopped answer is remembered as a turn.
    @Test("Ctrl-C ends an answer, not the chat") func chat() throws {
        try Files.withSlowModel { model in
            let process = Command.process(["chat", "--model", model.path, "--max-tokens", "90000"])
            let (input, output, errors) = (Pipe(), Pipe(), Pipe())
            (process.standardInput, process.standardOutput, process.standardError) = (input, output, errors)
            try process.run()
            try input.fileHandleForWriting.write(contentsOf: Data("Hello?\n".utf8))
            #expect(!output.fileHandleForReading.availableData.isEmpty)
            process.interrupt()
            try input.fileHandleForWriting.write(contentsOf: Data("/help\n/exit\n".utf8))
            try input.fileHandleForWriting.close()
            _ = output.fileHandleForReading.readDataToEndOfFile()
            let messages = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 0)
            #expect(messages.contains("(stopped; this turn is not remembered)\n") && messages.contains("/budget 0.6"), "\(messages)")
        }
    }

    // A failure means that a closed terminal or a closed pipe leaves a half-written folder behind.
    @Test("an interrupted conversion leaves nothing", arguments: [SIGHUP, SIGTERM, SIGINT]) func conversionLeavesNothing(number: Int32) throws {
        try Files.withCopy(of: "ada-L") { model in
            // A tensor that nobody needs and that takes long to write; the file has a hole in its place.
            try Files.damage(model.appendingPathComponent("model.safetensors")) { data in
                let length = Int(data.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
                var header = (try? JSONSerialization.jsonObject(with: data[8 ..< 8 + length])) as? [String: Any] ?? [:]
                let end = data.count - 8 - length
                header["extra.weight"] = ["dtype": "F32", "shape": [16384, 16384], "data_offsets": [end, end + 1 << 30]]
                let text = (try? JSONSerialization.data(withJSONObject: header)) ?? Data()
                data = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) } + text + data[(8 + length)...]
            }
            let handle = try FileHandle(forUpdating: model.appendingPathComponent("model.safetensors"))
            try handle.truncate(atOffset: try handle.seekToEnd() + 1 << 30)
            try handle.close()
            let place = model.deletingLastPathComponent()
            func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: place.path).sorted() }
            let process = Command.process(["convert", model.path, place.appendingPathComponent("out").path, "--to", "bf16"])
            (process.standardOutput, process.standardError, process.standardInput) = (FileHandle.nullDevice, FileHandle.nullDevice, FileHandle.nullDevice)
            try process.run()
            for _ in 0 ..< 1000 where try names().count < 2 && process.isRunning { usleep(5_000) }
            #expect(try names().count == 2)
            kill(process.processIdentifier, number)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 130)
            #expect(try names() == ["model"])
        }
    }
}
