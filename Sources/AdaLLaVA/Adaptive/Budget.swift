import Foundation

/// What a caller allows an answer to cost.
public enum Budget: Sendable, Equatable, CustomStringConvertible {
    /// A fraction of the full model's compute, in (0, 1], as in the paper.
    case fraction(Double)
    /// A time to the first token. Parsed, and refused for now with a message that says so.
    case time(Duration)

    /// Everything runs.
    public static let full = Budget.fraction(1)

    /// Reads what people write: `0.7`, `1`, `70%`; times such as `400ms` and `1.5s`.
    /// - Throws: ``BudgetError`` when it is neither, or out of range.
    public init(parsing text: String) throws {
        let trimmed = text.trimmingCharacters(in: .whitespaces).lowercased()
        for (suffix, milliseconds) in [("ms", 1.0), ("s", 1000.0)] where trimmed.hasSuffix(suffix) {
            let number = trimmed.dropLast(suffix.count).trimmingCharacters(in: .whitespaces)
            guard let value = Double(number), value.isFinite, value > 0, value < 1e9 else { break }
            self = .time(.microseconds(Int64(value * milliseconds * 1000)))
            return
        }
        if trimmed.hasSuffix("%"), let value = Double(trimmed.dropLast()) {
            self = .fraction(value / 100)
        } else if let value = Double(trimmed) {
            self = .fraction(value)
        } else {
            throw BudgetError.unreadable(text)
        }
        _ = try validFraction()
    }

    /// The fraction of compute.
    /// - Throws: ``BudgetError`` outside (0, 1], or for a time.
    public func validFraction() throws -> Float {
        switch self {
        case .fraction(let value):
            guard value > 0, value <= 1 else { throw BudgetError.outOfRange(value) }
            return Float(value)
        case .time: throw BudgetError.timesNotYet(description)
        }
    }

    public var description: String {
        switch self {
        case .fraction(let value): String(format: "%g", value)
        case .time(let duration): String(format: "%.12gms", duration / .milliseconds(1))
        }
    }
}

/// A budget that cannot be used.
public enum BudgetError: EngineError, Equatable {
    case unreadable(String)
    case outOfRange(Double)
    case timesNotYet(String)
    /// A budget below 1 for a model without a scheduler.
    case notAdaptive(budget: Double, model: String)

    public var category: ErrorCategory { .usage }

    public var description: String {
        switch self {
        case .unreadable(let text): "budget '\(text)': expected a fraction of full compute such as 0.7, above 0 and at most 1"
        case .outOfRange(let value): "budget \(String(format: "%g", value)): expected a fraction of full compute above 0 and at most 1"
        case .timesNotYet(let text):
            "budget \(text): times are not supported yet; give a fraction of full compute above 0 and at most 1, such as 0.7"
        case .notAdaptive(let budget, let model):
            "budget \(String(format: "%g", budget)): \(model) has no scheduler, so it can only run whole; leave the budget out or give 1"
        }
    }
}
