/// Reads integers from untrusted bytes. Every read is checked and returns `nil` outside the data.
struct ByteReader {
    let bytes: [UInt8]

    var count: Int { bytes.count }

    func u8(_ offset: Int) -> Int? {
        bytes.indices.contains(offset) ? Int(bytes[offset]) : nil
    }

    func u16LittleEndian(_ offset: Int) -> Int? { integer(offset, size: 2, isBigEndian: false) }
    func u16BigEndian(_ offset: Int) -> Int? { integer(offset, size: 2, isBigEndian: true) }
    func u32LittleEndian(_ offset: Int) -> Int? { integer(offset, size: 4, isBigEndian: false) }
    func u32BigEndian(_ offset: Int) -> Int? { integer(offset, size: 4, isBigEndian: true) }

    func i32LittleEndian(_ offset: Int) -> Int? {
        u32LittleEndian(offset).map { Int(Int32(truncatingIfNeeded: $0)) }
    }

    /// An unsigned integer of `size` bytes (at most 4).
    func integer(_ offset: Int, size: Int, isBigEndian: Bool) -> Int? {
        guard let range = range(offset, size) else { return nil }
        let value = bytes[range]
        return isBigEndian ? value.reduce(0) { $0 << 8 | Int($1) } : value.reversed().reduce(0) { $0 << 8 | Int($1) }
    }

    /// `offset ..< offset + length` if it is inside the data, else `nil`.
    func range(_ offset: Int, _ length: Int) -> Range<Int>? {
        guard offset >= 0, length >= 0, offset <= bytes.count, length <= bytes.count - offset else { return nil }
        return offset..<offset + length
    }

    func matches(_ text: String, at offset: Int) -> Bool {
        guard let range = range(offset, text.utf8.count) else { return false }
        return bytes[range].elementsEqual(text.utf8)
    }
}
