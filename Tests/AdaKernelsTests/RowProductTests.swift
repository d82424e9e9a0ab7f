import AdaKernels
import Testing

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// Products of one token with quantized rows where the file has them.
@Suite struct RowProductTests {
    // A failure means that a decode from the file differs from one with packed weights: at a row's last blocks, in a last panel of few rows, in long rows,
    // or where only some panels are asked for.
    @Test("one token gives what panels give", arguments: KernelSet.available, [AK_Q8_0, AK_Q4_0, AK_Q4_1])
    func oneTokenGivesWhatPanelsGive(set: KernelSet, type: ak_type) {
        for (rows, inputs, panels) in [
            (16, 32, nil), (16, 128, nil), (37, 32 * 15, nil), (64, 32 * 16, nil), (33, 32 * 19, nil), (48, 11008, nil), (100, 576, [0, 1, 4, 6] as [Int32]?),
        ] {
            for accumulate in [false, true] {
                let results = [AK_ROWS, AK_PANELS].map { layout in
                    MatmulProblem(.init(
                        act: AK_Q8_0, weight: type, layout: layout, rows: rows, inputs: inputs, tokens: 1, panels: panels, accumulate: accumulate, bias: accumulate,
                        seed: UInt64(rows + inputs))).check(set)
                }
                #expect(results[0] == results[1], "\(rows) rows, \(inputs) inputs")
            }
        }
    }

    // A failure means that a model whose last tensor ends with its file's last page ends the process.
    @Test("no memory after the matrix is read", arguments: KernelSet.available, [AK_Q8_0, AK_Q4_0, AK_Q4_1])
    func nothingBehindTheMatrixIsRead(set: KernelSet, type: ak_type) throws {
        let page = Int(getpagesize()), pages = 16
        let base = mmap(nil, (pages + 1) * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        let memory = try #require(base != MAP_FAILED ? base : nil)
        defer { munmap(memory, (pages + 1) * page) }
        try #require(mprotect(memory + pages * page, page, PROT_NONE) == 0)
        for (rows, blocks, tokens) in [(16, 1, 1), (16, 5, 1), (37, 18, 1), (32, 33, 1), (32, 18, 3), (20, 40, 9)] {
            let stride = blocks * Int(ak_type_bytes(type)), inputs = blocks * 32
            let start = memory + pages * page - rows * stride
            var matrix = ak_matrix(
                type: type, layout: AK_ROWS, rows: Int32(rows), inputs: Int32(inputs), panels: Int32((rows + 15) / 16), blocks: Int32(blocks), bundle: 1, stride: stride,
                data: UnsafeRawPointer(start))
            start.initializeMemory(as: UInt8.self, repeating: 0, count: rows * stride)
            // Every weight of block b is b + 1 (4-bit ones less what they are moved by); every scale is 1.
            for row in 0 ..< rows {
                for block in 0 ..< blocks {
                    let at = start + row * stride + block * Int(ak_type_bytes(type))
                    at.storeBytes(of: 0x3C00, as: UInt16.self)
                    let first = type == AK_Q4_1 ? 4 : 2
                    let value = UInt8(block % 7 + 1)
                    for byte in first ..< Int(ak_type_bytes(type)) { at.storeBytes(of: type == AK_Q8_0 ? value : value | value << 4, toByteOffset: byte, as: UInt8.self) }
                }
            }
            let weightSum = (0 ..< blocks).reduce(0) { $0 + 32 * ($1 % 7 + 1 - (type == AK_Q4_0 ? 8 : 0)) }
            let values = [Int8](repeating: 1, count: inputs * tokens), scales = [Float](repeating: 1, count: blocks * tokens)
            let sums = [Int32](repeating: -128 * 32, count: blocks * tokens)
            var out = [Float](repeating: .nan, count: Int(matrix.panels) * 16 * tokens)
            let scratch = AlignedMemory(bytes: ak_matmul_scratch(&matrix)), panels = (0 ..< matrix.panels).map { $0 }
            values.withUnsafeBufferPointer { values in
                scales.withUnsafeBufferPointer { scales in
                    sums.withUnsafeBufferPointer { sums in
                        var act = ak_activations(
                            type: AK_Q8_0, tokens: Int32(tokens), blocks: Int32(blocks), stride: inputs, data: UnsafeRawPointer(values.baseAddress),
                            scales: scales.baseAddress, sums: sums.baseAddress)
                        set.table.matmul(&out, Int(matrix.panels) * 16, &act, &matrix, nil, panels, matrix.panels, nil, 0, 0, nil, scratch.pointer)
                    }
                }
            }
            for token in 0 ..< tokens {
                for row in 0 ..< rows { #expect(out[token * Int(matrix.panels) * 16 + row] == Float(weightSum), "\(set.name) \(rows) \(blocks) row \(row)") }
            }
        }
    }
}
