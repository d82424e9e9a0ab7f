import Foundation

/// A file's name as text, although the system's names are bytes: a byte that belongs to no UTF-8 character becomes a scalar of its own
/// (U+10FF80 to U+10FFFF, in the last private plane), and ``Files`` turns it back for the system. Python calls this `surrogateescape`.
package enum SystemPath {
    private static let base: UInt32 = 0x10FF00
    private static let escapes = base + 0x80 ... base + 0xFF

    /// The byte that a scalar represents.
    package static func byte(_ scalar: Unicode.Scalar) -> UInt8? {
        escapes.contains(scalar.value) ? UInt8(scalar.value - base) : nil
    }

    /// The text of a name; ``withBytes(_:_:)`` gives the same bytes back.
    package static func text(_ bytes: some Collection<UInt8>) -> String {
        let bytes = Array(bytes)
        if let text = String(validating: bytes, as: UTF8.self), !text.unicodeScalars.contains(where: { byte($0) != nil }) { return text }
        var text = String.UnicodeScalarView()
        var position = 0
        while position < bytes.count {
            let rest = bytes[position...].prefix(4)
            // A character that represents a byte elsewhere is escaped too, otherwise it would be read as that byte.
            let scalar = (1 ... rest.count).lazy.compactMap { String(validating: rest.prefix($0), as: UTF8.self)?.unicodeScalars.first }.first
            if let scalar, byte(scalar) == nil {
                text.append(scalar)
                position += UTF8.width(scalar)
            } else {
                Unicode.Scalar(base + UInt32(bytes[position])).map { text.append($0) }
                position += 1
            }
        }
        return String(text)
    }

    /// Calls `body` with the name as the system takes it, ended by a zero.
    static func withBytes<Result>(_ path: String, _ body: (UnsafePointer<CChar>) throws -> Result) rethrows -> Result {
        guard path.unicodeScalars.contains(where: { byte($0) != nil }) else { return try path.withCString(body) }
        return try (bytes(path).map { CChar(bitPattern: $0) } + [0]).withUnsafeBufferPointer { buffer in
            try buffer.baseAddress.map(body) ?? path.withCString(body)
        }
    }

    /// The name as the system takes it.
    package static func bytes(_ path: String) -> [UInt8] {
        path.unicodeScalars.flatMap { scalar in byte(scalar).map { [$0] } ?? Array(String(scalar).utf8) }
    }

    /// Text from the same source as file names, such as a question on the command line: bytes that are not UTF-8 become U+FFFD.
    package static func prose(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { byte($0) != nil }) else { return text }
        return String(String.UnicodeScalarView(text.unicodeScalars.map { byte($0) == nil ? $0 : "\u{FFFD}" }))
    }
}
