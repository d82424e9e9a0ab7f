import AdaLLaVA
import CLineEditor
import Foundation

/// Messages that a person types on the terminal, with editing, completion, pasted text as one message, and a history kept between runs.
/// The prompt goes to standard error or, where that is no terminal, to the terminal itself: standard output is for answers.
final class LineEditor {
    enum Input {
        case line(String)
        /// Ctrl-C.
        case interrupted(isEmpty: Bool)
        case end
    }

    private let editor: OpaquePointer
    private let history: LineHistory?

    /// - Returns: `nil` if standard input is no terminal that can be edited on.
    init?() {
        guard isatty(STDIN_FILENO) != 0 else { return nil }
        let isOwn = isatty(STDERR_FILENO) == 0
        let output = isOwn ? Files.open("/dev/tty", O_RDWR) : STDERR_FILENO
        guard output >= 0 else { return nil }
        defer { if isOwn { close(output) } }
        let created = cle_create(STDIN_FILENO, output, Int32(LineHistory.limit), completeLine)
        guard let created else { return nil }
        editor = created
        history = LineHistory.open()
        for message in history?.earlier ?? [] { remember(message) }
    }

    /// A message: a line, with those after it that a backslash at its end continues it with.
    func read() -> Input {
        var message = MessageLines()
        while true {
            let (result, line) = readLine(message.isEmpty ? "> " : "… ")
            switch result {
            case CLE_INTERRUPTED: return .interrupted(isEmpty: message.isEmpty && line.isEmpty)
            case CLE_LINE: if message.append(line) { continue }
            default: if message.isEmpty { return .end }
            }
            if !message.bytes.isEmpty {
                remember(message.bytes)
                history?.append(message.bytes)
            }
            return .line(SystemPath.text(message.bytes))
        }
    }

    private func remember(_ message: [UInt8]) { cle_remember(editor, message.map { CChar(bitPattern: $0) } + [0]) }

    private func readLine(_ prompt: String) -> (cle_result, [UInt8]) {
        var line: UnsafeMutablePointer<CChar>?
        let result = EditedTerminal.editing { cle_read(editor, prompt, &line) }
        defer { free(line) }
        return (result, line.map { Array(UnsafeRawBufferPointer(start: $0, count: strlen($0))) } ?? [])
    }
}

/// Completion by Tab, called by the editor.
private func completeLine(
    _ before: UnsafePointer<CChar>?, _ choices: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> UnsafeMutablePointer<CChar>? {
    guard let before else { return nil }
    let completion = ChatCompletion(before: SystemPath.text(UnsafeRawBufferPointer(start: before, count: strlen(before))))
    if !completion.choices.isEmpty {
        let list = completion.choices.map { TerminalText.shown($0) }.joined(separator: "\n")
        choices?.pointee = strdup(list)
    }
    return strdup(completion.insertion)
}

/// The lines of one message: a backslash at a line's end, which no other backslash protects, continues it on the next line.
struct MessageLines {
    private(set) var bytes: [UInt8] = []
    private(set) var isEmpty = true

    /// - Returns: whether another line follows.
    mutating func append(_ line: some Collection<UInt8>) -> Bool {
        let line = Array(line)
        isEmpty = false
        let continues = line.reversed().prefix { $0 == UInt8(ascii: "\\") }.count % 2 == 1
        bytes += continues ? line.dropLast() + [UInt8(ascii: "\n")] : line
        return continues
    }
}
