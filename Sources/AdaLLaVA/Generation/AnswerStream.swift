/// An answer while it grows: pieces of text, the last of which carries the summary.
///
///     for try await piece in model.answer("What is on the left?", image: image) { print(piece.text, terminator: "") }
///
/// One reader, once. Cancelling the reading task, or dropping the stream, stops the work behind it within one token or one layer. A
/// cancelled reader gets `CancellationError`, never an end that looks like a whole answer's.
public struct AnswerStream: AsyncSequence, Sendable {
    /// What the stream gives.
    public typealias Element = AnswerPiece

    private let pieces: AsyncThrowingStream<AnswerPiece, any Error>

    init(_ pieces: AsyncThrowingStream<AnswerPiece, any Error>) { self.pieces = pieces }

    /// Starts reading.
    public func makeAsyncIterator() -> Iterator { Iterator(pieces: pieces.makeAsyncIterator()) }

    /// Reads the pieces in order.
    public struct Iterator: AsyncIteratorProtocol {
        fileprivate var pieces: AsyncThrowingStream<AnswerPiece, any Error>.Iterator

        /// The next piece; `nil` after the summary.
        /// - Throws: ``BudgetError``, ``GenerationError``, ``SamplingError``, `CancellationError`.
        public mutating func next() async throws -> AnswerPiece? {
            let piece = try await pieces.next()
            // Swift's own stream just ends when its reader is cancelled.
            if piece == nil { try Task.checkCancellation() }
            return piece
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

    /// - Returns: what is sent now; empty if nothing is.
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

    /// What has not been sent.
    mutating func rest() -> String {
        defer { held = "" }
        return held
    }
}
