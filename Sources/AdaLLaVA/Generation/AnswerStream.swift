/// An answer while it is generated: text, then a summary.
///
///     for try await event in model.answer("What is on the left?", image: image) {
///         switch event {
///         case .text(let text): print(text, terminator: "")
///         case .finished(let summary): print("\n\(summary.measured.whole)")
///         default: break
///         }
///     }
///
/// A stream has one reader, and is read once. Cancelling the reading task, or dropping the stream, stops the computation within one token or one layer. A
/// cancelled reader gets `CancellationError`, never the end of a complete answer.
public struct AnswerStream: AsyncSequence, Sendable {
    private let events: AsyncThrowingStream<AnswerEvent, any Error>

    init(_ events: AsyncThrowingStream<AnswerEvent, any Error>) { self.events = events }

    /// Starts reading.
    public func makeAsyncIterator() -> Iterator { Iterator(events: events.makeAsyncIterator()) }

    /// Waits for the complete answer.
    /// - Throws: as ``Iterator/next()``.
    public func whole() async throws -> (text: String, summary: AnswerSummary) {
        var text = "", summary: AnswerSummary?
        for try await event in self {
            switch event {
            case .text(let new): text += new
            case .logProbabilities: break
            case .finished(let result): summary = result
            }
        }
        // A stream that ends without an error has sent its summary.
        guard let summary else { throw CancellationError() }
        return (text, summary)
    }

    /// Reads the events in order.
    public struct Iterator: AsyncIteratorProtocol {
        fileprivate var events: AsyncThrowingStream<AnswerEvent, any Error>.Iterator

        /// The next event; `nil` after ``AnswerEvent/finished(_:)``.
        /// - Throws: ``BudgetError``, another ``AdaLLaVAError``, or `CancellationError`.
        public mutating func next() async throws -> AnswerEvent? {
            let event = try await events.next()
            // `AsyncThrowingStream` ends without an error when its reader is cancelled.
            if event == nil { try Task.checkCancellation() }
            return event
        }
    }
}

/// Joins the texts of tokens that come in quick succession: a reader who is woken takes a processor from the threads that compute, 2 to 3 % of the
/// time at 230 tokens a second, and sees no difference. Slower models send every token's text at once.
struct JoinedText {
    /// Text waits for the next token if that one is expected sooner than this after the last piece.
    static let interval = Duration.milliseconds(15)
    private var held = ""
    private var sent: ContinuousClock.Instant?
    private var newest: ContinuousClock.Instant?

    /// - Returns: text that is sent now; empty if none is.
    mutating func add(_ text: String, at now: ContinuousClock.Instant) -> String {
        held += text
        // The next token is expected after as long as this one took.
        let next = newest.map { now + (now - $0) }
        newest = now
        if held.isEmpty { return "" }
        if let sent, let next, next - sent < JoinedText.interval { return "" }
        sent = now
        return rest()
    }

    /// Text that has not been sent.
    mutating func rest() -> String {
        defer { held = "" }
        return held
    }
}
