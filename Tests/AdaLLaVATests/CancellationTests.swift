import AdaImages
import Dispatch
import Foundation
import Synchronization
import Testing

@testable import AdaLLaVA

/// Cancels a task from inside a callback of the work it waits for, so that what runs afterwards can be counted instead of timed.
private final class Canceller: Sendable {
    private let cancel = Mutex<(@Sendable () -> Void)?>(nil)
    private let isReady = DispatchSemaphore(value: 0)
    private let hasEnded = DispatchSemaphore(value: 0)
    private let calls = Mutex(0)

    /// Callbacks that came in all.
    var count: Int { calls.withLock { $0 } }

    /// Counts a callback; the `limit`-th one cancels the task.
    /// - Parameter waits: return only when the task has noticed.
    func callback(cancelsAt limit: Int, waits: Bool = false) {
        let count = calls.withLock {
            $0 += 1
            return $0
        }
        guard count == limit else { return }
        isReady.wait()
        cancel.withLock { $0 }?()
        if waits { hasEnded.wait() }
    }

    /// Runs `body` as the task to cancel.
    func run<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
        let task = Task {
            defer { hasEnded.signal() }
            return try await body()
        }
        cancel.withLock { $0 = { task.cancel() } }
        isReady.signal()
        return try await task.value
    }
}

