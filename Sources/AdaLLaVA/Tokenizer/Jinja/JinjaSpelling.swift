import Foundation

/// Values as text: Python's `str` and `repr`, and JSON as transformers' `tojson` writes it. Texts keep their origin.
struct JinjaSpelling {
    let meter: JinjaMeter
    private static let deepest = 100

    /// `str(value)`
    func string(_ value: JinjaValue) throws -> JinjaText {
        switch value {
        case .undefined: return JinjaText()
        case .text(let text): return text
        default:
            var text = JinjaText()
            try represent(value, into: &text)
            return text
        }
    }

    static func string(_ value: Double) -> String {
        if value.isNaN { return "nan" }
        if value.isInfinite { return value < 0 ? "-inf" : "inf" }
        // Both spell the shortest digits that read back as the same number, but change to exponents at different sizes.
        let magnitude = abs(value)
        if magnitude >= 1e16 || (magnitude > 0 && magnitude < 1e-4) { return exponential(value) }
        return plain(value)
    }

    /// The digits of a number and its decimal exponent, as `0.digits × 10^exponent`.
    private static func digits(_ value: Double) -> (digits: String, exponent: Int) {
        let parts = "\(abs(value))".lowercased().split(separator: "e", maxSplits: 1)
        let mantissa = parts[0].split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let whole = String(mantissa[0])
        var digits = whole + (mantissa.count > 1 ? String(mantissa[1]) : "")
        var exponent = whole.count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
        while digits.hasPrefix("0"), digits.count > 1 {
            digits.removeFirst()
            exponent -= 1
        }
        while digits.hasSuffix("0"), digits.count > 1 { digits.removeLast() }
        return (digits, exponent)
    }

    private static func exponential(_ value: Double) -> String {
        let (digits, exponent) = digits(value)
        let power = exponent - 1
        let fraction = digits.dropFirst()
        return (value < 0 ? "-" : "") + digits.prefix(1) + (fraction.isEmpty ? "" : "." + fraction) + "e" + (power < 0 ? "-" : "+")
            + (abs(power) < 10 ? "0" : "") + String(abs(power))
    }

    private static func plain(_ value: Double) -> String {
        let sign = value.sign == .minus ? "-" : ""
        if value == 0 { return sign + "0.0" }
        let (digits, exponent) = digits(value)
        if exponent <= 0 { return sign + "0." + String(repeating: "0", count: -exponent) + digits }
        if digits.count <= exponent { return sign + digits + String(repeating: "0", count: exponent - digits.count) + ".0" }
        return sign + digits.prefix(exponent) + "." + digits.dropFirst(exponent)
    }

    // MARK: - repr

    func represent(_ value: JinjaValue, into text: inout JinjaText, depth: Int = 0) throws {
        try meter.step()
        try meter.allocate(4)
        guard depth <= Self.deepest else { throw meter.limit("nested values", Self.deepest) }
        switch value {
        case .undefined: text.append("Undefined", .template)
        case .none: text.append("None", .template)
        case .bool(let value): text.append(value ? "True" : "False", .template)
        case .int(let value): text.append("\(value)", .template)
        case .double(let value): text.append(Self.string(value), .template)
        case .text(let inner): try quote(inner, into: &text)
        case .list(let list): try sequence(list.values, "[", "]", into: &text, depth)
        case .tuple(let list): try sequence(list.values, "(", list.values.count == 1 ? ",)" : ")", into: &text, depth)
        case .dict(let dict):
            text.append("{", .template)
            for (index, key) in dict.keys.enumerated() {
                if index > 0 { text.append(", ", .template) }
                try represent(key, into: &text, depth: depth + 1)
                text.append(": ", .template)
                try represent(dict.values[index], into: &text, depth: depth + 1)
            }
            text.append("}", .template)
        default: text.append("<\(value.typeName)>", .template)
        }
    }

    private func sequence(_ values: [JinjaValue], _ open: String, _ close: String, into text: inout JinjaText, _ depth: Int) throws {
        text.append(open, .template)
        for (index, value) in values.enumerated() {
            if index > 0 { text.append(", ", .template) }
            try represent(value, into: &text, depth: depth + 1)
        }
        text.append(close, .template)
    }

    private func quote(_ inner: JinjaText, into text: inout JinjaText) throws {
        try meter.allocate(inner.count + 2)
        let mark: Unicode.Scalar = inner.scalars.contains("'") && !inner.scalars.contains("\"") ? "\"" : "'"
        text.append(mark, .template)
        text.append(
            inner.mapScalars { _, scalar in
                scalar == mark || scalar == "\\" ? "\\" + String(scalar) : Self.pythonEscape(scalar)
            })
        text.append(mark, .template)
    }

