import AdaKernels
import Foundation
import Testing

/// A head's caches filled through store_kv, and attention in float64 over the values that were stored.
private struct AttentionCase {
    let headDim: Int, positions: Int, capacity: Int, type: ak_type
    let keys: [Float], values: [Float]          // (positions, ld)
    let ld: Int
    let keyCache: AlignedMemory, valueCache: AlignedMemory

    init(set: KernelSet, headDim: Int, positions: Int, type: ak_type, seed: UInt64, pieces: [Int]? = nil) {
        var numbers = TestNumbers(seed: seed)
        self.headDim = headDim
        self.positions = positions
        self.type = type
        capacity = positions + 9
        ld = headDim + 3
        keys = numbers.floats(positions * ld, scale: 2)
        values = numbers.floats(positions * ld, scale: 2)
        let size = type == AK_F32 ? 4 : 2
        keyCache = AlignedMemory(bytes: (capacity + 15) / 16 * 16 * headDim * size)
        valueCache = AlignedMemory(bytes: capacity * Int(ak_value_width(Int32(headDim))) * size)
        var first = 0
        for piece in pieces ?? [positions] {
            keys.withUnsafeBufferPointer { k in
                values.withUnsafeBufferPointer { v in
                    set.table.store_kv(keyCache.pointer, valueCache.pointer, type, k.baseAddress! + first * ld, ld,
                                       v.baseAddress! + first * ld, ld, Int32(headDim), Int32(first), Int32(piece))
                }
            }
            first += piece
        }
    }

    func stored(_ value: Float) -> Double { Double(type == AK_F32 ? value : Float(ak_half_to_float(ak_float_to_half(value)))) }

    func run(_ set: KernelSet, q: [Float], ldq: Int, queries: Int, first: Int, scale: Float) -> [Float] {
        let ldo = headDim + 5
        let scratch = AlignedMemory(bytes: ak_attention_scratch(Int32(positions), Int32(headDim)))
        var out = [Float](repeating: 77, count: queries * ldo)
        set.table.attention(&out, ldo, q, ldq, keyCache.pointer, valueCache.pointer, type, Int32(headDim), Int32(positions),
                            Int32(queries), Int32(first), scale, scratch.pointer)
        var rows: [Float] = []
        for t in 0..<queries {
            rows += out[t * ldo..<t * ldo + headDim]
            #expect(out[t * ldo + headDim..<(t + 1) * ldo].allSatisfy { $0 == 77 }, "wrote past a row")
        }
        return rows
    }

    func reference(q: [Float], ldq: Int, queries: Int, first: Int, scale: Float) -> [Double] {
        var out: [Double] = []
        for t in 0..<queries {
            let visible = first < 0 ? positions : min(positions, first + t + 1)
            let scores = (0..<visible).map { s in
                Double(scale) * (0..<headDim).reduce(0.0) { $0 + Double(q[t * ldq + $1]) * stored(keys[s * ld + $1]) }
            }
            let largest = scores.max() ?? 0
            let weights = scores.map { exp($0 - largest) }
            let sum = weights.reduce(0, +)
            for d in 0..<headDim { out.append((0..<visible).reduce(0.0) { $0 + weights[$1] * stored(values[$1 * ld + d]) } / sum) }
        }
        return out
    }
}

struct AttentionTests {
    // A failure means that tokens look at the wrong tokens, or weigh them wrongly.
    @Test(arguments: KernelSet.available, [8, 20, 32, 64, 80, 128])
    func matchesFloat64(set: KernelSet, headDim: Int) {
        var numbers = TestNumbers(seed: UInt64(headDim))
        for type in [AK_F32, AK_F16] {
            for (positions, queries, first) in [
                (1, 1, -1), (1, 1, 0), (5, 5, 0), (16, 16, 0), (17, 1, 16), (33, 3, 30), (40, 2, -1), (50, 6, 44), (70, 7, -1), (77, 20, 57),
                (100, 9, 91), (131, 4, 20), (256, 2, 254), (257, 1, -1), (300, 50, 240), (530, 14, 505), (600, 3, -1), (700, 13, 30),
            ] {
                let attention = AttentionCase(set: set, headDim: headDim, positions: positions, type: type, seed: UInt64(positions))
                let ldq = headDim + 7
                let q = numbers.floats(queries * ldq, scale: 2), scale = 1 / Float(headDim).squareRoot()
                let got = attention.run(set, q: q, ldq: ldq, queries: queries, first: first, scale: scale)
                let expected = attention.reference(q: q, ldq: ldq, queries: queries, first: first, scale: scale)
                #expect(worstExcess(got, expected, relative: 2e-5, absolute: 5e-6) <= 0, "\(positions) \(queries) \(first)")
            }
        }
    }

