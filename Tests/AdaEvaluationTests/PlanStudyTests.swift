import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// A model whose plan is told by the question, and that answers right under that plan alone.
private struct PlanReader: PlannedModel {
    let switchCount = 4
    let prefixLayers = 2

    func respond(to question: String, image: RGBImage?, budget: Double, maxTokens: Int, plan: ExecutionPlan?) async throws -> ModelResponse {
        var logits = [Float](repeating: 0, count: 4)
        logits[(Int(question.suffix(1)) ?? 0) % 4] = 1
        let own = try self.plan(switchLogits: logits, units: budget < 1 ? 1 : 4)
        let used = plan ?? own
        return ModelResponse(
            text: used == own ? "right" : "wrong", plan: used, units: budget < 1 ? 1 : 4, promptTokens: 1, generatedTokens: 1, keyValueBytes: 0,
            measured: MeasuredTimes())
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
    private func study(_ numbers: [Int], budgets: [Double] = [1, 0.5]) -> PlanStudy {
        PlanStudy(
            benchmark: Questions(samples: numbers.enumerated().map { BenchmarkSample(id: "\($0)", image: nil, question: "question \($1)", references: ["right"]) }),
            samples: numbers.enumerated().map { BenchmarkSample(id: "\($0)", image: nil, question: "question \($1)", references: ["right"]) }, budgets: budgets)
    }

    @Test func ownPlansThatMatterScoreMore() async throws {
        // A mismatch means that the causal test would not find plans that depend on the input, and matter.
        let numbers = (0 ..< 40).map { $0 % 4 }
        let results = try await study(numbers).run(PlanReader())
        let half = results[1]
        #expect(half.accuracy(.own) == 1)
        let swapped = PlanDifference.derangement(count: 40, seed: 1)
        #expect(half.accuracy(.swapped) == Double(numbers.indices.count { numbers[$0] == numbers[swapped[$0]] }) / 40)
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

    @Test func theMeanHammingDistanceIsThatOfAllPairs() async throws {
        // A mismatch means that the reported distance is not the mean over pairs.
        let plans = try await study([0, 1, 1, 3, 2, 0, 0], budgets: [0.5]).run(PlanReader())[0].plans
        var (sum, pairs) = (0, 0)
        for i in plans.indices { for j in plans.indices where j > i { (sum, pairs) = (sum + PlanDifference.hamming(plans[i], plans[j]), pairs + 1) } }
        let mean = try #require(PlanDifference.meanHamming(plans))
        #expect(abs(mean - Double(sum) / Double(pairs)) < 1e-12)
        #expect(PlanDifference.meanHamming([plans[0]]) == nil)
    }

    @Test func swappedPlansAreAlwaysAnothers() {
        // A mismatch means that swapped answers are partly own ones.
        for count in 2 ..< 40 {
            for seed in 0 ..< 5 as Range<UInt64> {
                let order = PlanDifference.derangement(count: count, seed: seed)
                #expect(order.sorted() == Array(0 ..< count) && !order.enumerated().contains { $0.offset == $0.element })
            }
        }
        #expect(PlanDifference.derangement(count: 1, seed: 0) == [0] && PlanDifference.derangement(count: 0, seed: 0).isEmpty)
    }

    @Test func frequenciesAreShares() async throws {
        // A mismatch means that heat maps show other shares than those of the plans.
        let result = try await study([0, 0, 0, 1], budgets: [0.5]).run(PlanReader())[0]
        let frequencies = try #require(result.frequencies)
        #expect(frequencies.row(layer: 0, part: 0).allSatisfy { $0 == 1 })
        #expect(frequencies.row(layer: 2, part: 1).allSatisfy { $0 == 0.75 } && frequencies.row(layer: 3, part: 0).allSatisfy { $0 == 0.25 })
        #expect(result.fixedPlan.rows[2].isSkipped == false && result.fixedPlan.rows[3].isSkipped)
        let object = result.jsonObject
        // Three of six pairs differ, in all four switches of two layers.
        #expect(object["mean_hamming"] as? Double == 4)
        #expect((object["accuracy"] as? [String: Double])?.keys.sorted() == ["fixed", "own", "random", "swapped"])
    }

    @Test func thePageHoldsEverythingItself() async throws {
        // A mismatch means that the page needs other files, or breaks on the texts of questions.
        let study = study([0, 1, 2], budgets: [1, 0.5])
        let results = try await study.run(PlanReader())
        let image = try #require(RGBImage(width: 8, height: 4, pixels: [UInt8](repeating: 90, count: 96)))
        let sample = BenchmarkSample(id: "x", image: nil, question: "Is 1 < 2 & \"3\"?", references: ["<yes>"])
        let report = PlanReport(
            model: "m<b>", data: "d & e", prefixLayers: 2, cropsImages: false, results: results,
            examples: [PlanReport.Example(sample: sample, image: image, attention: [], index: 0)])
        let html = try report.html()
        #expect(html.contains("Is 1 &lt; 2 &amp; &quot;3&quot;?") && html.contains("m&lt;b&gt;") && html.contains("&lt;yes&gt;"))
        #expect(html.contains("data:image/jpeg;base64,") && !html.contains("http") && !html.contains("<script") && !html.contains("<link"))
        #expect(html.components(separatedBy: "<svg").count == html.components(separatedBy: "</svg>").count)
        #expect(html.components(separatedBy: "<svg").count - 1 == 4)
        #expect(report.table.split(separator: "\n").count == 3)
    }

    @Test func aModelWithoutASchedulerIsAnError() async {
        // A mismatch means that a table of plans is shown for a model that has none.
        struct Plain: PlannedModel {
            let switchCount = 0
            let prefixLayers = 0
            func respond(to question: String, image: RGBImage?, budget: Double, maxTokens: Int, plan: ExecutionPlan?) async throws -> ModelResponse {
                throw CancellationError()
            }
            func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan { throw CancellationError() }
        }
        await #expect(throws: EvaluationError.self) { _ = try await study([0]).run(Plain()) }
    }
}
