import AdaKernels
import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// The rates that some threads of this machine reach when they only read memory, or only multiply in registers (`ak_ceilings.h`).
package struct CeilingMeasurement: Sendable, Equatable {
    package let threads: Int
    /// Bytes a second, read by all threads from a buffer beyond the last-level cache.
    package let bandwidth: Double
    /// Operations a second, a multiplication and an addition counting one each: 8-bit dot products, BF16 dot products (`nil` where the
    /// processor has none), float32.
    package let int8: Double
    package let bf16: Double?
    package let fp32: Double

    /// Measures multiply-adds as the best of many short rounds, since other programs only ever slow them down; and bandwidth as the median of rounds
    /// that read the buffer once, because on shared memory a single round can be half as fast again as any program is for longer.
    /// Takes about a second and a half.
    /// - Parameters:
    ///   - time: how long each ceiling is tried.
    ///   - bufferBytes: size of the buffer; `nil` takes four times the last-level cache, 256 MB at least.
    /// - Throws: `ComputeError`
    package static func measure(threads: Int? = nil, time: Duration = .milliseconds(400), bufferBytes: Int? = nil) throws -> CeilingMeasurement {
        let pool = try ThreadPool(threads: threads)
        let int8 = multiply(AK_CEILING_INT8, pool, time)
        let bf16 = multiply(AK_CEILING_BF16, pool, time)
        let fp32 = multiply(AK_CEILING_F32, pool, time)
        let bandwidth = BandwidthReader(pool, time: time, bufferBytes: bufferBytes).median
        return CeilingMeasurement(threads: pool.threads, bandwidth: bandwidth, int8: int8, bf16: bf16 > 0 ? bf16 : nil, fp32: fp32)
    }

    /// Bytes of the cache before memory, as far as one core reaches it; 32 MB where the system does not say.
    package static let lastLevelCache: Int = {
        #if canImport(Darwin)
            let sizes = [cacheSize("hw.l3cachesize"), cacheSize("hw.l2cachesize")]
        #else
            // Not sysconf's: in a virtual machine it multiplies by processors that others have.
            let sizes = [3, 2].map { index -> Int in
                let file = "/sys/devices/system/cpu/cpu0/cache/index\(index)/size"
                guard let text = try? String(contentsOfFile: file, encoding: .utf8) else { return 0 }
                let unit = text.contains("M") ? 1 << 20 : text.contains("K") ? 1 << 10 : 1
                return min(Int(text.prefix { $0.isNumber }) ?? 0, 1 << 20) * unit
            }
        #endif
        return sizes.first { (1 << 16 ... 1 << 32).contains($0) } ?? 32 << 20
    }()

    #if canImport(Darwin)
        private static func cacheSize(_ name: String) -> Int {
            var value: Int64 = 0
            var size = MemoryLayout<Int64>.size
            return sysctlbyname(name, &value, &size, nil, 0) == 0 ? Int(value) : 0
        }
    #endif

    /// The rates of rounds of `body`, each of which does `amount`.
    fileprivate static func rates(_ time: Duration, _ amount: Double, _ body: () -> Void) -> [Double] {
        var rates: [Double] = []
        let start = ContinuousClock.now
        while rates.count < 3 || (ContinuousClock.now - start < time && rates.count < 10000) {
            let seconds = ContinuousClock().measure(body) / .seconds(1)
            rates.append(seconds > 0 ? amount / seconds : 0)
        }
        return rates.sorted()
    }

    private static func multiply(_ kind: ak_ceiling, _ pool: ThreadPool, _ time: Duration) -> Double {
        // Long enough for the clock, short enough to fit between two interruptions.
        let rounds: Int64 = 20000
        let each = ak_ceiling_multiply(kind, rounds)
        guard each > 0 else { return 0 }
        let items = pool.threads * 8
        return rates(time, each * Double(items)) {
            pool.run(items) { _, _ in _ = ak_ceiling_multiply(kind, rounds) }
        }.last ?? 0
    }
}

/// A buffer larger than the last-level cache that all threads read, to measure the current bandwidth.
package final class BandwidthReader: Sendable {
    /// Bytes a second, of the rounds that chose how the buffer is read.
    let median: Double
    private let pool: ThreadPool
    private let buffer: Buffer
    private let streams: Int32
    private static let itemBytes = 1 << 20

    /// - Parameter threads: one for each processor by default.
    /// - Throws: `ComputeError`
    package convenience init(threads: Int? = nil) throws { self.init(try ThreadPool(threads: threads), time: .milliseconds(400), bufferBytes: nil) }

    fileprivate init(_ pool: ThreadPool, time: Duration, bufferBytes: Int?) {
        let buffer = Buffer(bytes: min(max(bufferBytes ?? max(256 << 20, 4 * CeilingMeasurement.lastLevelCache), 1 << 20), 2 << 30))
        // How many places are best read at once differs between processors.
        let found = [1, 2, 4].map { (streams: Int32) in
            let rates = CeilingMeasurement.rates(time / 3, Double(buffer.bytes)) { buffer.read(pool, streams) }
            return (streams: streams, median: rates[rates.count / 2])
        }
        let best = found.max { $0.median < $1.median }
        (self.pool, self.buffer, streams, median) = (pool, buffer, best?.streams ?? 1, best?.median ?? 0)
    }

    /// Reads the buffer once.
    /// - Returns: bytes a second.
    package func read() -> Double {
        let seconds = ContinuousClock().measure { buffer.read(pool, streams) } / .seconds(1)
        return seconds > 0 ? Double(buffer.bytes) / seconds : 0
    }

    private final class Buffer: @unchecked Sendable {
        let bytes: Int
        private let address: UnsafeMutableRawPointer

        init(bytes: Int) {
            self.bytes = bytes / itemBytes * itemBytes
            address = .allocate(byteCount: self.bytes, alignment: 2 << 20)
            #if os(Linux)
                // Fewer translations to look up; without huge pages it is a little slower, and nothing else changes.
                madvise(address, self.bytes, Int32(MADV_HUGEPAGE))
            #endif
            // Written, not only reserved, because pages that were never written are all the same page.
            memset(address, 1, self.bytes)
        }

        deinit { address.deallocate() }

        func read(_ pool: ThreadPool, _ streams: Int32) {
            pool.run(bytes / itemBytes) { item, _ in _ = ak_ceiling_read(self.address + item * itemBytes, itemBytes, streams) }
        }
    }
}
