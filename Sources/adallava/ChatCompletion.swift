import AdaLLaVA
import Foundation

/// Completion of a line of the chat: the rest of a command's name, or of a path after a command that takes one.
struct ChatCompletion {
    private(set) var insertion = ""
    /// Candidates, if nothing can be inserted.
    private(set) var choices: [String] = []

    /// Choices that are listed; of more, the number is said.
    private static let shownChoices = 100

    /// - Parameter before: the line up to the cursor.
    init(before: String) {
        guard before.hasPrefix("/") else { return }
        guard let blank = before.firstIndex(where: \.isWhitespace) else {
            let names = ChatCommand.allCases.map { "/" + $0.rawValue }.filter { $0.hasPrefix(before) }
            complete(before, from: names) { $0 + " " }
            return
        }
        guard let command = ChatCommand(rawValue: String(before[..<blank].dropFirst())), command.takesPath else { return }
        completePath(String(before[blank...]))
    }

    private mutating func completePath(_ argument: String) {
        let line = ShellWords(argument)
        let word = line.endsWithBlank ? nil : line.words.last
        let text = word?.text ?? "", quote = word?.openQuote
        let slash = text.lastIndex(of: "/").map(text.index(after:)) ?? text.startIndex
        let (folder, prefix) = (String(text[..<slash]), String(text[slash...]))
        guard let names = try? Files.names(in: URL(systemPath: ChatPath.expandingHome(folder.isEmpty ? "." : folder))) else { return }
        let found = names.filter { name in
            name.hasPrefix(prefix) && (prefix.hasPrefix(".") || !name.hasPrefix("."))
                // Bytes that are no text cannot be typed.
                && SystemPath.prose(name) == name && TerminalText.shown(name) == name
        }
        let isFolder = { (name: String) in FileKind(URL(systemPath: ChatPath.expandingHome(folder + name))) == .folder }
        complete(prefix, from: found.map { isFolder($0) ? $0 + "/" : $0 }) { name in
            let isWhole = !name.hasSuffix("/")
            return ShellWords.quoted(name, inside: quote) + (isWhole ? (quote.map(String.init) ?? "") + " " : "")
        } quote: { ShellWords.quoted($0, inside: quote) }
    }

    private mutating func complete(_ typed: String, from candidates: [String], whole: (String) -> String, quote: (String) -> String = { $0 }) {
        guard let first = candidates.first else { return }
        if candidates.count == 1 {
            insertion = whole(String(first.dropFirst(typed.count)))
            return
        }
        let common = candidates.dropFirst().reduce(first) { $0.commonPrefix(with: $1) }
        insertion = quote(String(common.dropFirst(typed.count)))
        guard insertion.isEmpty else { return }
        choices = candidates.count > Self.shownChoices ? ["\(candidates.count) possibilities"] : candidates
    }
}

/// A path as it comes into a line of the chat: typed, completed, or dragged onto the terminal.
enum ChatPath {
    /// The paths of `argument`: itself where a file is called so, else its words if each is a file, else all of it as one path, without the
    /// backslashes and quotes that a shell would take away.
    static func paths(_ argument: String) -> [String] {
        let literal = expandingHome(argument)
        let scheme = argument.prefix { $0 != ":" }.lowercased()
        // A URL needs no escapes, except for a single quote.
        let isURL = scheme == "data" || scheme == "file" && !argument.contains(where: \.isWhitespace)
        if isURL || Files.exists(URL(systemPath: literal)) { return [literal] }
        let words = ShellWords(argument).words.map { expandingHome($0.text) }
        if words.count > 1 {
            let areFiles = words.allSatisfy { word in word.lowercased().hasPrefix("file:") || Files.exists(URL(systemPath: word)) }
            return areFiles ? words : [words.joined(separator: " ")]
        }
        return words.isEmpty ? [literal] : words
    }

    /// Whether a line is nothing but files as terminals write them: whole paths, or `file:` URLs.
    static func isDragged(_ line: String) -> Bool {
        paths(line).allSatisfy { $0.lowercased().hasPrefix("file:///") || $0.hasPrefix("/") && FileKind(URL(systemPath: $0)) == .file }
    }

    static func expandingHome(_ path: String) -> String {
        guard path == "~" || path.hasPrefix("~/"), let home = ProcessInfo.processInfo.environment["HOME"] else { return path }
        return home + path.dropFirst()
    }
}
