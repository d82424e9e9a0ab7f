/// A value of a template, with Python's meaning.
enum JinjaValue {
    /// A missing variable, key or attribute; the message says which.
    case undefined(String)
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case text(JinjaText)
    case list(JinjaList)
    case tuple(JinjaList)
    case dict(JinjaDict)
    case namespace(JinjaNamespace)
    case loop(JinjaLoop)
    case macro(JinjaMacro)
    /// A global function, by name.
    case function(String)
    case method(JinjaMethod)

    static func text(_ string: String) -> JinjaValue { .text(JinjaText(string)) }

    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .int(let value): value != 0
        case .double(let value): value != 0
        case .text(let text): !text.isEmpty
        case .list(let list), .tuple(let list): !list.values.isEmpty
        case .dict(let dict): !dict.keys.isEmpty
        default: true
        }
    }

    /// The name of its type in Python, for messages.
    var typeName: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .bool: "bool"
        case .int: "int"
        case .double: "float"
        case .text: "str"
        case .list: "list"
        case .tuple: "tuple"
        case .dict: "dict"
        case .namespace: "Namespace"
        case .loop: "LoopContext"
        case .macro: "Macro"
        case .function: "function"
        case .method: "method"
        }
    }

    /// As a whole number, `True` counting as 1.
    var integer: Int? {
        switch self {
        case .int(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    var number: Double? {
        if case .double(let value) = self { return value }
        return integer.map(Double.init)
    }

    /// Maximum nesting of containers.
    var height: Int {
        switch self {
        case .list(let list), .tuple(let list): list.height
        case .dict(let dict): dict.height
        case .method(let method): 1 + method.receiver.height
        case .loop(let loop): loop.height
        default: 0
        }
    }
}

/// Values in a row: a list or a tuple.
final class JinjaList {
    var values: [JinjaValue]
    let height: Int

    init(_ values: [JinjaValue]) {
        self.values = values
        height = 1 + (values.map(\.height).max() ?? 0)
    }
}

/// A dictionary, which keeps the order of its keys.
final class JinjaDict {
    private(set) var keys: [JinjaValue] = []
    private(set) var values: [JinjaValue] = []
    private var positions: [JinjaKey: Int] = [:]
    private(set) var height = 1

    init() {}

    init(_ pairs: [(String, JinjaValue)]) {
        for (key, value) in pairs {
            let text = JinjaText(key)
            set(.text(text), .text(text), value)
        }
    }

    subscript(key: JinjaKey) -> JinjaValue? { positions[key].map { values[$0] } }

    subscript(name: String) -> JinjaValue? { self[.text(JinjaText(name))] }

    func set(_ key: JinjaKey, _ keyValue: JinjaValue, _ value: JinjaValue) {
        height = max(height, 1 + value.height)
        if let position = positions[key] {
            values[position] = value
        } else {
            positions[key] = keys.count
            keys.append(keyValue)
            values.append(value)
        }
    }
}

/// A value that can be a dictionary's key; 1, 1.0 and True are the same one.
enum JinjaKey: Hashable {
    case none
    case number(Double)
    case text(JinjaText)
    case tuple([JinjaKey])

    /// - Throws: ``JinjaError`` for values that cannot be keys.
    init(_ value: JinjaValue, meter: JinjaMeter) throws {
        switch value {
        case .none: self = .none
        case .bool, .int, .double: self = .number(value.number ?? 0)
        case .text(let text):
            try meter.step(text.count / 16)
            self = .text(text)
        case .tuple(let list) where list.height <= 2:
            try meter.step(list.values.count)
            self = .tuple(try list.values.map { try JinjaKey($0, meter: meter) })
        case .undefined(let message): throw meter.failure(message)
        default: throw meter.failure("a \(value.typeName) cannot be a key")
        }
    }
}

/// The value of `namespace()`: the only one whose attributes can be set.
final class JinjaNamespace {
    var attributes: [String: JinjaValue]

    init(_ attributes: [String: JinjaValue]) { self.attributes = attributes }
}

/// A method together with the value that it was looked up on.
final class JinjaMethod {
    let receiver: JinjaValue
    let name: String

    init(_ receiver: JinjaValue, _ name: String) { (self.receiver, self.name) = (receiver, name) }
}

/// A macro and the variables that it sees.
final class JinjaMacro {
    let definition: JinjaMacroDefinition
    let scope: JinjaScope

    init(_ definition: JinjaMacroDefinition, _ scope: JinjaScope) { (self.definition, self.scope) = (definition, scope) }
}

/// The variables of a block; other names are looked up in the enclosing blocks.
final class JinjaScope {
    var values: [String: JinjaValue] = [:]
    let parent: JinjaScope?

    init(_ parent: JinjaScope?) { self.parent = parent }

    func find(_ name: String) -> JinjaValue? {
        var scope: JinjaScope? = self
        while let current = scope {
            if let value = current.values[name] { return value }
            scope = current.parent
        }
        return nil
    }
}

/// The variable `loop`.
final class JinjaLoop {
    /// The values that passed the loop's test so far. They are tested as late as Jinja2 tests them, since the body may change the variables of the test.
    private var items: [JinjaValue] = []
    private var untested: ArraySlice<JinjaValue>
    private var passes: ((JinjaValue) throws -> Bool)?
    var index = 0
    let depth: Int
    /// The arguments of the last `changed`.
    var changed: JinjaValue?
    /// The statement that `loop(values)` runs again, in a recursive loop.
    let statement: JinjaForLoop
    /// The variables around a recursive loop; others do not need them.
    let scope: JinjaScope?
    let height: Int

    /// - Parameter passes: the loop's test.
    init(_ values: [JinjaValue], depth: Int, statement: JinjaForLoop, scope: JinjaScope?, passes: @escaping (JinjaValue) throws -> Bool) {
        (untested, self.depth, self.statement, self.scope, self.passes) = (values[...], depth, statement, scope, passes)
        height = 1 + (values.map(\.height).max() ?? 0)
    }

    /// Tests no further values, and so breaks a reference cycle: the test's variables may refer to this.
    func finish() { (passes, untested) = (nil, []) }

    /// The value at `index`, `nil` if there are not so many.
    func item(_ index: Int) throws -> JinjaValue? {
        while items.count <= index, let value = untested.popFirst() {
            if try passes?(value) == true { items.append(value) }
        }
        return index < items.count ? items[index] : nil
    }

    /// How many values there are: all of them are tested.
    func count() throws -> Int {
        _ = try item(.max)
        return items.count
    }

    func attribute(_ name: String) throws -> JinjaValue? {
        // All of these depend on how many values there are.
        if ["revindex", "revindex0", "length"].contains(name) { _ = try item(.max) }
        return switch name {
        case "index": .int(index + 1)
        case "index0": .int(index)
        case "revindex": .int(items.count - index)
        case "revindex0": .int(items.count - index - 1)
        case "first": .bool(index == 0)
        case "last": .bool(try item(index + 1) == nil)
        case "length": .int(items.count)
        case "depth": .int(depth + 1)
        case "depth0": .int(depth)
        case "previtem": index > 0 ? items[index - 1] : .undefined("there is no previous item")
        case "nextitem": try item(index + 1) ?? .undefined("there is no next item")
        default: nil
        }
    }
}

/// The arguments of a call, evaluated.
struct JinjaArguments {
    var positional: [JinjaValue] = []
    var keyword: [(name: String, value: JinjaValue)] = []

    /// The arguments in the order of `names`.
    /// - Parameter function: the name in messages.
    func bind(_ names: [String], _ function: String, meter: JinjaMeter) throws -> [JinjaValue?] {
        guard positional.count <= names.count else {
            throw meter.failure("\(function): expected at most \(names.count) arguments, found \(positional.count)")
        }
        var values: [JinjaValue?] = positional
        values += [JinjaValue?](repeating: nil, count: names.count - positional.count)
        for (name, value) in keyword {
            guard let index = names.firstIndex(of: name) else { throw meter.failure("\(function): there is no argument \"\(name)\"") }
            guard values[index] == nil else { throw meter.failure("\(function): two values for the argument \"\(name)\"") }
            values[index] = value
        }
        return values
    }
}
