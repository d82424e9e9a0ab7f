import AdaImages
import AdaLLaVA
import Foundation

/// The commands of a chat.
extension ChatSession {
    /// - Returns: `false` when the conversation ends.
    mutating func command(_ line: String) async throws -> Bool {
        let name = String(line.prefix { !$0.isWhitespace }.dropFirst())
        let argument = line.dropFirst(name.count + 1).trimmingCharacters(in: .whitespacesAndNewlines)
        switch ChatCommand(named: name) {
        // Text after these, such as a pasted message, would be lost.
        case .exit where !argument.isEmpty, .retry where !argument.isEmpty, .clear where !argument.isEmpty:
            fail(.usage, "/\(name): expected nothing after it, found \(argument.prefix(60)); nothing was done")
        case .exit: return false
        case .help: Console.shared.message(ChatCommand.list)
        case .clear: (turns, pending, asked) = ([], [], nil)
        case .image: try addImages(argument)
        case .images: listImages(argument)
        case .budget: try await setBudget(argument)
        case .temperature: try setTemperature(argument)
        case .system: try setSystemPrompt(argument)
        case .retry: try await retry()
        case .save: try save(argument)
        // A paste that begins with a slash, such as a comment of a program, is no mistyped command.
        case nil where line.contains("\n"): try await ask(line)
        case nil where ChatPath.isDragged(line): failOfFile(line)
        case nil:
            let meant = Suggestion.nearest(to: name, among: ChatCommand.allCases.map(\.rawValue))
            fail(.usage, "unknown: /\(name)" + (meant.map { "; did you mean /\($0)?" } ?? "") + "\n" + ChatCommand.summary)
        }
        return true
    }

    // MARK: - Images

    private mutating func addImages(_ argument: String) throws {
        // Before any file is read: a model without a tower takes none.
        let preparation = try model.imagePreparation
        guard !argument.isEmpty else { throw ImageError.argument(name: "/image", reason: "expected a file, a file: or a data: URL") }
        let sources = try ChatPath.paths(argument).map { try ImageSource(argument: $0) }
        // Standard input is where the conversation comes from.
        if sources.contains(.standardInput) { throw ImageError.argument(name: "/image", reason: "expected a file or a URL, found `-`") }
        try preparation.check(images: pending.count + sources.count)
        let images = try ImageBatch(sources, tolerance: tolerance).prepared(with: preparation)
        pending += zip(sources, images).map { ChatImage(name: $0.name, prepared: $1) }
        Console.shared.note(images.count == 1 ? "image added to your next message" : "\(images.count) images added to your next message")
    }

    private mutating func listImages(_ argument: String) {
        let words = argument.split(whereSeparator: \.isWhitespace)
        switch (words.first, words.count) {
        case (nil, _):
            let earlier = turns.flatMap(\.question.images)
            if earlier.isEmpty, pending.isEmpty { Console.shared.message("no images; /image FILE adds one to your next message") }
            for image in earlier { Console.shared.message("in the conversation: \(image.name)") }
            for (index, image) in pending.enumerated() { Console.shared.message("for your next message, \(index + 1): \(image.name)") }
        case ("drop", 1):
            Console.shared.message(pending.isEmpty ? "no images wait for your next message" : "dropped \(pending.map(\.name).joined(separator: ", "))")
            pending = []
        case ("drop", 2):
            guard let number = Int(words[1]), pending.indices.contains(number - 1) else {
                return fail(.usage, "/images drop: expected 1 to \(pending.count), the number of an image for your next message, found \(words[1].prefix(40))")
            }
            Console.shared.message("dropped \(pending.remove(at: number - 1).name)")
        default: fail(.usage, "/images: expected nothing or drop [N], found \(argument.prefix(60))")
        }
    }

    // MARK: - Settings

    private mutating func setBudget(_ argument: String) async throws {
        guard !argument.isEmpty else { return Console.shared.message("budget \(budget)") }
        let wanted = try Budget(parsing: argument)
        try model.check(wanted)
        let model = model
        if case .time = budget {} else { try await withInterruption { try await warmUp(model, for: wanted) } }
        budget = wanted
    }

