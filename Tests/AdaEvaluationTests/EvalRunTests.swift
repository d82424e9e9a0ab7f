import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// Runs that are limited, divided, interrupted, and put together again.
@Suite struct EvalRunTests {
    private func scenes() throws -> ScenesBenchmark { try ScenesBenchmark(contentsOf: Samples.url("scenes/val.json")) }

    // A failure means that scores, times or plans of a run are reported wrongly.
    @Test("reports scores and times") func reportsScoresAndTimes() async throws {
        let benchmark = try scenes()
        let evaluation = try Evaluation(benchmark: benchmark, settings: try settings(benchmark))
        try await evaluation.run(ScriptedModel(answers: ["What color is the circle?": "red", "What does the text say?": "STOP"]))
        let report = evaluation.report()
        #expect(report.results.map(\.budget) == [1, 0.6])
        #expect(report.results.map(\.samples) == [7, 7])
        #expect(report.results[0].scores.first == BenchmarkScore("exact_match", meanOf: [1, 1, 0, 0, 0, 0, 0]))
        #expect(report.results.map(\.executedShare) == [1, 0.5])
        // 30 ms for the three tokens after the first.
        #expect(report.results[0].meanTime("tpot_ms") == 10)
        // The first answer of a run is not measured; then every sample begins with another budget: 2, 5, 6, 9, … and 3, 4, 7, 8, …
        #expect(report.results[0].meanTime("ttft_ms") == [2, 5, 6, 9, 10, 13, 14].mean)
        #expect(report.results[1].meanTime("ttft_ms") == [3, 4, 7, 8, 11, 12, 15].mean)
        let object = try #require(try JSONSerialization.jsonObject(with: report.jsonData()) as? [String: Any])
        let results = try #require(object["results"] as? [[String: Any]])
        #expect(results.count == 2)
        #expect((results[1]["scores"] as? [String: Double])?["exact_match"] == 2.0 / 7)
        let measured = try #require(results[0]["measured"] as? [String: [String: Double]])
        #expect(Set(try #require(measured["ttft_ms"]).keys) == ["mean", "p50", "p90", "p99"])
        let lines = report.csv.split(separator: "\n")
        #expect(lines.count == 3)
        #expect(Set(lines.map { $0.split(separator: ",", omittingEmptySubsequences: false).count }).count == 1)
        #expect(report.table.contains("exact_match"))
        // Two of seven: the deviation is √(10/49·7/6), its error that over √7.
        let statistics = try #require(results[1]["score_statistics"] as? [String: [String: Any]])
        let exact = try #require(statistics["exact_match"])
        let error = (10.0 / 49 * 7 / 6).squareRoot() / 7.0.squareRoot()
        #expect(exact["n"] as? Int == 7 && abs((exact["standard_error"] as? Double ?? 0) - error) < 1e-12)
        #expect(statistics["pope_f1"] == nil && report.table.contains("0.2857 ± 0.1844 (n 7)"))
        let header = try #require(lines.first).split(separator: ",")
        #expect(header.contains("exact_match_n") && header.contains("exact_match_se"))
    }

    @Test("A budget can be added to a finished run; what was answered is not answered again")
    func addsBudgets() async throws {
        let benchmark = try scenes()
        try await Samples.withFolder { folder in
            do {
                let first = try Evaluation(benchmark: benchmark, settings: try settings(benchmark, budgets: [1, 0.6]), folder: folder)
                try await first.run(ScriptedModel())
                #expect(first.isComplete && first.report().isComplete)
            }
            do {
                let second = try Evaluation(benchmark: benchmark, settings: try settings(benchmark, budgets: [0.85, 1]), folder: folder)
                #expect(!second.isComplete && !second.report().isComplete)
                let model = ScriptedModel()
                try await second.run(model)
                #expect(model.count == 7 + 1 && second.isComplete)
                // Each answer pays for its image, else only a sample's first budget would.
                #expect(model.afresh == model.count)
                #expect(second.report().results.map(\.budget) == [1, 0.6, 0.85])
            }
            // Named again with one of them, it is the whole run.
            let third = try Evaluation(benchmark: benchmark, settings: try settings(benchmark, budgets: [0.6]), folder: folder)
            #expect(third.isComplete && third.report().results.count == 3)
            // What inputs need is a budget like others, and is kept by its name.
            let fourth = try settings(benchmark, budgets: [.auto(), .auto(mean: 0.4), 0.6])
            #expect(try JSONDecoder().decode(EvaluationSettings.self, from: RunFiles.encode(fourth)) == fourth)
        }
    }

