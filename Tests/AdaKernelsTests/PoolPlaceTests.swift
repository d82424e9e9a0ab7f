#if os(Linux)
import AdaKernels
import Foundation
import Testing

/// `sched_getaffinity` and `sched_setaffinity`, which glibc's headers show to C with GNU extensions only.
private typealias AffinityCall = @convention(c) (_ thread: pid_t, _ bytes: Int, _ mask: UnsafeMutableRawPointer) -> Int32
private func affinityCall(_ name: String) -> AffinityCall? { dlsym(nil, name).map { unsafeBitCast($0, to: AffinityCall.self) } }

/// Processors that the calling thread may run on.
private func ownMask() -> [Int] {
    var bytes = [UInt8](repeating: 0, count: 128)
    guard let call = affinityCall("sched_getaffinity"), call(0, bytes.count, &bytes) == 0 else { return [] }
    return (0..<bytes.count * 8).filter { bytes[$0 / 8] >> ($0 % 8) & 1 == 1 }
}

private func setOwnMask(_ processor: Int) -> Bool {
    var bytes = [UInt8](repeating: 0, count: 128)
    guard processor < bytes.count * 8, let call = affinityCall("sched_setaffinity") else { return false }
    bytes[processor / 8] = 1 << (processor % 8)
    return call(0, bytes.count, &bytes) == 0
}

/// What a new thread gets: tests that run beside this one may move the threads that they share.
private func maskOfNewThread() -> [Int]? {
    final class Result: @unchecked Sendable { var mask: [Int] = [] }
    let (result, done) = (Result(), DispatchSemaphore(value: 0))
    Thread.detachNewThread {
        result.mask = ownMask()
        done.signal()
    }
    done.wait()
    return result.mask.isEmpty ? nil : result.mask
}

/// What the threads of a pool saw.
private final class Sight: @unchecked Sendable {
    private let lock = NSLock()
    /// Of each worker, and where each looked last.
    private(set) var masks: [Int32: Set<[Int]>] = [:]
    private(set) var last: [Int32: [Int]] = [:]
    private(set) var items = 0

    func look(_ worker: Int32) {
        let mask = ownMask()
        lock.withLock {
            masks[worker, default: []].insert(mask)
            last[worker] = mask
            items += 1
        }
    }
}

/// Runs of a decode's size, until `enough` or for a minute. Returns how often threads are to have looked.
private func runs(_ pool: OpaquePointer, _ sight: Sight, until enough: () -> Bool) -> Int {
    let end = ContinuousClock.now + .seconds(60)
    var items = 0
    while !enough(), ContinuousClock.now < end {
        for _ in 0..<100 {
            ak_pool_run(
                pool, 12, nil,
                { context, item, worker in
                    guard let context else { return }
                    var sum = 0.0
                    for i in 0..<4000 { sum += Double(i).squareRoot() }
                    if item % 4 == 3, sum > 0 { Unmanaged<Sight>.fromOpaque(context).takeUnretainedValue().look(worker) }
                }, Unmanaged.passUnretained(sight).toOpaque())
            items += 3
        }
    }
    return items
}

/// Threads that keep processors busy, as other programs do.
private final class Neighbours: @unchecked Sendable {
    private let lock = NSLock()
    private var stopped = false
    private let threads = DispatchGroup()

    init(_ count: Int) {
        for _ in 0..<count {
            threads.enter()
            Thread.detachNewThread {
                while !self.lock.withLock({ self.stopped }) { for _ in 0..<1000 { _ = getpid() } }
                self.threads.leave()
            }
        }
    }

    func stop() {
        lock.withLock { stopped = true }
        threads.wait()
    }
}

@Suite(.serialized)
struct PoolPlaceTests {
    // A failure means that a decode waits for whole time slices of other programs, or that a thread that was helped stays tied to one processor.
    @Test("a thread without a processor is helped", .enabled(if: ak_processor_count() > 1), arguments: [2, 3])
    func aThreadWithoutAProcessorIsHelped(threads: Int32) throws {
        let pool = try #require(ak_pool_create(threads))
        defer { ak_pool_destroy(pool) }
        let neighbours = Neighbours(Int(ak_processor_count()))
        let (sight, mask) = (Sight(), try #require(maskOfNewThread()))
        let items = runs(pool, sight) { ak_pool_moves(pool) >= 20 }
        neighbours.stop()
        #expect(ak_pool_moves(pool) >= 20)
        #expect(sight.items == items)
        // Between the two steps of a move a thread may run on one processor only. Behind it all is as it was.
        #expect(sight.masks.values.joined().allSatisfy { $0 == mask || $0.count == 1 })
        let after = Sight()
        func isFree() -> Bool { (0..<threads).allSatisfy { after.last[$0] == mask } }
        _ = runs(pool, after, until: isFree)
        #expect(isFree())
    }

    // A failure means that a user's choice of processors (`taskset`, a container) is overruled.
    @Test("a chosen processor is kept") func aChosenProcessorIsKept() throws {
        let processor = try #require(ownMask().last)
        let done = DispatchSemaphore(value: 0)
        final class Result: @unchecked Sendable { var masks: [[Int]] = [], isRight = false }
        let result = Result()
        Thread.detachNewThread {   // it and what it starts may run on one processor only
            if setOwnMask(processor), let pool = ak_pool_create(3) {
                let sight = Sight()
                let end = ContinuousClock.now + .milliseconds(300)
                result.isRight = runs(pool, sight) { ContinuousClock.now > end } == sight.items
                result.masks = Array(sight.masks.values.joined())
                ak_pool_destroy(pool)
            }
            done.signal()
        }
        done.wait()
        #expect(result.isRight && !result.masks.isEmpty && result.masks.allSatisfy { $0 == [processor] })
    }
}
#endif
