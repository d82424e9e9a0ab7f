import AdaImages
import Foundation
import Synchronization
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// Sets that hold pictures which are damaged, but which Pillow reads.
@Suite struct DamagedImageTests {
    private struct Pictures: Benchmark {
        let samples: [BenchmarkSample]
        let mainScore = "accuracy"
        func score(_ answer: String, for sample: BenchmarkSample) -> Double? { 1 }
        func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] { [BenchmarkScore("accuracy", 1)] }
    }

    /// Two questions about a damaged picture, one about a damaged picture in base64, one about a sound one.
    private func pictures() throws -> Pictures {
        let folder = Samples.root.appendingPathComponent("Tests/Fixtures/image-files")
        let damaged = folder.appendingPathComponent("damaged-short-segment.jpg")
        let text = try Data(contentsOf: folder.appendingPathComponent("damaged-without-end.png")).base64EncodedData()
        let images: [BenchmarkImage] = [
            .file(damaged), .base64(text, name: "table.tsv, row 7"), .file(damaged), .file(folder.appendingPathComponent("png-rgb.png")),
        ]
        return Pictures(samples: images.enumerated().map { BenchmarkSample(id: "\($0)", image: $1, question: "question \($0)", references: ["x"]) })
    }

    @Test("An evaluation reads them, names each once and counts them") func evaluation() async throws {
        // A failure means that one damaged file keeps a benchmark from ever being finished, or that nobody learns of it.
        let set = try pictures()
        try await Samples.withFolder { folder in
            let warnings = Mutex<[String]>([])
            let damaged = DamagedImages { damage in warnings.withLock { $0.append(damage.name) } }
            let evaluation = try Evaluation(benchmark: set, settings: try settings(set), folder: folder)
            try await evaluation.run(ScriptedModel(), damaged: damaged)
            #expect(warnings.withLock { $0.map { $0.split(separator: "/").last ?? "" } } == ["damaged-short-segment.jpg", "table.tsv, row 7"])
            let report = evaluation.report()
            #expect(report.results.map(\.damagedImages) == [2, 2] && report.results.map(\.samples) == [4, 4])
            #expect(report.json.results.map(\.scores.damagedImages) == [2, 2])
            #expect(report.table.contains("damaged_images") && report.csv.contains("damaged_images"))
        }
    }

    @Test("The count survives an interruption, and records without damage do not mention it") func resumed() async throws {
        // A failure means that a run that went on counts only what it read after the interruption.
        let set = try pictures()
        try await Samples.withFolder { folder in
            do {
                let first = try Evaluation(benchmark: set, settings: try settings(set), folder: folder)
                await #expect(throws: ScriptedModel.Stopped.self) { try await first.run(ScriptedModel(failsAfter: 5)) }
            }
            let second = try Evaluation(benchmark: set, settings: try settings(set), folder: folder)
            try await second.run(ScriptedModel())
            #expect(second.report().results.map(\.damagedImages) == [2, 2])
            let lines = try String(contentsOf: folder.appendingPathComponent("answers.jsonl"), encoding: .utf8).split(separator: "\n")
            #expect(lines.count { $0.contains("image_damage") } == 6 && lines.count == 8)
        }
    }

    @Test("A study of plans reads them and counts them") func study() async throws {
        // A failure means that `explain` ends at the first damaged file.
        let set = try pictures(), damaged = DamagedImages()
        let study = PlanStudy(benchmark: set, samples: set.samples, budgets: [1, 0.5])
        let results = try await study.run(PlanReader(), damaged: damaged)
        #expect(damaged.count == 2 && results.count == 2)
        let report = PlanReport(model: "m", data: "d", prefixLayers: 2, cropsImages: false, results: results, examples: [], damagedImages: damaged.count)
        #expect(report.json.damagedImages == 2)
        #expect(try report.table.contains("2 images damaged") && report.html().contains("2 images damaged"))
    }

    @Test("A picture that Pillow refuses too is an error that names it") func cutOff() async throws {
        // A failure means that half a picture is scored.
        try await Samples.withFolder { folder in
            let file = folder.appendingPathComponent("half.png")
            let whole = try Data(contentsOf: Samples.root.appendingPathComponent("Tests/Fixtures/image-files/png-rgb.png"))
            try whole.prefix(whole.count / 2).write(to: file)
            let set = Pictures(samples: [BenchmarkSample(id: "a", image: .file(file), question: "q", references: [])])
            await #expect {
                try await Evaluation(benchmark: set, settings: try settings(set)).run(ScriptedModel())
            } throws: {
                "\($0)".contains("half.png") && "\($0)".contains("cut off")
            }
        }
    }
}