    // A failure means that large scores overflow or that a single dominating key is not copied through.
    @Test(arguments: KernelSet.available)
    func largeScoresStayFinite(set: KernelSet) {
        let attention = AttentionCase(set: set, headDim: 32, positions: 37, type: AK_F32, seed: 3)
        var numbers = TestNumbers(seed: 4)
        let q = numbers.floats(32, scale: 300)
        let got = attention.run(set, q: q, ldq: 32, queries: 1, first: -1, scale: 1)
        #expect(worstExcess(got, attention.reference(q: q, ldq: 32, queries: 1, first: -1, scale: 1), relative: 1e-3, absolute: 1e-3) <= 0)
    }

    // A failure means that the same question is answered differently depending on how its prompt was cut into pieces.
    @Test(arguments: KernelSet.available)
    func aQueryDoesNotDependOnItsCompany(set: KernelSet) {
        for headDim in [32, 80, 128] {
            let attention = AttentionCase(set: set, headDim: headDim, positions: 90, type: AK_F16, seed: 8)
            var numbers = TestNumbers(seed: 6)
            let q = numbers.floats(20 * headDim)
            let together = attention.run(set, q: q, ldq: headDim, queries: 20, first: 70, scale: 0.2)
            for t in 0..<20 {
                let row = Array(q[t * headDim..<(t + 1) * headDim])
                let alone = attention.run(set, q: row, ldq: headDim, queries: 1, first: 70 + t, scale: 0.2)
                #expect(alone == Array(together[t * headDim..<(t + 1) * headDim]))
            }
        }
    }

