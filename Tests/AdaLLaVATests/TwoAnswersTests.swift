import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// Two answers of the embedded model at the same time, from loading to unloading: small, because scripts/sanitize.sh runs it under ThreadSanitizer,
/// not optimized.
@Suite struct TwoAnswersTests {
    private static func load(_ variant: String) async throws -> AdaptiveModel {
        var options = AdaptiveModel.Options()
        options.threads = 3
        return try await AdaptiveModel(contentsOf: Fixtures.models.appendingPathComponent("scenes/\(variant)"), options: options)
    }

    private struct Result: Equatable {
        var text = ""
        var tokens: [Int] = []
        var plan: ExecutionPlan?
    }

    private static func ask(_ model: AdaptiveModel, _ question: String, _ image: RGBImage, _ budget: Double) async throws -> Result {
        var options = GenerationOptions()
        options.maxTokens = 6
        let (text, summary) = try await model.answer(question, image: image, budget: .fraction(budget), options: options).whole()
        return Result(text: text, tokens: summary.tokens, plan: summary.plan)
    }

    private static let questions = ["What is on the left?", "How many things are there?"]

    private static func image() throws -> RGBImage { try RGBImage(contentsOf: Fixtures.models.appendingPathComponent("scenes-ref/images/00.png").path) }

    // A failure means that two people who ask at the same time, under different budgets, are told other things than one after the other.
    @Test("different plans at once", arguments: ["L", "H"]) func differentPlansAtOnce(variant: String) async throws {
        let model = try await Self.load(variant), image = try Self.image()
        let expected = [try await Self.ask(model, Self.questions[0], image, 1), try await Self.ask(model, Self.questions[1], image, 0.75)]
        #expect(expected[0].plan != expected[1].plan)
        // A model of its own, so that nothing is found in the prompt cache.
        let other = try await Self.load(variant)
        async let first = Self.ask(other, Self.questions[0], image, 1)
        async let second = Self.ask(other, Self.questions[1], image, 0.75)
        #expect(try await [first, second] == expected)
    }

    // A failure means that a person who gives up takes an answer with them that somebody else waits for.
    @Test("cancelling one answer does not change the other") func oneIsCancelled() async throws {
        let model = try await Self.load("L"), image = try Self.image()
        let expected = try await Self.ask(model, Self.questions[0], image, 1)
        let cancelled = Task {
            var options = GenerationOptions()
            (options.maxTokens, options.sampling.temperature) = (400, 5)
            for try await _ in model.answer(Self.questions[1], image: image, budget: .fraction(0.75), options: options) { withUnsafeCurrentTask { $0?.cancel() } }
            try Task.checkCancellation()
        }
        #expect(try await Self.ask(model, Self.questions[0], image, 1) == expected)
        await #expect(throws: CancellationError.self) { try await cancelled.value }
    }

    // A failure means that a model whose owner lets go of it is freed while it answers, or never.
    @Test("unloading waits for answers") func unloadingWaitsForAnswers() async throws {
        let image = try Self.image()
        var model: AdaptiveModel? = try await Self.load("L")
        let expected = try await Self.ask(#require(model), Self.questions[0], image, 1)
        weak let queue = model?.requests
        let streams = try [1, 0.75].map { budget in
            var options = GenerationOptions()
            options.maxTokens = 6
            return try #require(model).answer(Self.questions[0], image: image, budget: .fraction(budget), options: options)
        }
        model = nil
        let text = try await streams[0].whole().text
        for try await _ in streams[1] {}
        #expect(text == expected.text)
        // The engine's thread lets go after the last event was delivered.
        for _ in 0 ..< 500 where queue != nil { try await Task.sleep(for: .milliseconds(10)) }
        #expect(queue == nil)
    }
}
