/// Jinja's tests: `value is name`.
extension JinjaInterpreter {
    func test(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments) throws -> Bool {
        func other() throws -> JinjaValue {
            guard arguments.positional.count == 1 else {
                throw meter.failure("the test \"\(name)\": expected one argument, found \(arguments.positional.count)")
            }
            return arguments.positional[0]
        }
        switch name {
        case "==", "eq", "equalto": return try comparison.compare("==", value, try other())
        case "!=", "ne": return try comparison.compare("!=", value, try other())
        case "<", "lt", "lessthan": return try comparison.compare("<", value, try other())
        case "<=", "le": return try comparison.compare("<=", value, try other())
        case ">", "gt", "greaterthan": return try comparison.compare(">", value, try other())
        case ">=", "ge": return try comparison.compare(">=", value, try other())
        case "in": return try comparison.contains(try other(), value)
        case "sameas": return try isSame(value, try other())
        case "odd", "even", "divisibleby":
            guard let number = value.integer else { throw meter.failure("the test \"\(name)\": expected a whole number, found \(value.typeName)") }
            if name != "divisibleby" { return (number % 2 == 0) == (name == "even") }
            guard let divisor = try other().integer, divisor != 0 else { throw meter.failure("division by zero") }
            return divisor == -1 || number % divisor == 0
        case "lower", "upper":
            let text = try spelling.string(value)
            guard case .bool(let holds) = try method(name == "lower" ? "islower" : "isupper", of: text, JinjaArguments()) else { return false }
            return holds
        case "filter", "test":
            // Only the name is looked up; nothing is applied.
            return try spelling.string(value).count > 0
        default:
            guard arguments.positional.isEmpty else { throw meter.failure("the test \"\(name)\": expected no arguments") }
            guard let holds = isOfKind(name, value) else { throw meter.failure("there is no test \"\(name.prefix(40))\"") }
            return holds
        }
    }

    /// Tests of a value's type; `nil` if there is no such test.
    private func isOfKind(_ name: String, _ value: JinjaValue) -> Bool? {
        switch (name, value) {
        case ("defined", .undefined): false
        case ("defined", _): true
        case ("undefined", .undefined), ("none", .none), ("string", .text), ("mapping", .dict), ("boolean", .bool), ("float", .double): true
        case ("integer", .int), ("number", .int), ("number", .double), ("number", .bool): true
        case ("true", .bool(let value)): value
        case ("false", .bool(let value)): !value
        case ("iterable", .text), ("iterable", .list), ("iterable", .tuple), ("iterable", .dict), ("iterable", .undefined), ("iterable", .loop): true
        case ("sequence", .text), ("sequence", .list), ("sequence", .tuple), ("sequence", .dict), ("sequence", .undefined): true
        case ("callable", .macro), ("callable", .function), ("callable", .method), ("callable", .undefined): true
        case ("undefined", _), ("none", _), ("string", _), ("mapping", _), ("boolean", _), ("float", _), ("integer", _), ("number", _),
            ("true", _), ("false", _), ("iterable", _), ("sequence", _), ("callable", _), ("escaped", _):
            false
        default: nil
        }
    }

    private func isSame(_ left: JinjaValue, _ right: JinjaValue) throws -> Bool {
        switch (left, right) {
        case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)): left === right
        case (.dict(let left), .dict(let right)): left === right
        case (.bool, .int), (.int, .bool), (.double, .int), (.int, .double), (.bool, .double), (.double, .bool): false
        default: try comparison.equal(left, right)
        }
    }
}