    // A failure means that a long prompt of a model with 16-bit weights is read wrongly, or otherwise in one piece than in several, or that what lies
    // behind the last position counts.
    @Test(arguments: KernelSet.available, [8, 20, 64, 80, 128, 256])
    func pairsRoundAndNoMore(set: KernelSet, headDim: Int) throws {
        guard ak_has_bf16_dot() != 0, let convert = set.table.attention_pairs else { return }
        for (positions, queries, first, type) in [
            (16, 16, 0, AK_F16), (17, 5, -1, AK_F32), (77, 20, 57, AK_F16), (131, 40, 20, AK_F16), (257, 30, 227, AK_F32), (601, 50, 551, AK_F16), (577, 25, -1, AK_F32),
        ] {
            let attention = AttentionCase(set: set, headDim: headDim, positions: positions, type: type, seed: UInt64(positions))
            var numbers = TestNumbers(seed: 12)
            let q = numbers.floats(queries * headDim, scale: 2), scale = 1 / Float(headDim).squareRoot()
            let panels = (positions + 15) / 16
            let keys = AlignedMemory(bytes: panels * 16 * headDim * 2)
            let values = AlignedMemory(bytes: panels * 16 * Int(ak_value_width(Int32(headDim))) * 2)
            // What store_kv did not write of the last panel is zero in a cache.
            let size = type == AK_F32 ? 4 : 2
            for position in positions ..< panels * 16 {
                for d in 0 ..< headDim {
                    let at = (position / 16 * 16 * headDim + d * 16 + position % 16) * size
                    (attention.keyCache.pointer + at).initializeMemory(as: UInt8.self, repeating: 0, count: size)
                }
            }
            for start in stride(from: 0, to: positions, by: 48) {
                convert(
                    keys.pointer.assumingMemoryBound(to: UInt16.self), values.pointer.assumingMemoryBound(to: UInt16.self), attention.keyCache.pointer,
                    attention.valueCache.pointer, type, Int32(headDim), Int32(start), Int32(min(positions, start + 48)))
            }
            let scratch = AlignedMemory(bytes: ak_attention_scratch(Int32(positions), Int32(headDim)))
            func run(_ range: Range<Int>) -> [Float] {
                var out = [Float](repeating: 77, count: range.count * headDim)
                q.withUnsafeBufferPointer { q in
                    set.table.attention(
                        &out, headDim, q.baseAddress! + range.lowerBound * headDim, headDim, keys.pointer, values.pointer, AK_BF16, Int32(headDim),
                        Int32(positions), Int32(range.count), Int32(first < 0 ? -1 : first + range.lowerBound), scale, scratch.pointer)
                }
                return out
            }
            let got = run(0 ..< queries)
            let expected = attention.reference(q: q, ldq: headDim, queries: queries, first: first, scale: scale)
            let error = zip(got, expected).reduce(0.0) { $0 + (Double($1.0) - $1.1) * (Double($1.0) - $1.1) }
            let size2 = expected.reduce(0.0) { $0 + $1 * $1 }
            // BF16 keeps 8 bits: 2^-9 at most for each number, and three of them are rounded.
            #expect((error / size2).squareRoot() < 0.008, "\(positions) \(queries) \(first): \((error / size2).squareRoot())")
            for t in 0 ..< queries { #expect(run(t ..< t + 1) == Array(got[t * headDim ..< (t + 1) * headDim])) }
        }
    }

    // A failure means that an answer changes with how attention behind a long prompt is shared out among threads, or that the parts are weighed wrongly.
    @Test(arguments: KernelSet.available, [AK_F32, AK_F16])
    func spansMakeTheWhole(set: KernelSet, type: ak_type) {
        let span = Int(AK_ATTENTION_SPAN)
        for (headDim, positions, queries) in [(64, 600, 3), (20, 257, 1), (128, 1030, 14)] {
            let attention = AttentionCase(set: set, headDim: headDim, positions: positions, type: type, seed: 5)
            var numbers = TestNumbers(seed: 7)
            // Scores so far apart that some spans hardly count.
            let q = numbers.floats(queries * headDim, scale: 4)
            let whole = attention.run(set, q: q, ldq: headDim, queries: queries, first: -1, scale: 0.3)
            let scratch = AlignedMemory(bytes: ak_attention_scratch(Int32(positions), Int32(headDim)))
            var merged: [Float] = [], logs: [Float] = []
            for begin in stride(from: 0, to: positions, by: span) {
                var part = [Float](repeating: 0, count: queries * headDim), partLogs = [Float](repeating: 0, count: queries)
                set.table.attention_span(
                    &part, headDim, &partLogs, q, headDim, attention.keyCache.pointer, attention.valueCache.pointer, type, Int32(headDim), Int32(begin),
                    Int32(min(positions, begin + span)), Int32(queries), 0.3,
                    begin + span < positions ? attention.keyCache.pointer : nil, scratch.pointer)
                if begin == 0 {
                    (merged, logs) = (part, partLogs)
                } else {
                    ak_attention_merge(&merged, headDim, &logs, part, headDim, partLogs, Int32(queries), Int32(headDim))
                }
            }
            #expect(merged == whole)
        }
    }

    // A failure means that a query which sees nothing of a span, or scores that are not numbers, spoil what the other spans say, or hide.
    @Test func mergingNothingAndNonsense() {
        var (out, logs): ([Float], [Float]) = ([1, 2, 3, 4], [0.5, 0.5])
        ak_attention_merge(&out, 2, &logs, [9, 9, 30, 40], 2, [-.infinity, 0.5], 2, 2)
        #expect(out == [1, 2, 16.5, 22] && logs[0] == 0.5 && abs(logs[1] - 0.5 - log(2)) < 1e-6)
        ak_attention_merge(&out, 2, &logs, [1, 1, 1, 1], 2, [.nan, -1000], 2, 2)
        #expect(out[0].isNaN && out[1].isNaN && out[2] == 16.5)
    }

    // A failure means that keys or values land at another token's place when a prompt is stored in pieces.
    @Test(arguments: KernelSet.available, [8, 20, 64])
    func storingInPiecesIsTheSame(set: KernelSet, headDim: Int) {
        for type in [AK_F32, AK_F16] {
            let size = type == AK_F32 ? 4 : 2, width = Int(ak_value_width(Int32(headDim)))
            let cases = [[60], [1, 2, 13, 16, 17, 11], [20, 40]].map {
                AttentionCase(set: set, headDim: headDim, positions: 60, type: type, seed: 2, pieces: $0)
            }
            func element(_ memory: AlignedMemory, _ index: Int) -> Double {
                type == AK_F32 ? Double(memory.pointer.load(fromByteOffset: index * size, as: Float.self))
                    : Double(ak_half_to_float(memory.pointer.load(fromByteOffset: index * size, as: UInt16.self)))
            }
            for attention in cases {
                for position in 0..<60 {
                    for d in 0..<headDim {
                        let key = element(attention.keyCache, position / 16 * headDim * 16 + d * 16 + position % 16)
                        #expect(key == attention.stored(attention.keys[position * attention.ld + d]))
                        let value = element(attention.valueCache, position * width + d)
                        #expect(value == attention.stored(attention.values[position * attention.ld + d]))
                    }
                    for d in headDim..<width { #expect(element(attention.valueCache, position * width + d) == 0) }
                }
            }
        }
    }
}
