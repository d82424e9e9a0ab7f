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
