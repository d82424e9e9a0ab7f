import AdaImages
import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// The experiments on a model whose times are known.
@Suite struct ExperimentTests {
    private func linearity(_ model: FormulaModel, _ change: (inout Linearity) -> Void = { _ in }) async throws -> LinearityReport {
        var experiment = Linearity()
        experiment.repeats = 7
        change(&experiment)
        return try await experiment.run(model, as: Experiments.description(model), environment: Experiments.environment)
    }

    // A failure means that time which is exactly proportional to what runs is not reported as a straight line, or that the JSON has other
    // keys than other programs read.
    @Test("time proportional to what runs is reported as a straight line") func linearTime() async throws {
        let report = try await linearity(FormulaModel(Experiments.analyzed()))
        let object = try report.decoded()
        let points = try #require(object["points"] as? [[String: Any]])
        #expect(points.compactMap { $0["budget"] as? Double } == [1, 0.9, 0.8, 0.7, 0.6, 0.5])
        let squares = try #require(object["r_squared"] as? [String: Double])
        #expect(Set(squares.keys) == ["ttft", "whole", "decode"])
        for (name, value) in squares { #expect(value > 0.999999, "\(name)") }
        // 8, 7, 6, 5, 4, 4 units.
        let expected = [82.0, 72, 62, 52, 42, 42]
        for (point, time) in zip(points, expected) {
            #expect(abs(try #require(point["ttft_ms"] as? Double) - time) < 1e-3)
            #expect((point["flops"] as? Double ?? 0) > 0 && (point["whole_ms"] as? Double ?? 0) > time && (point["per_token_ms"] as? Double ?? 0) > 1)
        }
        #expect(abs(report.points[0].perToken.value - 8.5) < 1e-3)
        #expect(abs(report.points[4].perToken.ratio - 4.5 / 8.5) < 1e-6)
        // A text model: no tower.
        #expect(points[0]["tower_share"] is NSNull)
        #expect(object["complete"] as? Bool == true && (object["environment"] as? [String: Any])?["processor"] is String)
    }

    // A failure means that FLOPs are not those of the analyzer's exact formula for what ran.
    @Test("FLOPs are the analyzer's") func flopsAreTheAnalyzers() async throws {
        let report = try await linearity(FormulaModel(Experiments.analyzed()))
        for point in report.points {
            let analysis = try CostAnalysis(
                model: Experiments.analyzed(), hardware: .named("nvidia_A100"), settings: CostSettings(promptTokens: 64, generatedTokens: 50),
                budget: point.budget, formula: .exact)
            #expect(point.flops == analysis.request.flops)
        }
    }

    // A failure means that a machine which gets slower during the experiment looks like time that does not follow the budget.
    @Test("a machine that slows down does not bend the line") func slowingMachine() async throws {
        let model = FormulaModel(Experiments.analyzed())
        model.slowdown = 1.01
        let report = try await linearity(model) { $0.repeats = 60 }
        // The machine ends 40 times slower than it began; in one round it slows by up to 6 %.
        #expect(report.perToken.rSquared > 0.97, "\(report.perToken.rSquared)")
        #expect(abs(report.points[4].perToken.ratio - 4.5 / 8.5) < 0.04)
    }

    // A failure means that time which does not fall with the budget is called linear.
    @Test("time that does not follow") func timeThatDoesNotFollow() async throws {
        let model = FormulaModel(Experiments.analyzed())
        (model.prefill.unit, model.token) = (0, (base: 9, unit: 0))
        let flat = try await linearity(model)
        #expect(flat.whole.slope == 0 && flat.points.allSatisfy { $0.whole.ratio == 1 })
    }

    // A failure means that an experiment without an answer begins all the same, or that its refusal does not say what to change.
    @Test("an experiment without an answer is refused before it begins") func linearityRefusals() async throws {
        func message(_ adaptive: Bool = true, _ change: (inout Linearity) -> Void) async -> String {
            do {
                _ = try await linearity(FormulaModel(Experiments.analyzed(adaptive: adaptive)), change)
                return "no error"
            } catch {
                return (error as? any AdaLLaVAError)?.description ?? "untyped: \(error)"
            }
        }
        #expect(await message(false) { _ in }.contains("no scheduler"))
        // 0.6 and 0.5 run the same; those below the floor are left out.
        #expect(await message { $0.budgets = [1, 0.6, 0.5, 0.2, 0.1] }.contains("at least three"))
        #expect(await message { $0.budgets = [1, 0.9, 0.9] }.contains("each budget once"))
        #expect(await message { $0.budgets = [1, 0.9, 1.5] }.contains("above 0 and at most 1"))
        #expect(await message { $0.budgets = [] }.contains("--budgets"))
        #expect(await message { $0.promptTokens = 500 }.contains("at most 512 positions"))
        #expect(await message { $0.answerTokens = 1 }.contains("--generate"))
        #expect(await message { $0.repeats = 0 }.contains("--repeat"))
    }

    // A failure means that budgets below the floor fail, or pass for what was asked.
    @Test("sweep below the floor") func sweepBelowTheFloor() async throws {
        let model = FormulaModel(Experiments.analyzed())
        var sweep = BudgetSweep(question: "What?", image: nil)
        sweep.repeats = 3
        let report = try await sweep.run(model, as: Experiments.description(model), environment: Experiments.environment)
        #expect(report.rows.map(\.budget) == [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
        #expect(report.rows.map { $0.run?.isBelowFloor } == [false, false, false, false, false, false, true, true, true, true])
        #expect(report.rows.map { $0.run?.executedShare } == [1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
        let results = try #require(try report.decoded()["results"] as? [[String: Any]])
        #expect(results.count == 10)
        for key in ["budget", "answer", "words", "flops", "avg_flops", "prefill_ms", "memory_consumption", "below_floor"] {
            #expect(results.allSatisfy { $0[key] != nil }, "\(key)")
        }
        #expect(results[0]["words"] as? Int == 4)
        #expect((results[0]["flops"] as? Double ?? 0) > (results[9]["flops"] as? Double ?? 0))
        let text = report.lines.joined(separator: "\n")
        #expect(text.contains("the floor is 0.5") && text.contains("0.4 *") && !text.contains("0.5 *"))
        // A warm-up, then every budget three times.
        #expect(model.budgets.count == 40)
    }

    // A failure means that a model without a scheduler is asked for what it cannot do, or pretends to have done it.
    @Test("a sweep of a model without a scheduler measures only the full budget") func sweepWithoutScheduler() async throws {
        let model = FormulaModel(Experiments.analyzed(adaptive: false))
        var sweep = BudgetSweep(question: "What?", image: nil)
        (sweep.repeats, sweep.budgets) = (2, [1, 0.5])
        let report = try await sweep.run(model, as: Experiments.description(model), environment: Experiments.environment)
        #expect(report.rows[0].run != nil && report.rows[1].run == nil && Set(model.budgets) == [1])
        #expect(report.lines.joined().contains("not possible") && report.csv.contains("0.5,false"))
        sweep.budgets = [0.5]
        let error = engineError("nothing that it can do") { try sweep.validate(for: model.analyzed) }
        #expect(error as? BudgetError == .notAdaptive(budget: 0.5, model: "formula"))
    }

    // A failure means that tokens a second are not tokens over seconds, that an answer's end cuts a measurement short, or that the JSON has
    // other keys than other programs read.
    @Test("tokens a second are tokens over seconds") func throughput() async throws {
        let model = FormulaModel(Experiments.analyzed())
        var throughput = Throughput()
        (throughput.promptTokens, throughput.generatedTokens, throughput.repeats, throughput.budgets) = (164, 20, 3, [1, 0.5, 0.3])
        let report = try await throughput.run(count: 1, environment: Experiments.environment) { _ in [(model, Experiments.description(model))] }
        let results = try #require(try report.decoded()["results"] as? [[String: Any]])
        #expect(results.compactMap { $0["kind"] as? String } == ["prefill", "decode", "prefill", "decode", "prefill", "decode"])
        #expect(results.compactMap { $0["budget"] as? Double } == [1, 1, 0.5, 0.5, 0.3, 0.3])
        // 164 tokens in 82 ms; 20 tokens in 20 · 8.5 ms.
        #expect(abs(try #require(results[0]["tokens_per_second"] as? Double) - 2000) < 1)
        #expect(abs(try #require(results[1]["tokens_per_second"] as? Double) - 1000 / 8.5) < 0.1)
        #expect(results.allSatisfy { $0["deviation"] is Double })
        #expect(report.results.map(\.test) == ["pp164", "tg20 @ d164", "pp164", "tg20 @ d164", "pp164", "tg20 @ d164"])
        #expect(report.results.map(\.isBelowFloor) == [false, false, false, false, true, true])
        #expect(report.csv.split(separator: "\n").count == 7 && report.lines[0].hasPrefix("| model"))
        #expect(report.lines.contains { $0.contains("0.3\\*") } && report.lines.contains { $0.contains("below the floor") })
    }

    // A failure means that a prompt which the model cannot hold is cut, or refused without saying what fits; or that llama-bench's two
    // tests cannot be made alone.
    @Test("a prompt that exceeds the context is refused with the size that fits") func throughputContext() async throws {
        let model = Experiments.analyzed()
        var throughput = Throughput()
        #expect(throughput.prompt(for: model) == 512 - 1 - 64)
        try throughput.validate(for: model)
        throughput.promptTokens = 447
        try throughput.validate(for: model)
        throughput.promptTokens = 448
        let error = engineError("a prompt that is too long") { try throughput.validate(for: model) }
        #expect(error?.description.contains("at most 511 tokens together") == true && error?.category == .usage)
        (throughput.promptTokens, throughput.generatedTokens) = (0, 0)
        #expect(engineError("nothing to do") { try throughput.validate() }?.description.contains("1 or more") == true)
        throughput.generatedTokens = Int.max
        #expect(engineError("too many") { try throughput.validate() } != nil)
        throughput.generatedTokens = 600
        #expect(engineError("no room at all") { try throughput.validate(for: model) } != nil)

        throughput.generatedTokens = 8
        throughput.repeats = 1
        let loaded = FormulaModel(model)
        let decode = try await throughput.run(count: 1, environment: Experiments.environment) { _ in [(loaded, Experiments.description(loaded))] }
        #expect(decode.results.map(\.test) == ["tg8"])
        (throughput.promptTokens, throughput.generatedTokens) = (30, 0)
        let prefill = try await throughput.run(count: 1, environment: Experiments.environment) { _ in [(loaded, Experiments.description(loaded))] }
        #expect(prefill.results.map(\.test) == ["pp30"])
        // One measurement has no spread: no margin is made up.
        #expect(prefill.results[0].rate.meanMargin == nil && !prefill.lines.joined().contains("± 0"))
    }

    // A failure means that stopping an experiment loses what was measured, or passes it off as the whole.
    @Test("a stopped experiment keeps whole repeats and says that it is not complete") func stopped() async throws {
        let model = FormulaModel(Experiments.analyzed())
        // The warm-up, two whole rounds of six budgets, and one budget more.
        model.cancelsAfter = 19
        let report = try await linearity(model)
        #expect(report.repeats == ExperimentRepeats(done: 2, asked: 7))
        #expect(report.points.allSatisfy { $0.whole.measured.count == 2 && $0.whole.interval == nil })
        #expect(try report.decoded()["complete"] as? Bool == false)

        let early = FormulaModel(Experiments.analyzed())
        early.cancelsAfter = 8
        await #expect(throws: CancellationError.self) { _ = try await linearity(early) }

        // The second of two models is stopped before it has given anything.
        let models = [FormulaModel(Experiments.analyzed()), FormulaModel(Experiments.analyzed())]
        models[1].cancelsAfter = 1
        var throughput = Throughput()
        throughput.repeats = 2
        let partial = try await throughput.run(count: 2, environment: Experiments.environment) { [(models[$0], Experiments.description(models[$0]))] }
        #expect(partial.results.count == 2 && partial.repeats == ExperimentRepeats(done: 2, asked: 4))
    }

    // A failure means that an image which is asked about first passes for one that the model has not seen, or that all questions are one.
    @Test("requests are measured by what the model has already seen") func requestPatterns() async throws {
        let benchmark = try ScenesBenchmark(contentsOf: Samples.url("scenes/val.json"))
        var patterns = try RequestPatterns(samples: benchmark.samples)
        (patterns.requests, patterns.repeats) = (4, 3)
        let round = patterns.round
        #expect(round.map(\.pattern) == [.cold] + Array(repeating: .sameImage, count: 4) + Array(repeating: .otherImages, count: 4))
        #expect(round.prefix(5).allSatisfy { $0.item == 0 } && Set(round.suffix(4).map(\.item)).count == 4 && !round.suffix(4).contains { $0.item == 0 })
        #expect(Set(round.prefix(5).map(\.question)).count == 5)
        #expect(round[5].question == benchmark.samples[1].question)

        let loads = Counter()
        let report = try await patterns.run(environment: Experiments.environment) {
            loads.add()
            let model = FormulaModel(Experiments.analyzed())
            return (model, Experiments.description(model))
        }
        #expect(loads.count == 3)
        #expect(report.rows.map(\.pattern) == [.cold, .sameImage, .otherImages] && report.rows.map(\.whole.count) == [3, 12, 12])
        let results = try #require(try report.decoded()["results"] as? [[String: Any]])
        for key in ["encode_ms", "ttft_ms", "decode_ms", "whole_ms", "inter_request_ms"] {
            for result in results {
                let statistics = try #require(result[key] as? [String: Any])
                #expect(Set(statistics.keys) == ["n", "mean", "median", "deviation", "min", "max", "ci95"])
            }
        }
        #expect(results.map { $0["load_ms"] != nil } == [true, false, false])
        // Formula: 4 + 2 + 8 · 10 and 4 · 8.5 milliseconds.
        #expect(abs(report.rows[1].whole.mean - (86 + 34)) < 1e-3)
    }

    // A failure means that an experiment about other images runs on one image.
    @Test("an experiment about other images needs several images") func requestRefusals() throws {
        let image = Samples.url("scenes/images/val-0.jpg")
        #expect(engineError("the same image twice") { _ = try RequestPatterns(images: [image, image]) }?.description.contains("two different images") == true)
        let other = Samples.url("scenes/images/val-1.jpg")
        #expect(engineError("one question") { _ = try RequestPatterns(images: [image, other], questions: ["What?"]) } != nil)
        var patterns = try RequestPatterns(images: [image, other])
        #expect(patterns.round.filter { $0.pattern == .otherImages }.count == 1)
        patterns.requests = 0
        #expect(engineError("no requests") { try patterns.validate() }?.description.contains("--requests") == true)
    }

    // A failure means that gnuplot cannot read what is drawn with, or that a model's name ends its command.
    @Test("gnuplot scripts are valid whatever a model is called", .enabled(if: (try? Gnuplot.locate()) != nil)) func charts() async throws {
        let model = FormulaModel(Experiments.analyzed())
        let description = ExperimentModel(
            analyzed: AnalyzedModel(name: "it's \"a\" \\ model\nset output", configuration: model.analyzed.configuration), parameters: 1, weightBytes: 1,
            weightType: "F16", imageTokens: nil, threads: 1, kernels: "formula", precision: .automatic)
        var (linearity, throughput, sweep) = (Linearity(), Throughput(), BudgetSweep(question: "What?", image: nil))
        (linearity.repeats, throughput.repeats, sweep.repeats) = (6, 2, 1)
        let images = (0 ..< 3).map { Samples.url("scenes/images/val-\($0).jpg") }
        var patterns = try RequestPatterns(images: images)
        patterns.repeats = 1
        let reports: [any ExperimentReport] = [
            try await linearity.run(model, as: description, environment: Experiments.environment),
            try await throughput.run(count: 1, environment: Experiments.environment) { _ in [(model, description)] },
            try await sweep.run(model, as: description, environment: Experiments.environment),
            try await patterns.run(environment: Experiments.environment) { (model, description) },
        ]
        let plotter = try Gnuplot.locate()
        try await Samples.withFolder { folder in
            for report in reports {
                try report.write(to: folder)
                for format in ChartFormat.allCases {
                    let file = folder.appendingPathComponent("\(type(of: report).name).\(format.rawValue)")
                    try report.draw(to: file, format: format, plotter: plotter)
                    #expect(try Data(contentsOf: file).count > 2000, "\(file.lastPathComponent)")
                }
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).count == 16)
        }
    }
}

/// Counts, from anywhere.
final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var value = 0

    var count: Int { lock.withLock { value } }
    func add() { lock.withLock { value += 1 } }
}
