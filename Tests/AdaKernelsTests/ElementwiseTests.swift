import AdaKernels
import Foundation
import Testing

struct ElementwiseTests {
    static let lengths = [1, 7, 8, 15, 16, 17, 33, 64, 100, 1000]

    // A failure means that hidden states are scaled wrongly before every layer.
    @Test("RMSNorm matches a computation in float64", arguments: KernelSet.available, lengths)
    func rmsNorm(set: KernelSet, n: Int) {
        var numbers = TestNumbers(seed: UInt64(n))
        let tokens = 3, ldx = n + 5, ldo = n + 9
        let x = numbers.floats(tokens * ldx, scale: 3), weight = numbers.floats(n)
        var out = [Float](repeating: 77, count: tokens * ldo)
        set.table.rms_norm(&out, ldo, x, ldx, weight, 1e-5, Int32(tokens), Int32(n))
        for t in 0..<tokens {
            let row = x[t * ldx..<t * ldx + n].map(Double.init)
            let factor = 1 / (row.reduce(0) { $0 + $1 * $1 } / Double(n) + 1e-5).squareRoot()
            let expected = zip(row, weight).map { $0 * factor * Double($1) }
            #expect(worstExcess(Array(out[t * ldo..<t * ldo + n]), expected, relative: 1e-6, absolute: 1e-7) <= 0)
            #expect(out[t * ldo + n..<(t + 1) * ldo].allSatisfy { $0 == 77 })
        }
    }

    // A failure means that the vision tower's layers see wrongly scaled features.
    @Test("LayerNorm matches a computation in float64", arguments: KernelSet.available, lengths)
    func layerNorm(set: KernelSet, n: Int) {
        var numbers = TestNumbers(seed: UInt64(n) + 1)
        let tokens = 3, ldx = n + 5, ldo = n + 9
        let x = numbers.floats(tokens * ldx, scale: 3).map { $0 + 2 }, weight = numbers.floats(n), bias = numbers.floats(n)
        var out = [Float](repeating: 77, count: tokens * ldo)
        set.table.layer_norm(&out, ldo, x, ldx, weight, bias, 1e-5, Int32(tokens), Int32(n))
        for t in 0..<tokens {
            let row = x[t * ldx..<t * ldx + n].map(Double.init)
            let mean = row.reduce(0, +) / Double(n)
            let factor = 1 / (row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(n) + 1e-5).squareRoot()
            let expected = (0..<n).map { (row[$0] - mean) * factor * Double(weight[$0]) + Double(bias[$0]) }
            #expect(worstExcess(Array(out[t * ldo..<t * ldo + n]), expected, relative: 2e-6, absolute: 2e-6) <= 0)
            #expect(out[t * ldo + n..<(t + 1) * ldo].allSatisfy { $0 == 77 })
        }
    }

    /// Values where exp, sigmoid and erf change character, and a dense sweep.
    static let sweep: [Float] = (-1200...1200).map { Float($0) / 100 } + [-200, -104, -90, -88, -87, 87, 88, 90, 104, 200, 1e-20, -1e-20, 0, 1e10, -1e10]

    private func apply(_ function: (UnsafeMutablePointer<Float>, Int) -> Void, to values: [Float]) -> [Float] {
        var out = values + [77]
        out.withUnsafeMutableBufferPointer { buffer in
            if let base = buffer.baseAddress { function(base, values.count) }
        }
        #expect(out.last == 77, "wrote past the end")
        return Array(out.dropLast())
    }

