import AdaKernels
import Testing

@Suite struct CeilingsTests {
    private static let kinds = [AK_CEILING_INT8, AK_CEILING_BF16, AK_CEILING_F32]

    // A failure means that a ceiling counts operations that were not done, or that a processor without an instruction is sent to it.
    @Test("multiply counts its rounds", arguments: kinds.indices) func multiplyCountsItsRounds(index: Int) {
        let kind = Self.kinds[index]
        let one = ak_ceiling_multiply(kind, 1000)
        #expect((one > 0) == (ak_ceiling_instructions(kind) != nil))
        #expect(ak_ceiling_multiply(kind, 3000) == 3 * one)
        #expect(ak_ceiling_multiply(kind, 0) == 0 && ak_ceiling_multiply(kind, -1) == 0)
        if kind != AK_CEILING_BF16 { #expect(one > 0) }
        if kind == AK_CEILING_BF16 { #expect((one > 0) == (ak_has_bf16_dot() != 0)) }
    }

    // A failure means that the bandwidth is that of a part of the memory: whatever the number of places read at once, every byte counts.
    @Test("read reads every byte once", arguments: [1, 2, 3, 4, 7]) func readReadsEveryByteOnce(streams: Int32) {
        for lines in [0, 1, 3, 4, 5, 17, 64, 67] {
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: max(lines, 1) * 64, alignment: 64)
            defer { bytes.deallocate() }
            var expected: UInt64 = 0
            for word in 0 ..< lines * 8 {
                let value = UInt64(word + 1) &* 0x9E37_79B9_7F4A_7C15
                bytes.storeBytes(of: value, toByteOffset: word * 8, as: UInt64.self)
                expected &+= value
            }
            #expect(ak_ceiling_read(bytes.baseAddress, lines * 64, streams) == expected, "\(lines) lines")
        }
    }
}
