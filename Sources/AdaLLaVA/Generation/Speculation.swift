/// Whether tokens of an answer are drafted cheaply and verified several in one step (Leviathan et al., 2023).
///
/// A model with a scheduler drafts with its floor's plan: the prefix layers' states of drafted tokens are final, and verification goes on from them. A
/// model without one drafts what followed the newest tokens earlier in prompt and answer (prompt lookup). Answers are the same token for token, sampled
/// ones too: each token is chosen from the verified logits, with the random number that it has without drafts.
public enum Speculation: Sendable, Equatable, LosslessStringConvertible {
    /// A token a step.
    case off
    /// As many drafted tokens as pay by the measured costs of steps and the measured share of drafts that are right; none where none pay.
    case auto
    /// So many drafted tokens in every step that has room for them, 1 to ``mostTokens``.
    case tokens(Int)

    /// The most tokens that are drafted for one step: with the token before them they begin no more than one panel of keys.
    public static let mostTokens = 12

    /// `auto`, `off`, or a number of tokens; `nil` for any other text.
    public init?(_ text: String) {
        switch text {
        case "auto": self = .auto
        case "off": self = .off
        default:
            guard let count = Int(text), 1 ... Speculation.mostTokens ~= count else { return nil }
            self = .tokens(count)
        }
    }

    /// `auto`, `off`, or the number of tokens.
    public var description: String {
        switch self {
        case .off: "off"
        case .auto: "auto"
        case .tokens(let count): "\(count)"
        }
    }
}

/// Drafts of an answer.
public struct SpeculationCounts: Sendable, Equatable, Codable {
    /// Tokens that were drafted, and those of them that the answer took.
    public var drafted = 0, accepted = 0
    /// Steps that verified drafts.
    public var verifications = 0

    /// No drafts.
    public init() {}
}

/// Where a draft comes from.
enum DraftSource: Hashable {
    /// The prefix layers and the output layer.
    case floor
    /// What followed so many of the newest tokens, at least, when they last occurred.
    case lookup(matched: Int)
}

/// Tokens that are verified in the next step.
struct Draft {
    let source: DraftSource
    /// Slots after the newest token's that are verified, its own included.
    var rows = 0
    /// Proposed tokens; the last one has no row of its own if nothing can follow it.
    var tokens: [Int] = []
}

/// Accepted share of drafted tokens, where older ones count less and less.
struct AcceptanceRate {
    private var accepted: Double, tried: Double
    private let decay: Double

    /// - Parameter decay: weight of what is known after each further verification.
    init(expected: Double, weight: Double, decay: Double) {
        (accepted, tried, self.decay) = (expected * weight, weight, decay)
    }

    var value: Double { accepted / tried }

    /// - Parameter isRejected: whether one more token was drafted and not taken; those after it say nothing.
    mutating func add(accepted count: Int, isRejected: Bool) {
        accepted = accepted * decay + Double(count)
        tried = tried * decay + Double(count + (isRejected ? 1 : 0))
    }
}

/// One request's drafting.
struct TaskSpeculation {
    let mode: Speculation
    /// Tokens of prompt and answer; −1 for a row of an image.
    var context: [Int32] = []
    /// Hidden states of drafted rows after the prefix layers, `[mostTokens + 1, hidden]`.
    var states: Tensor?
    /// Chooses the tokens of drafts as the answer's sampler will choose its own.
    var sampler: Sampler
    var rates: [DraftSource: AcceptanceRate] = [:]

    init(_ mode: Speculation, _ sampler: Sampler) { (self.mode, self.sampler) = (mode, sampler) }
}

/// Prompt lookup (Saxena, 2023).
enum PromptLookup {
    /// The longest n-gram that is compared, and the shortest that counts.
    static let longest = 4, shortest = 2

    /// What followed the newest tokens when they last occurred; of several places the one where most tokens agree, then the newest.
    /// - Parameter count: tokens that are wanted.
    /// - Returns: `nil` where at least ``shortest`` tokens do not occur earlier.
    static func find(_ context: [Int32], count: Int) -> (tokens: [Int], matched: Int)? {
        let end = context.count
        guard count > 0, end > shortest, let newest = context.last, newest >= 0 else { return nil }
        var best = (end: 0, matched: shortest - 1)
        context.withUnsafeBufferPointer { context in
            // Places are ends of n-grams.
            var place = end - 1
            while place >= shortest, best.matched < longest {
                defer { place -= 1 }
                guard context[place - 1] == newest else { continue }
                var matched = 1
                while matched < longest, matched < place, context[place - 1 - matched] == context[end - 1 - matched], context[end - 1 - matched] >= 0 { matched += 1 }
                if matched > best.matched { best = (place, matched) }
            }
        }
        if best.matched < shortest { return nil }
        // What follows may run into the draft itself, as in "a b a b".
        var text = context
        for index in 0 ..< count {
            let next = text[best.end + index]
            if next < 0 { break }
            text.append(next)
        }
        return text.count == end ? nil : (text[end...].map(Int.init), best.matched)
    }
}
