import AdaKernels
import Testing

/// Q4_0 and Q4_1 panels: two weights in each byte, multiplied with 8-bit activations or, dequantized on the way, with floats.
struct FourBitTests {
    static let types = [AK_Q4_0, AK_Q4_1]
    /// Activation type, weight type, layout, panels of a bundle.
    static let cases: [(ak_type, ak_type, ak_layout, Int)] = [AK_Q8_0, AK_F32, AK_BF16].flatMap { act in
        types.flatMap { type in [(act, type, AK_PANELS, 1), (act, type, AK_PANELS, 3)] + (act == AK_F32 ? [] : [(act, type, AK_ROWS, 1)]) }
    }

    private func problem(
        _ index: Int, rows: Int, inputs: Int, tokens: Int, panels: [Int32]? = nil, blocks: [Int32]? = nil, accumulate: Bool = false,
        bias: Bool = false, seed: Int = 1
    ) -> MatmulProblem {
        let (act, type, layout, bundle) = Self.cases[index]
        return MatmulProblem(.init(
            act: act, weight: type, layout: layout, bundle: bundle, rows: rows, inputs: inputs, tokens: tokens, panels: panels, blocks: blocks,
            accumulate: accumulate, bias: bias, seed: UInt64(seed)))
    }

    // A failure means that 4-bit weights change on their way from the file, or land in another row or column than the kernels expect.
    @Test("packing keeps every bit", arguments: [AK_Q4_0, AK_Q4_1], [1, 2, 4])
    func packingKeepsEveryBit(type: ak_type, bundle: Int) {
        var numbers = TestNumbers(seed: 3)
        let rows = 75, blocks = 5, inputs = blocks * 32, size = Int(ak_type_bytes(type)), header = size - 16, rowBytes = blocks * size + 6
        let panels = 8   // three panels have no rows at all
        let step = 256 + header * 16   // values of a panel's block, then scales
        var source = numbers.bytes(rows * rowBytes)
        source.replaceSubrange(0..<2, with: [0x00, 0x7C])   // an infinite scale, which a file may hold
        let panelBytes = ak_panel_bytes(type, Int32(inputs))
        #expect(panelBytes % 64 == 0 && panelBytes >= blocks * (256 + header * 16) && panelBytes < blocks * (256 + header * 16) + 64)
        var packed = [UInt8](repeating: 0xEE, count: panels * panelBytes)
        #expect(ak_pack_panels(&packed, type, Int32(bundle), source, type, rowBytes, Int32(rows), Int32(inputs), 0, Int32(panels)) == 0)
        var later = [UInt8](repeating: 0xEE, count: 4 * panelBytes)
        #expect(ak_pack_panels(&later, type, Int32(bundle), source, type, rowBytes, Int32(rows), Int32(inputs), 4, 4) == 0)
        #expect(later.elementsEqual(packed[(4 * panelBytes)...]), "the second half differs when it is packed alone")

        for row in 0..<panels * 16 {
            let (panel, lane) = (row / 16, row % 16)
            let base = panel / bundle * bundle * panelBytes, member = panel % bundle
            for block in 0..<blocks {
                let start = row * rowBytes + block * size
                let stored = row < rows ? Array(source[start..<start + size]) : .init(repeating: 0, count: size)
                for byte in 0..<16 {
                    let at = base + (block * bundle + member) * step + byte / 4 * 64 + lane * 4 + byte % 4
                    if packed[at] != stored[header + byte] { Issue.record("weights of row \(row), block \(block), byte \(byte)") }
                }
                for half in 0..<header / 2 {   // the scale, then Q4_1's minimum
                    let at = base + (block * bundle + member) * step + 256 + half * 32 + lane * 2
                    if Array(packed[at..<at + 2]) != Array(stored[half * 2..<half * 2 + 2]) { Issue.record("scale \(half) of row \(row), block \(block)") }
                }
            }
        }
    }