    private static func pythonEscape(_ scalar: Unicode.Scalar) -> String {
        switch scalar {
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        default:
            let value = scalar.value
            if (0x20..<0x7F).contains(value) { return String(scalar) }
            if value >= 0xA1, isPrintable(scalar) { return String(scalar) }
            return String(format: value < 0x100 ? "\\x%02x" : value < 0x10000 ? "\\u%04x" : "\\U%08x", value)
        }
    }

    private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator: false
        default: true
        }
    }

    // MARK: - JSON

    /// How `json.dumps` lays a document out.
    struct JSONLayout {
        /// Spaces for each level; `nil` writes one line.
        var indent: JinjaText?
        var itemSeparator = JinjaText(", ")
        var keySeparator = JinjaText(": ")
        var sortsKeys = false
        var isASCII = false
    }

    func json(_ value: JinjaValue, _ layout: JSONLayout, into text: inout JinjaText, depth: Int = 0) throws {
        try meter.step()
        try meter.allocate(4)
        guard depth <= Self.deepest else { throw meter.limit("nested values", Self.deepest) }
        switch value {
        case .none: text.append("null", .template)
        case .bool(let value): text.append(value ? "true" : "false", .template)
        case .int(let value): text.append("\(value)", .template)
        case .double(let value):
            text.append(value.isNaN ? "NaN" : value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : Self.string(value), .template)
        case .text(let inner): try quoteJSON(inner, layout, into: &text)
        case .list(let list), .tuple(let list):
            try jsonItems(list.values.count, "[", "]", layout, into: &text, depth) { index, text in
                try json(list.values[index], layout, into: &text, depth: depth + 1)
            }
        case .dict(let dict):
            var order = Array(dict.keys.indices)
            if layout.sortsKeys {
                order = try order.sorted { try JinjaComparison(meter: meter).less(dict.keys[$0], dict.keys[$1]) }
            }
            try jsonItems(order.count, "{", "}", layout, into: &text, depth) { index, text in
                try jsonKey(dict.keys[order[index]], layout, into: &text)
                text.append(layout.keySeparator)
                try json(dict.values[order[index]], layout, into: &text, depth: depth + 1)
            }
        case .undefined(let message): throw meter.failure("tojson: \(message)")
        default: throw meter.failure("tojson: a \(value.typeName) has no form in JSON")
        }
    }

    private func jsonKey(_ key: JinjaValue, _ layout: JSONLayout, into text: inout JinjaText) throws {
        if case .text(let name) = key { return try quoteJSON(name, layout, into: &text) }
        var spelled = JinjaText()
        if case .tuple = key { throw meter.failure("tojson: a tuple cannot be a key") }
        try json(key, layout, into: &spelled)
        try quoteJSON(spelled, layout, into: &text)
    }

    private func jsonItems(
        _ count: Int, _ open: String, _ close: String, _ layout: JSONLayout, into text: inout JinjaText, _ depth: Int,
        item: (Int, inout JinjaText) throws -> Void
    ) throws {
        text.append(open, .template)
        func newline(_ level: Int) throws {
            guard let indent = layout.indent else { return }
            try meter.allocate(1 + indent.count * level)
            text.append("\n", .template)
            for _ in 0..<level { text.append(indent) }
        }
        for index in 0..<count {
            if index > 0 { text.append(layout.itemSeparator) }
            try newline(depth + 1)
            try item(index, &text)
        }
        if count > 0 { try newline(depth) }
        text.append(close, .template)
    }

    private func quoteJSON(_ inner: JinjaText, _ layout: JSONLayout, into text: inout JinjaText) throws {
        try meter.allocate(inner.count + 2)
        text.append("\"", .template)
        text.append(
            inner.mapScalars { _, scalar in
                switch scalar {
                case "\"": return "\\\""
                case "\\": return "\\\\"
                case "\n": return "\\n"
                case "\r": return "\\r"
                case "\t": return "\\t"
                case "\u{8}": return "\\b"
                case "\u{C}": return "\\f"
                default:
                    if scalar.value < 0x20 { return String(format: "\\u%04x", scalar.value) }
                    guard layout.isASCII, scalar.value >= 0x7F else { return String(scalar) }
                    if scalar.value == 0x7F { return String(scalar) }
                    return String(scalar).utf16.map { String(format: "\\u%04x", $0) }.joined()
                }
            })
        text.append("\"", .template)
    }
}
