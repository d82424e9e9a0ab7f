import AdaKernels

/// A thread pool that runs a model's work items (see `ak_pool.h`).
///
/// One run at a time: a pool's owner serializes its calls, as ``AdaptiveModel`` does.
package final class ThreadPool: @unchecked Sendable {
    private let pool: OpaquePointer
    /// Threads that work, the caller's included.
    package let threads: Int

    /// - Parameter threads: `nil` takes one for each processor that this process may run on.
    package init(threads: Int? = nil) throws {
        let wanted = max(1, min(threads ?? ThreadPool.availableProcessors, 256))
        guard let pool = ak_pool_create(Int32(wanted)) else {
            throw ComputeError.threads(wanted)
        }
        self.pool = pool
        self.threads = Int(ak_pool_threads(pool))
    }

    deinit { ak_pool_destroy(pool) }

    /// Calls `work(item, worker)` once for each item in `0 ..< items` and returns when all are done.
    /// `worker` is in `0 ..< threads`; no two calls share one at the same time.
    package func run(_ items: Int, _ work: (_ item: Int, _ worker: Int) -> Void) { run(items, ends: nil, work) }

    /// - Parameter ends: the end of each thread's share of the items; `nil`: equal shares. A thread that has finished its share steals others' items.
    func run(_ items: Int, ends: UnsafePointer<Int32>?, _ work: (_ item: Int, _ worker: Int) -> Void) {
        if items <= 0 { return }
        if items == 1 { return work(0, 0) }
        withoutActuallyEscaping(work) { work in
            let box = Work(work)
            ak_pool_run(pool, Int32(items), ends, { context, item, worker in
                guard let context else { return }
                // Threads that count references to one object for each item wait for each other: 4 % of a small model's decode.
                Unmanaged<Work>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.body(Int(item), Int(worker)) }
            }, Unmanaged.passUnretained(box).toOpaque())
            withExtendedLifetime(box) {}
        }
    }

    /// The same for work that is plain numbers and addresses: nothing is allocated and no reference counted, which a decode would do a hundred times a
    /// token while all threads but one wait.
    /// - Parameter context: valid until this returns.
    func run<Context: BitwiseCopyable>(
        _ items: Int, ends: UnsafePointer<Int32>? = nil, _ context: UnsafeMutablePointer<Context>,
        _ work: @convention(c) (_ context: UnsafeMutableRawPointer?, _ item: Int32, _ worker: Int32) -> Void
    ) {
        ak_pool_run(pool, Int32(items), ends, work, context)
    }

    /// Announces to other pools of this process a computation of many runs until ``leave()``, so that their waiting threads leave the processors to it.
    /// Not nested.
    func enter() { ak_pool_enter(pool) }
    func leave() { ak_pool_leave(pool) }

    /// Wakes the threads, so that they spin until the next run, as between the runs of a prefill or a decode.
    package func wake() {
        for _ in 0 ..< 4 { run(threads * 4) { _, _ in } }
    }

    /// Announces memory that is probably read right after the next run; waiting threads prefetch it (`ak_pool_prefetch`).
    func expect(_ memory: Prefetches) {
        if threads == 1 { return }
        withUnsafeBytes(of: memory.items) { ak_pool_prefetch(pool, $0.baseAddress?.assumingMemoryBound(to: ak_prefetch_ranges.self), Int32(memory.count)) }
    }

    private final class Work {
        let body: (Int, Int) -> Void
        init(_ body: @escaping (Int, Int) -> Void) { self.body = body }
    }

    /// Processors that this process may run on.
    package static var availableProcessors: Int { max(1, Int(ak_processor_count())) }
}

/// Memory that threads read soon, at most ``capacity`` places. Stored inline, because an array would be one more cache miss for each layer of a decode.
struct Prefetches: BitwiseCopyable {
    static let capacity = 3
    fileprivate private(set) var items = (ak_prefetch_ranges(), ak_prefetch_ranges(), ak_prefetch_ranges())
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    var first: ak_prefetch_ranges { items.0 }

    init() {}

    /// - Parameter list: entries that do not fit are not prefetched.
    init(_ list: [ak_prefetch_ranges]) { for item in list { append(item) } }

    mutating func append(_ item: ak_prefetch_ranges) {
        switch count {
        case 0: items.0 = item
        case 1: items.1 = item
        case 2: items.2 = item
        default: return
        }
        count += 1
    }
}
