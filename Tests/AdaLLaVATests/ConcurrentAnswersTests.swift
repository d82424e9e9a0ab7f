import AdaImages
import Dispatch
import Foundation
import Synchronization
import Testing

@testable import AdaLLaVA

/// Answers that are computed together, against each alone.
@Suite struct ConcurrentAnswersTests {
    private static let scenes = Fixtures.models.appendingPathComponent("scenes-ref")

    /// Sixteen requests with plans, images and prompts of their own.
    private static func requests(_ model: TestModel, seed: UInt64, reuses: (Int) -> Bool = { $0 % 2 == 0 }) throws -> [EngineRequest] {
        var random = SeededGenerator(seed: seed)
        let vocabulary = model.decoder.configuration.vocabularySize, adaptive = model.loaded.parts.adaptive
        let side = model.loaded.checkpoint.configuration.vision?.imageSize
        let images = side.map { side in (0 ..< 3).map { _ in (0 ..< 3 * side * side).map { _ in Float.random(in: -2 ... 2, using: &random) } } } ?? []
        let beginning = (0 ..< 40).map { _ in Int.random(in: 3 ..< vocabulary, using: &random) }
        return (0 ..< 16).map { index in
            let count = [3, 20, 90, 33, 1, 150, 17, 64][index % 8] + index
            // Half of them begin alike, so that some are found in the cache.
            var tokens = [1] + (index % 2 == 0 ? beginning : []) + (0 ..< count).map { _ in Int.random(in: 3 ..< vocabulary, using: &random) }
            var pixels: [[Float]] = []
            if !images.isEmpty {
                for _ in 0 ..< [1, 0, 2, 1][index % 4] {
                    tokens.insert(Engine.imageToken, at: Int.random(in: 1 ... tokens.count, using: &random))
                    pixels.append(images[Int.random(in: 0 ..< 3, using: &random)])
                }
            }
            let budget = adaptive == nil ? 1 : [1, 0.5, 0.75, 0.9, 0.6][index % 5]
            var request = EngineRequest(
                tokens: tokens, images: pixels.map { EngineImage(pixels: $0) }, budget: .fraction(budget), maxTokens: [12, 1, 30, 7, 20][index % 5])
            // Draws show differences that the likeliest token hides.
            if index % 3 > 0 { (request.sampling.temperature, request.sampling.seed) = (1, UInt64(index)) }
            request.reuses = reuses(index)
            return request
        }
    }

    private static func alone(_ model: TestModel, _ request: EngineRequest) throws -> EngineResult {
        var request = request
        request.reuses = false
        return try model.run(request)
    }

    /// Steps of random tasks in random order, which enter at random and leave when they are done.
    private static func run(_ tasks: [GenerationTask], _ engine: Engine, seed: UInt64) {
        var random = SeededGenerator(seed: seed), admitted = 0
        while tasks.contains(where: { !$0.isDone }) {
            if admitted < tasks.count, Int.random(in: 0 ..< 3, using: &random) == 0 { admitted += Int.random(in: 1 ... 4, using: &random) }
            let active = tasks.prefix(min(admitted, tasks.count)).filter { !$0.isDone }
            let share = Double.random(in: 0.2 ... 1.2, using: &random)
            engine.step(active.filter { _ in Double.random(in: 0 ..< 1, using: &random) < share }.shuffled(using: &random))
        }
    }

    static let models: [(String, String)] = ["ada-L", "ada-H", "scenes"].flatMap { name in kernelSets.map { (name, $0) } }

    private static func url(_ name: String) -> URL { name == "scenes" ? scenes : Fixtures.url(name) }

