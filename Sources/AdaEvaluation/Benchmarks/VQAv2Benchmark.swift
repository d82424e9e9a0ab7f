import AdaLLaVA
import Foundation

/// VQAv2 (Goyal et al., CVPR 2017): `v2_OpenEnded_mscoco_SPLIT_questions.json`, `v2_mscoco_SPLIT_annotations.json` and the COCO images in a
/// folder next to them. Test splits have no annotations: their answers go to the server.
package struct VQAv2Benchmark: Benchmark {
    package let samples: [BenchmarkSample]
    package let mainScore = "accuracy"

    /// - Parameter split: `val2014`, `test2015`, `test-dev2015`.
    package init(folder url: URL, split: String) throws {
        let folder = BenchmarkFolder(url)
        let annotations = try folder.optionalFile("v2_mscoco_\(split)_annotations.json").map { try VQAv2Benchmark.annotations($0) } ?? [:]
        let questions = try folder.file("v2_OpenEnded_mscoco_\(split)_questions.json", needed: "VQAv2's questions of \(split)")
        // The images of test-dev are those of test.
        let images = split.replacingOccurrences(of: "test-dev", with: "test")
        samples = try JSONPlace(contentsOf: questions, needed: "VQAv2's questions").member("questions").array().map { item in
            let id = String(try item.member("question_id").integer())
            let image = try item.member("image_id").integer()
            let annotation = annotations[id]
            var tags: [String: String] = [:]
            if let annotation { tags = ["question_type": annotation.questionType, "answer_type": annotation.answerType] }
            return BenchmarkSample(
                id: id, image: .file(url.appendingPathComponent("\(images)/COCO_\(images)_\(String(format: "%012ld", image)).jpg")),
                question: try item.member("question").string() + LLaVAPrompt.shortAnswer, references: annotation?.answers ?? [], tags: tags)
        }
        if !annotations.isEmpty, let lacking = samples.first(where: { $0.references.isEmpty }) {
            throw EvaluationError.data(
                file: questions.path, at: "question \(lacking.id)", expected: "its annotation in v2_mscoco_\(split)_annotations.json",
                found: "none")
        }
    }

    private struct Annotation {
        var id: String?
        var questionType = "other"
        var answerType = "other"
        var answers: [String] = []
    }

    /// Read entry by entry: the file of the validation split is too large to hold as a tree.
    private static func annotations(_ url: URL) throws -> [String: Annotation] {
        let file = try MappedFile(contentsOf: url, needed: "VQAv2's annotations")
        var reader = try JSONReader(file.bytes, file: file.path)
        var annotations: [String: Annotation] = [:]
        try reader.readObject { key, reader in
            guard key == "annotations" else { return try reader.skipValue() }
            try reader.readArray { reader in
                let annotation = try annotation(&reader)
                guard let id = annotation.id, !annotation.answers.isEmpty else {
                    throw reader.malformed("annotation \(annotations.count): expected question_id and answers")
                }
                annotations[id] = annotation
            }
        }
        return annotations
    }

    private static func annotation(_ reader: inout JSONReader) throws -> Annotation {
        var annotation = Annotation()
        try reader.readObject { key, reader in
            switch key {
            case "question_id": annotation.id = String(try reader.readInteger())
            case "question_type": annotation.questionType = try reader.readString()
            case "answer_type": annotation.answerType = try reader.readString()
            case "answers":
                try reader.readArray { reader in
                    try reader.readObject { key, reader in
                        if key == "answer" { annotation.answers.append(try reader.readString()) } else { try reader.skipValue() }
                    }
                }
            default: try reader.skipValue()
            }
        }
        return annotation
    }

    /// The VQA accuracy of the submission: the answer as LLaVA's conversion normalizes it, scored by the official script.
    package func score(_ answer: String, for sample: BenchmarkSample) -> Double? {
        officialScore(VQAAnswer.evalAINormalized(answer), for: sample)
    }

    /// The official script's accuracy of an answer as it is: answers are normalized only where people disagree.
    private func officialScore(_ answer: String, for sample: BenchmarkSample) -> Double? {
        guard !sample.references.isEmpty else { return nil }
        let people = sample.references.map(VQAAnswer.stripped)
        guard Set(people).count > 1 else { return VQAAnswer.accuracy(VQAAnswer.stripped(answer), people: people) }
        return VQAAnswer.accuracy(VQAAnswer.normalized(answer), people: people.map(VQAAnswer.normalized))
    }

    /// `accuracy`, `accuracy_raw` (of the answers as the model gave them), and by answer type (`answer_type_yes/no`, …) and question type.
    package func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] {
        let scored = answers.compactMap { item in score(item.answer, for: item.sample).map { (sample: item.sample, score: $0) } }
        guard let accuracy = BenchmarkScore("accuracy", meanOf: scored.map(\.score)) else { return [] }
        let raw = BenchmarkScore("accuracy_raw", meanOf: answers.compactMap { officialScore($0.answer, for: $0.sample) })
        return [accuracy] + [raw].compactMap(\.self)
            + ["answer_type", "question_type"].flatMap { tag in
                meansByTag(tag, scored, prefix: tag + "_").sorted { $0.name < $1.name }
            }
    }

    private struct SubmissionEntry: Encodable {
        let answer: String
        let question_id: Int
    }

    /// The list of `question_id` and normalized `answer` that the server takes, as LLaVA's `convert_vqav2_for_submission.py` writes it.
    package func submission(_ answers: [AnsweredSample]) throws -> Data? {
        let entries = answers.compactMap { item in
            Int(item.sample.id).map { SubmissionEntry(answer: VQAAnswer.evalAINormalized(item.answer), question_id: $0) }
        }
        return try RunFiles.encode(entries)
    }
}
