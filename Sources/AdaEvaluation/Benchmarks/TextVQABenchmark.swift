import Foundation

/// TextVQA (Singh et al., CVPR 2019): `TextVQA_0.5.1_val.json`, `train_images/` and, for prompts with OCR tokens,
/// `TextVQA_Rosetta_OCR_v0.2_val.json`. Scored as LLaVA's `eval_textvqa.py`: the VQA accuracy after EvalAI's normalization.
package struct TextVQABenchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = "accuracy"

    /// - Parameter usesOCR: the prompt names the words that an OCR system read, as LLaVA's does.
    package init(folder url: URL, split: String, usesOCR: Bool) throws {
        let folder = BenchmarkFolder(url)
        let questions = try folder.file("TextVQA_0.5.1_\(split).json", needed: "TextVQA's questions of \(split)")
        var words: [String: [String]] = [:]
        if usesOCR {
            let file = try folder.file("TextVQA_Rosetta_OCR_v0.2_\(split).json", needed: "TextVQA's OCR tokens of \(split)")
            for entry in try JSONPlace(contentsOf: file, needed: "TextVQA's OCR tokens").member("data").array() {
                words[try entry.member("image_id").string()] = try entry.member("ocr_tokens").strings()
            }
        }
        // The validation images are in the training folder; the test split has its own.
        let images = url.appendingPathComponent(split == "test" ? "test_images" : "train_images")
        let items = try JSONPlace(contentsOf: questions, needed: "TextVQA's questions").member("data").array()
        func key(_ item: JSONPlace) throws -> [String] { [try item.member("image_id").string(), try item.member("question").string().lowercased()] }
        // The script finds the people's answers by image and question: where one is asked twice, the last ones count for both.
        var last: [[String]: JSONPlace] = [:]
        for item in items { last[try key(item)] = item }
        samples = try items.map { item in
            let image = try item.member("image_id")
            var question = TextVQABenchmark.capitalized(try item.member("question").string())
            if usesOCR { question += "\nReference OCR token: " + (words[try image.string()] ?? []).joined(separator: ", ") }
            let answers = (last[try key(item)] ?? item).optionalMember("answers")
            let references = try answers?.strings() ?? []
            if let answers, references.count != 10 { throw answers.failure("the answers of ten people", "\(references.count)") }
            return BenchmarkSample(
                id: try item.member("question_id").identifier(),
                image: .file(try safePath(try image.string() + ".jpg", below: images, in: image)),
                question: question + LLaVAPrompt.shortAnswer, references: references)
        }
    }

    /// As Python's `str.capitalize`: the question files are in lower case.
    private static func capitalized(_ text: String) -> String { text.prefix(1).uppercased() + text.dropFirst().lowercased() }

    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        guard !sample.references.isEmpty else { return nil }
        return VQAAnswer.accuracy(VQAAnswer.evalAINormalized(answer), people: sample.references.map(VQAAnswer.evalAINormalized))
    }

    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        [BenchmarkScore("accuracy", meanOf: answers.compactMap { score($0.answer, for: $0.sample) })].compactMap(\.self)
    }
}
