import Foundation

/// Jinja's filters, as far as chat templates use them: those on text, numbers and single values.
extension JinjaInterpreter {
    func filter(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        if let result = try listFilter(name, value, arguments) { return result }
        func bind(_ names: String...) throws -> [JinjaValue?] { try arguments.bind(names, name, meter: meter) }
        switch name {
        case "default", "d":
            let values = try bind("default_value", "boolean")
            let isMissing = if case .undefined = value { true } else { values[1]?.isTrue == true && !value.isTrue }
            return isMissing ? values[0] ?? .text(JinjaText()) : value
        case "safe", "string", "forceescape", "escape", "e":
            let text = try spelling.string(value)
            return .text(name == "safe" || name == "string" ? text : try escaped(text))
        case "trim":
            let characters = try optionalText(try bind("chars")[0], name)
            return .text(try stripped(try spelling.string(value), characters))
        case "upper", "lower", "capitalize": return try method(name, of: try spelling.string(value), arguments)
        case "title": return .text(try titled(try spelling.string(value)))
        case "replace":
            let values = try bind("old", "new", "count")
            guard let old = values[0], let new = values[1] else { throw meter.failure("replace: expected the text to replace and its replacement") }
            return .text(
                try replaced(
                    try spelling.string(value), try spelling.string(old), try spelling.string(new), limit: values[2]?.integer ?? -1))
        case "indent":
            let values = try bind("width", "first", "blank")
            let (first, blank) = (values[1]?.isTrue ?? false, values[2]?.isTrue ?? false)
            return .text(try indented(try spelling.string(value), values[0] ?? .int(4), first: first, blank: blank))
        case "format":
            guard arguments.keyword.isEmpty else { throw meter.failure("format: values by name are not known") }
            return .text(try formatted(try spelling.string(value), arguments.positional))
        case "tojson": return .text(try json(value, try bind("indent", "separators", "sort_keys", "ensure_ascii")))
        case "int", "float":
            if case .undefined(let message) = value { throw meter.failure(message) }
            return try converted(name, value, arguments)
        case "abs":
            if case .int(let number) = value, number != .min { return .int(abs(number)) }
            guard let number = value.number else { throw meter.failure("abs: expected a number, found \(value.typeName)") }
            return .double(abs(number))
        case "round": return try rounded(value, try bind("precision", "method"))
        case "wordcount":
            return .int(try split(try spelling.string(value), nil, limit: -1, fromRight: false).values.count)
        case "attr":
            guard case .text(let name)? = try bind("name")[0] else { throw meter.failure("attr: expected a name") }
            if case .dict = value { return .undefined("a dict has no attribute \"\(name.string.prefix(60))\"") }
            return try attribute(name.string, of: value)
        case "items":
            switch value {
            case .undefined: return .list(try makeList([]))
            case .dict(let dict): return .list(try items(of: dict))
            default: throw meter.failure("items: expected a dict, found \(value.typeName)")
            }
        default: throw meter.failure("there is no filter \"\(name.prefix(40))\"")
        }
    }

    private func escaped(_ text: JinjaText) throws -> JinjaText {
        try meter.allocate(text.count * 5)
        return text.mapScalars { _, scalar in
            switch scalar {
            case "&": "&amp;"
            case "<": "&lt;"
            case ">": "&gt;"
            case "'": "&#39;"
            case "\"": "&#34;"
            default: String(scalar)
            }
        }
    }

    /// Jinja's own idea of words: they begin after spaces, hyphens and opening brackets.
    private func titled(_ text: JinjaText) throws -> JinjaText {
        try meter.allocate(text.count)
        return text.mapScalars { index, scalar in
            let isFirst = index == 0 || JinjaText.isSpace(text.scalars[index - 1]) || "-({[<".unicodeScalars.contains(text.scalars[index - 1])
            return isFirst ? scalar.properties.uppercaseMapping : scalar.properties.lowercaseMapping
        }
    }

    private func indented(_ text: JinjaText, _ width: JinjaValue, first: Bool, blank: Bool) throws -> JinjaText {
        let indent: JinjaText
        if case .text(let given) = width { indent = given } else {
            guard let count = width.integer, count <= 1000 else { throw meter.failure("indent: expected a width of at most 1000") }
            indent = JinjaText(String(repeating: " ", count: max(0, count)))
        }
        let lines = try lines(text, keepsEnds: false).values
        var result = JinjaText()
        if first { result.append(indent) }
        for case (let index, .text(let line)) in lines.enumerated() {
            try meter.allocate(line.count + indent.count + 1)
            if index > 0 {
                result.append("\n", .template)
                if blank || !line.isEmpty { result.append(indent) }
            }
            result.append(line)
        }
        // A line break at the end is kept, as a last empty line.
        if let last = text.scalars.last, last == "\n" || last == "\r" {
            result.append("\n", .template)
            if blank { result.append(indent) }
        }
        return result
    }

