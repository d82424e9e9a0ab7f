import AdaKernels
import Foundation
import Testing

/// A head's keys and values in pages, each somewhere else, with other heads' (NaN) around them; what nobody stored is NaN.
final class PagedMemory {
    let headDim: Int, type: ak_type
    let keyOffset = 64, valueOffset: Int
    private(set) var pages: [AlignedMemory?]
    private let addresses: UnsafeMutablePointer<UnsafeRawPointer?>

    static let span = Int(AK_ATTENTION_SPAN)

    init(positions: Int, headDim: Int, type: ak_type) {
        (self.headDim, self.type) = (headDim, type)
        let count = (positions + Self.span - 1) / Self.span
        valueOffset = keyOffset + ak_key_bytes(type, Int32(headDim)) + 128
        let bytes = valueOffset + ak_value_bytes(type, Int32(headDim)) + 64
        pages = (0 ..< count).map { _ in AlignedMemory(bytes: bytes) }.reversed()
        addresses = .allocate(capacity: max(count, 1))
        for (index, page) in pages.enumerated() { addresses[index] = page.map { UnsafeRawPointer($0.pointer) } }
    }

    deinit { addresses.deallocate() }

    func keys(_ page: Int) -> UnsafeMutableRawPointer { pages[page]!.pointer + keyOffset }
    func values(_ page: Int) -> UnsafeMutableRawPointer { pages[page]!.pointer + valueOffset }

    /// Gives pages away that lie wholly before `position`.
    func drop(before position: Int) {
        for index in 0 ..< min(position / Self.span, pages.count) { (pages[index], addresses[index]) = (nil, nil) }
    }

    var head: ak_paged_head {
        ak_paged_head(pages: addresses, keys: keyOffset, values: valueOffset, type: type, head_dim: Int32(headDim))
    }

    /// Calls `body` with each page and the range of its places that `positions` covers.
    static func forEachPage(_ positions: Range<Int>, _ body: (_ page: Int, _ places: Range<Int>) -> Void) {
        var position = positions.lowerBound
        while position < positions.upperBound {
            let page = position / span, end = min(positions.upperBound, (page + 1) * span)
            body(page, position % span ..< end - page * span)
            position = end
        }
    }
}

/// A head's pages filled through store_kv, and attention in float64 over the values that were stored.
struct AttentionCase {
    let headDim: Int, positions: Int, type: ak_type
    let keys: [Float], values: [Float]          // (positions, ld)
    let storedKeys: [Double], storedValues: [Double]   // the same, as the pages should hold them
    let ld: Int
    let memory: PagedMemory

    init(set: KernelSet, headDim: Int, positions: Int, type: ak_type, seed: UInt64, pieces: [Int]? = nil) {
        var numbers = TestNumbers(seed: seed)
        self.headDim = headDim
        self.positions = positions
        self.type = type
        ld = headDim + 3
        keys = numbers.floats(positions * ld, scale: 2)
        values = numbers.floats(positions * ld, scale: 2)
        let stored = [keys, values].map { rows in
            (0 ..< positions).flatMap { Self.stored(Array(rows[$0 * (headDim + 3) ..< ($0 + 1) * (headDim + 3)]), headDim, type) }
        }
        (storedKeys, storedValues) = (stored[0], stored[1])
        memory = PagedMemory(positions: positions, headDim: headDim, type: type)
        var first = 0
        for piece in pieces ?? [positions] {
            PagedMemory.forEachPage(first ..< first + piece) { page, places in
                let start = (page * PagedMemory.span + places.lowerBound) * ld
                keys.withUnsafeBufferPointer { k in
                    values.withUnsafeBufferPointer { v in
                        set.table.store_kv(
                            memory.keys(page), memory.values(page), type, k.baseAddress! + start, ld, v.baseAddress! + start, ld, Int32(headDim),
                            Int32(places.lowerBound), Int32(places.count))
                    }
                }
            }
            first += piece
        }
    }

