import Foundation
import Synchronization
import Testing

@testable import AdaLLaVA
@testable import AdaProbes

@Suite struct EngineProbeTests {
    // A failure means that choosing a plan is reported as free, or that a model which has nothing to choose is said to have chosen.
    @Test("the time of choosing a plan is measured") func planningIsTimed() async throws {
        let model = try await AdaptiveModel(contentsOf: Fixtures.models.appendingPathComponent("scenes-ref"))
        let times = try #require(try await model.measurePlanning(budget: .fraction(0.7), repeats: 3))
        #expect(times.count == 3 && times.allSatisfy { $0 > .zero })
        await #expect(throws: BudgetError.self) { _ = try await model.measurePlanning(budget: .fraction(2), repeats: 1) }
        let plain = try await AdaptiveModel(contentsOf: Fixtures.url("llava-hf/old-layout"))
        #expect(try await plain.measurePlanning(budget: .full, repeats: 3) == nil)
    }

    // A failure means that budgets are timed under other plans than they run with, or that a round of them never ends.
    @Test("budgets are timed together") func budgetsAreTimedTogether() async throws {
        let model = try await AdaptiveModel(contentsOf: Fixtures.models.appendingPathComponent("scenes-ref"))
        let budgets = [Budget.full, .fraction(0.75), .fraction(0.5)]
        let costs = try await model.measureBudgets(budgets, prompt: [1, 5, 6, 7, 8], steps: 4)
        #expect(costs.count == 3)
        for (budget, cost) in zip(budgets, costs) {
            #expect(cost.prefill.count >= 2 && cost.prefill.allSatisfy { $0 > .zero } && cost.steps.count == 4 && cost.steps.allSatisfy { $0 > .zero })
            #expect(try await model.measure(tokens: [1, 5, 6, 7, 8], budget: budget, maxTokens: 1).plan == cost.plan)
        }
        #expect(costs[0].plan != costs[2].plan)
        await #expect(throws: BudgetError.self) { _ = try await model.measureBudgets([.fraction(2)], prompt: [1], steps: 1) }
        await #expect(throws: GenerationError.emptyPrompt) { _ = try await model.measureBudgets([.full], prompt: [], steps: 1) }
        await #expect(throws: GenerationError.self) { _ = try await model.measureBudgets([.full, .fraction(0.5)], prompt: [1, 1 << 40], steps: 1) }
    }

    // A failure means that the decoder alone is timed on other tokens than the answer's, or that bad ids reach the embedding.
    @Test("decoder alone takes its tokens") func decoderAloneTakesItsTokens() async throws {
        let model = try await AdaptiveModel(contentsOf: Fixtures.url("llava-hf/old-layout"))
        let times = try await model.measureDecoder(prompt: [1, 5], tokens: [6, 7, 8])
        #expect(times.count == 3 && times.allSatisfy { $0 > .zero })
        let calls = Mutex(0)
        #expect(try await model.measureDecoder(prompt: [1, 5], tokens: [6, 7], between: { calls.withLock { $0 += 1 } }).count == 2)
        #expect(calls.withLock { $0 } == 2)
        await #expect(throws: GenerationError.self) { _ = try await model.measureDecoder(prompt: [1, -200], tokens: [6]) }
        await #expect(throws: GenerationError.self) { _ = try await model.measureDecoder(prompt: [1], tokens: [1 << 40]) }
        await #expect(throws: GenerationError.emptyPrompt) { _ = try await model.measureDecoder(prompt: [], tokens: [6]) }
    }

    // A failure means that steps of several sequences are timed on others than were asked for, or that bad ids reach the embedding.
    @Test("steps of several sequences are timed") func stepsOfSeveralSequencesAreTimed() async throws {
        let model = try await AdaptiveModel(contentsOf: Fixtures.models.appendingPathComponent("scenes-ref"))
        let plan = try model.plan(switchLogits: [0.1, 0.9, 0.3, 0.2], units: 2)
        let times = try await model.measureSteps([[nil, plan], [plan]], prompt: [1, 5, 6], steps: 3)
        #expect(times.map(\.count) == [3, 3] && times.joined().allSatisfy { $0 > .zero })
        await #expect(throws: GenerationError.emptyPrompt) { _ = try await model.measureSteps([[nil]], prompt: [], steps: 1) }
        await #expect(throws: GenerationError.self) { _ = try await model.measureSteps([[nil]], prompt: [1 << 40], steps: 1) }
    }
}
