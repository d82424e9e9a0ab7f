/// One step from tokens back to text (`decoder` in tokenizer.json), fed one token at a time.
///
/// A step passes on the bytes that later tokens cannot change; ``finish()`` passes on the rest.
enum TokenDecoder: Sendable {
    case replace(SplitPattern, with: [UInt8])
    case byteFallback(held: [UInt8])
    /// Everything after this step is one text: `isFused` of the steps after it.
    case fuse
    case strip(Strip)
    case byteLevel
    case metaspace(replacement: [UInt8], stripsFirst: Bool, isFirst: Bool)

    /// Takes up to `start` copies of `content` off the front of every token and up to `stop` off its end; of the whole text if fused.
    struct Strip: Sendable {
        let content: [UInt8]
        let start: Int
        let stop: Int
        let isFused: Bool
        /// Copies still to come off the front of the fused text.
        private var remaining: Int
        private var held: [UInt8] = []

        /// - Parameters:
        ///   - content: not empty.
        ///   - start: not negative, like `stop`.
        init(content: [UInt8], start: Int, stop: Int, isFused: Bool) {
            (self.content, self.start, self.stop, self.isFused) = (content, start, stop, isFused)
            remaining = start
        }

        mutating func push(_ token: [UInt8]) -> [UInt8] {
            guard isFused else {
                var text = token[...]
                var taken = 0
                while taken < start, text.starts(with: content) {
                    text = text.dropFirst(content.count)
                    taken += 1
                }
                return Array(dropEnd(text))
            }
            held.append(contentsOf: token)
            while remaining > 0 {
                if held.starts(with: content) {
                    held.removeFirst(content.count)
                    remaining -= 1
                } else if content.starts(with: held) {
                    return []
                } else {
                    remaining = 0
                }
            }
            // The end that could still come off stays here.
            let (longest, overflows) = stop.multipliedReportingOverflow(by: content.count)
            let kept = overflows ? held.count : min(held.count, longest)
            guard kept > 0 else {
                defer { held = [] }
                return held
            }
            let settled = Array(held.dropLast(kept))
            held.removeFirst(settled.count)
            return settled
        }

        mutating func finish() -> [UInt8] {
            defer { held = [] }
            return Array(dropEnd(held[...]))
        }

        private func dropEnd(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
            var text = text
            var taken = 0
            while taken < stop, text.count >= content.count, text.suffix(content.count).elementsEqual(content) {
                text = text.dropLast(content.count)
                taken += 1
            }
            return text
        }
    }

    mutating func push(_ token: [UInt8]) -> [[UInt8]] {
        switch self {
        case .fuse: return [token]
        case .replace(let pattern, let replacement): return [TextNormalizer.replace(pattern, with: replacement).apply(token)]
        case .byteLevel: return [ByteLevelAlphabet.decode(token[...]) ?? token]
        case .strip(var strip):
            defer { self = .strip(strip) }
            return [strip.push(token)]
        case .metaspace(let replacement, let stripsFirst, let isFirst):
            self = .metaspace(replacement: replacement, stripsFirst: stripsFirst, isFirst: false)
            let text = isFirst && stripsFirst && token.starts(with: replacement) ? Array(token.dropFirst(replacement.count)) : token
            return [ByteText.replacing(replacement, with: [UInt8(ascii: " ")], in: text)]
        case .byteFallback(var held):
            if let byte = SentencePieceModel.byteValue(token) {
                held.append(byte)
                self = .byteFallback(held: held)
                return []
            }
            self = .byteFallback(held: [])
            return held.isEmpty ? [token] : [Self.text(held), token]
        }
    }

    mutating func finish() -> [[UInt8]] {
        switch self {
        case .byteFallback(let held):
            self = .byteFallback(held: [])
            return held.isEmpty ? [] : [Self.text(held)]
        case .strip(var strip):
            defer { self = .strip(strip) }
            return [strip.finish()]
        default: return []
        }
    }

    /// A run of byte tokens is a text as a whole or not at all: one replacement character for each byte if any is broken.
    private static func text(_ bytes: [UInt8]) -> [UInt8] {
        var rest = bytes[...]
        while !rest.isEmpty {
            guard case .character(let length) = UTF8Shape.examine(rest) else {
                return bytes.flatMap { _ in UTF8Assembler.replacementCharacter }
            }
            rest = rest.dropFirst(length)
        }
        return bytes
    }
}
