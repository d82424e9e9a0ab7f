import AdaKernels
import Foundation

/// How the next token is chosen from the logits.
public struct SamplingOptions: Sendable, Equatable {
    /// 0 takes the most likely token (greedy, deterministic); above 0, logits are divided by it.
    public var temperature: Double = 0
    /// Keep the `topK` most likely tokens; 0 keeps all.
    public var topK: Int = 0
    /// Keep the smallest set of tokens whose probabilities reach this sum; 1 keeps all (Holtzman et al., 2020).
    public var topP: Double = 1
    /// Keep tokens at least this times as likely as the most likely one; 0 keeps all.
    public var minP: Double = 0
    /// Divides positive and multiplies negative logits of tokens that occurred (Keskar et al., 2019); 1 does nothing.
    public var repetitionPenalty: Double = 1
    /// The same seed gives the same answer on the same machine; `nil` draws one.
    public var seed: UInt64?

    /// Greedy.
    public init() {}

    /// - Throws: ``SamplingError`` when a value is out of range.
    func validate() throws {
        func check(_ name: String, _ value: Double, _ expected: String, _ valid: Bool) throws {
            if !valid || !value.isFinite { throw SamplingError(option: name, expected: expected, found: value) }
        }
        try check("temperature", temperature, "0 or more", temperature >= 0)
        try check("top-k", Double(topK), "0 (all) or more", topK >= 0)
        try check("top-p", topP, "above 0 and at most 1", topP > 0 && topP <= 1)
        try check("min-p", minP, "between 0 and 1", minP >= 0 && minP <= 1)
        // Beyond these a penalized logit can overflow, which would look like damaged weights.
        try check("repetition-penalty", repetitionPenalty, "from 0.001 to 1000", repetitionPenalty >= 0.001 && repetitionPenalty <= 1000)
    }
}

/// A sampling option that is out of range.
package struct SamplingError: AdaLLaVAError, Equatable {
    /// The option, as the command line names it.
    package let option: String
    /// The values it takes, in words.
    package let expected: String
    /// The value it was given.
    package let found: Double
    package var category: ErrorCategory { .usage }
    package var description: String { "\(option): expected \(expected), found \(String(format: "%g", found))" }
}

/// Chooses tokens in the order that Hugging Face's generation uses: repetition penalty, temperature, top-k, top-p, min-p, draw.
///
/// A draw ranks only as many of the likeliest tokens as it needs. One pass over the logits finds the largest of each group of 64; the k-th
/// largest of those is a threshold that at least k logits reach, and little more, and only these are looked at and sorted.
struct Sampler {
    private let options: SamplingOptions
    private var random: SplitMix64
    private var seen: Set<Int>
    // As long as the vocabulary and its groups, kept from token to token.
    private var indices: [Int32] = []
    private var maxima: [Float] = []
    private var scratch: [Float] = []
    private var ranked: [Candidate] = []

    private struct Candidate {
        let token: Int
        let logit: Float
        /// How likely beside the likeliest token, 0 … 1.
        var weight: Double
    }

    /// - Parameter prompt: tokens that the repetition penalty counts as seen.
    init(_ options: SamplingOptions, prompt: [Int]) {
        self.options = options
        random = SplitMix64(seed: options.seed ?? UInt64.random(in: 0 ... .max))
        seen = options.repetitionPenalty == 1 ? [] : Set(prompt)
    }

    /// Goes on as another sampler of the same options will.
    mutating func follow(_ other: Sampler) {
        random = other.random
        if options.repetitionPenalty != 1 { seen = other.seen }
    }

    /// The next token.
    /// - Parameter logits: `[1, vocabulary]`; overwritten when a penalty applies.
    mutating func next(_ logits: Tensor, _ kernels: ak_kernels) -> Int {
        let values = UnsafeMutableBufferPointer(start: logits.data, count: logits.columns)
        if options.repetitionPenalty != 1 {
            let penalty = Float(options.repetitionPenalty)
            for token in seen where values.indices.contains(token) {
                values[token] = values[token] > 0 ? values[token] / penalty : values[token] * penalty
            }
        }
        let token =
            options.temperature == 0
            ? Int(kernels.argmax(logits.data, Int32(logits.columns))) : draw(UnsafePointer(logits.data), logits.columns, kernels)
        if options.repetitionPenalty != 1 { seen.insert(token) }
        return token
    }