    // A difference means that what one person is told depends on who else asks at the same time.
    @Test("steps give each its own tokens", arguments: models, Precision.allCases) func stepsGiveEachItsOwnTokens(model: (String, String), precision: Precision) throws {
        let model = try TestModel(Self.url(model.0), precision: precision, kernels: model.1, threads: 2)
        let requests = try Self.requests(model, seed: 5)
        let expected = try requests.map { try Self.alone(model, $0) }
        #expect(Set(expected.map(\.tokens)).count > 8 && Set(expected.map(\.plan.mask)).count > 1)
        for seed in [UInt64(1), 2] {
            let engine = try TestModel(sharing: model).engine
            let tasks = requests.map { GenerationTask($0, cancellation: Cancellation(), onToken: { _ in true }) }
            Self.run(tasks, engine, seed: seed)
            for (index, task) in tasks.enumerated() {
                let result = try #require(try task.outcome?.get())
                #expect(result.tokens == expected[index].tokens, "request \(index)")
                #expect(result.plan == expected[index].plan && result.keyValueShapes == expected[index].keyValueShapes, "request \(index)")
                #expect(result.finish == expected[index].finish && result.promptTokens == expected[index].promptTokens, "request \(index)")
            }
            // Everything but what the cache keeps was given back.
            let kept = engine.runner.pages.usedBytes
            #expect(kept <= engine.promptCache.byteCount)
            while engine.promptCache.evict() {}
        }
    }

