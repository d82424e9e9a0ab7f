import AdaEvaluation
import AdaLLaVA
import AdaProbes
import ArgumentParser
import Foundation

/// How much of the memory's bandwidth a decode uses.
///
/// What other guests of a host leave of it changes by a half within seconds, so that two rates that were measured one after the other say little.
/// Here a buffer is read after every token, and the median of the tokens' own shares counts.
struct DecodeBandwidth: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compare the speed of decoding with the speed of reading memory.",
        discussion: """
            Decodes tokens after a prompt (600 tokens without --prompt), reads a buffer larger than the caches after each, and prints which \
            share of the memory's bandwidth the decode used.
            """)

    @Argument(help: "A checkpoint.")
    var checkpoint: String

    @OptionGroup var promptOption: PromptOption

    private var prompt: Int { promptOption.prompt ?? 600 }

    @Option(help: "Tokens to decode.")
    var tokens = 64

    @Option(help: "Repeats of prefill and decode.")
    var repeats = 3

    @OptionGroup var measurement: MeasurementOptions

    func validate() throws {
        if prompt < 1 || tokens < 2 || repeats < 1 { throw ValidationError("expected --prompt 1, --tokens 2, --repeats 1 or more") }
    }

    func run() async throws {
        let url = URL(fileURLWithPath: checkpoint)
        var options = AdaptiveModel.Options()
        options.threads = measurement.threads
        let model = try await AdaptiveModel(contentsOf: url, options: options)
        let report = try ModelReport(contentsOf: url)
        let bytes = Double(tokenBytes(report, url))
        let reader = try BandwidthReader(threads: measurement.threads)
        let rates = Rates()
        func ids(_ count: Int) -> [Int] { (0 ..< count).map { $0 * 7 % 97 + 1 } }
        var times: [Double] = []
        for round in 0 ..< repeats {
            times += try await model.measureDecoder(prompt: ids(prompt), tokens: ids(tokens)) { rates.append(reader.read()) }.map { $0 / .seconds(1) }
            note("  round \(round + 1) of \(repeats)")
        }
        // What the memory gave before and after a token; before a round's first one was the prompt.
        let read = rates.values
        let shares = times.indices.filter { $0 % tokens > 0 }.map { bytes / times[$0] / ((read[$0 - 1] + read[$0]) / 2) }
        let (step, bandwidth, share) = (median(times), median(read), median(shares))
        print(
            String(
                format: "%@: %.3f ms a token, %.0f MB of weights, %.1f GB/s of %.1f: %.3f", url.lastPathComponent, 1000 * step, bytes / 1e6,
                bytes / step / 1e9, bandwidth / 1e9, share))
        try writeJSON(
            [
                "model": url.lastPathComponent, "prompt": prompt, "tokens": tokens, "repeats": repeats, "load": loadAverage(), "token_bytes": bytes,
                "decode_ms": 1000 * step, "bandwidth_gb_s": bandwidth / 1e9, "share": share,
            ], to: measurement.json)
    }

    private final class Rates: @unchecked Sendable {
        private let lock = NSLock()
        private var all: [Double] = []
        var values: [Double] { lock.withLock { all } }
        func append(_ rate: Double) { lock.withLock { all.append(rate) } }
    }
}
