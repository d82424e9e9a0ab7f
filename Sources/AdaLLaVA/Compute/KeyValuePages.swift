import AdaKernels
import Synchronization

/// How keys and values of one head are stored in a page of ``slots`` positions: keys in panels of 16 positions, values row by row, each followed by their
/// scales if the type has any, as `ak_kernels.attention` reads them. All that others know of a layout are its byte counts.
package struct KeyValueLayout: Sendable, Equatable {
    let headDim: Int
    /// `AK_F32`, `AK_F16` or `AK_Q8_0`.
    let type: ak_type

    package init(headDim: Int, type: ak_type) { (self.headDim, self.type) = (headDim, type) }

    /// Positions of a page: the span that attention is cut in.
    package static let slots = Int(AK_ATTENTION_SPAN)

    /// Bytes of one key or value.
    var elementBytes: Int { type == AK_Q8_0 ? 1 : Int(ak_type_bytes(type)) }
    /// Bytes of the scales of one head's keys, or values, in a page, which lie after them.
    private var scaleBytes: Int { type == AK_Q8_0 ? KeyValueLayout.slots * MemoryLayout<UInt16>.stride : 0 }
    /// Bytes of one head's keys in a page, their scales included.
    var keyBytes: Int { ak_key_bytes(type, Int32(headDim)) }
    /// Bytes of one head's values in a page, their scales included.
    var valueBytes: Int { ak_value_bytes(type, Int32(headDim)) }
    /// Bytes of a page of `heads` heads: all keys, then all values.
    func pageBytes(heads: Int) -> Int { heads * (keyBytes + valueBytes) }

    /// Makes the 16 positions of a panel zero: kernels read whole panels, whose values must be finite.
    func clear(panel: Int, of page: UnsafeMutableRawPointer, heads: Int) {
        let panels = KeyValueLayout.slots / Int(AK_PANEL)
        func clear(_ rows: UnsafeMutableRawPointer, _ bytes: Int) {
            for part in [(rows, bytes - scaleBytes), (rows + bytes - scaleBytes, scaleBytes)] {
                (part.0 + panel * (part.1 / panels)).initializeMemory(as: UInt8.self, repeating: 0, count: part.1 / panels)
            }
        }
        for head in 0 ..< heads {
            clear(page + head * keyBytes, keyBytes)
            clear(page + heads * keyBytes + head * valueBytes, valueBytes)
        }
    }
}

/// Keys and values of ``KeyValueLayout/slots`` positions of one layer. References are counted; with the last one the memory goes back to its pool.
/// Slots that two sequences hold are never written: a sequence that goes on after shared slots takes a copy of their page first.
final class KeyValuePage: @unchecked Sendable {
    let address: UnsafeMutableRawPointer
    let byteCount: Int
    private let memory: AlignedMemory
    private let pool: PagePool

    fileprivate init(_ memory: AlignedMemory, byteCount: Int, pool: PagePool) {
        (self.memory, self.byteCount, self.pool) = (memory, byteCount, pool)
        address = memory.address
    }

    deinit { pool.give(memory, byteCount) }
}

