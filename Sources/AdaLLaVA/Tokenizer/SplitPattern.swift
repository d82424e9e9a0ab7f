import Foundation

/// The pattern of a pre-tokenizer, normalizer or decoder: fixed bytes, a well-known word pattern, or a regular expression.
enum SplitPattern: Sendable {
    case literal([UInt8])
    case words(WordScanner)
    case regularExpression(RegularExpression)

    /// - Throws: ``RegularExpression/Unsupported`` when the expression does not compile here.
    init(regex: String) throws(RegularExpression.Unsupported) {
        if let scanner = WordScanner(pattern: regex) {
            self = .words(scanner)
        } else {
            self = .regularExpression(try RegularExpression(regex))
        }
    }

    /// Calls `body` with ranges that cover `bytes` in order, and whether the pattern matched each. Empty matches are left out.
    func forEach(in bytes: ArraySlice<UInt8>, _ body: (Range<Int>, _ isMatch: Bool) -> Void) {
        switch self {
        case .words(let scanner):
            scanner.forEach(in: UnicodeText(bytes), body)
        case .literal(let literal):
            var start = bytes.startIndex
            let text = Array(bytes)
            ByteText.forEach(literal, in: text) { range in
                let (lower, upper) = (range.lowerBound + bytes.startIndex, range.upperBound + bytes.startIndex)
                if start < lower { body(start..<lower, false) }
                body(lower..<upper, true)
                start = upper
            }
            if start < bytes.endIndex { body(start..<bytes.endIndex, false) }
        case .regularExpression(let expression):
            expression.forEach(in: bytes, body)
        }
    }
}

/// A regular expression in ICU's dialect, matched over UTF-8 bytes.
final class RegularExpression: @unchecked Sendable {
    struct Unsupported: Error {
        let pattern: String
    }

    /// `NSRegularExpression` does not change once made, and matching with it is documented to be safe from several threads.
    private let expression: NSRegularExpression

    init(_ pattern: String) throws(Unsupported) {
        do {
            expression = try NSRegularExpression(pattern: Self.translated(pattern))
        } catch {
            throw Unsupported(pattern: pattern)
        }
    }

    /// Hugging Face's expressions are Oniguruma's, whose `\w` is letters, marks, numbers of every kind and connectors; ICU's takes
    /// joiners too and leaves out numbers such as ½.
    private static func translated(_ pattern: String) -> String {
        let word = "\\p{L}\\p{M}\\p{N}\\p{Pc}"
        var output = ""
        var brackets = 0
        var isEscaped = false
        for scalar in pattern.unicodeScalars {
            if isEscaped {
                isEscaped = false
                switch scalar {
                case "w": output += brackets > 0 ? word : "[\(word)]"
                case "W": output += "[^\(word)]"
                default: output += "\\\(scalar)"
                }
                continue
            }
            switch scalar {
            case "\\":
                isEscaped = true
                continue
            case "[": brackets += 1
            case "]": brackets = max(0, brackets - 1)
            default: break
            }
            output.unicodeScalars.append(scalar)
        }
        return isEscaped ? output + "\\" : output
    }

    /// How often a search may report that it is still at it (every few thousand steps) before it is given up: an expression that
    /// backtracks without end leaves the rest of its text in one piece instead of hanging.
    private static let longestSearch = 2000

    func forEach(in bytes: ArraySlice<UInt8>, _ body: (Range<Int>, _ isMatch: Bool) -> Void) {
        let text = UnicodeText(bytes)
        var units: [UInt16] = []
        var offsets: [Int] = []
        for (index, scalar) in text.scalars.enumerated() {
            for unit in UTF16.encode(scalar) ?? UTF16.EncodedScalar() {
                units.append(unit)
                offsets.append(text.offsets[index])
            }
        }
        offsets.append(bytes.endIndex)
        let string = String(decoding: units, as: UTF16.self)
        var matches: [NSRange] = []
        var reports = 0
        expression.enumerateMatches(
            in: string, options: [.reportProgress], range: NSRange(location: 0, length: units.count)
        ) { match, _, stop in
            if let match {
                matches.append(match.range)
            } else {
                reports += 1
                if reports > Self.longestSearch { stop.pointee = true }
            }
        }
        var start = bytes.startIndex
        for range in matches where range.length > 0 && range.location >= 0 && range.location + range.length < offsets.count {
            let (lower, upper) = (offsets[range.location], offsets[range.location + range.length])
            guard lower >= start, upper > lower else { continue }
            if start < lower { body(start..<lower, false) }
            body(lower..<upper, true)
            start = upper
        }
        if start < bytes.endIndex { body(start..<bytes.endIndex, false) }
    }
}
