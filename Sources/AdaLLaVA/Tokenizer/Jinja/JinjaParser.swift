/// Reads a template's tokens into statements. The grammar is that of Jinja 3.1 with the extensions that transformers turns on:
/// `break`, `continue` and `generation`.
struct JinjaParser {
    private let tokens: [JinjaToken]
    private var index = 0
    let limits: JinjaLimits
    private var nesting = 0
    /// Special names that the macros being read mention, the innermost last.
    var mentions: [Set<String>] = []
    private var loops = 0

    /// - Throws: ``JinjaError``
    static func parse(_ source: String, limits: JinjaLimits = JinjaLimits()) throws -> [JinjaStatement] {
        var parser = JinjaParser(tokens: try JinjaLexer.tokens(of: source, limits: limits), limits: limits)
        let statements = try parser.statements(until: [], for: nil)
        return statements
    }

    private init(tokens: [JinjaToken], limits: JinjaLimits) {
        (self.tokens, self.limits) = (tokens, limits)
    }

    // MARK: - Tokens

    private static let end = JinjaToken(kind: .end, line: 1)

    var current: JinjaToken { index < tokens.count ? tokens[index] : tokens.last ?? Self.end }
    var next: JinjaToken { index + 1 < tokens.count ? tokens[index + 1] : tokens.last ?? Self.end }
    var line: Int { current.line }

    mutating func advance() { index += 1 }

    func isSymbol(_ symbol: String) -> Bool { current.kind == .symbol(symbol) }
    func isName(_ name: String) -> Bool { current.kind == .name(name) }

    mutating func take(symbol: String) -> Bool {
        guard isSymbol(symbol) else { return false }
        advance()
        return true
    }

    mutating func take(name: String) -> Bool {
        guard isName(name) else { return false }
        advance()
        return true
    }

    mutating func expect(symbol: String) throws {
        guard take(symbol: symbol) else { throw unexpected("\"\(symbol)\"") }
    }

    mutating func expectName(_ what: String) throws -> String {
        guard case .name(let name) = current.kind else { throw unexpected(what) }
        advance()
        return name
    }

    mutating func expect(name: String) throws {
        guard take(name: name) else { throw unexpected("\"\(name)\"") }
    }

    func unexpected(_ expected: String) -> JinjaError {
        JinjaError(line: line, .syntax(expected: expected, found: current.description))
    }

    /// Runs a part of the grammar that can contain itself.
    mutating func nested<Result>(_ parse: (inout JinjaParser) throws -> Result) throws -> Result {
        nesting += 1
        defer { nesting -= 1 }
        guard nesting <= limits.nesting else { throw JinjaError(line: line, .limit(name: "nesting", value: limits.nesting)) }
        return try parse(&self)
    }

    // MARK: - Statements

    /// Statements up to a tag that begins with one of `names`, which becomes the current token; up to the template's end if there are none.
    private mutating func statements(until names: [String], for opening: (name: String, line: Int)?) throws -> [JinjaStatement] {
        try nested { parser in
            var body: [JinjaStatement] = []
            while true {
                let line = parser.line
                switch parser.current.kind {
                case .data(let text):
                    parser.advance()
                    body.append(JinjaStatement(kind: .text(JinjaText(text)), line: line))
                case .variableBegin:
                    parser.advance()
                    body.append(JinjaStatement(kind: .output(try parser.tuple()), line: line))
                    guard parser.current.kind == .variableEnd else { throw parser.unexpected("}}") }
                    parser.advance()
                case .blockBegin:
                    parser.advance()
                    if case .name(let name) = parser.current.kind, names.contains(name) { return body }
                    body.append(JinjaStatement(kind: try parser.statement(), line: line))
                    try parser.endOfTag()
                case .end:
                    guard let opening else { return body }
                    throw parser.unexpected("\(names.joined(separator: " or ")) for the \(opening.name) of line \(opening.line)")
                default: throw parser.unexpected("text or a tag")
                }
            }
        }
    }

    private mutating func endOfTag() throws {
        guard current.kind == .blockEnd else { throw unexpected("%}") }
        advance()
    }

    /// The rest of a tag's own line and the statements after it.
    private mutating func body(until names: [String], for opening: (name: String, line: Int)) throws -> [JinjaStatement] {
        _ = take(symbol: ":")
        try endOfTag()
        return try statements(until: names, for: opening)
    }

    private mutating func statement() throws -> JinjaStatement.Kind {
        let line = line
        guard case .name(let tag) = current.kind else { throw unexpected("a tag's name") }
        advance()
        let opening = (name: tag, line: line)
        switch tag {
        case "if": return try ifStatement(opening)
        case "for": return try forStatement(opening)
        case "set": return try setStatement(opening)
        case "with": return try withStatement(opening)
        case "macro":
            let name = try expectName("a macro's name")
            return .macro(try macro(name, signature: true, end: "endmacro", opening))
        case "call": return try callStatement(opening)
        case "filter":
            let filter = try filter(of: nil)
            let body = try body(until: ["endfilter"], for: opening)
            advance()
            return .filterBlock(filter, body: body)
        case "print": return .output(try tuple())
        case "generation":
            let body = try body(until: ["endgeneration"], for: opening)
            advance()
            return .scope(body)
        case "break", "continue":
            guard loops > 0 else { throw JinjaError(line: line, .syntax(expected: "a loop around it", found: "\"\(tag)\" outside of one")) }
            return tag == "break" ? .break : .continue
        case "include", "import", "from", "extends", "block":
            throw JinjaError(line: line, .syntax(expected: "a template that stands alone", found: "\"\(tag)\", which needs other templates"))
        default: throw JinjaError(line: line, .syntax(expected: "a tag of Jinja", found: "\"\(tag.prefix(40))\""))
        }
    }