/// Cancelling work stops it within one token or one layer, and leaves the model ready for the next request.
@Suite(.serialized, .timeLimit(.minutes(5))) struct CancellationTests {
    private static let url = Fixtures.models.appendingPathComponent("scenes-ref")

    private func image() throws -> RGBImage { try RGBImage(contentsOf: Self.url.appendingPathComponent("images/00.png").path) }

    /// A greedy answer to a fixed question, to see that the model still gives it.
    private func check(_ model: AdaptiveModel) async throws {
        struct Cases: Decodable {
            struct Case: Decodable {
                let image: String
                let question: String
                let budget: Double
                let generatedText: String
            }
            let cases: [Case]
        }
        let cases: Cases = try Fixtures.json(Self.url.appendingPathComponent("cases.json"))
        for item in cases.cases where item.image == "images/00.png" {
            let text = try await model.answer(item.question, image: try image(), budget: .fraction(item.budget)).whole().text
            #expect(text == item.generatedText)
        }
    }

    /// The whole prompt of a text request that is answered with as many tokens as allowed.
    private static func longAnswer(_ canceller: Canceller, cancelsAt limit: Int) -> GenerationOptions {
        var options = GenerationOptions()
        (options.maxTokens, options.sampling.temperature, options.sampling.seed) = (400, 50, 1)
        options.onProgress = { progress in
            if case .answering = progress { canceller.callback(cancelsAt: limit, waits: true) }
        }
        return options
    }

    // A failure means that tokens are computed for nobody, or that the reader takes half an answer for a whole one.
    @Test("a cancelled decode stops within one token") func decode() async throws {
        let model = try await AdaptiveModel(contentsOf: Self.url)
        let canceller = Canceller()
        let options = Self.longAnswer(canceller, cancelsAt: 5)
        await #expect(throws: CancellationError.self) {
            try await canceller.run {
                for try await event in model.answer("Hello?", options: options) {
                    if case .finished = event { Issue.record("a cancelled answer has a summary") }
                }
            }
        }
        // The next request waits for the one before it, so all that still ran has been counted.
        try await check(model)
        #expect((5 ... 6).contains(canceller.count))
    }

    // A failure means that a long prompt is read to its end for nobody.
    @Test("a cancelled prefill stops within one layer", arguments: [1, 4, 7]) func prefill(layer: Int) async throws {
        let model = try await AdaptiveModel(contentsOf: Self.url)
        let canceller = Canceller()
        await #expect(throws: CancellationError.self) {
            _ = try await canceller.run {
                try await model.trace(
                    tokens: Array(repeating: 7, count: 300), images: [], budget: .fraction(0.9), maxTokens: 5,
                    onProgress: { if case .reading = $0 { canceller.callback(cancelsAt: layer) } })
            }
        }
        try await check(model)
        #expect((layer ... layer + 1).contains(canceller.count))
    }

    // A failure means that the vision tower runs to its end for nobody, or that the prompt is read after it.
    @Test("a cancelled encode stops within one layer", arguments: [1, 3]) func encode(layer: Int) async throws {
        let model = try await AdaptiveModel(contentsOf: Self.url)
        let canceller = Canceller()
        let image = try image()
        await #expect(throws: CancellationError.self) {
            _ = try await canceller.run {
                try await model.trace(
                    tokens: [1, -200, -200, 5], images: [image, image], budget: .full, maxTokens: 5,
                    onProgress: { _ in canceller.callback(cancelsAt: layer) })
            }
        }
        try await check(model)
        #expect((layer ... layer + 1).contains(canceller.count))
    }

    // A failure means that a model is loaded to its end for nobody.
    @Test("cancelled loading stops within one layer", arguments: [1, 3, 9]) func loading(layer: Int) async throws {
        let canceller = Canceller()
        await #expect(throws: CancellationError.self) {
            _ = try await canceller.run {
                try await AdaptiveModel(contentsOf: Self.url, onProgress: { _ in canceller.callback(cancelsAt: layer) })
            }
        }
        #expect((layer ... layer + 1).contains(canceller.count))
    }

    // A failure means that work begins for a task that was cancelled before it.
    @Test("nothing runs for a task that was cancelled before") func cancelledBefore() async throws {
        let model = try await AdaptiveModel(contentsOf: Self.url)
        let calls = Mutex(0)
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            await #expect(throws: CancellationError.self) {
                _ = try await AdaptiveModel(contentsOf: Self.url, onProgress: { _ in Issue.record("a layer was loaded") })
            }
            await #expect(throws: CancellationError.self) {
                _ = try await model.trace(
                    tokens: [1, 2], images: [], budget: .full, maxTokens: 1, onProgress: { _ in calls.withLock { $0 += 1 } })
            }
            await #expect(throws: CancellationError.self) {
                for try await _ in model.answer("Hello?") {}
            }
        }
        await task.value
        #expect(calls.withLock { $0 } == 0)
        try await check(model)
    }

    // A failure means that an answer which its reader leaves is computed to its end, while other requests wait.
    @Test("an answer whose reader leaves is not computed further") func abandonedStream() async throws {
        let model = try await AdaptiveModel(contentsOf: Self.url)
        let count = Mutex(0)
        let left = DispatchSemaphore(value: 0)
        var options = GenerationOptions()
        (options.maxTokens, options.sampling.temperature, options.sampling.seed) = (400, 50, 1)
        options.onProgress = { progress in
            guard case .answering(let done, _) = progress else { return }
            count.withLock { $0 = done }
            // By the tenth token a reader that wanted one text is gone.
            if done == 10 { left.wait() }
        }
        func readOneText() async throws {
            for try await event in model.answer("Hello?", options: options) { if case .text = event { return } }
        }
        try await readOneText()
        left.signal()
        try await check(model)
        #expect(count.withLock { $0 } <= 11)
    }

    // A failure means that a request which was cancelled while it waited for its turn runs all the same.
    @Test("a request that is cancelled while it waits never runs") func waitingRequest() async throws {
        let model = try await AdaptiveModel(contentsOf: Self.url)
        let (started, mayGoOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        let calls = Mutex(0)
        var first = GenerationOptions()
        first.maxTokens = 3
        first.onProgress = { progress in
            if case .answering(1, _) = progress {
                started.signal()
                mayGoOn.wait()
            }
        }
        let options = first
        let running = Task { try await model.answer("Hello?", options: options).whole().summary.tokens.count }
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                started.wait()
                continuation.resume()
            }
        }
        let waiting = Task {
            _ = try await model.trace(
                tokens: [1, 2], images: [], budget: .full, maxTokens: 1, onProgress: { _ in calls.withLock { $0 += 1 } })
        }
        waiting.cancel()
        mayGoOn.signal()
        #expect(try await running.value > 0)
        await #expect(throws: CancellationError.self) { try await waiting.value }
        #expect(calls.withLock { $0 } == 0)
    }
}
