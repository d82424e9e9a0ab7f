import AdaLLaVA
import Foundation

/// Positions of the samples in a LLaVA instruction file: a JSON array of objects, or JSON Lines.
///
/// The file is mapped, and one pass over its bytes finds where each sample starts and ends, so that files of hundreds of thousands of
/// samples open in seconds and keep only 16 bytes for each. A sample is parsed, strictly, when it is read.
package struct InstructionIndex: Sendable {
    /// One sample's position, and the values that batches are grouped by.
    struct Entry: Sendable, Equatable {
        let offset: Int
        let length: UInt32
        /// Words in the sample's strings, roughly: runs of bytes between spaces. The sign bit says that it has an image.
        let sizeAndImage: UInt32

        var words: Int { Int(sizeAndImage & 0x7FFF_FFFF) }
        var hasImage: Bool { sizeAndImage & 0x8000_0000 != 0 }
    }

    package let file: MappedFile
    let entries: [Entry]

    /// - Throws: ``CheckpointError``: a file that is missing, empty, or neither a JSON array of objects nor one object a line.
    package init(contentsOf url: URL) throws {
        let file = try MappedFile(contentsOf: url, needed: "the samples to train on")
        var scanner = Scanner(bytes: file.bytes, path: file.path)
        entries = try withExtendedLifetime(file) { try scanner.scan() }
        self.file = file
        guard !entries.isEmpty else { throw CheckpointError.malformed(file: file.path, reason: "it holds no samples") }
    }

    /// The bytes of one sample; valid while the index lives.
    func bytes(_ entry: Entry) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: file.bytes[entry.offset ..< entry.offset + Int(entry.length)])
    }

    /// Finds the ends of objects by counting braces outside strings; whether they are valid JSON is checked when they are read.
    private struct Scanner {
        let bytes: UnsafeRawBufferPointer
        let path: String
        var position = 0

        mutating func scan() throws -> [Entry] {
            // A byte order mark is no part of the text.
            if bytes.count >= 3, bytes[0] == 0xEF, bytes[1] == 0xBB, bytes[2] == 0xBF { position = 3 }
            skipSpace()
            let isArray = position < bytes.count && bytes[position] == UInt8(ascii: "[")
            if isArray { position += 1 }
            var entries: [Entry] = []
            while true {
                skipSpace()
                if position == bytes.count {
                    guard !isArray else { throw malformed("the array of samples does not end") }
                    return entries
                }
                if isArray, bytes[position] == UInt8(ascii: "]") {
                    position += 1
                    skipSpace()
                    guard position == bytes.count else { throw malformed("something follows the end of the array") }
                    return entries
                }
                if isArray, !entries.isEmpty {
                    guard bytes[position] == UInt8(ascii: ",") else { throw malformed("expected a comma between two samples") }
                    position += 1
                    skipSpace()
                }
                guard position < bytes.count, bytes[position] == UInt8(ascii: "{") else {
                    throw malformed("expected a sample, an object")
                }
                entries.append(try object())
            }
        }

        /// Consumes the object that starts here.
        private mutating func object() throws -> Entry {
            let start = position
            var depth = 0
            var words = 1
            var hasImage = false
            var stringStart = -1
            while position < bytes.count {
                let byte = bytes[position]
                position += 1
                if stringStart >= 0 {
                    if byte == UInt8(ascii: "\\") {
                        position += 1
                    } else if byte == UInt8(ascii: "\"") {
                        if depth == 1, !hasImage { hasImage = isImageKey(stringStart, position - 1) }
                        stringStart = -1
                    } else if byte == UInt8(ascii: " ") {
                        words += 1
                    }
                    continue
                }
                switch byte {
                case UInt8(ascii: "\""): stringStart = position
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"):
                    depth -= 1
                    guard depth == 0 else { continue }
                    guard let length = UInt32(exactly: position - start) else { throw malformed("a sample is larger than 4 GB") }
                    return Entry(offset: start, length: length, sizeAndImage: UInt32(min(words, 0x7FFF_FFFF)) | (hasImage ? 0x8000_0000 : 0))
                default: break
                }
            }
            position = start
            throw malformed("a sample does not end")
        }

        /// Whether the string in this range is the key `image` and its value is not null.
        private func isImageKey(_ start: Int, _ end: Int) -> Bool {
            guard end - start == 5, (0 ..< 5).allSatisfy({ bytes[start + $0] == Array("image".utf8)[$0] }) else { return false }
            var next = end + 1
            func skip() { while next < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[next]) { next += 1 } }
            skip()
            guard next < bytes.count, bytes[next] == UInt8(ascii: ":") else { return false }
            next += 1
            skip()
            return next < bytes.count && bytes[next] != UInt8(ascii: "n")
        }

        private mutating func skipSpace() {
            while position < bytes.count, bytes[position] <= 0x20 { position += 1 }
        }

        private func malformed(_ reason: String) -> CheckpointError {
            .malformed(file: path, reason: "\(reason) at byte \(position); expected LLaVA's instruction format, a JSON array of samples or one sample a line")
        }
    }
}
