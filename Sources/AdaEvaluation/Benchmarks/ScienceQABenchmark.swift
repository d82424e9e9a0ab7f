import Foundation

/// ScienceQA's questions with an image (Lu et al., NeurIPS 2022): `problems.json`, `pid_splits.json` and `images/SPLIT/ID/image.png`.
///
/// Prompts are LLaVA's CQM-A form (`convert_sqa_to_llava.py`), answers are read as the `eval_science_qa.py` of LLaVA-1.5 reads them: one that
/// names no option is wrong. (Its version for LLaVA-1.0 guessed at random.)
package struct ScienceQABenchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = "accuracy"
    private static let letters = ["A", "B", "C", "D", "E"]

    /// - Parameter split: `test`, `val`, `train`.
    package init(folder url: URL, split: String) throws {
        let folder = BenchmarkFolder(url)
        let needed = "ScienceQA's problems and splits"
        let problems = try JSONPlace(contentsOf: try folder.file("problems.json", needed: needed), needed: needed)
        let splits = try JSONPlace(contentsOf: try folder.file("pid_splits.json", needed: needed), needed: needed)
        let letters = ScienceQABenchmark.letters
        let images = folder.optionalFile("images/\(split)", split) ?? url.appendingPathComponent("images/\(split)")
        samples = try splits.member(split).array().compactMap { entry in
            let id = try entry.identifier()
            let problem = try problems.member(id)
            guard let image = problem.optionalMember("image") else { return nil }
            let choices = try problem.member("choices").strings()
            let answer = try problem.member("answer")
            guard (1...letters.count).contains(choices.count), choices.indices.contains(try answer.integer()) else {
                throw answer.failure("the index of one of at most \(letters.count) choices")
            }
            let hint = try problem.optionalMember("hint")?.string() ?? ""
            return BenchmarkSample(
                id: id, image: .file(try safePath("\(id)/\(try image.string())", below: images, in: image)),
                question: ScienceQABenchmark.prompt(question: try problem.member("question").string(), hint: hint, choices: choices)
                    + LLaVAPrompt.optionLetter,
                references: [letters[try answer.integer()]],
                tags: ["choices": "\(choices.count)", "subject": try problem.optionalMember("subject")?.string() ?? "other"])
        }
    }

    private static func prompt(question: String, hint: String, choices: [String]) -> String {
        let context = hint.trimmingCharacters(in: .whitespacesAndNewlines)
        let options = zip(letters, choices).map { "(\($0)) \($1)" }.joined(separator: " ")
        return "Context: \(context.isEmpty ? "N/A" : context)\nQuestion: \(question)\nOptions: \(options)\n"
            .replacingOccurrences(of: "  ", with: " ").trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// The letter that an answer names: the letter alone, a letter with a full stop and a space in front, or exactly one "The answer is
    /// X" followed by some character.
    static func letter(in answer: String) -> String? {
        let text = answer.trimmingCharacters(in: .whitespacesAndNewlines)
        if letters.contains(text) { return text }
        if let first = text.first, letters.contains(String(first)), text.dropFirst().hasPrefix(". ") { return String(first) }
        let found = text.matches(of: /The answer is ([A-Z])[^\n]/)
        return found.count == 1 ? String(found[0].output.1) : nil
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        ScienceQABenchmark.letter(in: answer) == sample.references.first ? 1 : 0
    }

    /// `accuracy` (of questions with an image), `unread_answers`, and the accuracy by subject.
    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        let scored = answers.compactMap { item in score(item.answer, for: item.sample).map { (sample: item.sample, score: $0) } }
        guard let accuracy = BenchmarkScore("accuracy", meanOf: scored.map(\.score)) else { return [] }
        let unread = answers.count { ScienceQABenchmark.letter(in: $0.answer) == nil }
        return [accuracy, BenchmarkScore(unreadAnswers, Double(unread))]
            + meansByTag("subject", scored, prefix: "subject_").sorted { $0.name < $1.name }
    }
}
