import Foundation

/// The project's own set, as `adallava data scenes` writes it: five tasks in LLaVA's instruction format.
///
/// Scored as its definition says: the exact answer for `vqa`, `text` and `choice`; `pope` also by precision, recall, F1 and the share of
/// yes; `caption` by the set of things it names.
public struct ScenesBenchmark: Benchmark {
    public let samples: [BenchmarkSample]
    public let maxTokens = 64
    public let mainScore = "exact_match"
    public static let tasks = ["vqa", "pope", "text", "choice", "caption"]

    /// - Parameter file: `SPLIT.json`; images are found relative to its folder.
    /// - Throws: ``EvaluationError``, `CheckpointError` for a file that is missing or no JSON.
    public init(contentsOf file: URL) throws {
        let folder = file.deletingLastPathComponent()
        samples = try JSONPlace(contentsOf: file, needed: "the Scenes list named with --data").array().map { record in
            let task = try record.member("task")
            guard ScenesBenchmark.tasks.contains(try task.string()) else {
                throw task.failure("one of \(ScenesBenchmark.tasks.joined(separator: ", "))")
            }
            let turns = try record.member("conversations").array()
            guard turns.count == 2 else { throw record.failure("two turns, a question and its answer", "\(turns.count)") }
            let image = try record.member("image")
            return BenchmarkSample(
                id: try record.member("id").identifier(), image: .file(try safePath(try image.string(), below: folder, in: image)),
                question: LLaVAPrompt.withoutImageMark(try turns[0].member("value").string()),
                references: [try turns[1].member("value").string()], tags: ["task": try task.string()])
        }
    }

    public func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        guard let reference = sample.references.first else { return nil }
        let isRight =
            sample.tags["task"] == "caption"
            ? ScenesBenchmark.namedThings(answer) == ScenesBenchmark.namedThings(reference)
            : answer.trimmingCharacters(in: .whitespacesAndNewlines) == reference.trimmingCharacters(in: .whitespacesAndNewlines)
        return isRight ? 1 : 0
    }

    public func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        let scored = answers.compactMap { item in score(item.answer, for: item.sample).map { (sample: item.sample, score: $0) } }
        guard let overall = scored.map(\.score).mean else { return [] }
        let means = Dictionary(uniqueKeysWithValues: meansByTag("task", scored).map { ($0.name, $0.mean) })
        var scores = [BenchmarkScore("exact_match", overall)]
        scores += ScenesBenchmark.tasks.compactMap { task in means[task].map { BenchmarkScore(task, $0) } }
        let pope = answers.filter { $0.sample.tags["task"] == "pope" }
        if !pope.isEmpty { scores += YesNoCounts(pope).scores(prefix: "pope_") }
        return scores
    }

    /// "The image shows a cat and the word STOP." names `cat` and `word STOP`; `nil` if the text has another form.
    static func namedThings(_ caption: String) -> Set<String>? {
        let start = "The image shows "
        var text = caption.trimmingCharacters(in: .whitespacesAndNewlines)
        guard text.hasPrefix(start) else { return nil }
        text.removeFirst(start.count)
        if text.hasSuffix(".") { text.removeLast() }
        let things = text.components(separatedBy: " and ").map { part in
            for article in ["a ", "an ", "the "] where part.hasPrefix(article) { return String(part.dropFirst(article.count)) }
            return part
        }
        return Set(things)
    }
}
