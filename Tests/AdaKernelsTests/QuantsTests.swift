import AdaKernels
import Testing

/// The quantized formats value by value, from their definition and not from the C code: what block `bytes` says at index `i`.
private enum FormatDefinition {
    static let quantized = [AK_Q8_0, AK_Q4_0, AK_Q4_1, AK_Q5_0, AK_Q5_1, AK_Q4_K, AK_Q5_K, AK_Q6_K]

    static func half(_ bytes: ArraySlice<UInt8>, _ at: Int) -> Float {
        let bits = UInt16(bytes[bytes.startIndex + at]) | UInt16(bytes[bytes.startIndex + at + 1]) << 8
        return Float(halfValue(bits))
    }

    /// Offsets of the half-precision fields, which random tests fill with tame numbers.
    static func halfFields(_ type: ak_type) -> [Int] {
        switch type {
        case AK_Q4_1, AK_Q5_1, AK_Q4_K, AK_Q5_K: [0, 2]
        case AK_Q6_K: [208]
        case AK_Q2_K: [80, 82]
        case AK_Q3_K: [108]
        case AK_TQ1_0: [52]
        case AK_TQ2_0: [64]
        case AK_MXFP4: []
        default: [0]
        }
    }

    static func value(_ type: ak_type, _ block: ArraySlice<UInt8>, _ i: Int) -> Float {
        func byte(_ at: Int) -> Int { Int(block[block.startIndex + at]) }
        func nibble(_ base: Int) -> Int { i < 16 ? byte(base + i) % 16 : byte(base + i - 16) / 16 }
        func fifth(_ base: Int) -> Int { (byte(base + i / 8) >> (i % 8)) & 1 }
        func scaleAndMinimum(_ base: Int, _ group: Int) -> (Int, Int) {
            if group < 4 { return (byte(base + group) % 64, byte(base + group + 4) % 64) }
            return (byte(base + group + 4) % 16 + byte(base + group - 4) / 64 * 16, byte(base + group + 4) / 16 + byte(base + group) / 64 * 16)
        }
        let d = half(block, 0)
        switch type {
        case AK_Q8_0: return Float(Int8(bitPattern: UInt8(byte(2 + i)))) * d
        case AK_Q4_0: return Float(nibble(2) - 8) * d
        case AK_Q4_1: return Float(nibble(4)) * d + half(block, 2)
        case AK_Q5_0: return Float(nibble(6) + 16 * fifth(2) - 16) * d
        case AK_Q5_1: return Float(nibble(8) + 16 * fifth(4)) * d + half(block, 2)
        case AK_Q4_K, AK_Q5_K:
            let group = i / 32, base = type == AK_Q4_K ? 16 : 48
            let (scale, minimum) = scaleAndMinimum(4, group)
            let packed = byte(base + group / 2 * 32 + i % 32)
            var quant = group % 2 == 0 ? packed % 16 : packed / 16
            if type == AK_Q5_K { quant += 16 * ((byte(16 + i % 32) >> group) & 1) }
            return (d * Float(scale)) * Float(quant) - half(block, 2) * Float(minimum)
        default:   // Q6_K
            let half128 = i / 128, within = i % 128, row = within / 32, column = within % 32
            let lowByte = byte(half128 * 64 + row % 2 * 32 + column)
            let low = row < 2 ? lowByte % 16 : lowByte / 16
            let high = (byte(128 + half128 * 32 + column) >> (2 * row)) & 3
            let scale = Int8(bitPattern: UInt8(byte(192 + i / 16)))
            return half(block, 208) * Float(scale) * Float(low + 16 * high - 32)
        }
    }
}

/// A half's value from its fields.
func halfValue(_ bits: UInt16) -> Double {
    let sign: Double = bits & 0x8000 == 0 ? 1 : -1
    let exponent = Int(bits >> 10 & 31), mantissa = Double(bits & 1023)
    if exponent == 31 { return mantissa == 0 ? sign * .infinity : .nan }
    if exponent == 0 { return sign * mantissa / 16_777_216 }
    return sign * Double(sign: .plus, exponent: exponent - 15, significand: 1 + mantissa / 1024)
}