    // A failure means that every layer of a 4-bit model computes something else.
    @Test("every token count and tail", arguments: KernelSet.available, cases.indices)
    func everyTokenCountAndTail(set: KernelSet, index: Int) {
        for tokens in Array(1...14) + [16, 33] {
            let rows = [16, 5, 33, 70, 100, 16 * 7, 31][tokens % 7], inputs = [32, 64, 96, 160, 224, 576][tokens % 6]
            problem(index, rows: rows, inputs: inputs, tokens: tokens, seed: tokens).check(set)
        }
    }

    // A failure means that a plan's skipped heads and neurons are computed anyway, or the wrong ones are skipped.
    @Test("subsets bias and accumulation", arguments: KernelSet.available, cases.indices)
    func subsetsBiasAndAccumulation(set: KernelSet, index: Int) {
        for tokens in [1, 2, 3, 5, 8, 13, 40] {
            for (bias, accumulate) in [(false, true), (true, false), (true, true)] {
                problem(
                    index, rows: 150, inputs: 352, tokens: tokens, panels: [0, 2, 3, 5, 8, 9], blocks: [1, 2, 6, 10], accumulate: accumulate,
                    bias: bias, seed: tokens
                ).check(set)
            }
            problem(index, rows: 150, inputs: 1024, tokens: tokens, panels: [1, 2, 7], blocks: (3..<30).map { $0 }).check(set)
            problem(index, rows: 40, inputs: 96, tokens: tokens, panels: [2], blocks: []).check(set)
            problem(index, rows: 40, inputs: 96, tokens: tokens, blocks: [], accumulate: true, bias: true).check(set)
            problem(index, rows: 40, inputs: 96, tokens: tokens, panels: []).check(set)
        }
    }

    // A failure means that layers wider than the cache, which are multiplied in parts, or prompts longer than a strip of tokens come out wrong.
    @Test("wide layers and long prompts of 4-bit weights are multiplied correctly", arguments: KernelSet.available, cases.indices)
    func partsAndStrips(set: KernelSet, index: Int) {
        let wide = Self.cases[index].0 == AK_Q8_0 ? 32 * 1100 : 32 * 150
        problem(index, rows: 36, inputs: wide, tokens: 7, accumulate: true, bias: true).check(set)
        problem(index, rows: 50, inputs: 64, tokens: 263, bias: true).check(set)
    }

    // A failure means that the same prompt gives other tokens depending on how it is cut into pieces or shared out among threads.
    @Test("results do not depend on tiles", arguments: KernelSet.available, cases.indices)
    func resultsDoNotDependOnTiles(set: KernelSet, index: Int) {
        let problem = problem(index, rows: 80, inputs: 2304, tokens: 19, bias: true)
        var together = problem.initial
        problem.run(set, into: &together, panels: [0, 1, 2, 3, 4], tokens: 0..<19)
        for size in [1, 2, 3, 5, 7, 8, 12] {
            var pieces = problem.initial
            for start in stride(from: 0, to: 19, by: size) {
                for panels: [Int32] in size % 2 == 0 ? [[0], [1, 2], [3, 4]] : size % 3 == 1 ? [[0, 1, 2, 3], [4]] : [[0, 1, 2], [3], [4]] {
                    problem.run(set, into: &pieces, panels: panels, tokens: start..<min(19, start + size))
                }
            }
            #expect(pieces == together, "\(size)")
        }
    }

    // A failure means that the largest sums of products of a block do not fit where a kernel keeps them.
    @Test("the largest block sums fit the kernels' accumulators", arguments: KernelSet.available, [AK_Q4_0, AK_Q4_1])
    func extremesFit(set: KernelSet, type: ak_type) {
        for input in [Int8(127), -127] {
            for pair in [UInt8(0xFF), 0x00] {
                let offset: Float = type == AK_Q4_0 ? -8 : 0.5   // 0.5 is the minimum
                let expected = Float(input) * 64 * (Float(pair & 15) + offset)
                for tokens in Self.tokenCounts {
                    let out = multiply(set, type, tokens: tokens, input: input) { _, _ in (1, 0.5, pair) }
                    #expect(out.allSatisfy { $0 == expected }, "\(tokens) tokens, \(input) times \(pair)")
                }
            }
        }
    }

