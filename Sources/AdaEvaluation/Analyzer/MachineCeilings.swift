import AdaKernels
import AdaLLaVA
import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// What this machine reaches with the engine's own kernels: the ceilings of its roofline.
///
/// Memory bandwidth is that of a matrix larger than any cache, read once for one token; the peaks are those of products that stay in the
/// caches. Measured once, in about two seconds, and kept in the user's cache folder.
public struct MachineCeilings: Sendable, Equatable, Codable {
    /// Processor and host, and the threads that were used.
    public let machine: String
    public let threads: Int
    /// Bytes a second.
    public let bandwidth: Double
    /// Operations a second: 8-bit dot products, BF16 dot products (`nil` where the processor has none), float32.
    public let int8: Double
    public let bf16: Double?
    public let fp32: Double
    /// Bytes of a core's second-level cache.
    public let cacheBytes: Double

    public var hardware: Hardware {
        Hardware(
            name: Hardware.thisMachine, bandwidth: bandwidth, fp16: bf16 ?? fp32, int8: int8, fp32: fp32, onChipBuffer: cacheBytes)
    }

    /// The kept ceilings of this machine, measured if there are none.
    /// - Parameters:
    ///   - refresh: measure again.
    ///   - folder: where they are kept; by default `adallava` in the user's cache folder.
    /// - Returns: the ceilings, and why they could not be kept if so.
    /// - Throws: `ComputeError`
    public static func load(
        threads: Int? = nil, refresh: Bool = false, folder: URL? = nil, onMeasure: () -> Void = {}
    ) throws -> (ceilings: MachineCeilings, notKept: String?) {
        let count = threads ?? ThreadPool.availableProcessors
        let machine = machineName(threads: count)
        let folder = folder ?? defaultFolder
        let safe = machine.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? String($0) : "-" }.joined()
        let file = folder.appendingPathComponent("ceilings-\(safe).json")
        if !refresh, let data = try? Data(contentsOf: file), let kept = try? JSONDecoder().decode(MachineCeilings.self, from: data),
            kept.machine == machine, kept.isUsable
        {
            return (kept, nil)
        }
        onMeasure()
        let measured = try measure(threads: count, machine: machine)
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try RunFiles.write(try RunFiles.encode(measured), to: file)
        } catch {
            return (measured, (error as? any EngineError)?.description ?? "\(folder.path): \(error.localizedDescription)")
        }
        return (measured, nil)
    }

    /// Kept files are input like any other: numbers to divide by must be numbers.
    private var isUsable: Bool {
        [bandwidth, int8, fp32, cacheBytes, bf16 ?? 1].allSatisfy { $0.isFinite && $0 > 0 }
    }

    private static var defaultFolder: URL {
        let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask).first ?? FileManager.default.temporaryDirectory
        return caches.appendingPathComponent("adallava", isDirectory: true)
    }

    // MARK: - Measuring

    private static func measure(threads: Int, machine: String) throws -> MachineCeilings {
        let pool = try ThreadPool(threads: threads)
        let kernels = ak_kernels_best().pointee
        func peak(_ type: ak_type) -> Double {
            let probe = MatmulProbe(type: type, rows: 512, inputs: 1024, tokens: 64)
            return probe.bestRate(pool, kernels, copies: pool.threads * 8, each: probe.operations)
        }
        // 256 MB: larger than any last-level cache but those of a few servers.
        let stream = MatmulProbe(type: AK_Q8_0, rows: 256 << 10, inputs: 960, tokens: 1)
        return MachineCeilings(
            machine: machine, threads: pool.threads, bandwidth: stream.bestRate(pool, kernels, copies: 1, each: stream.bytes),
            int8: peak(AK_Q8_0), bf16: ak_has_bf16_dot() != 0 ? peak(AK_BF16) : nil, fp32: peak(AK_F32), cacheBytes: cacheBytes())
    }

    // MARK: - The machine

    private static func machineName(threads: Int) -> String {
        "\(processorName()) on \(ProcessInfo.processInfo.hostName), \(threads) threads"
    }

    static func processorName() -> String {
        #if canImport(Darwin)
            var size = 0
            sysctlbyname("machdep.cpu.brand_string", nil, &size, nil, 0)
            var bytes = [UInt8](repeating: 0, count: max(size, 1))
            guard sysctlbyname("machdep.cpu.brand_string", &bytes, &size, nil, 0) == 0 else { return "processor" }
            return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        #else
            let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
            for line in text.split(separator: "\n") where line.hasPrefix("model name") || line.hasPrefix("CPU part") {
                if let value = line.split(separator: ":").last { return value.trimmingCharacters(in: .whitespaces) }
            }
            return "processor"
        #endif
    }

    private static func cacheBytes() -> Double {
        let usual = 1 << 20
        #if canImport(Darwin)
            var value: Int64 = 0
            var size = MemoryLayout<Int64>.size
            return sysctlbyname("hw.l2cachesize", &value, &size, nil, 0) == 0 && value > 0 ? Double(value) : Double(usual)
        #else
            let size = sysconf(Int32(_SC_LEVEL2_CACHE_SIZE))
            return Double(size > 0 ? size : usual)
        #endif
    }
}