    private mutating func ifStatement(_ opening: (name: String, line: Int)) throws -> JinjaStatement.Kind {
        var branches: [(test: JinjaExpression, body: [JinjaStatement])] = []
        while true {
            let test = try tuple(hasConditional: false)
            branches.append((test, try body(until: ["elif", "else", "endif"], for: opening)))
            if take(name: "elif") { continue }
            var otherwise: [JinjaStatement] = []
            if take(name: "else") { otherwise = try body(until: ["endif"], for: opening) }
            advance()
            return .if(branches, otherwise: otherwise)
        }
    }

    private mutating func forStatement(_ opening: (name: String, line: Int)) throws -> JinjaStatement.Kind {
        let target = try target(end: "in")
        try expect(name: "in")
        let values = try tuple(hasConditional: false, end: "recursive")
        let test = take(name: "if") ? try expression() : nil
        let isRecursive = take(name: "recursive")
        loops += 1
        let repeated = try body(until: ["endfor", "else"], for: opening)
        loops -= 1
        var otherwise: [JinjaStatement] = []
        if take(name: "else") { otherwise = try body(until: ["endfor"], for: opening) }
        advance()
        return .for(
            JinjaForLoop(target: target, values: values, test: test, isRecursive: isRecursive, body: repeated, otherwise: otherwise))
    }

    private mutating func setStatement(_ opening: (name: String, line: Int)) throws -> JinjaStatement.Kind {
        let target = try target(allowsAttributes: true)
        if take(symbol: "=") { return .set(target, try tuple()) }
        let filter = isSymbol("|") ? try filters(of: nil) : nil
        let body = try body(until: ["endset"], for: opening)
        advance()
        return .setBlock(target, filter: filter, body: body)
    }

    private mutating func withStatement(_ opening: (name: String, line: Int)) throws -> JinjaStatement.Kind {
        var pairs: [(target: JinjaTarget, value: JinjaExpression)] = []
        while current.kind != .blockEnd {
            if !pairs.isEmpty { try expect(symbol: ",") }
            let target = try target()
            try expect(symbol: "=")
            pairs.append((target, try expression()))
        }
        let body = try body(until: ["endwith"], for: opening)
        advance()
        return .with(pairs, body: body)
    }

    private mutating func callStatement(_ opening: (name: String, line: Int)) throws -> JinjaStatement.Kind {
        var parameters: [(name: String, standard: JinjaExpression?)] = []
        if isSymbol("(") { parameters = try signature() }
        let call = try expression()
        guard case .call = call.kind else { throw JinjaError(line: opening.line, .syntax(expected: "a call", found: "another expression")) }
        var caller = try macro("caller", signature: false, end: "endcall", opening)
        caller.parameters = parameters
        return .callBlock(call, caller: caller)
    }

    private mutating func macro(
        _ name: String, signature hasSignature: Bool, end: String, _ opening: (name: String, line: Int)
    ) throws -> JinjaMacroDefinition {
        var definition = JinjaMacroDefinition(name: name)
        mentions.append([])
        let outerLoops = loops
        loops = 0
        if hasSignature { definition.parameters = try signature() }
        definition.body = try body(until: [end], for: opening)
        advance()
        loops = outerLoops
        definition.mentions = mentions.popLast() ?? []
        // A block inside a macro can pass on that macro's arguments.
        if !mentions.isEmpty { mentions[mentions.count - 1].formUnion(definition.mentions) }
        return definition
    }

    private mutating func signature() throws -> [(name: String, standard: JinjaExpression?)] {
        try expect(symbol: "(")
        var parameters: [(name: String, standard: JinjaExpression?)] = []
        while !isSymbol(")") {
            if !parameters.isEmpty { try expect(symbol: ",") }
            let name = try expectName("a parameter's name")
            if take(symbol: "=") {
                parameters.append((name, try expression()))
            } else if parameters.last?.standard != nil {
                throw unexpected("a default value, since the parameter in front has one")
            } else {
                parameters.append((name, nil))
            }
        }
        try expect(symbol: ")")
        return parameters
    }

    /// The target of an assignment: a name, `namespace.attribute` or a tuple of names.
    private mutating func target(allowsAttributes: Bool = false, end: String? = nil) throws -> JinjaTarget {
        var targets: [JinjaTarget] = []
        var isTuple = false
        while true {
            if isSymbol("(") {
                advance()
                targets.append(try nested { try $0.target() })
                try expect(symbol: ")")
            } else if isTuple, isSymbol("=") || isSymbol(")") || end.map({ isName($0) }) == true {
                break
            } else {
                let name = try expectName("a variable's name")
                guard !Self.constants.contains(name) else {
                    throw JinjaError(line: line, .syntax(expected: "a variable's name", found: "the constant \(name)"))
                }
                if allowsAttributes, take(symbol: ".") {
                    targets.append(.attribute(name, try expectName("an attribute's name")))
                } else {
                    targets.append(.name(name))
                }
            }
            guard take(symbol: ",") else { break }
            isTuple = true
        }
        return isTuple || targets.count != 1 ? .tuple(targets) : targets[0]
    }

    static let constants: Set<String> = ["true", "false", "none", "True", "False", "None"]
}
