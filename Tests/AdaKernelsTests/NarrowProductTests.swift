import AdaKernels
import Testing

/// Products of 8-bit integers with one scale for each 256 inputs (`AK_I8`), against the same numbers in float64.
struct NarrowProductTests {
    private func product(
        rows: Int, inputs: Int, tokens: Int, panels: [Int32]? = nil, accumulate: Bool = false, bias: Bool = false, relu6: Bool = false
    ) -> MatmulProblem {
        MatmulProblem(.init(
            act: AK_I8, weight: AK_I8, rows: rows, inputs: inputs, tokens: tokens, panels: panels, accumulate: accumulate, bias: bias, relu6: relu6,
            tolerance: 1e-6, seed: UInt64(rows * inputs + tokens)))
    }

    // A failure means that image features are those of other weights: a group's scale is another's, a tail of tokens or panels is lost.
    @Test("every token count and tail", arguments: KernelSet.available)
    func everyTokenCountAndTail(set: KernelSet) {
        for tokens in [1, 2, 15, 16, 17, 31, 32, 33, 48, 65] {
            let rows = [16, 5, 33, 70, 100, 16 * 7, 31][tokens % 7], inputs = [64, 256, 320, 1024, 1088, 2304][tokens % 6]
            product(rows: rows, inputs: inputs, tokens: tokens).check(set)
        }
    }

    // A failure means that a bias is added more than once, or what is added to is forgotten between two parts of the inputs.
    @Test("panels bias and accumulation", arguments: KernelSet.available)
    func panelsBiasAndAccumulation(set: KernelSet) {
        for (inputs, tokens) in [(192, 7), (1280, 40), (4096, 35)] {
            for (accumulate, bias, relu6) in [(true, false, false), (false, true, false), (true, true, false), (true, true, true), (false, false, true)] {
                product(
                    rows: 150, inputs: inputs, tokens: tokens, panels: [0, 2, 3, 5, 8, 9], accumulate: accumulate, bias: bias, relu6: relu6
                ).check(set)
            }
            product(rows: 150, inputs: inputs, tokens: tokens, panels: [4]).check(set)
            product(rows: 150, inputs: inputs, tokens: tokens, panels: []).check(set)
        }
        product(rows: 16 * 37, inputs: 1088, tokens: 33, bias: true).check(set)   // more panels than are multiplied together
    }

    // A failure means that the features of an image depend on the number of threads.
    @Test("results do not depend on pieces", arguments: KernelSet.available)
    func resultsDoNotDependOnPieces(set: KernelSet) {
        let problem = product(rows: 16 * 35, inputs: 1344, tokens: 70, accumulate: true, bias: true)
        var whole = problem.initial, pieces = problem.initial
        problem.run(set, into: &whole, panels: problem.test.listedPanels, tokens: 0 ..< 70)
        for tokens in [0 ..< 1, 1 ..< 18, 18 ..< 70] {
            for panels in [0 ..< 1, 1 ..< 4, 4 ..< 35] {
                problem.run(set, into: &pieces, panels: panels.map { Int32($0) }, tokens: tokens)
            }
        }
        #expect(whole == pieces)
    }

    // A failure means that something is written where such weights cannot be multiplied.
    @Test("a product of unsupported weights writes nothing", arguments: KernelSet.available)
    func unsupportedWritesNothing(set: KernelSet) {
        let pairs = [AK_F32, AK_BF16, AK_I16, AK_Q8_0].map { ($0, AK_I8, [Int32]?.none) } + [(AK_I8, AK_Q8_0, nil), (AK_I8, AK_I8, [0, 1])]
        for (act, weight, blocks) in pairs {
            let problem = MatmulProblem(.init(act: act, weight: weight, rows: 32, inputs: 128, tokens: 3, blocks: blocks))
            var out = problem.initial
            problem.run(set, into: &out, panels: [0, 1], tokens: 0 ..< 3)
            #expect(out == problem.initial, "\(act) \(weight)")
        }
    }

