import Foundation

/// Runs a template once.
final class JinjaInterpreter {
    let meter: JinjaMeter
    let now: Date
    /// Text written so far into the innermost captured block, or into the prompt.
    var output = JinjaText()
    private var calls = 0
    private var depth = 0
    private var loopDepth = 0
    /// Values that can come to refer to themselves; emptied at the end, so that no reference cycle leaks and no deep chain is released
    /// recursively.
    private var scopes: [JinjaScope] = []
    private var namespaces: [JinjaNamespace] = []
    private var mutatedLists: [JinjaList] = []
    private var changedLoops: [JinjaLoop] = []

    init(meter: JinjaMeter, now: Date) {
        (self.meter, self.now) = (meter, now)
    }

    /// How a block ended.
    enum Flow {
        case normal, leavesLoop, nextItem
    }

    var comparison: JinjaComparison { JinjaComparison(meter: meter) }
    var spelling: JinjaSpelling { JinjaSpelling(meter: meter) }

    /// The template's text with these variables.
    func render(_ statements: [JinjaStatement], variables: [String: JinjaValue]) throws -> JinjaText {
        defer { releaseAll() }
        let global = JinjaScope(nil)
        global.values = variables
        for name in ["range", "namespace", "dict", "raise_exception", "strftime_now"] where global.values[name] == nil {
            global.values[name] = .function(name)
        }
        _ = try run(statements, JinjaScope(global))
        return output
    }

    private func releaseAll() {
        for list in mutatedLists { list.values = [] }
        for loop in changedLoops { loop.changed = nil }
        for namespace in namespaces { namespace.attributes = [:] }
        for scope in scopes { scope.values = [:] }
        (mutatedLists, changedLoops, namespaces, scopes) = ([], [], [], [])
    }

    /// Called before a namespace is handed out.
    func register(_ namespace: JinjaNamespace) { namespaces.append(namespace) }

    /// Called before a loop keeps values.
    func register(_ loop: JinjaLoop) throws {
        try meter.allocateContainer(1)
        changedLoops.append(loop)
    }

    /// Called before a list is changed in place.
    func register(_ list: JinjaList) throws {
        try meter.allocateContainer(1)
        mutatedLists.append(list)
    }

    /// Runs `body` one level deeper on the stack.
    func deeper<Result>(_ body: () throws -> Result) throws -> Result {
        depth += 1
        defer { depth -= 1 }
        guard depth <= meter.limits.depth else { throw meter.limit("nested evaluation", meter.limits.depth) }
        return try body()
    }

    /// Runs `body` as a macro's or a recursive loop's, and returns its text.
    func captured(_ body: () throws -> Void) throws -> JinjaText {
        let outer = output
        output = JinjaText()
        defer { output = outer }
        try body()
        return output
    }

    private func called(_ body: () throws -> Void) throws -> JinjaText {
        guard calls < meter.limits.calls else { throw meter.limit("nested calls", meter.limits.calls) }
        calls += 1
        defer { calls -= 1 }
        return try captured(body)
    }

    // MARK: - Statements

    func run(_ statements: [JinjaStatement], _ scope: JinjaScope) throws -> Flow {
        try deeper {
            for statement in statements {
                meter.line = statement.line
                try meter.step()
                let flow = try run(statement.kind, scope)
                if flow != .normal { return flow }
            }
            return .normal
        }
    }

    private func run(_ statement: JinjaStatement.Kind, _ scope: JinjaScope) throws -> Flow {
        switch statement {
        case .text(let text): try write(text)
        case .output(let expression): try write(try spelling.string(try evaluate(expression, scope)))
        case .if(let branches, let otherwise):
            for (test, body) in branches where try evaluate(test, scope).isTrue { return try run(body, scope) }
            return try run(otherwise, scope)
        case .for(let loop):
            let isDone = try run(loop, scope, depth: 0)
            return isDone ? .normal : try run(loop.otherwise, JinjaScope(scope))
        case .set(let target, let value): try assign(try evaluate(value, scope), to: target, scope)
        case .setBlock(let target, let filter, let body):
            let inner = try makeScope(scope)
            var value = JinjaValue.text(try captured { _ = try run(body, inner) })
            if let filter { value = try evaluate(filter, inner, filtering: value) }
            try assign(value, to: target, scope)
        case .filterBlock(let filter, let body):
            let inner = try makeScope(scope)
            let text = try captured { _ = try run(body, inner) }
            try write(try spelling.string(try evaluate(filter, inner, filtering: .text(text))))
        case .with(let pairs, let body):
            let inner = try makeScope(scope)
            for (target, value) in pairs { try assign(try evaluate(value, scope), to: target, inner) }
            return try run(body, inner)
        case .scope(let body): return try run(body, try makeScope(scope))
        case .macro(let definition):
            scopes.append(scope)
            scope.values[definition.name] = .macro(JinjaMacro(definition, scope))
        case .callBlock(let call, let caller):
            scopes.append(scope)
            try write(try spelling.string(try evaluate(call, scope, caller: JinjaMacro(caller, scope))))
        case .break: return .leavesLoop
        case .continue: return .nextItem
        }
        return .normal
    }

    private func makeScope(_ parent: JinjaScope) throws -> JinjaScope {
        try meter.allocateContainer(1)
        return JinjaScope(parent)
    }

