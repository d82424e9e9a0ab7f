import Foundation
import Testing

@testable import AdaLLaVA

/// Answers with time budgets. No test measures time: the predictor is given times so long, or so short, that the clock does not matter.
@Suite struct DeadlineTests {
    private static func tokens(_ count: Int, seed: UInt64, below limit: Int = 300) -> [Int] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< count).map { _ in 3 + Int(random.unit() * Double(limit - 3)) }
    }

    /// A predictor for which every layer of a token takes so many nanoseconds, and everything else nothing.
    private static func planner(_ model: TestModel, layer: Double) -> TimePlanner {
        let planner = TimePlanner(model.loaded.checkpoint.configuration, weightBytes: 4)
        planner.use(times(layer: layer), imageNanoseconds: 0)
        return planner
    }

    private static func times(layer: Double) -> TimeModel {
        var coefficients = StepCounts()
        coefficients[.singleLayers] = layer
        return TimeModel(coefficients: coefficients)
    }

    private static func request(_ tokens: [Int], _ budget: Budget, maxTokens: Int = 8) -> EngineRequest {
        var request = EngineRequest(tokens: tokens, images: [], budget: budget, maxTokens: maxTokens)
        request.kind = "text test"
        // What the test's own steps take says nothing about made-up times.
        request.deadlines.followsLoad = false
        return request
    }

    // A failure means that a deadline with all the time in the world gives another answer than the whole model, or one that has passed another than the floor.
    @Test("much time runs everything and none the floor", arguments: ["ada-L", "ada-H"]) func muchTimeRunsEverythingAndNoneTheFloor(folder: String) throws {
        let model = try TestModel(Fixtures.url(folder), threads: 2)
        let adaptive = try #require(model.loaded.parts.adaptive), prompt = [1] + Self.tokens(40, seed: 3)
        let whole = try model.run(prompt, budget: 1, maxTokens: 8), floor = try model.run(prompt, budget: adaptive.units.floor, maxTokens: 8)
        #expect(whole.tokens != floor.tokens)
        for (budget, expected, isLate) in [
            (Budget.answer(within: .seconds(3600)), whole, false), (.firstToken(within: .seconds(3600)), whole, false), (.perToken(.seconds(3600)), whole, false),
            (.answer(within: .nanoseconds(1)), floor, true), (.firstToken(within: .nanoseconds(1)), floor, true),
            (.time(TimeLimits(answer: .seconds(3600), firstToken: .nanoseconds(1))), floor, true),
        ] {
            let timed = try TestModel(sharing: model)
            timed.engine.planner = Self.planner(model, layer: 1000)
            let result = try timed.run(Self.request(prompt, budget))
            #expect(result.tokens == expected.tokens && result.plan == expected.plan, "\(budget)")
            let prediction = try #require(result.prediction)
            #expect(prediction.isLate == isLate && prediction.changes.isEmpty && prediction.isFitted, "\(budget)")
            let warning = AnswerSummary(result, budget: budget).warning
            #expect(isLate ? warning?.contains("more than allowed") == true : warning == nil, "\(warning ?? "")")
        }
    }

    // A failure means that the units of a deadline are not those that its time pays for.
    @Test("units are those that the time pays for", arguments: ["ada-L", "ada-H"]) func unitsAreThoseThatTheTimePaysFor(folder: String) throws {
        let model = try TestModel(Fixtures.url(folder), threads: 2)
        let most = try #require(model.loaded.parts.adaptive).units, optional = most.total - most.prefix
        let planner = Self.planner(model, layer: 1e12)
        let margin = planner.wholeMargin.factor(confidence: 0.97)
        for units in [0, 1, optional / 2, optional] {
            let timed = try TestModel(sharing: model)
            timed.engine.planner = Self.planner(model, layer: 1e12)
            timed.engine.planner?.lengths = Self.lengths(8)
            // A layer of a token takes a quarter of an hour, so what the test takes does not matter.
            let work = Self.decode(from: 42, tokens: 7, latencySlot: 41)
            let needed = planner.predict(work, planner.times(units: units)).whole * margin
            let result = try timed.run(Self.request([1] + Self.tokens(40, seed: 4), .answer(within: Duration(nanoseconds: needed * 1.001))))
            // With heads several numbers of units run as many layers, which take as long here.
            let alike = (units ... optional).last { planner.times(units: $0).token(at: 42) <= planner.times(units: units).token(at: 42) }
            #expect(result.adaptive?.units == alike, "\(units)")
        }
    }

    private static func lengths(_ count: Int) -> AnswerLengths {
        var lengths = AnswerLengths()
        for _ in 0 ..< 20 { lengths.add(count, kind: "text test") }
        return lengths
    }

    private static func decode(from slot: Int, tokens: Int, latencySlot: Int?) -> RemainingWork {
        var work = RemainingWork()
        (work.slot, work.tokens, work.latencySlot) = (slot, tokens, latencySlot)
        return work
    }

    // A failure means that a machine that becomes slower does not make an answer smaller, that tokens already given change, or that the rest of the answer
    // is not what a plan with fewer switches gives.
    @Test("smaller plans mid answer equal a plain decoder", arguments: ["ada-L", "ada-H", "L", "H"]) func smallerPlansMidAnswerEqualAPlainDecoder(name: String) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let model: TestModel
            if name.hasPrefix("ada") {
                model = try TestModel(Fixtures.url(name), threads: 2)
            } else {
                // Grouped-query attention, and a window of 24 positions.
                let fixture = try #require(DecoderFixture.all.first { $0.architecture == .mistral })
                let variant = DecoderFamilyAdaptiveTests.Variant(type: name, rank: 1, grouped: false)
                try DecoderFamilyAdaptiveTests.write(fixture, variant, to: folder.appendingPathComponent("model"))
                model = try TestModel(folder.appendingPathComponent("model"), threads: 2)
            }
            let adaptive = try #require(model.loaded.parts.adaptive), prompt = [1] + Self.tokens(30, seed: 5, below: 60)
            let whole = try model.run(Self.request(prompt, .full, maxTokens: 12))
            let timed = try TestModel(sharing: model), engine = timed.engine
            engine.planner = Self.planner(model, layer: 1)
            engine.planner?.lengths = Self.lengths(12)
            let limit = Duration.seconds(1_000_000)
            let task = GenerationTask(Self.request(prompt, .answer(within: limit), maxTokens: 12), cancellation: Cancellation(), onToken: { _ in true })
            while !task.isDone {
                engine.step([task])
                // Twice a layer becomes so slow that only some of the rest fits: two thirds of the layers after three tokens, the floor after seven.
                for (count, share) in [(3, 0.67), (7, 0.0)] where task.result.tokens.count == count && !task.isDone {
                    let planner = try #require(engine.planner), layers = Double(model.decoder.layers.count), prefix = Double(model.loaded.parts.prefixLayers)
                    let left = Double(12 - count), fitting = prefix + (layers - prefix) * share + 0.5
                    planner.use(Self.times(layer: limit.nanoseconds / left / fitting / (task.timing?.wholeMargin ?? 1)), imageNanoseconds: 0)
                    task.timing?.use(task.result.plan, planner)
                }
            }
            let result = try #require(try task.outcome?.get()), prediction = try #require(result.prediction)
            #expect(prediction.changes.map(\.tokens) == [3, 7] && prediction.changes.last?.to == 0)
            let first = try #require(prediction.changes.first), most = adaptive.units.total - adaptive.units.prefix
            #expect(first.from == most && first.to > 0 && first.to < most)
            #expect(Array(result.tokens.prefix(3)) == Array(whole.tokens.prefix(3)))
            #expect(result.plan == adaptive.scheduler.plan(task.schedulerLogits, units: 0))

            let plain = try PlainDecoder(model.loaded.checkpoint)
            let plans = [most, first.to, 0].map { adaptive.scheduler.plan(task.schedulerLogits, units: $0) }
            let latency = adaptive.encoder(adaptive.units.normalized(most), engine.workspace).row(0)
            var rows = prompt.map(plain.embedding) + [latency]
            // The token that is fed back first under a new plan is the one that was given before.
            func plan(_ row: Int) -> ExecutionPlan { row < prompt.count + 1 + 2 ? plans[0] : row < prompt.count + 1 + 6 ? plans[1] : plans[2] }
            for (index, token) in result.tokens.enumerated() {
                let logits = plain.logits(rows, plan: plan)
                let best = logits.indices.max { logits[$0] < logits[$1] }
                #expect(best == token || logits[token] > logits[best ?? 0] - 1e-4, "token \(index)")
                rows.append(plain.embedding(token))
            }
        }
    }

    // A failure means that a request that cannot be met is computed all the same, or refused without saying what could be met.
    @Test("strict requests are refused before anything runs") func strictRequestsAreRefusedBeforeAnythingRuns() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        model.engine.planner = Self.planner(model, layer: 1e9)
        var request = Self.request([1] + Self.tokens(20, seed: 6) + [Engine.imageToken], .answer(within: .milliseconds(1)))
        request.images = [EngineImage(key: ContentKey("never read")) { throw GenerationError.emptyPrompt }]
        request.deadlines.isStrict = true
        let error = #expect(throws: BudgetError.self) { try model.run(request) }
        guard case .cannotBeMet(let limit, let least)? = error else { return #expect(Bool(false), "\(String(describing: error))") }
        #expect(limit == "1ms" && least > .seconds(4) && error?.category == .badData)
        #expect(error?.description.contains("the least that this model can do") == true)
        request.budget = .answer(within: least * 2)
        // Now it is begun: its image is asked for.
        #expect(throws: GenerationError.emptyPrompt) { try model.run(request) }
    }

    // A failure means that a model without a scheduler does not take deadlines, or cuts answers that nobody asked to cut.
    @Test("models without a scheduler predict and cut") func modelsWithoutASchedulerPredictAndCut() throws {
        let fixture = try #require(DecoderFixture.all.first { $0.architecture == .mistral })
        let model = try TestModel(fixture.url, threads: 2), prompt = try fixture.expected().prompts[1].tokens
        let whole = try model.run(prompt, maxTokens: 12)
        model.engine.planner = Self.planner(model, layer: 1e9)
        var request = Self.request(prompt, .answer(within: .nanoseconds(1)), maxTokens: 12)
        let late = try model.run(request)
        #expect(late.tokens == whole.tokens && late.finish == whole.finish && late.prediction?.isLate == true)
        #expect(AnswerSummary(late, budget: request.budget).warning?.contains("--cut") == true)
        request.deadlines.cutsAnswers = true
        let cut = try model.run(request)
        #expect(cut.tokens == Array(whole.tokens.prefix(1)) && cut.finish == .deadline)
        #expect(cut.finish.rawValue == "deadline")
        // Time for all of it.
        request.budget = .answer(within: .seconds(100_000))
        #expect(try model.run(request).tokens == whole.tokens)
    }

    // A failure means that the answers of a model without kept measurements are predicted, or slowed down by predicting.
    @Test("fractions are not predicted before anything was measured") func fractionsAreNotPredictedBeforeAnythingWasMeasured() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        #expect(try model.run(Self.request([1, 5, 7], .fraction(0.7))).prediction == nil)
        #expect(model.engine.planner == nil)
        model.engine.planner = Self.planner(model, layer: 1)
        let result = try model.run(Self.request([1, 5, 7], .fraction(0.7)))
        #expect(result.prediction?.times.whole ?? .zero > .zero && result.prediction?.changes.isEmpty == true)
    }

    // A failure means that a model cannot be measured, or that what was measured is not found by the next process, or believed when it is damaged.
    @Test("measured times are kept for later processes, and damaged ones ignored", arguments: ["ada-L", "ada-H"]) func measurementsAreKept(folder: String) async throws {
        let kept = FileManager.default.temporaryDirectory.appendingPathComponent("times-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: kept) }
        var options = AdaptiveModel.Options()
        (options.timingFolder, options.threads) = (kept, 1)
        let model = try await AdaptiveModel(contentsOf: Fixtures.url(folder), options: options)
        let asked = [1] + Self.tokens(30, seed: 8)
        #expect(try await model.measure(tokens: asked, budget: .fraction(0.8), maxTokens: 4).prediction == nil)
        let report = try await model.calibrationReport(limit: .milliseconds(1))
        #expect(report.nanoseconds.values.allSatisfy { $0 >= 0 && $0.isFinite } && report.nanoseconds.values.contains { $0 > 0 })
        #expect(report.phases.map(\.name) == ["prefill_layers", "decode_tokens"] && report.phases.allSatisfy { $0.measurements > 0 })
        let prediction = try #require(try await model.measure(tokens: asked, budget: .fraction(0.8), maxTokens: 4).prediction)
        #expect(prediction.isFitted && prediction.times.prefill > .zero && prediction.times.whole >= prediction.times.timeToFirstToken)
        let file = URL(fileURLWithPath: report.file)
        let data = try Data(contentsOf: file)
        let second = try await AdaptiveModel(contentsOf: Fixtures.url(folder), options: options)
        #expect(try await second.measure(tokens: asked, budget: .fraction(0.8), maxTokens: 4).prediction?.isFitted == true)
        // Cut off, of another machine, with values that are none.
        let text = String(decoding: data, as: UTF8.self)
        let values = try #require(text.range(of: "\"nanoseconds\":{"))
        for damaged in [
            Data(data.prefix(data.count / 2)), Data(text.replacingOccurrences(of: "threads", with: "thread").utf8),
            Data(text.replacingCharacters(in: values, with: "\"nanoseconds\":{\"chunkHeads\":-1,\"x\":{").utf8), Data(),
        ] {
            try damaged.write(to: file)
            let other = try await AdaptiveModel(contentsOf: Fixtures.url(folder), options: options)
            #expect(try await other.measure(tokens: asked, budget: .fraction(0.8), maxTokens: 4).prediction == nil)
        }
    }
}
