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
        try check("repetition-penalty", repetitionPenalty, "above 0 and at most 1000", repetitionPenalty > 0 && repetitionPenalty <= 1000)
    }
}

/// A sampling option that is out of range.
public struct SamplingError: EngineError, Equatable {
    /// The option, as the command line names it.
    public let option: String
    /// The values it takes, in words.
    public let expected: String
    /// The value it was given.
    public let found: Double
    public var category: ErrorCategory { .usage }
    public var description: String { "\(option): expected \(expected), found \(String(format: "%g", found))" }
}

/// Chooses tokens in the order that Hugging Face's generation uses: repetition penalty, temperature, top-k, top-p, min-p, draw.
struct Sampler {
    private let options: SamplingOptions
    private var random: SplitMix64
    private var seen: Set<Int>

    /// - Parameter prompt: tokens that the repetition penalty counts as seen.
    init(_ options: SamplingOptions, prompt: [Int]) {
        self.options = options
        random = SplitMix64(seed: options.seed ?? UInt64.random(in: 0 ... .max))
        seen = options.repetitionPenalty == 1 ? [] : Set(prompt)
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
        let token = options.temperature == 0 ? Int(kernels.argmax(logits.data, Int32(logits.columns))) : draw(values)
        if options.repetitionPenalty != 1 { seen.insert(token) }
        return token
    }

    private mutating func draw(_ logits: UnsafeMutableBufferPointer<Float>) -> Int {
        var candidates = logits.enumerated().compactMap { $1.isNaN ? nil : (token: $0, weight: $1) }
        // The first index wins a tie, so that the order of equal logits does not depend on the sort.
        func more(_ a: (token: Int, weight: Float), _ b: (token: Int, weight: Float)) -> Bool {
            a.weight != b.weight ? a.weight > b.weight : a.token < b.token
        }
        if options.topK > 0, options.topK < candidates.count {
            candidates = Sampler.largest(options.topK, of: candidates, by: more)
        }
        candidates.sort(by: more)
        guard let best = candidates.first, best.weight.isFinite else { return candidates.first?.token ?? 0 }
        // The difference before the division: a logit over a tiny temperature is infinite, whichever it is.
        for index in candidates.indices {
            candidates[index].weight = Float(exp(Double(candidates[index].weight - best.weight) / options.temperature))
        }
        if options.topP < 1 {
            let total = candidates.reduce(0) { $0 + Double($1.weight) }
            var sum = 0.0
            var count = 0
            while count < candidates.count, sum < options.topP * total {
                sum += Double(candidates[count].weight)
                count += 1
            }
            candidates.removeLast(candidates.count - max(count, 1))
        }
        if options.minP > 0 { candidates = candidates.filter { Double($0.weight) >= options.minP } }
        let total = candidates.reduce(0) { $0 + Double($1.weight) }
        var target = random.unit() * total
        for candidate in candidates {
            target -= Double(candidate.weight)
            if target < 0 { return candidate.token }
        }
        return candidates.last?.token ?? best.token
    }

    /// The `count` largest elements in one pass with a small sorted list; for the few hundred that top-k keeps, cheaper than sorting all.
    private static func largest<Element>(_ count: Int, of elements: [Element], by more: (Element, Element) -> Bool) -> [Element] {
        if count > 256 { return Array(elements.sorted(by: more).prefix(count)) }
        var kept: [Element] = []
        for element in elements {
            if kept.count == count, let last = kept.last, !more(element, last) { continue }
            let position = kept.firstIndex { more(element, $0) } ?? kept.count
            kept.insert(element, at: position)
            if kept.count > count { kept.removeLast() }
        }
        return kept
    }
}
