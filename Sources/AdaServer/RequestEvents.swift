import AdaLLaVA
import Foundation
import Synchronization

/// An event of a request, which may have several answers.
enum RequestEvent: Sendable {
    /// New text of one of the answers.
    case delta(choice: Int, AnswerDelta)
    /// One of the answers is complete.
    case finished(choice: Int, AnswerSummary)
    /// Progress of encode and prefill.
    case progress(ProgressReport)
    /// No other event for as long as a stream may be silent.
    case silence
}

/// New text of an answer, and the probabilities of its tokens.
struct AnswerDelta: Sendable {
    var text = ""
    var logProbabilities: [TokenLogProbability] = []
}

/// Makes one answer within a budget.
typealias MakeAnswer = @Sendable (Budget, GenerationOptions) -> AnswerStream

/// Answers one prompt as often as the request wants, once it is admitted, and sends its events in order.
///
/// The first answer encodes the images and reads the prompt; the others begin when it has, and take both over. Cancelling the reader stops them all.
struct RequestEvents: Sendable {
    let generation: GenerationFields
    let admission: Admission
    let order: Admission.Order
    let keepsPromptEarly: Bool
    /// Reads the request's images, once it is admitted, and returns the function that makes its answers.
    let prepare: @Sendable () async throws -> MakeAnswer
    /// Called on the engine's thread whenever a layer or a token is done.
    let onWork: @Sendable () -> Void
    /// Called with the summary of each answer.
    let onAnswer: @Sendable (AnswerSummary) -> Void

    /// - Parameters:
    ///   - keepAlive: the time between events of silence; `nil` for none.
    ///   - returnsProgress: whether there are events of progress.
    func stream(keepAlive: Duration? = nil, returnsProgress: Bool = false) -> AsyncThrowingStream<RequestEvent, any Error> {
        AsyncThrowingStream { continuation in
            let task = Task {
                do {
                    try await run(keepAlive, returnsProgress) { continuation.yield($0) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    private func run(_ keepAlive: Duration?, _ returnsProgress: Bool, _ tell: @escaping @Sendable (RequestEvent) -> Void) async throws {
        try await withThrowingTaskGroup(of: Bool.self) { group in
            if let keepAlive {
                group.addTask {
                    while true {
                        try await Task.sleep(for: keepAlive)
                        tell(.silence)
                    }
                }
            }
            let lease = try await admission.lease(order, slots: generation.choices)
            defer { lease.end() }
            // A deadline may have passed meanwhile.
            _ = try generation.budget()
            let answer = try await prepare()
            let (prompt, isRead) = AsyncStream<Void>.makeStream()
            let progress = ProgressState()
            for choice in 0 ..< generation.choices {
                // Until the first has read the prompt, or failed.
                if choice == 1 { for await _ in prompt {} }
                var options = generation.options
                if choice > 0 { options.sampling.seed = options.sampling.seed.map { $0 &+ UInt64(choice) } }
                options.priority = generation.priority
                if returnsProgress { options.onPrediction = { progress.predict($0) } }
                options.keepsPromptEarly = keepsPromptEarly || generation.choices > 1 && choice == 0
                options.onProgress = { [onWork] news in
                    onWork()
                    if case .answering = news { isRead.finish() } else if returnsProgress, progress.admits(news) { tell(.progress(progress.report(news))) }
                }
                let stream = answer(try generation.budget(), options)
                group.addTask {
                    defer { isRead.finish() }
                    // Probabilities come before the text of their tokens.
                    var delta = AnswerDelta()
                    for try await event in stream {
                        switch event {
                        case .logProbabilities(let new): delta.logProbabilities += new
                        case .text(let new):
                            delta.text = new
                            tell(.delta(choice: choice, delta))
                            delta = AnswerDelta()
                        case .finished(let summary):
                            onAnswer(summary)
                            admission.count(promptTokens: choice == 0 ? summary.promptTokens : 0, answerTokens: summary.tokens.count, client: order.client)
                            if !delta.logProbabilities.isEmpty { tell(.delta(choice: choice, delta)) }
                            tell(.finished(choice: choice, summary))
                        }
                    }
                    return true
                }
            }
            var left = generation.choices
            while left > 0, let isAnswer = try await group.next() { if isAnswer { left -= 1 } }
            group.cancelAll()
        }
    }
}

/// Passes the first and the last report of each phase, and one per tenth of a second between, with the latest prediction.
private final class ProgressState: Sendable {
    private enum Phase: Equatable { case encoding(image: Int), selecting(image: Int), reading, answering }
    private let last = Mutex<(phase: Phase, time: ContinuousClock.Instant)?>(nil)
    private let predicted = Mutex<PhaseTimes?>(nil)
    /// Time of the call, from which predictions count.
    private let asked = Date()

    func predict(_ times: PhaseTimes) { predicted.withLock { $0 = times } }

    func report(_ progress: GenerationProgress) -> ProgressReport { ProgressReport(progress, predicted.withLock { $0 }, asked: asked) }

    func admits(_ progress: GenerationProgress) -> Bool {
        let (phase, isEnd): (Phase, Bool) = switch progress {
        case .encoding(let image, _, let layer, let layers): (.encoding(image: image), layer >= layers)
        case .selecting(let image, _, let done, let total): (.selecting(image: image), done >= total)
        case .reading(let done, let total): (.reading, done >= total)
        case .answering: (.answering, false)
        }
        return last.withLock { last in
            let now = ContinuousClock.now
            if !isEnd, let last, last.phase == phase, now - last.time < .milliseconds(100) { return false }
            last = (phase, now)
            return true
        }
    }
}
