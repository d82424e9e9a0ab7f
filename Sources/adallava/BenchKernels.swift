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

            First measures what the machine does at most: reading memory, and 8-bit, BF16 and float32 multiply-adds in registers. Then the \
            engine's own operations on the shapes of a model's layers: products and attention of one token (GB/s, share of the bandwidth) and \
            of a prompt (GOPS, share of the multiply-adds), what is done value by value, and an empty run of the thread pool. Weights are \
            made up.
            """)

    @Option(help: "The layers to measure: smollm2, 1b, 7b (with its vision tower), or a shape that `analyze` knows.")
    var shape = "smollm2"

    @Option(help: "Weight types with commas between them: \(KernelBench.typeNames.joined(separator: ", ")); by default those that are packed.")
    var types: String?

    @Option(help: "What to measure beside the ceilings, with commas between: \(KernelBench.Part.allCases.map(\.rawValue).joined(separator: ", ")), or none.")
    var parts: String?

    @Option(name: [.customShort("t"), .customLong("threads")], help: "Threads, with commas between them; by default one for each processor.")
    var threads: String?

    @Option(name: .customLong("repeat"), parsing: .unconditional, help: "Times that every operation is measured, after one to warm up.")
    var repeats = 15

    @Option(name: [.customLong("prompt-tokens"), .customLong("n-prompt")], parsing: .unconditional, help: "Tokens of a prefill.")
    var promptTokens = 512

    @Option(help: "Rows of the products, with commas between the numbers, such as 1,2,4,8,16 for so many sequences together; by default 1 and --prompt-tokens.")
    var tokens: String?

    @Option(parsing: .unconditional, help: "Tokens that a decode's attention looks back on.")
    var depth = 600

    @Option(parsing: .unconditional, help: "Megabytes that a decode's operations read before they read the same again; by default four times the last-level cache.")
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
        do { return try KernelBench.shape(shape) } catch let error as any EngineError { throw ValidationError(error.description) }
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
