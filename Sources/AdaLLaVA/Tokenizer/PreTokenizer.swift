/// A text on its way into words: its bytes, and the ranges of them that are words so far.
struct PreTokens {
    var bytes: [UInt8]
    var ranges: [Range<Int>]
    /// Whether the text begins where the whole input begins.
    var isAtStart: Bool

    init(_ bytes: [UInt8], isAtStart: Bool) {
        self.bytes = bytes
        self.isAtStart = isAtStart
        ranges = bytes.isEmpty ? [] : [0..<bytes.count]
    }
}

/// One step that splits text into the words that are merged apart from each other (`pre_tokenizer` in tokenizer.json).
enum PreTokenizer: Sendable {
    /// The treatment of a pattern's matches.
    enum Behavior: String, Sendable {
        case removed = "Removed"
        case isolated = "Isolated"
        case mergedWithPrevious = "MergedWithPrevious"
        case mergedWithNext = "MergedWithNext"
        case contiguous = "Contiguous"
    }

    /// When ``metaspace(replacement:scheme:splits:)`` puts its symbol in front.
    enum PrependScheme: String, Sendable {
        case first, never, always
    }

    case split(SplitPattern, Behavior, inverted: Bool)
    /// Bytes as GPT-2's characters, after an optional space in front and GPT-2's split.
    case byteLevel(addsPrefixSpace: Bool, splits: Bool)
    case metaspace(replacement: [UInt8], scheme: PrependScheme, splits: Bool)
    case digits(individual: Bool)
    case punctuation(Behavior)
    /// Words, and runs of other scalars that are no space.
    case whitespace
    case whitespaceSplit

    func apply(_ tokens: inout PreTokens) {
        switch self {
        case .split(let pattern, let behavior, let inverted):
            refine(&tokens, behavior) { slice, body in
                pattern.forEach(in: slice) { range, isMatch in body(range, isMatch != inverted) }
            }
        case .digits(let individual):
            refine(&tokens, individual ? .isolated : .contiguous) { slice, body in
                Self.forEachScalar(slice, isMatch: { $1.contains(.number) }, body)
            }
        case .punctuation(let behavior):
            refine(&tokens, behavior) { slice, body in
                Self.forEachScalar(slice, isMatch: Self.isPunctuation, body)
            }
        case .whitespaceSplit:
            refine(&tokens, .removed) { slice, body in
                Self.forEachScalar(slice, isMatch: { $1.contains(.space) }, body)
            }
        case .whitespace: splitWords(&tokens)
        case .byteLevel(let addsPrefixSpace, let splits): byteLevel(&tokens, addsPrefixSpace, splits)
        case .metaspace(let replacement, let scheme, let splits): metaspace(&tokens, replacement, scheme, splits)
        }
    }

    /// Splits every word into the ranges that `find` reports, which cover it in order.
    private func refine(
        _ tokens: inout PreTokens, _ behavior: Behavior,
        _ find: (ArraySlice<UInt8>, _ body: (Range<Int>, _ isMatch: Bool) -> Void) -> Void
    ) {
        var refined: [Range<Int>] = []
        refined.reserveCapacity(tokens.bytes.count / 4 + 1)
        for word in tokens.ranges {
            let first = refined.count
            var previousIsMatch: Bool?
            find(tokens.bytes[word]) { range, isMatch in
                defer { previousIsMatch = isMatch }
                let last = refined.count - 1
                switch behavior {
                case .isolated: refined.append(range)
                case .removed: if !isMatch { refined.append(range) }
                case .contiguous:
                    if previousIsMatch == isMatch, last >= first {
                        refined[last] = refined[last].lowerBound..<range.upperBound
                    } else {
                        refined.append(range)
                    }
                case .mergedWithPrevious:
                    if isMatch, previousIsMatch == false, last >= first {
                        refined[last] = refined[last].lowerBound..<range.upperBound
                    } else {
                        refined.append(range)
                    }
                case .mergedWithNext:
                    if !isMatch, previousIsMatch == true, last >= first {
                        refined[last] = refined[last].lowerBound..<range.upperBound
                    } else {
                        refined.append(range)
                    }
                }
            }
        }
        tokens.ranges = refined.filter { !$0.isEmpty }
    }

