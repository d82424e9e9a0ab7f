import AdaKernels

/// One sequence's rows in the attention of one layer.
package struct AttentionRows {
    let role: RowRole
    /// The first row of the batch whose output is computed, and the number of rows.
    let row: Int, queries: Int
    /// The first of these rows' slot.
    let slot: Int
    /// Slots that hold keys: through the last row's own.
    let keys: Int
    let pages: LayerPages
    /// Query heads that run, ascending.
    let heads: [Int]
    /// Columns of the output projection's touched blocks that belong to no head that runs, and are zero.
    let dropped: [Range<Int>]

    package init(
        role: RowRole, row: Int, queries: Int, slot: Int, keys: Int, pages: LayerPages, heads: [Int], dropped: [Range<Int>] = []
    ) {
        (self.role, self.row, self.queries, self.slot) = (role, row, queries, slot)
        (self.keys, self.pages, self.heads, self.dropped) = (keys, pages, heads, dropped)
    }
}

/// Parameters that all sequences of one attention share.
package struct AttentionShape {
    let headDim: Int
    /// Query heads that read one key-value head.
    let queriesPerKey: Int
    /// Positions that a query sees, its own included; 0: all before it.
    var window = 0
    /// Whether a query sees only the keys up to its own.
    var isCausal = true
    /// Whether chunks are multiplied in BF16; see ``KernelSet/roundsAttention(_:headDim:)``.
    package var rounds = false
    /// Factor of the products of queries and keys.
    let scale: Float

    /// - Parameter scale: `nil`: 1 / √headDim.
    package init(headDim: Int, queriesPerKey: Int, window: Int = 0, isCausal: Bool = true, rounds: Bool = false, scale: Float? = nil) {
        (self.headDim, self.queriesPerKey, self.window) = (headDim, queriesPerKey, window)
        (self.isCausal, self.rounds, self.scale) = (isCausal, rounds, scale ?? 1 / Float(headDim).squareRoot())
    }
}

/// Scratch memory of attention. Kept, and grown to the largest use.
final class AttentionScratch {
    private var spans = AlignedMemory(byteCount: 0), pairs = AlignedMemory(byteCount: 0)
    /// The batch of the attention that runs, empty between two.
    var rows: [AttentionRows] = []
    fileprivate var items: [AttentionItem] = []
    fileprivate var merges: [SpanMerge] = []
    fileprivate var pairAddresses: [UnsafeRawPointer?] = []

    /// Memory for `count` rows of `width` values, and a logarithm for each.
    fileprivate func spanResults(_ count: Int, width: Int) -> (rows: UnsafeMutablePointer<Float>, logs: UnsafeMutablePointer<Float>) {
        let bytes = count * (width + 1) * MemoryLayout<Float>.stride
        if spans.byteCount < bytes { spans = AlignedMemory(byteCount: bytes) }
        let rows = spans.address.assumingMemoryBound(to: Float.self)
        return (rows, rows + count * width)
    }

    /// Memory for keys and values as pairs of BF16.
    fileprivate func pairMemory(_ bytes: Int) -> UnsafeMutableRawPointer {
        if pairs.byteCount < bytes { pairs = AlignedMemory(byteCount: bytes) }
        return pairs.address
    }
}

/// A work item of attention as plain numbers and addresses: a tile of a chunk's queries of one head, or a page of the keys of single rows' heads
/// that share them.
private struct AttentionItem: BitwiseCopyable {
    var out: UnsafeMutablePointer<Float>
    var outStride: Int
    var query: UnsafeMutablePointer<Float>
    var queryStride: Int
    /// Queries of a tile, or heads that share keys.
    var queries: Int32
    // Of a tile.
    var head = ak_paged_head()
    var positions: Int32 = 0, first: Int32 = 0
    /// Where a tile becomes activations: first row and column; −1: it stays where it is.
    var row = -1, column = 0
    // Of a page of keys.
    var keys: UnsafeRawPointer?, values: UnsafeRawPointer?
    var skip: Int32 = 0, count: Int32 = 0
    var logs: UnsafeMutablePointer<Float>?
}