/// Where pages come from and go back to.
///
/// A system gives memory page by page, each cleared first, which takes up to a fiftieth of a prefill, and on virtual machines whose host has to find
/// it a millisecond for each megabyte; so what sequences leave is kept for the next ones.
package final class PagePool: Sendable {
    /// The most that all pages in use may take, in bytes.
    let limit: Int
    /// The most that is kept for later.
    private let spareLimit: Int
    private let arena: HugePageArena

    private struct State {
        var used = 0
        var spare = 0
        var free: [Int: [AlignedMemory]] = [:]
    }
    private let state = Mutex(State())

    package init(limit: Int = .max, spareLimit: Int = 512 << 20) {
        (self.limit, self.spareLimit) = (limit, spareLimit)
        arena = HugePageArena(slabBytes: 8 << 20)
    }

    /// From now on has memory for new pages ready; see ``HugePageArena/keepReady(_:)``.
    func keepReady(_ byteCount: Int) { arena.keepReady(min(byteCount, limit / 4)) }

    /// Bytes of memory that is ready for new pages.
    var readyBytes: Int { arena.readyBytes }

    /// Bytes of pages in use.
    var usedBytes: Int { state.withLock { $0.used } }
    /// Bytes that are kept for later pages.
    var spareBytes: Int { state.withLock { $0.spare } }

    /// A page whose contents are not defined.
    /// - Throws: ``ComputeError/memory(what:bytes:used:limit:)`` at the limit, ``ComputeError/noMemory(what:bytes:)`` if the system gives no more.
    func take(_ byteCount: Int) throws -> KeyValuePage {
        let spare: AlignedMemory? = try state.withLock { state in
            guard state.used <= limit - byteCount else {
                throw ComputeError.memory(what: "keys and values", bytes: byteCount, used: state.used, limit: limit)
            }
            state.used += byteCount
            guard let memory = state.free[byteCount]?.popLast() else { return nil }
            state.spare -= byteCount
            return memory
        }
        if let spare { return KeyValuePage(spare, byteCount: byteCount, pool: self) }
        do {
            return KeyValuePage(try arena.allocate(checked: byteCount), byteCount: byteCount, pool: self)
        } catch {
            state.withLock { $0.used -= byteCount }
            throw ComputeError.noMemory(what: "keys and values", bytes: byteCount)
        }
    }

    fileprivate func give(_ memory: AlignedMemory, _ byteCount: Int) {
        state.withLock { state in
            state.used -= byteCount
            guard state.spare + byteCount <= spareLimit else { return }
            state.spare += byteCount
            state.free[byteCount, default: []].append(memory)
        }
    }
}

