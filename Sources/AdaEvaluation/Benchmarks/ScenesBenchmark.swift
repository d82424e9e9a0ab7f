import AdaLLaVA
import Foundation

/// The project's own set, as `adallava data scenes` writes it: five tasks of level 1 or eleven of level 2, in LLaVA's instruction format.
///
/// Scored by exact match except for two tasks: `pope` also by precision, recall, F1 and the fraction of yes, `caption` by the set of things that
/// it names.
package struct ScenesBenchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let maxTokens = 64
    package let mainScore = "exact_match"
    /// Those of level 1, then those of level 2.
    package static let tasks = [
        "vqa", "pope", "text", "choice", "caption", "chain1", "chain2", "chain3", "chain4", "count", "read", "sum", "compare", "odd", "negation",
        "change",
    ]

    /// - Parameter place: `SPLIT.json`, or a folder with one such list; images are found relative to the list's folder. A record with several
    ///   questions is as many samples, each asked by itself.
    /// - Throws: ``EvaluationError``, `CheckpointError` for a file that is missing or no JSON.
    package init(contentsOf place: URL) throws {
        let file = try ScenesBenchmark.list(at: place)
        let folder = file.deletingLastPathComponent()
        samples = try JSONPlace(contentsOf: file, needed: "the Scenes list named with --data").array().flatMap { record in
            let id = try record.member("id").identifier()
            let image = try record.member("image")
            let picture = BenchmarkImage.file(try safePath(try image.string(), below: folder, in: image))
            let turns = try record.member("conversations").array()
            guard turns.count >= 2, turns.count.isMultiple(of: 2) else {
                throw record.failure("questions and their answers in turn", "\(turns.count) turns")
            }
            let tasks = try ScenesBenchmark.tasks(of: record, questions: turns.count / 2)
            return try tasks.enumerated().map { index, task in
                BenchmarkSample(
                    id: tasks.count == 1 ? id : "\(id)/\(index + 1)", image: picture,
                    question: LLaVAPrompt.withoutImageMark(try turns[2 * index].member("value").string()),
                    references: [try turns[2 * index + 1].member("value").string()], tags: ["task": task])
            }
        }
    }

    /// The task of each question of a record: `task`, or `tasks` if there are several questions.
    private static func tasks(of record: JSONPlace, questions: Int) throws -> [String] {
        func known(_ task: JSONPlace) throws -> String {
            guard tasks.contains(try task.string()) else { throw task.failure("one of \(tasks.joined(separator: ", "))") }
            return try task.string()
        }
        if questions == 1 { return [try known(record.member("task"))] }
        guard let list = try record.optionalMember("tasks")?.array(), list.count == questions else {
            throw record.failure(
                "\"tasks\", one for each of its \(questions) questions, as `adallava data scenes` writes since 0.1.0; make the set again",
                record.optionalMember("tasks")?.value.summary ?? "none")
        }
        return try list.map(known)
    }

    /// The list that is meant by a file or by the folder that holds it.
    static func list(at place: URL) throws -> URL {
        guard FileKind(place) == .folder else { return place }
        let names = ((try? Files.names(in: place)) ?? []).filter { $0.hasSuffix(".json") && !$0.hasPrefix(".") }.sorted()
        guard names.count == 1 else {
            throw EvaluationError.argument(
                name: "--data", expected: "a Scenes list, or a folder with one",
                found: names.isEmpty ? "none in \(place.path)" : "\(names.joined(separator: ", ")) in \(place.path); name one of them")
        }
        return place.appendingPathComponent(names[0])
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        guard let reference = sample.references.first else { return nil }
        let isRight =
            sample.tags["task"] == "caption"
            ? ScenesBenchmark.namedThings(answer) == ScenesBenchmark.namedThings(reference)
            : answer.trimmingCharacters(in: .whitespacesAndNewlines) == reference.trimmingCharacters(in: .whitespacesAndNewlines)
        return isRight ? 1 : 0
    }

    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        let scored = answers.compactMap { item in score(item.answer, for: item.sample).map { (sample: item.sample, score: $0) } }
        guard let overall = BenchmarkScore(mainScore, meanOf: scored.map(\.score)) else { return [] }
        let means = meansByTag("task", scored)
        var scores = [overall] + ScenesBenchmark.tasks.compactMap { task in means.first { $0.name == task } }
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