    private func write(_ text: JinjaText) throws {
        try meter.allocate(text.count)
        guard output.count + text.count <= meter.outputLimit else { throw meter.limit("output", meter.outputLimit) }
        output.append(text)
    }

    func assign(_ value: JinjaValue, to target: JinjaTarget, _ scope: JinjaScope) throws {
        switch target {
        case .name(let name): scope.values[name] = value
        case .attribute(let name, let attribute):
            guard case .namespace(let namespace)? = scope.find(name) else {
                throw meter.failure("\"\(name).\(attribute)\" is set, but only a namespace's attributes can be; \(name) is none")
            }
            try meter.allocateContainer(1)
            namespace.attributes[attribute] = value
        case .tuple(let targets):
            let values = try iterate(value)
            guard values.count == targets.count else {
                throw meter.failure("expected \(targets.count) values to assign, found \(values.count)")
            }
            for (target, value) in zip(targets, values) { try assign(value, to: target, scope) }
        }
    }

    // MARK: - Loops

    /// Runs a loop; `false` if there was nothing to run it on.
    private func run(_ statement: JinjaForLoop, _ scope: JinjaScope, depth: Int) throws -> Bool {
        let values = try iterate(try evaluate(statement.values, scope))
        return try run(statement, over: values, scope, depth: depth)
    }

    private func run(_ statement: JinjaForLoop, over values: [JinjaValue], _ scope: JinjaScope, depth: Int) throws -> Bool {
        let loop = JinjaLoop(values, depth: depth, statement: statement, scope: statement.isRecursive ? scope : nil) { value in
            guard let test = statement.test else { return true }
            let inner = try self.makeScope(scope)
            try self.assign(value, to: statement.target, inner)
            return try self.evaluate(test, inner).isTrue
        }
        defer { loop.finish() }
        try checkHeight(loop.height)
        if statement.isRecursive { scopes.append(scope) }
        while let item = try loop.item(loop.index) {
            try meter.step()
            let inner = try makeScope(scope)
            inner.values["loop"] = .loop(loop)
            try assign(item, to: statement.target, inner)
            if try run(statement.body, inner) == .leavesLoop { return true }
            loop.index += 1
        }
        return loop.index > 0
    }

    /// `loop(values)`: the recursive loop's body for other values.
    func recurse(_ loop: JinjaLoop, _ values: JinjaValue) throws -> JinjaText {
        guard let scope = loop.scope else { throw meter.failure("\"loop\" is called, but its loop is not marked recursive") }
        let values = try iterate(values)
        return try called {
            if try !run(loop.statement, over: values, scope, depth: loop.depth + 1) {
                _ = try run(loop.statement.otherwise, JinjaScope(scope))
            }
        }
    }

    /// The values that a loop over `value` takes.
    func iterate(_ value: JinjaValue) throws -> [JinjaValue] {
        switch value {
        case .list(let list), .tuple(let list): return list.values
        case .dict(let dict): return dict.keys
        case .undefined: return []
        case .text(let text):
            try meter.allocate(text.count, of: 128)
            return (0..<text.count).map { .text(text[$0..<$0 + 1]) }
        default: throw meter.failure("a \(value.typeName) cannot be looped over")
        }
    }

    // MARK: - Macros

    func call(_ macro: JinjaMacro, _ arguments: JinjaArguments, caller: JinjaMacro?) throws -> JinjaValue {
        let definition = macro.definition
        let scope = try makeScope(macro.scope)
        var keyword = arguments.keyword
        if let caller { keyword.append(("caller", .macro(caller))) }
        let given = arguments.positional.prefix(definition.parameters.count)
        let extra = Array(arguments.positional.dropFirst(definition.parameters.count))
        for (index, parameter) in definition.parameters.enumerated() {
            if let named = keyword.firstIndex(where: { $0.name == parameter.name }) {
                guard index >= given.count else { throw meter.failure("\(definition.name): two values for the argument \"\(parameter.name)\"") }
                scope.values[parameter.name] = keyword.remove(at: named).value
            } else if index < given.count {
                scope.values[parameter.name] = given[index]
            } else if let standard = parameter.standard {
                scope.values[parameter.name] = try evaluate(standard, scope)
            } else {
                scope.values[parameter.name] = .undefined("\(definition.name): the parameter \"\(parameter.name)\" was not given")
            }
        }
        if definition.mentions.contains("caller"), scope.values["caller"] == nil {
            let index = keyword.firstIndex { $0.name == "caller" }
            scope.values["caller"] = index.map { keyword.remove(at: $0).value } ?? .undefined("there is no caller")
        }
        if definition.mentions.contains("varargs") {
            scope.values["varargs"] = .tuple(try makeList(extra))
        } else if !extra.isEmpty {
            throw meter.failure("\(definition.name): expected at most \(definition.parameters.count) arguments, found \(arguments.positional.count)")
        }
        if definition.mentions.contains("kwargs") {
            scope.values["kwargs"] = .dict(try makeDict(keyword))
        } else if let (name, _) = keyword.first {
            throw meter.failure("\(definition.name): there is no argument \"\(name)\"")
        }
        return .text(try called { _ = try run(definition.body, scope) })
    }
}
