import Foundation
import Testing

@testable import AdaLLaVA

/// Budgets that shrink together when more is asked for than there is time.
@Suite struct SharedBudgetTests {
    /// Prompts of `prefix.count` seconds, and of `rest.count` more for each unit; tokens of a second, a half for each unit.
    private static func predict(_ work: RemainingWork, _ units: Int) -> PhaseNanoseconds {
        PhaseNanoseconds(
            prefill: Double(work.prefix.count) + Double(work.rest.count) * Double(units), decode: Double(work.tokens) * (1 + 0.5 * Double(units)))
    }

    private static func item(_ prefix: Int, _ rest: Int, _ tokens: Int, left: Double = .infinity, firstToken: Double = .infinity, most: Int = 4) -> SharedBudget.Item {
        var work = RemainingWork()
        (work.prefix, work.rest, work.tokens) = (0 ..< prefix, 0 ..< rest, tokens)
        return SharedBudget.Item(work: work, most: most, left: left, leftToFirstToken: firstToken)
    }

    private static func units(_ items: [SharedBudget.Item], margin: Double = 1) -> (Int, Set<Int>) {
        let budget = SharedBudget(items, most: 4, promptMargin: margin, tokenMargin: margin, predict: predict)
        return (budget.units, budget.hopeless)
    }

    @Test("everything runs where there is time, and less for everybody where there is not") func shrinks() {
        #expect(Self.units([]) == (4, []))
        #expect(Self.units([Self.item(10, 10, 5)]) == (4, []))
        // 10 + 40 to the first token, then 5 x 3.
        #expect(Self.units([Self.item(10, 10, 5, left: 65)]) == (4, []))
        #expect(Self.units([Self.item(10, 10, 5, left: 64)]) == (3, []))
        // One before it with no deadline of its own takes as much again.
        #expect(Self.units([Self.item(10, 10, 5), Self.item(10, 10, 5, left: 65)]) == (1, []))
        // One after it is held.
        #expect(Self.units([Self.item(10, 10, 5, left: 65), Self.item(10, 10, 5)]) == (4, []))
        // First tokens count by themselves.
        #expect(Self.units([Self.item(10, 10, 1000, firstToken: 30)]) == (2, []))
        // Those that are granted fewer anyway are not what the others wait for.
        #expect(Self.units([Self.item(10, 10, 0, most: 0), Self.item(10, 10, 0, left: 60)]) == (4, []))
    }

    @Test("a request that is late whatever runs costs nobody else") func hopeless() {
        let (units, late) = Self.units([Self.item(1000, 0, 0, left: 10), Self.item(10, 10, 0, left: 50), Self.item(5, 0, 0, left: 4)])
        #expect(units == 4 && late == [0, 2])
        #expect(Self.units([Self.item(1, 0, 0, left: -1)]) == (4, [0]))
    }

    @Test("a request's own times are kept with a margin, earlier prompts count as expected") func margins() {
        // 10 + 10 u to the first token, then 5 (1 + u / 2).
        #expect(Self.units([Self.item(10, 10, 5, left: 90)], margin: 1.5) == (3, []))
        #expect(Self.units([Self.item(10, 10, 5), Self.item(10, 10, 5, left: 89)], margin: 1.5) == (1, []))
        // In time at the floor without the margin alone: neither late, nor a reason for nobody's units.
        #expect(Self.units([Self.item(10, 10, 5, left: 20)], margin: 1.5) == (0, []))
        #expect(Self.units([Self.item(0, 0, 20, left: 20), Self.item(10, 10, 5)], margin: 1.5) == (0, []))
        #expect(Self.units([Self.item(15, 0, 0, left: 20), Self.item(10, 10, 5)], margin: 1.5) == (4, []))
        #expect(Self.units([Self.item(10, 10, 5, left: 14)], margin: 1.5) == (4, [0]))
    }