/// The pages of one layer of a sequence, of the key-value heads that run.
package final class LayerPages {
    /// The key-value heads that are kept, ascending.
    let heads: [Int]
    let layout: KeyValueLayout
    private var pages: [KeyValuePage?] = []
    /// The pages' addresses, `nil` where a sliding window left a page behind.
    private var addresses: UnsafeMutablePointer<UnsafeRawPointer?>
    private var capacity = 8
    /// Where each key-value head is kept, by its number; pages are `nil` for heads that are not.
    private let table: UnsafeMutablePointer<ak_paged_head>
    private let tableCount: Int

    package init(heads: [Int], layout: KeyValueLayout) {
        (self.heads, self.layout) = (heads, layout)
        addresses = .allocate(capacity: capacity)
        addresses.initialize(repeating: nil, count: capacity)
        tableCount = (heads.last ?? -1) + 1
        table = .allocate(capacity: max(tableCount, 1))
        table.initialize(repeating: ak_paged_head(), count: tableCount)
        for (place, head) in heads.enumerated() {
            table[head] = ak_paged_head(
                pages: UnsafePointer(addresses), keys: place * layout.keyBytes,
                values: heads.count * layout.keyBytes + place * layout.valueBytes, type: layout.type, head_dim: Int32(layout.headDim))
        }
    }

    /// Pages that another sequence computed, of the slots below `length`. The last one may hold more; it is copied before it is written.
    convenience init(sharing other: LayerPages, length: Int) {
        self.init(heads: other.heads, layout: other.layout)
        let count = (length + KeyValueLayout.slots - 1) / KeyValueLayout.slots
        for page in other.pages.prefix(count) { append(page) }
    }

    deinit {
        addresses.deallocate()
        table.deallocate()
    }

    package var byteCount: Int { pages.reduce(0) { $0 + ($1?.byteCount ?? 0) } }

    /// Whether every slot below `length` that the window has not left behind has a page.
    func holds(_ length: Int, window: Int) -> Bool {
        let first = window > 0 ? max(0, length - window) / KeyValueLayout.slots : 0
        let end = (length + KeyValueLayout.slots - 1) / KeyValueLayout.slots
        return end <= pages.count && (first ..< max(end, first)).allSatisfy { pages[$0] != nil }
    }

    private func append(_ page: KeyValuePage?) {
        if pages.count == capacity {
            let larger = UnsafeMutablePointer<UnsafeRawPointer?>.allocate(capacity: capacity * 2)
            larger.initialize(repeating: nil, count: capacity * 2)
            larger.update(from: addresses, count: capacity)
            addresses.deallocate()
            (addresses, capacity) = (larger, capacity * 2)
            for head in heads { table[head].pages = UnsafePointer(larger) }
        }
        pages.append(page)
        addresses[pages.count - 1] = page.map { UnsafeRawPointer($0.address) }
    }

    /// Makes sure that `slots` can be written: that their pages are there, belong to nobody else, and hold finite numbers where a panel is not filled.
    /// - Parameter window: positions that a query sees; pages that no later query sees are given back. 0: all.
    /// - Throws: ``ComputeError/memory(what:bytes:used:limit:)``
    package func reserve(_ slots: Range<Int>, window: Int = 0, _ pool: PagePool) throws {
        if slots.isEmpty { return }
        let size = KeyValueLayout.slots, panel = Int(AK_PANEL)
        if window > 0 {
            // The first row of these sees as far back as any later one.
            for page in 0 ..< min(max(0, slots.lowerBound + 1 - window) / size, pages.count) where pages[page] != nil {
                pages[page] = nil
                addresses[page] = nil
            }
        }
        while pages.count * size < slots.upperBound { append(try pool.take(layout.pageBytes(heads: heads.count))) }
        for page in slots.lowerBound / size ... (slots.upperBound - 1) / size where !isUnique(page) {
            let copy = try pool.take(layout.pageBytes(heads: heads.count))
            if let shared = pages[page] { copy.address.copyMemory(from: shared.address, byteCount: shared.byteCount) }
            pages[page] = copy
            addresses[page] = UnsafeRawPointer(copy.address)
        }
        // A panel that begins with these slots and is not filled by them.
        let last = (slots.upperBound - 1) / panel
        if slots.upperBound % panel != 0, last * panel >= slots.lowerBound, let page = pages[last * panel / size] {
            layout.clear(panel: last % (size / panel), of: page.address, heads: heads.count)
        }
    }

    /// Returns the pages behind the first `length` slots.
    func truncate(to length: Int) {
        while pages.count > 0, (pages.count - 1) * KeyValueLayout.slots >= length {
            pages.removeLast()
            addresses[pages.count] = nil
        }
    }

    private func isUnique(_ page: Int) -> Bool {
        var held = pages[page]
        pages[page] = nil
        defer { pages[page] = held }
        return held != nil && isKnownUniquelyReferenced(&held)
    }

    /// Where a key-value head's keys and values are; `nil` if the head is not kept. Valid until the next ``reserve(_:window:_:)``.
    package func head(_ keyValueHead: Int) -> ak_paged_head? {
        guard keyValueHead < tableCount, table[keyValueHead].pages != nil else { return nil }
        return table[keyValueHead]
    }

    /// Asks for what attention reads through this object, which should be in a cache itself; see ``CacheLines``.
    func prefetchAddresses() {
        CacheLines.prefetch(addresses)
        CacheLines.prefetch(table)
    }

    /// What attention over `length` positions reads first, as threads take it: the first page of each head that is not left behind.
    func addPrefetched(length: Int, window: Int, to reads: inout Prefetches) {
        let size = KeyValueLayout.slots, panel = Int(AK_PANEL)
        let first = window > 0 ? max(0, length - window) / size : 0
        guard first < pages.count, let page = addresses[first], length > 0 else { return }
        let positions = min((length - first * size + panel - 1) / panel * panel, size)
        let keys = ak_prefetch_ranges(
            base: page, stride: layout.keyBytes, bytes: layout.keyBytes / size * positions, count: Int32(heads.count))
        let values = ak_prefetch_ranges(
            base: page + heads.count * layout.keyBytes, stride: layout.valueBytes, bytes: layout.valueBytes / size * positions,
            count: Int32(heads.count))
        reads.append(keys)
        reads.append(values)
    }
}
