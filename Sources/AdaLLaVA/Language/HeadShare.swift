import AdaKernels

/// Where one head's part of attention lies, or that of neighbouring heads with the same keys: addresses only, so that threads that share
/// it out do not count references to what owns it.
struct HeadShare {
    let query: UnsafeMutablePointer<Float>
    let attended: UnsafeMutablePointer<Float>
    /// The first of the columns that the (first) head's results take in a row.
    let column: Int
    /// From one position to the next; with several heads, from one of them to the next.
    let queryStride, attendedStride: Int
    var keys, values: UnsafeMutableRawPointer
    let heads: Int
}

extension HeadShare {
    /// One share a head; of a single position, one for all heads that read the same keys, which then come from memory once: from the first that is kept to
    /// the last, for what a dropped one between them gives is not used. A head whose keys the cache does not hold has none.
    static func shares(of heads: [Int], query: Tensor, attended: Tensor, cache: LayerCache, _ c: LlamaConfiguration) -> [HeadShare] {
        let perKeyValueHead = c.numAttentionHeads / c.numKeyValueHeads
        var shares: [HeadShare] = []
        shares.reserveCapacity(heads.count)
        var start = 0
        while start < heads.count {
            let head = heads[start]
            var end = start + 1
            if query.rows == 1 {
                while end < heads.count, heads[end] / perKeyValueHead == head / perKeyValueHead { end += 1 }
            }
            let together = heads[end - 1] - head + 1
            if let index = cache.heads.firstIndex(of: head / perKeyValueHead) {
                let isGroup = together > 1
                shares.append(
                    HeadShare(
                        query: query.data + head * c.headDim, attended: attended.data + head * c.headDim, column: head * c.headDim,
                        queryStride: isGroup ? c.headDim : query.stride, attendedStride: isGroup ? c.headDim : attended.stride,
                        keys: cache.keys(index), values: cache.values(index), heads: together))
            }
            start = end
        }
        return shares
    }
}

/// Room for what threads compute of one position's attention, span by span, before it is merged. Kept, and grown to the largest use.
final class SpanResults {
    private var memory = AlignedMemory(byteCount: 0)

    /// Room for `count` rows of `width` values, and a logarithm for each.
    func reserve(_ count: Int, width: Int) -> (rows: UnsafeMutablePointer<Float>, logs: UnsafeMutablePointer<Float>) {
        let bytes = count * (width + 1) * MemoryLayout<Float>.stride
        if memory.byteCount < bytes { memory = AlignedMemory(byteCount: bytes) }
        let rows = memory.address.assumingMemoryBound(to: Float.self)
        return (rows, rows + count * width)
    }
}

/// Room for keys and values as pairs of BF16, of one layer at a time. Kept, and grown to the largest use.
final class KeyValuePairs {
    private var memory = AlignedMemory(byteCount: 0)

    func reserve(_ bytes: Int) -> UnsafeMutablePointer<UInt16> {
        if memory.byteCount < bytes { memory = AlignedMemory(byteCount: bytes) }
        return memory.address.assumingMemoryBound(to: UInt16.self)
    }
}

/// `ak_kernels.attention_pairs`.
private typealias PairConversion = @convention(c) (
    UnsafeMutablePointer<UInt16>?, UnsafeMutablePointer<UInt16>?, UnsafeRawPointer?, UnsafeRawPointer?, ak_type, Int32, Int32, Int32
) -> Void

extension Backend {
    /// Attention of all shares as the activations that the output projection reads: several positions' are converted while they are in their worker's
    /// cache.
    /// - Parameters:
    ///   - attended: room for `[queries, heads * headDim]` results; of several positions whether it is written is not defined.
    ///   - output: what reads them, of blocks in which kept heads lie.
    ///   - dropped: columns of those blocks that belong to no share, and are zero.
    /// - Returns: activations that are valid until the next use of `buffer` or `attended`.
    func attend(
        _ shares: [HeadShare], _ attended: Tensor, for output: Linear, dropped: [Range<Int>] = [], _ type: ak_type, headDim: Int, keys: Int,
        queries: Int, isCausal: Bool = true, rounds: Bool = false, scale: Float, _ results: SpanResults, _ buffer: ActivationBuffer
    ) -> ak_activations {
        let outputType = output.weight.activationType(self, rows: queries)
        // Where heads are whole blocks, what belongs to no share is in no block that is read.
        let made = queries > 1 && headDim % max(outputType.columnsTogether, Int(AK_BLOCK)) == 0 && outputType != AK_F32
            ? buffer.reserve(outputType, rows: queries, stride: attended.stride) : nil
        attend(
            shares, type, headDim: headDim, keys: keys, queries: queries, isCausal: isCausal, rounds: rounds, scale: scale, results, made: made)
        if let made { return made.activations }
        attended.clear(columns: dropped)
        return buffer.convert(attended, to: outputType, self)
    }

