extension JinjaParser {
    private func node(_ kind: JinjaExpression.Kind, _ line: Int) throws -> JinjaExpression {
        try JinjaExpression(kind, line: line, limit: limits.nesting)
    }

    /// Expressions with commas between them are a tuple; one alone is itself.
    /// - Parameter end: a name that ends the tuple.
    mutating func tuple(hasConditional: Bool = true, end: String? = nil, inParentheses: Bool = false) throws -> JinjaExpression {
        let line = line
        var values: [JinjaExpression] = []
        var isTuple = false
        while true {
            if [.variableEnd, .blockEnd, .symbol(")")].contains(current.kind) || end.map({ isName($0) }) == true { break }
            values.append(try expression(hasConditional: hasConditional))
            guard take(symbol: ",") else { break }
            isTuple = true
        }
        if !isTuple, let only = values.first { return only }
        guard isTuple || inParentheses else { throw unexpected("an expression") }
        return try node(.tuple(values), line)
    }

    mutating func expression(hasConditional: Bool = true) throws -> JinjaExpression {
        try nested { try hasConditional ? $0.conditional() : $0.disjunction() }
    }

    private mutating func conditional() throws -> JinjaExpression {
        let line = line
        var value = try disjunction()
        while take(name: "if") {
            let test = try disjunction()
            let otherwise = take(name: "else") ? try nested { try $0.conditional() } : nil
            value = try node(.conditional(test: test, then: value, otherwise: otherwise), line)
        }
        return value
    }

    private mutating func disjunction() throws -> JinjaExpression {
        let line = line
        var values = [try conjunction()]
        while take(name: "or") { values.append(try conjunction()) }
        return values.count == 1 ? values[0] : try node(.or(values), line)
    }

    private mutating func conjunction() throws -> JinjaExpression {
        let line = line
        var values = [try negation()]
        while take(name: "and") { values.append(try negation()) }
        return values.count == 1 ? values[0] : try node(.and(values), line)
    }

    private mutating func negation() throws -> JinjaExpression {
        let line = line
        guard take(name: "not") else { return try comparison() }
        return try node(.not(try nested { try $0.negation() }), line)
    }

    private mutating func comparison() throws -> JinjaExpression {
        let line = line
        let first = try sum()
        var rest: [(symbol: String, operand: JinjaExpression)] = []
        while true {
            if case .symbol(let symbol) = current.kind, ["==", "!=", "<", "<=", ">", ">="].contains(symbol) {
                advance()
                rest.append((symbol, try sum()))
            } else if take(name: "in") {
                rest.append(("in", try sum()))
            } else if isName("not"), next.kind == .name("in") {
                advance()
                advance()
                rest.append(("not in", try sum()))
            } else {
                return rest.isEmpty ? first : try node(.compare(first, rest), line)
            }
        }
    }

    private mutating func sum() throws -> JinjaExpression {
        try chain(["+", "-"]) { try $0.concatenation() }
    }

    private mutating func concatenation() throws -> JinjaExpression {
        let line = line
        var values = [try product()]
        while take(symbol: "~") { values.append(try product()) }
        return values.count == 1 ? values[0] : try node(.concat(values), line)
    }

    private mutating func product() throws -> JinjaExpression {
        try chain(["*", "/", "//", "%"]) { try $0.power() }
    }

    private mutating func power() throws -> JinjaExpression {
        try chain(["**"]) { try $0.unary() }
    }

    private mutating func chain(
        _ symbols: [String], operand: (inout JinjaParser) throws -> JinjaExpression
    ) throws -> JinjaExpression {
        let line = line
        let first = try operand(&self)
        var rest: [(symbol: String, operand: JinjaExpression)] = []
        while case .symbol(let symbol) = current.kind, symbols.contains(symbol) {
            advance()
            rest.append((symbol, try operand(&self)))
        }
        return rest.isEmpty ? first : try node(.arithmetic(first, rest), line)
    }

    private mutating func unary(hasFilters: Bool = true) throws -> JinjaExpression {
        let line = line
        var value: JinjaExpression
        if take(symbol: "-") {
            value = try node(.negative(try nested { try $0.unary(hasFilters: false) }), line)
        } else if take(symbol: "+") {
            value = try node(.positive(try nested { try $0.unary(hasFilters: false) }), line)
        } else {
            value = try primary()
        }
        value = try postfix(value)
        guard hasFilters else { return value }
        while true {
            if isSymbol("|") {
                value = try filters(of: value)
            } else if isName("is") {
                value = try test(of: value)
            } else if isSymbol("(") {
                value = try node(.call(value, try arguments()), self.line)
            } else {
                return value
            }
        }
    }

