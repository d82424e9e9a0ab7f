/// A line's words as a shell takes them: blanks separate, backslashes and quotes keep. Terminals write the paths of dragged files so.
struct ShellWords {
    struct Word: Equatable {
        var text = ""
        /// Where the word begins in the line.
        var start: String.Index
        /// The quote that is still open at the line's end.
        var openQuote: Character?
    }

    private(set) var words: [Word] = []
    /// Whether the line ends between words.
    private(set) var endsWithBlank = true

    init(_ line: String) {
        var word: Word?
        var isEscaped = false
        for index in line.indices {
            let character = line[index]
            if word == nil, character.isWhitespace { continue }
            var current = word ?? Word(start: index)
            if isEscaped {
                // Inside double quotes a backslash is literal, except before the characters that it escapes there.
                if current.openQuote == "\"", !"\"\\$`".contains(character) { current.text += "\\" }
                current.text.append(character)
                isEscaped = false
            } else if character == "\\", current.openQuote != "'" {
                isEscaped = true
            } else if character == current.openQuote {
                current.openQuote = nil
            } else if current.openQuote == nil, character == "\"" || character == "'" {
                current.openQuote = character
            } else if current.openQuote == nil, character.isWhitespace {
                words.append(current)
                word = nil
                continue
            } else {
                current.text.append(character)
            }
            word = current
        }
        if isEscaped { word?.text += "\\" }
        endsWithBlank = word == nil
        if let word { words.append(word) }
    }

    /// The text so that it is one word, or a part of one: inside the quote that is open, else with backslashes.
    static func quoted(_ text: String, inside quote: Character?) -> String {
        let special: String
        switch quote {
        case "'": return text.replacing("'", with: "'\\''")
        case "\"": special = "\"\\$`"
        default: special = " \t\n\"'\\`$&;|<>()*?[]{}#!"
        }
        return text.map { special.contains($0) ? "\\\($0)" : "\($0)" }.joined()
    }
}
