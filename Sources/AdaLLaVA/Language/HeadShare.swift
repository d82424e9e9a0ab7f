import AdaKernels

/// Where one head's part of attention lies, or that of neighbouring heads with the same keys: addresses only, so that threads that share
/// it out do not count references to what owns it.
struct HeadShare {
    let query: UnsafeMutablePointer<Float>
    let attended: UnsafeMutablePointer<Float>
    /// From one position to the next; with several heads, from one of them to the next.
    let queryStride, attendedStride: Int
    let keys, values: UnsafeMutableRawPointer
    let heads: Int
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

extension Backend {
    /// Attention of all shares, shared out among the threads: tiles of queries, or, of a single position behind many keys, spans of keys
    /// (as in flash-decoding: Dao et al., 2023). Results do not depend on which.
    /// - Parameters:
    ///   - type: of keys and values.
    ///   - keys: positions whose keys there are, the queries' own included.
    ///   - queries: the last positions, as many; 1 where a share holds several heads.
    ///   - isCausal: whether a query sees only the keys up to its own.
    func attend(
        _ shares: [HeadShare], _ type: ak_type, headDim: Int, keys: Int, queries: Int, isCausal: Bool = true, scale: Float,
        _ results: SpanResults
    ) {
        let (kernels, scratch, first, span) = (kernels, scratchAddresses, keys - queries, Int(AK_ATTENTION_SPAN))
        reserveScratch(ak_attention_scratch(Int32(keys), Int32(headDim)))
        if queries == 1, keys > span { return attendInSpans(shares, type, headDim: headDim, keys: keys, scale: scale, results) }
        // Twice what the kernels take at once.
        let tile = 24
        let tiles = (queries + tile - 1) / tile
        shares.withUnsafeBufferPointer { shares in
            pool.run(shares.count * tiles) { item, worker in
                let share = shares[item / tiles]
                // Last tiles first: they see the most keys, and the longest pieces should not come last.
                let start = (tiles - 1 - item % tiles) * tile
                let count = share.heads > 1 ? share.heads : min(tile, queries - start)
                // Several heads' queries of the newest position see all there is.
                kernels.attention(
                    share.attended + start * share.attendedStride, share.attendedStride, share.query + start * share.queryStride,
                    share.queryStride, share.keys, share.values, type, Int32(headDim), Int32(isCausal ? first + min(start + tile, queries) : keys),
                    Int32(count), share.heads > 1 || !isCausal ? -1 : Int32(first + start), scale, scratch[worker])
            }
        }
    }

    private func attendInSpans(_ shares: [HeadShare], _ type: ak_type, headDim: Int, keys: Int, scale: Float, _ results: SpanResults) {
        let (kernels, scratch, span) = (kernels, scratchAddresses, Int(AK_ATTENTION_SPAN))
        let spans = (keys + span - 1) / span
        let heads = shares.reduce(1) { max($0, $1.heads) }
        let (rows, logs) = results.reserve(shares.count * spans * heads, width: headDim)
        shares.withUnsafeBufferPointer { shares in
            let count = shares.count
            pool.run(count * spans) { item, worker in
                // The last spans, which may be shorter, come last.
                let (index, number) = (item % count, item / count)
                let (share, place) = (shares[index], (index * spans + number) * heads)
                // The first span's results lie where those of all will.
                let out = number == 0 ? share.attended : rows + place * headDim
                kernels.attention_span(
                    out, number == 0 ? share.attendedStride : headDim, logs + place, share.query, share.queryStride, share.keys, share.values, type,
                    Int32(headDim), Int32(number * span), Int32(min(keys, (number + 1) * span)), Int32(share.heads), scale, scratch[worker])
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
}
