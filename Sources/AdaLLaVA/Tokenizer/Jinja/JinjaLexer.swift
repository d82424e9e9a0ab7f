/// A piece of a template's source.
struct JinjaToken: Sendable {
    enum Kind: Sendable, Equatable {
        case data(String)
        case variableBegin, variableEnd, blockBegin, blockEnd
        case name(String)
        case string(String)
        case integer(Int)
        case float(Double)
        case symbol(String)
        case end
    }

    let kind: Kind
    let line: Int

    /// For messages.
    var description: String {
        switch kind {
        case .data: "text"
        case .variableBegin: "{{"
        case .variableEnd: "}}"
        case .blockBegin: "{%"
        case .blockEnd: "%}"
        case .name(let name): "\"\(name.prefix(40))\""
        case .string: "a string"
        case .integer(let value): "\(value)"
        case .float(let value): "\(value)"
        case .symbol(let symbol): "\"\(symbol)\""
        case .end: "the end of the template"
        }
    }
}

/// Splits a template's source with Jinja's `trim_blocks` and `lstrip_blocks`, as transformers sets them.
struct JinjaLexer {
    private let source: [Unicode.Scalar]
    private var position = 0
    private var line = 1
    private var tokens: [JinjaToken] = []
    /// The source up to here ended with a line break, so a tag that follows may be at a line's beginning.
    private var startsLine = true

    /// - Throws: ``JinjaError``
    static func tokens(of source: String, limits: JinjaLimits) throws -> [JinjaToken] {
        guard source.unicodeScalars.count <= limits.source else {
            throw JinjaError(line: 1, .limit(name: "template length", value: limits.source))
        }
        var lexer = JinjaLexer(source)
        try lexer.run()
        return lexer.tokens
    }

    /// Line breaks become `\n`; one at the end is dropped.
    private init(_ source: String) {
        var scalars: [Unicode.Scalar] = []
        for scalar in source.unicodeScalars {
            if scalar == "\n", scalars.last == "\r" {
                scalars[scalars.count - 1] = "\n"
            } else {
                // A carriage return stays as a mark until its successor is seen.
                if scalars.last == "\r" { scalars[scalars.count - 1] = "\n" }
                scalars.append(scalar)
            }
        }
        if scalars.last == "\r" { scalars[scalars.count - 1] = "\n" }
        if scalars.last == "\n" { scalars.removeLast() }
        self.source = scalars
    }

    private func starts(_ text: String, at index: Int) -> Bool {
        var index = index
        for scalar in text.unicodeScalars {
            guard index < source.count, source[index] == scalar else { return false }
            index += 1
        }
        return true
    }

    private mutating func emit(_ kind: JinjaToken.Kind) { tokens.append(JinjaToken(kind: kind, line: line)) }

    private mutating func advance(to index: Int) {
        for scalar in source[position..<index] where scalar == "\n" { line += 1 }
        startsLine = index > position ? source[index - 1] == "\n" : startsLine
        position = index
    }

    private mutating func run() throws {
        while position < source.count {
            var index = position
            while index < source.count, !(source[index] == "{" && index + 1 < source.count && "{%#".unicodeScalars.contains(source[index + 1])) {
                index += 1
            }
            guard index < source.count else {
                data(position..<index)
                advance(to: index)
                break
            }
            let kind = source[index + 1]
            let sign = index + 2 < source.count && (source[index + 2] == "-" || source[index + 2] == "+") ? source[index + 2] : nil
            let rawBody = kind == "%" ? rawBegin(at: index) : nil
            data(stripped(position..<index, sign: sign, isVariable: kind == "{"))
            advance(to: index)
            if let rawBody {
                advance(to: rawBody)
                try raw()
            } else {
                advance(to: index + (sign == nil ? 2 : 3))
                switch kind {
                case "#": try comment()
                case "%":
                    emit(.blockBegin)
                    try tag(isBlock: true)
                default:
                    emit(.variableBegin)
                    try tag(isBlock: false)
                }
            }
        }
        emit(.end)
    }

    private mutating func data(_ range: Range<Int>) {
        guard !range.isEmpty else { return }
        var view = String.UnicodeScalarView()
        view.append(contentsOf: source[range])
        emit(.data(String(view)))
    }

