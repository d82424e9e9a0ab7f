/// The types a GGUF metadata value can have, with the file's numbers for them.
package enum GGUFValueType: UInt32, Sendable {
    case uint8 = 0, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// Bytes that one value takes at least: exactly, but for strings (their length) and arrays (element type and count).
    var minimumSize: Int {
        switch self {
        case .uint8, .int8, .bool: 1
        case .uint16, .int16: 2
        case .uint32, .int32, .float32: 4
        case .string, .uint64, .int64, .float64: 8
        case .array: 12
        }
    }
}

/// One metadata value of a GGUF file.
package enum GGUFValue: Sendable {
    case uint8(UInt8), int8(Int8), uint16(UInt16), int16(Int16), uint32(UInt32), int32(Int32)
    case uint64(UInt64), int64(Int64)
    case float32(Float), float64(Double)
    case bool(Bool)
    /// The bytes of a string; almost always UTF-8, but the format does not insist.
    case string([UInt8])
    case array(GGUFArray)

    /// A string value.
    package static func string(_ text: String) -> GGUFValue { .string(Array(text.utf8)) }

    /// The type that the file names before the value.
    package var type: GGUFValueType {
        switch self {
        case .uint8: .uint8
        case .int8: .int8
        case .uint16: .uint16
        case .int16: .int16
        case .uint32: .uint32
        case .int32: .int32
        case .uint64: .uint64
        case .int64: .int64
        case .float32: .float32
        case .float64: .float64
        case .bool: .bool
        case .string: .string
        case .array: .array
        }
    }

    /// The value of any integer type, if `Int` holds it.
    package var integer: Int? {
        switch self {
        case .uint8(let value): Int(value)
        case .int8(let value): Int(value)
        case .uint16(let value): Int(value)
        case .int16(let value): Int(value)
        case .uint32(let value): Int(value)
        case .int32(let value): Int(value)
        case .uint64(let value): Int(exactly: value)
        case .int64(let value): Int(value)
        default: nil
        }
    }

    /// The value of a float or integer type.
    package var number: Double? {
        switch self {
        case .float32(let value): Double(value)
        case .float64(let value): value
        default: integer.map(Double.init)
        }
    }

    /// The text of a string that is valid UTF-8.
    package var text: String? {
        guard case .string(let bytes) = self else { return nil }
        return bytes.withUnsafeBytes { firstInvalidUTF8(in: $0) == nil ? String(decoding: $0, as: UTF8.self) : nil }
    }

    /// The value as messages show it.
    package var summary: String {
        switch self {
        case .bool(let value): "\(value)"
        case .string: text.map { "\"\($0.prefix(80))\"" } ?? "a string that is not UTF-8"
        case .array(let array): "an array of \(array.count) \(array.elementType)"
        case .float32(let value): "\(value)"
        case .float64(let value): "\(value)"
        case .uint64(let value): "\(value)"
        default: integer.map { "\($0)" } ?? "\(type)"
        }
    }
}

