/// The form of a message's content that a chat template expects.
enum JinjaContentFormat: Sendable, Equatable {
    /// One text; images are marks in it.
    case text
    /// A list of parts, `{"type": "image"}` and `{"type": "text", "text": …}`.
    case parts
    /// Either; a list only where it is needed.
    case either
}

/// Detects from a template's syntax whether `message.content` is text or a list of parts, as vLLM does: a template that loops over it needs parts.
struct JinjaContentReader {
    /// Variables and parameters that hold a message's content, by name alone.
    private var aliases: Set<String> = []
    private var macros: [String: [String]] = [:]
    private var takesParts = false
    private var takesText = false

    static func format(of statements: [JinjaStatement]) -> JinjaContentFormat {
        var reader = JinjaContentReader()
        // An alias can be used above the place where it is found; each pass follows one more link.
        for _ in 0..<3 { reader.read(statements) }
        return !reader.takesParts ? .text : reader.takesText ? .either : .parts
    }

    private mutating func read(_ statements: [JinjaStatement]) {
        for statement in statements { read(statement.kind) }
    }

    private mutating func read(_ statement: JinjaStatement.Kind) {
        switch statement {
        case .text, .break, .continue: break
        case .output(let value):
            if isContent(value) { takesText = true }
            read(value)
        case .if(let branches, let otherwise):
            for (test, body) in branches {
                read(test)
                read(body)
            }
            read(otherwise)
        case .for(let loop):
            if isContent(unfiltered(loop.values)) { takesParts = true }
            read(loop.values)
            if let test = loop.test { read(test) }
            read(loop.body)
            read(loop.otherwise)
        case .set(let target, let value):
            bind(target, value)
            read(value)
        case .setBlock(_, let filter, let body):
            if let filter { read(filter) }
            read(body)
        case .filterBlock(let filter, let body):
            read(filter)
            read(body)
        case .with(let pairs, let body):
            for (target, value) in pairs {
                bind(target, value)
                read(value)
            }
            read(body)
        case .macro(let definition):
            macros[definition.name] = definition.parameters.map(\.name)
            for parameter in definition.parameters { if let standard = parameter.standard { read(standard) } }
            read(definition.body)
        case .callBlock(let call, let caller):
            read(call)
            read(caller.body)
        case .scope(let body): read(body)
        }
    }

    private mutating func bind(_ target: JinjaTarget, _ value: JinjaExpression) {
        if case .name(let name) = target, isContent(value) { aliases.insert(name) }
    }

    private mutating func read(_ expression: JinjaExpression) {
        switch expression.kind {
        case .test(let value, "string", _) where isContent(value): takesText = true
        case .arithmetic(let first, let rest):
            if ([first] + rest.map(\.operand)).contains(where: isContent) { takesText = true }
        case .concat(let values):
            if values.contains(where: isContent) { takesText = true }
        case .filter(let value?, let name, _) where isContent(unfiltered(value)):
            if ["trim", "upper", "lower", "replace", "indent"].contains(name) { takesText = true }
            if ["selectattr", "rejectattr", "map"].contains(name) { takesParts = true }
        case .attribute(let value, let name) where isContent(value):
            if ["strip", "lstrip", "rstrip", "split", "startswith", "replace"].contains(name) { takesText = true }
        case .attribute(let value, _) where isPart(value): takesParts = true
        case .item(let value, _) where isPart(value): takesParts = true
        case .call(let callee, let arguments):
            if case .name(let name) = callee.kind, let parameters = macros[name] {
                for (parameter, value) in zip(parameters, arguments.positional) where isContent(value) { aliases.insert(parameter) }
                for (parameter, value) in arguments.keyword where isContent(value) { aliases.insert(parameter) }
            }
        default: break
        }
        for child in expression.children { read(child) }
    }

    /// Whether an expression is a message's content.
    private func isContent(_ expression: JinjaExpression) -> Bool {
        switch expression.kind {
        case .attribute(_, "content"): true
        case .item(_, let key): isText(key, "content")
        case .name(let name): aliases.contains(name)
        case .call(let callee, let arguments):
            if case .attribute(_, "get") = callee.kind, let key = arguments.positional.first { isText(key, "content") } else { false }
        case .conditional(_, let then, let otherwise): isContent(then) || otherwise.map(isContent) == true
        case .or(let values): values.contains(where: isContent)
        case .filter(let value?, "default", _), .filter(let value?, "d", _): isContent(value)
        default: false
        }
    }

    /// `content[0]`
    private func isPart(_ expression: JinjaExpression) -> Bool {
        guard case .item(let value, let key) = expression.kind, case .int = key.kind else { return false }
        return isContent(value)
    }

    private func isText(_ expression: JinjaExpression, _ text: String) -> Bool {
        if case .text(let found) = expression.kind { found == JinjaText(text) } else { false }
    }

    /// The operand of filters and slices that keep a list's parts.
    private func unfiltered(_ expression: JinjaExpression) -> JinjaExpression {
        switch expression.kind {
        case .filter(let value?, let name, _)
        where ["selectattr", "rejectattr", "select", "reject", "list", "reverse", "sort", "map"].contains(name): unfiltered(value)
        case .slice(let value, _, _, _): unfiltered(value)
        default: expression
        }
    }
}