    /// Attention of all shares, shared out among the threads: tiles of queries, or, of a single position behind many keys, spans of keys
    /// (as in flash-decoding: Dao et al., 2023). Results do not depend on which.
    /// - Parameters:
    ///   - type: of keys and values.
    ///   - keys: positions whose keys there are, the queries' own included.
    ///   - queries: the last positions, as many; 1 where a share holds several heads.
    ///   - isCausal: whether a query sees only the keys up to its own.
    ///   - rounds: whether many queries may be multiplied in BF16: what made them was rounded as much.
    ///   - made: where results go instead of their float32 room.
    func attend(
        _ shares: [HeadShare], _ type: ak_type, headDim: Int, keys: Int, queries: Int, isCausal: Bool = true, rounds: Bool = false, scale: Float,
        _ results: SpanResults, made: ActivationWriter? = nil
    ) {
        var (shares, type) = (shares, type)
        if rounds, roundsAttention(queries: queries, headDim: headDim), let convert = kernels.attention_pairs {
            shares = pairs(of: shares, type, headDim: headDim, keys: keys, convert)
            type = AK_BF16
        }
        shares.withUnsafeBufferPointer {
            attend($0, type, headDim: headDim, keys: keys, queries: queries, isCausal: isCausal, scale: scale, results, made: made)
        }
    }

    /// The same where nothing is to be rounded first.
    func attend(
        _ shares: UnsafeBufferPointer<HeadShare>, _ type: ak_type, headDim: Int, keys: Int, queries: Int, isCausal: Bool = true, scale: Float,
        _ results: SpanResults, made: ActivationWriter? = nil
    ) {
        let (kernels, scratch, first) = (kernels, scratchAddresses, keys - queries)
        reserveScratch(ak_attention_scratch(Int32(keys), Int32(headDim)))
        if queries == 1, keys > Int(AK_ATTENTION_SPAN) { return attendInSpans(shares, type, headDim: headDim, keys: keys, scale: scale, results) }
        // Twice what the kernels take at once.
        let tile = type == AK_BF16 && hasBF16Tiles ? 64 : 24
        let tiles = (queries + tile - 1) / tile
        let parts = pieceMemory(made == nil ? 0 : tile * headDim)
        pool.run(shares.count * tiles) { item, worker in
            let share = shares[item / tiles]
            // Last tiles first: they see the most keys, and the longest pieces should not come last.
            let start = (tiles - 1 - item % tiles) * tile
            let count = share.heads > 1 ? share.heads : min(tile, queries - start)
            let out = made == nil
                ? (share.attended + start * share.attendedStride, share.attendedStride) : (parts.address + worker * parts.count, headDim)
            // Several heads' queries of the newest position see all there is.
            kernels.attention(
                out.0, out.1, share.query + start * share.queryStride,
                share.queryStride, share.keys, share.values, type, Int32(headDim), Int32(isCausal ? first + min(start + tile, queries) : keys),
                Int32(count), share.heads > 1 || !isCausal ? -1 : Int32(first + start), scale, scratch[worker])
            made?.write(kernels, rows: start ..< start + count, columns: share.column ..< share.column + headDim, from: out.0, stride: headDim)
        }
    }

    /// Whether attention of so many queries can be multiplied in BF16, and gains by it.
    func roundsAttention(queries: Int, headDim: Int) -> Bool {
        hasBF16Dot && queries >= 16 && headDim % 2 == 0 && headDim <= Int(AK_PAIR_HEAD_DIM)
    }