    // A difference means that the search leaves units unused, or grants some that there is no time for.
    @Test("the units are the most at which all are in time") func search() {
        var random = SeededGenerator(seed: 8)
        for _ in 0 ..< 200 {
            let items = (0 ..< Int.random(in: 1 ... 6, using: &random)).map { _ in
                Self.item(
                    Int.random(in: 0 ... 20, using: &random), Int.random(in: 0 ... 10, using: &random), Int.random(in: 0 ... 9, using: &random),
                    left: Bool.random(using: &random) ? .infinity : Double.random(in: 0 ... 150, using: &random), most: Int.random(in: 0 ... 4, using: &random))
            }
            let (units, late) = Self.units(items)
            /// The formula of the type's documentation, one request at a time.
            func fits(_ units: Int) -> Bool {
                items.indices.allSatisfy { place in
                    if late.contains(place) { return true }
                    let prompts = items.indices.map { late.contains($0) ? 0 : Self.predict(items[$0].work, min(units, items[$0].most)).firstToken }
                    let tokens = Self.predict(items[place].work, min(units, items[place].most)).decode
                    return prompts[...place].reduce(0, +) + tokens <= items[place].left + 1e-9
                }
            }
            #expect((0 ... units).allSatisfy(fits) && (units == 4 || !fits(units + 1)), "\(items)")
        }
    }

    @Test("prompts are read by priority, then deadline, those that are late last") func order() {
        let now = ContinuousClock.now
        let orders = [
            WorkOrder(priority: 0, deadline: now + .seconds(2), called: now), WorkOrder(priority: 0, deadline: nil, called: now - .seconds(9)),
            WorkOrder(priority: 0, isLate: true, deadline: now, called: now), WorkOrder(priority: -1, deadline: nil, called: now),
            WorkOrder(priority: 0, deadline: now + .seconds(1), called: now), WorkOrder(priority: 0, deadline: nil, called: now),
        ]
        #expect(orders.indices.sorted { orders[$0] < orders[$1] } == [3, 4, 0, 1, 5, 2])
    }

    // MARK: - In the engine

    /// A predictor for which every layer of a prompt's row takes so many nanoseconds, and everything else nothing.
    private static func planner(_ model: TestModel, layer: Double) -> TimePlanner {
        let planner = TimePlanner(model.loaded.checkpoint.configuration, weightBytes: 4)
        var coefficients = StepCounts()
        (coefficients[.chunkLayers], coefficients[.lastLayers]) = (layer, layer)
        planner.use(TimeModel(coefficients: coefficients), imageNanoseconds: 0)
        return planner
    }

    private static func engine(_ model: TestModel, patience: Duration, layer: Double = 1e9) throws -> Engine {
        let engine = try TestModel(sharing: model).engine
        engine.planner = planner(model, layer: layer)
        engine.balance = LoadBalance(patience: patience)
        engine.pacing.learns = false
        return engine
    }

    private static func task(_ seed: Int, _ budget: Budget = .full) -> GenerationTask {
        var request = EngineRequest(tokens: [1] + (0 ..< 30).map { 3 + ($0 * 7 + seed) % 40 }, images: [], budget: budget, maxTokens: 4)
        // What the test's own steps take says nothing about made-up times.
        (request.reuses, request.deadlines.followsLoad) = (false, false)
        return GenerationTask(request, cancellation: Cancellation(), onToken: { _ in true })
    }

