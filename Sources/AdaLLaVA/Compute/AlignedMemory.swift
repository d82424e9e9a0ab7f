import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// Memory aligned to a cache line, freed with its last user.
final class AlignedMemory: @unchecked Sendable {
    let address: UnsafeMutableRawPointer
    let byteCount: Int
    /// What this is a part of; `nil` if it stands by itself.
    private let slab: AlignedMemory?
    /// Who gets the memory back; `nil`: the system.
    private let spares: SpareSlabs?

    /// Zeroed memory.
    init(byteCount: Int) {
        self.byteCount = max(byteCount, 64)
        address = .allocate(byteCount: self.byteCount, alignment: 64)
        (slab, spares) = (nil, nil)
        address.initializeMemory(as: UInt8.self, repeating: 0, count: self.byteCount)
    }

    /// Memory in huge pages where the system has them; its contents are not defined.
    fileprivate init(pages byteCount: Int, spares: SpareSlabs?) {
        let page = HugePageArena.pageBytes
        self.byteCount = (byteCount + page - 1) / page * page
        (slab, self.spares) = (nil, spares)
        if let spare = spares?.take(self.byteCount) {
            address = spare
            return
        }
        address = .allocate(byteCount: self.byteCount, alignment: page)
        #if os(Linux)
            // Only advice: without huge pages everything works, a little slower.
            _ = madvise(address, self.byteCount, MADV_HUGEPAGE)
        #endif
    }

    fileprivate init(of slab: AlignedMemory, offset: Int, byteCount: Int) {
        (self.slab, spares, self.byteCount) = (slab, nil, byteCount)
        address = slab.address + offset
    }

    deinit { if slab == nil, spares?.keep(address, byteCount) != true { address.deallocate() } }
}

/// Slabs that nobody uses, for the next who needs as large ones: a system gives memory page by page, each cleared first, which takes up to a
/// fiftieth of a prefill, and on virtual machines whose host has to find it a millisecond for each megabyte.
final class SpareSlabs: Sendable {
    /// The most that is kept.
    private let limit: Int
    private struct Slab {
        let address: UInt
        let byteCount: Int
    }
    private struct State {
        var bytes = 0
        /// The one that was left last comes last.
        var slabs: [Slab] = []
    }
    private let state = Mutex(State())

    init(limit: Int = 256 << 20) { self.limit = limit }

    /// What is kept.
    var byteCount: Int { state.withLock { $0.bytes } }

    deinit {
        state.withLock { state in
            for slab in state.slabs { UnsafeMutableRawPointer(bitPattern: slab.address)?.deallocate() }
        }
    }

    fileprivate func take(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        state.withLock { state in
            guard let index = state.slabs.lastIndex(where: { $0.byteCount == byteCount }) else { return nil }
            state.bytes -= byteCount
            return UnsafeMutableRawPointer(bitPattern: state.slabs.remove(at: index).address)
        }
    }

    /// Whether it is kept; those that have waited longest make room for it.
    fileprivate func keep(_ address: UnsafeMutableRawPointer, _ byteCount: Int) -> Bool {
        if byteCount > limit { return false }
        state.withLock { state in
            while state.bytes + byteCount > limit, let oldest = state.slabs.first {
                state.slabs.removeFirst()
                state.bytes -= oldest.byteCount
                UnsafeMutableRawPointer(bitPattern: oldest.address)?.deallocate()
            }
            state.bytes += byteCount
            state.slabs.append(Slab(address: UInt(bitPattern: address), byteCount: byteCount))
        }
        return true
    }
}

/// Memory for packed weights, or for keys and values, one piece behind the other in large slabs.
///
/// A decode reads all of them once a token, and a single core reads 26 GB/s of weights from pages of 4 KiB, but 31 GB/s from huge ones, since
/// the processor's prefetching stops at the end of a page; attention over 600 keys takes two thirds of the time (measured on a Zen 4). Only what is
/// written takes memory.
final class HugePageArena: Sendable {
    static let pageBytes = 2 << 20
    private let slabBytes: Int
    private let spares: SpareSlabs?

    /// - Parameters:
    ///   - slabBytes: what is asked of the system at once.
    ///   - spares: where slabs come from, and go to, if it has some.
    init(slabBytes: Int = 64 << 20, spares: SpareSlabs? = nil) { (self.slabBytes, self.spares) = (slabBytes, spares) }

    private struct State {
        var slab: AlignedMemory?
        var used = 0
    }
    private let state = Mutex(State())

    /// Memory whose contents are not defined; its slab is freed, or kept as a spare, with the last user in it.
    func allocate(byteCount: Int) -> AlignedMemory {
        let bytes = (max(byteCount, 64) + 63) / 64 * 64
        return state.withLock { state in
            if let slab = state.slab, state.used + bytes <= slab.byteCount {
                defer { state.used += bytes }
                return AlignedMemory(of: slab, offset: state.used, byteCount: bytes)
            }
            // Matrices that fill a slab get one of their own, so that the open one is not left half empty.
            let slab = AlignedMemory(pages: max(bytes, slabBytes), spares: spares)
            if bytes < slabBytes { (state.slab, state.used) = (slab, bytes) }
            return AlignedMemory(of: slab, offset: 0, byteCount: bytes)
        }
    }
}
