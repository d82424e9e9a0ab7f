import Foundation

/// Arithmetic, and the functions that every template can call.
extension JinjaInterpreter {
    /// `left symbol right`
    /// - Parameter isSign: the operator precedes one number; `left` is 0.
    func compute(_ symbol: String, _ left: JinjaValue, _ right: JinjaValue, isSign: Bool = false) throws -> JinjaValue {
        if !isSign, let value = try computeSequences(symbol, left, right) { return value }
        if case .undefined(let message) = left { throw meter.failure(message) }
        if case .undefined(let message) = right { throw meter.failure(message) }
        guard let first = left.number, let second = right.number else {
            throw meter.failure("\"\(symbol)\" is not defined for \(isSign ? "" : left.typeName + " and ")\(right.typeName)")
        }
        if let left = left.integer, let right = right.integer, let value = try computeIntegers(symbol, left, right) { return .int(value) }
        if isSign { return .double(symbol == "-" ? -second : second) }
        switch symbol {
        case "+": return .double(first + second)
        case "-": return .double(first - second)
        case "*": return .double(first * second)
        case "**": return .double(pow(first, second))
        default:
            guard second != 0 else { throw meter.failure("division by zero") }
            switch symbol {
            case "/": return .double(first / second)
            case "//": return .double((first / second).rounded(.down))
            default:
                let rest = fmod(first, second)
                return .double(rest != 0 && (rest < 0) != (second < 0) ? rest + second : rest)
            }
        }
    }

    private func computeSequences(_ symbol: String, _ left: JinjaValue, _ right: JinjaValue) throws -> JinjaValue? {
        switch (symbol, left, right) {
        case ("+", .text(var text), .text(let more)):
            try meter.allocate(text.count + more.count)
            text.append(more)
            return .text(text)
        case ("+", .list(let first), .list(let second)): return .list(try makeList(first.values + second.values))
        case ("+", .tuple(let first), .tuple(let second)): return .tuple(try makeList(first.values + second.values))
        case ("%", .text(let format), _):
            if case .tuple(let list) = right { return .text(try formatted(format, list.values)) }
            return .text(try formatted(format, [right]))
        case ("*", .text(let text), _): return try right.integer.map { .text(try repeated(text, $0)) }
        case ("*", _, .text(let text)): return try left.integer.map { .text(try repeated(text, $0)) }
        case ("*", .list(let list), _): return try right.integer.map { .list(try repeated(list, $0)) }
        case ("*", _, .list(let list)): return try left.integer.map { .list(try repeated(list, $0)) }
        case ("*", .tuple(let list), _): return try right.integer.map { .tuple(try repeated(list, $0)) }
        default: return nil
        }
    }

    private func repeated(_ text: JinjaText, _ count: Int) throws -> JinjaText {
        var result = JinjaText()
        guard count > 0, !text.isEmpty else { return result }
        let (total, overflows) = text.count.multipliedReportingOverflow(by: count)
        try meter.allocate(overflows ? .max : total)
        for _ in 0..<count { result.append(text) }
        return result
    }

    private func repeated(_ list: JinjaList, _ count: Int) throws -> JinjaList {
        guard count > 0, !list.values.isEmpty else { return try makeList([]) }
        let (total, overflows) = list.values.count.multipliedReportingOverflow(by: count)
        try meter.allocate(overflows ? .max : total, of: 40)
        return try makeList((0..<count).flatMap { _ in list.values })
    }

