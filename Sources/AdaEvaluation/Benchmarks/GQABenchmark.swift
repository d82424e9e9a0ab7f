import Foundation

/// GQA (Hudson and Manning, CVPR 2019): `SPLIT_questions.json` and `images/`. Scored as its `eval.py` does: an answer is right if it is
/// the reference's word; full stops at the end and capitals are taken off first, as LLaVA's `convert_gqa_for_eval.py` does. Questions that are
/// not of the balanced set are asked and logged, but not counted.
package struct GQABenchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = "accuracy"

    /// - Parameter split: `testdev_balanced`, `val_balanced`.
    package init(folder url: URL, split: String) throws {
        let folder = BenchmarkFolder(url)
        let file = try folder.file("\(split)_questions.json", "questions1.2/\(split)_questions.json", needed: "GQA's questions of \(split)")
        let images = url.appendingPathComponent("images")
        samples = try JSONPlace(contentsOf: file, needed: "GQA's questions").members().map { id, item in
            let image = try item.member("imageId")
            let type = try item.optionalMember("types")?.optionalMember("structural")?.string()
            var tags: [String: String] = [:]
            if let type { tags = ["structural": type, "answer_kind": type == "query" ? "open" : "binary"] }
            if item.value["isBalanced"] == .bool(false) { tags["balanced"] = "no" }
            return BenchmarkSample(
                id: id, image: .file(try safePath(try image.identifier() + ".jpg", below: images, in: image)),
                question: try item.member("question").string() + LLaVAPrompt.shortAnswer,
                references: try item.optionalMember("answer").map { [try $0.string()] } ?? [], tags: tags)
        }
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        guard let reference = sample.references.first else { return nil }
        var text = Substring(answer.trimmingCharacters(in: .whitespacesAndNewlines))
        while text.hasSuffix(".") { text.removeLast() }
        return text.lowercased() == reference ? 1 : 0
    }

    /// `accuracy`, `binary`, `open`, and by structural type.
    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        let scored = answers.filter { $0.sample.tags["balanced"] == nil }
            .compactMap { item in score(item.answer, for: item.sample).map { (sample: item.sample, score: $0) } }
        guard let accuracy = BenchmarkScore("accuracy", meanOf: scored.map(\.score)) else { return [] }
        return [accuracy] + meansByTag("answer_kind", scored).sorted { $0.name < $1.name }
            + meansByTag("structural", scored, prefix: "structural_").sorted { $0.name < $1.name }
    }
}
