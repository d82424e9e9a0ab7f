import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// Answers right where the plan runs the layer that the question names; the latency token's state tells which that is.
private final class LayerModel: PlannedModel, BudgetedModel, @unchecked Sendable {
    let switchCount = 4
    let prefixLayers = 2
    let budgetUnits: BudgetUnits? = BudgetUnits(total: 6, prefix: 2)

    private func wanted(_ question: String) -> Int { Int(question.filter(\.isNumber)) ?? 0 }

    func respond(
        to question: String, image: RGBImage?, budget: Budget, plan: ExecutionPlan?, maxTokens: Int
    ) async throws -> (text: String, states: PrefixStates) {
        let units = try budgetUnits?.granted(fraction: budget.validFraction() ?? 1) ?? 0
        let plan = try plan ?? self.plan(switchLogits: [4, 3, 2, 1], units: units)
        let state: [Float] = (0 ..< 4).map { $0 == wanted(question) ? 1 : 0 }
        return (plan.rows[2 + wanted(question)].isSkipped ? "wrong" : "right", PrefixStates(prompt: state, latency: state))
    }

    func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int, plan: ExecutionPlan?) async throws -> ModelResponse {
        throw CancellationError()
    }

    func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan {
        let best = Set(switchLogits.indices.sorted { (-switchLogits[$0], $0) < (-switchLogits[$1], $1) }.prefix(units))
        let (on, off) = (ExecutionPlan.Row(heads: [0, 1], groups: [0, 1]), ExecutionPlan.Row(heads: [], groups: []))
        return ExecutionPlan(headCount: 2, rows: [on, on] + (0 ..< 4).map { best.contains($0) ? on : off })
    }
}

@Suite struct PlanOracleTests {
    private struct Questions: Benchmark {
        let samples: [BenchmarkSample]
        let mainScore = "accuracy"
        func score(_ answer: String, for sample: BenchmarkSample) -> Double? { answer == "right" ? 1 : 0 }
        func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] { [] }
    }

    @Test("the best plan of each input beats the best plan for all where inputs need different layers")
    func oracle() async throws {
        // Layer 1 is needed by half of the inputs, the others by a sixth each.
        let needs = [1, 1, 1, 0, 2, 3]
        let samples = (0 ..< 60).map { index in
            BenchmarkSample(
                id: "\(index)", image: nil, question: "Is \(needs[index / 2 % 6]) on the \(index % 3 == 0 ? "left" : "right")?", references: [],
                tags: ["task": "task \(needs[index / 2 % 6])"])
        }
        let study = try await PlanOracle(LayerModel(), Questions(samples: samples), samples, budgets: [1, 0.5, 0.34])
        #expect(study.results.map(\.plans) == [1, 4, 1] && study.results.map(\.units) == [4, 1, 0])
        let half = study.results[1]
        // The scheduler always takes layer 0; one plan for all takes layer 1, the third of the model's.
        #expect(abs(half.own - 1 / 6) < 1e-9 && half.single == 0.5 && half.oracle == 1 && half.singleLayers == [3])
        #expect(try #require(half.oracleOverSingle).low > 0.3 && #require(half.ownOverSingle).high < 0)
        #expect(study.results[0].own == 1 && study.results[2].oracle == 0)
        let task = try #require(study.probes.first { $0.target == "task" && $0.budget == 0.5 })
        #expect(task.accuracy == 1 && task.classes == 4 && task.majority < 0.7)
        let place = try #require(study.probes.first { $0.target == "place" && $0.budget == 0.5 })
        #expect(place.accuracy < 0.9)
        #expect(study.json.budgets.map(\.oracle) == study.results.map(\.oracle) && study.table.contains("oracle over single"))
    }

    @Test("plans are listed once each, and questions are put in other words")
    func parts() {
        #expect(PlanOracle.subsets(of: 6, count: 3).count == 20 && Set(PlanOracle.subsets(of: 6, count: 2)).count == 15)
        #expect((0 ... 6).reduce(0) { $0 + PlanOracle.subsets(of: 6, count: $1).count } == 64)
        for question in ["What does the text say?", "Describe the image.", "What color is the ring?", "Is there a dog?", "dog"] {
            #expect(PlanOracle.reworded(question) != question)
        }
        #expect(PlanOracle.place(in: "What is just left of the cat above?") == "left" && PlanOracle.place(in: "How many?").isEmpty)
    }

    @Test("models without layers to choose, or with too many, are refused")
    func refusals() async {
        let samples = [BenchmarkSample(id: "a", image: nil, question: "1", references: [])]
        struct Heads: PlannedModel, BudgetedModel {
            let switchCount = 24
            let prefixLayers = 2
            let budgetUnits: BudgetUnits? = BudgetUnits(total: 4, prefix: 2)
            func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int, plan: ExecutionPlan?) async throws -> ModelResponse { throw CancellationError() }
            func respond(to question: String, image: RGBImage?, budget: Budget, plan: ExecutionPlan?, maxTokens: Int) async throws -> (text: String, states: PrefixStates) {
                throw CancellationError()
            }
            func plan(switchLogits: [Float], units: Int) throws -> ExecutionPlan { throw CancellationError() }
        }
        await #expect(throws: EvaluationError.self) { _ = try await PlanOracle(Heads(), Questions(samples: samples), samples, budgets: [1]) }
        await #expect(throws: EvaluationError.self) { _ = try await PlanOracle(LayerModel(), QuestionPairs(images: ["x"], questions: ["y"]), samples, budgets: [1]) }
    }
}