    @Test("An answer's line says what was asked, of which task, about which image")
    func linesSayWhatWasAsked() async throws {
        let benchmark = try scenes()
        try await Samples.withFolder { folder in
            let run = try Evaluation(benchmark: benchmark, settings: try settings(benchmark), folder: folder)
            try await run.run(ScriptedModel())
            let lines = try String(contentsOf: folder.appendingPathComponent("answers.jsonl"), encoding: .utf8).split(separator: "\n")
            let object = try #require(try JSONSerialization.jsonObject(with: Data(lines[0].utf8)) as? [String: Any])
            let sample = benchmark.samples[0]
            #expect(object["question"] as? String == sample.question && object["task"] as? String == sample.tags["task"])
            #expect((object["image"] as? String)?.hasSuffix(".png") == true || (object["image"] as? String)?.hasSuffix(".jpg") == true)
            // Lines of an earlier version have none of the three.
            var old = object
            for key in ["question", "task", "image"] { old[key] = nil }
            let record = try JSONDecoder().decode(SampleRecord.self, from: JSONSerialization.data(withJSONObject: old))
            #expect(record.question == nil && record.answer == object["answer"] as? String)
        }
    }

    @Test("A list with several questions a picture is asked question by question, from its folder too")
    func severalQuestions() async throws {
        let record = { (id: String, extra: String) in
            """
            {"id": "\(id)", "image": "a.png", "task": "vqa"\(extra), "conversations": [{"from": "human", "value": "<image>\\nWhat?"}, \
            {"from": "gpt", "value": "cat"}, {"from": "human", "value": "Is there a cat in the image?"}, {"from": "gpt", "value": "yes"}]}
            """
        }
        try await Samples.withFolder { folder in
            let list = folder.appendingPathComponent("val-separate.json")
            try Data("[\(record("x", ", \"tasks\": [\"vqa\", \"pope\"]"))]".utf8).write(to: list)
            for place in [list, folder] {
                let samples = try ScenesBenchmark(contentsOf: place).samples
                #expect(samples.map(\.id) == ["x/1", "x/2"] && samples.map { $0.tags["task"] } == ["vqa", "pope"])
                #expect(samples.map(\.question) == ["What?", "Is there a cat in the image?"] && samples.map(\.references) == [["cat"], ["yes"]])
            }
            try Data("[\(record("x", ""))]".utf8).write(to: folder.appendingPathComponent("old.json"))
            let old = engineError("no tasks") { _ = try ScenesBenchmark(contentsOf: folder.appendingPathComponent("old.json")) }
            #expect(old?.description.contains("\"tasks\"") == true)
            let two = engineError("two lists") { _ = try ScenesBenchmark(contentsOf: folder) }
            #expect(two?.description.contains("old.json, val-separate.json") == true && two?.category == .usage)
        }
    }

    /// Answers with the brightest and the darkest value of the picture.
    private struct RangeModel: AnsweringModel {
        func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
            let text = image.map { "\($0.width)x\($0.height) \($0.pixels.min() ?? 0) \($0.pixels.max() ?? 0)" } ?? "none"
            let plan = ExecutionPlan(headCount: 1, rows: [.init(heads: [0], groups: [0])])
            return ModelResponse(
                text: text, plan: plan, units: nil, promptTokens: 1, generatedTokens: 1, keyValueBytes: 0, measured: PhaseTimes())
        }
    }

    // A failure means that the baseline without images sees something of them, or is asked other questions than the model.
    @Test("blank images show nothing") func blankImagesShowNothing() async throws {
        let image = try #require(try scenes().samples[0].image).load().image
        let shown = try await RangeModel().respond(to: "?", image: image, budget: 1, maxTokens: 1).text
        let blank = try await BlankImages(RangeModel()).respond(to: "?", image: image, budget: 1, maxTokens: 1).text
        #expect(blank == "\(image.width)x\(image.height) 128 128" && shown != blank)
        #expect(try await BlankImages(RangeModel()).respond(to: "?", image: nil, budget: 1, maxTokens: 1).text == "none")
    }

    private struct FixedCost: CostReporter {
        let description = "fixed"
        func cost(plan: ExecutionPlan, promptTokens: Int, imageTokens: Int, generatedTokens: Int) throws -> RequestCost {
            let ran = Double(plan.headsPerLayer.reduce(0, +))
            return RequestCost(
                flops: ran * Double(promptTokens), averageFlops: ran, prefillFlops: 3, prefillTime: 0.5, memoryConsumption: 7,
                prefillMemoryConsumption: Double(generatedTokens))
        }
    }

    // A failure means that the reference's keys are missing from results although costs are calculated, or are not means.
    @Test("reports the reference's keys") func reportsTheReferencesKeys() async throws {
        let benchmark = try scenes()
        let evaluation = try Evaluation(benchmark: benchmark, settings: try settings(benchmark), costs: FixedCost())
        try await evaluation.run(ScriptedModel())
        let object = try written(evaluation.report().results[1].json)
        let expected = [
            "flops": 18.0, "avg_flops": 2, "prefill_flops": 3, "prefill_time": 0.5, "memory_consumption": 7, "prefill_memory_consumption": 4,
        ]
        for (name, value) in expected { #expect(object[name] as? Double == value, "\(name)") }
    }

    // A failure means that a run which stopped answers something twice, loses an answer, or ends with another result.
    @Test("goes on where it was") func goesOnWhereItWas() async throws {
        let benchmark = try scenes()
        let settings = try settings(benchmark)
        let whole = try Evaluation(benchmark: benchmark, settings: settings)
        try await whole.run(ScriptedModel())
        try await Samples.withFolder { folder in
            // One answer of each start is the unmeasured first.
            for failsAfter in [1, 4, 2, 6] {
                let part = try Evaluation(benchmark: benchmark, settings: settings, folder: folder)
                await #expect(throws: ScriptedModel.Stopped.self) { try await part.run(ScriptedModel(failsAfter: failsAfter)) }
            }
            // A killed process leaves a piece of a line.
            let log = folder.appendingPathComponent("answers.jsonl")
            let handle = try FileHandle(forWritingTo: log)
            try handle.seekToEnd()
            try handle.write(contentsOf: Data("{\"answer\":\"The ima".utf8))
            try handle.close()
            let last = try Evaluation(benchmark: benchmark, settings: settings, folder: folder)
            #expect(!last.isComplete)
            let model = ScriptedModel()
            try await last.run(model)
            // 14 answers, of which 0 + 3 + 1 + 5 were there.
            #expect(model.count == 14 - 9 + 1)
            #expect(last.isComplete)
            #expect(last.report().results.map { $0.scores } == whole.report().results.map { $0.scores })
            let (_, records) = try AnswerLog.read(folder: folder)
            #expect(Set(records.map(\.key)).count == 14)
            #expect(records.count == 14)
        }
    }

    // A failure means that answers of two different runs can be mixed in one folder.
    @Test("refuses to mix runs") func refusesToMixRuns() async throws {
        let benchmark = try scenes()
        try await Samples.withFolder { folder in
            let first = try Evaluation(benchmark: benchmark, settings: try settings(benchmark), folder: folder)
            try await first.run(ScriptedModel())
            let pope = try POPEBenchmark(folder: Samples.url("pope"))
            let others: [(any Benchmark, EvaluationSettings)] = [
                (benchmark, try settings(benchmark, budgets: [1])), (benchmark, try settings(benchmark, limit: 3)),
                (benchmark, try settings(benchmark, shard: try Shard(parsing: "1/2"))), (pope, try settings(pope)),
            ]
            for (other, settings) in others {
                // While the first is alive its lock is held too; either way nothing is mixed.
                #expect(throws: EvaluationError.self) { try Evaluation(benchmark: other, settings: settings, folder: folder) }
            }
        }
        try await Samples.withFolder { folder in
            do { _ = try Evaluation(benchmark: benchmark, settings: try settings(benchmark), folder: folder) }
            let error = #expect(throws: EvaluationError.self) {
                try Evaluation(benchmark: benchmark, settings: try settings(benchmark, limit: 3), folder: folder)
            }
            guard case .otherRun(_, let setting, let expected, let found)? = error else {
                Issue.record("expected otherRun, got \(String(describing: error))")
                return
            }
            #expect((setting, expected, found) == ("limit", "3", "none"))
        }
    }

    // A failure means that a damaged line in the middle of a log is skipped silently, or that a doubled one counts twice.
    @Test("a damaged line in the middle of a log is refused") func refusesDamagedLogs() async throws {
        let benchmark = try scenes()
        let settings = try settings(benchmark)
        for damage in ["not json\n", "doubled"] {
            try await Samples.withFolder { folder in
                do {
                    let run = try Evaluation(benchmark: benchmark, settings: settings, folder: folder)
                    try await run.run(ScriptedModel())
                }
                let log = folder.appendingPathComponent("answers.jsonl")
                let text = try String(contentsOf: log, encoding: .utf8)
                let first = try #require(text.split(separator: "\n").first)
                try Data((text + (damage == "doubled" ? first + "\n" : damage)).utf8).write(to: log)
                let error = #expect(throws: EvaluationError.self) {
                    try Evaluation(benchmark: benchmark, settings: settings, folder: folder)
                }
                #expect(error?.description.contains("line 15") == true)
            }
        }
    }

    // A failure means that two processes could append to one log at the same time.
    @Test("one writer at a time") func oneWriterAtATime() async throws {
        let benchmark = try scenes()
        let settings = try settings(benchmark)
        try await Samples.withFolder { folder in
            let first = try Evaluation(benchmark: benchmark, settings: settings, folder: folder)
            #expect(throws: EvaluationError.inUse(folder: folder.path)) {
                try Evaluation(benchmark: benchmark, settings: settings, folder: folder)
            }
            try await first.run(ScriptedModel())
        }
    }

    // A failure means that limits tear groups apart, draw other samples for the same seed, or always draw the first ones.
    @Test("limits keep groups whole") func limitsKeepGroupsWhole() throws {
        let mme = try MMEBenchmark(folder: Samples.url("mme"))
        let limited = try settings(mme, limit: 5).selection(of: mme.samples)
        #expect(limited.map(\.id) == mme.samples.prefix(4).map(\.id))
        let many = (0..<1000).map { BenchmarkSample(id: "\($0)", image: nil, question: "q", references: []) }
        let benchmark = try scenes()
        let drawn = try settings(benchmark, limit: 100, seed: 1).selection(of: many)
        #expect(drawn.count == 100)
        #expect(drawn == (try settings(benchmark, limit: 100, seed: 1).selection(of: many)))
        #expect(drawn != (try settings(benchmark, limit: 100, seed: 2).selection(of: many)))
        #expect(drawn.map { Int($0.id) ?? 0 } == drawn.map { Int($0.id) ?? 0 }.sorted())
        let mean = drawn.compactMap { Double($0.id) }.reduce(0, +) / 100
        #expect((350...650).contains(mean))
    }

    // A failure means that shards overlap, leave samples out, or that putting them together gives another result than one whole run.
    @Test("shards merge to the whole run") func shardsMergeToTheWholeRun() async throws {
        let benchmark = try MMEBenchmark(folder: Samples.url("mme"))
        let whole = try Evaluation(benchmark: benchmark, settings: try settings(benchmark, task: "mme"))
        try await whole.run(ScriptedModel())
        try await Samples.withFolder { root in
            let folders = (1...3).map { root.appendingPathComponent("\($0)") }
            for (index, folder) in folders.enumerated() {
                let shard = try settings(benchmark, task: "mme", shard: try Shard(parsing: "\(index + 1)/3"))
                try await Evaluation(benchmark: benchmark, settings: shard, folder: folder).run(ScriptedModel())
            }
            let merged = try Evaluation(merging: folders.reversed(), benchmark: benchmark)
            #expect(merged.isComplete)
            #expect(merged.report().results.map(\.scores) == whole.report().results.map(\.scores))
            #expect(merged.report().shard == .whole)
            for wrong in [[folders[0], folders[1]], [folders[0], folders[1], folders[1]], []] {
                #expect(throws: EvaluationError.self) { try Evaluation(merging: wrong, benchmark: benchmark) }
            }
            let scenes = try ScenesBenchmark(contentsOf: Samples.url("scenes/val.json"))
            #expect(throws: EvaluationError.self) { try Evaluation(merging: folders, benchmark: scenes) }
            // An unfinished shard.
            let log = folders[1].appendingPathComponent("answers.jsonl")
            let lines = try String(contentsOf: log, encoding: .utf8).split(separator: "\n").dropLast()
            try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: log)
            #expect(throws: EvaluationError.self) { try Evaluation(merging: folders, benchmark: benchmark) }
        }
    }

    // A failure means that a wrong setting is accepted, or ends in a crash.
    @Test("wrong settings are refused") func refusesWrongSettings() throws {
        let benchmark = try scenes()
        for text in ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "", "9223372036854775808/1"] {
            #expect(throws: EvaluationError.self, "\(text)") { try Shard(parsing: text) }
        }
        for budgets in [[], [0], [1.5], [-1], [.fraction(.nan)], [1, 1], [.answer(within: .seconds(1))], [.auto(), .auto()], [.auto(mean: 2)]] as [[Budget]] {
            #expect(throws: EvaluationError.self, "\(budgets)") { try settings(benchmark, budgets: budgets) }
        }
        #expect(throws: EvaluationError.self) { try settings(benchmark, limit: 0) }
    }

    // A failure means that a chart's text can end gnuplot's command, or that a missing gnuplot is not said.
    @Test("chart scripts are safe") func chartScriptsAreSafe() throws {
        let hostile = "a'b\n; system 'touch x'"
        let chart = Chart(
            title: hostile, xLabel: "x (ms)", yLabel: "y", series: [.init(name: hostile, points: [(0, .nan), (1, 2)])])
        let script = Gnuplot.script(chart, to: "/tmp/x.svg", format: .svg)
        #expect(script.contains("set title 'a''b ; system ''touch x'''"))
        #expect(!script.contains("nan"))
        #expect(throws: EvaluationError.plotterMissing(searched: ["/nowhere"])) { try Gnuplot.locate(path: "/nowhere") }
    }

    @Test("Axes of times and shares begin at 0 or above, and labels cover no point")
    func chartsAreReadable() throws {
        #expect(Gnuplot.range([2, 100], least: 0, margin: 0.07)?.lowerBound == 0)
        #expect(Gnuplot.range([0.01, 0.05], least: 0.1, margin: 0.1)?.lowerBound == 0)
        #expect(Gnuplot.range([-1, 1], least: 0, margin: 0.1)?.lowerBound == -1.2)
        #expect(Gnuplot.range([50, 60], least: 0, margin: 0.1) == 49 ... 61)
        // Nothing is better than 1, and the axis still covers its least.
        #expect(Gnuplot.range([1, 1], least: 0.1, margin: 0.1, limit: 1) == 0.9 ... 1)
        #expect(Gnuplot.range([0.25, 0.75], least: 0, margin: 0.1, limit: 1)?.upperBound == 0.8)
        #expect(try #require(Gnuplot.range([0, 1.5], least: 0, margin: 0.1, limit: 1)).upperBound > 1.5)
        // Five points in a row, nearer to each other than a label is wide.
        let points = (0 ..< 5).map { (x: 400.0 + 9 * Double($0), y: 200.0) }
        var placement = LabelPlacement(marks: points)
        let around: [(Double, Double)] = [(20, -14), (20, 14), (-20, 14), (-20, -14)]
        let offsets = [1.0, 1.6, 2.4, 3.2].flatMap { (distance: Double) -> [(Double, Double)] in
            around.map { ($0.0 * distance, $0.1 * distance) }
        }
        let labels = points.map { point in
            let offset = placement.place(point, width: 32, height: 14, among: offsets)
            return (x: point.x + offset.0, y: point.y + offset.1)
        }
        for (index, label) in labels.enumerated() {
            for other in labels[..<index] { #expect(abs(label.x - other.x) > 32 || abs(label.y - other.y) > 14) }
            for point in points { #expect(abs(label.x - point.x) > 22 || abs(label.y - point.y) > 12.5) }
        }
        var chart = Chart(title: "t", xLabel: "x", yLabel: "y", series: [.init(name: "a", points: [(2, 0.02), (100, 0.05)])])
        (chart.labels, chart.minimumHeight) = ([(2, 0.02, "0.25")], 0.1)
        let script = Gnuplot.script(chart, to: "/tmp/x.svg", format: .svg)
        #expect(script.contains("set xrange [0.0:") && script.contains("set yrange [0.0:") && !script.contains("boxed"))
    }

    @Test("The whole answer takes the wait before its first token too, and the axis of a fraction ends at 1")
    func chartedTimes() async throws {
        try await Samples.withFolder { folder in
            let file = folder.appendingPathComponent("result.json")
            let result = """
                {"model": "m", "task": "scenes", "main_score": "exact_match", "results": [{"budget": 1, "scores": {"exact_match": 1}, "measured": \
                {"encode_ms": {"mean": 5}, "prefill_ms": {"mean": 10}, "decode_ms": {"mean": 20}, "ttft_ms": {"mean": 100}}}]}
                """
            try Data(result.utf8).write(to: file)
            let run = try ChartedRun(contentsOf: file)
            #expect(run.points.map(\.wholeAnswer) == [120] && run.points.map(\.timeToFirstToken) == [100])
            for (name, chart) in EvaluationCharts.all([run]) {
                #expect(Gnuplot.script(chart, to: "/tmp/x.svg", format: .svg).contains("set yrange [0.9:1.0]"), "\(name)")
            }
        }
    }

    // A failure means that charts are not drawn, or that a run's result file cannot be read back to be compared with others.
    @Test("charts are drawn, and a run's result can be read to be compared", .enabled(if: (try? Gnuplot.locate()) != nil)) func drawsCharts() async throws {
        let benchmark = try scenes()
        let evaluation = try Evaluation(benchmark: benchmark, settings: try settings(benchmark, budgets: [1, 0.85, 0.6]))
        try await evaluation.run(ScriptedModel(answers: ["What color is the circle?": "red"]))
        try await Samples.withFolder { folder in
            let report = evaluation.report()
            try report.write(to: folder)
            let again = try ChartedRun(contentsOf: folder.appendingPathComponent("result.json"))
            #expect(again.points.map(\.budget) == [1, 0.85, 0.6])
            for format in ChartFormat.allCases {
                let files = try report.draw(with: [again], in: folder, format: format, plotter: try Gnuplot.locate())
                #expect(files.count == 3)
                for file in files { #expect(try Data(contentsOf: file).count > 2000) }
            }
        }
    }
}
