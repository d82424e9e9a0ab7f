/// An expression of a template.
final class JinjaExpression: Sendable {
    indirect enum Kind: Sendable {
        case none
        case bool(Bool)
        case int(Int)
        case double(Double)
        case text(JinjaText)
        case name(String)
        case list([JinjaExpression])
        case tuple([JinjaExpression])
        case dict([(key: JinjaExpression, value: JinjaExpression)])
        case attribute(JinjaExpression, String)
        case item(JinjaExpression, JinjaExpression)
        case slice(JinjaExpression, start: JinjaExpression?, stop: JinjaExpression?, step: JinjaExpression?)
        case call(JinjaExpression, JinjaCallArguments)
        /// The value is `nil` where a block's body is filtered.
        case filter(JinjaExpression?, String, JinjaCallArguments)
        case test(JinjaExpression, String, JinjaCallArguments)
        case not(JinjaExpression)
        case negative(JinjaExpression)
        case positive(JinjaExpression)
        /// Operators of one precedence, left to right.
        case arithmetic(JinjaExpression, [(symbol: String, operand: JinjaExpression)])
        case compare(JinjaExpression, [(symbol: String, operand: JinjaExpression)])
        case concat([JinjaExpression])
        case and([JinjaExpression])
        case or([JinjaExpression])
        case conditional(test: JinjaExpression, then: JinjaExpression, otherwise: JinjaExpression?)
    }

    let kind: Kind
    let line: Int
    /// Depth of the expression tree from here, itself included.
    let height: Int

    /// - Throws: ``JinjaError`` if the tree would be deeper than `limit`.
    init(_ kind: Kind, line: Int, limit: Int) throws {
        (self.kind, self.line) = (kind, line)
        height = 1 + (Self.children(kind).map(\.height).max() ?? 0)
        guard height <= limit else { throw JinjaError(line: line, .limit(name: "nested expressions", value: limit)) }
    }

    var children: [JinjaExpression] { Self.children(kind) }

    private static func children(_ kind: Kind) -> [JinjaExpression] {
        switch kind {
        case .none, .bool, .int, .double, .text, .name: []
        case .list(let values), .tuple(let values), .concat(let values), .and(let values), .or(let values): values
        case .dict(let pairs): pairs.flatMap { [$0.key, $0.value] }
        case .attribute(let value, _), .not(let value), .negative(let value), .positive(let value): [value]
        case .item(let value, let index): [value, index]
        case .slice(let value, let start, let stop, let step): [value, start, stop, step].compactMap { $0 }
        case .call(let value, let arguments), .test(let value, _, let arguments): [value] + arguments.expressions
        case .filter(let value, _, let arguments): (value.map { [$0] } ?? []) + arguments.expressions
        case .arithmetic(let first, let rest), .compare(let first, let rest): [first] + rest.map(\.operand)
        case .conditional(let test, let then, let otherwise): [test, then] + (otherwise.map { [$0] } ?? [])
        }
    }
}

/// The arguments of a call as they are written.
struct JinjaCallArguments: Sendable {
    var positional: [JinjaExpression] = []
    var keyword: [(name: String, value: JinjaExpression)] = []
    /// `*values` and `**values`.
    var spreadList: JinjaExpression?
    var spreadDict: JinjaExpression?

    var expressions: [JinjaExpression] {
        positional + keyword.map(\.value) + [spreadList, spreadDict].compactMap { $0 }
    }
}

/// The target of `set`, `for` and `with`.
indirect enum JinjaTarget: Sendable {
    case name(String)
    /// An attribute of a `namespace`.
    case attribute(String, String)
    case tuple([JinjaTarget])

    var names: [String] {
        switch self {
        case .name(let name): [name]
        case .attribute: []
        case .tuple(let targets): targets.flatMap(\.names)
        }
    }
}

/// The parameters and the body of a macro or of a `call` block.
struct JinjaMacroDefinition: Sendable {
    let name: String
    var parameters: [(name: String, standard: JinjaExpression?)] = []
    var body: [JinjaStatement] = []
    /// Which of `varargs`, `kwargs` and `caller` the body mentions.
    var mentions: Set<String> = []
}

/// A statement of a template.
struct JinjaStatement: Sendable {
    indirect enum Kind: Sendable {
        case text(JinjaText)
        case output(JinjaExpression)
        case `if`([(test: JinjaExpression, body: [JinjaStatement])], otherwise: [JinjaStatement])
        case `for`(JinjaForLoop)
        case set(JinjaTarget, JinjaExpression)
        /// The filters are applied to the body's text.
        case setBlock(JinjaTarget, filter: JinjaExpression?, body: [JinjaStatement])
        case filterBlock(JinjaExpression, body: [JinjaStatement])
        case with([(target: JinjaTarget, value: JinjaExpression)], body: [JinjaStatement])
        case macro(JinjaMacroDefinition)
        case callBlock(JinjaExpression, caller: JinjaMacroDefinition)
        /// A body with a scope of its own: `{% generation %}`.
        case scope([JinjaStatement])
        case `break`
        case `continue`
    }

    let kind: Kind
    let line: Int
}

/// `{% for target in values if test %}`
final class JinjaForLoop: Sendable {
    let target: JinjaTarget
    let values: JinjaExpression
    let test: JinjaExpression?
    let isRecursive: Bool
    let body: [JinjaStatement]
    let otherwise: [JinjaStatement]

    init(
        target: JinjaTarget, values: JinjaExpression, test: JinjaExpression?, isRecursive: Bool, body: [JinjaStatement],
        otherwise: [JinjaStatement]
    ) {
        (self.target, self.values, self.test, self.isRecursive) = (target, values, test, isRecursive)
        (self.body, self.otherwise) = (body, otherwise)
    }
}
