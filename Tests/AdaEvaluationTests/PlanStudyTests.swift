import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// A model whose plan is told by the question, and that answers right under that plan alone.
final class PlanReader: PlannedModel, @unchecked Sendable {
    let switchCount = 4
    let prefixLayers = 2
    private let lock = NSLock()
    private var asked: [(question: String, isOwn: Bool)] = []

    /// What was asked, in order, and whether under the model's own plan.
    var requests: [(question: String, isOwn: Bool)] { lock.withLock { asked } }

    func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int, plan: ExecutionPlan?) async throws -> ModelResponse {
        lock.withLock { asked.append((question, plan == nil)) }
        let budget = try budget.validFraction() ?? 1
        var logits = [Float](repeating: 0, count: 4)
        logits[(Int(question.suffix(1)) ?? 0) % 4] = 1
        let own = try self.plan(switchLogits: logits, units: budget < 1 ? 1 : 4)
        let used = plan ?? own
        return ModelResponse(
            text: used == own ? "right" : "wrong", plan: used, units: budget < 1 ? 1 : 4, promptTokens: 1, generatedTokens: 1, keyValueBytes: 0,
            measured: PhaseTimes())
    }

    func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan {
        let best = Set(switchLogits.indices.sorted { (-switchLogits[$0], $0) < (-switchLogits[$1], $1) }.prefix(units))
        let (on, off) = (ExecutionPlan.Row(heads: [0, 1], groups: [0, 1]), ExecutionPlan.Row(heads: [], groups: []))
        return ExecutionPlan(headCount: 2, rows: [on, on] + (0 ..< 4).map { best.contains($0) ? on : off })
    }
}

private struct Questions: Benchmark {
    let samples: [BenchmarkSample]
    let mainScore = "accuracy"
    func score(_ answer: String, for sample: BenchmarkSample) -> Double? { answer == "right" ? 1 : 0 }
    func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] { [] }
}

@Suite struct PlanStudyTests {
    /// Plans of question `n` have switch `n % 4` on.
    private func study(_ numbers: [Int], budgets: [Double] = [1, 0.5], seed: UInt64 = 1) -> PlanStudy {
        let samples = numbers.enumerated().map { BenchmarkSample(id: "\($0)", image: nil, question: "question \($1)", references: ["right"]) }
        return PlanStudy(benchmark: Questions(samples: samples), samples: samples, budgets: budgets, seed: seed)
    }

