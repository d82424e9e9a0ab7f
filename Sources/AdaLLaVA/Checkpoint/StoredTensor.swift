import AdaKernels

/// The element type of a tensor as a file stores it: the float types, GGUF's quantized blocks, and the integers that checkpoints
/// carry beside their weights (`position_ids`).
package enum ElementType: String, Sendable, CaseIterable {
    case f32, f16, bf16
    case q8_0, q4_0, q4_1, q5_0, q5_1, q2_K, q3_K, q4_K, q5_K, q6_K
    case iq4_nl, iq4_xs, tq1_0, tq2_0, mxfp4
    /// 8-bit floats, which checkpoints store with factors for their matrices.
    case f8_e4m3, f8_e5m2
    /// Any type whose values are not read; ``StoredTensor/typeName`` says which.
    case unread
    case f64, i64, i32, i16, i8, u8, bool

    /// The kernels' name for it; `nil` for types that are only read, never multiplied.
    package var kernelType: ak_type? {
        switch self {
        case .f32: AK_F32
        case .f16: AK_F16
        case .bf16: AK_BF16
        case .q8_0: AK_Q8_0
        case .q4_0: AK_Q4_0
        case .q4_1: AK_Q4_1
        case .q5_0: AK_Q5_0
        case .q5_1: AK_Q5_1
        case .q4_K: AK_Q4_K
        case .q5_K: AK_Q5_K
        case .q6_K: AK_Q6_K
        case .q2_K: AK_Q2_K
        case .q3_K: AK_Q3_K
        case .iq4_nl: AK_IQ4_NL
        case .iq4_xs: AK_IQ4_XS
        case .tq1_0: AK_TQ1_0
        case .tq2_0: AK_TQ2_0
        case .mxfp4: AK_MXFP4
        case .f8_e4m3: AK_F8_E4M3
        case .f8_e5m2: AK_F8_E5M2
        default: nil
        }
    }

    /// Whether values are 8-bit floats, whose matrices may have factors.
    var isFloat8: Bool { self == .f8_e4m3 || self == .f8_e5m2 }

    /// Values a block holds (1 for plain types) and bytes it takes.
    package var block: (values: Int, bytes: Int) {
        switch self {
        case .f64, .i64: (1, 8)
        case .i32: (1, 4)
        case .i16: (1, 2)
        case .i8, .u8, .bool: (1, 1)
        default: kernelType.map { (Int(ak_type_block($0)), Int(ak_type_bytes($0))) } ?? (1, 1)
        }
    }

    /// Bytes of `count` consecutive values; `nil` if they do not fill whole blocks or overflow.
    package func bytes(for count: Int) -> Int? {
        guard count >= 0, count % block.values == 0 else { return nil }
        let (bytes, overflow) = (count / block.values).multipliedReportingOverflow(by: block.bytes)
        return overflow ? nil : bytes
    }
}

/// One tensor of a checkpoint, still where the file holds it.
package struct StoredTensor: @unchecked Sendable {
    /// The name in the file, or the canonical one that was looked up.
    package let name: String
    /// The element type that its bytes have.
    package let type: ElementType
    /// The element type's name in messages, also of a type that is ``ElementType/unread``.
    package let typeName: String
    /// Row-major, outermost first (GGUF's order is reversed on reading).
    package let shape: [Int]
    /// The tensor's bytes inside `file`'s mapping: exactly as many as type and shape need, checked on opening; for types that are not read, as many as the
    /// file says.
    package let bytes: UnsafeRawBufferPointer
    /// Keeps the mapping alive.
    package let file: MappedFile
    /// The factors of a matrix of 8-bit floats; `nil` if its values are the floats themselves.
    var scale: TensorScale?

    /// - Parameter typeName: given for types that are not read.
    /// - Precondition: `bytes` are in the mapping of `file`, as many as type and shape need.
    package init(name: String, type: ElementType, typeName: String? = nil, shape: [Int], bytes: UnsafeRawBufferPointer, file: MappedFile) {
        (self.name, self.type, self.typeName, self.shape, self.bytes, self.file) = (name, type, typeName ?? type.rawValue, shape, bytes, file)
    }

    /// The same tensor under another name.
    func named(_ name: String) -> StoredTensor {
        var tensor = StoredTensor(name: name, type: type, typeName: typeName, shape: shape, bytes: bytes, file: file)
        tensor.scale = scale
        return tensor
    }

    /// The same values as a tensor of other dimensions.
    /// - Precondition: `shape` has as many values.
    func reshaped(_ shape: [Int]) -> StoredTensor {
        var tensor = StoredTensor(name: name, type: type, typeName: typeName, shape: shape, bytes: bytes, file: file)
        tensor.scale = scale
        return tensor
    }

    /// The number of values.
    package var count: Int { shape.reduce(1, *) }

    /// A view of some rows (of a vector: values) with a name of its own; `nil` if there are not so many, or if they do not begin and end with whole
    /// blocks.
    package func rows(_ range: Range<Int>, named name: String) -> StoredTensor? {
        guard let rows = shape.first, rows > 0, range.lowerBound >= 0, range.upperBound <= rows,
            let start = type.bytes(for: count / rows * range.lowerBound), let length = type.bytes(for: count / rows * range.count)
        else { return nil }
        // Where the rows of a type that is not read begin is not known, nor needed.
        let bytes = type == .unread ? nil : bytes[start ..< start + length]
        var part = StoredTensor(
            name: name, type: type, typeName: typeName, shape: [range.count] + shape.dropFirst(),
            bytes: bytes.map { UnsafeRawBufferPointer(rebasing: $0) } ?? UnsafeRawBufferPointer(start: nil, count: 0), file: file)
        part.scale = scale?.rows(from: range.lowerBound)
        return part
    }
}

/// A place that tensors come from: a safetensors file, a set of shards, a GGUF file, or one of these under other names.
package protocol TensorSource: Sendable {
    /// All names, sorted.
    var names: [String] { get }
    /// The tensor called `name`, or `nil`.
    func find(_ name: String) -> StoredTensor?
    /// Where the tensors come from, for messages.
    var location: String { get }
}

extension TensorSource {
    /// - Throws: ``CheckpointError/missingTensor(name:file:)``
    package func tensor(_ name: String) throws -> StoredTensor {
        guard let found = find(name) else { throw CheckpointError.missingTensor(name: name, file: location) }
        return found
    }
}