    // A failure means that the largest weights of a file, or sums of a weight and an input, do not fit where a kernel keeps them.
    @Test("extremes of 8-bit weights fit", arguments: KernelSet.available)
    func extremesOf8BitWeightsFit(set: KernelSet) {
        for input in [Int8(127), -127] {
            for weight in [Int8(127), -128] {
                for tokens in Self.tokenCounts {
                    let out = multiply(set, AK_Q8_0, tokens: tokens, input: input) { _, _ in (1, 0, UInt8(bitPattern: weight)) }
                    #expect(out.allSatisfy { $0 == Float(input) * 64 * Float(weight) }, "\(tokens) tokens, \(input) times \(weight)")
                }
            }
        }
    }

    // A failure means that a broken scale or minimum in a file stops the program, hides, or spoils other rows' results.
    @Test("broken scales stay in their row", arguments: KernelSet.available, [AK_Q4_0, AK_Q4_1])
    func brokenScalesStayInTheirRow(set: KernelSet, type: ak_type) {
        for broken in [Float.nan, .infinity, -.infinity] {
            for inMinimum in type == AK_Q4_1 ? [false, true] : [false] {
                for tokens in Self.tokenCounts {
                    let out = multiply(set, type, tokens: tokens, input: 3) { row, block in
                        let here = row == 5 && block == 1
                        return (here && !inMinimum ? broken : 0.25, here && inMinimum ? broken : -2, 0x9B)
                    }
                    #expect(out.indices.allSatisfy { out[$0].isFinite == ($0 % 32 != 5) }, "\(tokens) tokens")
                }
            }
        }
    }

    /// One, a few, and more than ``AK_WIDE_TOKENS``, each of which other functions multiply.
    private static let tokenCounts = [1, 5, Int(AK_WIDE_TOKENS) + 5]

    /// Tokens of 64 equal inputs times 32 rows whose blocks hold one byte 16 times, 32 times for 8-bit weights: `[tokens][32]`.
    private func multiply(
        _ set: KernelSet, _ type: ak_type, tokens: Int, input: Int8, block: (_ row: Int, _ block: Int) -> (scale: Float, minimum: Float, pair: UInt8)
    ) -> [Float] {
        func bytes(_ value: Float) -> [UInt8] { withUnsafeBytes(of: ak_float_to_half(value).littleEndian, Array.init) }
        var source: [UInt8] = []
        for row in 0..<32 {
            for index in 0..<2 {
                let (scale, minimum, pair) = block(row, index)
                source += bytes(scale) + (type == AK_Q4_1 ? bytes(minimum) : []) + .init(repeating: pair, count: type == AK_Q8_0 ? 32 : 16)
            }
        }
        let panelBytes = ak_panel_bytes(type, 64), packed = AlignedMemory(bytes: panelBytes * 2)
        #expect(ak_pack_panels(packed.pointer, type, 1, source, type, source.count / 32, 32, 64, 0, 2) == 0)
        var matrix = ak_matrix(
            type: type, layout: AK_PANELS, rows: 32, inputs: 64, panels: 2, blocks: 2, bundle: 1, stride: panelBytes, data: UnsafeRawPointer(packed.pointer))
        let scratch = AlignedMemory(bytes: ak_matmul_scratch(&matrix))
        let values = [Int8](repeating: input, count: tokens * 64), scales = [Float](repeating: 1, count: tokens * 2)
        let sums = [Int32](repeating: -128 * 32 * Int32(input), count: tokens * 2)
        var out = [Float](repeating: -1, count: tokens * 32)
        values.withUnsafeBytes { values in
            scales.withUnsafeBufferPointer { scales in
                sums.withUnsafeBufferPointer { sums in
                    var act = ak_activations(
                        type: AK_Q8_0, tokens: Int32(tokens), blocks: 2, stride: 64, data: values.baseAddress, scales: scales.baseAddress,
                        sums: sums.baseAddress)
                    set.table.matmul(&out, 32, &act, &matrix, nil, [0, 1], 2, nil, 2, 0, nil, scratch.pointer)
                }
            }
        }
        return out
    }
}