    /// A row, whose first `count` values are stored, as it is read.
    static func stored(_ row: [Float], _ count: Int, _ type: ak_type) -> [Double] {
        switch type {
        case AK_F32: return row.map(Double.init)
        case AK_Q8_0:
            let scale = ak_half_to_float(ak_float_to_half((row.prefix(count).map(abs).max() ?? 0) / 127))
            return row.map { scale > 0 ? Double((($0 * (1 / scale)).rounded(.toNearestOrEven)) * scale) : 0 }
        default: return row.map { Double(ak_half_to_float(ak_float_to_half($0))) }
        }
    }

    /// A query as the kernels multiply it: with 8-bit keys, in 8 bits itself.
    private func rounded(_ query: ArraySlice<Float>) -> [Double] {
        let scale = (query.map(abs).max() ?? 0) / 127
        guard type == AK_Q8_0, scale > 0 else { return query.map(Double.init) }
        return query.map { Double(($0 * (1 / scale)).rounded(.toNearestOrEven)) * Double(scale) }
    }

    /// - Parameter memory: instead of the case's own.
    func run(
        _ set: KernelSet, q: [Float], ldq: Int, queries: Int, first: Int, window: Int = 0, scale: Float, memory: PagedMemory? = nil
    ) -> [Float] {
        let ldo = headDim + 5
        let scratch = AlignedMemory(bytes: ak_attention_scratch(Int32(positions), Int32(headDim)))
        var out = [Float](repeating: 77, count: queries * ldo), head = (memory ?? self.memory).head
        set.table.attention(&out, ldo, q, ldq, &head, Int32(positions), Int32(queries), Int32(first), Int32(window), scale, scratch.pointer)
        var rows: [Float] = []
        for t in 0..<queries {
            rows += out[t * ldo..<t * ldo + headDim]
            #expect(out[t * ldo + headDim..<(t + 1) * ldo].allSatisfy { $0 == 77 }, "wrote past a row")
        }
        return rows
    }

    /// The keys that query `t` sees.
    func seen(by t: Int, first: Int, window: Int) -> Range<Int> {
        let end = first < 0 ? positions : min(positions, first + t + 1)
        return (window > 0 ? max(0, end - window) : 0) ..< end
    }

    func reference(q: [Float], ldq: Int, queries: Int, first: Int, window: Int = 0, scale: Float) -> [Double] {
        var out: [Double] = []
        for t in 0..<queries {
            let seen = seen(by: t, first: first, window: window), query = rounded(q[t * ldq ..< t * ldq + headDim])
            let scores = seen.map { s in
                Double(scale) * (0..<headDim).reduce(0.0) { $0 + query[$1] * storedKeys[s * ld + $1] }
            }
            let largest = scores.max() ?? 0
            let weights = scores.map { exp($0 - largest) }
            let sum = weights.reduce(0, +)
            for d in 0..<headDim { out.append(seen.reduce(0.0) { $0 + weights[$1 - seen.lowerBound] * storedValues[$1 * ld + d] } / sum) }
        }
        return out
    }

    /// The same keys and values as pairs of BF16, converted `step` positions at a time.
    func pairs(_ convert: @convention(c) (
        UnsafeMutablePointer<UInt16>?, UnsafeMutablePointer<UInt16>?, UnsafeRawPointer?, UnsafeRawPointer?, ak_type, Int32, Int32, Int32
    ) -> Void, step: Int = 48) -> PagedMemory {
        let pairs = PagedMemory(positions: positions, headDim: headDim, type: AK_BF16)
        PagedMemory.forEachPage(0 ..< positions) { page, places in
            for start in stride(from: 0, to: places.upperBound, by: step) {
                convert(
                    pairs.keys(page).assumingMemoryBound(to: UInt16.self), pairs.values(page).assumingMemoryBound(to: UInt16.self),
                    memory.keys(page), memory.values(page), type, Int32(headDim), Int32(start), Int32(min(places.upperBound, start + step)))
            }
        }
        return pairs
    }
}