    // A failure means that weights are rounded more than they need be, or that what is not a number spreads to its neighbours.
    @Test("16-bit packing rounds to nearest, and NaN stays in its row") func packing() {
        var numbers = TestNumbers(seed: 5)
        let rows = 21, inputs = 320
        var values = numbers.floats(rows * inputs)
        values[3] = .nan
        for i in 0 ..< 256 { values[inputs + i] = 0 }
        let bytes = ak_panel_bytes(AK_I8, Int32(inputs))
        #expect(bytes == 320 * 16 + 2 * 16 * 4)
        for type in [AK_F32, AK_F16, AK_BF16] {
            let size = Int(ak_type_bytes(type)), rowBytes = inputs * size
            var source = [UInt8](repeating: 0, count: rows * rowBytes), stored = [Float](repeating: 0, count: rows * inputs)
            _ = ak_quantize(&source, type, values, Int64(values.count))
            ak_dequantize(&stored, type, source, 0, Int64(values.count))
            var packed = [UInt8](repeating: 0xEE, count: 2 * bytes), second = [UInt8](repeating: 0xEE, count: bytes)
            #expect(ak_pack_panels(&packed, AK_I8, 1, source, type, rowBytes, Int32(rows), Int32(inputs), 0, 2) == 0)
            #expect(ak_pack_panels(&second, AK_I8, 1, source, type, rowBytes, Int32(rows), Int32(inputs), 1, 1) == 0)
            #expect(Array(packed[bytes...]) == second)
            for row in 0 ..< 32 {
                let start = row / 16 * bytes, lane = row % 16
                for group in 0 ..< 2 {
                    let range = group * 256 ..< min(inputs, group * 256 + 256)
                    let expected = row < rows ? range.map { abs(stored[row * inputs + $0]) }.filter { !$0.isNaN }.max() ?? 0 : 0
                    let scale = packed.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: start + inputs * 16 + (group * 16 + lane) * 4, as: Float.self) }
                    #expect(scale == expected / 127)
                    for k in range {
                        let got = Float(Int8(bitPattern: packed[start + k / 4 * 64 + lane * 4 + k % 4])) * scale
                        let value = row < rows ? stored[row * inputs + k] : 0
                        if value.isNaN { #expect(got == 0) } else { #expect(abs(got - value) <= 0.5001 * scale) }
                    }
                }
            }
        }
        var out = [UInt8](repeating: 0, count: 4 * bytes)
        #expect(ak_panel_bytes(AK_I8, 96) == 0 && ak_panel_bytes(AK_I8, -64) == 0)
        #expect(ak_pack_panels(&out, AK_I8, 1, values, AK_F32, 384, 16, 96, 0, 1) == -1)
        #expect(ak_pack_panels(&out, AK_I8, 2, values, AK_F32, inputs * 4, 21, Int32(inputs), 0, 2) == -1)
        #expect(ak_pack_panels(&out, AK_I8, 1, values, AK_Q8_0, 340, 21, Int32(inputs), 0, 1) == -1)
    }

    // A failure means that the rows that meet those weights are rounded otherwise than the oracle's, or written where they do not belong.
    @Test("16-bit rows are those of the oracle", arguments: KernelSet.available)
    func quantizing(set: KernelSet) {
        var numbers = TestNumbers(seed: 12)
        let (blocks, width, ld) = (11, 12, 391)   // a group of 256 and one of 96
        var source = numbers.floats(2 * ld, scale: 4)
        for i in 256 ..< 352 { source[i] = 0 }
        source[70] = .nan
        source[ld] = Float(bitPattern: 7136)   // 1e-41 alone in its group: the scale has no inverse
        for i in ld + 1 ..< ld + 256 { source[i] = 0 }
        source[ld + 300] = 100                // what all others of its group are small beside
        func quantized(_ table: ak_kernels) -> (values: [Int8], scales: [Float]) {
            var values = [Int8](repeating: 77, count: 2 * width * 32 + 1), scales = [Float](repeating: -1, count: 5)
            table.quantize_i8(&values, width * 32, &scales, source, ld, 2, Int32(blocks))
            return (values, scales)
        }
        let (values, scales) = quantized(set.table), portable = quantized(ak_kernels_named("portable").pointee)
        #expect(values == portable.values && scales == portable.scales)
        #expect(values.last == 77 && scales.last == -1)
        for t in 0 ..< 2 {
            #expect(values[(t * width + blocks) * 32 ..< (t + 1) * width * 32].allSatisfy { $0 == 77 })
            for (g, range) in [0 ..< 256, 256 ..< 352].enumerated() {
                let x = range.map { source[t * ld + $0] }, largest = x.filter { !$0.isNaN }.map(abs).max() ?? 0, scale = scales[t * 2 + g]
                #expect(scale == largest / 127)
                for (value, k) in zip(x, range) {
                    let got = Float(values[t * width * 32 + k]) * scale
                    if value.isNaN || largest < 1e-30 { #expect(got == 0) } else { #expect(abs(got - value) <= 0.5001 * scale) }
                }
            }
        }
    }
}
