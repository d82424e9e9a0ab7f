/// Python's string methods.
extension JinjaInterpreter {
    static let textMethods: Set<String> = [
        "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "upper", "lower", "title", "capitalize",
        "swapcase", "replace", "find", "rfind", "index", "count", "join", "format", "isdigit", "isalpha", "isalnum", "isspace", "isupper",
        "islower", "removeprefix", "removesuffix", "partition", "rpartition", "zfill", "ljust", "rjust",
    ]

    func method(_ name: String, of text: JinjaText, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch name {
        case "strip", "lstrip", "rstrip":
            let characters = try optionalText(try arguments.bind(["chars"], name, meter: meter)[0], name)
            return .text(try stripped(text, characters, left: name != "rstrip", right: name != "lstrip"))
        case "split", "rsplit":
            let values = try arguments.bind(["sep", "maxsplit"], name, meter: meter)
            return .list(try split(text, try optionalText(values[0], name), limit: values[1]?.integer ?? -1, fromRight: name == "rsplit"))
        case "splitlines": return .list(try lines(text, keepsEnds: try arguments.bind(["keepends"], name, meter: meter)[0]?.isTrue ?? false))
        case "startswith", "endswith":
            let values = try arguments.bind([name == "startswith" ? "prefix" : "suffix", "start", "end"], name, meter: meter)
            let count = text.count
            let end = values[2]?.integer.map { min($0 < 0 ? max($0 &+ count, 0) : $0, count) } ?? count
            let start = values[1]?.integer.map { min($0 < 0 ? max($0 &+ count, 0) : $0, end) } ?? 0
            let range = text[start..<max(start, end)]
            for affix in try texts(values[0], name) {
                try meter.step(affix.count / 16)
                if name == "startswith" ? range.hasPrefix(affix) : range.hasSuffix(affix) { return .bool(true) }
            }
            return .bool(false)
        case "replace":
            let values = try arguments.bind(["old", "new", "count"], name, meter: meter)
            return .text(try replaced(text, try requiredText(values[0], name), try requiredText(values[1], name), limit: values[2]?.integer ?? -1))
        case "find", "rfind", "index", "count": return try search(name, text, arguments)
        case "join": return .text(try joined(try iterate(try arguments.bind(["iterable"], name, meter: meter)[0] ?? .none), text, isStrict: true))
        case "format": return .text(try format(text, arguments))
        case "removeprefix", "removesuffix":
            let affix = try requiredText(try arguments.bind(["affix"], name, meter: meter)[0], name)
            if name == "removeprefix" { return .text(text.hasPrefix(affix) ? text[affix.count..<text.count] : text) }
            return .text(text.hasSuffix(affix) ? text[0..<text.count - affix.count] : text)
        case "partition", "rpartition":
            let separator = try requiredText(try arguments.bind(["sep"], name, meter: meter)[0], name)
            guard !separator.isEmpty else { throw meter.failure("\(name): the separator is empty") }
            try meter.allocate(text.count)
            let found = try name == "partition" ? text.find(separator, meter: meter) : text.findLast(separator, meter: meter)
            guard let found else {
                let empty = JinjaValue.text(JinjaText())
                return .tuple(try makeList(name == "partition" ? [.text(text), empty, empty] : [empty, empty, .text(text)]))
            }
            return .tuple(try makeList([.text(text[0..<found]), .text(separator), .text(text[found + separator.count..<text.count])]))
        case "zfill", "ljust", "rjust":
            let values = try arguments.bind(["width", "fillchar"], name, meter: meter)
            guard let width = values[0]?.integer else { throw meter.failure("\(name): expected a width") }
            let fill = try optionalText(values[1], name) ?? JinjaText(name == "zfill" ? "0" : " ")
            guard width > text.count, fill.count == 1 else { return .text(text) }
            try meter.allocate(width)
            var padding = JinjaText([Unicode.Scalar](repeating: fill.scalars[0], count: width - text.count))
            var result = text
            if name == "ljust" { result.append(padding) } else {
                padding.append(text)
                result = padding
            }
            return .text(result)
        default:
            guard arguments.positional.isEmpty else { throw meter.failure("\(name): expected no arguments") }
            return try simpleMethod(name, of: text)
        }
    }

