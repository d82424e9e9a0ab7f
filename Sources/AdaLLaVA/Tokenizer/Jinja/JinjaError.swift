/// Why a template cannot be read or rendered, and where.
package struct JinjaError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The cause.
    package enum Reason: Sendable, Equatable {
        /// The source breaks the language's rules.
        case syntax(expected: String, found: String)
        /// The template uses something that the language or these values do not have.
        case evaluation(String)
        /// The template itself refuses the conversation with `raise_exception`.
        case raised(String)
        /// An untrusted template reached a limit.
        case limit(name: String, value: Int)
    }

    /// The line of the template, from 1.
    package let line: Int
    /// The cause.
    package let reason: Reason

    /// An error on a line.
    package init(line: Int, _ reason: Reason) {
        (self.line, self.reason) = (line, reason)
    }

    package var description: String {
        let what = switch reason {
        case .syntax(let expected, let found): "expected \(expected), found \(found)"
        case .evaluation(let message): message
        case .raised(let message): "the template refuses the conversation: \(message)"
        case .limit(let name, let value): "the template exceeds the limit on \(name) (\(value))"
        }
        return "line \(line): \(what)"
    }
}

/// Bounds on one rendering. A template is untrusted input: it may loop, recurse and grow text.
struct JinjaLimits: Sendable, Equatable {
    /// Scalars of a template's source; the longest that are published have about 30 thousand.
    var source = 1 << 19
    /// Maximum nesting of expressions and blocks.
    var nesting = 64
    /// Evaluated expressions, executed statements, iterations, compared elements.
    var steps = 4_000_000
    /// Bytes of all texts and containers that a rendering makes, the short-lived ones included.
    var memory = 64 << 20
    /// Bytes allowed in addition to ``memory`` for each scalar of the conversation, because templates copy their input.
    var memoryPerInput = 256
    /// Scalars of the prompt beyond eight times the conversation's.
    var output = 1 << 20
    /// Macros and recursive loops that may call each other.
    var calls = 32
    /// Expressions and statements under evaluation at one time: bounds the stack.
    var depth = 200
}

/// Counts the resources of one rendering. Every operation whose cost depends on its input charges here before it does the work.
final class JinjaMeter {
    let limits: JinjaLimits
    /// The line under evaluation, for errors.
    var line = 1
    private var steps = 0
    private var memory = 0
    private let memoryLimit: Int
    let outputLimit: Int

    /// - Parameter input: scalars of the conversation.
    init(_ limits: JinjaLimits, input: Int) {
        self.limits = limits
        memoryLimit = limits.memory + limits.memoryPerInput * input
        outputLimit = limits.output + 8 * input
    }

    func step(_ count: Int = 1) throws {
        // Compared by subtraction, because a hostile count may be near the largest integer.
        guard count <= limits.steps - steps else { throw limit("steps", limits.steps) }
        steps += count
    }

    /// Charges for `count` values of `size` bytes.
    func allocate(_ count: Int, of size: Int = 4) throws {
        guard count <= (memoryLimit - memory) / size else { throw limit("memory", memoryLimit) }
        memory += count * size
        // Copying costs time too.
        try step(count / 16)
    }

    /// Charges for a list, dictionary or scope.
    func allocateContainer(_ count: Int) throws {
        try allocate(count + 4, of: 40)
    }

    func limit(_ name: String, _ value: Int) -> JinjaError { JinjaError(line: line, .limit(name: name, value: value)) }

    func failure(_ message: String) -> JinjaError { JinjaError(line: line, .evaluation(message)) }
}
