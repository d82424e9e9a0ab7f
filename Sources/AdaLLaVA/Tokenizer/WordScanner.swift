/// The pre-tokenizer patterns that most byte-level vocabularies use, matched by hand: one pass, no backtracking.
///
/// Each gives exactly the matches of its regular expression (the tests compare them on random text).
enum WordScanner: Sendable, Equatable {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    case gpt2
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:
    /// Llama 3 with up to three digits together, Qwen2 with one.
    case tiktoken(digits: Int)
    /// `\p{N}{1,n}`
    case numbers(atMost: Int)

    /// The scanner for a pattern, if it is one of the well-known ones to the letter.
    init?(pattern: String) {
        let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        let bracketed = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
        let spelledOut = pattern.hasPrefix(bracketed) ? contractions + pattern.dropFirst(bracketed.count) : pattern
        let letters = "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
        let rest = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        let plain = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
        switch spelledOut {
        case plain, plain + "|\\s+": self = .gpt2
        case contractions + letters + "\\p{N}{1,3}" + rest: self = .tiktoken(digits: 3)
        case contractions + letters + "\\p{N}" + rest, contractions + letters + "\\p{N}{1}" + rest: self = .tiktoken(digits: 1)
        case "\\p{N}": self = .numbers(atMost: 1)
        case "\\p{N}{1,3}": self = .numbers(atMost: 3)
        case "\\p{N}+": self = .numbers(atMost: .max)
        default: return nil
        }
    }

    /// Calls `body` with byte ranges that cover the text in order, and whether the pattern matched each.
    func forEach(in text: UnicodeText, _ body: (Range<Int>, _ isMatch: Bool) -> Void) {
        var start = 0
        var unmatched = 0
        while start < text.count {
            guard let end = matchEnd(text, start) else {
                start += 1
                continue
            }
            if unmatched < start { body(text.offsets[unmatched]..<text.offsets[start], false) }
            body(text.offsets[start]..<text.offsets[end], true)
            start = end
            unmatched = end
        }
        if unmatched < start { body(text.offsets[unmatched]..<text.offsets[start], false) }
    }

    private func matchEnd(_ text: UnicodeText, _ start: Int) -> Int? {
        switch self {
        case .gpt2: Self.gpt2(text, start)
        case .tiktoken(let digits): Self.tiktoken(text, start, digits: digits)
        case .numbers(let limit):
            text.classes[start].contains(.number) ? Self.run(text, start, limit: limit) { $0.contains(.number) } : nil
        }
    }

    private static func gpt2(_ text: UnicodeText, _ start: Int) -> Int {
        if let end = contraction(text, start, ignoringCase: false) { return end }
        // One space goes with the word, number or punctuation that follows it.
        let body = text.scalars[start] == " " ? start + 1 : start
        if body < text.count {
            let first = text.classes[body]
            if first.contains(.letter) { return run(text, body) { $0.contains(.letter) } }
            if first.contains(.number) { return run(text, body) { $0.contains(.number) } }
            if first.isOther { return run(text, body) { $0.isOther } }
        }
        return spaces(text, start)
    }

    private static func tiktoken(_ text: UnicodeText, _ start: Int, digits: Int) -> Int {
        if let end = contraction(text, start, ignoringCase: true) { return end }
        let first = text.classes[start]
        if first.contains(.letter) { return run(text, start) { $0.contains(.letter) } }
        let next = start + 1 < text.count ? text.classes[start + 1] : []
        if first.isDisjoint(with: [.newline, .number]), next.contains(.letter) { return run(text, start + 1) { $0.contains(.letter) } }
        if first.contains(.number) { return run(text, start, limit: digits) { $0.contains(.number) } }
        let hasNext = start + 1 < text.count
        let body = text.scalars[start] == " " && hasNext && next.isOther ? start + 1 : start
        if text.classes[body].isOther {
            let end = run(text, body) { $0.isOther }
            return run(text, end) { $0.contains(.newline) }
        }
        // Up to the last line break of a run of spaces, if it has one.
        let end = run(text, start) { $0.contains(.space) }
        var afterNewline = end
        while afterNewline > start && !text.classes[afterNewline - 1].contains(.newline) { afterNewline -= 1 }
        return afterNewline > start ? afterNewline : spaces(text, start)
    }

    /// Spaces, but for the last one when something follows it that can take it along.
    private static func spaces(_ text: UnicodeText, _ start: Int) -> Int {
        let end = run(text, start) { $0.contains(.space) }
        return end < text.count && end - start > 1 ? end - 1 : end
    }

    private static func run(_ text: UnicodeText, _ start: Int, limit: Int = .max, while condition: (UnicodeText.Class) -> Bool) -> Int {
        var end = start
        while end < text.count, end - start < limit, condition(text.classes[end]) { end += 1 }
        return end
    }

    private static func contraction(_ text: UnicodeText, _ start: Int, ignoringCase: Bool) -> Int? {
        guard text.scalars[start] == "'", start + 1 < text.count else { return nil }
        let first = letter(text, start + 1, ignoringCase)
        switch first {
        case "s", "t", "m", "d": return start + 2
        case "r", "v", "l":
            guard start + 2 < text.count, letter(text, start + 2, ignoringCase) == (first == "l" ? "l" : "e") else { return nil }
            return start + 3
        default: return nil
        }
    }

    private static func letter(_ text: UnicodeText, _ index: Int, _ ignoringCase: Bool) -> Unicode.Scalar {
        let scalar = text.scalars[index]
        guard ignoringCase else { return scalar }
        if (0x41...0x5A).contains(scalar.value) { return Unicode.Scalar(scalar.value + 32) ?? scalar }
        // The long s folds to s.
        return scalar == "\u{17F}" ? "s" : scalar
    }
}