    /// Text before a tag, without the whitespace that the tag's sign or its place at a line's beginning strips.
    private func stripped(_ range: Range<Int>, sign: Unicode.Scalar?, isVariable: Bool) -> Range<Int> {
        var end = range.upperBound
        if sign == "-" {
            while end > range.lowerBound, JinjaText.isSpace(source[end - 1]) { end -= 1 }
        } else if sign == nil, !isVariable {
            var start = end
            while start > range.lowerBound, source[start - 1] != "\n" { start -= 1 }
            guard start > range.lowerBound || startsLine else { return range }
            if source[start..<end].allSatisfy(JinjaText.isSpace) { end = start }
        }
        return range.lowerBound..<end
    }

    private func skippingSpace(_ index: Int) -> Int {
        var index = index
        while index < source.count, JinjaText.isSpace(source[index]) { index += 1 }
        return index
    }

    /// The end of a closing tag at `index`, with the whitespace after it that it strips, or `nil`.
    private func end(_ mark: String, at index: Int, trims: Bool) -> Int? {
        if starts("-" + mark, at: index) { return skippingSpace(index + 3) }
        if trims, starts("+" + mark, at: index) { return index + 3 }
        guard starts(mark, at: index) else { return nil }
        return trims && starts("\n", at: index + 2) ? index + 3 : index + 2
    }

    private mutating func comment() throws {
        for index in position..<source.count {
            if let end = end("#}", at: index, trims: true) { return advance(to: end) }
        }
        throw JinjaError(line: line, .syntax(expected: "#} to end a comment", found: "the end of the template"))
    }

    /// The end of `{% raw %}`, if that begins at `index`.
    private func rawBegin(at index: Int) -> Int? {
        var index = index + 2
        if index < source.count, source[index] == "-" || source[index] == "+" { index += 1 }
        index = skippingSpace(index)
        guard starts("raw", at: index) else { return nil }
        index = skippingSpace(index + 3)
        if starts("-%}", at: index) { return skippingSpace(index + 3) }
        return starts("%}", at: index) ? index + 2 : nil
    }

    private mutating func raw() throws {
        for index in position..<source.count where starts("{%", at: index) {
            var name = index + 2
            let sign = name < source.count && (source[name] == "-" || source[name] == "+") ? source[name] : nil
            if sign != nil { name += 1 }
            name = skippingSpace(name)
            guard starts("endraw", at: name), let end = end("%}", at: skippingSpace(name + 6), trims: true) else { continue }
            data(stripped(position..<index, sign: sign, isVariable: false))
            return advance(to: end)
        }
        throw JinjaError(line: line, .syntax(expected: "endraw", found: "the end of the template"))
    }

    private static let symbols = ["//", "**", "==", "!=", ">=", "<="] + "+-/*%~[](){}><=.:|,;".map(String.init)

    /// Tokens up to the tag's end.
    private mutating func tag(isBlock: Bool) throws {
        var open: [String] = []
        let begin = line
        while position < source.count {
            if open.isEmpty, let end = end(isBlock ? "%}" : "}}", at: position, trims: isBlock) {
                emit(isBlock ? .blockEnd : .variableEnd)
                return advance(to: end)
            }
            let scalar = source[position]
            if JinjaText.isSpace(scalar) {
                advance(to: skippingSpace(position))
            } else if ("0"..."9").contains(scalar) {
                try number()
            } else if scalar == "_" || scalar.properties.isXIDStart {
                var end = position
                while end < source.count, source[end] == "_" || source[end].properties.isXIDContinue { end += 1 }
                var view = String.UnicodeScalarView()
                view.append(contentsOf: source[position..<end])
                emit(.name(String(view)))
                advance(to: end)
            } else if scalar == "'" || scalar == "\"" {
                try string(scalar)
            } else if let symbol = Self.symbols.first(where: { starts($0, at: position) }) {
                switch symbol {
                case "{": open.append("}")
                case "(": open.append(")")
                case "[": open.append("]")
                case "}", ")", "]":
                    let expected = open.popLast()
                    guard expected == symbol else {
                        throw JinjaError(line: line, .syntax(expected: expected.map { "\"\($0)\"" } ?? "an expression", found: "\"\(symbol)\""))
                    }
                default: break
                }
                emit(.symbol(symbol))
                advance(to: position + symbol.unicodeScalars.count)
            } else {
                throw JinjaError(line: line, .syntax(expected: "an expression", found: "\"\(scalar.escaped(asASCII: false))\""))
            }
        }
        let mark = open.last ?? (isBlock ? "%}" : "}}")
        throw JinjaError(line: line, .syntax(expected: "\(mark) for the tag of line \(begin)", found: "the end of the template"))
    }

