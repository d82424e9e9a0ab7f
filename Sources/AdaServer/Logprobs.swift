import AdaLLaVA

/// Log-probabilities of an answer's tokens in the form of OpenAI's chat answers.
struct ChatLogprobs: Encodable, Sendable {
    struct Candidate: Encodable, Sendable {
        let token: String
        let logprob: Double
        let bytes: [UInt8]

        init(_ candidate: TokenLogProbability.Candidate) {
            token = candidate.text
            logprob = candidate.writtenLogProbability
            bytes = candidate.bytes
        }
    }

    struct Token: Encodable, Sendable {
        let token: String
        let logprob: Double
        let bytes: [UInt8]
        let topLogprobs: [Candidate]

        init(_ item: TokenLogProbability) {
            let chosen = Candidate(item.chosen)
            (token, logprob, bytes) = (chosen.token, chosen.logprob, chosen.bytes)
            topLogprobs = item.likeliest.map(Candidate.init)
        }
    }

    let content: [Token]
    let refusal = Nullable<String>(nil)

    /// - Returns: `nil` if there are none.
    init?(_ items: [TokenLogProbability]) {
        if items.isEmpty { return nil }
        content = items.map(Token.init)
    }
}

/// The same in the form of completions.
struct CompletionLogprobs: Encodable, Sendable {
    let tokens: [String]
    let tokenLogprobs: [Double]
    let topLogprobs: [[String: Double]]
    let textOffset: [Int]

    /// - Returns: `nil` if there are none.
    init?(_ items: [TokenLogProbability]) {
        if items.isEmpty { return nil }
        tokens = items.map(\.chosen.text)
        tokenLogprobs = items.map(\.chosen.writtenLogProbability)
        topLogprobs = items.map { item in
            Dictionary((item.likeliest + [item.chosen]).map { ($0.text, $0.writtenLogProbability) }, uniquingKeysWith: max)
        }
        var offsets: [Int] = [], offset = 0
        for token in tokens {
            offsets.append(offset)
            offset += token.unicodeScalars.count
        }
        textOffset = offsets
    }
}

extension TokenLogProbability.Candidate {
    fileprivate var text: String { String(decoding: bytes, as: UTF8.self) }

    /// JSON has no infinity; vLLM writes this for tokens that cannot be chosen.
    fileprivate var writtenLogProbability: Double { logProbability.isFinite ? logProbability : -9999 }
}
