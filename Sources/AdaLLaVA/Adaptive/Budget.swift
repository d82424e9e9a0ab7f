import Foundation

/// The limit on the cost of an answer.
public enum Budget: Sendable, Hashable, CustomStringConvertible {
    /// A fraction of the full model's compute, in (0, 1], as in the paper.
    case fraction(Double)
    /// Times, counted from the call: as much of the model runs as they leave time for.
    case time(TimeLimits)
    /// The need of the input, predicted by the model's budget head (``AutomaticBudget``).
    case automatic(AutomaticBudget)

    /// Everything runs.
    public static let full = Budget.fraction(1)

    /// The whole answer within a time.
    public static func answer(within limit: Duration) -> Budget { .time(TimeLimits(answer: limit)) }

    /// The first token within a time.
    public static func firstToken(within limit: Duration) -> Budget { .time(TimeLimits(firstToken: limit)) }

    /// Each token after the first within a time.
    public static func perToken(_ limit: Duration) -> Budget { .time(TimeLimits(perToken: limit)) }

    /// The need of each input, with at most this loss of the full model's accuracy on average.
    public static func auto(within loss: Double = AutomaticBudget.standardLoss) -> Budget { .automatic(.within(loss)) }

    /// The need of each input, with this fraction of the full model's compute on average.
    public static func auto(mean fraction: Double) -> Budget { .automatic(.mean(fraction)) }

    /// Parses `auto`, `auto:within=0.01`, `auto:mean=0.4`; `0.7`, `1`, `70%`; `400ms` and `1.5s` (the whole answer), `ttft:150ms` (the first token), `tpot:8ms` (each further token),
    /// and several times joined by `,` or `+`.
    /// - Throws: ``BudgetError`` when it is neither, or out of range.
    public init(parsing text: String) throws {
        let trimmed = text.trimmingCharacters(in: .whitespaces).lowercased()
        if let automatic = try AutomaticBudget(parsing: trimmed) {
            self = .automatic(automatic)
        } else if let limits = try TimeLimits(parsing: trimmed) {
            self = .time(limits)
        } else if trimmed.hasSuffix("%"), let value = Double(trimmed.dropLast()) {
            self = .fraction(value / 100)
        } else if let value = Double(trimmed) {
            self = .fraction(value)
        } else {
            throw BudgetError.unreadable(text)
        }
        try validate()
    }

    /// - Throws: ``BudgetError`` for a fraction outside (0, 1], a time that is not positive, or an accuracy that cannot be lost.
    public func validate() throws {
        switch self {
        case .fraction(let value):
            guard value > 0, value <= 1 else { throw BudgetError.outOfRange(value) }
        case .time(let limits):
            let all = [limits.answer, limits.firstToken, limits.perToken].compactMap(\.self)
            guard !all.isEmpty, all.allSatisfy({ $0 > .zero }) else { throw BudgetError.unreadable(description) }
        case .automatic(.within(let loss)):
            guard loss >= 0, loss < 1 else { throw BudgetError.unreadable(description) }
        case .automatic(.mean(let value)):
            guard value > 0, value <= 1 else { throw BudgetError.unreadable(description) }
        }
    }

    /// The fraction of compute; `nil` for times and `auto`.
    /// - Throws: ``BudgetError`` outside (0, 1].
    public func validFraction() throws -> Float? {
        try validate()
        return if case .fraction(let value) = self { Float(value) } else { nil }
    }

    public var description: String {
        switch self {
        case .fraction(let value): String(format: "%g", value)
        case .time(let limits): limits.description
        case .automatic(let automatic): automatic.description
        }
    }

    /// As messages show it: times rounded to tenths of a millisecond, of shorter ones to two digits.
    public var shown: String {
        switch self {
        case .fraction, .automatic: description
        case .time(let limits): limits.shown
        }
    }
}

/// `0.7` instead of `.fraction(0.7)`.
extension Budget: ExpressibleByFloatLiteral, ExpressibleByIntegerLiteral {
    /// A fraction of the full compute.
    public init(floatLiteral value: Double) { self = .fraction(value) }
    /// 1 is the full compute.
    public init(integerLiteral value: Int) { self = .fraction(Double(value)) }
}

/// A number for a fraction, for others the text that ``init(parsing:)`` reads.
extension Budget: Codable {
    public init(from decoder: any Swift.Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let fraction = try? container.decode(Double.self) {
            self = .fraction(fraction)
        } else {
            try self.init(parsing: try container.decode(String.self))
        }
    }

    public func encode(to encoder: any Swift.Encoder) throws {
        var container = encoder.singleValueContainer()
        if case .fraction(let fraction) = self { try container.encode(fraction) } else { try container.encode(description) }
    }
}

/// A budget that differs between inputs: after the prompt has passed the prefix layers, the model's budget head predicts from how many units on the
/// answer is as good as the full model's. Both forms take one point of the curve that was measured when the head was calibrated.
public enum AutomaticBudget: Sendable, Hashable, CustomStringConvertible {
    /// The least compute on average at which at most this much accuracy was lost, a fraction such as 0.005.
    case within(Double)
    /// At most this fraction of the full model's compute on average.
    case mean(Double)

    /// The accuracy that `auto` alone may lose.
    public static let standardLoss = 0.005