    @Test("own plans that matter score more") func ownPlansThatMatterScoreMore() async throws {
        // A mismatch means that the causal test would not find plans that depend on the input, and matter.
        let numbers = (0 ..< 40).map { $0 % 4 }
        let results = try await study(numbers).run(PlanReader())
        let half = results[1]
        #expect(half.accuracy(.own) == 1)
        let swapped = PlanDifference.derangement(count: 40, seed: 1)
        let kept = Double(numbers.indices.count { numbers[$0] == numbers[swapped[$0]] }) / 40
        #expect(half.accuracy(.swapped) == kept)
        #expect(half.changedPlans[.swapped] == 1 - kept && half.changedAnswers(.swapped) == 1 - kept)
        // All switches are on equally often; the first wins.
        #expect(half.accuracy(.fixed) == 0.25)
        #expect(try #require(half.accuracy(.random)) < 0.6)
        #expect(half.distinctPlans == 4)
        let gain = try #require(half.gain(over: .fixed))
        #expect(gain.mean == 0.75 && gain.low > 0.5 && gain.high < 0.95)
        // With everything on, every plan is the same.
        for source in PlanSource.allCases { #expect(results[0].accuracy(source) == 1) }
        #expect(results[0].meanHamming == 0 && results[0].distinctPlans == 1)
    }

    @Test("each sample is asked once for each plan") func eachSampleIsAskedOnceForEachPlan() async throws {
        // A mismatch means that plans which change nothing cost a request each, or that an image is encoded again for every budget and source.
        let numbers = (0 ..< 12).map { $0 % 4 }
        let model = PlanReader()
        let results = try await study(numbers, budgets: [1, 0.5, 0.4]).run(model)
        #expect(results.allSatisfy { result in PlanSource.allCases.allSatisfy { result.answers[$0]?.count == 12 } })
        let own = model.requests.prefix(36)
        #expect(own.allSatisfy(\.isOwn) && own.map(\.question) == numbers.flatMap { [String](repeating: "question \($0)", count: 3) })
        // At budget 1 all plans are the same, so at most three more for each of the two others.
        #expect(model.requests.count > 36 && model.requests.count <= 36 + 12 * 2 * 3)
        #expect(!model.requests.dropFirst(36).contains { $0.isOwn })
    }

    @Test("the same seed gives the same study") func theSameSeedGivesTheSameStudy() async throws {
        // A mismatch means that a published comparison cannot be repeated; equality for all seeds, that the seed does nothing.
        let numbers = (0 ..< 30).map { ($0 * 7) % 4 }
        func answers(_ seed: UInt64) async throws -> [PlanSource: [String]] { try await study(numbers, budgets: [0.5], seed: seed).run(PlanReader())[0].answers }
        let first = try await answers(3)
        #expect(try await answers(3) == first)
        let others = try await [answers(4), answers(5)]
        #expect(others.contains { $0[.random] != first[.random] } && others.contains { $0[.swapped] != first[.swapped] })
    }

    @Test("random plans are independent") func randomPlansAreIndependent() async throws {
        // A mismatch means that random plans repeat from sample to sample, so their score says less than its interval claims.
        let result = try await study([Int](repeating: 0, count: 400), budgets: [0.5]).run(PlanReader())[0]
        let right = try #require(result.scores[.random])
        // One switch of four: a quarter is right, and a right one follows a right one a quarter of the time.
        #expect(abs(right.reduce(0, +) / 400 - 0.25) < 0.08)
        let pairs = zip(right, right.dropFirst()).count { $0 == 1 && $1 == 1 }
        #expect(abs(Double(pairs) / right.reduce(0, +) - 0.25) < 0.17)
    }

    @Test("the mean Hamming distance is that of all pairs") func theMeanHammingDistanceIsThatOfAllPairs() async throws {
        // A mismatch means that the reported distance is not the mean over pairs, or does not count switches.
        let result = try await study([0, 1, 1, 3, 2, 0, 0], budgets: [0.5]).run(PlanReader())[0]
        let plans = result.plans
        var (sum, pairs) = (0, 0)
        for i in plans.indices {
            for j in plans.indices where j > i { (sum, pairs) = (sum + PlanDifference.hamming(plans[i], plans[j], result.switches), pairs + 1) }
        }
        let mean = try #require(result.meanHamming)
        #expect(abs(mean - Double(sum) / Double(pairs)) < 1e-12)
        #expect(PlanDifference.meanHamming([plans[0]], result.switches) == nil)
        // A layer is one switch: one is on in each plan, so two plans that differ do so in two.
        #expect(PlanDifference.hamming(plans[0], plans[1], result.switches) == 2)
        // Heads and groups are switches of their own.
        let heads = PlanSwitches(prefixLayers: 1, count: 2 * 2 * 2)
        let full = ExecutionPlan.Row(heads: [0, 1], groups: [0, 1])
        let a = ExecutionPlan(headCount: 2, rows: [full, .init(heads: [0], groups: [0, 1]), .init(heads: [], groups: [])])
        let b = ExecutionPlan(headCount: 2, rows: [full, .init(heads: [1], groups: [0, 1]), .init(heads: [], groups: [1])])
        #expect(PlanDifference.hamming(a, b, heads) == 3 && PlanDifference.hamming(a, a, heads) == 0)
        #expect(heads.states(of: a) == [true, false, true, true, false, false, false, false])
    }

    @Test("swapped plans are always those of another input") func swappedPlansAreAlwaysAnothers() async throws {
        // A mismatch means that swapped answers are partly own ones.
        for count in 2 ..< 40 {
            for seed in 0 ..< 5 as Range<UInt64> {
                let order = PlanDifference.derangement(count: count, seed: seed)
                #expect(order.sorted() == Array(0 ..< count) && !order.enumerated().contains { $0.offset == $0.element })
            }
        }
        #expect(PlanDifference.derangement(count: 1, seed: 0) == [0] && PlanDifference.derangement(count: 0, seed: 0).isEmpty)
        // A single sample has no other to take a plan from.
        let single = try await study([2], budgets: [0.5]).run(PlanReader())[0]
        #expect(single.accuracy(.own) == 1 && single.accuracy(.swapped) == nil && single.answers[.swapped] == nil && single.meanHamming == nil)
    }

    @Test("an interval holds the truth as often as it says") func anIntervalHoldsTheTruthAsOftenAsItSays() throws {
        // A mismatch means that the 95 % intervals of the report are too narrow or too wide.
        var generator = SplitMix64(seed: 9)
        var held = 0
        for round in 0 ..< 100 {
            // First right with 0.7, second with 0.5, and both depend on the sample.
            let draws = (0 ..< 80).map { _ in generator.unit() }
            let first = draws.map { $0 < 0.7 ? 1.0 : 0 }
            let second = draws.map { $0 < 0.35 || $0 > 0.85 ? 1.0 : 0 }
            let difference = try #require(PairedDifference(first, second, seed: UInt64(round)))
            if difference.low <= 0.2, difference.high >= 0.2 { held += 1 }
            #expect(difference.low <= difference.mean && difference.mean <= difference.high)
        }
        #expect((86 ... 100).contains(held))
        #expect(PairedDifference([], []) == nil && PairedDifference([1], [1, 0]) == nil)
        #expect(PairedDifference([1, 0], [1, 0]).map { [$0.mean, $0.low, $0.high] } == [0, 0, 0])
    }

    @Test("switch frequencies are shares of the plans") func frequenciesAreShares() async throws {
        // A mismatch means that heat maps show other shares than those of the plans, or that programs read other numbers than documented.
        let result = try await study([0, 0, 0, 1], budgets: [0.5]).run(PlanReader())[0]
        let frequencies = try #require(result.frequencies)
        #expect(frequencies.row(layer: 0, part: 0).allSatisfy { $0 == 1 })
        #expect(frequencies.row(layer: 2, part: 1).allSatisfy { $0 == 0.75 } && frequencies.row(layer: 3, part: 0).allSatisfy { $0 == 0.25 })
        #expect(frequencies.share(layer: 2) == 0.75 && frequencies.share(layer: 5) == 0)
        #expect(result.fixedPlan.rows[2].isSkipped == false && result.fixedPlan.rows[3].isSkipped)
        let json = result.json
        // Three pairs of six differ, in two switches each.
        #expect(json.meanHamming == 1 && json.switches == 4)
        #expect(json.accuracy?.keys.sorted() == ["fixed", "own", "random", "swapped"])
        #expect(json.gainOfOwn?.keys.sorted() == ["fixed", "random", "swapped"])
    }

    @Test("wrong studies are errors") func wrongStudiesAreErrors() async {
        // A mismatch means that a table of plans is shown for a model that has none, or that nothing is called a result.
        struct Plain: PlannedModel {
            let switchCount = 0
            let prefixLayers = 0
            func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int, plan: ExecutionPlan?) async throws -> ModelResponse {
                throw CancellationError()
            }
            func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan { throw CancellationError() }
        }
        await #expect(throws: EvaluationError.self) { _ = try await study([0]).run(Plain()) }
        await #expect(throws: EvaluationError.self) { _ = try await study([]).run(PlanReader()) }
        await #expect(throws: EvaluationError.self) { _ = try await study([0], budgets: []).run(PlanReader()) }
        await #expect(throws: EvaluationError.self) { _ = try await study([0], budgets: [0.5, 0.5]).run(PlanReader()) }
    }

    @Test("a cancelled study stops") func aCancelledStudyStops() async {
        // A mismatch means that Ctrl-C waits for the whole study.
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await study([0, 1]).run(PlanReader())
        }
        await #expect(throws: CancellationError.self) { _ = try await task.value }
    }
}
