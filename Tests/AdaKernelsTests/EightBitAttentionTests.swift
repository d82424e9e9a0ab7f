import AdaKernels
import Foundation
import Testing

/// Keys and values in 8 bits: how they are stored. `AttentionTests` has what is computed with them.
@Suite struct EightBitAttentionTests {
    private static let headDims = [1, 8, 17, 20, 64, 80, 100, 256]

    /// A page's bytes after some rows were stored into zeros.
    private func page(_ set: KernelSet, headDim: Int, keys: [Float], values: [Float], pieces: [Int]) -> (keys: [UInt8], values: [UInt8]) {
        let bytes = (ak_key_bytes(AK_Q8_0, Int32(headDim)), ak_value_bytes(AK_Q8_0, Int32(headDim)))
        let memory = (AlignedMemory(bytes: bytes.0), AlignedMemory(bytes: bytes.1))
        memset(memory.0.pointer, 0, bytes.0)
        memset(memory.1.pointer, 0, bytes.1)
        var first = 0
        for piece in pieces {
            keys.withUnsafeBufferPointer { k in
                values.withUnsafeBufferPointer { v in
                    set.table.store_kv(
                        memory.0.pointer, memory.1.pointer, AK_Q8_0, k.baseAddress! + first * headDim, headDim, v.baseAddress! + first * headDim, headDim,
                        Int32(headDim), Int32(first), Int32(piece))
                }
            }
            first += piece
        }
        func read(_ memory: AlignedMemory, _ count: Int) -> [UInt8] { Array(UnsafeRawBufferPointer(start: memory.pointer, count: count)) }
        return (read(memory.0, bytes.0), read(memory.1, bytes.1))
    }

    // A failure means that a long context takes more memory than it should.
    @Test("8 bits are half of 16, and a scale for each row", arguments: headDims) func halfTheBytes(headDim: Int) {
        let span = Int(AK_ATTENTION_SPAN), dims = Int32(headDim), width = Int(ak_value_width(dims))
        #expect(ak_key_bytes(AK_Q8_0, dims) == span * ((headDim + 3) / 4 * 4 + 2))
        #expect(ak_value_bytes(AK_Q8_0, dims) == span * (width + 2))
        if headDim % 16 == 0 {
            #expect(ak_key_bytes(AK_Q8_0, dims) - 2 * span == ak_key_bytes(AK_F16, dims) / 2)
            #expect(ak_value_bytes(AK_Q8_0, dims) - 2 * span == ak_value_bytes(AK_F16, dims) / 2)
        }
        #expect(ak_key_bytes(AK_F32, dims) == span * headDim * 4 && ak_value_bytes(AK_F16, dims) == span * width * 2)
    }

    // A failure means that a model answers differently on another processor for no reason, or depending on how its prompt was cut into pieces.
    @Test("every kernel set stores the same bytes, whole or in pieces", arguments: headDims) func sameBytes(headDim: Int) throws {
        var numbers = TestNumbers(seed: UInt64(headDim))
        let rows = 60, keys = numbers.floats(rows * headDim, scale: 3), values = numbers.floats(rows * headDim, scale: 0.01)
        let portable = try #require(KernelSet.available.first { $0.name == "portable" })
        let expected = page(portable, headDim: headDim, keys: keys, values: values, pieces: [rows])
        for set in KernelSet.available {
            for pieces in [[rows], [1, 2, 13, 16, 17, 11]] {
                #expect(page(set, headDim: headDim, keys: keys, values: values, pieces: pieces) == expected, "\(set.name) \(pieces)")
            }
        }
        var panel = [Float](repeating: 0, count: headDim * 16)
        for position in 0 ..< rows {
            if position % 16 == 0 { expected.keys.withUnsafeBytes { ak_page_keys(&panel, $0.baseAddress, AK_Q8_0, Int32(headDim), Int32(position / 16)) } }
            let row = AttentionCase.stored(Array(keys[position * headDim ..< (position + 1) * headDim]), headDim, AK_Q8_0)
            for d in 0 ..< headDim { #expect(Double(panel[d * 16 + position % 16]) == row[d], "\(position) \(d)") }
        }
    }

    // A failure means that one overflow in a model ends the program, or spoils the rows of others.
    @Test("rows of zeros, NaN, infinities and huge numbers are stored and read", arguments: KernelSet.available) func hostileRows(set: KernelSet) throws {
        let headDim = 20, positions = 40
        var numbers = TestNumbers(seed: 3)
        var keys = numbers.floats(positions * headDim), values = numbers.floats(positions * headDim)
        let hostile: [[Float]] = [
            Array(repeating: 0, count: headDim), [.nan], [.infinity, 1], [-.infinity, 2], [3.4e38, -3.4e38, 1], [1e-44, 0], [.nan, .infinity, -1], [-0.0],
            Array(repeating: .nan, count: headDim), [8.4e6],
        ]
        for (index, row) in hostile.enumerated() {
            for (d, value) in row.enumerated() { (keys[index * headDim + d], values[(index + 10) * headDim + d]) = (value, value) }
        }
        let portable = try #require(KernelSet.available.first { $0.name == "portable" })
        let found = page(set, headDim: headDim, keys: keys, values: values, pieces: [positions])
        #expect(found == page(portable, headDim: headDim, keys: keys, values: values, pieces: [positions]))
        // What is read is finite, NaN is 0, and the sign of what is too large stays.
        var panels: [[Float]] = []
        for panel in 0 ..< 3 {
            var values = [Float](repeating: .nan, count: headDim * 16)
            found.keys.withUnsafeBytes { ak_page_keys(&values, $0.baseAddress, AK_Q8_0, Int32(headDim), Int32(panel)) }
            panels.append(values)
        }
        #expect(panels.allSatisfy { $0.allSatisfy(\.isFinite) })
        func key(_ position: Int, _ d: Int) -> Float { panels[position / 16][d * 16 + position % 16] }
        #expect((0 ..< headDim).allSatisfy { key(0, $0) == 0 && key(8, $0) == 0 } && key(1, 0) == 0 && key(1, 1) != 0)
        #expect(key(2, 0) == 127 * 65504 && key(3, 0) == -127 * 65504 && key(4, 0) == 127 * 65504 && key(4, 1) == -127 * 65504 && key(6, 0) == 0)
        // Queries of all kinds: no trap, and only those that are no numbers, or whose scores no float holds to within a few units, give none.
        let memory = (AlignedMemory(bytes: found.keys.count), AlignedMemory(bytes: found.values.count))
        memory.0.copy(from: found.keys)
        memory.1.copy(from: found.values)
        let scratch = AlignedMemory(bytes: ak_attention_scratch(Int32(positions), Int32(headDim)))
        for row in [Array(repeating: 1, count: headDim)] + hostile {
            let query = row + Array(repeating: 0.5, count: headDim - row.count)
            var out = [Float](repeating: 7, count: headDim), logs: [Float] = [0]
            set.table.attention_span(
                &out, headDim, &logs, query, headDim, memory.0.pointer, memory.1.pointer, AK_Q8_0, Int32(headDim), 0, Int32(positions), 1, 0.2, nil,
                scratch.pointer)
            #expect(out.allSatisfy { $0.isFinite } || query.contains { !($0.magnitude < 1e6) }, "\(row)")
        }
    }
}
