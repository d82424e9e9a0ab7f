/// A text as scalars with the classes that pre-tokenizers tell apart, and the byte offsets they came from.
struct UnicodeText {
    /// A scalar's classes for pre-tokenizers.
    struct Class: OptionSet, Sendable {
        let rawValue: UInt8
        static let letter = Class(rawValue: 1)
        static let number = Class(rawValue: 2)
        static let space = Class(rawValue: 4)
        /// `\r` or `\n`, which are spaces too.
        static let newline = Class(rawValue: 8)
        static let punctuation = Class(rawValue: 16)
        /// None of letter, number and space.
        var isOther: Bool { isDisjoint(with: [.letter, .number, .space]) }
    }

    private(set) var scalars: [Unicode.Scalar] = []
    private(set) var classes: [Class] = []
    /// Byte offset of every scalar, and of the end.
    private(set) var offsets: [Int] = []

    /// - Parameter bytes: UTF-8; other bytes become U+FFFD with the length of the bytes that it replaces.
    init(_ bytes: ArraySlice<UInt8>) {
        scalars.reserveCapacity(bytes.count)
        classes.reserveCapacity(bytes.count)
        offsets.reserveCapacity(bytes.count + 1)
        var position = bytes.startIndex
        while position < bytes.endIndex {
            let (scalar, length) = Self.scalar(in: bytes, at: position)
            scalars.append(scalar)
            classes.append(Self.classify(scalar))
            offsets.append(position)
            position += length
        }
        offsets.append(position)
    }

    var count: Int { scalars.count }

    /// The scalar at a byte offset and its length in bytes.
    static func scalar(in bytes: ArraySlice<UInt8>, at position: Int) -> (scalar: Unicode.Scalar, length: Int) {
        let lead = bytes[position]
        if lead < 0x80 { return (Unicode.Scalar(lead), 1) }
        let rest = bytes[position...]
        guard case .character(let length) = UTF8Shape.examine(rest) else { return ("\u{FFFD}", UTF8Shape.brokenPrefix(rest)) }
        var value = UInt32(lead) & (length == 2 ? 0x1F : length == 3 ? 0x0F : 0x07)
        for byte in rest.dropFirst().prefix(length - 1) { value = value << 6 | UInt32(byte & 0x3F) }
        return (Unicode.Scalar(value) ?? "\u{FFFD}", length)
    }

    static func classify(_ scalar: Unicode.Scalar) -> Class {
        scalar.value < 128 ? ascii[Int(scalar.value)] : look(up: scalar)
    }

    private static let ascii: [Class] = (0..<128).map { look(up: Unicode.Scalar(UInt8($0))) }

    private static func look(up scalar: Unicode.Scalar) -> Class {
        if scalar == "\r" || scalar == "\n" { return [.space, .newline] }
        if scalar.properties.isWhitespace { return .space }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: return .letter
        case .decimalNumber, .letterNumber, .otherNumber: return .number
        case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation,
            .finalPunctuation, .otherPunctuation:
            return .punctuation
        default: return []
        }
    }

    /// Whether a scalar belongs to a word by regular expressions' `\w`.
    static func isWord(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.properties.isAlphabetic || scalar.properties.isJoinControl { return true }
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: return true
        default: return false
        }
    }

    static func trimmingWhitespace(_ bytes: [UInt8], atEnd: Bool) -> [UInt8] {
        let text = UnicodeText(bytes[...])
        if atEnd {
            var end = text.count
            while end > 0 && text.classes[end - 1].contains(.space) { end -= 1 }
            return Array(bytes[..<text.offsets[end]])
        }
        var start = 0
        while start < text.count && text.classes[start].contains(.space) { start += 1 }
        return Array(bytes[text.offsets[start]...])
    }
}
