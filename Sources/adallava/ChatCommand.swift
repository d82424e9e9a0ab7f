/// A line of the chat that begins with a slash.
enum ChatCommand: String, CaseIterable {
    case image, images, budget, system, temperature, retry, save, clear, help, exit

    /// - Parameter name: without the slash.
    init?(named name: String) {
        self.init(rawValue: Self.habits[name] ?? name)
    }

    /// Names of the command in other programs.
    private static let habits = ["quit": "exit", "temp": "temperature"]

    var takesPath: Bool { self == .image || self == .save }

    /// Its syntax and effect.
    private var usage: (form: String, meaning: String) {
        switch self {
        case .image: ("/image FILE", "adds an image to your next message: a path, also as the terminal writes a dragged one, or a URL (file:, data:)")
        case .images: ("/images [drop [N]]", "lists the images; drop takes those back that wait for your next message, or the Nth of them")
        case .budget: ("/budget 0.6", "sets the budget of the answers: a fraction of the full model's compute, or times (400ms, ttft:150ms,tpot:8ms)")
        case .system: ("/system TEXT", "sets the system prompt; /system default is the template's")
        case .temperature: ("/temperature 0.7", "sets the temperature of the answers")
        case .retry: ("/retry", "answers your last message again")
        case .save: ("/save FILE", "writes the conversation to a new file, as Markdown or, if its name ends with .json, as JSON")
        case .clear: ("/clear", "forgets the conversation and its images")
        case .help: ("/help", "lists these")
        case .exit: ("/exit", "ends the chat")
        }
    }

    /// All of them, one a line. Manual pages keep lines apart that begin with blanks.
    static let list = allCases.map { "  \($0.usage.form)  \($0.usage.meaning)" }.joined(separator: "\n")

    /// All of them in one line.
    static let summary = allCases.map(\.usage.form).joined(separator: "   ")
}
