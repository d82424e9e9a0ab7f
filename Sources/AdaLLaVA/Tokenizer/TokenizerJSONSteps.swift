/// Reads the steps of tokenizer.json's pipeline: normalizers, pre-tokenizers, post-processors and decoders.
struct TokenizerJSONSteps {
    let file: String
    /// Whether a `Fuse` came before the decoder that is being read.
    private var isFused = false

    /// Bytes that one replacement can put in: bounds how far a hostile file can blow a text up.
    private static let longestReplacement = 256

    init(file: String) {
        self.file = file
    }

    private func unsupported(_ what: String, hint: String = "") -> CheckpointError { .unsupported(what: what, file: file, hint: hint) }

    private func malformed(_ reason: String) -> CheckpointError { .malformed(file: file, reason: reason) }

    /// The steps in a value: none for null, the members of a `Sequence`, or the one it is.
    private func steps(_ value: ByteJSON?, _ role: String, _ members: String) throws -> [(type: String, value: ByteJSON)] {
        guard let value, !value.isNull else { return [] }
        guard let type = value["type"]?.text else { throw malformed("\(role): expected an object with a type, found \(value.kind)") }
        guard type == "Sequence" else { return [(type, value)] }
        guard let entries = value[members]?.array else { throw malformed("\(role): a Sequence without \(members)") }
        return try entries.flatMap { try steps($0, role, members) }
    }

    func normalizers(_ value: ByteJSON?) throws -> [TextNormalizer] {
        try steps(value, "normalizer", "normalizers").map { type, value in
            switch type {
            case "Prepend": .prepend(try bytes(value, "prepend", of: type))
            case "Replace": .replace(try pattern(value["pattern"]), with: try bytes(value, "content", of: type))
            case "NFC": .composed
            case "NFD": .decomposed
            case "NFKC": .compatibilityComposed
            case "NFKD": .compatibilityDecomposed
            case "Lowercase": .lowercase
            case "StripAccents": .stripAccents
            case "Strip": .strip(left: value["strip_left"]?.bool ?? true, right: value["strip_right"]?.bool ?? true)
            default: throw unsupported("the normalizer \(type)")
            }
        }
    }

    func preTokenizers(_ value: ByteJSON?) throws -> [PreTokenizer] {
        let entries = try steps(value, "pre_tokenizer", "pretokenizers")
        // Each makes text longer; a file that repeats them without end would fill the memory.
        for type in ["ByteLevel", "Metaspace"] where entries.count(where: { $0.type == type }) > 1 {
            throw unsupported("a pre-tokenizer with \(type) more than once")
        }
        return try entries.map { type, value in
            switch type {
            case "ByteLevel":
                .byteLevel(addsPrefixSpace: value["add_prefix_space"]?.bool ?? true, splits: value["use_regex"]?.bool ?? true)
            case "Metaspace":
                .metaspace(
                    replacement: try replacement(value), scheme: try prependScheme(value), splits: value["split"]?.bool ?? true)
            case "Split":
                .split(try pattern(value["pattern"]), try behavior(value["behavior"]), inverted: value["invert"]?.bool ?? false)
            case "Digits": .digits(individual: value["individual_digits"]?.bool ?? false)
            case "Punctuation": .punctuation(try value["behavior"].map { try behavior($0) } ?? .isolated)
            case "Whitespace": .whitespace
            case "WhitespaceSplit": .whitespaceSplit
            case "CharDelimiterSplit": .split(.literal(try bytes(value, "delimiter", of: type)), .removed, inverted: false)
            default: throw unsupported("the pre-tokenizer \(type)")
            }
        }
    }

    mutating func decoders(_ value: ByteJSON?) throws -> [TokenDecoder] {
        var decoders: [TokenDecoder] = []
        for (type, value) in try steps(value, "decoder", "decoders") {
            switch type {
            case "ByteLevel": decoders.append(.byteLevel)
            case "ByteFallback": decoders.append(.byteFallback(held: []))
            case "Replace": decoders.append(.replace(try pattern(value["pattern"]), with: try bytes(value, "content", of: type)))
            case "Fuse":
                isFused = true
                decoders.append(.fuse)
            case "Strip":
                let (start, stop) = (value["start"]?.int ?? 0, value["stop"]?.int ?? 0)
                let content = try bytes(value, "content", of: type)
                guard start >= 0, stop >= 0, !content.isEmpty else {
                    throw malformed("decoder Strip: nothing to strip, or a negative count")
                }
                decoders.append(.strip(TokenDecoder.Strip(content: content, start: start, stop: stop, isFused: isFused)))
            case "Metaspace":
                decoders.append(
                    .metaspace(replacement: try replacement(value), stripsFirst: try prependScheme(value) != .never, isFirst: true))
            default: throw unsupported("the decoder \(type)")
            }
        }
        return decoders
    }

