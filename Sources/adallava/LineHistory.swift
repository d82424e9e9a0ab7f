import AdaLLaVA
import Foundation

/// Messages that were typed in earlier runs: a file that only its owner reads, with one message a line, shared by several chats at a time.
/// A backslash in a message is written as `\\` and a line break as `\n`.
final class LineHistory {
    /// Messages that are kept.
    static let limit = 1000
    /// Longer messages are not kept, in bytes.
    private static let messageLimit = 1 << 14
    /// The longest file that can be a history, in bytes.
    private static let fileLimit = 64 << 20

    /// Lines of earlier runs, the oldest first.
    let earlier: [[UInt8]]
    private let handle: FileHandle
    private var newest: [UInt8] = []

    private init(_ handle: FileHandle, earlier: [[UInt8]]) { (self.handle, self.earlier) = (handle, earlier) }

    /// Its file: `ADALLAVA_HISTORY` (empty: no history), else `adallava/history` in the user's state folder.
    static func file(in environment: [String: String]) -> URL? {
        if let named = environment["ADALLAVA_HISTORY"] { return named.isEmpty ? nil : URL(systemPath: named) }
        // The XDG base directory specification has relative paths ignored.
        if let state = environment["XDG_STATE_HOME"], state.hasPrefix("/") { return URL(fileURLWithPath: state + "/adallava/history") }
        guard let home = environment["HOME"], home.hasPrefix("/") else { return nil }
        return URL(fileURLWithPath: home + "/.local/state/adallava/history")
    }

    /// Opens the history that the environment names. An error is printed as a warning.
    /// - Returns: `nil` where none is kept.
    static func open() -> LineHistory? {
        guard let file = file(in: ProcessInfo.processInfo.environment) else { return nil }
        do {
            return try open(file)
        } catch {
            Console.shared.message("adallava: warning: messages are not kept in \(file.path): \(error.localizedDescription); ADALLAVA_HISTORY names another file")
            return nil
        }
    }

    /// - Returns: `nil` for a device, which does not give lines back.
    /// - Throws: ``SystemError``, ``Unusable``
    static func open(_ file: URL) throws -> LineHistory? {
        try Files.createFolder(file.deletingLastPathComponent())
        let descriptor = Files.open(file.path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { throw SystemError() }
        let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw SystemError() }
        guard status.st_mode & S_IFMT == S_IFREG else { return nil }
        guard status.st_size <= fileLimit else { throw Unusable() }
        flock(descriptor, LOCK_EX)
        defer { flock(descriptor, LOCK_UN) }
        let data = try handle.readToEnd() ?? Data()
        guard !data.contains(0) else { throw Unusable() }
        // Readable by the owner only, because it contains their questions.
        fchmod(descriptor, 0o600)
        let lines = data.split(separator: UInt8(ascii: "\n"))
        if lines.count > limit {
            try handle.truncate(atOffset: 0)
            try handle.write(contentsOf: Data(lines.suffix(limit).joined(separator: [UInt8(ascii: "\n")])) + [UInt8(ascii: "\n")])
        }
        return LineHistory(handle, earlier: lines.suffix(limit).map(message))
    }

    /// Why a file is left alone.
    struct Unusable: LocalizedError {
        var errorDescription: String? { "the file is no history of messages" }
    }

    /// Adds a message; one that repeats the newest is there already. A history that can no longer be written (a full disk) is no reason to
    /// disturb a conversation.
    func append(_ message: [UInt8]) {
        guard message.count <= Self.messageLimit, message != newest else { return }
        newest = message
        flock(handle.fileDescriptor, LOCK_EX)
        try? handle.write(contentsOf: Data(Self.line(message)))
        flock(handle.fileDescriptor, LOCK_UN)
    }

    private static func line(_ message: [UInt8]) -> [UInt8] {
        message.flatMap { byte in
            switch byte {
            case UInt8(ascii: "\\"): Array("\\\\".utf8)
            case UInt8(ascii: "\n"): Array("\\n".utf8)
            default: [byte]
            }
        } + [UInt8(ascii: "\n")]
    }

    private static func message(_ line: Data.SubSequence) -> [UInt8] {
        var message: [UInt8] = []
        var isEscaped = false
        for byte in line {
            if isEscaped {
                message.append(byte == UInt8(ascii: "n") ? UInt8(ascii: "\n") : byte)
                isEscaped = false
            } else if byte == UInt8(ascii: "\\") {
                isEscaped = true
            } else {
                message.append(byte)
            }
        }
        return message
    }
}