/// An array in GGUF metadata, kept as the bytes the file holds: vocabularies have a hundred thousand strings, and most readers of a
/// file want none of them. The bytes were walked once when the file was opened, so decoding cannot run out of them.
package struct GGUFArray: Sendable {
    /// The type of every element.
    package let elementType: GGUFValueType
    /// The number of elements.
    package let count: Int

    /// The elements side by side, without the array's own element type and count.
    let range: Range<Int>
    let storage: MappedFile

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: storage.bytes[range]) }

    init(elementType: GGUFValueType, count: Int, range: Range<Int>, storage: MappedFile) {
        (self.elementType, self.count, self.range, self.storage) = (elementType, count, range, storage)
    }

    /// An array made in memory, to be written.
    private init(elementType: GGUFValueType, count: Int, encoded: [UInt8]) {
        self.init(elementType: elementType, count: count, range: 0..<encoded.count, storage: MappedFile(copying: encoded, path: "memory"))
    }

    /// An array of strings, to be written.
    package init(_ strings: [String]) {
        var encoded: [UInt8] = []
        for string in strings { encoded.appendGGUF(string.utf8) }
        self.init(elementType: .string, count: strings.count, encoded: encoded)
    }

    /// An array of strings given by their bytes, to be written.
    init(_ strings: [[UInt8]]) {
        var encoded: [UInt8] = []
        for string in strings { encoded.appendGGUF(string) }
        self.init(elementType: .string, count: strings.count, encoded: encoded)
    }

    /// An array of 32-bit floats, to be written.
    package init(_ floats: [Float]) {
        self.init(elementType: .float32, count: floats.count, encoded: floats.withUnsafeBytes { Array($0) })
    }

    /// An array of 32-bit integers, to be written.
    package init(_ integers: [Int32]) {
        self.init(elementType: .int32, count: integers.count, encoded: integers.withUnsafeBytes { Array($0) })
    }

    /// An array of truth values, to be written.
    package init(_ values: [Bool]) {
        self.init(elementType: .bool, count: values.count, encoded: values.map { $0 ? 1 : 0 })
    }

    /// Arrays inside an array.
    package init(_ arrays: [GGUFArray]) {
        var encoded: [UInt8] = []
        for array in arrays {
            encoded.appendLittleEndian(array.elementType.rawValue)
            encoded.appendLittleEndian(UInt64(array.count))
            encoded.append(contentsOf: array.bytes)
        }
        self.init(elementType: .array, count: arrays.count, encoded: encoded)
    }

    /// Calls `body` with the bytes of every string in turn; the pointer is valid during the call.
    /// - Returns: `false`, without a call, if this is no array of strings.
    @discardableResult
    package func forEachString(_ body: (Int, UnsafeRawBufferPointer) throws -> Void) rethrows -> Bool {
        guard elementType == .string else { return false }
        let bytes = bytes
        var position = 0
        for index in 0..<count {
            let length = Int(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self)))
            try body(index, UnsafeRawBufferPointer(rebasing: bytes[(position + 8)..<(position + 8 + length)]))
            position += 8 + length
        }
        return true
    }

    /// All strings, bytes that are not UTF-8 replaced by U+FFFD; `nil` if this is no array of strings.
    package func strings() -> [String]? {
        var result: [String] = []
        result.reserveCapacity(elementType == .string ? count : 0)
        return forEachString { _, bytes in result.append(String(decoding: bytes, as: UTF8.self)) } ? result : nil
    }

    /// All numbers as `Float`; `nil` if the elements are no numbers.
    package func floats() -> [Float]? {
        if elementType == .float32 {
            return (0..<count).map { Float(bitPattern: load($0, as: UInt32.self)) }
        }
        return map { $0.number.map { Float($0) } }
    }

    /// All integers; `nil` if the elements are no integers, or one does not fit `Int`.
    package func integers() -> [Int]? { map(\.integer) }

    /// All truth values; `nil` if the elements are none.
    package func bools() -> [Bool]? {
        map { if case .bool(let value) = $0 { value } else { nil } }
    }

    /// Every element as a value of its own. Costly for long arrays.
    package func elements() -> [GGUFValue] {
        var cursor = GGUFCursor(storage, at: range.lowerBound)
        // The bytes were checked when the array was read, or were written by this type: the cursor cannot fail on them.
        return (0..<count).compactMap { _ in try? cursor.readValue(elementType) }
    }

    private func map<Value>(_ transform: (GGUFValue) -> Value?) -> [Value]? {
        guard elementType != .string, elementType != .array else { return nil }
        var result: [Value] = []
        result.reserveCapacity(count)
        for element in elements() {
            guard let value = transform(element) else { return nil }
            result.append(value)
        }
        return result
    }

    private func load<Value: FixedWidthInteger & BitwiseCopyable>(_ index: Int, as type: Value.Type) -> Value {
        Value(littleEndian: bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Value>.size, as: type))
    }
}

extension [UInt8] {
    mutating func appendLittleEndian(_ value: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
    }

    /// A length and the bytes, as GGUF writes strings.
    mutating func appendGGUF(_ string: some Collection<UInt8>) {
        appendLittleEndian(UInt64(string.count))
        append(contentsOf: string)
    }
}
