/// Searching and replacing in UTF-8 bytes. Swift's `String` compares whole characters under canonical equivalence, and tokenizers
/// do not: `<image>` followed by a combining accent still is `<image>`.
enum ByteText {
    /// Calls `body` with the range of every occurrence of `pattern`, left to right, without overlaps.
    static func forEach(_ pattern: [UInt8], in text: [UInt8], _ body: (Range<Int>) -> Void) {
        guard let first = pattern.first, text.count >= pattern.count else { return }
        text.withUnsafeBufferPointer { text in
            pattern.withUnsafeBufferPointer { pattern in
                var position = 0
                let last = text.count - pattern.count
                while position <= last {
                    if text[position] == first {
                        var matched = 1
                        while matched < pattern.count && text[position + matched] == pattern[matched] { matched += 1 }
                        if matched == pattern.count {
                            body(position..<position + pattern.count)
                            position += pattern.count
                            continue
                        }
                    }
                    position += 1
                }
            }
        }
    }

    static func replacing(_ pattern: [UInt8], with replacement: [UInt8], in text: [UInt8]) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        var start = 0
        forEach(pattern, in: text) { range in
            output.append(contentsOf: text[start..<range.lowerBound])
            output.append(contentsOf: replacement)
            start = range.upperBound
        }
        output.append(contentsOf: text[start...])
        return output
    }

    /// The parts between the occurrences of `separator`, as Python's `str.split` gives them: always one more than occurrences.
    static func split(_ text: String, by separator: String) -> [String] {
        let bytes = Array(text.utf8)
        var parts: [String] = []
        var start = 0
        forEach(Array(separator.utf8), in: bytes) { range in
            parts.append(String(decoding: bytes[start..<range.lowerBound], as: UTF8.self))
            start = range.upperBound
        }
        parts.append(String(decoding: bytes[start...], as: UTF8.self))
        return parts
    }

    static func replacing(_ pattern: String, with replacement: String, in text: String) -> String {
        String(decoding: replacing(Array(pattern.utf8), with: Array(replacement.utf8), in: Array(text.utf8)), as: UTF8.self)
    }

    static func contains(_ pattern: String, in text: String) -> Bool {
        var found = false
        forEach(Array(pattern.utf8), in: Array(text.utf8)) { _ in found = true }
        return found
    }

    /// The text without whitespace at both ends (Python's `str.strip`).
    static func trimmed(_ text: String) -> String {
        let start = UnicodeText.trimmingWhitespace(Array(text.utf8), atEnd: false)
        return String(decoding: UnicodeText.trimmingWhitespace(start, atEnd: true), as: UTF8.self)
    }
}
