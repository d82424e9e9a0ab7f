import AdaKernels
import Foundation
import Testing

/// What the workers of a run leave behind.
private final class PoolRecord: @unchecked Sendable {
    private let lock = NSLock()
    private var runsOfItem: [Int]
    private var busy: [Bool]
    private var sharedWorker = false
    let nested: OpaquePointer?

    init(items: Int, workers: Int, nested: OpaquePointer? = nil) {
        runsOfItem = .init(repeating: 0, count: items)
        busy = .init(repeating: false, count: workers)
        self.nested = nested
    }

    func enter(worker: Int) {
        lock.withLock {
            if busy[worker] { sharedWorker = true }
            busy[worker] = true
        }
    }

    func leave(worker: Int, item: Int) {
        lock.withLock {
            busy[worker] = false
            runsOfItem[item] += 1
        }
    }

    var isGood: Bool { lock.withLock { !sharedWorker && runsOfItem.allSatisfy { $0 == 1 } } }
}

private struct PoolHandle: @unchecked Sendable { let pool: OpaquePointer }

private func run(_ pool: OpaquePointer, items: Int, ends: [Int32]? = nil, _ record: PoolRecord) {
    ak_pool_run(
        pool, Int32(items), ends,
        { context, item, worker in
            guard let context else { return }
            let record = Unmanaged<PoolRecord>.fromOpaque(context).takeUnretainedValue()
            record.enter(worker: Int(worker))
            var sum = 0.0
            for i in 0..<(item % 7 * 200) { sum += Double(i).squareRoot() }
            if sum >= 0 { record.leave(worker: Int(worker), item: Int(item)) }
        }, Unmanaged.passUnretained(record).toOpaque())
}

struct PoolTests {
    // A failure means that a piece of a layer is computed twice or never, or that two threads share one scratch buffer.
    @Test("every item runs once and workers are unique", arguments: [1, 2, 3, 8])
    func everyItemRunsOnceAndWorkersAreUnique(threads: Int) throws {
        let pool = try #require(ak_pool_create(Int32(threads)))
        defer { ak_pool_destroy(pool) }
        #expect(ak_pool_threads(pool) == Int32(threads))
        for round in 0..<300 {
            let items = round % 41
            let record = PoolRecord(items: items, workers: threads)
            run(pool, items: items, record)
            #expect(record.isGood)
        }
    }

    // A failure means that a piece of a product is left out where threads get unequal shares, or that a wrong sum of shares ends the program.
    @Test("shares may be anything") func sharesMayBeAnything() throws {
        let pool = try #require(ak_pool_create(3))
        defer { ak_pool_destroy(pool) }
        for ends: [Int32] in [[0, 0, 40], [40, 40, 40], [1, 39, 40], [13, 26, 40], [30, 10, 40], [-5, 20, 7], [.max, .min, 0], [50, 60, 70]] {
            for _ in 0..<40 {
                let record = PoolRecord(items: 40, workers: 3)
                run(pool, items: 40, ends: ends, record)
                #expect(record.isGood, "\(ends)")
            }
        }
    }

    // A failure means that a thread which another program holds up is waited for with all its share.
    @Test("shares of busy threads are taken by others") func sharesOfBusyThreadsAreTakenByOthers() throws {
        let pool = try #require(ak_pool_create(2))
        defer { ak_pool_destroy(pool) }
        // Everything is the first worker's. Whoever takes the first item waits until the other has done all others.
        final class Waiting: @unchecked Sendable {
            let lock = NSLock()
            var first: Int32 = -1, others = 0, byOthers = 0
        }
        let waiting = Waiting()
        ak_pool_run(
            pool, 20, [20, 20],
            { context, item, worker in
                guard let context else { return }
                let waiting = Unmanaged<Waiting>.fromOpaque(context).takeUnretainedValue()
                if item == 0 {
                    waiting.lock.withLock { waiting.first = worker }
                    let end = ContinuousClock.now + .seconds(20)
                    while waiting.lock.withLock({ waiting.others }) < 19, ContinuousClock.now < end { usleep(100) }
                } else {
                    while waiting.lock.withLock({ waiting.first }) < 0 { usleep(100) }
                    waiting.lock.withLock {
                        waiting.others += 1
                        if worker != waiting.first { waiting.byOthers += 1 }
                    }
                }
            }, Unmanaged.passUnretained(waiting).toOpaque())
        #expect(waiting.others == 19 && waiting.byOthers == 19)
    }

    // A failure means that a worker that fell asleep between two layers is not woken, or takes an item of a run that is over.
    @Test("workers that slept take part again") func workersThatSleptTakePartAgain() throws {
        let pool = try #require(ak_pool_create(4))
        defer { ak_pool_destroy(pool) }
        for round in 0..<60 {
            if round % 3 == 0 {   // longer than the workers spin
                let end = ContinuousClock.now + .milliseconds(2)
                while ContinuousClock.now < end {}
            }
            let record = PoolRecord(items: 64, workers: 4)
            run(pool, items: 64, record)
            #expect(record.isGood)
        }
    }

    // A failure means that work which itself asks for threads hangs or loses items.
    @Test("nested runs are done by their caller") func nestedRunsAreDoneByTheirCaller() throws {
        let pool = try #require(ak_pool_create(3))
        defer { ak_pool_destroy(pool) }
        let record = PoolRecord(items: 20, workers: 3, nested: pool)
        ak_pool_run(
            pool, 20, nil,
            { context, item, _ in
                guard let context else { return }
                let record = Unmanaged<PoolRecord>.fromOpaque(context).takeUnretainedValue()
                guard let nested = record.nested else { return }
                let inner = PoolRecord(items: 10, workers: 3)
                run(nested, items: 10, inner)
                if inner.isGood { record.leave(worker: 0, item: Int(item)) }
            }, Unmanaged.passUnretained(record).toOpaque())
        #expect(record.isGood)
    }

