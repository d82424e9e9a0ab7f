import AdaLLaVA
import Foundation

/// MME (Fu et al., 2023): a folder for each of the 14 subtasks, with the images and, for each, a text file of two questions that differ in
/// the answer, `question<TAB>Yes|No`. Both official layouts are read: everything in the subtask's folder, or `images/` and
/// `questions_answers_YN/` in it.
package struct MMEBenchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = "total"

    package static let perception = [
        "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
    ]
    package static let cognition = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"]

    package init(folder url: URL) throws {
        let folder = BenchmarkFolder(url)
        let root = folder.optionalFile("MME_Benchmark_release_version") ?? url
        var samples: [BenchmarkSample] = []
        for task in MMEBenchmark.perception + MMEBenchmark.cognition {
            let part = BenchmarkFolder(root.appendingPathComponent(task))
            guard Files.exists(part.url) else { continue }
            let questions = part.optionalFile("questions_answers_YN") ?? part.url
            let images = part.optionalFile("images") ?? part.url
            samples += try MMEBenchmark.samples(task, questions: questions, images: images)
        }
        if samples.isEmpty {
            throw EvaluationError.missing(
                file: root.appendingPathComponent("existence").path, needed: "the folders of MME's subtasks, questions in .txt files")
        }
        self.samples = samples
    }

    private static func samples(_ task: String, questions: URL, images: URL) throws -> [BenchmarkSample] {
        let names = try list(questions).filter { $0.hasSuffix(".txt") }.sorted()
        let pictures = try list(images)
        return try names.flatMap { name -> [BenchmarkSample] in
            let file = questions.appendingPathComponent(name)
            let stem = String(name.dropLast(4))
            guard let picture = pictures.first(where: { $0.hasPrefix(stem + ".") && !$0.hasSuffix(".txt") }) else {
                throw EvaluationError.missing(file: images.appendingPathComponent(stem + ".jpg").path, needed: "the image of \(file.path)")
            }
            let lines = try text(file).split(whereSeparator: \.isNewline).filter { !$0.allSatisfy(\.isWhitespace) }
            guard lines.count == 2 else {
                throw EvaluationError.data(file: file.path, at: "the whole file", expected: "two questions", found: "\(lines.count) lines")
            }
            return try lines.enumerated().map { number, line in
                let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
                let answer = fields.last.map { $0.trimmingCharacters(in: .whitespaces).lowercased() } ?? ""
                guard fields.count == 2, ["yes", "no"].contains(answer) else {
                    throw EvaluationError.data(
                        file: file.path, at: "line \(number + 1)", expected: "a question, a tab, and Yes or No", found: "\"\(line.prefix(80))\"")
                }
                return BenchmarkSample(
                    id: "\(task)/\(stem)-\(number + 1)", group: "\(task)/\(stem)", image: .file(images.appendingPathComponent(picture)),
                    question: prompt(String(fields[0])), references: [answer], tags: ["task": task])
            }
        }
    }

    /// LLaVA asks for a word instead of MME's own "Please answer yes or no.".
    private static func prompt(_ question: String) -> String {
        question.replacingOccurrences(of: "Please answer yes or no.", with: "").trimmingCharacters(in: .whitespaces) + LLaVAPrompt.shortAnswer
    }

    private static func list(_ folder: URL) throws -> [String] {
        do {
            return try Files.names(in: folder)
        } catch {
            throw EvaluationError.file(path: folder.path, reason: "cannot be read: \(error.localizedDescription)")
        }
    }

    private static func text(_ file: URL) throws -> String {
        do {
            return String(decoding: try Files.data(file), as: UTF8.self)
        } catch {
            throw EvaluationError.file(path: file.path, reason: "cannot be read: \(error.localizedDescription)")
        }
    }

    /// As MME's `calculation.py`: the whole answer, or its first four characters, hold a yes or else a no.
    static func reading(_ answer: String) -> String {
        let text = answer.trimmingCharacters(in: .whitespacesAndNewlines).lowercased()
        if text == "yes" || text == "no" { return text }
        let start = text.prefix(4)
        return start.contains("yes") ? "yes" : start.contains("no") ? "no" : "other"
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        MMEBenchmark.reading(answer) == sample.references.first ? 1 : 0
    }

    /// Points: each subtask's is 100 times the accuracy of its questions plus 100 times the fraction of images whose two questions are both
    /// right (acc+). Perception is at most 2000, cognition 800. Only answered subtasks are listed. `unread_answers` are those that the script
    /// calls `other`.
    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        var parts: [BenchmarkScore] = []
        var points: [String: Double] = [:]
        for task in MMEBenchmark.perception + MMEBenchmark.cognition {
            let part = answers.filter { $0.sample.tags["task"] == task }
            guard let accuracy = BenchmarkScore(task + "_acc", meanOf: part.compactMap { score($0.answer, for: $0.sample) }) else { continue }
            let images = Dictionary(grouping: part, by: \.sample.group).values
            let right = images.count { $0.allSatisfy { score($0.answer, for: $0.sample) == 1 } }
            let both = BenchmarkScore(task + "_acc_plus", right, of: images.count)
            points[task] = accuracy.value * 100 + both.value * 100
            parts += [BenchmarkScore(task, accuracy.value * 100 + both.value * 100), accuracy, both]
        }
        guard !parts.isEmpty else { return [] }
        let perception = MMEBenchmark.perception.compactMap { points[$0] }
        let cognition = MMEBenchmark.cognition.compactMap { points[$0] }
        var scores = [BenchmarkScore("total", (perception + cognition).reduce(0, +))]
        if !perception.isEmpty { scores.append(BenchmarkScore("perception", perception.reduce(0, +))) }
        if !cognition.isEmpty { scores.append(BenchmarkScore("cognition", cognition.reduce(0, +))) }
        scores.append(BenchmarkScore(unreadAnswers, Double(answers.count { MMEBenchmark.reading($0.answer) == "other" })))
        return scores + parts
    }
}
