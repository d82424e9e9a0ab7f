import AdaLLaVA
import ArgumentParser
import Foundation

/// The most memory that loading a model and answering with it take, and how long both last.
struct Memory: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check how much memory loading a model, reading a prompt and decoding take.",
        discussion: """
            The limit is --factor times the weights, as the file holds them, plus the KV cache plus --margin megabytes. Loading is timed too, \
            and decode against the bytes that a token reads. The prompt has 64 tokens without --prompt.
            """)

    @Argument(help: "A checkpoint; without it, a random model of the shape and type below.")
    var checkpoint: String?

    @OptionGroup var model: ModelOptions

    @Option(help: "Maximum memory of the weights, as a multiple of their bytes in the file.")
    var factor = 1.25

    @Option(help: "Maximum megabytes besides weights and KV cache.")
    var margin = 100.0

    @OptionGroup var promptOption: PromptOption

    private var prompt: Int { promptOption.prompt ?? 64 }

    @Option(help: "Tokens to generate.")
    var tokens = 32

    @Flag(inversion: .prefixedNo, help: "Use Q8_0, Q4_0 and Q4_1 weights straight from the memory-mapped file, or repack them in RAM; by default the engine decides.")
    var mmap: Bool?

    @OptionGroup var measurement: MeasurementOptions

    func validate() throws {
        if prompt < 1 || tokens < 1 { throw ValidationError("expected --prompt and --tokens of 1 or more") }
        // Megabytes enough for any machine, and few enough to be counted in bytes.
        if !(0 ... 100).contains(factor) || !(0 ... 1e9).contains(margin) { throw ValidationError("expected --factor 0 to 100 and --margin 0 or more") }
    }

    func run() async throws {
        let url = try checkpoint.map { URL(fileURLWithPath: $0) } ?? model.file(nil)
        // The random model may just have been written by this process.
        if checkpoint == nil { resetPeakMemory() }
        var options = AdaptiveModel.Options()
        options.threads = measurement.threads
        if let mmap { options.placement = mmap ? .file : .memory }
        let start = ContinuousClock.now
        let loaded = try await AdaptiveModel(contentsOf: url, options: options)
        let loading = (ContinuousClock.now - start) / .milliseconds(1)
        let afterLoading = try peakMemory()
        let summary = try await loaded.measure(
            tokens: (0 ..< prompt).map { $0 * 7 % 97 + 1 }, budget: .full, maxTokens: tokens)
        let peak = try peakMemory()
        // Looks at the file only now: it maps it once more.
        let report = try ModelReport(contentsOf: url)
        let weights = report.weightBytes
        let allowed = Int(factor * Double(weights) + margin * 1e6) + summary.keyValueBytes
        let passed = peak <= allowed
        func megabytes(_ bytes: Int) -> String { String(format: "%.1f MB", Double(bytes) / 1e6) }
        print(
            "\(passed ? "pass" : "FAIL") \(url.deletingPathExtension().lastPathComponent): peak \(megabytes(peak)) (\(megabytes(afterLoading)) after loading), "
                + "limit \(megabytes(allowed)) = \(String(format: "%g", factor)) x weights \(megabytes(weights)) + KV \(megabytes(summary.keyValueBytes)) + \(String(format: "%g", margin)) MB; "
                + String(format: "peak / limit %.3f", Double(peak) / Double(allowed)))
        let perToken = tokens > 1 ? summary.measured.decode / .milliseconds(1) / Double(summary.tokens.count - 1) : nil
        print(String(format: "loaded in %.0f ms", loading) + (perToken.map { String(format: ", %.2f ms a token", $0) } ?? ""))
        try writeJSON(
            [
                "model": url.lastPathComponent, "peak_bytes": peak, "peak_after_loading_bytes": afterLoading, "weight_bytes": weights,
                "kv_bytes": summary.keyValueBytes, "limit_bytes": allowed, "passed": passed, "load_ms": loading, "decode_ms": perToken ?? NSNull(), "file_bytes": fileBytes(url) ?? NSNull(),
                "prefill_ms": summary.measured.prefill / .milliseconds(1),
                "token_bytes": tokenBytes(report, url),
            ], to: measurement.json)
        if !passed { throw ExitCode(1) }
    }
}

private func fileBytes(_ url: URL) -> Int? { try? url.resourceValues(forKeys: [.fileSizeKey]).fileSize }

/// Bytes of weights that a token reads. A tied embedding is the output layer; another one is only looked up.
func tokenBytes(_ report: ModelReport, _ url: URL) -> Int {
    report.weightBytes - (report.configuration.language.tieWordEmbeddings ? 0 : embeddingBytes(url) ?? 0)
}

/// Bytes of the embedding matrix.
private func embeddingBytes(_ url: URL) -> Int? {
    (try? Checkpoint.open(at: url).language.tensor("model.embed_tokens.weight"))?.bytes.count
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