    /// `nil` where Python's result is not a whole number.
    private func computeIntegers(_ symbol: String, _ left: Int, _ right: Int) throws -> Int? {
        let result: (partialValue: Int, overflow: Bool)
        switch symbol {
        case "+": result = left.addingReportingOverflow(right)
        case "-": result = left.subtractingReportingOverflow(right)
        case "*": result = left.multipliedReportingOverflow(by: right)
        case "//", "%":
            guard right != 0 else { throw meter.failure("division by zero") }
            let quotient = left.dividedReportingOverflow(by: right)
            let rest = left.remainderReportingOverflow(dividingBy: right).partialValue
            let isBelow = rest != 0 && (rest < 0) != (right < 0)
            if symbol == "%" { return isBelow ? rest + right : rest }
            result = (isBelow ? quotient.partialValue - 1 : quotient.partialValue, quotient.overflow)
        case "**":
            guard right >= 0 else { return nil }
            return try power(left, right)
        default: return nil
        }
        guard !result.overflow else { throw meter.failure("\(left) \(symbol) \(right): the result has more than 64 bits") }
        return result.partialValue
    }

    private func power(_ base: Int, _ exponent: Int) throws -> Int {
        if base == 0 || base == 1 { return exponent == 0 ? 1 : base }
        if base == -1 { return exponent % 2 == 0 ? 1 : -1 }
        var value = 1
        for _ in 0..<min(exponent, 64) {
            let (next, overflows) = value.multipliedReportingOverflow(by: base)
            guard !overflows else { throw meter.failure("\(base) ** \(exponent): the result has more than 64 bits") }
            value = next
        }
        return value
    }

    // MARK: - Functions

    func function(_ name: String, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch name {
        case "range": return .list(try range(arguments))
        case "namespace", "dict":
            let keywords = try makeDict(arguments.keyword), dict = try makeDict([])
            var attributes: [String: JinjaValue] = [:]
            for value in arguments.positional {
                guard case .dict(let given) = value else { throw meter.failure("\(name): expected a dict, found \(value.typeName)") }
                try meter.allocateContainer(given.keys.count * 2)
                for (key, value) in zip(given.keys, given.values) {
                    if name == "dict" { dict.set(try JinjaKey(key, meter: meter), key, value) }
                    attributes[try spelling.string(key).string] = value
                }
            }
            if name == "dict" {
                for (key, value) in zip(keywords.keys, keywords.values) { dict.set(try JinjaKey(key, meter: meter), key, value) }
                try checkHeight(dict.height)
                return .dict(dict)
            }
            for (name, value) in arguments.keyword { attributes[name] = value }
            let namespace = JinjaNamespace(attributes)
            register(namespace)
            return .namespace(namespace)
        case "raise_exception":
            let message = try arguments.bind(["message"], name, meter: meter)[0] ?? .none
            throw JinjaError(line: meter.line, .raised(String(try spelling.string(message).string.prefix(500))))
        case "strftime_now":
            guard case .text(let format)? = try arguments.bind(["format"], name, meter: meter)[0] else {
                throw meter.failure("strftime_now: expected a format")
            }
            return .text(try time(format))
        default: throw meter.failure("\"\(name)\" is undefined")
        }
    }

    private func range(_ arguments: JinjaArguments) throws -> JinjaList {
        let bounds = try arguments.positional.map { value -> Int in
            guard let number = value.integer else { throw meter.failure("range: expected whole numbers, found \(value.typeName)") }
            return number
        }
        guard (1...3).contains(bounds.count), arguments.keyword.isEmpty else { throw meter.failure("range: expected 1 to 3 whole numbers") }
        let (start, stop) = bounds.count == 1 ? (0, bounds[0]) : (bounds[0], bounds[1])
        let step = bounds.count == 3 ? bounds[2] : 1
        guard step != 0 else { throw meter.failure("range: the step cannot be zero") }
        let (distance, overflows) = stop.subtractingReportingOverflow(start)
        let count = overflows ? Int.max : max(0, step > 0 ? distance : distance == .min ? .max : -distance)
        let size = count / max(1, Int(clamping: step.magnitude))
        try meter.step(size)
        try meter.allocate(size, of: 40)
        return try makeList(stride(from: start, to: stop, by: step).map(JinjaValue.int))
    }

