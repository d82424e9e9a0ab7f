import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// This machine's peak rates: the ceilings of its roofline (``CeilingMeasurement``), measured once, in about two seconds, and kept in the
/// user's cache folder.
package struct MachineCeilings: Sendable, Equatable, Codable {
    /// Processor and host, and the threads that were used.
    package let machine: String
    package let threads: Int
    /// Bytes a second.
    package let bandwidth: Double
    /// Operations a second: 8-bit dot products, BF16 dot products (`nil` where the processor has none), float32.
    package let int8: Double
    package let bf16: Double?
    package let fp32: Double
    /// Bytes of a core's second-level cache.
    package let cacheBytes: Double
    /// Processes that wanted to run over the minute before the measurement; absent if the system does not say.
    package let load: Double?

    /// A warning if other programs may have lowered the ceilings; `nil` for those of a quiet machine.
    package var caution: String? {
        guard let load, load >= Self.busy else { return nil }
        return String(format: "this machine's ceilings were measured while other programs ran (load %.2f) and may be too low; "
            + "they are measured again once it is quieter, or with --measure", load)
    }

    /// Load average from which the measurement included other programs.
    private static let busy = 0.5

    package var hardware: Hardware {
        Hardware(
            name: Hardware.thisMachine, bandwidth: bandwidth, fp16: bf16 ?? fp32, int8: int8, fp32: fp32, onChipBuffer: cacheBytes)
    }

    /// The kept ceilings of this machine, measured if there are none, or if the machine was busy then and is quieter now.
    /// - Parameters:
    ///   - refresh: measure again.
    ///   - folder: where they are kept; by default `adallava` in the user's cache folder.
    /// - Returns: the ceilings, and why they could not be kept if so.
    /// - Throws: `ComputeError`
    package static func load(
        threads: Int? = nil, refresh: Bool = false, folder: URL? = nil, onMeasure: () -> Void = {}
    ) throws -> (ceilings: MachineCeilings, notKept: String?) {
        let count = threads ?? ThreadPool.availableProcessors
        let machine = machineName(threads: count)
        let folder = folder ?? defaultFolder
        let safe = machine.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? String($0) : "-" }.joined()
        let file = folder.appendingPathComponent("ceilings-\(safe).json")
        if !refresh, let data = try? Files.data(file), let kept = try? JSONDecoder().decode(MachineCeilings.self, from: data),
            kept.machine == machine, kept.isUsable, !kept.isOutdone(by: loadAverage())
        {
            return (kept, nil)
        }
        onMeasure()
        let measured = try measure(threads: count, machine: machine)
        do {
            try Files.createFolder(folder)
            try Files.write(try JSONText.data(measured, isPretty: true), to: file)
        } catch {
            return (measured, "\(file.path): cannot be written: \(error.localizedDescription)")
        }
        return (measured, nil)
    }

    /// Whether a measurement now would be of a much quieter machine.
    func isOutdone(by load: Double?) -> Bool {
        guard let kept = self.load, let load else { return false }
        return kept >= Self.busy && load < kept / 2
    }

    private static func loadAverage() -> Double? {
        var load = 0.0
        return getloadavg(&load, 1) == 1 ? load : nil
    }

    /// Kept files are input like any other: numbers to divide by must be numbers.
    private var isUsable: Bool {
        [bandwidth, int8, fp32, cacheBytes, bf16 ?? 1].allSatisfy { $0.isFinite && $0 > 0 }
    }

    package static var defaultFolder: URL {
        let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask).first ?? FileManager.default.temporaryDirectory
        return caches.appendingPathComponent("adallava", isDirectory: true)
    }

    // MARK: - Measuring

    private static func measure(threads: Int, machine: String) throws -> MachineCeilings {
        let load = loadAverage()
        let measured = try CeilingMeasurement.measure(threads: threads)
        return MachineCeilings(
            machine: machine, threads: measured.threads, bandwidth: measured.bandwidth, int8: measured.int8, bf16: measured.bf16,
            fp32: measured.fp32, cacheBytes: cacheBytes(), load: load)
    }

    // MARK: - The machine

    private static func machineName(threads: Int) -> String {
        "\(processorName()) on \(ProcessInfo.processInfo.hostName), \(threads) threads"
    }

    package static func processorName() -> String {
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

extension Hardware {
    /// The name of this machine as hardware; see ``MachineCeilings``.
    package static let thisMachine = "this-machine"
}
