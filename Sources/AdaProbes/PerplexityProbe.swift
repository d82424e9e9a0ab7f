import AdaLLaVA
import Foundation

/// How well a model predicts a text.
package struct TextSurprise: Sendable, Equatable {
    /// Tokens that were predicted.
    package internal(set) var tokens = 0
    /// The sum of −ln p of each.
    package internal(set) var nats = 0.0

    package init() {}

    /// e to the mean of −ln p.
    package var perplexity: Double { exp(nats / Double(max(tokens, 1))) }
}

extension AdaptiveModel {
    /// Predicts each token of a text from those before it, all layers run, without an image or a latency token.
    ///
    /// Windows of `context` tokens overlap by half, and each predicts its second half, so that half a window comes before every predicted token.
    /// - Parameters:
    ///   - context: tokens of a window, 2 or more.
    ///   - singly: predicts as answers are generated, one row a step; otherwise as prompts are read.
    ///   - limit: of predicted tokens.
    ///   - onProgress: called with the number of predicted tokens, on the model's queue.
    /// - Throws: ``GenerationError``, ``ComputeError``, `CancellationError`
    package func surprise(
        of tokens: [Int], context: Int, singly: Bool = false, limit: Int = .max, onProgress: @escaping @Sendable (Int) -> Void = { _ in }
    ) async throws -> TextSurprise {
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await requests.exclusively { engine in
                var result = TextSurprise()
                let half = context / 2
                for start in stride(from: 0, to: tokens.count - half, by: half) where result.tokens < limit {
                    let window = Array(tokens[start ..< min(start + context, tokens.count)])
                    try TextWindow(window, engine).predict(from: half, singly: singly, limit: limit - result.tokens) {
                        try cancellation.check()
                        result.tokens += 1
                        result.nats += $0
                    }
                    onProgress(result.tokens)
                }
                return result
            }
        } onCancel: {
            cancellation.cancel()
        }
    }
}

/// A sequence that reads a text instead of generating one.
private final class TextWindow {
    private let tokens: [Int], engine: Engine, sequence: TokenSequence

    init(_ tokens: [Int], _ engine: Engine) throws {
        try engine.parts.check(prompt: tokens)
        (self.tokens, self.engine) = (tokens, engine)
        sequence = TokenSequence(engine.parts.decoder)
        sequence.promptLength = tokens.count
    }

    /// - Parameter each: called with −ln p of every token from `first` on.
    func predict(from first: Int, singly: Bool, limit: Int, _ each: (Double) throws -> Void) throws {
        let end = min(tokens.count, first + limit)
        // The row of the token before predicts a token.
        try read(0 ..< first - 1, chunk: BatchRunner.chunk) { _, _ in }
        try read(first - 1 ..< end - 1, chunk: singly ? 1 : 128) { logits, row in try each(surprise(logits, tokens[row + 1])) }
    }

    /// - Parameter each: called with the logits of each row.
    private func read(_ rows: Range<Int>, chunk: Int, _ each: (Tensor, Int) throws -> Void) throws {
        let decoder = engine.parts.decoder
        for start in stride(from: rows.lowerBound, to: rows.upperBound, by: chunk) {
            let part = start ..< min(start + chunk, rows.upperBound)
            let hidden = Tensor(rows: part.count, columns: decoder.configuration.hiddenSize)
            for row in part { try decoder.embed(tokens[row], into: hidden, row: row - start) }
            let output = try engine.runner.step([
                BatchSegment(
                    sequence: sequence, role: chunk == 1 ? .single : .chunk, position: start, slot: start, layers: 0 ..< decoder.configuration.numHiddenLayers,
                    input: .hidden(hidden), logitRows: chunk == BatchRunner.chunk ? 0 : part.count)
            ])
            guard let logits = output.logits else { continue }
            for row in part { try each(logits.rows(row - start ..< row - start + 1), row) }
        }
    }

    /// −ln p of a token.
    private func surprise(_ logits: Tensor, _ token: Int) -> Double {
        let largest = logits.data[Int(engine.workspace.kernels.table.argmax(logits.data, Int32(logits.columns)))]
        let sum = engine.workspace.kernels.table.exp_sum(logits.data, Int32(logits.columns), largest, 1)
        return Double(largest) + log(sum) - Double(logits.data[token])
    }
}
