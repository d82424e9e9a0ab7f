import Foundation
import Testing

@testable import AdaLLaVA

/// Who waits for whom where requests of several deadlines share the machine.
@Suite struct EngineTurnsTests {
    let model: TestModel
    let engine: Engine

    init() throws {
        model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        engine = try TestModel(sharing: model).engine
        var coefficients = StepCounts()
        // Times so long that the clock does not matter: 8 s for each layer of a token, 0.1 s for each row of a prompt's layer.
        coefficients[.singleLayers] = 8e9
        coefficients[.chunkValues] = 0.1e9 * 1e6 / Double(model.decoder.configuration.hiddenSize)
        let planner = TimePlanner(model.loaded.checkpoint.configuration, weightBytes: 4)
        planner.use(TimeModel(coefficients: coefficients), imageNanoseconds: 0)
        (engine.planner, engine.pacing.learns) = (planner, false)
        engine.balance = LoadBalance(patience: .seconds(1_000_000))
    }

    func task(_ count: Int, maxTokens: Int, _ budget: Budget = .full, priority: Int = 0) -> GenerationTask {
        var request = EngineRequest(tokens: [1] + (1 ..< count).map { 3 + $0 % 40 }, images: [], budget: budget, maxTokens: maxTokens)
        (request.reuses, request.deadlines.followsLoad, request.deadlines.changesPlans, request.priority) = (false, false, false, priority)
        return GenerationTask(request, cancellation: Cancellation(), onToken: { _ in true })
    }

    /// Steps both until the second one's prompt is read.
    /// - Returns: the tokens that the first one's answer has grown by meanwhile.
    func growth(of answer: GenerationTask, whileReading reading: GenerationTask) -> Int {
        while !answer.isDecoding, !answer.isDone { engine.step([answer]) }
        let before = answer.result.tokens.count
        while !reading.isDecoding, !reading.isDone { engine.step([answer, reading]) }
        return answer.result.tokens.count - before
    }

    @Test("an answer without a deadline waits while a request with one is read, and is the same afterwards") func bulkWaits() throws {
        let alone = task(8, maxTokens: 300)
        while !alone.isDone { engine.step([alone]) }
        let bulk = task(8, maxTokens: 300, priority: 1), urgent = task(400, maxTokens: 2, .answer(within: .seconds(200_000)))
        #expect(growth(of: bulk, whileReading: urgent) == 0)
        #expect((bulk.timing?.others ?? 0) > 0)
        while !bulk.isDone { engine.step([bulk, urgent]) }
        #expect(urgent.isDone)
        #expect(bulk.result.tokens == alone.result.tokens)
    }

    @Test("answers grow beside a prompt that is not more urgent, that is late anyhow, or that nobody judges") func shared() throws {
        let plain = growth(of: task(8, maxTokens: 300, priority: 1), whileReading: task(400, maxTokens: 2))
        #expect(plain > 0)
        let late = growth(of: task(8, maxTokens: 300, priority: 1), whileReading: task(400, maxTokens: 2, .answer(within: .microseconds(1))))
        #expect(late > 0)
        engine.balance = nil
        let unjudged = growth(of: task(8, maxTokens: 300, priority: 1), whileReading: task(400, maxTokens: 2, .answer(within: .seconds(200_000))))
        #expect(unjudged > 0)
    }

    @Test("an answer with a limit for each token is never held") func perToken() throws {
        let answer = task(8, maxTokens: 300, .perToken(.seconds(10_000)), priority: 1)
        #expect(growth(of: answer, whileReading: task(400, maxTokens: 2, .answer(within: .seconds(200_000)))) > 0)
    }

    @Test("an answer that nobody should wait longer for is not held") func patience() throws {
        engine.balance?.patience = .seconds(1)
        let answer = task(8, maxTokens: 300, priority: 1)
        #expect(growth(of: answer, whileReading: task(400, maxTokens: 2, .answer(within: .seconds(200_000)))) > 0)
    }

    // Without it, prompts that nobody hurries for are read while an answer that just fits into its time misses it.
    @Test("a prompt waits for an answer that has no time to spare, and rides along with one that has") func tightAnswer() throws {
        let planner = try #require(engine.planner), probe = task(8, maxTokens: 100, .answer(within: .seconds(1_000_000)))
        engine.step([probe])
        while !probe.isDecoding { engine.step([probe]) }
        let timing = try #require(probe.timing)
        let needed = planner.predict(engine.remaining(probe), timing.times).decode * timing.wholeMargin
        for (factor, rides) in [(1.3, false), (20, true)] {
            let answer = task(8, maxTokens: 100, .answer(within: Duration(nanoseconds: needed * factor))), reading = task(400, maxTokens: 2, priority: 1)
            while !answer.isDecoding { engine.step([answer]) }
            engine.step([answer, reading])
            let first = reading.length
            engine.step([answer, reading])
            #expect((reading.length > first) == rides, "\(factor): \(reading.length)")
            #expect(answer.result.tokens.count == 3)
        }
    }
}