/// A matrix product of made-up numbers, to be timed.
private final class MatmulProbe: @unchecked Sendable {
    private let weight: ak_matrix
    private let activations: ak_activations
    private let memory: [UnsafeMutableRawPointer]
    private let panels: [Int32]

    /// Of one product: operations, and bytes of weights.
    let operations: Double
    let bytes: Double

    /// - Parameter type: of the weights; F32, BF16 and Q8_0 weights meet activations of the same type.
    init(type: ak_type, rows: Int, inputs: Int, tokens: Int) {
        let panelCount = rows / Int(AK_PANEL)
        let blocks = inputs / Int(AK_BLOCK)
        let panelBytes = Int(ak_panel_bytes(type, Int32(inputs)))
        // Zero bits are the number zero in every type, and products of zeros take no less time. Written, not only reserved: pages that
        // nobody wrote to would all be the same page.
        func allocate(_ count: Int) -> UnsafeMutableRawPointer {
            let address = UnsafeMutableRawPointer.allocate(byteCount: max(count, 64), alignment: 64)
            memset(address, 0, max(count, 64))
            return address
        }
        let data = allocate(panelCount * panelBytes)
        let values = allocate(tokens * inputs * 4)
        let scales = allocate(tokens * blocks * 4)
        let sums = allocate(tokens * blocks * 4)
        memory = [data, values, scales, sums]
        weight = ak_matrix(
            type: type, layout: AK_PANELS, rows: Int32(rows), inputs: Int32(inputs), panels: Int32(panelCount), blocks: Int32(blocks),
            stride: panelBytes, data: data)
        activations = ak_activations(
            type: type, tokens: Int32(tokens), blocks: Int32(blocks), stride: inputs, data: values,
            scales: scales.assumingMemoryBound(to: Float.self), sums: sums.assumingMemoryBound(to: Int32.self))
        panels = (0 ..< Int32(panelCount)).map { $0 }
        operations = 2 * Double(rows) * Double(inputs) * Double(tokens)
        bytes = Double(panelCount * panelBytes)
    }

    deinit { for address in memory { address.deallocate() } }

    /// The best rate of several rounds: other programs only ever slow one down.
    /// - Parameters:
    ///   - copies: whole products a round, each on one thread; 1 shares one product out among the threads.
    ///   - amount: what one product counts for.
    func bestRate(_ pool: ThreadPool, _ kernels: ak_kernels, copies: Int, each amount: Double) -> Double {
        let tokens = Int(activations.tokens)
        let width = panels.count * Int(AK_PANEL)
        let outputs = (0 ..< (copies > 1 ? pool.threads : 1)).map { _ in
            UnsafeMutablePointer<Float>.allocate(capacity: tokens * width)
        }
        defer { for output in outputs { output.deallocate() } }
        let pieces = copies > 1 ? copies : pool.threads * 16
        let step = copies > 1 ? panels.count : (panels.count + pieces - 1) / pieces
        var best = 0.0
        let start = ContinuousClock.now
        var rounds = 0
        while rounds < 3 || (ContinuousClock.now - start < .milliseconds(400) && rounds < 1000) {
            let begin = ContinuousClock.now
            panels.withUnsafeBufferPointer { list in
                guard let base = list.baseAddress else { return }
                pool.run(pieces) { item, worker in
                    let first = copies > 1 ? 0 : item * step
                    guard first < panels.count else { return }
                    let output = outputs[copies > 1 ? worker : 0]
                    withUnsafePointer(to: weight) { weight in
                        withUnsafePointer(to: activations) { activations in
                            kernels.matmul(
                                output, width, activations, weight, nil, base + first, Int32(min(step, panels.count - first)), nil,
                                weight.pointee.blocks, 0, nil, nil)
                        }
                    }
                }
            }
            let seconds = (ContinuousClock.now - begin) / .seconds(1)
            if seconds > 0 { best = max(best, amount * Double(max(copies, 1)) / seconds) }
            rounds += 1
        }
        return best
    }
}