    /// The current local time, as `datetime.now().strftime` writes it.
    private func time(_ format: JinjaText) throws -> JinjaText {
        guard format.count <= 256, !format.scalars.contains("\0") else {
            throw meter.failure("strftime_now: the format is longer than 256 characters")
        }
        var seconds = time_t(now.timeIntervalSince1970.rounded(.down))
        var parts = tm()
        localtime_r(&seconds, &parts)
        // A mark at the end distinguishes an empty result from one that does not fit.
        var buffer = [CChar](repeating: 0, count: 8192)
        let length = strftime(&buffer, buffer.count, format.string + "|", &parts)
        guard length > 0 else { throw meter.failure("strftime_now: the result is too long") }
        try meter.allocate(length)
        return JinjaText(String(decoding: buffer[..<(length - 1)].map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }

    // MARK: - Formats

    /// Python's `format % values`, for the conversions that templates use.
    func formatted(_ format: JinjaText, _ values: [JinjaValue]) throws -> JinjaText {
        var (result, next, index) = (JinjaText(), 0, 0)
        while index < format.count {
            let scalar = format.scalars[index]
            guard scalar == "%" else {
                result.append(scalar, format.origin(at: index))
                index += 1
                continue
            }
            var specification = ""
            index += 1
            while index < format.count, "0123456789.-+ #".unicodeScalars.contains(format.scalars[index]), specification.count < 8 {
                specification.unicodeScalars.append(format.scalars[index])
                index += 1
            }
            guard index < format.count else { throw meter.failure("the format ends within a %") }
            let kind = format.scalars[index]
            index += 1
            if kind == "%" {
                result.append("%", .template)
                continue
            }
            guard next < values.count else { throw meter.failure("the format names more values than there are") }
            let piece = try formatted(values[next], kind, specification)
            try meter.allocate(piece.count)
            result.append(piece)
            next += 1
        }
        guard next == values.count || (values.count == 1 && isMapping(values[0])) else {
            throw meter.failure("the format names fewer values than there are")
        }
        try meter.allocate(result.count)
        return result
    }

    private func isMapping(_ value: JinjaValue) -> Bool {
        if case .dict = value { true } else { false }
    }

    private func formatted(_ value: JinjaValue, _ kind: Unicode.Scalar, _ specification: String) throws -> JinjaText {
        // Widths beyond three digits would only make text long.
        guard specification.split(whereSeparator: { !$0.isNumber }).allSatisfy({ $0.count <= 3 }) else {
            throw meter.failure("%\(specification)\(kind): the width is beyond 999")
        }
        switch kind {
        case "s": return padded(try spelling.string(value), specification)
        case "r":
            var text = JinjaText()
            try spelling.represent(value, into: &text)
            return padded(text, specification)
        case "d", "i", "x", "X", "o":
            let number = value.integer ?? value.number.flatMap { Int(exactly: $0.rounded(.towardZero)) }
            guard let number else { throw meter.failure("%\(kind): expected a number, found \(value.typeName)") }
            return JinjaText(String(format: "%\(specification)l\(kind)", number))
        case "f", "F", "e", "E", "g", "G":
            guard let number = value.number else { throw meter.failure("%\(kind): expected a number, found \(value.typeName)") }
            return JinjaText(String(format: "%\(specification)\(kind)", number))
        default: throw meter.failure("%\(kind) is not a conversion that is known")
        }
    }

    private func padded(_ text: JinjaText, _ specification: String) -> JinjaText {
        let parts = specification.split(separator: ".", omittingEmptySubsequences: false)
        let width = Int(parts.first.map { $0.filter(\.isNumber) } ?? "") ?? 0
        let cut = parts.count > 1 ? text[0..<min(text.count, Int(parts[1]) ?? 0)] : text
        guard cut.count < width else { return cut }
        let space = JinjaText(String(repeating: " ", count: width - cut.count))
        var result = specification.hasPrefix("-") ? cut : space
        result.append(specification.hasPrefix("-") ? space : cut)
        return result
    }
}