    private static func run(_ engine: Engine, _ tasks: [GenerationTask]) throws -> [EngineResult] {
        while tasks.contains(where: { !$0.isDone }) { engine.step(tasks.filter { !$0.isDone }) }
        return try tasks.map { try #require(try $0.outcome?.get()) }
    }

    // A failure means that an overloaded server answers nobody in time instead of everybody with less, or that the answer is not that of its smaller budget.
    @Test("answers of an overloaded engine are those of smaller budgets, and say so") func overload() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2), adaptive = try #require(model.loaded.parts.adaptive)
        let most = adaptive.units.total - adaptive.units.prefix
        // A second for each layer after the prefix, an eighth more for what predictions are wrong by; prompts pass the prefix together.
        for (count, expected) in [(1, most), (2, most / 2), (most + 2, 0)] {
            let engine = try Self.engine(model, patience: .seconds(Double(most) * 1.25))
            let results = try Self.run(engine, (0 ..< count).map { Self.task($0) })
            for (index, result) in results.enumerated() {
                let units = try #require(result.adaptive?.units)
                #expect(index > 0 || units == expected, "\(count) requests: \(units)")
                #expect((result.shrunkFrom ?? units) == most)
                var alone = Self.task(index).request
                alone.budget = .fraction(adaptive.units.fraction(buying: units))
                #expect(try TestModel(sharing: model).run(alone).tokens == result.tokens)
            }
        }
        // Without the server's leave, or where nothing was measured, budgets are what was asked for.
        for change in [{ (engine: Engine) in engine.balance = nil }, { $0.planner = nil }] {
            let engine = try Self.engine(model, patience: .zero)
            change(engine)
            #expect(try Self.run(engine, [Self.task(1), Self.task(2)]).allSatisfy { $0.adaptive?.units == most && $0.shrunkFrom == nil })
        }
    }

    @Test("requests that wait elsewhere shrink budgets too") func backlog() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let engine = try Self.engine(model, patience: .seconds(Double(model.decoder.layers.count)))
        engine.backlog = { (0 ..< 5).map { _ in QueuedWork(positions: 31, images: 0, maxTokens: 4) } }
        #expect(try Self.run(engine, [Self.task(1)])[0].adaptive?.units == 0)
    }

    @Test("prompts with deadlines are read first, and those that cannot be in time last") func first() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let engine = try Self.engine(model, patience: .seconds(1e9))
        // While this one's answer grows, prompts are read eight rows at a time, for they have no time left. With a limit for each token it is never held.
        var growing = Self.task(5, .perToken(.seconds(1e6))).request
        growing.maxTokens = 200
        let other = GenerationTask(growing, cancellation: Cancellation(), onToken: { _ in true })
        while !other.isDecoding { engine.step([other]) }
        let tasks = [Self.task(1), Self.task(2, .answer(within: .nanoseconds(1))), Self.task(3, .answer(within: .seconds(1e6)))]
        var ended: [Int] = []
        while tasks.contains(where: { !$0.isDone }) {
            engine.step(([other] + tasks).filter { !$0.isDone })
            for (index, task) in tasks.enumerated() where task.prefilled != nil && !ended.contains(index) { ended.append(index) }
        }
        #expect(ended == [2, 0, 1] && !other.isDone)
        #expect(tasks[1].isLate && !tasks[2].isLate)
    }

    // A failure means that a request's growing answer takes memory that another one was admitted with.
    @Test("requests wait for memory to their longest end, and none fails for another's growth") func memory() async throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let page = model.engine.runner.keyValueBytes(positions: 1)
        var limits = MemoryLimits()
        // Two requests of one page, not three.
        (limits.keyValueBytes, limits.promptCacheBytes) = (2 * page, 0)
        let shared = try TestModel(sharing: model, memory: limits)
        let expected = try model.run(Self.task(0).request).tokens
        let queue = AnswerQueue(shared.engine, queue: DispatchQueue(label: "memory"), limit: 8)
        try await withThrowingTaskGroup(of: [Int].self) { group in
            for _ in 0 ..< 8 {
                group.addTask {
                    try await withCheckedThrowingContinuation { continuation in
                        let request = Self.task(0).request, cancellation = Cancellation()
                        queue.submit(
                            cancellation, positions: request.tokens.count + 1 + request.maxTokens,
                            make: {
                                GenerationTask(request, cancellation: cancellation, onToken: { _ in true }, onEnd: { continuation.resume(with: $0.map(\.tokens)) })
                            }, drop: { continuation.resume(throwing: $0) })
                    }
                }
            }
            for try await tokens in group { #expect(tokens == expected) }
        }
    }
}
