import AdaLLaVA
import ArgumentParser
import Foundation

/// Sorts a command line's arguments into options and texts before the argument parser reads them. The parser takes everything that begins
/// with a dash for options, and a bundle of short ones for help if there is an `h` in it; a question may begin with one.
struct CommandArguments {
    /// A command's options and arguments, as the parser describes them.
    private struct Command: Decodable {
        struct Argument: Decodable {
            struct Name: Decodable { let kind, name: String }
            let kind: String
            let parsingStrategy: String
            let names: [Name]?

            var longName: String? { names?.first { $0.kind == "long" }.map { "--" + $0.name } }
        }

        var arguments: [Argument]?

        /// - Parameter type: only a command without subcommands is described. The description of a group includes its subcommands, which takes
        ///   milliseconds, and a group has only the common options.
        init(_ type: any ParsableCommand.Type) throws {
            guard type.configuration.subcommands.isEmpty else { return }
            struct Tool: Decodable { let command: Command }
            self = try JSONDecoder().decode(Tool.self, from: Data(type._dumpHelp().utf8)).command
        }

        var takesText: Bool { arguments?.contains { $0.kind == "positional" } ?? false }

        /// The option or flag that `word` (`--name`, `--name=value`, `-n`) is.
        func argument(_ word: String) -> Argument? {
            let name = word.hasPrefix("--") ? String(word.prefix { $0 != "=" }) : word
            return arguments?.first { argument in
                (argument.names ?? []).contains { ($0.kind == "short" ? "-" : "--") + $0.name == name }
            }
        }
    }

    private let root: any ParsableCommand.Type

    init(of root: any ParsableCommand.Type) { self.root = root }

    /// The process's arguments without its name, every byte of theirs kept.
    static var given: [String] {
        (1 ..< max(1, Int(CommandLine.argc))).compactMap { index in
            CommandLine.unsafeArgv[index].map { SystemPath.text(UnsafeRawBufferPointer(start: $0, count: strlen($0))) }
        }
    }

    /// Long options that every command has.
    private static let common = ["--help", "--help-hidden", "--version", "--generate-completion-script", "--experimental-dump-help"]

    /// The requested command, and the number of arguments that name it.
    private func command(of arguments: [String]) -> (type: any ParsableCommand.Type, depth: Int) {
        var (type, depth) = (root, 0)
        while depth < arguments.count, let next = type.configuration.subcommands.first(where: { $0._commandName == arguments[depth] }) {
            type = next
            depth += 1
        }
        return (type, depth)
    }

    /// Says which command is meant by a name that none has.
    /// - Throws: `ValidationError`
    private func checkCommand(_ arguments: [String], behind help: String = "") throws {
        let (type, depth) = command(of: arguments)
        let subcommands = type.configuration.subcommands
        guard !subcommands.isEmpty, depth < arguments.count else { return }
        let names = subcommands.filter { $0.configuration.shouldDisplay }.map { $0._commandName } + (depth == 0 ? ["help"] : [])
        let word = arguments[depth]
        if isCommon(word) || word == "help" { return }
        let group = (["adallava" + help] + arguments[..<depth]).joined(separator: " ")
        if word.hasPrefix("-"), word != "-" {
            throw ValidationError(
                "expected a command before '\(word.prefix(80))', such as '\(group) \(names[0])'; there are \(names.joined(separator: ", "))")
        }
        let meant = Self.habits[word] ?? Suggestion.nearest(to: word, among: names)
        throw ValidationError(
            "unknown command '\(word.prefix(80))'" + (meant.map { "; did you mean '\(group) \($0)'?" } ?? "; there are \(names.joined(separator: ", "))"))
    }

    /// Names of a command in other programs.
    private static let habits = [
        "run": "ask", "generate": "ask", "cli": "ask", "quantize": "convert", "benchmark": "bench", "info": "inspect", "show": "inspect", "server": "serve",
    ]

    /// The usage of the requested command, for a usage error that was found before the parser ran.
    func usage(for arguments: [String]) -> String {
        let (type, depth) = command(of: arguments)
        let name = ([root._commandName] + arguments[..<depth]).joined(separator: " ")
        return "Usage: \(root.usageString(for: type))\n  See '\(name) --help' for more information."
    }