/// The results of one more page of keys, to be merged into those before it.
private struct SpanMerge: BitwiseCopyable {
    let out: UnsafeMutablePointer<Float>
    let outStride: Int
    let logs, part, partLogs: UnsafeMutablePointer<Float>
    let heads: Int32
}

private struct AttentionCall: BitwiseCopyable {
    let items: UnsafePointer<AttentionItem>
    let count: Int
    let kernels: UnsafePointer<ak_kernels>
    let scratch: UnsafeMutablePointer<UnsafeMutableRawPointer>
    let type: ak_type
    let headDim, window: Int32
    let scale: Float
    let tileMemory: UnsafeMutablePointer<Float>
    let tileCount: Int
    let made: ActivationWriter?

    func run(_ index: Int, worker: Int) {
        let item = items[index], scratch = scratch[worker]
        if let logs = item.logs {
            // Threads usually take one item after the other.
            let next = index + 1 < count ? items[index + 1].keys : nil
            return kernels.pointee.attention_span(
                item.out, item.outStride, logs, item.query, item.queryStride, item.keys, item.values, type, headDim, item.skip, item.count, item.queries,
                scale, next, scratch)
        }
        let isConverted = item.row >= 0
        let (out, stride) = isConverted ? (tileMemory + worker * tileCount, Int(headDim)) : (item.out, item.outStride)
        withUnsafePointer(to: item.head) {
            kernels.pointee.attention(
                out, stride, item.query, item.queryStride, $0, item.positions, item.queries, item.first, window, scale, scratch)
        }
        if isConverted {
            made?.write(
                kernels, rows: item.row ..< item.row + Int(item.queries), columns: item.column ..< item.column + Int(headDim), from: out, stride: stride)
        }
    }
}

extension Workspace {
    /// Attention of all rows as the activations that the output projection reads, shared out among the threads: tiles of a chunk's queries, pages of
    /// the keys of single rows (as in flash-decoding: Dao et al., 2023). Results depend on neither.
    /// - Parameters:
    ///   - query: `[rows of the batch, heads * headDim]`, rotated.
    ///   - attended: memory for as many results; whether a chunk's are written is not defined.
    ///   - conversion: of the rows of `attended` that go on.
    /// - Returns: activations that are valid until the next use of ``middle`` or `attended`.
    func attend(
        _ batch: [AttentionRows], query: Tensor, attended: Tensor, for conversion: RowConversion, _ shape: AttentionShape
    ) -> RowActivations {
        let (rows, chunkType) = (conversion.rows, conversion.chunkType)
        // If heads are whole blocks, columns outside heads are in no block that is read.
        let converts = !rows.chunk.isEmpty && shape.headDim % max(chunkType.columnsTogether, Int(AK_BLOCK)) == 0 && chunkType != AK_F32
        let made = converts ? middle.chunk.reserve(chunkType, rows: rows.chunk.upperBound, stride: attended.stride) : nil
        attend(batch, query: query, attended: attended, shape, made: made)
        for index in batch.indices where !batch[index].dropped.isEmpty && !(converts && batch[index].role == .chunk) {
            let part = batch[index]
            attended.rows(part.row ..< part.row + part.queries).clear(columns: part.dropped)
        }
        guard let made else { return conversion(middle, self) }
        var activations = RowActivations(made.activations, role: .chunk)
        if !rows.single.isEmpty { activations.single = conversion.single(middle, self) }
        activations.split = rows.split
        return activations
    }

