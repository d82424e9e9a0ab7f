extension JinjaInterpreter {
    /// The value of an expression.
    /// - Parameters:
    ///   - filtering: the text of a filter block, which a filter without a value of its own is applied to.
    ///   - caller: the body of a `call` block, for the call that the expression is.
    func evaluate(
        _ expression: JinjaExpression, _ scope: JinjaScope, filtering: JinjaValue? = nil, caller: JinjaMacro? = nil
    ) throws -> JinjaValue {
        try meter.step()
        switch expression.kind {
        case .none: return .none
        case .bool(let value): return .bool(value)
        case .int(let value): return .int(value)
        case .double(let value): return .double(value)
        case .text(let text): return .text(text)
        case .name(let name): return scope.find(name) ?? .undefined("\"\(name)\" is undefined")
        default:
            let outerLine = meter.line
            meter.line = expression.line
            let value = try deeper { try evaluateNested(expression, scope, filtering, caller) }
            meter.line = outerLine
            return value
        }
    }

    private func evaluateNested(
        _ expression: JinjaExpression, _ scope: JinjaScope, _ filtering: JinjaValue?, _ caller: JinjaMacro?
    ) throws -> JinjaValue {
        switch expression.kind {
        case .attribute(let value, let name): return try attribute(name, of: try evaluate(value, scope))
        case .item(let value, let key):
            let value = try evaluate(value, scope)
            return try item(try evaluate(key, scope), of: value)
        case .slice(let value, let start, let stop, let step):
            let value = try evaluate(value, scope)
            return try slice(
                value, try start.map { try evaluate($0, scope) }, try stop.map { try evaluate($0, scope) },
                try step.map { try evaluate($0, scope) })
        case .call(let callee, let arguments):
            let callee = try evaluate(callee, scope)
            return try call(callee, try evaluate(arguments, scope), caller)
        case .filter(let value, let name, let arguments):
            let value = try value.map { try evaluate($0, scope, filtering: filtering) } ?? filtering ?? .undefined("there is nothing to filter")
            return try filter(name, value, try evaluate(arguments, scope))
        case .test(let value, let name, let arguments):
            let value = try evaluate(value, scope)
            return .bool(try test(name, value, try evaluate(arguments, scope)))
        case .arithmetic(let first, let rest):
            var value = try evaluate(first, scope)
            for (symbol, operand) in rest { value = try compute(symbol, value, try evaluate(operand, scope)) }
            return value
        case .compare(let first, let rest):
            var left = try evaluate(first, scope)
            for (symbol, operand) in rest {
                let right = try evaluate(operand, scope)
                guard try comparison.compare(symbol, left, right) else { return .bool(false) }
                left = right
            }
            return .bool(true)
        default: return try evaluateSimple(expression, scope)
        }
    }

    private func evaluateSimple(_ expression: JinjaExpression, _ scope: JinjaScope) throws -> JinjaValue {
        switch expression.kind {
        case .list(let values), .tuple(let values):
            let list = try makeList(try values.map { try evaluate($0, scope) })
            if case .list = expression.kind { return .list(list) }
            return .tuple(list)
        case .dict(let pairs):
            try meter.allocateContainer(2 * pairs.count)
            let dict = JinjaDict()
            for (key, value) in pairs {
                let key = try evaluate(key, scope)
                dict.set(try JinjaKey(key, meter: meter), key, try evaluate(value, scope))
            }
            try checkHeight(dict.height)
            return .dict(dict)
        case .not(let value): return .bool(try !evaluate(value, scope).isTrue)
        case .negative(let value): return try compute("-", .int(0), try evaluate(value, scope), isSign: true)
        case .positive(let value): return try compute("+", .int(0), try evaluate(value, scope), isSign: true)
        case .concat(let values):
            var text = JinjaText()
            for value in values {
                let more = try spelling.string(try evaluate(value, scope))
                try meter.allocate(more.count)
                text.append(more)
            }
            return .text(text)
        case .and(let values):
            var value = JinjaValue.none
            for operand in values {
                value = try evaluate(operand, scope)
                if !value.isTrue { break }
            }
            return value
        case .or(let values):
            var value = JinjaValue.none
            for operand in values {
                value = try evaluate(operand, scope)
                if value.isTrue { break }
            }
            return value
        case .conditional(let test, let then, let otherwise):
            if try evaluate(test, scope).isTrue { return try evaluate(then, scope) }
            return try otherwise.map { try evaluate($0, scope) } ?? .undefined("the inline if has no else")
        default: return .none
        }
    }

    /// Containers in containers are limited, since copying, comparing and releasing them recurs.
    func checkHeight(_ height: Int) throws {
        guard height <= meter.limits.nesting else { throw meter.limit("nested values", meter.limits.nesting) }
    }

    func makeList(_ values: [JinjaValue]) throws -> JinjaList {
        try meter.allocateContainer(values.count)
        let list = JinjaList(values)
        try checkHeight(list.height)
        return list
    }

    func makeDict(_ pairs: [(name: String, value: JinjaValue)]) throws -> JinjaDict {
        try meter.allocateContainer(2 * pairs.count)
        let dict = JinjaDict(pairs.map { ($0.name, $0.value) })
        try checkHeight(dict.height)
        return dict
    }

    private func evaluate(_ arguments: JinjaCallArguments, _ scope: JinjaScope) throws -> JinjaArguments {
        var result = JinjaArguments()
        for argument in arguments.positional { result.positional.append(try evaluate(argument, scope)) }
        for (name, value) in arguments.keyword { result.keyword.append((name, try evaluate(value, scope))) }
        if let list = arguments.spreadList { result.positional += try iterate(try evaluate(list, scope)) }
        if let spread = arguments.spreadDict {
            guard case .dict(let dict) = try evaluate(spread, scope) else { throw meter.failure("** expects a dict") }
            for (key, value) in zip(dict.keys, dict.values) { result.keyword.append((try spelling.string(key).string, value)) }
        }
        try meter.step(result.positional.count + result.keyword.count)
        return result
    }

    private func call(_ callee: JinjaValue, _ arguments: JinjaArguments, _ caller: JinjaMacro?) throws -> JinjaValue {
        switch callee {
        case .macro(let macro): return try call(macro, arguments, caller: caller)
        case .function(let name): return try function(name, arguments)
        case .method(let method): return try self.method(method.name, of: method.receiver, arguments)
        case .loop(let loop):
            guard let values = arguments.positional.first else { throw meter.failure("loop: expected the values to loop over") }
            return .text(try recurse(loop, values))
        case .undefined(let message): throw meter.failure(message)
        default: throw meter.failure("a \(callee.typeName) cannot be called")
        }
    }

    // MARK: - Attributes and subscripts

    /// `value.name`
    func attribute(_ name: String, of value: JinjaValue) throws -> JinjaValue {
        if let method = bound(name, to: value) { return method }
        switch value {
        case .undefined(let message): throw meter.failure(message)
        case .dict(let dict): return dict[name] ?? missing(name, value)
        case .namespace(let namespace): return namespace.attributes[name] ?? missing(name, value)
        case .loop(let loop): return try loop.attribute(name) ?? missing(name, value)
        case .macro(let macro) where name == "name": return .text(macro.definition.name)
        default: return missing(name, value)
        }
    }

    private func bound(_ name: String, to value: JinjaValue) -> JinjaValue? {
        let methods: Set<String> = switch value {
        case .text: Self.textMethods
        case .dict: Self.dictMethods
        case .list: Self.listMethods
        case .tuple: Self.tupleMethods
        case .loop: Self.loopMethods
        default: []
        }
        return methods.contains(name) ? .method(JinjaMethod(value, name)) : nil
    }

    private func missing(_ name: String, _ value: JinjaValue) -> JinjaValue {
        .undefined("\(value.typeName == "NoneType" ? "None" : "a " + value.typeName) has no attribute \"\(name.prefix(60))\"")
    }

    /// `value[key]`
    func item(_ key: JinjaValue, of value: JinjaValue) throws -> JinjaValue {
        switch value {
        case .undefined(let message): throw meter.failure(message)
        case .dict(let dict):
            if case .list = key { break }
            if let found = dict[try JinjaKey(key, meter: meter)] { return found }
        case .list(let list), .tuple(let list):
            if let index = key.integer { return try position(index, list.values.count).map { list.values[$0] } ?? missing("\(index)", value) }
        case .text(let text):
            if let index = key.integer {
                return try position(index, text.count).map { .text(text[$0..<$0 + 1]) } ?? missing("\(index)", value)
            }
        default: break
        }
        if case .text(let name) = key {
            try meter.step(name.count / 16)
            return try attribute(name.string, of: value)
        }
        return .undefined("a \(value.typeName) has no such element")
    }

    private func position(_ index: Int, _ count: Int) throws -> Int? {
        let position = index < 0 ? index &+ count : index
        return (0..<count).contains(position) ? position : nil
    }

    private func slice(_ value: JinjaValue, _ start: JinjaValue?, _ stop: JinjaValue?, _ step: JinjaValue?) throws -> JinjaValue {
        func bound(_ value: JinjaValue?) throws -> Int? {
            guard let value else { return nil }
            if case .none = value { return nil }
            if case .undefined(let message) = value { throw meter.failure(message) }
            guard let number = value.integer else { throw meter.failure("a slice's bounds are whole numbers, not a \(value.typeName)") }
            return number
        }
        let count: Int
        switch value {
        case .text(let text): count = text.count
        case .list(let list), .tuple(let list): count = list.values.count
        case .undefined(let message): throw meter.failure(message)
        default: return .undefined("a \(value.typeName) cannot be sliced")
        }
        let step = try bound(step) ?? 1
        guard step != 0 else { throw meter.failure("a slice's step cannot be zero") }
        let (start, stop) = (try bound(start), try bound(stop))
        if step == 1, case .text(let text) = value {
            let range = Self.clamp(start ?? 0, count, low: 0, high: count)..<count
            let end = max(range.lowerBound, Self.clamp(stop ?? count, count, low: 0, high: count))
            try meter.allocate(end - range.lowerBound)
            return .text(text[range.lowerBound..<end])
        }
        let indices = Self.indices(count, start, stop, step)
        switch value {
        case .text(let text):
            try meter.allocate(indices.count)
            var result = JinjaText()
            for index in indices { result.append(text.scalars[index], text.origin(at: index)) }
            return .text(result)
        case .list(let list): return .list(try makeList(indices.map { list.values[$0] }))
        case .tuple(let list): return .tuple(try makeList(indices.map { list.values[$0] }))
        default: return value
        }
    }

    private static func clamp(_ index: Int, _ count: Int, low: Int, high: Int) -> Int {
        min(max(index < 0 ? index &+ count : index, low), high)
    }

    /// The positions that Python's slices take.
    private static func indices(_ count: Int, _ start: Int?, _ stop: Int?, _ step: Int) -> [Int] {
        guard count > 0 else { return [] }
        let (low, high) = step > 0 ? (0, count) : (-1, count - 1)
        let first = start.map { clamp($0, count, low: low, high: high) } ?? (step > 0 ? 0 : count - 1)
        let end = stop.map { clamp($0, count, low: low, high: high) } ?? (step > 0 ? count : -1)
        // A step longer than the values takes at most one of them.
        let step = min(max(step, -count), count)
        return Array(stride(from: first, to: end, by: step))
    }
}