struct AttentionTests {
    // A failure means that tokens look at the wrong tokens, or weigh them wrongly.
    @Test("attention matches a computation in float64", arguments: KernelSet.available, [8, 20, 32, 64, 80, 128])
    func matchesFloat64(set: KernelSet, headDim: Int) {
        var numbers = TestNumbers(seed: UInt64(headDim))
        for type in [AK_F32, AK_F16, AK_Q8_0] {
            for (positions, queries, first) in [
                (1, 1, -1), (1, 1, 0), (5, 5, 0), (16, 16, 0), (17, 1, 16), (33, 3, 30), (40, 2, -1), (50, 6, 44), (70, 7, -1), (77, 20, 57),
                (100, 9, 91), (131, 4, 20), (256, 2, 254), (257, 1, -1), (300, 50, 240), (530, 14, 505), (600, 3, -1), (700, 13, 30),
            ] {
                let attention = AttentionCase(set: set, headDim: headDim, positions: positions, type: type, seed: UInt64(positions))
                let ldq = headDim + 7
                let q = numbers.floats(queries * ldq, scale: 2), scale = 1 / Float(headDim).squareRoot()
                let got = attention.run(set, q: q, ldq: ldq, queries: queries, first: first, scale: scale)
                let expected = attention.reference(q: q, ldq: ldq, queries: queries, first: first, scale: scale)
                // Weights of 8-bit values are rounded to 16 bits.
                let close = type == AK_Q8_0 ? (5e-4, 5e-4) : (2e-5, 5e-6)
                #expect(worstExcess(got, expected, relative: close.0, absolute: close.1) <= 0, "\(type) \(positions) \(queries) \(first)")
            }
        }
    }

    // A failure means that large scores overflow or that a single dominating key is not copied through.
    @Test("large scores stay finite", arguments: KernelSet.available)
    func largeScoresStayFinite(set: KernelSet) {
        let attention = AttentionCase(set: set, headDim: 32, positions: 37, type: AK_F32, seed: 3)
        var numbers = TestNumbers(seed: 4)
        let q = numbers.floats(32, scale: 300)
        let got = attention.run(set, q: q, ldq: 32, queries: 1, first: -1, scale: 1)
        #expect(worstExcess(got, attention.reference(q: q, ldq: 32, queries: 1, first: -1, scale: 1), relative: 1e-3, absolute: 1e-3) <= 0)
    }

