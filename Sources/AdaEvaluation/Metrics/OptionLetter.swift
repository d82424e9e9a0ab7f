import Foundation

/// Which option an answer to a multiple-choice question means, found without a judge model: MMBench's exact matching, as VLMEvalKit's
/// `can_infer` does it.
public enum OptionLetter {
    private static let refusals = [
        "Sorry, I can't help with images of people yet.", "I can't process this file.", "I'm sorry, but without the image provided",
        "Cannot determine the answer",
    ]

    /// - Returns: the letter; `Z` for a refusal; `nil` if nothing can be said.
    public static func infer(from answer: String, options: [(letter: String, text: String)]) -> String? {
        fromLetters(answer, options: options.map(\.letter)) ?? fromTexts(answer, options: options)
    }

    /// Exactly one of the letters stands as a word of its own. An A among more than three words is taken for the article.
    private static func fromLetters(_ answer: String, options: [String]) -> String? {
        if answer.contains("Failed to obtain answer via API") { return nil }
        if refusals.contains(where: { answer.contains($0) }) { return "Z" }
        let marks = Set(".()[],:;!*#{}".unicodeScalars)
        let all = answer.unicodeScalars.split { marks.contains($0) || $0.properties.isWhitespace }.map { String(String.UnicodeScalarView($0)) }
        let words = Set(all)
        let found = options.filter(words.contains)
        if found.count == 1 { return words.contains("A") && all.count > 3 ? nil : found[0] }
        return found.isEmpty && words.contains("Z") ? "Z" : nil
    }

    /// The text of exactly one option is part of the answer, whatever the capitals.
    private static func fromTexts(_ answer: String, options: [(letter: String, text: String)]) -> String? {
        let answer = answer.lowercased()
        let found = options.filter { $0.text.isEmpty || answer.contains($0.text.lowercased()) }
        return found.count == 1 ? found[0].letter : nil
    }
}
