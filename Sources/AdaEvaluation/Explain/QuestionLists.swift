import AdaLLaVA
import Foundation

/// Images and questions given one by one: without right answers, so without scores.
package struct QuestionPairs: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = ""

    /// - Parameters:
    ///   - images: files, one for each question.
    package init(images: [String], questions: [String]) {
        samples = zip(images, questions).enumerated().map { index, pair in
            BenchmarkSample(id: "\(index)", image: .file(URL(systemPath: pair.0)), question: pair.1, references: [])
        }
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? { nil }
    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] { [] }
}

/// A list in LLaVA's instruction format (`id`, `image`, `conversations`): the first question of each conversation, right if the answer is
/// the text that follows it there.
package struct InstructionQuestions: Benchmark {
    package let samples: [BenchmarkSample]
    package let maxTokens = 64
    package let mainScore = "exact_match"

    /// Reads a list, as Scenes if its records name tasks.
    /// - Parameter place: the list, or a folder with one; images are found relative to the list's folder.
    /// - Throws: ``EvaluationError``, `CheckpointError` for a file that is missing or no JSON.
    package static func open(_ place: URL) throws -> any Benchmark {
        let file = try ScenesBenchmark.list(at: place)
        let records = try JSONPlace(contentsOf: file, needed: "the list named with --data").array()
        if records.isEmpty || records.contains(where: { $0.optionalMember("task") != nil }) { return try ScenesBenchmark(contentsOf: file) }
        return try InstructionQuestions(records, folder: file.deletingLastPathComponent())
    }

    private init(_ records: [JSONPlace], folder: URL) throws {
        samples = try records.enumerated().map { index, record in
            let turns = try record.member("conversations").array()
            guard turns.count >= 2 else { throw record.failure("a question and its answer", "\(turns.count) turns") }
            let image = try record.optionalMember("image").map { BenchmarkImage.file(try safePath(try $0.string(), below: folder, in: $0)) }
            // Files in circulation name some conversations twice.
            let name = try record.optionalMember("id")?.identifier() ?? ""
            return BenchmarkSample(
                id: "\(index) \(name)", image: image, question: LLaVAPrompt.withoutImageMark(try turns[0].member("value").string()),
                references: [try turns[1].member("value").string()])
        }
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        guard let reference = sample.references.first else { return nil }
        return answer.trimmingCharacters(in: .whitespacesAndNewlines) == reference.trimmingCharacters(in: .whitespacesAndNewlines) ? 1 : 0
    }

    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        [BenchmarkScore(mainScore, meanOf: answers.compactMap { score($0.answer, for: $0.sample) })].compactMap(\.self)
    }
}
