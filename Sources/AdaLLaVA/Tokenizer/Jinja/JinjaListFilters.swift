/// Jinja's filters on values in a row.
extension JinjaInterpreter {
    /// The filter's result, or `nil` if it is none of these.
    func listFilter(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue? {
        func bind(_ names: String...) throws -> [JinjaValue?] { try arguments.bind(names, name, meter: meter) }
        switch name {
        case "length", "count": return .int(try length(value))
        case "list": return .list(try makeList(try iterate(value)))
        case "first": return try iterate(value).first ?? .undefined("first: there are no values")
        case "last": return try iterate(value).last ?? .undefined("last: there are no values")
        case "join":
            let values = try bind("d", "attribute")
            let items = try values[1].map { try getter($0) }.map { get in try iterate(value).map(get) } ?? iterate(value)
            return .text(try joined(items, try values[0].map { try spelling.string($0) } ?? JinjaText(), isStrict: false))
        case "reverse":
            if case .text(let text) = value {
                try meter.allocate(text.count)
                var reversed = JinjaText()
                for index in text.scalars.indices.reversed() { reversed.append(text.scalars[index], text.origin(at: index)) }
                return .text(reversed)
            }
            return .list(try makeList(try iterate(value).reversed()))
        case "sort":
            let values = try bind("reverse", "case_sensitive", "attribute")
            let key = try keys(values[2], isCaseSensitive: values[1]?.isTrue ?? false)
            return .list(try makeList(try comparison.sorted(try iterate(value), isReversed: values[0]?.isTrue ?? false, key: key)))
        case "dictsort": return try dictsorted(value, try bind("case_sensitive", "by", "reverse"))
        case "unique":
            let values = try bind("case_sensitive", "attribute")
            let key = try keys(values[1], isCaseSensitive: values[0]?.isTrue ?? false)
            var seen: Set<JinjaKey> = []
            return .list(try makeList(try iterate(value).filter { seen.insert(try JinjaKey(try key($0), meter: meter)).inserted }))
        case "min", "max":
            let values = try bind("case_sensitive", "attribute")
            let key = try keys(values[1], isCaseSensitive: values[0]?.isTrue ?? false)
            var best: (key: JinjaValue, value: JinjaValue)?
            for item in try iterate(value) {
                let itemKey = try key(item)
                if let found = best, try name == "min" ? !comparison.less(itemKey, found.key) : !comparison.less(found.key, itemKey) { continue }
                best = (itemKey, item)
            }
            return best?.value ?? .undefined("\(name): there are no values")
        case "sum":
            let values = try bind("attribute", "start")
            let get = try values[0].map { try getter($0) }
            return try iterate(value).reduce(values[1] ?? .int(0)) { try compute("+", $0, try get?($1) ?? $1) }
        case "batch":
            let values = try bind("linecount", "fill_with")
            guard let size = values[0]?.integer, size > 0 else { throw meter.failure("batch: expected a size above 0") }
            return .list(try batches(try iterate(value), size, values[1]))
        case "map": return .list(try makeList(try mapped(value, arguments)))
        case "select", "reject": return .list(try makeList(try selected(value, arguments, keeps: name == "select", hasAttribute: false)))
        case "selectattr", "rejectattr":
            return .list(try makeList(try selected(value, arguments, keeps: name == "selectattr", hasAttribute: true)))
        default: return nil
        }
    }

    private func length(_ value: JinjaValue) throws -> Int {
        switch value {
        case .text(let text): return text.count
        case .list(let list), .tuple(let list): return list.values.count
        case .dict(let dict): return dict.keys.count
        case .loop(let loop): return try loop.count()
        case .undefined: return 0
        default: throw meter.failure("length: a \(value.typeName) has none")
        }
    }

    /// Looks up `a.b.0` in values.
    private func getter(_ attribute: JinjaValue) throws -> (JinjaValue) throws -> JinjaValue {
        if let index = attribute.integer { return { try self.item(.int(index), of: $0) } }
        let parts = try split(try requiredText(attribute, "attribute"), JinjaText("."), limit: -1, fromRight: false).values.map { part in
            if case .text(let text) = part, text.count < 10, let index = Int(text.string), index >= 0 { return JinjaValue.int(index) }
            return part
        }
        return { value in
            try self.meter.step(parts.count)
            return try parts.reduce(value) { try self.item($1, of: $0) }
        }
    }

    /// The sort key of values: an attribute or several with commas between, texts in lower case.
    private func keys(_ attribute: JinjaValue?, isCaseSensitive: Bool) throws -> (JinjaValue) throws -> JinjaValue {
        func folded(_ value: JinjaValue) throws -> JinjaValue {
            guard !isCaseSensitive, case .text(let text) = value else { return value }
            return try method("lower", of: text, JinjaArguments())
        }
        guard let attribute, attribute.isTrue || attribute.integer != nil else { return folded }
        guard case .text(let text) = attribute, text.scalars.contains(",") else {
            let get = try getter(attribute)
            return { try folded(try get($0)) }
        }
        let getters = try split(text, JinjaText(","), limit: -1, fromRight: false).values.map { try getter($0) }
        return { value in .list(try self.makeList(try getters.map { try folded(try $0(value)) })) }
    }

    private func dictsorted(_ value: JinjaValue, _ values: [JinjaValue?]) throws -> JinjaValue {
        guard case .dict(let dict) = value else { throw meter.failure("dictsort: expected a dict, found \(value.typeName)") }
        let by = try optionalText(values[1], "dictsort")?.string ?? "key"
        guard by == "key" || by == "value" else { throw meter.failure("dictsort: sorted by key or by value") }
        let key = try keys(.int(by == "key" ? 0 : 1), isCaseSensitive: values[0]?.isTrue ?? false)
        return .list(try makeList(try comparison.sorted(try items(of: dict).values, isReversed: values[2]?.isTrue ?? false, key: key)))
    }

    private func batches(_ items: [JinjaValue], _ size: Int, _ fill: JinjaValue?) throws -> JinjaList {
        var batches: [JinjaValue] = []
        for start in stride(from: 0, to: items.count, by: size) {
            var batch = Array(items[start..<(items.count - start > size ? start + size : items.count)])
            if let fill, batch.count < size {
                try meter.allocate(size, of: 40)
                batch += [JinjaValue](repeating: fill, count: size - batch.count)
            }
            batches.append(.list(try makeList(batch)))
        }
        return try makeList(batches)
    }

    private func mapped(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> [JinjaValue] {
        let items = try iterate(value)
        if arguments.positional.isEmpty, let attribute = arguments.keyword.first(where: { $0.name == "attribute" }) {
            let get = try getter(attribute.value)
            let standard = arguments.keyword.first { $0.name == "default" }?.value
            return try items.map { item in
                let found = try get(item)
                if case .undefined = found { return standard ?? found }
                return found
            }
        }
        guard case .text(let name)? = arguments.positional.first else { throw meter.failure("map: expected a filter's name or an attribute") }
        let rest = JinjaArguments(positional: Array(arguments.positional.dropFirst()), keyword: arguments.keyword)
        let filterName = name.string
        return try items.map { item in
            try meter.step()
            return try deeper { try filter(filterName, item, rest) }
        }
    }

    private func selected(_ value: JinjaValue, _ arguments: JinjaArguments, keeps: Bool, hasAttribute: Bool) throws -> [JinjaValue] {
        var rest = arguments
        var get: ((JinjaValue) throws -> JinjaValue)?
        if hasAttribute {
            guard !rest.positional.isEmpty else { throw meter.failure("selectattr: expected an attribute") }
            get = try getter(rest.positional.removeFirst())
        }
        var testName: String?
        if !rest.positional.isEmpty { testName = try requiredText(rest.positional.removeFirst(), "select").string }
        return try iterate(value).filter { item in
            try meter.step()
            let subject = try get?(item) ?? item
            return try (testName.map { try test($0, subject, rest) } ?? subject.isTrue) == keeps
        }
    }
}
