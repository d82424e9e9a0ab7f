import AdaImages
import AdaLLaVA
import ArgumentParser
import CEditLine
import Foundation

struct Chat: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Talk about images over several turns.",
        discussion: """
            In the chat: /image FILE adds an image to your next message, /budget 0.6 sets the budget, /clear forgets the conversation, \
            /help lists these, /exit (or Ctrl-D) ends. Ctrl-C stops an answer.
            """)

    @Option(help: "An image for the first message; may be given several times.")
    var image: [String] = []

    @OptionGroup var model: ModelFlags
    @OptionGroup var sampling: SamplingFlags
    @OptionGroup var damage: LenientFlag

    @Flag(help: "Print one JSON object a turn.")
    var json = false

    func validate() throws {
        if image.contains("-") { throw ValidationError("--image: expected a file or a data: URL; standard input is where your messages come from") }
    }

    func run() async throws {
        try await reporting {
            let budget = try Budget(parsing: sampling.budget)
            let batch = try imageBatch(image, tolerance: damage.tolerance)
            let checkpoint = try model.open()
            let images = try batch.prepared(for: checkpoint)
            let loaded = try await withInterruption { try await model.load(checkpoint) }
            var session = ChatSession(
                model: loaded, budget: budget, options: sampling.generationOptions(), tolerance: damage.tolerance, json: json)
            session.pending = images
            if isatty(STDIN_FILENO) != 0 { Console.shared.message(ChatSession.help) }
            while let line = session.readLine() {
                let text = line.trimmingCharacters(in: .whitespaces)
                if text.isEmpty { continue }
                do {
                    if try await !session.handle(text) { return }
                } catch let error as GenerationError {
                    let isFull = if case .promptTooLong = error { true } else { false }
                    Console.shared.message("adallava: \(error.description)\(isFull ? "; /clear forgets the conversation so far" : "")")
                } catch let error as any EngineError {
                    // One bad line does not end a conversation.
                    Console.shared.message("adallava: " + error.description)
                } catch let error as CancellationError {
                    if interruptionEndsProcess() { throw error }
                    Console.shared.message("(stopped; this turn is not remembered)")
                }
            }
            // The prompt's line is still open after Ctrl-D.
            if isatty(STDIN_FILENO) != 0 { Console.shared.message("") }
        }
    }
}

/// What a conversation remembers between lines.
private struct ChatSession {
    static let help = "/image FILE   /budget 0.6   /clear   /help   /exit"

    let model: AdaptiveModel
    var budget: Budget
    let options: GenerationOptions
    let tolerance: ImageTolerance
    let json: Bool
    var pending: [PreparedImage] = []
    private var turns: [ChatMessage] = []
    private var images: [PreparedImage] = []

    init(model: AdaptiveModel, budget: Budget, options: GenerationOptions, tolerance: ImageTolerance, json: Bool) {
        (self.model, self.budget, self.options, self.tolerance, self.json) = (model, budget, options, tolerance, json)
    }

    /// The next line: with editing and history on a terminal, as it comes from a pipe.
    func readLine() -> String? {
        guard isatty(STDIN_FILENO) != 0 else { return ChatSession.pipedLine() }
        guard let line = EditedTerminal.editing({ adallava_read_line("> ") }) else { return nil }
        defer { free(line) }
        return SystemPath.text(UnsafeRawBufferPointer(start: line, count: strlen(line)))
    }

    /// The next line of a pipe, with every byte of it: it may name a file.
    private static func pipedLine() -> String? {
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while true {
            let count = read(STDIN_FILENO, &byte, 1)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return line.isEmpty ? nil : SystemPath.text(line) }
            if byte == UInt8(ascii: "\n") { return SystemPath.text(line) }
            line.append(byte)
        }
    }

    /// - Returns: `false` when the conversation ends.
    mutating func handle(_ text: String) async throws -> Bool {
        let parts = text.split(separator: " ", maxSplits: 1).map(String.init)
        let argument = parts.count > 1 ? parts[1].trimmingCharacters(in: .whitespaces) : ""
        switch parts[0] {
        case "/exit", "/quit": return false
        case "/help": Console.shared.message(ChatSession.help)
        case "/clear":
            (turns, images, pending) = ([], [], [])
        case "/budget":
            let wanted = try Budget(parsing: argument)
            try model.check(wanted)
            budget = wanted
        case "/image":
            let source = try ImageSource(argument: ChatSession.path(argument))
            // Standard input is where the conversation comes from.
            if source == .standardInput { throw ImageError.argument(name: "/image", reason: "expected a file or a data: URL, found `-`") }
            pending += try ImageBatch([source], tolerance: tolerance).prepared(with: try model.imagePreparation)
            Console.shared.message("image added to your next message")
        case let name where name.hasPrefix("/"):
            Console.shared.message("unknown: \(name)\n\(ChatSession.help)")
        default: try await ask(SystemPath.prose(text))
        }
        return true
    }

    /// A path as a shell would take it: without the quotes around it, `~` for the home folder.
    private static func path(_ argument: String) -> String {
        var path = argument
        for quote in ["\"", "'"] where path.count > 1 && path.hasPrefix(quote) && path.hasSuffix(quote) { path = String(path.dropFirst().dropLast()) }
        return path.hasPrefix("~/") ? NSString(string: path).expandingTildeInPath : path
    }

    private mutating func ask(_ text: String) async throws {
        let turn = ChatMessage.question(text, images: pending.count)
        let (conversation, allImages) = (turns + [turn], images + pending)
        let (model, budget, options, json) = (model, budget, options, json)
        let (answer, summary) = try await withInterruption {
            try await streamed(model, conversation, allImages, budget, options, isQuiet: json)
        }
        if let summary {
            if json { printNow(try adallava.json(summary.jsonObject(answer: answer))) } else { Console.shared.message(summary.line) }
            if let warning = summary.warning { Console.shared.message("adallava: " + warning) }
        }
        // A turn is remembered once it was answered.
        turns = conversation + [ChatMessage(.assistant, answer)]
        images = allImages
        pending = []
    }
}