    /// The same, left in `attended` but for chunks' results where `made` takes them.
    package func attend(_ batch: [AttentionRows], query: Tensor, attended: Tensor, _ shape: AttentionShape, made: ActivationWriter? = nil) {
        var (longest, chunks, singles) = (0, false, false)
        for index in batch.indices {
            longest = max(longest, batch[index].keys)
            if batch[index].role == .chunk { chunks = true } else { singles = true }
        }
        reserveScratch(ak_attention_scratch(Int32(longest), Int32(shape.headDim)))
        let scratch = attention
        if chunks { attendChunks(batch, query: query, attended: attended, shape, made: made) }
        guard singles else { return }
        scratch.items.removeAll(keepingCapacity: true)
        scratch.merges.removeAll(keepingCapacity: true)
        collectSpans(batch, query: query, attended: attended, shape)
        let type = batch.first?.pages.layout.type ?? AK_F16
        run(scratch.items, type: type, shape, tile: 0, made: nil)
        for merge in scratch.merges {
            ak_attention_merge(
                merge.out, merge.outStride, merge.logs, merge.part, shape.headDim, merge.partLogs, merge.heads, Int32(shape.headDim))
        }
    }

    private func run(_ items: [AttentionItem], type: ak_type, _ shape: AttentionShape, tile: Int, made: ActivationWriter?) {
        let memory = pieceMemory(made == nil ? 0 : tile * shape.headDim)
        items.withUnsafeBufferPointer { items in
            guard let first = items.baseAddress else { return }
            var call = AttentionCall(
                items: first, count: items.count, kernels: kernels.functions, scratch: scratchAddresses, type: type, headDim: Int32(shape.headDim),
                window: Int32(shape.window), scale: shape.scale, tileMemory: memory.address, tileCount: memory.count, made: made)
            pool.run(items.count, &call) { context, item, worker in
                context?.assumingMemoryBound(to: AttentionCall.self).pointee.run(Int(item), worker: Int(worker))
            }
        }
    }

    // MARK: - Chunks

    private func attendChunks(
        _ batch: [AttentionRows], query: Tensor, attended: Tensor, _ shape: AttentionShape, made: ActivationWriter?
    ) {
        let tile = Int(kernels.tuning.query_tile)
        var items: [AttentionItem] = []
        for part in batch where part.role == .chunk && part.queries > 0 {
            let heads = shape.rounds ? pairs(of: part, shape) : [:]
            let tiles = (part.queries + tile - 1) / tile
            for head in part.heads {
                let keyHead = head / shape.queriesPerKey
                guard let place = heads[keyHead] ?? part.pages.head(keyHead) else {
                    assertionFailure("attention reads key-value head \(keyHead), which is not cached")
                    continue
                }
                // Last tiles first: they see the most keys, and the longest items should not come last.
                for start in (0 ..< tiles).reversed().map({ $0 * tile }) {
                    let (row, count) = (part.row + start, min(tile, part.queries - start))
                    items.append(
                        AttentionItem(
                            out: attended.data + row * attended.stride + head * shape.headDim, outStride: attended.stride,
                            query: query.data + row * query.stride + head * shape.headDim, queryStride: query.stride, queries: Int32(count),
                            head: place, positions: Int32(shape.isCausal ? part.slot + start + count : part.keys),
                            first: shape.isCausal ? Int32(part.slot + start) : -1, row: made == nil ? -1 : row, column: head * shape.headDim))
                }
            }
            // Pairs of the next sequence take the same memory.
            if shape.rounds {
                run(items, type: AK_BF16, shape, tile: tile, made: made)
                items.removeAll(keepingCapacity: true)
            }
        }
        run(items, type: AK_F16, shape, tile: tile, made: made)
    }