    // A failure means that the same question is answered differently depending on how its prompt was cut into pieces.
    @Test("a query does not depend on its company", arguments: KernelSet.available, [AK_F16, AK_Q8_0])
    func aQueryDoesNotDependOnItsCompany(set: KernelSet, type: ak_type) {
        for headDim in [17, 32, 80, 128] {
            let attention = AttentionCase(set: set, headDim: headDim, positions: 90, type: type, seed: 8)
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
    @Test("pairs round and no more", arguments: KernelSet.available, [8, 20, 64, 80, 128, 256])
    func pairsRoundAndNoMore(set: KernelSet, headDim: Int) throws {
        guard ak_has_bf16_dot() != 0, let convert = set.table.attention_pairs else { return }
        for (positions, queries, first, type) in [
            (16, 16, 0, AK_F16), (17, 5, -1, AK_F32), (77, 20, 57, AK_F16), (131, 40, 20, AK_F16), (257, 30, 227, AK_F32), (601, 50, 551, AK_F16), (577, 25, -1, AK_F32), (77, 20, 57, AK_Q8_0),
            (601, 50, 551, AK_Q8_0),
        ] {
            let attention = AttentionCase(set: set, headDim: headDim, positions: positions, type: type, seed: UInt64(positions))
            var numbers = TestNumbers(seed: 12)
            let q = numbers.floats(queries * headDim, scale: 2), scale = 1 / Float(headDim).squareRoot()
            let memory = attention.pairs(convert)
            func run(_ range: Range<Int>) -> [Float] {
                attention.run(
                    set, q: Array(q[range.lowerBound * headDim ..< range.upperBound * headDim]), ldq: headDim, queries: range.count,
                    first: first < 0 ? -1 : first + range.lowerBound, scale: scale, memory: memory)
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

    // A failure means that a model with a sliding window sees tokens outside of it, misses some, or reads pages that were given away; or that an answer
    // depends on how its prompt was cut into pieces.
    @Test("sliding windows hide earlier positions", arguments: KernelSet.available, [20, 64, 80])
    func windowsHideWhatLiesBefore(set: KernelSet, headDim: Int) {
        var numbers = TestNumbers(seed: UInt64(headDim) + 1)
        for type in [AK_F32, AK_F16, AK_Q8_0, AK_BF16] {
            if type == AK_BF16, set.table.attention_pairs == nil || ak_has_bf16_dot() == 0 { continue }
            for window in [1, 15, 16, 100, 256, 300] {
                for (positions, queries, first) in [
                    (1, 1, 0), (40, 40, 0), (256, 9, 247), (257, 2, 255), (300, 70, 230), (300, 3, -1), (530, 40, 490), (700, 1, 699), (1100, 35, 1030), (1100, 2, -1),
                ] {
                    let attention = AttentionCase(
                        set: set, headDim: headDim, positions: positions, type: type == AK_BF16 ? AK_F16 : type, seed: UInt64(positions))
                    let q = numbers.floats(queries * headDim, scale: 2), scale = 1 / Float(headDim).squareRoot()
                    let expected = attention.reference(q: q, ldq: headDim, queries: queries, first: first, window: window, scale: scale)
                    let memory = type == AK_BF16 ? set.table.attention_pairs.map { attention.pairs($0) } ?? attention.memory : attention.memory
                    memory.drop(before: attention.seen(by: 0, first: first, window: window).lowerBound)
                    let got = attention.run(
                        set, q: q, ldq: headDim, queries: queries, first: first, window: window, scale: scale, memory: memory)
                    let close = type == AK_BF16 ? 0.03 : type == AK_Q8_0 ? 5e-4 : 2e-5
                    #expect(worstExcess(got, expected, relative: close, absolute: close) <= 0, "\(type) \(window) \(positions) \(queries) \(first)")
                    for t in [0, 1, queries / 2, queries - 1] where t < queries {
                        let row = Array(q[t * headDim ..< (t + 1) * headDim])
                        let alone = attention.run(
                            set, q: row, ldq: headDim, queries: 1, first: first < 0 ? -1 : first + t, window: window, scale: scale, memory: memory)
                        #expect(alone == Array(got[t * headDim ..< (t + 1) * headDim]), "\(type) \(window) \(positions) \(queries) \(first) \(t)")
                    }
                }
            }
        }
    }

    // A failure means that a window as long as the sequence changes the answer.
    @Test("a window that hides nothing changes nothing", arguments: KernelSet.available)
    func aWindowThatHidesNothingChangesNothing(set: KernelSet) {
        let attention = AttentionCase(set: set, headDim: 64, positions: 530, type: AK_F16, seed: 9)
        var numbers = TestNumbers(seed: 10)
        let q = numbers.floats(40 * 64, scale: 2)
        func run(_ window: Int) -> [Float] { attention.run(set, q: q, ldq: 64, queries: 40, first: 490, window: window, scale: 0.2) }
        #expect(run(530) == run(0) && run(Int(Int32.max)) == run(0))
    }

    // A failure means that an answer changes with how attention behind a long prompt is shared out among threads, or that the parts are weighed wrongly.
    @Test("spans make the whole", arguments: KernelSet.available, [AK_F32, AK_F16, AK_Q8_0, AK_BF16])
    func spansMakeTheWhole(set: KernelSet, type: ak_type) {
        if type == AK_BF16, set.table.attention_pairs == nil || ak_has_bf16_dot() == 0 { return }
        let span = Int(AK_ATTENTION_SPAN)
        for (headDim, positions, queries, window) in [
            (64, 600, 3, 0), (20, 257, 1, 0), (128, 1030, 14, 0), (64, 600, 3, 90), (64, 600, 40, 345), (20, 300, 1, 44), (64, 1030, 2, 16), (64, 512, 2, 255),
        ] {
            let attention = AttentionCase(set: set, headDim: headDim, positions: positions, type: type == AK_BF16 ? AK_F16 : type, seed: 5)
            let memory = type == AK_BF16 ? set.table.attention_pairs.map { attention.pairs($0) } ?? attention.memory : attention.memory
            var numbers = TestNumbers(seed: 7)
            // Scores so far apart that some spans hardly count.
            let q = numbers.floats(queries * headDim, scale: 4)
            let seen = attention.seen(by: 0, first: -1, window: window)
            memory.drop(before: seen.lowerBound)
            let whole = attention.run(set, q: q, ldq: headDim, queries: queries, first: -1, window: window, scale: 0.3, memory: memory)
            let scratch = AlignedMemory(bytes: ak_attention_scratch(Int32(positions), Int32(headDim)))
            // Merging begins before the window, with parts that have no keys.
            var merged = [Float](repeating: 0, count: queries * headDim), logs = [Float](repeating: -.infinity, count: queries)
            for page in 0 ..< (positions + span - 1) / span {
                var part = [Float](repeating: 77, count: queries * headDim), partLogs = [Float](repeating: 77, count: queries)
                let isLast = (page + 1) * span >= positions, isKept = memory.pages[page] != nil
                set.table.attention_span(
                    &part, headDim, &partLogs, q, headDim, isKept ? memory.keys(page) : nil, isKept ? memory.values(page) : nil, type, Int32(headDim),
                    Int32(max(0, seen.lowerBound - page * span)), Int32(min(span, positions - page * span)), Int32(queries), 0.3,
                    isLast || !isKept ? nil : memory.keys(page + 1), scratch.pointer)
                if !isKept { #expect(part.allSatisfy { $0 == 0 } && partLogs.allSatisfy { $0 == -.infinity }) }
                ak_attention_merge(&merged, headDim, &logs, part, headDim, partLogs, Int32(queries), Int32(headDim))
            }
            #expect(merged.map(\.bitPattern) == whole.map(\.bitPattern), "\(headDim) \(positions) \(queries) \(window)")
        }
    }

    // A failure means that a query which sees nothing of a span, or scores that are not numbers, spoil what the other spans say, or hide.
    @Test("merging nothing and nonsense") func mergingNothingAndNonsense() {
        var (out, logs): ([Float], [Float]) = ([1, 2, 3, 4], [0.5, 0.5])
        ak_attention_merge(&out, 2, &logs, [9, 9, 30, 40], 2, [-.infinity, 0.5], 2, 2)
        #expect(out == [1, 2, 16.5, 22] && logs[0] == 0.5 && abs(logs[1] - 0.5 - log(2)) < 1e-6)
        ak_attention_merge(&out, 2, &logs, [1, 1, 1, 1], 2, [.nan, -1000], 2, 2)
        #expect(out[0].isNaN && out[1].isNaN && out[2] == 16.5)
    }

    // A failure means that keys or values land at another token's place when a prompt is stored in pieces.
    @Test("storing in pieces is the same", arguments: KernelSet.available, [8, 20, 64])
    func storingInPiecesIsTheSame(set: KernelSet, headDim: Int) {
        for type in [AK_F32, AK_F16] {
            let size = type == AK_F32 ? 4 : 2, width = Int(ak_value_width(Int32(headDim)))
            let cases = [[60], [1, 2, 13, 16, 17, 11], [20, 40]].map {
                AttentionCase(set: set, headDim: headDim, positions: 60, type: type, seed: 2, pieces: $0)
            }
            func element(_ memory: UnsafeRawPointer, _ index: Int) -> Double {
                type == AK_F32 ? Double(memory.load(fromByteOffset: index * size, as: Float.self))
                    : Double(ak_half_to_float(memory.load(fromByteOffset: index * size, as: UInt16.self)))
            }
            for attention in cases {
                for position in 0..<60 {
                    for d in 0..<headDim {
                        let key = element(attention.memory.keys(0), position / 16 * headDim * 16 + d * 16 + position % 16)
                        #expect(key == attention.storedKeys[position * attention.ld + d])
                        let value = element(attention.memory.values(0), position * width + d)
                        #expect(value == attention.storedValues[position * attention.ld + d])
                    }
                    for d in headDim..<width { #expect(element(attention.memory.values(0), position * width + d) == 0) }
                }
            }
        }
    }
}