    /// - Returns: `nil` for a text that does not begin with `auto`.
    /// - Throws: ``BudgetError/unreadable(_:)``
    init?(parsing text: String) throws {
        guard text == "auto" || text.hasPrefix("auto:") else { return nil }
        let parts = text.dropFirst("auto:".count).split(separator: "=", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
        if text == "auto" {
            self = .within(AutomaticBudget.standardLoss)
        } else if parts.count == 2, parts[0] == "within", let loss = Double(parts[1]) {
            self = .within(loss)
        } else if parts.count == 2, parts[0] == "mean", let fraction = Double(parts[1]) {
            self = .mean(fraction)
        } else {
            throw BudgetError.unreadable(text)
        }
    }

    public var description: String {
        switch self {
        case .within(AutomaticBudget.standardLoss): "auto"
        case .within(let loss): "auto:within=" + String(format: "%g", loss)
        case .mean(let fraction): "auto:mean=" + String(format: "%g", fraction)
        }
    }
}

/// Times that an answer is to keep, counted from the call: waiting for other requests, resizing pictures and tokenizing included. Loading is not.
public struct TimeLimits: Sendable, Hashable, CustomStringConvertible {
    /// To the last token.
    public var answer: Duration?
    /// To the first token (TTFT).
    public var firstToken: Duration?
    /// For each token after the first (TPOT).
    public var perToken: Duration?

    /// Limits that are `nil` do not apply.
    public init(answer: Duration? = nil, firstToken: Duration? = nil, perToken: Duration? = nil) {
        (self.answer, self.firstToken, self.perToken) = (answer, firstToken, perToken)
    }

    /// - Returns: `nil` for a text that names no time.
    /// - Throws: ``BudgetError/unreadable(_:)`` for times that cannot be read; ``BudgetError/twice(_:)``
    init?(parsing text: String) throws {
        let items = text.split(whereSeparator: { $0 == "," || $0 == "+" }).map { $0.trimmingCharacters(in: .whitespaces) }
        guard items.contains(where: { $0.contains(":") || $0.hasSuffix("s") }) else { return nil }
        self.init()
        for item in items {
            let parts = item.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
            guard let time = parts.last.flatMap(TimeLimits.duration) else { throw BudgetError.unreadable(text) }
            let limit: WritableKeyPath<TimeLimits, Duration?>
            switch parts.count == 2 ? parts[0] : "answer" {
            case "answer": limit = \.answer
            case "ttft": limit = \.firstToken
            case "tpot": limit = \.perToken
            default: throw BudgetError.unreadable(text)
            }
            if self[keyPath: limit] != nil { throw BudgetError.twice(item) }
            self[keyPath: limit] = time
        }
    }

    /// `400ms`, `1.5 s`; `nil` for anything else, and for times of decades.
    private static func duration(_ text: String) -> Duration? {
        for (suffix, milliseconds) in [("ms", 1.0), ("s", 1000.0)] where text.hasSuffix(suffix) {
            let number = text.dropLast(suffix.count).trimmingCharacters(in: .whitespaces)
            guard let value = Double(number), value.isFinite, value > 0, value * milliseconds < 1e12 else { return nil }
            return .nanoseconds(Int64(value * milliseconds * 1e6))
        }
        return nil
    }

    public var description: String { text { String(format: "%.12gms", $0) } }

    fileprivate var shown: String { text { String(format: "%.12gms", $0 < 1 ? Double(String(format: "%.2g", $0)) ?? $0 : ($0 * 10).rounded() / 10) } }

    private func text(_ milliseconds: (Double) -> String) -> String {
        let named = [("", answer), ("ttft:", firstToken), ("tpot:", perToken)]
        return named.compactMap { name, limit in limit.map { name + milliseconds($0 / .milliseconds(1)) } }.joined(separator: ",")
    }
}

/// A budget that cannot be used.
public enum BudgetError: AdaLLaVAError, Equatable {
    /// A text in none of the forms of a budget.
    case unreadable(String)
    /// A fraction outside (0, 1].
    case outOfRange(Double)
    /// A limit that is given more than once.
    case twice(String)
    /// A time, or `auto`, where only fractions are taken.
    case timesNotHere(String)
    /// `auto` for a model without a budget head.
    case noBudgetHead(model: String)
    /// A budget below 1 for a model without a scheduler.
    case notAdaptive(budget: Double, model: String)
    /// A deadline that not even the smallest plan keeps, where late answers are not wanted.
    case cannotBeMet(limit: String, least: Duration)

    public var category: ErrorCategory {
        if case .cannotBeMet = self { .badData } else { .usage }
    }

    public var description: String {
        switch self {
        case .unreadable(let text):
            "budget '\(text)': expected a fraction of full compute such as 0.7, above 0 and at most 1, times such as 400ms, ttft:150ms or tpot:8ms, or auto, auto:within=0.01 or auto:mean=0.4"
        case .outOfRange(let value):
            "budget \(String(format: "%g", value)): expected a fraction of full compute above 0 and at most 1, or a time with its unit such as \(String(format: "%g", value))ms"
        case .twice(let text): "budget \(text): this limit is given twice; expected each of answer, ttft and tpot once"
        case .timesNotHere(let text): "budget \(text): expected a fraction of full compute above 0 and at most 1, such as 0.7; times and auto are not taken here"
        case .noBudgetHead(let model):
            "budget auto: \(model) has no budget head, which predicts how much an input needs; give a fraction such as 0.7, or make a head with `adallava auto fit`"
        case .notAdaptive(let budget, let model):
            "budget \(String(format: "%g", budget)): \(model) has no scheduler, so it can only run whole; leave the budget out or give 1"
        case .cannotBeMet(let limit, let least):
            "budget \(limit): cannot be met now; the least that this model can do is \(String(format: "%.0f", (least / .milliseconds(1)).rounded(.up)))ms. Allow more time, or a late answer (a deadline that is not strict) for the fastest one"
        }
    }
}