    /// Keys and values of a chunk's heads as pairs of BF16, by key-value head.
    private func pairs(of part: AttentionRows, _ shape: AttentionShape) -> [Int: ak_paged_head] {
        guard let convert = kernels.table.attention_pairs else { return [:] }
        let (slots, headDim, keys) = (KeyValueLayout.slots, shape.headDim, part.keys)
        let heads = Array(Set(part.heads.map { $0 / shape.queriesPerKey })).sorted()
        let firstPage = shape.window > 0 ? max(0, part.slot + 1 - shape.window) / slots : 0, pages = (keys + slots - 1) / slots
        let (keyBytes, valueBytes) = (slots * headDim * 2, slots * Int(ak_value_width(Int32(headDim))) * 2)
        let pageBytes = heads.count * (keyBytes + valueBytes)
        let memory = attention.pairMemory((pages - firstPage) * pageBytes)
        attention.pairAddresses = (0 ..< pages).map { $0 < firstPage ? nil : UnsafeRawPointer(memory + ($0 - firstPage) * pageBytes) }
        let sources = heads.map { part.pages.head($0) }
        let type = part.pages.layout.type
        let address = SendablePointer(memory)
        pool.run(heads.count * (pages - firstPage)) { item, _ in
            let (index, page) = (item % heads.count, firstPage + item / heads.count)
            guard let source = sources[index], let from = source.pages[page] else { return }
            let target = address.pointer + (page - firstPage) * pageBytes
            convert(
                (target + index * keyBytes).assumingMemoryBound(to: UInt16.self),
                (target + heads.count * keyBytes + index * valueBytes).assumingMemoryBound(to: UInt16.self), from + source.keys,
                from + source.values, type, Int32(headDim), 0, Int32(min(slots, keys - page * slots)))
        }
        let addresses = attention.pairAddresses.withUnsafeBufferPointer { $0.baseAddress }
        return Dictionary(
            uniqueKeysWithValues: heads.enumerated().map { index, head in
                (head, ak_paged_head(
                    pages: addresses, keys: index * keyBytes, values: heads.count * keyBytes + index * valueBytes, type: AK_BF16,
                    head_dim: Int32(headDim)))
            })
    }

    // MARK: - Single rows

    /// Work items of single rows: of each, the heads that share keys together, which then come from memory once: from the first that runs to the last, for
    /// the result of a dropped one between them is not used.
    private func collectSpans(_ batch: [AttentionRows], query: Tensor, attended: Tensor, _ shape: AttentionShape) {
        let (slots, headDim) = (KeyValueLayout.slots, shape.headDim)
        var results = 0
        for part in batch where part.role == .single {
            let first = shape.window > 0 ? max(0, part.keys - shape.window) / slots : 0
            results += part.heads.count * shape.queriesPerKey * ((part.keys + slots - 1) / slots - first)
        }
        let (memory, logs) = attention.spanResults(results, width: headDim)
        var used = 0
        // Moved out and back: appending to a property checks for exclusive access each time.
        var items: [AttentionItem] = [], merges: [SpanMerge] = []
        swap(&items, &attention.items)
        swap(&merges, &attention.merges)
        defer {
            swap(&items, &attention.items)
            swap(&merges, &attention.merges)
        }
        for part in batch where part.role == .single {
            let lowest = shape.window > 0 ? max(0, part.keys - shape.window) : 0
            var start = 0
            while start < part.heads.count {
                let head = part.heads[start], keyHead = head / shape.queriesPerKey
                var end = start + 1
                while end < part.heads.count, part.heads[end] / shape.queriesPerKey == keyHead { end += 1 }
                let together = part.heads[end - 1] - head + 1
                start = end
                guard let place = part.pages.head(keyHead) else {
                    assertionFailure("attention reads key-value head \(keyHead), which is not cached")
                    continue
                }
                let out = attended.data + part.row * attended.stride + head * headDim
                let firstLogs = logs + used
                for page in lowest / slots ..< (part.keys + slots - 1) / slots {
                    guard let address = place.pages[page] else { continue }
                    // The first page's results are written where those of all belong.
                    let isFirst = page == lowest / slots
                    let span = (rows: memory + used * headDim, logs: logs + used)
                    items.append(
                        AttentionItem(
                            out: isFirst ? out : span.rows, outStride: headDim, query: query.data + part.row * query.stride + head * headDim,
                            queryStride: headDim, queries: Int32(together), keys: address + place.keys, values: address + place.values,
                            skip: Int32(max(lowest - page * slots, 0)), count: Int32(min(part.keys - page * slots, slots)), logs: span.logs))
                    if !isFirst {
                        merges.append(
                            SpanMerge(
                                out: out, outStride: headDim, logs: firstLogs, part: span.rows, partLogs: span.logs, heads: Int32(together)))
                    }
                    used += together
                }
            }
        }
    }
}
