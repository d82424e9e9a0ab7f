import AdaLLaVA
import AdaProbes
import Foundation

/// Result of ``KernelBench``.
package struct KernelReport: ExperimentReport {
    /// One operation of one size on some threads.
    package struct Result: Sendable {
        package let part: KernelBench.Part
        package let operation: String
        /// Outputs x inputs, heads, or values of a row.
        package let shape: String
        /// Of weights, or of keys and values; `nil` where there are none.
        package let type: String?
        package let threads: Int
        /// Rows of activations: 1 in a decode, 0 for an operation without activations.
        package let tokens: Int
        /// Of one turn.
        package let microseconds: SampleStatistics
        /// Multiplications and additions, and bytes, of one turn.
        package let operations: Double
        package let bytes: Double
        let arithmetic: OperationProbe.Arithmetic
        let ceiling: CeilingMeasurement

        init(
            part: KernelBench.Part, operation: String, shape: String, type: String?, threads: Int, tokens: Int, microseconds: SampleStatistics,
            operations: Double, bytes: Double, arithmetic: OperationProbe.Arithmetic, ceiling: CeilingMeasurement
        ) {
            (self.part, self.operation, self.shape, self.type, self.threads, self.tokens) = (part, operation, shape, type, threads, tokens)
            (self.microseconds, self.operations, self.bytes) = (microseconds, operations, bytes)
            (self.arithmetic, self.ceiling) = (arithmetic, ceiling)
        }

        private var seconds: Double { max(microseconds.median * 1e-6, 1e-12) }
        /// Bytes a second at the median.
        package var bandwidth: Double { bytes / seconds }
        /// Operations a second at the median.
        package var rate: Double { operations / seconds }

        /// Whether it is held against the bandwidth: products and attention of one token.
        package var isBoundByMemory: Bool { tokens == 1 && operations > 0 }

        /// `memory`, `int8`, `int16`, `bf16` or `f32`; `nil` for an operation without a ceiling of its own.
        package var bound: String? {
            if isBoundByMemory { return "memory" }
            return operations > 0 ? arithmetic.rawValue : nil
        }

        /// The fraction of the ceiling that was reached.
        package var share: Double? {
            if isBoundByMemory { return ceiling.bandwidth > 0 ? bandwidth / ceiling.bandwidth : nil }
            guard operations > 0, let limit = ceiling.ceiling(arithmetic), limit > 0 else { return nil }
            return rate / limit
        }
    }

    package static let name = "kernels"
    /// Ceilings and operations that were measured.
    package let repeats: ExperimentRepeats
    package let environment: ExperimentEnvironment
    package var models: [ExperimentModel] { [] }
    package let shape: String
    package let kernels: String
    package let streamedBytes: Int
    /// Times that each operation was measured.
    package let measurements: Int
    package let ceilings: [CeilingMeasurement]
    package let results: [Result]

    package var modelLines: [String] {
        [
            "shape    \(shape); kernels \(kernels); each median of \(measurements)",
            "memory   last-level cache \(CeilingMeasurement.lastLevelCache >> 20) MB; a decode's operations read \(streamedBytes >> 20) MB before the same again", "",
        ]
    }

    package struct Details: Codable, Sendable {
        package var shape: String
        package var kernels: String
        package var streamedBytes: Int
        package var lastLevelCacheBytes: Int
        package var ceilings: [Ceiling]
        package var results: [Entry]

        enum CodingKeys: String, CodingKey {
            case shape, kernels, ceilings, results
            case streamedBytes = "streamed_bytes"
            case lastLevelCacheBytes = "last_level_cache_bytes"
        }

        /// Limits of the machine with some threads.
        package struct Ceiling: Codable, Sendable {
            package var threads: Int
            package var bandwidth: Double
            package var int8: Double
            @Nullable package var bf16: Double?
            package var f32: Double

            enum CodingKeys: String, CodingKey {
                case threads
                case bandwidth = "bandwidth_gb_s"
                case int8 = "int8_gops"
                case bf16 = "bf16_gflops"
                case f32 = "f32_gflops"
            }
        }

        /// One operation of one size on some threads.
        package struct Entry: Codable, Sendable {
            package var part: String
            package var operation: String
            package var shape: String
            @Nullable package var type: String?
            package var threads: Int
            package var tokens: Int
            package var microseconds: SampleStatistics.JSON
            package var bandwidth: Double
            package var gops: Double
            @Nullable package var bound: String?
            @Nullable package var share: Double?

            enum CodingKeys: String, CodingKey {
                case part, operation, shape, type, threads, tokens, microseconds, gops, bound, share
                case bandwidth = "gb_s"
            }
        }
    }

    package var details: Details {
        Details(
            shape: shape, kernels: kernels, streamedBytes: streamedBytes, lastLevelCacheBytes: CeilingMeasurement.lastLevelCache,
            ceilings: ceilings.map { ceiling in
                Details.Ceiling(
                    threads: ceiling.threads, bandwidth: ceiling.bandwidth / 1e9, int8: ceiling.int8 / 1e9, bf16: ceiling.bf16.map { $0 / 1e9 },
                    f32: ceiling.fp32 / 1e9)
            },
            results: results.map { result in
                Details.Entry(
                    part: result.part.rawValue, operation: result.operation, shape: result.shape, type: result.type, threads: result.threads,
                    tokens: result.tokens, microseconds: result.microseconds.json, bandwidth: result.bandwidth / 1e9, gops: result.rate / 1e9,
                    bound: result.bound, share: result.share)
            })
    }

    package var csv: String {
        let header = [
            "processor", "kernels", "part", "operation", "shape", "type", "threads", "tokens", "n", "microseconds", "min", "max", "gb_s", "gops",
            "bound", "share",
        ]
        return ExperimentText.csv([header] + ceilings.flatMap(csvRows) + results.map(csvRow))
    }

    private func csvRows(_ ceiling: CeilingMeasurement) -> [[String]] {
        let rates: [(name: String, rate: Double?)] = [
            ("memory", ceiling.bandwidth), ("int8", ceiling.int8), ("bf16", ceiling.bf16), ("f32", ceiling.fp32),
        ]
        return rates.compactMap { name, rate -> [String]? in
            guard let rate else { return nil }
            let amount = "\(rate / 1e9)"
            let columns = name == "memory" ? [amount, ""] : ["", amount]
            return [environment.processor, kernels, "ceiling", name, "", "", "\(ceiling.threads)", "", "", "", "", ""] + columns + [name, "1"]
        }
    }

    private func csvRow(_ result: Result) -> [String] {
        let time = result.microseconds
        let times: [String] = ["\(time.count)", "\(time.median)", "\(time.minimum)", "\(time.maximum)"]
        let rates: [String] = ["\(result.bandwidth / 1e9)", "\(result.rate / 1e9)", result.bound ?? "", result.share.map { "\($0)" } ?? ""]
        let names: [String] = [environment.processor, kernels, result.part.rawValue, result.operation, result.shape, result.type ?? ""]
        return names + ["\(result.threads)", "\(result.tokens)"] + times + rates
    }

    package var lines: [String] {
        let ceilingHeader = ["ceiling", "threads", "memory GB/s", "int8 GOPS", "bf16 GFLOPS", "f32 GFLOPS"]
        var lines = ExperimentText.markdown([ceilingHeader] + ceilings.map(tableRow), textColumns: [0]) + [""]
        guard !results.isEmpty else { return lines }
        let header = ["operation", "shape", "type", "threads", "tokens", "µs", "min … max", "GB/s", "GOPS", "of ceiling"]
        lines += ExperimentText.markdown([header] + results.map(tableRow), textColumns: [0, 1, 2])
        return lines + [
            "",
            "1 token: weights, keys and values come from memory and are held against its bandwidth; more tokens: against the multiply-adds of the arithmetic used",
            "ceilings: the median of rounds that only read memory, the best of rounds that only multiply in registers. µs: the median, for all heads or matrices of a layer",
        ]
    }

    private func giga(_ rate: Double) -> String { ExperimentText.number(rate / 1e9) }

    private func tableRow(_ ceiling: CeilingMeasurement) -> [String] {
        [
            "measured", "\(ceiling.threads)", giga(ceiling.bandwidth), giga(ceiling.int8), ceiling.bf16.map(giga) ?? "none", giga(ceiling.fp32),
        ]
    }

    private func tableRow(_ result: Result) -> [String] {
        let time = result.microseconds
        let spread = ExperimentText.number(time.minimum) + " … " + ExperimentText.number(time.maximum)
        let share = result.share.map { String(format: "%.1f %% ", $0 * 100) + (result.bound ?? "") } ?? ""
        let names: [String] = [result.operation, result.shape, result.type ?? "", "\(result.threads)", result.tokens > 0 ? "\(result.tokens)" : ""]
        // Memory traffic of a prompt's products does not limit them.
        let readsMatter = result.bytes > 0 && (result.isBoundByMemory || result.operations == 0)
        let rates: [String] = [readsMatter ? giga(result.bandwidth) : "", result.operations > 0 ? giga(result.rate) : "", share]
        return names + [ExperimentText.number(time.median), spread] + rates
    }

    /// Bars: the fraction of its ceiling that each operation reaches.
    package func chartScript(to path: String, format: ChartFormat) -> String {
        let bars = results.compactMap { result in result.share.map { (result, $0) } }
        func label(_ result: Result) -> String {
            let tokens = "\(result.tokens) token" + (result.tokens == 1 ? "" : "s")
            let threads = "\(result.threads) thread" + (result.threads == 1 ? "" : "s")
            let names: [String] = [result.operation, result.type ?? "", tokens, threads]
            return names.filter { !$0.isEmpty }.joined(separator: ", ")
        }
        let names = bars.enumerated().map { "\(Gnuplot.quoted(label($1.0))) \($0)" }
        var lines = Gnuplot.preamble(to: path, format: format, width: 900, height: 120 + 20 * max(bars.count, 1)) + [
            "set title \(Gnuplot.quoted("Single operations against the machine's ceilings: \(shape), \(environment.processor), \(kernels)"))",
            "set grid xtics lt 1 lw 1 lc rgb '#d0d0d0'", "set border 3", "set tics nomirror", "set style fill solid 1 noborder", "set key bmargin center horizontal",
            "set xlabel 'share of the ceiling (%)'", "set xrange [0:105]", "set yrange [\(Double(max(bars.count, 1)) - 0.4):-0.6]",
            "set ytics (\(names.joined(separator: ", ")))", "$memory << END",
        ]
        func points(_ isMemory: Bool) -> [String] {
            let points = bars.enumerated().filter { $1.0.isBoundByMemory == isMemory }.map { "\($0) \($1.1 * 100)" }
            // A block without points is an error to gnuplot.
            return points.isEmpty ? ["-5 0"] : points
        }
        lines += points(true) + ["END", "$multiply << END"] + points(false) + ["END"]
        lines.append(
            "plot $memory using ($2/2):1:($2/2):(0.32) with boxxyerror lc rgb '#1f5fd2' title 'memory bandwidth', "
                + "$multiply using ($2/2):1:($2/2):(0.32) with boxxyerror lc rgb '#d2691e' title 'multiply-adds'")
        return lines.joined(separator: "\n") + "\n"
    }
}

extension CeilingMeasurement {
    /// The ceiling of operations of one kind.
    package func ceiling(_ arithmetic: OperationProbe.Arithmetic) -> Double? {
        switch arithmetic {
        // Where 16-bit products are used, 8-bit ones are sums of pairs that take the same multiplications.
        case .int8, .int16: int8
        case .bf16: bf16
        case .f32: fp32
        }
    }
}
