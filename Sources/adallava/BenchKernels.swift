import AdaEvaluation
import AdaLLaVA
import ArgumentParser
import Foundation

struct BenchKernels: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kernels", abstract: "Time single operations against the machine's measured ceilings.",
        discussion: """
              adallava bench kernels
              adallava bench kernels --shape 7b --types q4_0,q8_0 --threads 1,2

            First measures the machine's ceilings: memory bandwidth, and 8-bit, BF16 and float32 multiply-adds in registers. Then the \
            engine's operations on the shapes of a model's layers: products and attention of one token (GB/s, fraction of the bandwidth) and \
            of a prompt (GOPS, fraction of the multiply-adds), elementwise operations, and an empty run of the thread pool. Weights are \
            random.
            """)

    @Option(help: "The layers to measure: smollm2, 1b, 7b (with its vision tower), or a shape that `analyze` knows.")
    var shape = "smollm2"

    @Option(help: "Weight types, separated by commas: \(KernelBench.typeNames.joined(separator: ", ")); by default those that are packed.")
    var types: String?

    @Option(help: "Operations to measure besides the ceilings, separated by commas: \(KernelBench.Part.allCases.map(\.rawValue).joined(separator: ", ")), or none.")
    var parts: String?

    @Option(name: [.customShort("t"), .customLong("threads")], help: "Threads, separated by commas; by default one per processor.")
    var threads: String?

    @Option(name: .customLong("repeat"), parsing: .unconditional, help: "Repeats of every operation, after one warm-up.")
    var repeats = 15

    @Option(name: [.customLong("prompt-tokens"), .customLong("n-prompt")], parsing: .unconditional, help: "Tokens of a prefill.")
    var promptTokens = 512

    @Option(help: "Rows of the products, separated by commas, such as 1,2,4,8,16 for batches of that size; by default 1 and --prompt-tokens.")
    var tokens: String?

    @Option(parsing: .unconditional, help: "Tokens in the KV cache of a decode's attention.")
    var depth = 600

    @Option(parsing: .unconditional, help: "Megabytes of weights that decode operations cycle through; by default four times the last-level cache.")
    var stream: Int?

    @OptionGroup var output: BenchOutputFlags

    func validate() throws {
        _ = try bench()
    }

    private func list(_ text: String) -> [String] {
        text.split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
    }

    private func bench() throws -> KernelBench {
        var bench = KernelBench(shape: try shapeOrUsage())
        bench.types = try types.map { text in
            try list(text).map { name in
                guard let type = ElementType.allCases.first(where: { $0.rawValue.lowercased() == name.lowercased() }) else {
                    throw ValidationError("--types: expected \(KernelBench.typeNames.joined(separator: ", ")), found '\(name)'")
                }
                return type
            }
        }
        if let parts {
            bench.parts = try parts == "none" ? [] : list(parts).map { name in
                guard let part = KernelBench.Part(rawValue: name) else {
                    throw ValidationError(
                        "--parts: expected \(KernelBench.Part.allCases.map(\.rawValue).joined(separator: ", ")) or none, found '\(name)'")
                }
                return part
            }
        }
        bench.threads = try threadCounts(threads)
        (bench.repeats, bench.promptTokens, bench.depth) = (repeats, promptTokens, depth)
        bench.tokens = try tokens.map { try counts($0, "--tokens", atMost: 1 << 14) }
        bench.streamedBytes = stream.map { min(max($0, 0), 1 << 30) << 20 }
        try usable(bench.validate)
        return bench
    }

    private func shapeOrUsage() throws -> AnalyzedModel {
        do { return try KernelBench.shape(shape) } catch let error as any AdaLLaVAError { throw ValidationError(error.description) }
    }

    func run() async throws {
        try await reporting {
            let bench = try bench()
            let plotter = try output.prepare()
            let report = try await withInterruption { try bench.run(environment: .current) { Console.shared.measuring($0) } }
            try output.deliver(report, plotter: plotter)
        }
    }
}
