import AdaKernels
import Testing

/// One of the kernel tables that this machine runs, as a test argument.
struct KernelSet: Sendable, CustomTestStringConvertible {
    let name: String

    static let available = ["portable", "avx2", "avxvnni", "avx512", "amx", "neon"]
        .filter { (name: String) in ak_kernels_named(name) != nil }
        .map { KernelSet(name: $0) }

    var table: ak_kernels { ak_kernels_named(name).pointee }
    var testDescription: String { name }
}

/// Repeatable numbers (SplitMix64).
struct TestNumbers {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// Evenly spread over -1 … 1.
    mutating func float() -> Float { Float(Int32(truncatingIfNeeded: next() >> 40)) / 0x80_0000 - 1 }
    mutating func floats(_ count: Int, scale: Float = 1) -> [Float] { (0..<count).map { _ in float() * scale } }
    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }
}

/// Memory on a 64-byte boundary, as the kernels want their scratch.
final class AlignedMemory {
    let pointer: UnsafeMutableRawPointer
    let count: Int

    init(bytes: Int) {
        count = max(bytes, 1)
        pointer = .allocate(byteCount: count, alignment: 64)
        pointer.initializeMemory(as: UInt8.self, repeating: 0xFF, count: count)   // NaN, so that reading what nobody wrote shows
    }

    deinit { pointer.deallocate() }

    func copy(from bytes: [UInt8]) { pointer.copyMemory(from: bytes, byteCount: min(bytes.count, count)) }
}

func paddedToBlocks(_ count: Int) -> Int { (count + 31) / 32 * 32 }

/// Rows of `count` values at a stride, zero from `count` on, as activations are kept.
func paddedRows(_ values: [Float], rows: Int, count: Int, stride: Int) -> [Float] {
    var padded = [Float](repeating: 0, count: rows * stride)
    for row in 0..<rows {
        for i in 0..<count { padded[row * stride + i] = values[row * count + i] }
    }
    return padded
}

/// The largest `|got - expected| - (relative * |expected| + absolute)`; at most zero when all are close.
func worstExcess(_ got: [Float], _ expected: [Double], relative: Double, absolute: Double) -> Double {
    guard got.count == expected.count else { return .infinity }
    var worst = -Double.infinity
    for (a, b) in zip(got, expected) {
        let excess = abs(Double(a) - b) - (relative * abs(b) + absolute)
        if excess.isNaN { return .infinity }
        worst = max(worst, excess)
    }
    return worst
}
