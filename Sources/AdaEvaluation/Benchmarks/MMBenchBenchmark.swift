import AdaLLaVA
import Foundation

/// MMBench (Liu et al., ECCV 2024): a table of questions with up to four options and base64 images, such as `mmbench_dev_20230712.tsv`.
///
/// Circular evaluation: a question with n options is asked n times, the options moved on by one each time, and counts only if every round
/// is right. Tables that hold the rounds as rows (their index is 1000000 higher each time) are taken as they are; from others the rounds
/// are made as LLaVA's `model_vqa_mmbench.py --all-rounds` makes them.
package struct MMBenchBenchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = "circular_accuracy"
    private static let letters = ["A", "B", "C", "D"]
    private static let roundOffset = 1_000_000

    /// - Parameters:
    ///   - url: the table, or a folder with one table.
    ///   - split: `dev` or `test` of tables that hold both; `nil` takes all rows.
    package init(contentsOf url: URL, split: String?) throws {
        let table = try TabSeparatedTable(contentsOf: try MMBenchBenchmark.table(url), needed: "MMBench's table of questions")
        for column in ["index", "question", "image", "A", "B"] where !table.columns.contains(column) {
            throw EvaluationError.data(
                file: table.file, at: "the header", expected: "a column \"\(column)\"", found: table.columns.joined(separator: ", "))
        }
        let rows = try table.rows.enumerated().compactMap { number, row -> Row? in
            split != nil && table.text(row, "split") != split ? nil : try Row(table, row, number: number + 1)
        }
        // An image may be given once: the field then holds the index of the row that has it.
        let images = Dictionary(rows.map { ($0.index, $0.image) }) { first, _ in first }
        let holdsRounds = rows.contains { $0.index >= MMBenchBenchmark.roundOffset }
        samples = try rows.flatMap { row -> [BenchmarkSample] in
            var image = row.image
            if image.count < 16, let other = Int(String(decoding: image, as: UTF8.self)), let shared = images[other] { image = shared }
            let question = row.index % MMBenchBenchmark.roundOffset
            if holdsRounds {
                return [try row.sample(round: row.index / MMBenchBenchmark.roundOffset, question: question, turn: 0, image: image)]
            }
            return try row.options.indices.map { try row.sample(round: $0, question: question, turn: $0, image: image) }
        }
    }

    private static func table(_ url: URL) throws -> URL {
        guard FileKind(url) == .folder else { return url }
        let tables = ((try? Files.names(in: url)) ?? []).filter { $0.hasSuffix(".tsv") }
        guard tables.count == 1 else {
            throw EvaluationError.data(
                file: url.path, at: "the folder", expected: "one .tsv table (or name the table itself)", found: "\(tables.count)")
        }
        return url.appendingPathComponent(tables[0])
    }

    private struct Row {
        let index: Int
        let question: String
        let hint: String?
        let options: [String]
        let answer: String?
        let image: Data
        let tags: [String: String]
        let place: String
        let file: String

        init(_ table: TabSeparatedTable, _ row: [Data], number: Int) throws {
            (place, file) = ("row \(number)", table.file)
            guard let index = table.text(row, "index").flatMap({ Int($0) }), index >= 0 else {
                throw EvaluationError.data(file: file, at: place, expected: "a whole number as index", found: table.text(row, "index") ?? "nothing")
            }
            guard let column = table.columns.firstIndex(of: "image"), row.indices.contains(column), let question = table.text(row, "question")
            else { throw EvaluationError.data(file: file, at: place, expected: "a question and an image", found: "\(row.count) fields") }
            (self.index, self.question, hint, image) = (index, question, table.text(row, "hint"), row[column])
            // As LLaVA's script: the options end at the first that is missing.
            options = Array(MMBenchBenchmark.letters.map { table.text(row, $0) }.prefix { $0 != nil }.compactMap { $0 })
            answer = table.text(row, "answer")
            guard options.count > 1 else {
                throw EvaluationError.data(file: file, at: place, expected: "two to four options", found: "\(options.count)")
            }
            // LLaVA's script leaves out an option that says "None" even where it is the answer, so such a question can hardly be won.
            if let answer, !MMBenchBenchmark.letters.contains(answer) || !table.columns.contains(answer) {
                throw EvaluationError.data(file: file, at: place, expected: "the letter of an option as answer", found: answer)
            }
            var tags = ["category": table.text(row, "category") ?? "other"]
            tags["l2-category"] = table.text(row, "l2-category")
            self.tags = tags
        }

        /// The question with its options moved on by `turn`: the second comes first, and so on.
        func sample(round: Int, question number: Int, turn: Int, image: Data) throws -> BenchmarkSample {
            let turned = Array(options[turn...] + options[..<turn])
            let right = answer.flatMap { MMBenchBenchmark.letters.firstIndex(of: $0) }
                .map { MMBenchBenchmark.letters[$0 < options.count ? ($0 - turn + options.count) % options.count : $0] }
            var tags = tags
            tags["round"] = "\(round)"
            for (letter, option) in zip(MMBenchBenchmark.letters, turned) { tags[letter] = option }
            let lines = zip(MMBenchBenchmark.letters, turned).map { "\($0). \($1)" }
            let text = ([hint, question].compactMap { $0 } + lines).joined(separator: "\n")
            return BenchmarkSample(
                id: "\(number)-\(round)", group: "\(number)", image: .base64(image, name: "\(file), \(place)"),
                question: text + LLaVAPrompt.optionLetter, references: right.map { [$0] } ?? [], tags: tags)
        }
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        sample.references.first.map { MMBenchBenchmark.letter(in: answer, of: sample) == $0 ? 1 : 0 }
    }

    private static func letter(in answer: String, of sample: BenchmarkSample) -> String? {
        OptionLetter.infer(from: answer, options: letters.compactMap { letter in sample.tags[letter].map { (letter: letter, text: $0) } })
    }

    /// `circular_accuracy`, `accuracy` (of the first round alone), `unread_answers` of all rounds, and the circular accuracy by ability.
    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        var order: [String] = []
        var groups: [String: [(sample: BenchmarkSample, score: Double)]] = [:]
        for item in answers {
            guard let score = score(item.answer, for: item.sample) else { continue }
            if groups[item.sample.group] == nil { order.append(item.sample.group) }
            groups[item.sample.group, default: []].append((item.sample, score))
        }
        let circular = order.compactMap { group in
            groups[group]?.first.map { (sample: $0.sample, score: groups[group, default: []].allSatisfy { $0.score == 1 } ? 1.0 : 0) }
        }
        let first = order.compactMap { group in groups[group]?.first { $0.sample.tags["round"] == "0" }?.score }
        guard let accuracy = BenchmarkScore("circular_accuracy", meanOf: circular.map(\.score)) else { return [] }
        let unread = answers.count { MMBenchBenchmark.letter(in: $0.answer, of: $0.sample) == nil }
        return [accuracy] + [BenchmarkScore("accuracy", meanOf: first)].compactMap(\.self) + [BenchmarkScore(unreadAnswers, Double(unread))]
            + ["l2-category", "category"].flatMap { tag in
                meansByTag(tag, circular, prefix: tag + "_").sorted { $0.name < $1.name }
            }
    }
}
