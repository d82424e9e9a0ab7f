/// Which option an answer to a multiple-choice question means, by the rules of the official script for MMBench's dev set of 2023-07-12,
/// OpenCompass's `tools/eval_mmbench.py`. Where no rule reads an answer the script asks GPT-3.5; there is no such judge here.
package enum OptionLetter {
    /// - Parameter options: a letter and a text each.
    /// - Returns: a letter from A to E, whether there is such an option or not; `nil` if no rule reads the answer.
    package static func infer(from answer: String, options: [(letter: String, text: String)]) -> String? {
        fromLetters(answer) ?? fromTexts(answer, options: options)
    }

    private static let letters = ["A", "B", "C", "D", "E"]
    /// Characters that may surround a letter, in the order in which they are tried.
    private static let marks = [
        ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."), (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
    ]

    /// Exactly one of the letters is a word; an A among more than three words is taken for the article. Else exactly one of them with the
    /// same marks around it is.
    private static func fromLetters(_ answer: String) -> String? {
        if answer.contains("Failed to obtain answer via API") { return nil }
        let all = VQAAnswer.words(answer)
        let words = Set(all)
        let alone = letters.filter(words.contains)
        if alone.count == 1, !(words.contains("A") && all.count > 3) { return alone[0] }
        for (before, after) in marks {
            let found = letters.filter { words.contains(before + $0 + after) }
            if found.count == 1 { return found[0] }
        }
        return nil
    }

    /// The text of exactly one option is part of the answer, ignoring case.
    private static func fromTexts(_ answer: String, options: [(letter: String, text: String)]) -> String? {
        // Code points are compared, as Python does.
        let answer = Array(answer.lowercased().unicodeScalars)
        let found = options.filter { option in
            let text = Array(option.text.lowercased().unicodeScalars)
            return text.isEmpty || answer.firstRange(of: text) != nil
        }
        return found.count == 1 ? found[0].letter : nil
    }
}