    private mutating func setTemperature(_ argument: String) throws {
        guard !argument.isEmpty else { return Console.shared.message("temperature \(options.sampling.temperature)") }
        guard let temperature = Double(argument), temperature >= 0, temperature.isFinite else {
            return fail(.usage, "/temperature: expected a number of 0 or more, found \(argument.prefix(40))")
        }
        var wanted = options
        wanted.sampling.temperature = temperature
        try wanted.validate()
        options = wanted
    }

    private mutating func setSystemPrompt(_ argument: String) throws {
        guard !argument.isEmpty else {
            return Console.shared.message(options.system.map { "system prompt: \($0)" } ?? "the template's system prompt; /system TEXT sets another")
        }
        let wanted = argument == "default" ? nil : SystemPath.prose(argument)
        // A template may take none.
        _ = try model.tokenize([ChatMessage.question("?", images: 0)], system: wanted)
        options.system = wanted
    }

    // MARK: - Conversation

    private mutating func retry() async throws {
        guard let question = asked else { return fail(.usage, "/retry: there is no message yet") }
        let answered = turns.last.flatMap { $0.question.id == question.id ? $0 : nil }
        // With the same seed the answer would be the same.
        if let seed = options.sampling.seed { options.sampling.seed = seed &+ 1 }
        let isTime = if case .time = budget { true } else { false }
        if options.sampling.temperature == 0, !isTime, answered?.settings == settings {
            Console.shared.note("(at temperature 0 an answer stays the same; /temperature 0.7 varies it)")
        }
        try await answer(question, after: answered == nil ? turns : Array(turns.dropLast()))
    }

    private mutating func save(_ argument: String) throws {
        guard let path = ChatPath.paths(argument).first, !argument.isEmpty else { return fail(.usage, "/save: expected the name of a new file") }
        let file = URL(systemPath: path)
        guard !turns.isEmpty else { return fail(.usage, "/save: there is no answered message yet") }
        guard !Files.exists(file) else {
            return fail(.usage, "\(file.path): expected a new file, found one that is already there; choose another name or remove it")
        }
        let data = file.pathExtension.lowercased() == "json" ? try savedJSON() : Data(savedText.utf8)
        do {
            try Files.write(data, to: file)
        } catch {
            throw CheckpointError.unwritable(file: file.path, reason: error.localizedDescription)
        }
        Console.shared.note("saved \(turns.count == 1 ? "one turn" : "\(turns.count) turns") in \(file.path)")
    }

    private func savedJSON() throws -> Data {
        var messages = options.system.map { [SavedConversation.Message(role: "system", content: $0)] } ?? []
        for turn in turns {
            let images = turn.question.images.isEmpty ? nil : turn.question.images.map { SystemPath.prose($0.name) }
            messages.append(SavedConversation.Message(role: "user", content: turn.question.text, images: images))
            messages.append(SavedConversation.Message(role: "assistant", content: turn.answer))
        }
        let saved = SavedConversation(model: SystemPath.prose(checkpoint.name), messages: messages)
        return try JSONText.data(saved, isPretty: true) + Data("\n".utf8)
    }

    private var savedText: String {
        var parts = ["# Conversation with \(SystemPath.prose(checkpoint.name))"]
        if let system = options.system { parts += ["## System", system] }
        for turn in turns {
            parts.append("## User")
            parts += turn.question.images.map { "Image: \(SystemPath.prose($0.name))" } + [turn.question.text, "## Assistant", turn.answer]
        }
        return parts.joined(separator: "\n\n") + "\n"
    }
}

/// The file that `/save NAME.json` writes.
struct SavedConversation: Codable {
    let model: String
    let messages: [Message]

    struct Message: Codable {
        let role: String
        let content: String
        /// Names of the user's images.
        var images: [String]?
    }
}
