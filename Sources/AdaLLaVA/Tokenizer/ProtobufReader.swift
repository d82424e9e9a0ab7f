/// Reads Protocol Buffers' wire format field by field; every length is checked against the remaining bytes.
struct ProtobufReader {
    enum Value {
        case varint(UInt64)
        case fixed64(UInt64)
        case fixed32(UInt32)
        case bytes(ArraySlice<UInt8>)
    }

    struct Malformed: Error {
        let reason: String
    }

    private let bytes: ArraySlice<UInt8>
    private var position: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    /// The next field, or `nil` at the end.
    mutating func next() throws(Malformed) -> (field: UInt64, value: Value)? {
        guard position < bytes.endIndex else { return nil }
        let tag = try varint()
        let field = tag >> 3
        guard field > 0 else { throw Malformed(reason: "field number 0 at byte \(position)") }
        switch tag & 7 {
        case 0: return (field, .varint(try varint()))
        case 1: return (field, .fixed64(try fixed(bytes: 8)))
        case 2:
            let length = try varint()
            guard length <= UInt64(bytes.endIndex - position) else {
                throw Malformed(reason: "field \(field) at byte \(position) has \(length) bytes, but only \(bytes.endIndex - position) are left")
            }
            let end = position + Int(length)
            defer { position = end }
            return (field, .bytes(bytes[position..<end]))
        case 5: return (field, .fixed32(UInt32(truncatingIfNeeded: try fixed(bytes: 4))))
        default: throw Malformed(reason: "wire type \(tag & 7) of field \(field) at byte \(position) is unknown")
        }
    }

    private mutating func varint() throws(Malformed) -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard position < bytes.endIndex else { throw Malformed(reason: "the file ends inside a number at byte \(position)") }
            let byte = bytes[position]
            position += 1
            value |= shift < 64 ? UInt64(byte & 0x7F) << shift : 0
            if byte & 0x80 == 0 { return value }
        }
        throw Malformed(reason: "a number at byte \(position) has more than ten bytes")
    }

    private mutating func fixed(bytes count: Int) throws(Malformed) -> UInt64 {
        guard bytes.endIndex - position >= count else { throw Malformed(reason: "the file ends inside a number at byte \(position)") }
        var value: UInt64 = 0
        for index in 0..<count { value |= UInt64(bytes[position + index]) << UInt64(8 * index) }
        position += count
        return value
    }
}