    // A failure means that the activation between the layers of every MLP is wrong.
    @Test("activation functions match a computation in float64", arguments: KernelSet.available)
    func activations(set: KernelSet) {
        let table = set.table, sweep = Self.sweep
        func sigmoid(_ x: Double) -> Double { 1 / (1 + exp(-x)) }
        let up = sweep.map { $0 * 0.5 + 0.25 }
        #expect(worstExcess(apply({ table.silu_mul($0, up, $1) }, to: sweep),
                            zip(sweep, up).map { Double($0) * sigmoid(Double($0)) * Double($1) }, relative: 1e-6, absolute: 1e-30) <= 0)
        #expect(worstExcess(apply({ table.gelu_quick($0, $1) }, to: sweep),
                            sweep.map { Double($0) * sigmoid(1.702 * Double($0)) }, relative: 2e-5, absolute: 1e-30) <= 0)
        #expect(worstExcess(apply({ table.silu($0, $1) }, to: sweep), sweep.map { Double($0) * sigmoid(Double($0)) }, relative: 1e-6, absolute: 1e-30) <= 0)
        #expect(worstExcess(apply({ table.gelu_erf($0, $1) }, to: sweep),
                            sweep.map { Double($0) * 0.5 * (1 + erf(Double($0) / 2.0.squareRoot())) }, relative: 3e-7, absolute: 3e-7) <= 0)
        #expect(worstExcess(apply({ table.gelu_tanh($0, $1) }, to: sweep), sweep.map {
            let x = Double($0)
            return 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        }, relative: 5e-7, absolute: 5e-7) <= 0)
        #expect(worstExcess(apply({ table.gelu_tanh_mul($0, up, $1) }, to: sweep), zip(sweep, up).map {
            let x = Double($0)
            return 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x))) * Double($1)
        }, relative: 1e-6, absolute: 1e-5) <= 0)
        for count in 0...40 {
            let few = Array(sweep[1180..<1180 + count])
            #expect(worstExcess(apply({ table.gelu_erf($0, $1) }, to: few),
                                few.map { Double($0) * 0.5 * (1 + erf(Double($0) / 2.0.squareRoot())) }, relative: 3e-7, absolute: 3e-7) <= 0)
            #expect(apply({ table.add($0, few, $1) }, to: few) == few.map { $0 + $0 })
            #expect(worstExcess(apply({ table.silu($0, $1) }, to: few), few.map { Double($0) * sigmoid(Double($0)) }, relative: 1e-6, absolute: 1e-30) <= 0)
        }
    }

    // A failure means that a broken number goes unnoticed: NaN must stay NaN through an activation.
    @Test("activations keep NaN", arguments: KernelSet.available)
    func activationsKeepNaN(set: KernelSet) {
        let table = set.table
        let values: [Float] = [1, .nan, 2]
        let ones: [Float] = [1, 1, 1]
        for result in [
            apply({ table.silu_mul($0, ones, $1) }, to: values), apply({ table.gelu_erf($0, $1) }, to: values),
            apply({ table.gelu_tanh($0, $1) }, to: values), apply({ table.gelu_quick($0, $1) }, to: values),
            apply({ table.silu($0, $1) }, to: values), apply({ table.gelu_tanh_mul($0, ones, $1) }, to: values),
        ] {
            #expect(result[1].isNaN && !result[0].isNaN && !result[2].isNaN)
        }
    }

    // A failure means that the model no longer knows the order of its tokens.
    @Test("rotary embedding matches a computation in float64", arguments: KernelSet.available, [2, 6, 8, 10, 32, 34, 64, 80, 128])
    func rope(set: KernelSet, headDim: Int) {
        var numbers = TestNumbers(seed: UInt64(headDim))
        let heads = 3, pairs = headDim / 2
        let angles = numbers.floats(pairs, scale: 3)
        let cosines = angles.map { Float(cos(Double($0))) }, sines = angles.map { Float(sin(Double($0))) }
        let x = numbers.floats(heads * headDim)
        for interleaved in [false, true] {
            var got = x + [77]
            set.table.rope(&got, cosines, sines, Int32(heads), Int32(headDim), interleaved ? 1 : 0)
            var expected = x.map(Double.init)
            for head in 0..<heads {
                for i in 0..<pairs {
                    let a = head * headDim + (interleaved ? 2 * i : i), b = head * headDim + (interleaved ? 2 * i + 1 : i + pairs)
                    expected[a] = Double(x[a]) * Double(cosines[i]) - Double(x[b]) * Double(sines[i])
                    expected[b] = Double(x[b]) * Double(cosines[i]) + Double(x[a]) * Double(sines[i])
                }
            }
            #expect(got.last == 77)
            #expect(worstExcess(Array(got.dropLast()), expected, relative: 1e-6, absolute: 2e-7) <= 0)
        }
    }

    // A failure means that greedy decoding picks another token than the reference.
    @Test("argmax takes the first of the largest values", arguments: KernelSet.available)
    func argmax(set: KernelSet) {
        let argmax = { (values: [Float]) in set.table.argmax(values, Int32(values.count)) }
        var numbers = TestNumbers(seed: 5)
        for n in 1...150 {
            var values = numbers.floats(n)
            let at = Int(numbers.next() % UInt64(n))
            values[at] = 2
            #expect(argmax(values) == Int32(at))
            let tie = at / 2   // an equal value further left wins
            values[tie] = 2
            #expect(argmax(values) == Int32(tie))
            values[tie] = .nan
            if tie != at { #expect(argmax(values) == Int32(at)) }
        }
        #expect(argmax([.nan, -3, .nan]) == 1)
        #expect(argmax([.nan, -.infinity]) == 1)
        #expect(argmax([-.infinity, -.infinity]) == 0)
        #expect(argmax([.nan, .nan]) == 0)
        #expect(argmax([1, .infinity, .infinity]) == 1)
        #expect(argmax([-1, -2, -1]) == 0)
    }

    // A failure means that 8-bit activations differ from ggml's, and with them every quantized model's tokens.
    @Test("8-bit activations are ggml's", arguments: KernelSet.available, [(3, 3), (3, 5), (16, 16), (23, 23), (37, 40)])
    func quantizeQ8(set: KernelSet, width: (blocks: Int, of: Int)) {
        var numbers = TestNumbers(seed: 9)
        let blocks = width.blocks, tokens = 19, ld = blocks * 32 + 32
        var source = numbers.floats(tokens * ld, scale: 10)
        for i in 0..<32 { source[i] = 0 }                                        // a block of zeros
        for i in 0..<32 { source[32 + i] = Float(i - 16) + 0.5 }                 // exact halves once scaled
        source[32] = 127
        source[64] = Float(bitPattern: 71)                                                      // so small that its inverse overflows
        for i in 1..<32 { source[64 + i] = 0 }
        for i in 0..<32 { source[ld + i] = i % 2 == 0 ? 0.49999997 : -0.49999997 }   // just below a half
        source[ld] = 127
        var values = [Int8](repeating: 99, count: tokens * width.of * 32)
        var scales = [Float](repeating: 99, count: tokens * width.of), sums = [Int32](repeating: 99, count: tokens * width.of)
        set.table.quantize_q8(&values, width.of * 32, &scales, &sums, source, ld, Int32(tokens), Int32(blocks))
        for t in 0..<tokens {
            for b in 0..<width.of {
                let at = t * width.of + b
                if b >= blocks {   // not written
                    #expect(values[at * 32..<at * 32 + 32].allSatisfy { $0 == 99 } && scales[at] == 99 && sums[at] == 99)
                    continue
                }
                let block = source[t * ld + b * 32..<t * ld + b * 32 + 32]
                let scale = (block.map(abs).max() ?? 0) / 127
                let inverse = (1 / scale).isFinite ? 1 / scale : 0
                let expected = block.map { Int8(($0 * inverse).rounded(.toNearestOrAwayFromZero)) }
                #expect(Array(values[at * 32..<at * 32 + 32]) == expected)
                // ggml stores the scale as a half; one that a half cannot hold to its full precision stays as it is.
                let held = scale >= 0x1p-14 && scale <= 65504 ? ak_half_to_float(ak_float_to_half(scale)) : scale
                #expect(scales[at] == held)
                #expect(sums[at] == -128 * expected.reduce(0) { $0 + Int32($1) })
            }
        }
    }

    // A failure means that a broken hidden state is quantized into one that looks sound.
    @Test("quantizing infinity leaves NaN or infinity", arguments: KernelSet.available)
    func quantizingInfinityLeavesNaNOrInfinity(set: KernelSet) {
        var source = [Float](repeating: 1, count: 32)
        source[3] = .infinity
        var values = [Int8](repeating: 0, count: 32), scales: [Float] = [0], sums: [Int32] = [0]
        set.table.quantize_q8(&values, 32, &scales, &sums, source, 32, 1, 1)
        #expect(!scales[0].isFinite)
    }

    // A failure means that a block with NaN in it gives one thing alone and another among others: that a broken model fails now and then.
    @Test("quantizing NaN does not depend on the rest", arguments: KernelSet.available, [1, 2, 4, 16])
    func quantizingNaNDoesNotDependOnTheRest(set: KernelSet, blocks: Int) {
        let tokens = 19
        for place in [0, 7, 16, 31] {
            var source = [Float](repeating: 0.25, count: tokens * blocks * 32)
            for block in 0 ..< tokens * blocks {
                source[block * 32 + 3] = 2.54
                source[block * 32 + place] = .nan
            }
            var values = [Int8](repeating: 1, count: source.count)
            var scales = [Float](repeating: 1, count: tokens * blocks), sums = [Int32](repeating: 1, count: tokens * blocks)
            set.table.quantize_q8(&values, blocks * 32, &scales, &sums, source, blocks * 32, Int32(tokens), Int32(blocks))
            let first = Array(values[0 ..< 32])
            #expect(first[place] == 0 && first[3] == 127 && scales[0].isFinite)
            for block in 0 ..< tokens * blocks {
                #expect(Array(values[block * 32 ..< block * 32 + 32]) == first && scales[block] == scales[0] && sums[block] == sums[0])
            }
        }
    }

    // A failure means that 16-bit weights meet activations that are rounded more than they need be, or NaN where there is none.
    @Test("16-bit activations are rounded to nearest, and NaN stays NaN", arguments: KernelSet.available)
    func quantizeI16(set: KernelSet) {
        var numbers = TestNumbers(seed: 12)
        let blocks = 3, width = 4, ld = 103
        var source = numbers.floats(2 * ld, scale: 4)
        for i in 32 ..< 64 { source[i] = 0 }
        source[70] = .nan
        source[ld] = Float(bitPattern: 7136)   // 1e-41 alone in its block: the scale has no inverse
        for i in ld + 1 ..< ld + 32 { source[i] = 0 }
        var out = [Int16](repeating: 77, count: 2 * width * 32 + 1), scales = [Float](repeating: 0, count: 2 * width)
        set.table.quantize_i16(&out, width * 32, &scales, source, ld, 2, Int32(blocks))
        #expect(out.last == 77)
        for t in 0 ..< 2 { #expect(out[(t * width + blocks) * 32 ..< (t + 1) * width * 32].allSatisfy { $0 == 77 }) }
        for t in 0 ..< 2 {
            for b in 0 ..< blocks {
                let x = source[t * ld + b * 32 ..< t * ld + b * 32 + 32], at = t * width + b
                let largest = x.filter { !$0.isNaN }.map(abs).max() ?? 0
                #expect(scales[at] == largest / 8191)
                for (i, value) in x.enumerated() {
                    let got = Float(out[at * 32 + i]) * scales[at]
                    if value.isNaN || largest < 1e-30 { #expect(got == 0) } else { #expect(abs(got - value) <= 0.5001 * scales[at]) }
                }
            }
        }
        var portable = [Int16](repeating: 77, count: out.count), portableScales = scales
        ak_kernels_named("portable").pointee.quantize_i16(&portable, width * 32, &portableScales, source, ld, 2, Int32(blocks))
        #expect(portable == out && portableScales == scales)
    }

    // A failure means that BF16 activations are rounded wrongly.
    @Test("BF16 activations are rounded to nearest even", arguments: KernelSet.available)
    func toBF16(set: KernelSet) {
        var numbers = TestNumbers(seed: 11)
        let count = 45, ld = 64, ldo = 70
        var source = (0..<2 * ld).map { _ in Float(bitPattern: UInt32(truncatingIfNeeded: numbers.next())) }
        source[0] = Float(bitPattern: 0x3F80_8000)   // a tie: down to even
        source[1] = Float(bitPattern: 0x3F81_8000)   // a tie: up to even
        source[2] = Float(bitPattern: 0x7F7F_FFFF)   // overflows to infinity
        source[3] = Float(bitPattern: 0x7F80_0001)   // a NaN whose upper half alone would be infinity
        source[4] = -.infinity
        source[5] = Float(bitPattern: 0x0000_8001)   // subnormal
        var out = [UInt16](repeating: 0xABCD, count: 2 * ldo)
        set.table.to_bf16(&out, ldo, source, ld, 2, Int32(count))
        #expect(Array(out[0..<6]) == [0x3F80, 0x3F82, 0x7F80, 0x7FC0, 0xFF80, 0x0001])
        for t in 0..<2 {
            for i in 0..<count {
                let value = source[t * ld + i], got = Float(bitPattern: UInt32(out[t * ldo + i]) << 16)
                if value.isNaN { #expect(got.isNaN); continue }
                #expect(out[t * ldo + i] == bf16Bits(value))
            }
            #expect(out[t * ldo + count..<(t + 1) * ldo].allSatisfy { $0 == 0xABCD })
        }
    }
}

/// Round to nearest even by comparing with both neighbours, independent of the C version.
func bf16Bits(_ value: Float) -> UInt16 {
    let low = UInt16(truncatingIfNeeded: value.bitPattern >> 16), rest = value.bitPattern & 0xFFFF
    if rest > 0x8000 || (rest == 0x8000 && low & 1 == 1) { return low &+ 1 }
    return low
}