    private mutating func primary() throws -> JinjaExpression {
        let line = line
        switch current.kind {
        case .name(let name):
            advance()
            switch name {
            case "true", "True": return try node(.bool(true), line)
            case "false", "False": return try node(.bool(false), line)
            case "none", "None": return try node(.none, line)
            default:
                if !mentions.isEmpty, ["varargs", "kwargs", "caller"].contains(name) { mentions[mentions.count - 1].insert(name) }
                return try node(.name(name), line)
            }
        case .string(var text):
            advance()
            while case .string(let more) = current.kind {
                text.unicodeScalars.append(contentsOf: more.unicodeScalars)
                advance()
            }
            return try node(.text(JinjaText(text)), line)
        case .integer(let value):
            advance()
            return try node(.int(value), line)
        case .float(let value):
            advance()
            return try node(.double(value), line)
        case .symbol("("):
            advance()
            let value = try tuple(inParentheses: true)
            try expect(symbol: ")")
            return value
        case .symbol("["):
            advance()
            var values: [JinjaExpression] = []
            while !isSymbol("]") {
                values.append(try expression())
                guard take(symbol: ",") else { break }
            }
            try expect(symbol: "]")
            return try node(.list(values), line)
        case .symbol("{"):
            advance()
            var pairs: [(key: JinjaExpression, value: JinjaExpression)] = []
            while !isSymbol("}") {
                let key = try expression()
                try expect(symbol: ":")
                pairs.append((key, try expression()))
                guard take(symbol: ",") else { break }
            }
            try expect(symbol: "}")
            return try node(.dict(pairs), line)
        default: throw unexpected("an expression")
        }
    }

    /// Attributes, subscripts and calls after a value.
    private mutating func postfix(_ value: JinjaExpression) throws -> JinjaExpression {
        var value = value
        while true {
            let line = line
            if take(symbol: ".") {
                switch current.kind {
                case .name(let name): value = try node(.attribute(value, name), line)
                case .integer(let index): value = try node(.item(value, try node(.int(index), line)), line)
                default: throw unexpected("an attribute's name")
                }
                advance()
            } else if take(symbol: "[") {
                value = try subscripted(value, line)
                try expect(symbol: "]")
            } else if isSymbol("(") {
                value = try node(.call(value, try arguments()), line)
            } else {
                return value
            }
        }
    }

    private mutating func subscripted(_ value: JinjaExpression, _ line: Int) throws -> JinjaExpression {
        let start = isSymbol(":") ? nil : try tuple(end: nil)
        guard take(symbol: ":") else {
            guard let start else { throw unexpected("an index") }
            return try node(.item(value, start), line)
        }
        let stop = isSymbol(":") || isSymbol("]") ? nil : try expression()
        let step = take(symbol: ":") && !isSymbol("]") ? try expression() : nil
        return try node(.slice(value, start: start, stop: stop, step: step), line)
    }

    mutating func arguments() throws -> JinjaCallArguments {
        try expect(symbol: "(")
        var arguments = JinjaCallArguments()
        while !isSymbol(")") {
            if take(symbol: "*") {
                arguments.spreadList = try expression()
            } else if take(symbol: "**") {
                arguments.spreadDict = try expression()
            } else if case .name(let name) = current.kind, next.kind == .symbol("=") {
                advance()
                advance()
                arguments.keyword.append((name, try expression()))
            } else {
                guard arguments.keyword.isEmpty, arguments.spreadList == nil, arguments.spreadDict == nil else {
                    throw unexpected("an argument with a name, as the one in front")
                }
                arguments.positional.append(try expression())
            }
            guard take(symbol: ",") else { break }
        }
        try expect(symbol: ")")
        return arguments
    }

    /// `| name(arguments)`, once or several times.
    mutating func filters(of value: JinjaExpression?) throws -> JinjaExpression {
        try expect(symbol: "|")
        return try filter(of: value)
    }

    /// A filter from its name on, with those that follow.
    mutating func filter(of value: JinjaExpression?) throws -> JinjaExpression {
        var value = value
        while true {
            let line = line
            let name = try expectName("a filter's name")
            let arguments = isSymbol("(") ? try arguments() : JinjaCallArguments()
            let filtered = try node(.filter(value, name, arguments), line)
            guard take(symbol: "|") else { return filtered }
            value = filtered
        }
    }

    private mutating func test(of value: JinjaExpression) throws -> JinjaExpression {
        let line = line
        advance()
        let isNegated = take(name: "not")
        let name = try expectName("a test's name")
        var arguments = JinjaCallArguments()
        if isSymbol("(") {
            arguments = try self.arguments()
        } else if takesArgument {
            if isName("is") { throw unexpected("one test; they cannot be chained") }
            arguments.positional = [try postfix(try nested { try $0.primary() })]
        }
        let test = try node(.test(value, name, arguments), line)
        return isNegated ? try node(.not(test), line) : test
    }

    /// Whether a test's name is followed by its argument, written without parentheses.
    private var takesArgument: Bool {
        switch current.kind {
        case .name(let name): !["else", "or", "and"].contains(name)
        case .string, .integer, .float, .symbol("["), .symbol("{"): true
        default: false
        }
    }
}
