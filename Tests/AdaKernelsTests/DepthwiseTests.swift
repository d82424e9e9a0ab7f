import AdaKernels
import Testing

/// The depthwise convolution, and the clamp that products can end with.
struct DepthwiseTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let kernel, stride, height, width, channels: Int
        var testDescription: String { "\(kernel)x\(kernel) stride \(stride), \(height)x\(width)x\(channels)" }
    }

    /// Every tail of a vector, maps smaller than the filter, sides that the stride does not divide, filters without a copy of their own.
    static let cases: [Case] = [1, 7, 8, 9, 15, 16, 17, 31, 33, 96, 100].map { Case(kernel: 3, stride: 1, height: 6, width: 11, channels: $0) }
        + [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2), (3, 3)].flatMap { kernel, stride in
            [(1, 1), (2, 3), (4, 4), (5, 2), (9, 9), (13, 18)].map {
                Case(kernel: kernel, stride: stride, height: $0.0, width: $0.1, channels: 19)
            }
        }

    /// The inputs of a case, the shape with "same" padding, and the result in float64.
    private struct Problem {
        let shape: ak_depthwise
        let outHeight: Int
        let input, weight, bias: [Float]
        let (ldx, ldw, ldo): (Int, Int, Int)

        init(_ test: Case) {
            func same(_ size: Int) -> (outputs: Int, before: Int) {
                let outputs = (size + test.stride - 1) / test.stride
                return (outputs, max(0, (outputs - 1) * test.stride + test.kernel - size) / 2)
            }
            let (rows, columns) = (same(test.height), same(test.width))
            var numbers = TestNumbers(seed: UInt64(test.kernel * 1000 + test.stride * 100 + test.channels + test.width))
            (ldx, ldw, ldo) = (test.channels + 3, test.channels + 5, test.channels + 2)
            input = numbers.floats(test.height * test.width * ldx, scale: 4)
            weight = numbers.floats(test.kernel * test.kernel * ldw)
            bias = numbers.floats(test.channels, scale: 3)
            outHeight = rows.outputs
            shape = ak_depthwise(
                height: Int32(test.height), width: Int32(test.width), channels: Int32(test.channels), out_width: Int32(columns.outputs),
                kernel: Int32(test.kernel), stride: Int32(test.stride), top: Int32(rows.before), left: Int32(columns.before))
        }

        func run(_ set: KernelSet, rows: [Range<Int>]) -> [Float] {
            var out = [Float](repeating: 77, count: outHeight * Int(shape.out_width) * ldo)
            withUnsafePointer(to: shape) { shape in
                for range in rows {
                    set.table.depthwise_relu6(
                        &out, ldo, input, ldx, weight, ldw, bias, shape, Int32(range.lowerBound), Int32(range.count))
                }
            }
            return out
        }

        var expected: [Double] {
            let (kernel, stride) = (Int(shape.kernel), Int(shape.stride))
            return (0 ..< outHeight * Int(shape.out_width)).flatMap { position -> [Double] in
                let (y, x) = (position / Int(shape.out_width) * stride - Int(shape.top), position % Int(shape.out_width) * stride - Int(shape.left))
                return (0 ..< Int(shape.channels)).map { channel in
                    var sum = Double(bias[channel])
                    for r in 0 ..< kernel {
                        for s in 0 ..< kernel where (0 ..< Int(shape.height)).contains(y + r) && (0 ..< Int(shape.width)).contains(x + s) {
                            let value = input[((y + r) * Int(shape.width) + x + s) * ldx + channel]
                            sum += Double(value) * Double(weight[(r * kernel + s) * ldw + channel])
                        }
                    }
                    return min(6, max(0, sum))
                }
            }
        }
    }

    // A failure means that a convolutional vision tower sees a smeared or shifted picture.
    @Test("a depthwise convolution matches its definition", arguments: KernelSet.available, cases) func convolves(set: KernelSet, test: Case) {
        let problem = Problem(test)
        let out = problem.run(set, rows: [0 ..< problem.outHeight])
        let values = stride(from: 0, to: out.count, by: problem.ldo).flatMap { Array(out[$0 ..< $0 + test.channels]) }
        #expect(worstExcess(values, problem.expected, relative: 2e-6, absolute: 1e-5) <= 0)
        let beside = stride(from: 0, to: out.count, by: problem.ldo).flatMap { Array(out[$0 + test.channels ..< $0 + problem.ldo]) }
        #expect(beside.allSatisfy { $0 == 77 }, "wrote beside the channels")
        // The clamp must have something to do at both ends.
        #expect(values.count < 300 || (values.contains(0) && values.contains(6)))
    }

    // A failure means that the result depends on how workers share the rows out, so answers change with the number of threads.
    @Test("rows of a depthwise convolution do not depend on how they are shared among threads", arguments: KernelSet.available) func rowsAreIndependent(set: KernelSet) {
        let problem = Problem(Case(kernel: 5, stride: 2, height: 18, width: 13, channels: 40))
        let pieces = problem.run(set, rows: [6 ..< 9, 0 ..< 1, 1 ..< 6])
        #expect(pieces == problem.run(set, rows: [0 ..< 9]))
        #expect(problem.run(set, rows: [3 ..< 4]).prefix(3 * 7 * problem.ldo).allSatisfy { $0 == 77 })
    }

    // A failure means that a broken number goes unnoticed, or spreads to channels and cells that do not read it.
    @Test("keeps NaN where it belongs", arguments: KernelSet.available) func keepsNaNWhereItBelongs(set: KernelSet) {
        let shape = ak_depthwise(height: 1, width: 9, channels: 20, out_width: 9, kernel: 3, stride: 1, top: 1, left: 1)
        var input = [Float](repeating: 1, count: 9 * 20)
        input[4 * 20 + 17] = .nan
        let weight = [Float](repeating: 1, count: 9 * 20), bias = [Float](repeating: 0, count: 20)
        var out = [Float](repeating: 0, count: 9 * 20)
        withUnsafePointer(to: shape) { set.table.depthwise_relu6(&out, 20, input, 20, weight, 20, bias, $0, 0, 1) }
        let broken = out.indices.filter { out[$0].isNaN }
        #expect(broken == [3 * 20 + 17, 4 * 20 + 17, 5 * 20 + 17])
    }

    // A failure means that the clamp behind a product changes sums, is left out, or hides a broken number.
    @Test("products clamp their results and keep NaN", arguments: KernelSet.available, [AK_F32, AK_F16, AK_BF16, AK_Q8_0]) func productsClamp(set: KernelSet, type: ak_type) {
        var numbers = TestNumbers(seed: 9)
        // Long rows, so that sums wait between two parts of the inputs.
        let (rows, inputs, tokens) = (40, 4096, 150)
        let (weight, values) = (numbers.floats(rows * inputs, scale: 0.2), numbers.floats(tokens * inputs))
        var x = values
        x[5 * inputs + 7] = .nan
        let packed = AlignedMemory(bytes: ak_panel_bytes(type, Int32(inputs)) * 3), scratch = AlignedMemory(bytes: 1 << 20)
        #expect(ak_pack_panels(packed.pointer, type, 1, weight, AK_F32, inputs * 4, Int32(rows), Int32(inputs), 0, 3) == 0)
        var matrix = ak_matrix(
            type: type, layout: AK_PANELS, rows: Int32(rows), inputs: Int32(inputs), panels: 3, blocks: Int32(inputs / 32),
            bundle: 1, stride: ak_panel_bytes(type, Int32(inputs)), data: packed.pointer)
        let start = numbers.floats(tokens * 48, scale: 3), bias = numbers.floats(48)
        func run(_ flags: Int) -> [Float] {
            var out = start
            x.withUnsafeBytes { bytes in
                var act = ak_activations(
                    type: AK_F32, tokens: Int32(tokens), blocks: Int32(inputs / 32), stride: inputs, data: bytes.baseAddress, scales: nil, sums: nil)
                set.table.matmul(&out, 48, &act, &matrix, bias, [0, 1, 2], 3, nil, matrix.blocks, Int32(flags), nil, scratch.pointer)
            }
            return out
        }
        for accumulate in [0, Int(AK_ACCUMULATE)] {
            let plain = run(accumulate), clamped = run(accumulate | Int(AK_RELU6))
            #expect(zip(plain, clamped).allSatisfy { $0.isNaN ? $1.isNaN : $1 == min(6, max(0, $0)) })
            #expect(clamped.contains(0) && clamped.contains(6) && clamped.contains { $0 > 0 && $0 < 6 } && clamped[5 * 48].isNaN)
        }
    }
}
