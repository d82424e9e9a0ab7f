import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct Chat: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Talk about images over several turns.",
        discussion: """
            In the chat, a line that begins with a slash is a command:

            \(ChatCommand.list)

            Tab completes commands and paths, the arrow keys find earlier messages, Ctrl-C stops an answer or forgets a line, Ctrl-D ends. \
            A backslash at a line's end continues the message on the next line, and pasted text is one message. Messages are kept for later \
            chats in $XDG_STATE_HOME/adallava/history, or in the file of ADALLAVA_HISTORY; ADALLAVA_HISTORY= keeps none.

            If messages come from a pipe, each line is one, and the exit code is that of the first line that failed.
            """)

    @Option(help: "An image for the first message; may be given several times.", completion: .file())
    var image: [String] = []

    @OptionGroup var model: ModelFlags
    @OptionGroup var sampling: SamplingFlags
    @OptionGroup var deadlines: DeadlineFlags
    @OptionGroup var damage: LenientFlag
    @OptionGroup var quiet: QuietFlag

    @Flag(help: "Print one JSON object per turn.")
    var json = false

    func validate() throws {
        if image.contains("-") { throw ValidationError("--image: expected a file or a URL; standard input is where your messages come from") }
    }

    func run() async throws {
        try await reporting {
            quiet.apply()
            let budget = try Budget(parsing: sampling.budget)
            let batch = try imageBatch(image, tolerance: damage.tolerance)
            let checkpoint = try model.open()
            let images = try batch.prepared(for: checkpoint)
            let loaded = try await withInterruption { try await loadForBudget(model, checkpoint, budget).model }
            var options = sampling.generationOptions()
            options.deadlines = deadlines.options
            var session = ChatSession(
                model: loaded, checkpoint: checkpoint, budget: budget, options: options, tolerance: damage.tolerance, json: json)
            session.pending = zip(image, images).map { ChatImage(name: $0, prepared: $1) }
            Console.shared.note(ModelLine.text(checkpoint))
            let editor = LineEditor()
            if editor != nil { Console.shared.note("\(ChatCommand.summary)   Ctrl-D ends") }
            defer { ignoringInterruption(false) }
            while let text = nextMessage(editor) {
                if try await !session.handle(text) { break }
                ignoringInterruption(editor != nil)
            }
            // On a terminal the person has seen the errors; a script gets the exit code.
            if editor == nil, let failure = session.failure { throw ExitCode(failure.exitCode) }
        }
    }

    /// The next message that is not blank; `nil` at the end.
    private func nextMessage(_ editor: LineEditor?) -> String? {
        while true {
            let line: String
            if let editor {
                ignoringInterruption(false)
                switch editor.read() {
                case .line(let text): line = text
                case .interrupted(let isEmpty):
                    if isEmpty { Console.shared.message("(Ctrl-D or /exit ends the chat)") }
                    continue
                case .end:
                    // The prompt's line is still open.
                    Console.shared.message("")
                    return nil
                }
            } else {
                guard let text = PipedLines.nextMessage() else { return nil }
                line = text
            }
            let text = line.trimmingCharacters(in: .whitespacesAndNewlines)
            if !text.isEmpty { return text }
        }
    }
}

/// Messages from a pipe or a file, with every byte of them: they may name files.
private enum PipedLines {
    /// A line, with those after it that a backslash at its end continues it with; `nil` at the end.
    static func nextMessage() -> String? {
        var message = MessageLines()
        while let line = nextLine(), message.append(line) {}
        return message.isEmpty ? nil : SystemPath.text(message.bytes)
    }

    private static func nextLine() -> [UInt8]? {
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while true {
            let count = read(STDIN_FILENO, &byte, 1)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return line.isEmpty ? nil : line }
            if byte == UInt8(ascii: "\n") {
                if line.last == UInt8(ascii: "\r") { line.removeLast() }
                return line
            }
            line.append(byte)
        }
    }
}
