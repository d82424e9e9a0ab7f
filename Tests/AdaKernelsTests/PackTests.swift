import AdaKernels
import Testing

struct PackTests {
    /// Where row `lane` of a panel keeps input `k`, by the description in AdaKernels.h.
    private func offset(_ type: ak_type, lane: Int, k: Int) -> Int {
        switch type {
        case AK_F32: 4 * (k * 16 + lane)
        case AK_F16: 2 * (k * 16 + lane)
        case AK_BF16: 2 * (k / 2 * 32 + lane * 2 + k % 2)
        default: k / 32 * 544 + k % 32 / 4 * 64 + lane * 4 + k % 4
        }
    }

    private func bytes(of type: ak_type, _ value: Float) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: Int(ak_type_bytes(type)))
        _ = ak_quantize(&out, type, [value], 1)
        return out
    }

    // A failure means that weights land in another row or column than the kernels expect.
    @Test("float weights are packed into panels by row and column") func floatPanels() {
        var numbers = TestNumbers(seed: 1)
        let rows = 37, inputs = 45, count = 3
        let values = numbers.floats(rows * inputs)
        for sourceType in [AK_F32, AK_F16, AK_BF16] {
            let size = Int(ak_type_bytes(sourceType)), rowBytes = inputs * size + 10
            var source = [UInt8](repeating: 0xEE, count: rows * rowBytes)
            for row in 0..<rows {
                for k in 0..<inputs { source.replaceSubrange(row * rowBytes + k * size..<row * rowBytes + (k + 1) * size, with: bytes(of: sourceType, values[row * inputs + k])) }
            }
            for type in [AK_F32, AK_F16, AK_BF16] {
                let panelBytes = ak_panel_bytes(type, Int32(inputs)), element = Int(ak_type_bytes(type))
                #expect(panelBytes == 64 * 16 * element)
                // Panels 1 and 2 alone must be what they are among all three.
                for first in [0, 1] {
                    var packed = [UInt8](repeating: 0xEE, count: panelBytes * (count - first))
                    #expect(ak_pack_panels(&packed, type, 1, source, sourceType, rowBytes, Int32(rows), Int32(inputs), Int32(first), Int32(count - first)) == 0)
                    for panel in first..<count {
                        for lane in 0..<16 {
                            for k in 0..<64 {
                                let row = panel * 16 + lane
                                let at = (panel - first) * panelBytes + offset(type, lane: lane, k: k)
                                var expected = [UInt8](repeating: 0, count: element)
                                if row < rows, k < inputs {
                                    var stored: [Float] = [0]
                                    ak_dequantize(&stored, sourceType, Array(source[row * rowBytes + k * size..<row * rowBytes + (k + 1) * size]), 0, 1)
                                    expected = bytes(of: type, stored[0])
                                }
                                if Array(packed[at..<at + element]) != expected { Issue.record("\(type) \(panel) \(lane) \(k)") }
                            }
                        }
                    }
                }
            }
        }
    }

    // A failure means that 8-bit weights change on their way from the file, or that floats are quantized unlike ggml.
    @Test("8-bit weights are packed unchanged, and floats quantized as ggml does") func q8Panels() {
        var numbers = TestNumbers(seed: 2)
        let rows = 21, blocks = 3, inputs = blocks * 32, rowBytes = blocks * 34
        let panelBytes = ak_panel_bytes(AK_Q8_0, Int32(inputs))
        #expect(panelBytes >= blocks * 544 && panelBytes % 64 == 0)
        let floats = numbers.floats(rows * inputs)
        var quantized = [UInt8](repeating: 0, count: rows * rowBytes)
        _ = ak_quantize(&quantized, AK_Q8_0, floats, Int64(floats.count))
        quantized[2] = 0x80   // -128, which a file may hold
        var fromQ8 = [UInt8](repeating: 0xEE, count: 2 * panelBytes), fromF32 = fromQ8
        #expect(ak_pack_panels(&fromQ8, AK_Q8_0, 1, quantized, AK_Q8_0, rowBytes, Int32(rows), Int32(inputs), 0, 2) == 0)
        #expect(ak_pack_panels(&fromF32, AK_Q8_0, 1, floats, AK_F32, inputs * 4, Int32(rows), Int32(inputs), 0, 2) == 0)
        for row in 0..<32 {
            let panel = row / 16 * panelBytes, lane = row % 16
            for k in 0..<inputs {
                let stored: UInt8 = row < rows ? quantized[row * rowBytes + k / 32 * 34 + 2 + k % 32] : 0
                #expect(fromQ8[panel + offset(AK_Q8_0, lane: lane, k: k)] == stored &+ 128)
            }
            for block in 0..<blocks {
                let at = panel + block * 544 + 512 + lane * 2
                let expected = row < rows ? Array(quantized[row * rowBytes + block * 34..<row * rowBytes + block * 34 + 2]) : [0, 0]
                #expect(Array(fromQ8[at..<at + 2]) == expected)
            }
        }
        fromQ8[offset(AK_Q8_0, lane: 0, k: 0)] = fromF32[offset(AK_Q8_0, lane: 0, k: 0)]
        #expect(fromQ8 == fromF32)
    }

    // A failure means that a type without a packed form is packed into something.
    @Test("types without a packed form are not packed") func unsupportedTypes() {
        var out = [UInt8](repeating: 0, count: 4096)
        let source = [UInt8](repeating: 0, count: 4096)
        #expect(ak_pack_panels(&out, AK_Q5_0, 1, source, AK_Q5_0, 22, 16, 32, 0, 1) == -1)
        for (type, other) in [(AK_Q4_0, AK_Q4_1), (AK_Q4_1, AK_Q4_0), (AK_Q4_0, AK_F32), (AK_Q8_0, AK_Q4_0)] {
            #expect(ak_pack_panels(&out, type, 1, source, other, 128, 16, 32, 0, 1) == -1)
        }
        #expect(ak_pack_panels(&out, AK_F32, 1, source, AK_Q8_0, 34, 16, 32, 0, 1) == -1)
        #expect(ak_pack_panels(&out, AK_Q8_0, 1, source, AK_Q4_K, 144, 16, 256, 0, 1) == -1)
        for type in [AK_Q5_0, AK_Q5_1, AK_Q2_K, AK_Q3_K, AK_Q4_K, AK_Q5_K, AK_Q6_K, AK_IQ4_NL, AK_IQ4_XS, AK_TQ1_0, AK_TQ2_0, AK_MXFP4] { #expect(ak_panel_bytes(type, 256) == 0) }
        #expect(ak_panel_bytes(AK_F32, 0) == 0 && ak_panel_bytes(AK_F32, -5) == 0)
    }

    // A failure means that layers of which plans pick heads are multiplied with other weights than the file's.
    @Test("bundles are panels block by block", arguments: [2, 4, 8]) func bundlesArePanelsBlockByBlock(bundle: Int) {
        var numbers = TestNumbers(seed: 4)
        let rows = 90, inputs = 70, panels = 8, blocks = 3   // the last two panels have no rows at all
        let source = numbers.floats(rows * inputs)
        for type in [AK_F32, AK_F16, AK_BF16, AK_Q8_0] {
            let panelBytes = ak_panel_bytes(type, Int32(inputs))
            // A block's values, and behind them its scales.
            let step = 32 * 16 * (type == AK_F32 ? 4 : type == AK_Q8_0 ? 1 : 2) + (type == AK_Q8_0 ? 32 : 0)
            func packed(_ bundle: Int, first: Int = 0, count: Int = 8) -> [UInt8]? {
                var out = [UInt8](repeating: 0xEE, count: panelBytes * count)
                let status = ak_pack_panels(
                    &out, type, Int32(bundle), source, AK_F32, inputs * 4, Int32(rows), Int32(inputs), Int32(first), Int32(count))
                return status == 0 ? out : nil
            }
            guard let apart = packed(1), let bundled = packed(bundle) else {
                Issue.record("not packed")
                continue
            }
            for panel in 0..<panels {
                let (base, member) = (panel / bundle * bundle * panelBytes, panel % bundle)
                for block in 0..<blocks {
                    let at = panel * panelBytes + block * step, there = base + (block * bundle + member) * step
                    #expect(apart[at..<at + step].elementsEqual(bundled[there..<there + step]))
                }
            }
            // Only whole bundles.
            #expect(packed(bundle, first: 1, count: bundle) == nil && packed(bundle, count: bundle - 1) == nil && packed(0) == nil)
        }
    }

    // A failure means that models in the K types answer from other weights than their files'.
    @Test("other types are packed as what they fit", arguments: [AK_Q4_K, AK_Q5_0, AK_Q5_1, AK_Q2_K, AK_Q3_K, AK_Q5_K, AK_Q6_K, AK_IQ4_NL, AK_IQ4_XS, AK_TQ1_0, AK_TQ2_0, AK_MXFP4], [1, 4])
    func otherTypesArePackedAsWhatTheyFit(source: ak_type, bundle: Int) {
        var numbers = TestNumbers(seed: 9)
        let rows = 37, inputs = 768, panels = 4, type = source == AK_Q4_K ? AK_Q4_1 : AK_Q8_0
        let rowBytes = inputs / Int(ak_type_block(source)) * Int(ak_type_bytes(source))
        let bytes = randomBlocks(source, count: rows * inputs / Int(ak_type_block(source)), numbers: &numbers)
        let panelBytes = ak_panel_bytes(type, Int32(inputs))
        let packed = AlignedMemory(bytes: panels * panelBytes)
        #expect(ak_pack_panels(packed.pointer, type, Int32(bundle), bytes, source, rowBytes, Int32(rows), Int32(inputs), 0, Int32(panels)) == 0)
        // One input after the other through the product with float activations, which takes panels as they are.
        var matrix = ak_matrix(
            type: type, layout: AK_PANELS, rows: Int32(rows), inputs: Int32(inputs), panels: 3, blocks: Int32(inputs / 32), bundle: Int32(bundle),
            stride: panelBytes, data: UnsafeRawPointer(packed.pointer))
        let scratch = AlignedMemory(bytes: ak_matmul_scratch(&matrix)), one = (0..<inputs).map { k in (0..<inputs).map { Float($0 == k ? 1 : 0) } }
        var out = [Float](repeating: 0, count: inputs * 48)
        Array(one.joined()).withUnsafeBytes { x in
            var act = ak_activations(
                type: AK_F32, tokens: Int32(inputs), blocks: Int32(inputs / 32), stride: inputs, data: x.baseAddress, scales: nil, sums: nil)
            ak_kernels_named("portable").pointee.matmul(&out, 48, &act, &matrix, nil, [0, 1, 2], 3, nil, 0, 0, nil, scratch.pointer)
        }
        for row in 0..<rows {
            var exact = [Float](repeating: 0, count: inputs)
            ak_dequantize(&exact, source, Array(bytes[row * rowBytes..<(row + 1) * rowBytes]), 0, Int64(inputs))
            for block in 0..<inputs / 32 {
                let values = exact[block * 32..<block * 32 + 32], largest = values.map(abs).max() ?? 0
                // Half precision of a scale (15 times) and a minimum; half a step of 127, and half precision of that.
                // Types whose groups have one scale are stored as they are; IQ4_XS's is rounded to half precision.
                let isExact = [AK_IQ4_NL, AK_TQ1_0, AK_TQ2_0, AK_MXFP4].contains(source)
                let allowed = isExact ? 0 : source == AK_IQ4_XS ? largest / 1024 + 1e-6
                    : (type == AK_Q4_1 ? (values.max()! - values.min()! + largest) / 1024 : largest / 127 * 0.5 + largest / 1024) + 1e-6
                for (k, value) in zip(values.indices, values) { #expect(abs(out[k * 48 + row] - value) <= allowed, "row \(row), input \(k)") }
            }
        }
        // A row must be whole blocks of the source.
        #expect(ak_pack_panels(packed.pointer, type, Int32(bundle), bytes, source, rowBytes, Int32(rows), 16, 0, 4) == -1)
    }
}
