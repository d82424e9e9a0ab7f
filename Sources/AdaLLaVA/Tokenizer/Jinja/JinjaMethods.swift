/// Methods of lists, dictionaries and loops.
extension JinjaInterpreter {
    static let dictMethods: Set<String> = ["get", "items", "keys", "values"]
    static let listMethods: Set<String> = ["append", "extend", "insert", "pop", "index", "count"]
    static let tupleMethods: Set<String> = ["index", "count"]
    static let loopMethods: Set<String> = ["cycle", "changed"]

    func method(_ name: String, of receiver: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch receiver {
        case .text(let text): return try method(name, of: text, arguments)
        case .dict(let dict): return try method(name, of: dict, arguments)
        case .list(let list), .tuple(let list): return try method(name, of: list, arguments)
        case .loop(let loop):
            guard !arguments.positional.isEmpty else { throw meter.failure("loop.\(name): expected at least one value") }
            if name == "cycle" { return arguments.positional[loop.index % arguments.positional.count] }
            let value = JinjaValue.tuple(try makeList(arguments.positional))
            if let last = loop.changed, try comparison.equal(last, value) { return .bool(false) }
            try register(loop)
            loop.changed = value
            return .bool(true)
        default: throw meter.failure("a \(receiver.typeName) has no method \(name)")
        }
    }

    private func method(_ name: String, of dict: JinjaDict, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch name {
        case "get":
            let values = try arguments.bind(["key", "default"], "get", meter: meter)
            guard let key = values[0] else { throw meter.failure("get: expected a key") }
            return dict[try JinjaKey(key, meter: meter)] ?? values[1] ?? .none
        case "items": return .list(try items(of: dict))
        case "keys": return .list(try makeList(dict.keys))
        default: return .list(try makeList(dict.values))
        }
    }

    /// Pairs of key and value.
    func items(of dict: JinjaDict) throws -> JinjaList {
        try makeList(try zip(dict.keys, dict.values).map { .tuple(try makeList([$0, $1])) })
    }

    private func method(_ name: String, of list: JinjaList, _ arguments: JinjaArguments) throws -> JinjaValue {
        let given = arguments.positional
        func only() throws -> JinjaValue {
            guard given.count == 1, arguments.keyword.isEmpty else { throw meter.failure("\(name): expected one argument, found \(given.count)") }
            return given[0]
        }
        switch name {
        case "append":
            let value = try only()
            try register(list)
            list.values.append(value)
        case "extend":
            let values = try iterate(try only())
            try register(list)
            try meter.allocateContainer(values.count)
            list.values += values
        case "insert":
            guard given.count == 2, let index = given[0].integer else { throw meter.failure("insert: expected a position and a value") }
            try register(list)
            try meter.step(list.values.count / 16)
            list.values.insert(given[1], at: min(max(index < 0 ? index &+ list.values.count : index, 0), list.values.count))
        case "pop":
            guard given.count <= 1, let index = given.isEmpty ? -1 : given[0].integer else { throw meter.failure("pop: expected a position") }
            let position = index < 0 ? index &+ list.values.count : index
            guard list.values.indices.contains(position) else { throw meter.failure("pop: there is no element \(index)") }
            try register(list)
            try meter.step(list.values.count / 16)
            return list.values.remove(at: position)
        case "index":
            let value = try only()
            for (index, item) in list.values.enumerated() where try comparison.equal(item, value) { return .int(index) }
            throw meter.failure("index: the value is not in the list")
        default:
            let value = try only()
            var count = 0
            for item in list.values where try comparison.equal(item, value) { count += 1 }
            return .int(count)
        }
        return .none
    }
}