    /// Reports single scalars as matches, and the ranges between them.
    private static func forEachScalar(
        _ slice: ArraySlice<UInt8>, isMatch: (Unicode.Scalar, UnicodeText.Class) -> Bool, _ body: (Range<Int>, Bool) -> Void
    ) {
        let text = UnicodeText(slice)
        var start = 0
        for index in 0..<text.count where isMatch(text.scalars[index], text.classes[index]) {
            if start < index { body(text.offsets[start]..<text.offsets[index], false) }
            body(text.offsets[index]..<text.offsets[index + 1], true)
            start = index + 1
        }
        if start < text.count { body(text.offsets[start]..<text.offsets[text.count], false) }
    }

    /// Unicode's punctuation and all of ASCII's, its symbols included.
    private static func isPunctuation(_ scalar: Unicode.Scalar, _ class: UnicodeText.Class) -> Bool {
        switch scalar.value {
        case 0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E: true
        default: `class`.contains(.punctuation)
        }
    }

    private func splitWords(_ tokens: inout PreTokens) {
        var refined: [Range<Int>] = []
        for word in tokens.ranges {
            let text = UnicodeText(tokens.bytes[word])
            var start = 0
            while start < text.count {
                if text.classes[start].contains(.space) {
                    start += 1
                    continue
                }
                let isWord = UnicodeText.isWord(text.scalars[start])
                var end = start + 1
                while end < text.count, !text.classes[end].contains(.space), UnicodeText.isWord(text.scalars[end]) == isWord { end += 1 }
                refined.append(text.offsets[start]..<text.offsets[end])
                start = end
            }
        }
        tokens.ranges = refined
    }

    private func byteLevel(_ tokens: inout PreTokens, _ addsPrefixSpace: Bool, _ splits: Bool) {
        if addsPrefixSpace {
            rewrite(&tokens) { word, output in
                if word.first != UInt8(ascii: " ") { output.append(UInt8(ascii: " ")) }
                output.append(contentsOf: word)
            }
        }
        if splits { PreTokenizer.split(.words(.gpt2), .isolated, inverted: false).apply(&tokens) }
        rewrite(&tokens) { word, output in ByteLevelAlphabet.encode(word, into: &output) }
    }

    private func metaspace(_ tokens: inout PreTokens, _ replacement: [UInt8], _ scheme: PrependScheme, _ splits: Bool) {
        let isAtStart = tokens.isAtStart
        var isFirst = true
        rewrite(&tokens) { word, output in
            let text = ByteText.replacing([UInt8(ascii: " ")], with: replacement, in: Array(word))
            let prepends = scheme == .always || (scheme == .first && isFirst && isAtStart)
            if prepends && !text.starts(with: replacement) { output.append(contentsOf: replacement) }
            output.append(contentsOf: text)
            isFirst = false
        }
        if splits { PreTokenizer.split(.literal(replacement), .mergedWithNext, inverted: false).apply(&tokens) }
    }

    /// Writes every word anew.
    private func rewrite(_ tokens: inout PreTokens, _ body: (ArraySlice<UInt8>, inout [UInt8]) -> Void) {
        var output: [UInt8] = []
        output.reserveCapacity(tokens.bytes.count + tokens.bytes.count / 2 + 8)
        var ranges: [Range<Int>] = []
        ranges.reserveCapacity(tokens.ranges.count)
        for word in tokens.ranges {
            let start = output.count
            body(tokens.bytes[word], &output)
            if output.count > start { ranges.append(start..<output.count) }
        }
        (tokens.bytes, tokens.ranges) = (output, ranges)
    }
}
