import Foundation

/// POPE (Li et al., EMNLP 2023): `coco_pope_random.json`, `coco_pope_popular.json`, `coco_pope_adversarial.json` (JSON Lines; those that
/// are there) and COCO's `val2014/`.
package struct POPEBenchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = "f1"
    private static let categories = ["random", "popular", "adversarial"]

    package init(folder url: URL) throws {
        let folder = BenchmarkFolder(url)
        let images = url.appendingPathComponent("val2014")
        var samples: [BenchmarkSample] = []
        for category in POPEBenchmark.categories {
            guard let file = folder.optionalFile("coco_pope_\(category).json", "coco/coco_pope_\(category).json") else { continue }
            samples += try JSONLines.read(contentsOf: file, needed: "POPE's \(category) questions").map { item in
                let image = try item.member("image")
                let label = try item.member("label")
                guard ["yes", "no"].contains(try label.string()) else { throw label.failure("yes or no") }
                return BenchmarkSample(
                    id: "\(category)-\(try item.member("question_id").identifier())",
                    image: .file(try safePath(try image.string(), below: images, in: image)),
                    question: try item.member("text").string() + LLaVAPrompt.shortAnswer, references: [try label.string()],
                    tags: ["category": category])
            }
        }
        if samples.isEmpty { _ = try folder.file("coco_pope_random.json", needed: "POPE's questions: random, popular or adversarial") }
        self.samples = samples
    }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        YesNoCounts.isYes(answer) == (sample.references.first != "no") ? 1 : 0
    }

    /// The means of the categories (`f1`, `accuracy`, …), as papers report them, then each category's own.
    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        let parts = POPEBenchmark.categories.compactMap { category -> (name: String, scores: [BenchmarkScore])? in
            let part = answers.filter { $0.sample.tags["category"] == category }
            return part.isEmpty ? nil : (category, YesNoCounts(part).scores(prefix: category + "_"))
        }
        let names = ["f1", "accuracy", "precision", "recall", "yes_ratio"]
        let means = names.compactMap { name in
            parts.flatMap(\.scores).filter { part in POPEBenchmark.categories.contains { "\($0)_\(name)" == part.name } }.map(\.value).mean.map { BenchmarkScore(name, $0) }
        }
        return means + parts.flatMap { $0.scores }
    }
}
