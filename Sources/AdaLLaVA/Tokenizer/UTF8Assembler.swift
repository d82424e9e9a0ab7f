/// Collects bytes into whole UTF-8 characters and replaces bytes that cannot become one.
struct UTF8Assembler: Sendable {
    /// How many bytes of a broken character one U+FFFD replaces.
    enum Replacement: Sendable {
        /// Every byte of its own (SentencePiece).
        case everyByte
        /// The longest start of a character that breaks off (the Unicode standard's recommendation).
        case maximalSubparts
    }

    static let replacementCharacter: [UInt8] = [0xEF, 0xBF, 0xBD]

    private let replacement: Replacement
    private var held: [UInt8] = []

    init(replacing replacement: Replacement) {
        self.replacement = replacement
    }

    var isEmpty: Bool { held.isEmpty }

    /// Appends to `output` the characters that `bytes` completes.
    mutating func push(_ bytes: some Sequence<UInt8>, into output: inout [UInt8]) {
        for byte in bytes {
            if held.isEmpty && byte < 0x80 {
                output.append(byte)
            } else {
                held.append(byte)
                settle(into: &output)
            }
        }
    }

    /// Appends the remaining bytes, which are no whole character.
    mutating func finish(into output: inout [UInt8]) {
        while !held.isEmpty { replaceFirst(into: &output) }
    }

    private mutating func settle(into output: inout [UInt8]) {
        while !held.isEmpty {
            switch UTF8Shape.examine(held[...]) {
            case .character(let length):
                output.append(contentsOf: held[..<length])
                held.removeFirst(length)
            case .incomplete:
                return
            case .broken:
                replaceFirst(into: &output)
            }
        }
    }

    private mutating func replaceFirst(into output: inout [UInt8]) {
        output.append(contentsOf: Self.replacementCharacter)
        switch replacement {
        case .everyByte: held.removeFirst()
        case .maximalSubparts: held.removeFirst(UTF8Shape.brokenPrefix(held[...]))
        }
    }
}

/// Classification of the first bytes of a sequence, by table 3-7 of the Unicode standard (no overlong forms, no surrogates).
enum UTF8Shape: Equatable {
    case character(length: Int)
    /// A start that more bytes can complete.
    case incomplete
    case broken

    static func examine(_ bytes: ArraySlice<UInt8>) -> UTF8Shape {
        guard let lead = bytes.first else { return .incomplete }
        let length = expectedLength(lead)
        guard length > 0 else { return .broken }
        var seen = 1
        for byte in bytes.dropFirst().prefix(length - 1) {
            guard continues(lead, position: seen, byte: byte) else { return .broken }
            seen += 1
        }
        return seen == length ? .character(length: length) : .incomplete
    }

    /// Bytes at the start that one replacement covers: at least one, and as many as a character could have begun with.
    static func brokenPrefix(_ bytes: ArraySlice<UInt8>) -> Int {
        guard let lead = bytes.first else { return 0 }
        let length = expectedLength(lead)
        guard length > 1 else { return 1 }
        var seen = 1
        for byte in bytes.dropFirst().prefix(length - 1) {
            guard continues(lead, position: seen, byte: byte) else { break }
            seen += 1
        }
        return seen
    }

    /// Bytes of the character that `lead` starts; 0 if none starts with it.
    static func expectedLength(_ lead: UInt8) -> Int {
        switch lead {
        case 0x00...0x7F: 1
        case 0xC2...0xDF: 2
        case 0xE0...0xEF: 3
        case 0xF0...0xF4: 4
        default: 0
        }
    }

    private static func continues(_ lead: UInt8, position: Int, byte: UInt8) -> Bool {
        if position == 1 {
            switch lead {
            case 0xE0: return (0xA0...0xBF).contains(byte)
            case 0xED: return (0x80...0x9F).contains(byte)
            case 0xF0: return (0x90...0xBF).contains(byte)
            case 0xF4: return (0x80...0x8F).contains(byte)
            default: break
            }
        }
        return (0x80...0xBF).contains(byte)
    }
}