    /// The ids that go before and after a sequence.
    func postProcessor(_ value: ByteJSON?) throws -> (prefix: [Int], suffix: [Int]) {
        var result: (prefix: [Int], suffix: [Int]) = ([], [])
        for (type, value) in try steps(value, "post_processor", "processors") {
            switch type {
            // Only changes the offsets of words, which are not used here.
            case "ByteLevel": continue
            case "TemplateProcessing": result = try template(value)
            case "RobertaProcessing", "BertProcessing":
                guard let first = value["cls"]?.array?.last?.int, let last = value["sep"]?.array?.last?.int else {
                    throw malformed("post_processor \(type): expected cls and sep with their ids")
                }
                result = ([try valid(first)], [try valid(last)])
            default: throw unsupported("the post-processor \(type)")
            }
        }
        return result
    }

    private func template(_ value: ByteJSON) throws -> (prefix: [Int], suffix: [Int]) {
        var (prefix, suffix): ([Int], [Int]) = ([], [])
        var isBehind = false
        for item in value["single"]?.array ?? [] {
            if item["Sequence"] != nil {
                guard !isBehind else { throw unsupported("a post-processor that repeats the sequence") }
                isBehind = true
            } else if let name = item["SpecialToken"]?["id"]?.text {
                guard let ids = value["special_tokens"]?[name]?["ids"]?.array else {
                    throw malformed("post_processor: the special token \(name) has no ids")
                }
                for id in ids {
                    guard let id = id.int else { throw malformed("post_processor: an id of \(name) is \(id.kind)") }
                    if isBehind { suffix.append(try valid(id)) } else { prefix.append(try valid(id)) }
                }
            } else {
                throw malformed("post_processor: expected a Sequence or a SpecialToken, found \(item.kind)")
            }
        }
        return (prefix, suffix)
    }

    private func valid(_ id: Int) throws -> Int {
        guard AddedToken.validIDs.contains(id) else { throw malformed("post_processor: the id \(id) is out of range") }
        return id
    }

    private func bytes(_ value: ByteJSON, _ field: String, of type: String) throws -> [UInt8] {
        guard let bytes = value[field]?.bytes else {
            throw malformed("\(type): expected a string as \(field), found \(value[field]?.kind ?? "nothing")")
        }
        guard bytes.count <= Self.longestReplacement else {
            throw unsupported("a \(type) with \(bytes.count) bytes as \(field)", hint: "at most \(Self.longestReplacement) are read")
        }
        return bytes
    }

    private func pattern(_ value: ByteJSON?) throws -> SplitPattern {
        if let literal = value?["String"]?.bytes {
            guard !literal.isEmpty else { throw malformed("a pattern is empty") }
            return .literal(literal)
        }
        guard let regex = value?["Regex"]?.text else {
            throw malformed("expected a pattern with String or Regex, found \(value?.kind ?? "nothing")")
        }
        do {
            return try SplitPattern(regex: regex)
        } catch {
            throw unsupported("the pattern \(error.pattern)", hint: "it does not compile as an ICU regular expression")
        }
    }

    private func behavior(_ value: ByteJSON?) throws -> PreTokenizer.Behavior {
        guard let behavior = value?.text.flatMap(PreTokenizer.Behavior.init(rawValue:)) else {
            throw unsupported("the split behavior \(value?.kind ?? "missing")")
        }
        return behavior
    }

    private func replacement(_ value: ByteJSON) throws -> [UInt8] {
        guard value["replacement"] != nil else { return SentencePieceModel.spaceSymbol }
        let replacement = try bytes(value, "replacement", of: "Metaspace")
        guard !replacement.isEmpty else { throw malformed("Metaspace: the replacement is empty") }
        return replacement
    }

    /// Files before the scheme existed say `add_prefix_space` instead.
    private func prependScheme(_ value: ByteJSON) throws -> PreTokenizer.PrependScheme {
        if let name = value["prepend_scheme"]?.text {
            guard let scheme = PreTokenizer.PrependScheme(rawValue: name) else { throw unsupported("the prepend scheme \(name)") }
            return scheme
        }
        return value["add_prefix_space"]?.bool ?? true ? .always : .never
    }
}
