import Foundation

/// One step that rewrites text before it is split (`normalizer` in tokenizer.json).
enum TextNormalizer: Sendable {
    case prepend([UInt8])
    case replace(SplitPattern, with: [UInt8])
    case composed, decomposed, compatibilityComposed, compatibilityDecomposed
    case lowercase
    case stripAccents
    case strip(left: Bool, right: Bool)

    func apply(_ text: [UInt8]) -> [UInt8] {
        switch self {
        case .prepend(let prefix): return text.isEmpty ? text : prefix + text
        case .replace(.literal(let literal), let replacement): return ByteText.replacing(literal, with: replacement, in: text)
        case .replace(let pattern, let replacement):
            var output: [UInt8] = []
            pattern.forEach(in: text[...]) { range, isMatch in
                output.append(contentsOf: isMatch ? replacement[...] : text[range])
            }
            return output
        case .strip(let left, let right):
            let start = left ? UnicodeText.trimmingWhitespace(text, atEnd: false) : text
            return right ? UnicodeText.trimmingWhitespace(start, atEnd: true) : start
        case .stripAccents:
            let decoded = UnicodeText(text[...])
            return decoded.scalars.indices.flatMap { index -> ArraySlice<UInt8> in
                decoded.scalars[index].properties.generalCategory == .nonspacingMark
                    ? [] : text[decoded.offsets[index]..<decoded.offsets[index + 1]]
            }
        case .lowercase:
            if text.allSatisfy({ $0 < 0x80 }) { return text.map { (0x41...0x5A).contains($0) ? $0 + 32 : $0 } }
            // Scalar by scalar: a final sigma is lowered like any other.
            return UnicodeText(text[...]).scalars.flatMap { Array($0.properties.lowercaseMapping.utf8) }
        case .composed, .decomposed, .compatibilityComposed, .compatibilityDecomposed:
            // ASCII is the same in all four forms.
            if text.allSatisfy({ $0 < 0x80 }) { return text }
            let string = String(decoding: text, as: UTF8.self)
            let isCompatible = switch self { case .compatibilityComposed, .compatibilityDecomposed: true; default: false }
            // Foundation leaves marks that it has just taken apart in their place; the second time it puts them in order.
            let parts = (isCompatible ? string.decomposedStringWithCompatibilityMapping : string.decomposedStringWithCanonicalMapping)
                .decomposedStringWithCanonicalMapping
            let isComposed = switch self { case .composed, .compatibilityComposed: true; default: false }
            // Composed from the decomposed parts: Foundation's compatibility composition leaves some decomposed (half-width kana, Hangul).
            return Array((isComposed ? parts.precomposedStringWithCanonicalMapping : parts).utf8)
        }
    }
}
