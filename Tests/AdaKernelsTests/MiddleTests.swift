import AdaKernels
import Foundation
import Testing

/// The middle of feed-forward networks against float64 (`ak_kernels.middle`).
@Suite struct MiddleTests {
    private static func rounded(_ value: Float) -> (bits: UInt16, value: Double) {
        let bits = ak_float_to_bf16(value)
        return (bits, Double(ak_bf16_to_float(bits)))
    }

    /// A matrix of BF16 numbers, in panels or in rows, and what they are.
    private struct Weights {
        let matrix: ak_matrix
        let values: [[Double]]
        private let memory: AlignedMemory

        init(rows: Int, inputs: Int, layout: ak_layout, _ numbers: inout TestNumbers) {
            let numbers = numbers.floats(rows * inputs).map { MiddleTests.rounded($0) }
            values = (0..<rows).map { row in numbers[row * inputs..<(row + 1) * inputs].map(\.value) }
            let panels = (rows + 15) / 16, panelBytes = ak_panel_bytes(AK_BF16, Int32(inputs))
            let bits = numbers.map(\.bits)
            let memory = AlignedMemory(bytes: layout == AK_ROWS ? bits.count * 2 : panels * panelBytes)
            self.memory = memory
            let packed = bits.withUnsafeBytes { source -> Int32 in
                guard let base = source.baseAddress else { return -1 }
                if layout == AK_ROWS {
                    memory.pointer.copyMemory(from: base, byteCount: source.count)
                    return 0
                }
                return ak_pack_panels(memory.pointer, AK_BF16, 1, base, AK_BF16, inputs * 2, Int32(rows), Int32(inputs), 0, Int32(panels))
            }
            #expect(packed == 0)
            matrix = ak_matrix(
                type: AK_BF16, layout: layout, rows: Int32(rows), inputs: Int32(inputs), panels: Int32(panels), blocks: Int32((inputs + 31) / 32),
                bundle: 1, stride: layout == AK_ROWS ? inputs * 2 : panelBytes, data: UnsafeRawPointer(memory.pointer))
        }
    }

    private static let quick: @convention(c) (UnsafeMutablePointer<Float>?, Int) -> Void = { values, count in
        for i in 0..<count { if let values { values[i] = values[i] / (1 + exp(-1.702 * values[i])) } }
    }

    // A failure means that prompts and images go wrong in every layer: a wrong panel, row or bias, or values behind the last token.
    @Test("fused MLP products match a computation in float64", arguments: KernelSet.available, [false, true])
    func againstFloat64(set: KernelSet, inRows: Bool) {
        let layout = inRows ? AK_ROWS : AK_PANELS
        guard let middle = set.table.middle else {
            #expect(set.name != "amx")
            return
        }
        // Tails of tokens and rows; more panels than a group; one tile and several; the most blocks there may be.
        for (rows, inputs, tokens, gated) in [
            (112, 64, 33, true), (112, 64, 33, false), (40, 160, 4, true), (40, 160, 35, false), (512, 96, 70, true), (33, 32 * 192, 37, true),
        ] {
            var numbers = TestNumbers(seed: UInt64(rows + inputs + tokens))
            let gate = Weights(rows: rows, inputs: inputs, layout: layout, &numbers), up = Weights(rows: rows, inputs: inputs, layout: layout, &numbers)
            let values = numbers.floats(tokens * inputs, scale: 4 / Float(inputs).squareRoot()).map { Self.rounded($0) }
            let bias = numbers.floats(Int(gate.matrix.panels) * 16)
            // Without the second panel, and with all.
            for skipped in [Int32(1), -1] {
                let panels = (0..<gate.matrix.panels).filter { $0 != skipped }
                let stride = Int(gate.matrix.panels) * 16 + 16
                var out = [UInt16](repeating: 0x7fc0, count: tokens * stride)
                let bits = values.map(\.bits)
                let scratch = AlignedMemory(bytes: withUnsafePointer(to: gate.matrix) { ak_matmul_scratch($0) })
                bits.withUnsafeBytes { data in
                    var act = ak_activations(
                        type: AK_BF16, tokens: Int32(tokens), blocks: gate.matrix.blocks, stride: inputs, data: data.baseAddress, scales: nil, sums: nil)
                    var (first, second) = (gate.matrix, up.matrix)
                    // In two calls: the second begins where the first one's following panels were.
                    for part in [0..<panels.count / 2, panels.count / 2..<panels.count] {
                        Array(panels[part.lowerBound...]).withUnsafeBufferPointer { list in
                            if gated {
                                middle(
                                    &out, stride, &act, &first, &second, nil, nil, list.baseAddress, Int32(part.count), Int32(panels.count - part.upperBound),
                                    scratch.pointer)
                            } else {
                                middle(
                                    &out, stride, &act, &first, nil, bias, Self.quick, list.baseAddress, Int32(part.count),
                                    Int32(panels.count - part.upperBound), scratch.pointer)
                            }
                        }
                    }
                }
                for token in 0..<tokens {
                    for row in 0..<stride {
                        let found = out[token * stride + row]
                        guard row < rows, panels.contains(Int32(row / 16)) else {
                            // Padding of a last panel is zero weights.
                            let isPadding = row >= rows && row < Int(gate.matrix.panels) * 16 && panels.contains(Int32(row / 16))
                            if !isPadding { #expect(found == 0x7fc0, "token \(token), column \(row) was written") }
                            continue
                        }
                        func sum(_ weights: Weights) -> Double {
                            (0..<inputs).reduce(0.0) { $0 + weights.values[row][$1] * values[token * inputs + $1].value }
                        }
                        let a = sum(gate) + (gated ? 0 : Double(bias[row]))
                        let expected = gated ? a / (1 + exp(-a)) * sum(up) : a / (1 + exp(-1.702 * a))
                        let difference = abs(Double(ak_bf16_to_float(found)) - expected)
                        #expect(difference <= abs(expected) / 250 + 1e-4, "token \(token), row \(row): \(expected)")
                    }
                }
            }
        }
    }
}
