/// Walks through the bytes of a GGUF file; every read is checked against the bytes that remain.
struct GGUFCursor {
    /// Maximum nesting of arrays.
    static let depthLimit = 8
    /// The longest key or tensor name, from the format's description.
    static let nameLimit = 65535

    private let file: MappedFile
    private(set) var position: Int

    init(_ file: MappedFile, at position: Int) {
        (self.file, self.position) = (file, position)
    }

    var remaining: Int { file.bytes.count - position }

    func malformed(_ reason: String) -> CheckpointError {
        .malformed(file: file.path, reason: "\(reason) (byte \(position))")
    }

    mutating func read<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) throws -> Value {
        guard remaining >= MemoryLayout<Value>.size else { throw malformed("the file is cut off within its header; download or copy it again") }
        let value = file.bytes.loadUnaligned(fromByteOffset: position, as: type)
        position += MemoryLayout<Value>.size
        return Value(littleEndian: value)
    }

    /// A count of elements of at least `minimumSize` bytes each, which the rest of the file must have space for.
    mutating func readCount(of what: String, minimumSize: Int) throws -> Int {
        let count = try read(UInt64.self)
        guard count <= UInt64(remaining / minimumSize) else {
            throw malformed("\(count) \(what) in the \(remaining) bytes that are left: the file is cut off or damaged; download or copy it again")
        }
        return Int(count)
    }

    /// The bytes of a string. The pointer is valid as long as the file.
    mutating func readStringBytes() throws -> UnsafeRawBufferPointer {
        let length = try readCount(of: "bytes of a string", minimumSize: 1)
        defer { position += length }
        return UnsafeRawBufferPointer(rebasing: file.bytes[position..<(position + length)])
    }

    /// A key or a tensor's name: text of moderate length.
    mutating func readName(of what: String) throws -> String {
        let bytes = try readStringBytes()
        guard !bytes.isEmpty, bytes.count <= Self.nameLimit, firstInvalidUTF8(in: bytes) == nil else {
            throw malformed("\(what) of \(bytes.count) bytes, expected 1 to \(Self.nameLimit) bytes of UTF-8")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    mutating func readType() throws -> GGUFValueType {
        let raw = try read(UInt32.self)
        guard let type = GGUFValueType(rawValue: raw) else { throw malformed("unknown value type \(raw)") }
        return type
    }

    mutating func readValue(_ type: GGUFValueType) throws -> GGUFValue {
        switch type {
        case .uint8: .uint8(try read(UInt8.self))
        case .int8: .int8(try read(Int8.self))
        case .uint16: .uint16(try read(UInt16.self))
        case .int16: .int16(try read(Int16.self))
        case .uint32: .uint32(try read(UInt32.self))
        case .int32: .int32(try read(Int32.self))
        case .uint64: .uint64(try read(UInt64.self))
        case .int64: .int64(try read(Int64.self))
        case .float32: .float32(Float(bitPattern: try read(UInt32.self)))
        case .float64: .float64(Double(bitPattern: try read(UInt64.self)))
        case .bool: .bool(try readBool())
        case .string: .string(Array(try readStringBytes()))
        case .array: .array(try readArray(depth: 1))
        }
    }

    private mutating func readBool() throws -> Bool {
        let byte = try read(UInt8.self)
        guard byte <= 1 else { throw malformed("a truth value of \(byte), expected 0 or 1") }
        return byte == 1
    }

    private mutating func readArray(depth: Int) throws -> GGUFArray {
        guard depth <= Self.depthLimit else { throw malformed("arrays nested deeper than \(Self.depthLimit) levels") }
        let elementType = try readType()
        let count = try readCount(of: "array elements", minimumSize: elementType.minimumSize)
        let start = position
        switch elementType {
        case .string:
            for _ in 0..<count { _ = try readStringBytes() }
        case .array:
            for _ in 0..<count { _ = try readArray(depth: depth + 1) }
        case .bool:
            for _ in 0..<count { _ = try readBool() }
        default:
            position += count * elementType.minimumSize
        }
        return GGUFArray(elementType: elementType, count: count, range: start..<position, storage: file)
    }
}
