/// The uncompressed entries of a zip archive, as in files of `torch.save` and `.npz` files without compression.
///
/// Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. Archives above 4 GB (zip64) are not read.
struct StoredZip {
    /// The range of each entry's bytes in the file.
    let entries: [String: Range<Int>]

    /// Whether the file begins like a zip archive.
    static func isZip(_ bytes: UnsafeRawBufferPointer) -> Bool { bytes.starts(with: [0x50, 0x4B, 0x03, 0x04]) }

    /// - Throws: ``CheckpointError/malformed(file:reason:)``; ``CheckpointError/unsupported(what:file:hint:)`` for compressed or encrypted
    ///   entries.
    init(_ bytes: UnsafeRawBufferPointer, file: String) throws {
        func malformed(_ reason: String) -> CheckpointError { .malformed(file: file, reason: reason) }
        func number<Number: FixedWidthInteger>(_: Number.Type, at position: Int) throws -> Int {
            guard position >= 0, position <= bytes.count - MemoryLayout<Number>.size else { throw malformed("the archive is cut off") }
            return Int(Number(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: Number.self)))
        }
        // The end of the directory is the last record; only a comment can follow it.
        let end = stride(from: bytes.count - 22, through: max(0, bytes.count - 22 - 0xFFFF), by: -1).first {
            bytes.loadUnaligned(fromByteOffset: $0, as: UInt32.self).littleEndian == 0x0605_4B50
        }
        guard let end else { throw malformed("a zip archive without a directory: the file is cut off") }
        let count = try number(UInt16.self, at: end + 10)
        var position = try number(UInt32.self, at: end + 16)
        guard count < 0xFFFF, position < 0xFFFF_FFFF else {
            throw CheckpointError.unsupported(what: "a zip archive of more than 4 GB or 65534 entries", file: file, hint: "")
        }
        var entries = [String: Range<Int>](minimumCapacity: count)
        for _ in 0 ..< count {
            guard try number(UInt32.self, at: position) == 0x0201_4B50 else { throw malformed("no entry at byte \(position) of the archive") }
            let (flags, method) = (try number(UInt16.self, at: position + 8), try number(UInt16.self, at: position + 10))
            let (packed, size) = (try number(UInt32.self, at: position + 20), try number(UInt32.self, at: position + 24))
            let nameLength = try number(UInt16.self, at: position + 28)
            let behind = try number(UInt16.self, at: position + 30) + number(UInt16.self, at: position + 32)
            let header = try number(UInt32.self, at: position + 42)
            guard nameLength <= bytes.count - position - 46 else { throw malformed("the archive is cut off") }
            let name = String(decoding: bytes[position + 46 ..< position + 46 + nameLength], as: UTF8.self)
            guard flags & 1 == 0, method == 0, packed == size else {
                throw CheckpointError.unsupported(what: "the compressed or encrypted entry \(quoted(String(name.prefix(80))))", file: file, hint: "")
            }
            guard try number(UInt32.self, at: header) == 0x0403_4B50 else { throw malformed("no entry at byte \(header) of the archive") }
            let start = header + 30 + (try number(UInt16.self, at: header + 26)) + (try number(UInt16.self, at: header + 28))
            guard start <= bytes.count, size <= bytes.count - start else { throw malformed("\(quoted(String(name.prefix(80)))) is cut off") }
            guard entries.updateValue(start ..< start + size, forKey: name) == nil else {
                throw malformed("two entries are called \(quoted(String(name.prefix(80))))")
            }
            position += 46 + nameLength + behind
        }
        self.entries = entries
    }
}