    /// The same shares, of keys and values as pairs of BF16: each head's once, whoever reads them.
    private func pairs(
        of shares: [HeadShare], _ type: ak_type, headDim: Int, keys: Int, _ convert: PairConversion
    ) -> [HeadShare] {
        var heads: [UnsafeMutableRawPointer: Int] = [:]
        var sources: [HeadShare] = []
        for share in shares where heads[share.keys] == nil {
            heads[share.keys] = sources.count
            sources.append(share)
        }
        let (panels, panel) = ((keys + Int(AK_PANEL) - 1) / Int(AK_PANEL), Int(AK_PANEL))
        let (keyValues, valueValues) = (panels * panel * headDim, panels * panel * Int(ak_value_width(Int32(headDim))))
        let out = keyValuePairs.reserve(sources.count * (keyValues + valueValues) * MemoryLayout<UInt16>.stride)
        func place(_ head: Int) -> (keys: UnsafeMutablePointer<UInt16>, values: UnsafeMutablePointer<UInt16>) {
            let start = out + head * (keyValues + valueValues)
            return (start, start + keyValues)
        }
        let piece = 16
        let pieces = (panels + piece - 1) / piece
        sources.withUnsafeBufferPointer { sources in
            pool.run(sources.count * pieces) { item, _ in
                let (source, target) = (sources[item / pieces], place(item / pieces))
                let first = item % pieces * piece * panel
                convert(
                    target.keys, target.values, source.keys, source.values, type, Int32(headDim), Int32(first),
                    Int32(min(keys, first + piece * panel)))
            }
        }
        return shares.map { share in
            guard let head = heads[share.keys] else { return share }
            var share = share
            (share.keys, share.values) = (UnsafeMutableRawPointer(place(head).keys), UnsafeMutableRawPointer(place(head).values))
            return share
        }
    }

    private func attendInSpans(
        _ shares: UnsafeBufferPointer<HeadShare>, _ type: ak_type, headDim: Int, keys: Int, scale: Float, _ results: SpanResults
    ) {
        guard let first = shares.baseAddress else { return }
        let span = Int(AK_ATTENTION_SPAN), spans = (keys + span - 1) / span
        let heads = shares.reduce(1) { max($0, $1.heads) }
        let (rows, logs) = results.reserve(shares.count * spans * heads, width: headDim)
        var call = SpanCall(
            shares: first, count: shares.count, spans: spans, heads: heads, keys: keys, headDim: headDim, type: type, scale: scale, rows: rows,
            logs: logs, scratch: scratchAddresses, attend: kernels.attention_span)
        pool.run(shares.count * spans, &call) { context, item, worker in
            guard let call = context?.assumingMemoryBound(to: SpanCall.self) else { return }
            call.pointee.run(item: Int(item), worker: Int(worker))
        }
        for (index, share) in shares.enumerated() {
            for number in 1 ..< spans {
                let place = (index * spans + number) * heads
                ak_attention_merge(
                    share.attended, share.attendedStride, logs + index * spans * heads, rows + place * headDim, headDim, logs + place,
                    Int32(share.heads), Int32(headDim))
            }
        }
    }
}

/// Attention in spans as plain numbers and addresses.
private struct SpanCall: BitwiseCopyable {
    let shares: UnsafePointer<HeadShare>
    let count, spans, heads, keys, headDim: Int
    let type: ak_type
    let scale: Float
    let rows, logs: UnsafeMutablePointer<Float>
    let scratch: UnsafeMutablePointer<UnsafeMutableRawPointer>
    let attend: @convention(c) (
        UnsafeMutablePointer<Float>?, Int, UnsafeMutablePointer<Float>?, UnsafePointer<Float>?, Int, UnsafeRawPointer?, UnsafeRawPointer?, ak_type,
        Int32, Int32, Int32, Int32, Float, UnsafeRawPointer?, UnsafeMutableRawPointer?
    ) -> Void

    func run(item: Int, worker: Int) {
        let (index, number, span) = (item / spans, item % spans, Int(AK_ATTENTION_SPAN))
        let (share, place) = (shares[index], (index * spans + number) * heads)
        // The first span's results lie where those of all will.
        let out = number == 0 ? share.attended : rows + place * headDim
        // Threads usually take one item after the other.
        let later = item + 1, spanBytes = span * headDim * Int(ak_type_bytes(type))
        let next = later < count * spans ? UnsafeRawPointer(shares[later / spans].keys + later % spans * spanBytes) : nil
        attend(
            out, number == 0 ? share.attendedStride : headDim, logs + place, share.query, share.queryStride, share.keys, share.values, type,
            Int32(headDim), Int32(number * span), Int32(min(keys, (number + 1) * span)), Int32(share.heads), scale, next, scratch[worker])
    }
}