    // A difference means that what one person is told by a text model depends on who else asks at the same time.
    @Test("a text model answers concurrent requests as it answers single ones", arguments: kernelSets, Precision.allCases) func textModels(kernels: String, precision: Precision) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            try DecoderChunkTests.write(to: folder.appendingPathComponent("model"), keyValueHeads: 2, expanded: false)
            let model = try TestModel(folder.appendingPathComponent("model"), precision: precision, kernels: kernels, threads: 2)
            let requests = try Self.requests(model, seed: 6, reuses: { _ in false })
            let expected = try requests.map { try Self.alone(model, $0) }
            let tasks = requests.map { GenerationTask($0, cancellation: Cancellation(), onToken: { _ in true }) }
            Self.run(tasks, model.engine, seed: 3)
            for (index, task) in tasks.enumerated() { #expect(try task.outcome?.get().tokens == expected[index].tokens, "request \(index)") }
            #expect(model.engine.runner.pages.usedBytes == 0)
        }
    }

    // A failure means that one bad request, or one that is cancelled, takes the answers of others with it.
    @Test("errors end their own task only", arguments: ["ada-L", "ada-H"]) func errorsEndTheirOwnTaskOnly(folder: String) throws {
        let model = try TestModel(Fixtures.url(folder), threads: 2)
        var requests = Array(try Self.requests(model, seed: 7).prefix(8))
        let expected = try requests.map { try Self.alone(model, $0) }
        let good = requests.count
        let image = EngineImage(key: ContentKey("broken")) { throw GenerationError.noVision(model: "broken") }
        let broken: [(EngineRequest, @Sendable (any Error) -> Bool)] = [
            (EngineRequest(tokens: [], images: [], budget: .full, maxTokens: 3), { $0 as? GenerationError == .emptyPrompt }),
            (EngineRequest(tokens: [1, 9999], images: [], budget: .full, maxTokens: 3), { if case .token? = $0 as? GenerationError { true } else { false } }),
            (EngineRequest(tokens: [1, -200], images: [], budget: .full, maxTokens: 3), { $0 as? GenerationError == .imageCount(marks: 1, images: 0) }),
            (EngineRequest(tokens: [1, -200], images: [image], budget: .full, maxTokens: 3), { $0 as? GenerationError == .noVision(model: "broken") }),
            (EngineRequest(tokens: [1], images: [], budget: .fraction(2), maxTokens: 3), { $0 is BudgetError }),
            (
                EngineRequest(tokens: Array(repeating: 5, count: 1 << 16), images: [], budget: .full, maxTokens: 3),
                { if case .promptTooLong? = $0 as? GenerationError { true } else { false } }
            ),
        ]
        requests += broken.map(\.0)
        var tasks = requests.map { GenerationTask($0, cancellation: Cancellation(), onToken: { _ in true }) }
        // Cancelled before the first step, and after some tokens.
        let before = Cancellation(), later = Cancellation()
        before.cancel()
        tasks.append(GenerationTask(requests[2], cancellation: before, onToken: { _ in true }))
        var count = 0
        tasks.append(
            GenerationTask(
                requests[2], cancellation: later,
                onToken: { _ in
                    count += 1
                    if count == 3 { later.cancel() }
                    return true
                }))
        Self.run(tasks, model.engine, seed: 11)
        for index in 0 ..< good { #expect(try tasks[index].outcome?.get().tokens == expected[index].tokens, "request \(index)") }
        for (task, item) in zip(tasks[good...], broken) {
            guard case .failure(let error)? = task.outcome else {
                Issue.record("\(item.0.tokens.prefix(3)) was answered")
                continue
            }
            #expect(item.1(error), "\(error)")
        }
        for task in tasks.suffix(2) { #expect(throws: CancellationError.self) { try task.outcome?.get() } }
        #expect(count == 3)
    }

    // A failure means that one conversation that needs more memory than there is takes others down that fit.
    @Test("memory ends its own task only") func memoryEndsItsOwnTaskOnly() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let page = model.decoder.layout(.f32).pageBytes(heads: 8)
        var memory = MemoryLimits()
        // Three sequences of one page in each of 8 layers fit.
        memory.keyValueBytes = 3 * 8 * page + page / 2
        let small = try TestModel(sharing: model, memory: memory)
        func request(_ seed: UInt64, _ count: Int) -> EngineRequest {
            var random = SeededGenerator(seed: seed)
            return EngineRequest(
                tokens: [1] + (0 ..< count).map { _ in Int.random(in: 3 ..< 320, using: &random) }, images: [], budget: .full, maxTokens: 10)
        }
        let requests = (0 ..< 5).map { request(UInt64($0), 40) }
        let tasks = requests.map { GenerationTask($0, cancellation: Cancellation(), onToken: { _ in true }) }
        while tasks.contains(where: { !$0.isDone }) { small.engine.step(tasks.filter { !$0.isDone }) }
        var answered = 0
        for (task, request) in zip(tasks, requests) {
            switch try #require(task.outcome) {
            case .success(let result):
                answered += 1
                #expect(result.tokens == (try Self.alone(model, request)).tokens)
            case .failure(let error):
                guard case .memory(_, let bytes, let used, let limit)? = error as? ComputeError else {
                    Issue.record("\(error)")
                    continue
                }
                #expect(bytes == page && used > 0 && used <= limit && limit == memory.keyValueBytes)
            }
        }
        #expect(answered >= 3 && answered < 5)
    }

    // A failure means that the first answers of a queue, or all of them, are not those of requests asked one by one.
    @Test("queues give each its own tokens", arguments: models, [Precision.automatic, .f32]) func queuesGiveEachItsOwnTokens(model: (String, String), precision: Precision) async throws {
        let model = try TestModel(Self.url(model.0), precision: precision, kernels: model.1, threads: 2)
        let requests = try Self.requests(model, seed: 15)
        let expected = try requests.map { try Self.alone(model, $0).tokens }
        for limit in [1, 5, 32] {
            let work = DispatchQueue(label: "queue"), handed = Handed(try TestModel(sharing: model).engine)
            let queue = AnswerQueue(handed.engine, queue: work, limit: limit)
            let found = try await withThrowingTaskGroup(of: (Int, [Int]).self) { group in
                for (index, request) in requests.enumerated() {
                    group.addTask {
                        try await Task.sleep(for: .milliseconds(index * 7 % 20))
                        return (index, try await queue.answer(request))
                    }
                }
                return try await group.reduce(into: [Int: [Int]]()) { $0[$1.0] = $1.1 }
            }
            for (index, tokens) in expected.enumerated() { #expect(found[index] == tokens, "request \(index), \(limit) at once") }
            #expect(queue.waitingCount == 0)
        }
    }

    /// Hands an engine to the only queue that uses it.
    private final class Handed: @unchecked Sendable {
        let engine: Engine
        init(_ engine: Engine) { self.engine = engine }
    }

    // A failure means that people who ask one model at the same time get each other's answers, or others than if they had waited for each other.
    @Test("models give each its own text", arguments: Precision.allCases) func modelsGiveEachItsOwnText(precision: Precision) async throws {
        var options = AdaptiveModel.Options()
        (options.threads, options.precision) = (2, precision)
        let images = try (0 ..< 4).map { try RGBImage(contentsOf: Self.scenes.appendingPathComponent(String(format: "images/%02d.png", $0)).path) }
        let questions = ["What is in the image?", "How many circles are there?", "Is there a red square?", "What is on the left?", "Hello?"]
        @Sendable func ask(_ model: AdaptiveModel, _ index: Int) async throws -> (text: String, tokens: [Int]) {
            var options = GenerationOptions()
            options.maxTokens = 24
            if index % 2 == 1 { (options.sampling.temperature, options.sampling.seed) = (1.5, UInt64(index)) }
            let question = questions[index % 5], budget = Budget.fraction([1, 0.5, 0.75, 0.9][index % 4])
            let stream = model.answer(question, images: index % 5 == 4 ? [] : [images[index % 4]], budget: budget, options: options)
            let (text, summary) = try await stream.whole()
            return (text, summary.tokens)
        }
        let model = try await AdaptiveModel(contentsOf: Self.scenes, options: options)
        var expected: [(text: String, tokens: [Int])] = []
        for index in 0 ..< 16 { expected.append(try await ask(model, index)) }
        #expect(Set(expected.map(\.tokens)).count > 6)
        for limit in [3, 32] {
            options.concurrentRequests = limit
            let other = try await AdaptiveModel(contentsOf: Self.scenes, options: options)
            let found = try await withThrowingTaskGroup(of: (Int, text: String, tokens: [Int]).self) { group in
                for index in 0 ..< 16 {
                    group.addTask {
                        try await Task.sleep(for: .milliseconds(index * 11 % 30))
                        let answer = try await ask(other, index)
                        return (index, answer.text, answer.tokens)
                    }
                }
                return try await group.reduce(into: [Int: (text: String, tokens: [Int])]()) { $0[$1.0] = ($1.text, $1.tokens) }
            }
            for (index, answer) in expected.enumerated() {
                #expect(found[index]?.tokens == answer.tokens && found[index]?.text == answer.text, "question \(index), \(limit) at once")
            }
        }
    }

    /// Blocks the engine's thread at the first token of an answer.
    private final class Gate: Sendable {
        private let started = DispatchSemaphore(value: 0), opened = DispatchSemaphore(value: 0)

        func block() {
            started.signal()
            opened.wait()
        }

        func waitUntilBlocked() async {
            await withCheckedContinuation { continuation in
                DispatchQueue.global().async {
                    self.started.wait()
                    continuation.resume()
                }
            }
        }

        func open() { opened.signal() }
    }

    // A failure means that a person who gave up keeps a place in the queue, with the images, until the answers before are done.
    @Test("cancelled requests that wait are dropped at once", .timeLimit(.minutes(1))) func cancelledRequestsThatWaitAreDroppedAtOnce() async throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let handed = Handed(model.engine), gate = Gate()
        let queue = AnswerQueue(handed.engine, queue: DispatchQueue(label: "queue"), limit: 1)
        let request = EngineRequest(tokens: [1, 5, 6], images: [], budget: .full, maxTokens: 4)
        let first = Task {
            try await queue.answer(request) { count in if count == 1 { gate.block() } }
        }
        await gate.waitUntilBlocked()
        let made = Mutex(0), dropped = Mutex<[Int]>([])
        let cancellations = (0 ..< 3).map { _ in Cancellation() }
        for (index, cancellation) in cancellations.enumerated() {
            queue.submit(
                cancellation,
                make: {
                    made.withLock { $0 += 1 }
                    return GenerationTask(request, cancellation: cancellation, onToken: { _ in true })
                },
                drop: { error in
                    #expect(error is CancellationError)
                    dropped.withLock { $0.append(index) }
                })
        }
        #expect(queue.waitingCount == 3)
        cancellations[1].cancel()
        queue.dropCancelled()
        // The first answer still blocks the engine's thread.
        #expect(dropped.withLock { $0 } == [1] && queue.waitingCount == 2 && made.withLock { $0 } == 0)
        gate.open()
        #expect(try await first.value.count == 4)
        #expect(try await queue.answer(request).count == 4)
        #expect(made.withLock { $0 } == 2 && dropped.withLock { $0 } == [1])
    }

    // A failure means that a reader who gives up before the answer began waits for the answers of others.
    @Test("readers that give up do not wait", .timeLimit(.minutes(1))) func readersThatGiveUpDoNotWait() async throws {
        var options = AdaptiveModel.Options()
        (options.threads, options.concurrentRequests) = (2, 1)
        let model = try await AdaptiveModel(contentsOf: Self.scenes, options: options)
        let gate = Gate()
        var slow = GenerationOptions()
        slow.maxTokens = 3
        slow.onProgress = { if case .answering(1, _) = $0 { gate.block() } }
        let blocking = slow
        let first = Task { try await model.answer("Hello?", options: blocking).whole().text }
        await gate.waitUntilBlocked()
        let second = Task { for try await _ in model.answer("Hello?") {} }
        while model.requests.waitingCount == 0 { try await Task.sleep(for: .milliseconds(1)) }
        second.cancel()
        await #expect(throws: CancellationError.self) { try await second.value }
        #expect(model.requests.waitingCount == 0)
        gate.open()
        _ = try await first.value
    }

    /// What happened, in order.
    private final class Events: Sendable {
        private let names = Mutex<[String]>([])

        var all: [String] { names.withLock { $0 } }

        func add(_ name: String) { names.withLock { $0.append(name) } }
    }

    // A failure means that a measurement runs while answers share its threads, or that answers wait for ever after it.
    @Test("measurements have the engine for themselves", .timeLimit(.minutes(1))) func measurementsHaveTheEngineForThemselves() async throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let handed = Handed(model.engine), gate = Gate()
        let queue = AnswerQueue(handed.engine, queue: DispatchQueue(label: "queue"), limit: 4)
        let request = EngineRequest(tokens: [1, 5, 6], images: [], budget: .full, maxTokens: 4)
        let events = Events()
        let first = Task {
            let tokens = try await queue.answer(request) { count in
                if count == 1 { gate.block() }
                events.add("token")
            }
            return tokens.count
        }
        await gate.waitUntilBlocked()
        let measuring = Task {
            try await queue.exclusively { engine in
                events.add("exclusive")
                return try engine.generate(request, cancellation: Cancellation()) { _ in true }.tokens.count
            }
        }
        try await Task.sleep(for: .milliseconds(50))
        let after = Task { try await queue.answer(request) { _ in events.add("later") }.count }
        try await Task.sleep(for: .milliseconds(20))
        gate.open()
        #expect(try await [first.value, measuring.value, after.value] == [4, 4, 4])
        #expect(events.all == Array(repeating: "token", count: 4) + ["exclusive"] + Array(repeating: "later", count: 4))
    }
}

extension AnswerQueue {
    /// The tokens of one request.
    fileprivate func answer(_ request: EngineRequest, onToken: @escaping @Sendable (Int) -> Void = { _ in }) async throws -> [Int] {
        let cancellation = Cancellation()
        return try await withCheckedThrowingContinuation { continuation in
            submit(
                cancellation,
                make: {
                    var count = 0
                    return GenerationTask(
                        request, cancellation: cancellation,
                        onToken: { _ in
                            count += 1
                            onToken(count)
                            return true
                        }, onEnd: { continuation.resume(with: $0.map(\.tokens)) })
                }, drop: { continuation.resume(throwing: $0) })
        }
    }
}
