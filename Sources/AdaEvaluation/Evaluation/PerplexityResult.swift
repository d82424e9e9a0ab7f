import Foundation

/// How well a model predicts a text: the result of `perplexity`.
package struct PerplexityResult: Codable, Sendable {
    /// One way to store keys and values.
    package struct Entry: Codable, Sendable {
        package var kvType: String
        package var perplexity: Double

        package init(kvType: String, perplexity: Double) { (self.kvType, self.perplexity) = (kvType, perplexity) }

        enum CodingKeys: String, CodingKey {
            case perplexity
            case kvType = "kv_type"
        }
    }

    package var model: String
    package var kernels: String
    /// Tokens that were predicted.
    package var tokens: Int
    /// Tokens of a window.
    package var context: Int
    /// Whether they were predicted one a step, as answers are generated.
    package var singly: Bool
    package var results: [Entry] = []

    package init(model: String, kernels: String, tokens: Int, context: Int, singly: Bool) {
        (self.model, self.kernels, self.tokens, self.context, self.singly) = (model, kernels, tokens, context, singly)
    }

    /// Lines for people; from the second result on with the difference from the first.
    package var lines: [String] {
        ["\(model), \(kernels): \(tokens) tokens, windows of \(context), \(singly ? "one token a step" : "as prompts are read")"]
            + results.map { entry in
                let difference = results.first.flatMap { $0.kvType == entry.kvType ? nil : String(format: " (%+.3f %%)", 100 * (entry.perplexity / $0.perplexity - 1)) }
                return String(format: "perplexity %.4f, keys and values ", entry.perplexity) + entry.kvType + (difference ?? "")
            }
    }
}