/// Random blocks of a type whose scales are ordinary numbers.
func randomBlocks(_ type: ak_type, count: Int, numbers: inout TestNumbers) -> [UInt8] {
    let size = Int(ak_type_bytes(type))
    var bytes = numbers.bytes(count * size)
    for block in 0..<count {
        for field in FormatDefinition.halfFields(type) {
            let bits = ak_float_to_half(numbers.float() * 0.1)
            bytes[block * size + field] = UInt8(truncatingIfNeeded: bits)
            bytes[block * size + field + 1] = UInt8(bits >> 8)
        }
        if type == AK_MXFP4 { bytes[block * size] = 118 + bytes[block * size] % 8 }
    }
    return bytes
}

struct QuantsTests {
    // A failure means that weights of a GGUF file are read wrongly.
    @Test("dequantizing follows the format", arguments: FormatDefinition.quantized.map(\.rawValue))
    func dequantizingFollowsTheFormat(raw: UInt32) {
        let type = ak_type(rawValue: raw)
        var numbers = TestNumbers(seed: UInt64(raw))
        let blocks = 7, values = Int(ak_type_block(type)), size = Int(ak_type_bytes(type))
        let bytes = randomBlocks(type, count: blocks, numbers: &numbers)
        var got = [Float](repeating: .nan, count: blocks * values)
        ak_dequantize(&got, type, bytes, 0, Int64(got.count))
        let expected = (0..<blocks * values).map { FormatDefinition.value(type, bytes[$0 / values * size..<($0 / values + 1) * size], $0 % values) }
        #expect(got == expected)

        var part = [Float](repeating: .nan, count: 3 * values + 1)
        ak_dequantize(&part, type, bytes, Int64(2 * values), Int64(3 * values))
        #expect(Array(part.dropLast()) == Array(expected[2 * values..<5 * values]))
        #expect(part[3 * values].isNaN, "wrote past the end")
    }