    private mutating func draw(_ logits: UnsafePointer<Float>, _ vocabulary: Int, _ kernels: ak_kernels) -> Int {
        let groups = (vocabulary + Int(AK_LOGIT_GROUP) - 1) / Int(AK_LOGIT_GROUP)
        if indices.count != vocabulary {
            indices = [Int32](repeating: 0, count: vocabulary)
            (maxima, scratch) = ([Float](repeating: 0, count: groups), [Float](repeating: 0, count: groups))
        }
        kernels.group_maxima(&maxima, logits, Int32(vocabulary))
        let limit = options.topK > 0 ? min(options.topK, vocabulary) : vocabulary
        let scale = Float(1 / options.temperature)
        // Without top-k the whole vocabulary takes part, but a draw hardly ever gets further than this. Where the temperature is so low that
        // its inverse overflows, the weights of all are made one by one.
        rank(options.topK > 0 || !scale.isFinite ? limit : min(64, limit), logits, vocabulary, kernels)
        guard let best = ranked.first, best.logit.isFinite else { return ranked.first?.token ?? 0 }
        let ranksAll = options.topK > 0 || !scale.isFinite
        let total = ranksAll ? ranked.reduce(0) { $0 + $1.weight } : kernels.exp_sum(logits, Int32(vocabulary), best.logit, scale)

        /// Ranks eight times as many, if there are more.
        func extend(_ sampler: inout Sampler) -> Bool {
            let count = sampler.ranked.count
            if ranksAll || count >= limit { return false }
            sampler.rank(min(8 * count, limit), logits, vocabulary, kernels)
            return sampler.ranked.count > count
        }
        var (kept, weight) = (Int.max, total)
        if options.topP < 1 || options.minP > 0 {
            (kept, weight) = (0, 0)
            while kept < ranked.count || extend(&self) {
                let next = ranked[kept].weight
                if kept > 0, (options.topP < 1 && weight >= options.topP * total) || next < options.minP { break }
                weight += next
                kept += 1
            }
        }
        var target = random.unit() * weight
        var position = 0
        while position < kept, position < ranked.count || extend(&self) {
            target -= ranked[position].weight
            if target < 0 { return ranked[position].token }
            position += 1
        }
        return ranked[max(position - 1, 0)].token
    }

    /// Makes `ranked` the `count` likeliest tokens, or all if there are fewer, the likeliest first. The first index wins a tie, so that the order
    /// of equal logits does not depend on the sort.
    private mutating func rank(_ count: Int, _ logits: UnsafePointer<Float>, _ vocabulary: Int, _ kernels: ak_kernels) {
        var threshold = -Float.infinity
        if count <= maxima.count {
            scratch.withUnsafeMutableBufferPointer { scratch in
                for (index, value) in maxima.enumerated() { scratch[index] = value }
            }
            threshold = ak_kth_largest(&scratch, Int32(maxima.count), Int32(count))
        }
        let found = Int(kernels.at_least(&indices, logits, Int32(vocabulary), maxima, threshold))
        ranked.removeAll(keepingCapacity: true)
        for index in indices[..<found] { ranked.append(Candidate(token: Int(index), logit: logits[Int(index)], weight: 0)) }
        ranked.sort { $0.logit != $1.logit ? $0.logit > $1.logit : $0.token < $1.token }
        if ranked.count > count { ranked.removeLast(ranked.count - count) }
        guard let best = ranked.first?.logit, best.isFinite else { return }
        // The difference before the division: a logit over a tiny temperature is infinite, whichever it is.
        for index in ranked.indices {
            ranked[index].weight = Double(Float(exp(Double(ranked[index].logit - best) / options.temperature)))
        }
    }
}
