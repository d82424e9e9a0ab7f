import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Memory aligned to a cache line, freed with its last user.
final class AlignedMemory: @unchecked Sendable {
    let address: UnsafeMutableRawPointer
    let byteCount: Int
    /// The slab that this is a part of; `nil` for memory of its own.
    private let slab: AlignedMemory?

    /// Zeroed scratch memory, less than the keys and values of the same input, which are refused first. Use ``init(checked:)`` for sizes that depend on input.
    convenience init(byteCount: Int) {
        guard let made = AlignedMemory.allocate(max(byteCount, 64)) else { fatalError("out of memory: \(byteCount) bytes") }
        self.init(address: made, byteCount: max(byteCount, 64))
    }

    /// Zeroed memory; `nil` if the system has not enough memory.
    convenience init?(checked byteCount: Int) {
        guard let made = AlignedMemory.allocate(max(byteCount, 64)) else { return nil }
        self.init(address: made, byteCount: max(byteCount, 64))
    }

    private init(address: UnsafeMutableRawPointer, byteCount: Int) { (self.address, self.byteCount, slab) = (address, byteCount, nil) }

    private static func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        var memory: UnsafeMutableRawPointer?
        guard posix_memalign(&memory, 64, byteCount) == 0, let memory else { return nil }
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        return memory
    }

    /// Memory in huge pages where the system has them; its contents are not defined. `nil` if the system has not enough memory.
    fileprivate init?(pages byteCount: Int) {
        let page = HugePageArena.pageBytes
        self.byteCount = (byteCount + page - 1) / page * page
        slab = nil
        var memory: UnsafeMutableRawPointer?
        guard posix_memalign(&memory, page, self.byteCount) == 0, let memory else { return nil }
        address = memory
        #if os(Linux)
            // Only advice: without huge pages everything works, a little slower.
            _ = madvise(address, self.byteCount, MADV_HUGEPAGE)
        #endif
    }

    /// Writes to each page, so that its page fault happens now and not at the first use.
    fileprivate func prefault() {
        for offset in stride(from: 0, to: byteCount, by: 4096) { (address + offset).storeBytes(of: 0, as: UInt8.self) }
    }

    fileprivate init(of slab: AlignedMemory, offset: Int, byteCount: Int) {
        (self.slab, self.byteCount) = (slab, byteCount)
        address = slab.address + offset
    }

    deinit { if slab == nil { free(address) } }
}

/// Memory for packed weights, keys and values, or a computation's scratch tensors, allocated one after another in large slabs.
///
/// A decode reads all of them once a token, and a single core reads 26 GB/s of weights from pages of 4 KiB, but 31 GB/s from huge ones, since
/// the processor's prefetching stops at the end of a page; attention over 600 keys takes two thirds of the time (measured on a Zen 4). The first answer of
/// a process touches scratch memory for the first time, and a page fault in a virtual machine costs microseconds: pages of 4 KiB were two thirds of the
/// first image's time. Only written pages take memory.
final class HugePageArena: Sendable {
    static let pageBytes = 2 << 20
    private let slabBytes: Int

    /// - Parameter slabBytes: bytes requested from the system at once.
    init(slabBytes: Int = 64 << 20) { self.slabBytes = slabBytes }

    private struct State {
        var slab: AlignedMemory?
        var used = 0
        /// Prefaulted slabs that nothing uses yet, and how many there should be.
        var ready: [AlignedMemory] = []
        var readyGoal = 0
        /// Whether a thread is prefaulting slabs.
        var isPreparing = false
    }
    private let state = Mutex(State())

    /// Bytes of prefaulted slabs that nothing uses yet.
    var readyBytes: Int { state.withLock { $0.ready.count * slabBytes } }

    /// Prefaults memory for later allocations, from now on. Page faults inside a step, a millisecond for each megabyte on a virtual machine, would double the
    /// gap between tokens of all answers that share the step.
    func keepReady(_ byteCount: Int) {
        state.withLock { $0.readyGoal = byteCount / slabBytes }
        prepare()
    }

    /// Prefaults slabs until the goal is reached, on a thread of low priority.
    private func prepare() {
        let isNeeded = state.withLock { state in
            guard !state.isPreparing, state.ready.count < state.readyGoal else { return false }
            state.isPreparing = true
            return true
        }
        guard isNeeded else { return }
        Thread.detachNewThread { [self] in
            #if os(Linux)
                // 0 is the calling thread: each has a priority of its own on Linux.
                _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
            #endif
            while isSlabMissing() {
                guard let slab = AlignedMemory(pages: slabBytes) else { return state.withLock { $0.isPreparing = false } }
                slab.prefault()
                state.withLock { $0.ready.append(slab) }
            }
        }
    }

    /// Ends the preparation if none is, in the same step: a slab that is taken between the two would not be replaced.
    private func isSlabMissing() -> Bool {
        state.withLock { state in
            state.isPreparing = state.ready.count < state.readyGoal
            return state.isPreparing
        }
    }

    /// The system does not give so much memory.
    struct OutOfMemory: Error {}

    /// Zeroed scratch memory, of the arena's pages where the system gives them.
    func scratch(byteCount: Int) -> AlignedMemory {
        guard let memory = try? allocate(checked: byteCount) else { return AlignedMemory(byteCount: byteCount) }
        memory.address.initializeMemory(as: UInt8.self, repeating: 0, count: memory.byteCount)
        return memory
    }

    /// Memory with undefined contents; its slab is freed with the last user in it.
    /// - Throws: ``OutOfMemory``
    func allocate(checked byteCount: Int) throws -> AlignedMemory {
        let bytes = (max(byteCount, 64) + 63) / 64 * 64
        let memory = try state.withLock { state in
            if let slab = state.slab, state.used + bytes <= slab.byteCount {
                defer { state.used += bytes }
                return AlignedMemory(of: slab, offset: state.used, byteCount: bytes)
            }
            // Matrices that fill a slab get one of their own, so that the open one is not left half empty.
            let ready = bytes < slabBytes ? state.ready.popLast() : nil
            guard let slab = ready ?? AlignedMemory(pages: max(bytes, slabBytes)) else { throw OutOfMemory() }
            if bytes < slabBytes { (state.slab, state.used) = (slab, bytes) }
            return AlignedMemory(of: slab, offset: 0, byteCount: bytes)
        }
        prepare()
        return memory
    }
}