    // A failure means that block sizes differ from GGUF's, so that every tensor of the type is misread.
    @Test("block sizes are GGUF's") func sizes() {
        let expected: [(ak_type, Int32, Int32)] = [
            (AK_F32, 1, 4), (AK_F16, 1, 2), (AK_BF16, 1, 2), (AK_Q8_0, 32, 34), (AK_Q4_0, 32, 18), (AK_Q4_1, 32, 20), (AK_Q5_0, 32, 22),
            (AK_Q5_1, 32, 24), (AK_Q4_K, 256, 144), (AK_Q5_K, 256, 176), (AK_Q6_K, 256, 210),
            (AK_Q2_K, 256, 84), (AK_Q3_K, 256, 110), (AK_IQ4_NL, 32, 18), (AK_IQ4_XS, 256, 136), (AK_TQ1_0, 256, 54), (AK_TQ2_0, 256, 66),
            (AK_MXFP4, 32, 17), (AK_F8_E4M3, 1, 1), (AK_F8_E5M2, 1, 1),
        ]
        for (type, block, bytes) in expected { #expect(ak_type_block(type) == block && ak_type_bytes(type) == bytes) }
    }

    // A failure means that a simple block, worked out by hand, is read wrongly.
    @Test("blocks worked out by hand") func blocksWorkedOutByHand() {
        let one: [UInt8] = [0x00, 0x3C], two: [UInt8] = [0x00, 0x40], minusHalf: [UInt8] = [0x00, 0xB8]
        var out = [Float](repeating: 0, count: 256)

        ak_dequantize(&out, AK_Q8_0, two + [5, 0xFB, 127, 0x80] + .init(repeating: 0, count: 28), 0, 32)
        #expect(Array(out[0..<5]) == [10, -10, 254, -256, 0])

        ak_dequantize(&out, AK_Q4_0, two + [0xF0, 0x18] + .init(repeating: 0x88, count: 14), 0, 32)
        #expect(out[0] == -16 && out[16] == 14 && out[1] == 0 && out[17] == -14 && out[2] == 0)

        ak_dequantize(&out, AK_Q4_1, two + minusHalf + [0xF3] + .init(repeating: 0, count: 15), 0, 32)
        #expect(out[0] == 5.5 && out[16] == 29.5 && out[1] == -0.5)

        // Fifth bits of values 0 and 16 (bits 0 and 16 of the word).
        ak_dequantize(&out, AK_Q5_0, one + [1, 0, 1, 0] + [0xF3] + .init(repeating: 0, count: 15), 0, 32)
        #expect(out[0] == 3 && out[16] == 15 && out[1] == -16)

        ak_dequantize(&out, AK_Q5_1, one + minusHalf + [1, 0, 0, 0] + [0xF3] + .init(repeating: 0, count: 15), 0, 32)
        #expect(out[0] == 18.5 && out[16] == 14.5 && out[1] == -0.5)

        // Group 0: scale 3, minimum 2. Group 4: scale 1 + 16 * 1 = 17 (upper bits of byte 0), minimum 5 + 16 * 2 = 37 (of byte 4).
        var block = one + one + [3 + 64, 0, 0, 0, 2 + 128, 0, 0, 0, 0x51, 0, 0, 0] + [UInt8](repeating: 0, count: 128)
        block[16] = 7       // value 0
        block[16 + 64] = 9  // value 128
        ak_dequantize(&out, AK_Q4_K, block, 0, 256)
        #expect(out[0] == 19 && out[1] == -2 && out[128] == 116 && out[129] == -37)

        block = one + one + [3 + 64, 0, 0, 0, 2 + 128, 0, 0, 0, 0x51, 0, 0, 0] + [UInt8](repeating: 0, count: 160)
        block[16] = 0b1_0001   // fifth bits of values 0 and 128
        block[48] = 7
        block[48 + 64] = 9
        ak_dequantize(&out, AK_Q5_K, block, 0, 256)
        #expect(out[0] == 67 && out[1] == -2 && out[128] == 388 && out[129] == -37)

        block = [UInt8](repeating: 0, count: 208) + two
        block[0] = 0x2F       // value 0: low 15; value 64: low 2
        block[128] = 0b0001_0011   // value 0: high 3; value 64: high 1
        block[192] = 2        // scale of values 0 … 15
        block[196] = 0xFF     // scale of values 64 … 79: -1
        ak_dequantize(&out, AK_Q6_K, block, 0, 256)
        #expect(out[0] == 2 * 2 * 31 && out[1] == 2 * 2 * -32 && out[64] == -2 * (18 - 32) && out[65] == 64 && out[16] == 0)
    }

    // A failure means that half-precision weights, scales or cached keys are misread or misrounded.
    @Test("half-precision numbers are converted exactly") func halves() {
        for bits in UInt16.min...UInt16.max {
            let value = ak_half_to_float(bits), expected = halfValue(bits)
            if expected.isNaN {
                #expect(value.isNaN && ak_half_to_float(ak_float_to_half(value)).isNaN)
                continue
            }
            #expect(Double(value) == expected)
            #expect(ak_float_to_half(value) == bits)
            guard bits & 0x7FFF < 0x7C00 else { continue }
            // Halfway to the next half (beyond the largest: 65520) goes to the even one; a hair to either side to the nearer one.
            let next = bits + 1, beyond = bits & 0x7FFF == 0x7BFF
            let middle = Float((expected + (beyond ? (expected > 0 ? 65536 : -65536) : halfValue(next))) / 2)
            #expect(ak_float_to_half(middle) == (bits & 1 == 0 ? bits : next))
            let magnitude = abs(middle), sign = bits & 0x8000
            #expect(ak_float_to_half(magnitude.nextDown) | sign == bits)
            #expect(ak_float_to_half(magnitude.nextUp) | sign == next)
        }
        #expect(ak_float_to_half(1e9) == 0x7C00 && ak_float_to_half(-.infinity) == 0xFC00 && ak_float_to_half(1e-12) == 0)
    }

    // A failure means that bfloat16 weights are misread or misrounded.
    @Test("bfloat16 numbers are converted exactly") func bfloats() {
        var numbers = TestNumbers(seed: 1)
        for _ in 0..<20000 {
            let value = Float(bitPattern: UInt32(truncatingIfNeeded: numbers.next()))
            if value.isNaN { #expect(ak_bf16_to_float(ak_float_to_bf16(value)).isNaN) } else { #expect(ak_float_to_bf16(value) == bf16Bits(value)) }
        }
        #expect(ak_bf16_to_float(0xC049) == Float(bitPattern: 0xC049_0000))
        #expect(ak_float_to_bf16(Float(bitPattern: 0x7F80_0001)) == 0x7FC0)
    }

    // A failure means that converted checkpoints differ from the ones that ggml's tools write.
    @Test("quantizing follows the reference") func quantizingFollowsTheReference() {
        var numbers = TestNumbers(seed: 2)
        for scale: Float in [1, 1e-3, 1000, 0] {
            let values = numbers.floats(32, scale: scale)
            var q8 = [UInt8](repeating: 0, count: 34), q4 = [UInt8](repeating: 0, count: 18)
            #expect(ak_quantize(&q8, AK_Q8_0, values, 32) == 0)
            #expect(ak_quantize(&q4, AK_Q4_0, values, 32) == 0)

            let d8 = (values.map(abs).max() ?? 0) / 127, inverse8 = d8 == 0 ? 0 : 1 / d8
            let bits8 = ak_float_to_half(d8)
            #expect(q8 == [UInt8(truncatingIfNeeded: bits8), UInt8(bits8 >> 8)]
                + values.map { UInt8(bitPattern: Int8(($0 * inverse8).rounded(.toNearestOrAwayFromZero))) })

            var extreme: Float = 0
            for value in values where abs(value) > abs(extreme) { extreme = value }
            let d4 = extreme / -8, inverse4 = d4 == 0 ? 0 : 1 / d4
            let bits4 = ak_float_to_half(d4)
            func nibble(_ value: Float) -> UInt8 { UInt8(min(15, Int(value * inverse4 + 8.5))) }
            #expect(q4 == [UInt8(truncatingIfNeeded: bits4), UInt8(bits4 >> 8)] + (0..<16).map { nibble(values[$0]) | nibble(values[$0 + 16]) << 4 })

            var q41 = [UInt8](repeating: 0, count: 20)
            #expect(ak_quantize(&q41, AK_Q4_1, values, 32) == 0)
            let (least, most) = (values.min() ?? 0, values.max() ?? 0)
            let step = (most - least) / 15, inverse41 = step == 0 ? 0 : 1 / step
            func bytes(_ value: Float) -> [UInt8] { [UInt8(truncatingIfNeeded: ak_float_to_half(value)), UInt8(ak_float_to_half(value) >> 8)] }
            func nibble41(_ value: Float) -> UInt8 { UInt8(min(15, Int((value - least) * inverse41 + 0.5))) }
            #expect(q41 == bytes(step) + bytes(least) + (0..<16).map { nibble41(values[$0]) | nibble41(values[$0 + 16]) << 4 })
        }
        // By hand: whole numbers up to 127 survive; -16 … 15 take the step 2.
        var whole = (0..<32).map { Float($0 * 4) }
        whole[31] = -127
        var bytes = [UInt8](repeating: 0, count: 34)
        #expect(ak_quantize(&bytes, AK_Q8_0, whole, 32) == 0)
        #expect(bytes == [0x00, 0x3C] + (0..<31).map { UInt8($0 * 4) } + [0x81])
        #expect(ak_quantize(&bytes, AK_Q4_0, (0..<32).map { Float($0 - 16) }, 32) == 0)
        #expect(Array(bytes[0..<2]) == [0x00, 0x40])
        for i in 0..<16 {   // -16 / 2 + 8.5 = 0.5 becomes 0, -15 / 2 + 8.5 = 1 becomes 1, …; 15 / 2 + 8.5 = 16 is cut to 15
            let low = (i + 1) / 2, high = min(15, (i + 17) / 2)
            #expect(bytes[2 + i] == UInt8(low + 16 * high))
        }
        #expect(ak_quantize(&bytes, AK_Q4_K, whole, 32) == -1)
        #expect(ak_quantize(&bytes, AK_Q5_1, whole, 32) == -1)
    }

    // A failure means that values that are no numbers trap, or write outside their block.
    @Test("quantizing nonsense is safe") func quantizingNonsenseIsSafe() {
        for nonsense: Float in [.nan, .infinity, -.infinity, .greatestFiniteMagnitude, Float(bitPattern: 1)] {
            var values = [Float](repeating: 1, count: 32)
            values[5] = nonsense
            for (type, size) in [(AK_Q8_0, 34), (AK_Q4_0, 18), (AK_Q4_1, 20)] {
                var bytes = [UInt8](repeating: 0xAB, count: size + 1)
                #expect(ak_quantize(&bytes, type, values, 32) == 0)
                #expect(bytes[size] == 0xAB)
            }
        }
    }
}