    /// Methods without arguments.
    private func simpleMethod(_ name: String, of text: JinjaText) throws -> JinjaValue {
        try meter.allocate(text.count)
        func all(_ holds: (Unicode.Scalar) -> Bool) -> JinjaValue { .bool(!text.isEmpty && text.scalars.allSatisfy(holds)) }
        switch name {
        case "upper": return .text(text.mapScalars { $1.properties.uppercaseMapping })
        case "lower": return .text(text.mapScalars { $1.properties.lowercaseMapping })
        case "swapcase":
            return .text(text.mapScalars { $1.properties.isUppercase ? $1.properties.lowercaseMapping : $1.properties.uppercaseMapping })
        case "capitalize": return .text(capitalized(text))
        case "title":
            return .text(
                text.mapScalars { index, scalar in
                    let followsLetter = index > 0 && text.scalars[index - 1].properties.isCased
                    return followsLetter ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
                })
        case "isdigit": return all { $0.properties.numericType == .decimal || $0.properties.numericType == .digit }
        case "isalpha": return all { UnicodeText.classify($0).contains(.letter) }
        case "isalnum": return all { UnicodeText.classify($0).contains(.letter) || $0.properties.numericType != nil }
        case "isspace": return all(JinjaText.isSpace)
        case "isupper": return .bool(text.scalars.contains { $0.properties.isUppercase } && !text.scalars.contains { $0.properties.isLowercase })
        default: return .bool(text.scalars.contains { $0.properties.isLowercase } && !text.scalars.contains { $0.properties.isUppercase })
        }
    }

    func capitalized(_ text: JinjaText) -> JinjaText {
        text.mapScalars { index, scalar in index == 0 ? scalar.properties.titlecaseMapping : scalar.properties.lowercaseMapping }
    }

    // MARK: - Arguments

    func requiredText(_ value: JinjaValue?, _ name: String) throws -> JinjaText {
        guard let text = try optionalText(value, name) else { throw meter.failure("\(name): expected a str") }
        return text
    }

    func optionalText(_ value: JinjaValue?, _ name: String) throws -> JinjaText? {
        switch value {
        case nil, .some(.none): return nil
        case .text(let text): return text
        case .undefined(let message): throw meter.failure(message)
        case .some(let value): throw meter.failure("\(name): expected a str, found \(value.typeName)")
        }
    }

    private func texts(_ value: JinjaValue?, _ name: String) throws -> [JinjaText] {
        guard case .tuple(let list)? = value else { return [try requiredText(value, name)] }
        return try list.values.map { try requiredText($0, name) }
    }

    // MARK: - Parts of texts

    func stripped(_ text: JinjaText, _ characters: JinjaText?, left: Bool = true, right: Bool = true) throws -> JinjaText {
        try meter.allocate(text.count)
        guard let characters else { return text[text.trimmedRange(left: left, right: right)] }
        try meter.step(characters.count)
        let set = Set(characters.scalars)
        return text[text.trimmedRange(left: left, right: right) { set.contains($0) }]
    }

    func split(_ text: JinjaText, _ separator: JinjaText?, limit: Int, fromRight: Bool) throws -> JinjaList {
        try meter.allocate(text.count)
        var ranges: [Range<Int>] = []
        if let separator {
            guard !separator.isEmpty else { throw meter.failure("split: the separator is empty") }
            if fromRight {
                var end = text.count
                while limit < 0 || ranges.count < limit, let found = try text.findLast(separator, to: end, meter: meter) {
                    ranges.append(found + separator.count..<end)
                    end = found
                }
                ranges.append(0..<end)
                ranges.reverse()
            } else {
                var start = 0
                while limit < 0 || ranges.count < limit, let found = try text.find(separator, from: start, meter: meter) {
                    ranges.append(start..<found)
                    start = found + separator.count
                }
                ranges.append(start..<text.count)
            }
        } else {
            ranges = words(text, limit: limit, fromRight: fromRight)
        }
        try meter.allocateContainer(2 * ranges.count)
        return try makeList(ranges.map { .text(text[$0]) })
    }

    /// Stretches without whitespace; the last one takes the rest where there is a limit.
    private func words(_ text: JinjaText, limit: Int, fromRight: Bool) -> [Range<Int>] {
        var ranges: [Range<Int>] = []
        let all = text.trimmedRange()
        if fromRight {
            var end = all.upperBound
            while end > all.lowerBound {
                if limit >= 0, ranges.count == limit {
                    ranges.append(0..<end)
                    break
                }
                var start = end
                while start > 0, !JinjaText.isSpace(text.scalars[start - 1]) { start -= 1 }
                ranges.append(start..<end)
                end = start
                while end > 0, JinjaText.isSpace(text.scalars[end - 1]) { end -= 1 }
            }
            return ranges.reversed()
        }
        var start = all.lowerBound
        while start < all.upperBound {
            if limit >= 0, ranges.count == limit {
                ranges.append(start..<text.count)
                break
            }
            var end = start
            while end < text.count, !JinjaText.isSpace(text.scalars[end]) { end += 1 }
            ranges.append(start..<end)
            start = end
            while start < text.count, JinjaText.isSpace(text.scalars[start]) { start += 1 }
        }
        return ranges
    }