    // A failure means that two requests that use one pool at the same time hang or lose work.
    @Test("concurrent runs both finish") func concurrentRunsBothFinish() async throws {
        let pool = PoolHandle(pool: try #require(ak_pool_create(3)))
        defer { ak_pool_destroy(pool.pool) }
        let results = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    (0..<50).allSatisfy { _ in
                        let record = PoolRecord(items: 33, workers: 3)
                        run(pool.pool, items: 33, record)
                        return record.isGood
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(results == [true, true, true, true])
    }

    // A failure means that two models in one process slow each other down by waiting: a thread that waits for the rest of its own pool spins on a processor
    // that another pool has work for.
    @Test("waiting threads leave processors to other pools") func waitingThreadsLeaveProcessorsToOtherPools() throws {
        let threads = max(ak_processor_count(), 2)
        let pool = try #require(ak_pool_create(threads)), other = PoolHandle(pool: try #require(ak_pool_create(2)))
        defer {
            ak_pool_destroy(pool)
            ak_pool_destroy(other.pool)
        }
        // The other pool is inside one run until all is done.
        let began = DispatchSemaphore(value: 0), end = DispatchSemaphore(value: 0), ended = DispatchSemaphore(value: 0)
        final class Gate: @unchecked Sendable {
            let began: DispatchSemaphore, end: DispatchSemaphore
            init(_ began: DispatchSemaphore, _ end: DispatchSemaphore) { (self.began, self.end) = (began, end) }
        }
        let gate = Gate(began, end)
        Thread.detachNewThread {
            ak_pool_run(
                other.pool, 2, nil,
                { context, item, _ in
                    guard item == 0, let context else { return }
                    let gate = Unmanaged<Gate>.fromOpaque(context).takeUnretainedValue()
                    gate.began.signal()
                    gate.end.wait()
                }, Unmanaged.passUnretained(gate).toOpaque())
            ended.signal()
        }
        began.wait()

        // The second worker waits for the first for less time than it would spin, and says in its next item whether it slept meanwhile.
        final class Sleeps: @unchecked Sendable {
            let lock = NSLock()
            var done = false, switches = 0, slept = 0
        }
        let sleeps = Sleeps(), runs = 300
        let ends = (0 ..< threads).map { Int32($0 == 0 ? 1 : 2) }
        for _ in 0 ..< runs {
            sleeps.lock.withLock { sleeps.done = false }
            ak_pool_run(
                pool, 2, ends,
                { context, _, worker in
                    guard let context else { return }
                    let sleeps = Unmanaged<Sleeps>.fromOpaque(context).takeUnretainedValue()
                    func wait(_ duration: Duration, until done: () -> Bool = { false }) {
                        let end = ContinuousClock.now + duration
                        while !done(), ContinuousClock.now < end {}
                    }
                    if worker == 1 {
                        var usage = rusage()
                        getrusage(__rusage_who_t(1), &usage)   // RUSAGE_THREAD
                        sleeps.lock.withLock {
                            sleeps.slept += usage.ru_nvcsw > sleeps.switches ? 1 : 0
                            sleeps.switches = usage.ru_nvcsw
                            sleeps.done = true
                        }
                    } else if worker == 0 {
                        wait(.milliseconds(50)) { sleeps.lock.withLock { sleeps.done } }
                        wait(.microseconds(40))
                    }
                }, Unmanaged.passUnretained(sleeps).toOpaque())
        }
        end.signal()
        ended.wait()
        #expect(sleeps.slept >= runs / 2)
    }

    // A failure means that closing a model hangs or that a pool cannot be made again.
    @Test("pools come and go") func poolsComeAndGo() throws {
        for round in 0..<40 {
            let pool = try #require(ak_pool_create(Int32(round % 5 + 1)))
            if round % 2 == 0 {
                let record = PoolRecord(items: 5, workers: 5)
                run(pool, items: 5, record)
                #expect(record.isGood)
            }
            ak_pool_destroy(pool)
        }
        #expect(ak_pool_create(0) == nil)
        #expect(ak_pool_create(-1) == nil)
        ak_pool_destroy(nil)
    }

    // A failure means that a hint about what is read next changes what is computed, or that a model which is freed in the meantime ends the program.
    @Test("expected memory may be anything") func expectedMemoryMayBeAnything() throws {
        let pool = try #require(ak_pool_create(3))
        defer { ak_pool_destroy(pool) }
        let page = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
        let hints = [
            ak_prefetch_ranges(base: page, stride: 64, bytes: 64, count: 64), ak_prefetch_ranges(base: UnsafeRawPointer(bitPattern: 64), stride: 1 << 40, bytes: 1 << 50, count: .max),
            ak_prefetch_ranges(base: nil, stride: 0, bytes: 0, count: 5), ak_prefetch_ranges(base: nil, stride: 1, bytes: 1, count: -1),
        ]
        page.deallocate()
        for round in 0..<200 {
            let hints = Array(hints.shuffled().prefix(round % 5)) + (round % 7 == 0 ? hints + hints + hints : [])
            ak_pool_prefetch(pool, hints, Int32(hints.count))
            let record = PoolRecord(items: 1 + round % 40, workers: 3)
            run(pool, items: 1 + round % 40, record)
            #expect(record.isGood)
        }
    }
}