    private mutating func number() throws {
        func digits(from start: Int, _ isDigit: (Unicode.Scalar) -> Bool) -> Int {
            var end = start
            while end < source.count {
                let joinsDigits = source[end] == "_" && end > start && end + 1 < source.count && isDigit(source[end + 1])
                guard joinsDigits || isDigit(source[end]) else { break }
                end += 1
            }
            return end
        }
        let decimal = { (scalar: Unicode.Scalar) in ("0"..."9").contains(scalar) }
        func text(_ range: Range<Int>) -> String { String(String.UnicodeScalarView(source[range].filter { $0 != "_" })) }
        var end = digits(from: position, decimal)
        let radixes: [Unicode.Scalar: Int] = ["x": 16, "X": 16, "o": 8, "O": 8, "b": 2, "B": 2]
        if source[position] == "0", position + 2 < source.count, let radix = radixes[source[position + 1]] {
            end = digits(from: position + 2) { Int(String($0), radix: radix) != nil }
            if end > position + 2 { return try integer(text(position + 2..<end), radix, end) }
            end = position + 1
        }
        var isFloat = false
        if end + 1 < source.count, source[end] == ".", decimal(source[end + 1]) {
            end = digits(from: end + 1, decimal)
            isFloat = true
        }
        if end + 1 < source.count, source[end] == "e" || source[end] == "E" {
            let sign = source[end + 1] == "+" || source[end + 1] == "-" ? 2 : 1
            let exponent = digits(from: end + sign, decimal)
            if exponent > end + sign {
                end = exponent
                isFloat = true
            }
        }
        guard isFloat else { return try integer(text(position..<end), 10, end) }
        emit(.float(Double(text(position..<end)) ?? .infinity))
        advance(to: end)
    }

    private mutating func integer(_ digits: String, _ radix: Int, _ end: Int) throws {
        guard let value = Int(digits, radix: radix) else {
            throw JinjaError(line: line, .syntax(expected: "a number of 64 bits", found: String(digits.prefix(40))))
        }
        emit(.integer(value))
        advance(to: end)
    }

    private mutating func string(_ quote: Unicode.Scalar) throws {
        var end = position + 1
        while end < source.count, source[end] != quote { end += source[end] == "\\" ? 2 : 1 }
        guard end < source.count else {
            throw JinjaError(line: line, .syntax(expected: "\(quote) to end a string", found: "the end of the template"))
        }
        emit(.string(try Self.unescaped(source[position + 1..<end], line: line)))
        advance(to: end + 1)
    }

    /// Python's escapes; unknown ones stay as they are.
    private static func unescaped(_ text: ArraySlice<Unicode.Scalar>, line: Int) throws -> String {
        var output = String.UnicodeScalarView()
        var index = text.startIndex
        func code(_ range: Range<Int>, _ radix: Int) -> UInt32? {
            guard range.upperBound <= text.endIndex else { return nil }
            return UInt32(String(String.UnicodeScalarView(text[range])), radix: radix)
        }
        while index < text.endIndex {
            let scalar = text[index]
            index += 1
            guard scalar == "\\", index < text.endIndex else {
                output.append(scalar)
                continue
            }
            let escape = text[index]
            index += 1
            switch escape {
            case "\n": break
            case "n": output.append("\n")
            case "t": output.append("\t")
            case "r": output.append("\r")
            case "b": output.append("\u{8}")
            case "f": output.append("\u{C}")
            case "v": output.append("\u{B}")
            case "a": output.append("\u{7}")
            case "\\", "'", "\"": output.append(escape)
            case "x", "u", "U":
                let length = escape == "x" ? 2 : escape == "u" ? 4 : 8
                guard let value = code(index..<index + length, 16), let scalar = Unicode.Scalar(value) else {
                    throw JinjaError(line: line, .syntax(expected: "\(length) hexadecimal digits of a character after \\\(escape)", found: "none"))
                }
                output.append(scalar)
                index += length
            case "0"..."7":
                var length = 1
                while length < 3, index - 1 + length < text.endIndex, ("0"..."7").contains(text[index - 1 + length]) { length += 1 }
                output.append(code(index - 1..<index - 1 + length, 8).flatMap(Unicode.Scalar.init) ?? "\u{FFFD}")
                index += length - 1
            default:
                output.append("\\")
                output.append(escape)
            }
        }
        return String(output)
    }
}
