import AdaLLaVA
import ArgumentParser
import Foundation

/// The most memory that loading a model and answering with it take.
struct Memory: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Load a model, read a prompt, decode, and compare the peak memory with the weights and the KV cache.",
        discussion: "The limit is 1.25 times the weights, as the file holds them, plus the KV cache plus 100 MB.")

    @Argument(help: "A checkpoint; without it, a random model of the shape and type below.")
    var checkpoint: String?

    @OptionGroup var model: ModelOptions

    @Option(help: "Tokens of the prompt.")
    var prompt = 64

    @Option(help: "Tokens to generate.")
    var tokens = 32

    @Option(help: "Threads; one for each processor by default.")
    var threads: Int?

    @Option(help: "A file to write the numbers to.")
    var json: String?

    func validate() throws {
        if prompt < 1 || tokens < 1 { throw ValidationError("expected --prompt and --tokens of 1 or more") }
    }

    func run() async throws {
        let url = try checkpoint.map { URL(fileURLWithPath: $0) } ?? model.file(nil)
        // The random model may just have been written by this process.
        if checkpoint == nil { resetPeakMemory() }
        var options = AdaptiveModel.Options()
        options.threads = threads
        let loaded = try await AdaptiveModel(contentsOf: url, options: options)
        let afterLoading = try peakMemory()
        let summary = try await loaded.measure(
            tokens: (0 ..< prompt).map { $0 * 7 % 97 + 1 }, budget: .full, maxTokens: tokens)
        let peak = try peakMemory()
        // Looks at the file only now: it maps it once more.
        let weights = try ModelReport(contentsOf: url).weightBytes
        let allowed = Int(1.25 * Double(weights)) + summary.keyValueBytes + 100_000_000
        let passed = peak <= allowed
        func megabytes(_ bytes: Int) -> String { String(format: "%.1f MB", Double(bytes) / 1e6) }
        print(
            "\(passed ? "pass" : "FAIL") \(url.deletingPathExtension().lastPathComponent): peak \(megabytes(peak)) (\(megabytes(afterLoading)) after loading), "
                + "limit \(megabytes(allowed)) = 1.25 x weights \(megabytes(weights)) + KV \(megabytes(summary.keyValueBytes)) + 100 MB; "
                + String(format: "peak / limit %.3f", Double(peak) / Double(allowed)))
        try writeJSON(
            [
                "model": url.lastPathComponent, "peak_bytes": peak, "peak_after_loading_bytes": afterLoading, "weight_bytes": weights,
                "kv_bytes": summary.keyValueBytes, "limit_bytes": allowed, "passed": passed,
            ], to: json)
        if !passed { throw ExitCode(1) }
    }
}

/// The largest resident memory of this process so far, bytes, mapped files included.
private func peakMemory() throws -> Int {
    #if os(Linux)
        // Not getrusage: its number is inherited from whoever started this program.
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        guard let kilobytes = line?.split(separator: " ").compactMap({ Int($0) }).first else {
            throw ValidationError("/proc/self/status has no line VmHWM")
        }
        return kilobytes * 1024
    #else
        var usage = rusage()
        getrusage(RUSAGE_SELF, &usage)
        return usage.ru_maxrss
    #endif
}

/// Makes ``peakMemory()`` start again from what is in use now, where the system can.
private func resetPeakMemory() {
    #if os(Linux)
        try? Data("5".utf8).write(to: URL(fileURLWithPath: "/proc/self/clear_refs"))
    #endif
}
