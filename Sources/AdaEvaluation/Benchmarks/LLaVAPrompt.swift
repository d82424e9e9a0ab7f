import Foundation

/// The texts that LLaVA-1.5's evaluation scripts add to a question (its `docs/Evaluation.md` and `scripts/v1_5/eval`).
enum LLaVAPrompt {
    /// VQAv2, GQA, TextVQA, POPE, MME.
    static let shortAnswer = "\nAnswer the question using a single word or phrase."
    /// ScienceQA, MMBench.
    static let optionLetter = "\nAnswer with the option's letter from the given choices directly."

    /// A turn's text without its image mark, which the engine puts first itself.
    static func withoutImageMark(_ text: String) -> String {
        text.replacingOccurrences(of: "<image>", with: "").trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