    private func json(_ value: JinjaValue, _ values: [JinjaValue?]) throws -> JinjaText {
        var layout = JinjaSpelling.JSONLayout()
        switch values[0] {
        case .text(let indent)?: layout.indent = indent
        case .int(let width)?:
            guard width <= 64 else { throw meter.failure("tojson: expected an indent of at most 64, found \(width)") }
            layout.indent = JinjaText(String(repeating: " ", count: max(0, width)))
        default: break
        }
        if layout.indent != nil { layout.itemSeparator = JinjaText(",") }
        if case .tuple(let pair)? = values[1], pair.values.count == 2, case .text(let item) = pair.values[0], case .text(let key) = pair.values[1] {
            (layout.itemSeparator, layout.keySeparator) = (item, key)
        }
        layout.sortsKeys = values[2]?.isTrue ?? false
        layout.isASCII = values[3]?.isTrue ?? false
        var text = JinjaText()
        try spelling.json(value, layout, into: &text)
        try meter.allocate(text.count)
        return text
    }

    // MARK: - Numbers

    /// The filters `int` and `float`.
    private func converted(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        if name == "int" {
            let values = try arguments.bind(["default", "base"], name, meter: meter)
            return integer(value, base: values[1]?.integer ?? 10) ?? values[0] ?? .int(0)
        }
        let standard = try arguments.bind(["default"], name, meter: meter)[0]
        if let number = value.number { return .double(number) }
        if case .text(let text) = value, text.count <= 64, let number = Self.number(text) { return .double(number) }
        return standard ?? .double(0)
    }

    private static func number(_ text: JinjaText) -> Double? {
        var trimmed = text[text.trimmedRange()].string.lowercased()
        if ["inf", "+inf", "infinity", "-inf", "-infinity", "nan"].contains(trimmed) { return Double(trimmed) }
        guard trimmed.unicodeScalars.allSatisfy({ "0123456789+-._e".unicodeScalars.contains($0) }) else { return nil }
        trimmed.removeAll { $0 == "_" }
        if trimmed.hasSuffix(".") { trimmed += "0" }
        return Double(trimmed)
    }

    private func integer(_ value: JinjaValue, base: Int) -> JinjaValue? {
        if let number = value.integer { return .int(number) }
        if case .text(let text) = value {
            guard text.count <= 128, (2...36).contains(base) else { return nil }
            var digits = text[text.trimmedRange()].string.replacingOccurrences(of: "_", with: "").lowercased()
            if let prefix = [2: "0b", 8: "0o", 16: "0x"][base], digits.hasPrefix(prefix) { digits.removeFirst(2) }
            if let number = Int(digits, radix: base) { return .int(number) }
            return Self.number(text).flatMap { Int(exactly: $0.rounded(.towardZero)) }.map(JinjaValue.int)
        }
        return value.number.flatMap { Int(exactly: $0.rounded(.towardZero)) }.map(JinjaValue.int)
    }

    private func rounded(_ value: JinjaValue, _ values: [JinjaValue?]) throws -> JinjaValue {
        guard let number = value.number else { throw meter.failure("round: expected a number, found \(value.typeName)") }
        let precision = values[0]?.integer ?? 0
        guard (-300...300).contains(precision) else { throw meter.failure("round: expected a precision from -300 to 300") }
        let method = try optionalText(values[1], "round")?.string ?? "common"
        let power = pow(10, Double(precision))
        switch method {
        case "ceil": return .double((number * power).rounded(.up) / power)
        case "floor": return .double((number * power).rounded(.down) / power)
        case "common":
            if let whole = value.integer, precision >= 0 { return .int(whole) }
            guard number.isFinite else { return .double(number) }
            // The C library rounds the exact binary value, as Python does.
            if precision >= 0 { return .double(Double(String(format: "%.\(precision)f", number)) ?? number) }
            return .double((number * power).rounded(.toNearestOrEven) / power)
        default: throw meter.failure("round: the method is common, ceil or floor")
        }
    }
}