    /// A hint for a usage error if a text may have been read as an option.
    func hint(for arguments: [String]) -> String? {
        let (type, depth) = command(of: arguments)
        guard let command = try? Command(type) else { return nil }
        var isUnknown = false, isValue = false
        for word in arguments[depth...].prefix(while: { $0 != "--" }) {
            let option = isValue ? nil : command.argument(word)
            isUnknown = isUnknown || !isValue && word.hasPrefix("-") && word != "-" && option == nil && !isCommon(word)
            isValue = option?.kind == "option" && !(word.hasPrefix("--") && word.contains("="))
        }
        return isUnknown && command.takesText ? "  Put -- before a text that begins with a dash." : nil
    }

    private func isCommon(_ word: String) -> Bool { word == "-h" || Self.common.contains { word == $0 || word.hasPrefix($0 + "=") } }

    /// The arguments with all texts after `--` if one of them begins with a dash. After the first text, arguments that are no options are
    /// texts.
    /// - Throws: `ValidationError` for a command or an option that there is not.
    func prepared(_ arguments: [String]) throws -> [String] {
        if arguments.first == "help" {
            try checkCommand(Array(arguments.dropFirst()), behind: " help")
            return arguments
        }
        try checkCommand(arguments)
        let (type, depth) = command(of: arguments)
        let command = try Command(type)
        var position = depth
        var options = Array(arguments[..<depth])
        var texts: [String] = []
        while position < arguments.count {
            let word = arguments[position]
            position += 1
            if word == "--" {
                texts += arguments[position...]
                break
            }
            if let option = command.argument(word) {
                options.append(word)
                guard option.kind == "option", !(word.hasPrefix("--") && word.contains("=")), position < arguments.count else { continue }
                if option.parsingStrategy == "upToNextOption" {
                    while position < arguments.count, !arguments[position].hasPrefix("-") || arguments[position] == "-" {
                        options.append(arguments[position])
                        position += 1
                    }
                } else if option.parsingStrategy == "unconditional" || command.argument(arguments[position]) == nil && arguments[position] != "--" {
                    // A value that begins with a dash would be read as options.
                    if isPlain(arguments[position]) {
                        options.append(arguments[position])
                    } else {
                        options[options.count - 1] = (option.longName ?? word) + "=" + arguments[position]
                    }
                    position += 1
                }
            } else if !word.hasPrefix("-") || word == "-" || command.takesText && !isCommon(word) && isText(word, isFirst: texts.isEmpty) {
                texts.append(word)
            } else if isCommon(word) {
                options.append(word)
            } else {
                let name = String(word.prefix { $0 != "=" })
                let known = (command.arguments ?? []).flatMap { ($0.names ?? []).filter { $0.kind == "long" }.map { "--" + $0.name } }
                // llama-bench's -p is a number of tokens, which is no prompt here.
                let habit = ["-p": "--prompt-tokens"].first { $0.key == name && known.contains($0.value) }?.value
                let meant = name.hasPrefix("--") ? Suggestion.nearest(to: name, among: known) : habit
                throw ValidationError("unknown option '\(name.prefix(80))'" + (meant.map { "; did you mean '\($0)'?" } ?? ""))
            }
        }
        // Arguments that the parser reads correctly stay unchanged.
        if arguments.allSatisfy(isPlain) { return arguments }
        return texts.contains { $0.hasPrefix("-") && $0 != "-" } ? options + ["--"] + texts : options + texts
    }

    /// Whether the parser reads an argument rightly by itself.
    private func isPlain(_ word: String) -> Bool {
        !word.hasPrefix("-") || ["-", "-h"].contains(word) || word.wholeMatch(of: /--[a-z][a-z0-9-]*(=.*)?/.dotMatchesNewlines()) != nil
    }

    /// Whether a word that begins with a dash and is no option is a text: after another one, or by the white space in it.
    private func isText(_ word: String, isFirst: Bool) -> Bool {
        if word.contains(where: \.isWhitespace) { return true }
        return !isFirst && word.wholeMatch(of: /--[A-Za-z0-9].*/) == nil
    }
}
