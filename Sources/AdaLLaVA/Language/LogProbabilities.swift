import AdaKernels
import Foundation

/// A token with its logarithmic probability among all of the vocabulary.
package struct TokenProbability: Sendable, Equatable {
    package let token: Int
    package let logProbability: Double
}

/// Log-probabilities of one step, from the logits as the model gives them: before penalties, temperature and filters.
struct LogProbabilities {
    private let logits: [Float]
    /// The logarithm of the sum of all exponentials.
    private let normalizer: Double

    /// - Parameter logits: `[1, vocabulary]`; copied, since penalties overwrite them.
    init(_ logits: Tensor, _ kernels: ak_kernels) {
        self.logits = Array(UnsafeBufferPointer(start: logits.data, count: logits.columns))
        let best = self.logits.max() ?? 0
        normalizer = Double(best) + log(kernels.exp_sum(logits.data, Int32(logits.columns), best, 1))
    }

    subscript(token: Int) -> TokenProbability {
        TokenProbability(token: token, logProbability: Double(logits[token]) - normalizer)
    }

    /// The most likely tokens, the likeliest first; the first index wins a tie.
    func top(_ count: Int) -> [TokenProbability] {
        guard count > 0 else { return [] }
        var best: [Int] = []
        for token in logits.indices where best.count < count || logits[token] > logits[best[best.count - 1]] {
            let place = best.firstIndex { logits[token] > logits[$0] } ?? best.count
            best.insert(token, at: place)
            if best.count > count { best.removeLast() }
        }
        return best.map { self[$0] }
    }
}

/// Says which tokens may come next in one answer, as grammars do. Used on the engine's thread only.
package protocol TokenFilter: AnyObject {
    /// Sets the logits of tokens that may not come next to minus infinity.
    /// - Parameter logits: one for each token of the vocabulary.
    /// - Throws: if none may, which ends the answer with this error.
    func mask(_ logits: UnsafeMutableBufferPointer<Float>) throws
    /// The next token was chosen.
    func accept(_ token: Int)
}