    func lines(_ text: JinjaText, keepsEnds: Bool) throws -> JinjaList {
        try meter.allocate(text.count)
        var values: [JinjaValue] = []
        var start = 0
        while start < text.count {
            var end = start
            while end < text.count, !Self.lineBreaks.contains(text.scalars[end].value) { end += 1 }
            var next = min(end + 1, text.count)
            if next < text.count, text.scalars[end] == "\r", text.scalars[next] == "\n" { next += 1 }
            try meter.allocateContainer(2)
            values.append(.text(text[start..<(keepsEnds ? next : end)]))
            start = next
        }
        return try makeList(values)
    }

    private static let lineBreaks: Set<UInt32> = [0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029]

    func replaced(_ text: JinjaText, _ old: JinjaText, _ new: JinjaText, limit: Int) throws -> JinjaText {
        try meter.allocate(text.count)
        var (result, start, count) = (JinjaText(), 0, 0)
        if old.isEmpty {
            while limit < 0 || count < limit, start <= text.count {
                try meter.allocate(new.count + 1)
                result.append(new)
                if start < text.count { result.append(text, start..<start + 1) }
                start += 1
                count += 1
            }
            if start < text.count { result.append(text, start..<text.count) }
            return result
        }
        while limit < 0 || count < limit, let found = try text.find(old, from: start, meter: meter) {
            try meter.allocate(new.count)
            result.append(text, start..<found)
            result.append(new)
            start = found + old.count
            count += 1
        }
        result.append(text, start..<text.count)
        return result
    }

    private func search(_ name: String, _ text: JinjaText, _ arguments: JinjaArguments) throws -> JinjaValue {
        let values = try arguments.bind(["sub", "start", "end"], name, meter: meter)
        let needle = try requiredText(values[0], name)
        func bound(_ value: JinjaValue?, _ standard: Int) -> Int {
            guard let index = value?.integer else { return standard }
            return index < 0 ? max(index &+ text.count, 0) : index
        }
        let (start, end) = (bound(values[1], 0), min(bound(values[2], text.count), text.count))
        if name == "count" {
            guard !needle.isEmpty else { return .int(max(0, end - start + 1)) }
            var (count, position) = (0, start)
            while let found = try text.find(needle, from: position, to: end, meter: meter) {
                count += 1
                position = found + needle.count
            }
            return .int(count)
        }
        let found = try name == "rfind"
            ? text.findLast(needle, from: start, to: end, meter: meter) : text.find(needle, from: start, to: end, meter: meter)
        guard name == "index", found == nil else { return .int(found ?? -1) }
        throw meter.failure("index: the text is not found")
    }

    /// - Parameter isStrict: only texts are joined, as Python's method does; the filter spells other values.
    func joined(_ values: [JinjaValue], _ separator: JinjaText, isStrict: Bool) throws -> JinjaText {
        var result = JinjaText()
        for (index, value) in values.enumerated() {
            let text: JinjaText
            if isStrict {
                guard case .text(let given) = value else { throw meter.failure("join: expected texts, found \(value.typeName)") }
                text = given
            } else {
                text = try spelling.string(value)
            }
            try meter.allocate(text.count + separator.count)
            try meter.step()
            if index > 0 { result.append(separator) }
            result.append(text)
        }
        return result
    }

    /// `str.format` with `{}`, `{0}` and `{name}`.
    private func format(_ text: JinjaText, _ arguments: JinjaArguments) throws -> JinjaText {
        try meter.allocate(text.count)
        var (result, index, automatic) = (JinjaText(), 0, 0)
        while index < text.count {
            let scalar = text.scalars[index]
            if scalar == "{" || scalar == "}", index + 1 < text.count, text.scalars[index + 1] == scalar {
                result.append(scalar, text.origin(at: index))
                index += 2
            } else if scalar == "{" {
                guard let end = text.scalars[index...].firstIndex(of: "}") else { throw meter.failure("format: a { without }") }
                let field = text[index + 1..<end].string
                let value: JinjaValue?
                if field.isEmpty {
                    value = automatic < arguments.positional.count ? arguments.positional[automatic] : nil
                    automatic += 1
                } else if let position = Int(field) {
                    value = arguments.positional.indices.contains(position) ? arguments.positional[position] : nil
                } else {
                    value = arguments.keyword.first { $0.name == field }?.value
                }
                guard let value else { throw meter.failure("format: there is no value for {\(field.prefix(40))}") }
                let more = try spelling.string(value)
                try meter.allocate(more.count)
                result.append(more)
                index = end + 1
            } else {
                result.append(scalar, text.origin(at: index))
                index += 1
            }
        }
        return result
    }
}
