import Foundation
import Testing

@testable import AdaLLaVA

/// The parts of deadlines that need no model.
@Suite struct TimePlannerTests {
    // A failure means that the fit is not the best one, or takes back time from some term.
    @Test("non negative least squares") func nonNegativeLeastSquares() {
        // An exact solution is found.
        var random = SplitMix64(seed: 1)
        let rows = (0 ..< 30).map { _ in (0 ..< 5).map { _ in random.unit() } }
        let wanted = [3, 0, 0.5, 20, 1]
        let exact = NonNegativeLeastSquares.solve(rows, rows.map { zip($0, wanted).map(*).reduce(0, +) })
        for (found, expected) in zip(exact, wanted) { #expect(abs(found - expected) < 1e-8) }
        // Lawson and Hanson's conditions: no free column has a gradient, and no bound one would help.
        for seed in 2 ..< 40 as Range<UInt64> {
            var random = SplitMix64(seed: seed)
            let rows = (0 ..< 12).map { _ in (0 ..< 6).map { _ in random.unit() - 0.3 } }, targets = (0 ..< 12).map { _ in random.unit() - 0.4 }
            let x = NonNegativeLeastSquares.solve(rows, targets)
            let residuals = zip(rows, targets).map { row, target in target - zip(row, x).map(*).reduce(0, +) }
            for column in 0 ..< 6 {
                let gradient = zip(rows, residuals).reduce(0) { $0 + $1.0[column] * $1.1 }
                #expect(x[column] >= 0)
                if x[column] > 0 { #expect(abs(gradient) < 1e-9, "seed \(seed)") } else { #expect(gradient < 1e-9, "seed \(seed)") }
            }
        }
        // Columns that say the same, or nothing.
        let twice = NonNegativeLeastSquares.solve([[1, 1, 0], [2, 2, 0]], [2, 4])
        #expect(abs(twice[0] + twice[1] - 2) < 1e-9 && twice[2] == 0)
        #expect(NonNegativeLeastSquares.solve([], []).isEmpty)
    }

    // A failure means that a neighbour is not noticed within an answer, or that one delayed layer is taken for a busy machine.
    @Test("the load follows the newest samples") func theLoadFollowsTheNewestSamples() {
        var load = LoadFactor()
        #expect(load.values == PhaseLoads())
        for _ in 0 ..< 200 { load.add(measured: 1e6, predicted: 1e6, .prefill) }
        #expect(abs(load.values.prefill - 1) < 1e-9 && load.values.decode == load.values.prefill)
        // A taken core: of ten layers nine run through and one waits for a time slice.
        for index in 0 ..< 100 { load.add(measured: index % 10 == 0 ? 11e6 : 1e6, predicted: 1e6, .prefill) }
        #expect(load.values.prefill > 1.6 && load.values.prefill < 2.6)
        // It shows in a phase that has not run since.
        #expect(load.values.decode > 1.2)
        var once = LoadFactor()
        for _ in 0 ..< 50 { once.add(measured: 1e5, predicted: 1e5, .decode) }
        once.add(measured: 1e12, predicted: 1e5, .decode)
        #expect(once.values.decode < 1.6)
        for value in [0, -1, .nan, .infinity] { once.add(measured: value, predicted: 1e5, .decode) }
        once.add(measured: 1, predicted: 0, .decode)
        #expect(once.values.decode < 1.6)
        // A neighbour that slows multiplying by a half and reading by a tenth.
        var both = LoadFactor()
        for _ in 0 ..< 100 {
            for _ in 0 ..< 20 { both.add(measured: 1.5e6, predicted: 1e6, .prefill) }
            for _ in 0 ..< 20 { both.add(measured: 1.1e6, predicted: 1e6, .decode) }
        }
        #expect(abs(both.values.prefill - 1.5) < 0.12 && abs(both.values.decode - 1.1) < 0.1)
        // A pause of seconds is forgotten.
        let now = ContinuousClock.now
        load.pause(until: now)
        load.pause(until: now + .seconds(300))
        #expect(abs(load.values.prefill - 1) < 0.01)
    }

    // A failure means that deadlines are not kept as often as asked when predictions are wrong.
    @Test("margins keep the wanted share", arguments: [0.8, 0.97]) func marginsKeepTheWantedShare(confidence: Double) {
        var random = SplitMix64(seed: 5), margin = DeadlineMargin()
        var missed = 0.0, count = 0.0
        for round in 0 ..< 4000 {
            // Errors grow in the middle: the machine becomes restless.
            let width = (1000 ..< 2500).contains(round) ? 0.5 : 0.1
            let measured = exp((random.unit() - 0.3) * width), isMissed = measured > margin.factor(confidence: confidence)
            if round >= 200 { (missed, count) = (missed + (isMissed ? 1 : 0), count + 1) }
            margin.add(measured: measured, predicted: 1, missed: isMissed, confidence: confidence)
        }
        #expect(abs(missed / count - (1 - confidence)) < 0.015, "\(missed / count)")
        #expect(margin.errors.count == DeadlineMargin.count)
        // A higher share never needs a smaller margin.
        #expect(margin.factor(confidence: 0.99) >= margin.factor(confidence: 0.6))
        #expect(DeadlineMargin().factor(confidence: 0.97) > 1)
        margin.add(measured: .nan, predicted: 1, missed: true, confidence: 0.9)
        margin.add(measured: 1, predicted: 0, missed: true, confidence: 0.9)
        #expect(margin.factor(confidence: 0.97).isFinite)
    }

    @Test("A chunk's time that is linear in no count is predicted at the sizes that were measured, and between them")
    func chunksThatOutgrowTheCaches() {
        let language = DecoderConfiguration(
            vocabularySize: 1000, hiddenSize: 64, intermediateSize: 170, numHiddenLayers: 8, numAttentionHeads: 8, numKeyValueHeads: 4,
            ropeInterleaved: false, maxPositionEmbeddings: 2048)
        let configuration = ModelConfiguration(language: language, adaptive: nil)
        let counter = StepCounter(language, weightBytes: 2), share = CostPlan(whole: configuration).shares[0]
        // Beyond 200 rows each row takes half as long again.
        func layer(_ rows: Int) -> TimeModel.Sample {
            let counts = counter.chunk(share, rows: Double(rows), outputs: Double(rows), pairs: counter.pairs(0 ..< rows, share.kind))
            return TimeModel.Sample(counts: counts, nanoseconds: 20_000 + Double(rows) * 9000 + max(Double(rows) - 200, 0) * 4500)
        }
        let fitted = TimeModel(fitting: [16, 48, 96, 200, 384, 640].map(layer))
        for rows in [16, 48, 96, 200, 384, 640] { #expect(abs(fitted.nanoseconds(layer(rows).counts) / layer(rows).nanoseconds - 1) < 1e-9, "\(rows)") }
        for rows in [30, 70, 150, 280, 500] { #expect(abs(fitted.nanoseconds(layer(rows).counts) / layer(rows).nanoseconds - 1) < 0.06, "\(rows)") }
        // A whole prompt's layers are predicted alike, in one chunk and in two.
        let times = PlanTimes(CostPlan(whole: configuration), layers: 0 ..< 7, dropsRows: false, fitted, counter)
        let steps = { (rows: Int) in fitted.nanoseconds(counter.step(logitRows: 0, chunkRows: Double(rows))) }
        #expect(abs(times.prefill(0 ..< 384, chunk: 640, isEnd: false) / (7 * layer(384).nanoseconds + steps(384)) - 1) < 1e-6)
        let second = counter.chunk(share, rows: 200, outputs: 200, pairs: counter.pairs(640 ..< 840, share.kind))
        let both = 7 * (layer(640).nanoseconds + fitted.nanoseconds(second)) + steps(640) + steps(200)
        #expect(abs(times.prefill(0 ..< 840, chunk: 640, isEnd: false) / both - 1) < 1e-6)
        // Tokens that read more than the caches hold.
        func token(_ units: Int) -> TimeModel.Sample {
            let counts = (0 ..< units).reduce(counter.step(logitRows: 1)) { sum, _ in sum + counter.single(share, keys: 100) }
            return TimeModel.Sample(counts: counts, nanoseconds: 30_000 + Double(units) * 20_000 + max(Double(units) - 3, 0) * 9000)
        }
        let decode = TimeModel(fitting: [2, 4, 6, 8].map(token))
        for units in [2, 4, 6, 8] { #expect(abs(decode.nanoseconds(token(units).counts) / token(units).nanoseconds - 1) < 1e-9, "\(units)") }
        let whole = PlanTimes(CostPlan(whole: configuration), layers: 0 ..< 8, dropsRows: true, decode, counter)
        #expect(abs(whole.token(at: 99) / token(8).nanoseconds - 1) < 1e-6 && abs(whole.tokens(1, from: 99) / token(8).nanoseconds - 1) < 1e-6)
        // What a disturbed measurement says is bounded, and a curve from a file is checked.
        #expect(fitted.chunkCurve.isUsable && SizeCurve().isUsable && SizeCurve().factor(1) == 1)
        for json in [#"{"knots":[{"size":1,"factor":9}]}"#, #"{"knots":[{"size":-1,"factor":1}]}"#, #"{"knots":[{"size":2,"factor":1},{"size":1,"factor":1}]}"#] {
            #expect(throws: Never.self) { try #expect(!JSONDecoder().decode(SizeCurve.self, from: Data(json.utf8)).isUsable) }
        }
    }

    @Test("Predictions that are shown follow the median of the newest errors, once there are some")
    func centersOfErrors() {
        var margin = DeadlineMargin()
        for index in 0 ..< 7 {
            #expect(margin.center == 1, "\(index)")
            margin.add(measured: 3, predicted: 1, missed: nil, confidence: 0.97)
        }
        for _ in 0 ..< 40 { margin.add(measured: 1.1, predicted: 1, missed: nil, confidence: 0.97) }
        #expect(abs(margin.center - 1.1) < 1e-9)
        // A few that another program held up change nothing.
        for _ in 0 ..< 10 { margin.add(measured: 9, predicted: 1, missed: nil, confidence: 0.97) }
        #expect(abs(margin.center - 1.1) < 1e-9)
    }

    // A failure means that the expected length of an answer is not that of its kind, or exceeds what it may have.
    @Test("lengths are of their kind") func lengthsAreOfTheirKind() {
        var lengths = AnswerLengths()
        let kind = AnswerLengths.kind(of: "What colour is the car?", images: 1)
        #expect(kind == "image what" && AnswerLengths.kind(of: "  ¿Qué?", images: 0) == "text qué" && AnswerLengths.kind(of: "", images: 0) == "text ")
        #expect(lengths.expected(kind: kind, atMost: 5) == 5)
        for index in 0 ..< 100 { lengths.add(index % 10 == 0 ? 40 : 3, kind: kind) }
        #expect(lengths.expected(kind: kind, atMost: 512) == 3)
        // Beyond what most had, those count that reached as far.
        #expect(lengths.expected(kind: kind, soFar: 3, atMost: 512) == 40)
        #expect(lengths.expected(kind: kind, soFar: 40, atMost: 512) == 50 && lengths.expected(kind: kind, soFar: 40, atMost: 45) == 45)
        for index in 0 ..< 1000 { lengths.add(1 + index, kind: "kind \(index)") }
        #expect(lengths.isUsable && lengths.expected(kind: kind, atMost: 512) == 3)
        lengths.add(0, kind: kind)
        #expect(lengths.isUsable)
    }

    // A failure means that what fits is not found, or that a plan with fewer units is predicted to take longer.
    @Test("chooses the most units that fit", arguments: [AdaptiveConfiguration.SchedulerType.layers, .heads]) func choosesTheMostUnitsThatFit(type: AdaptiveConfiguration.SchedulerType) throws {
        let language = DecoderConfiguration(
            vocabularySize: 1000, hiddenSize: 64, intermediateSize: 170, numHiddenLayers: 8, numAttentionHeads: 8, numKeyValueHeads: 4,
            ropeInterleaved: false, maxPositionEmbeddings: 2048)
        let adaptive = AdaptiveConfiguration(schedulerType: type, schedulerRank: 2, numPrefixLayers: 3)
        let planner = TimePlanner(ModelConfiguration(language: language, adaptive: adaptive), weightBytes: 2)
        var work = RemainingWork()
        (work.prefix, work.latencySlot, work.rest, work.tokens, work.slot) = (0 ..< 300, 300, 0 ..< 301, 20, 301)
        let times = (0 ... planner.mostUnits).map { planner.predict(work, planner.times(units: $0)).whole }
        #expect(zip(times, times.dropFirst()).allSatisfy { $0 <= $1 } && (times.first ?? 0) < (times.last ?? 0))
        for (units, time) in times.enumerated() {
            let situation = TimePlanner.Situation(limits: TimeLimits(answer: Duration(nanoseconds: time + 1)), work: work)
            let choice = planner.choose(situation, atMost: planner.mostUnits)
            #expect(choice.units >= units && times[choice.units] <= time + 1 && !choice.isLate)
            #expect(planner.choose(situation, atMost: 2).units <= 2)
        }
        // Where units can be turned off later, more are chosen at the same margin, and even the worst error leaves time for the smallest plan.
        for limit in times where limit > times[0] * 1.5 {
            var situation = TimePlanner.Situation(limits: TimeLimits(answer: Duration(nanoseconds: limit)), work: work)
            situation.wholeMargin = 1.44
            let fixed = planner.choose(situation, atMost: planner.mostUnits).units
            situation.canShrink = true
            let open = planner.choose(situation, atMost: planner.mostUnits).units
            let phases = planner.predict(work, planner.times(units: open))
            let least = phases.firstToken + planner.times(units: open).tokens(2, from: 301) + planner.times(units: 0).tokens(18, from: 303)
            #expect(open >= fixed && times[open] * 1.2 <= limit + 1 && least * 1.44 <= limit + 1)
            // One token is not changed any more.
            situation.work.tokens = 2
            let short = planner.choose(situation, atMost: planner.mostUnits).units
            situation.canShrink = false
            #expect(planner.choose(situation, atMost: planner.mostUnits).units == short)
        }
        let late = planner.choose(TimePlanner.Situation(limits: TimeLimits(answer: .nanoseconds(1)), work: work), atMost: planner.mostUnits)
        #expect(late == TimePlanner.Choice(units: 0, isLate: true))
        // Chunks of a prompt take as long together as their sum, which the step's accounting relies on.
        let whole = planner.times(units: planner.mostUnits)
        let parts = whole.prefill(0 ..< 100, chunk: 640, isEnd: false) + whole.prefill(100 ..< 301, chunk: 640, isEnd: true)
        #expect(whole.prefill(0 ..< 301, chunk: 640, isEnd: true) < parts && parts < 1.5 * times[planner.mostUnits])
    }

    // A failure means that times people write are misread, or that what cannot be kept apart is taken.
    @Test("time limits are read as people write them") func readsTimes() throws {
        #expect(try Budget(parsing: "ttft:150ms,tpot:8ms") == .time(TimeLimits(firstToken: .milliseconds(150), perToken: .milliseconds(8))))
        #expect(try Budget(parsing: "2s + TTFT: 0.15s") == .time(TimeLimits(answer: .seconds(2), firstToken: .milliseconds(150))))
        #expect(try Budget(parsing: "answer:400ms") == .answer(within: .milliseconds(400)))
        #expect(try Budget(parsing: "ttft:150ms,tpot:8ms").description == "ttft:150ms,tpot:8ms")
        #expect(throws: BudgetError.twice("500ms")) { try Budget(parsing: "400ms,500ms") }
        for text in ["ttft:", "tpot:8", "x:8ms", "400ms,0.5", ":8ms", "ttft:-1ms", "8mss", "1e12ms", "nanms"] {
            #expect(throws: BudgetError.unreadable(text)) { try Budget(parsing: text) }
        }
        #expect(throws: BudgetError.self) { try Budget.answer(within: .zero).validate() }
        #expect(throws: BudgetError.self) { try Budget.time(TimeLimits()).validate() }
        #expect(BudgetError.outOfRange(400).description.contains("400ms"))
    }
}
