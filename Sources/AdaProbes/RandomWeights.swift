import AdaLLaVA

/// A few megabytes of random values in an element type's own blocks, to time weights of that type without a checkpoint.
///
/// Values are spread evenly around zero, so that products of many layers stay finite.
package struct RandomWeights: Sendable {
    private let bytes: [UInt8]
    private let blockBytes: Int

    /// The types that can be filled with random values.
    package static let types: [ElementType] = [.f32, .f16, .bf16, .q8_0, .q4_0, .q4_1]

    /// - Parameters:
    ///   - type: one of ``types``; any other is filled as `f32`.
    ///   - deviation: the values' standard deviation.
    package init(_ type: ElementType, deviation: Float, _ random: inout SplitMix64) {
        blockBytes = type.block.bytes
        var bytes: [UInt8] = []
        let blocks = (4 << 20) / type.block.bytes
        bytes.reserveCapacity(blocks * type.block.bytes)
        // Uniform in (-limit, limit) has the deviation limit / sqrt(3).
        let limit = deviation * Float(3).squareRoot()
        func append<Value: BitwiseCopyable>(_ value: Value) { withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) } }
        func value(_ random: inout SplitMix64) -> Float { (2 * Float(random.unit()) - 1) * limit }
        for _ in 0 ..< blocks {
            switch type {
            case .f16: append(halfBits(value(&random)))
            case .bf16: append(UInt16(truncatingIfNeeded: value(&random).bitPattern >> 16))
            case .q8_0:
                append(halfBits(limit / 127))
                for _ in 0 ..< 4 { append(random.next()) }
            case .q4_0, .q4_1:
                append(halfBits(limit / 7.5))
                if type == .q4_1 { append(halfBits(-limit)) }
                for _ in 0 ..< 2 { append(random.next()) }
            default: append(value(&random))
            }
        }
        self.bytes = bytes
    }

    /// Hands out `count` bytes, a multiple of the type's block, in parts, starting at a random place.
    package func read(_ count: Int, _ random: inout SplitMix64, _ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
        var start = random.index(below: bytes.count / blockBytes) * blockBytes
        var left = count
        while left > 0 {
            let length = min(left, bytes.count - start)
            try bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[start ..< start + length])) }
            left -= length
            start = 0
        }
    }
}

/// A positive or negative normal number as the bits of a half float, fractions dropped; numbers below the smallest normal become zero.
private func halfBits(_ value: Float) -> UInt16 {
    let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
    let exponent = Int(value.bitPattern >> 23 & 0xff) - 127 + 15
    guard exponent > 0 else { return sign }
    return sign | UInt16(min(exponent, 30)) << 10 | UInt16(truncatingIfNeeded: value.bitPattern >> 13 & 0x3ff)
}
