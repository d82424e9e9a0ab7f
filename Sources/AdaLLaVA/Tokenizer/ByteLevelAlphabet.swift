/// GPT-2's way to write any byte as a printable character, so that byte-level vocabularies can be stored as text.
///
/// Printable Latin-1 bytes represent themselves; the other 68 become U+0100, U+0101, … in order.
enum ByteLevelAlphabet {
    /// The character of every byte, as UTF-8.
    static let encoded: [[UInt8]] = (0..<256).map { Array(String(scalar(of: UInt8($0))).utf8) }

    private static let printable: [Bool] = (0..<256).map {
        (0x21...0x7E).contains($0) || (0xA1...0xAC).contains($0) || (0xAE...0xFF).contains($0)
    }

    private static func scalar(of byte: UInt8) -> Unicode.Scalar {
        if printable[Int(byte)] { return Unicode.Scalar(byte) }
        let position = (0..<Int(byte)).count { !printable[$0] }
        return Unicode.Scalar(UInt32(0x100 + position)) ?? "\u{FFFD}"
    }

    /// The byte of every character below U+0144; -1 for those that represent none.
    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        for byte in 0..<256 { table[Int(scalar(of: UInt8(byte)).value)] = Int16(byte) }
        return table
    }()

    static func encode(_ text: ArraySlice<UInt8>, into output: inout [UInt8]) {
        for byte in text { output.append(contentsOf: encoded[Int(byte)]) }
    }

    /// The bytes that a token's characters represent, or `nil` if one of them represents none.
    static func decode(_ token: ArraySlice<UInt8>) -> [UInt8]? {
        var output: [UInt8] = []
        output.reserveCapacity(token.count)
        var position = token.startIndex
        while position < token.endIndex {
            let (scalar, length) = UnicodeText.scalar(in: token, at: position)
            guard scalar.value < bytes.count, bytes[Int(scalar.value)] >= 0 else { return nil }
            output.append(UInt8(truncatingIfNeeded: bytes[Int(scalar.value)]))
            position += length
        }
        return output
    }
}
