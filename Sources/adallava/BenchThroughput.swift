import AdaEvaluation
import AdaLLaVA
import ArgumentParser
import Foundation

struct BenchThroughput: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "throughput", abstract: "Measure prefill and decode in tokens per second, as llama-bench does.",
        discussion: """
              adallava bench throughput --model M-Q8_0.gguf M-Q4_1.gguf --threads 1,2 --prompt-tokens 600 --generate 64 --repeat 5

            A repeat reads a prompt of random tokens and generates after it (llama-bench's pp600 and tg64 @ d600); no token ends it early. \
            --prompt-tokens 0 generates without a prompt (tg64), --generate 0 only reads. --sequences 1,2,4,8,16 generates for so many prompts at once, as \
            llama-batched-bench does: t/s is that of the whole batch. --kv f16,q8_0 measures both ways to store keys and values, round by round in turn.
            """)

    @Option(name: [.customShort("m"), .customLong("model")], parsing: .upToNextOption, help: "Checkpoint folders, .safetensors or .gguf files; by default the embedded model.")
    var model: [String] = []

    @Option(name: [.customShort("t"), .customLong("threads")], help: "Threads, separated by commas; by default one per processor.")
    var threads: String?

    @Option(help: "auto: the fastest arithmetic for the weights' type; q8: the same with float weights quantized to 8 bits; f32: all in float32.")
    var precision: Precision = .automatic

    @Option(help: "How keys and values are stored: f16, q8_0, or both with a comma between them.")
    var kv = KeyValueType.f16.rawValue

    @OptionGroup var placement: PlacementFlag

    @Option(name: [.customLong("prompt-tokens"), .customLong("n-prompt")], parsing: .unconditional, help: "Tokens of the prompt; by default \(Throughput.usualPrompt), or fewer if the model's context is shorter.")
    var promptTokens: Int?

    @Option(name: [.customShort("n"), .customLong("generate"), .customLong("n-gen")], parsing: .unconditional, help: "Tokens to generate.")
    var generate = 64

    @Option(help: "Batch sizes, separated by commas.")
    var sequences = "1"

    @Option(name: .customLong("repeat"), parsing: .unconditional, help: "Repeats, after one warm-up.")
    var repeats = 5

    @Option(name: [.customLong("budgets"), .customLong("budget")], help: "Budgets, separated by commas, each a fraction of the full model's compute.")
    var budgets = "1.0"

    @OptionGroup var output: BenchOutputFlags

    func validate() throws {
        _ = try threadCounts(threads)
        _ = try keyValueTypes(kv)
    }

    func run() async throws {
        try await reporting {
            var throughput = Throughput()
            throughput.budgets = try fractions(of: budgets)
            (throughput.promptTokens, throughput.generatedTokens, throughput.repeats) = (promptTokens, generate, repeats)
            throughput.sequences = try counts(sequences, "--sequences")
            try throughput.validate()
            let urls = try model.isEmpty ? [ModelLocation.find(nil)] : model.map(ModelLocation.find)
            // Requests that one of the models cannot run are refused before the first is measured.
            let reports = try urls.map { url in
                let report = try ModelReport(contentsOf: url)
                try throughput.validate(for: AnalyzedModel(name: HuggingFaceCache.displayName(of: url), configuration: report.configuration))
                return report
            }
            let plotter = try output.prepare()
            let runs = try urls.indices.flatMap { index in try threadCounts(threads).map { (index, $0) } }
            let (experiment, precision, placement, types) = (throughput, precision, placement.placement, try keyValueTypes(kv))
            let report = try await withInterruption {
                try await experiment.run(
                    count: runs.count, environment: .current,
                    load: { number in
                        let (index, threads) = runs[number]
                        var options = AdaptiveModel.Options()
                        (options.threads, options.precision, options.placement) = (threads, precision, placement)
                        var variants: [(model: AdaptiveModel, description: ExperimentModel)] = []
                        for type in types {
                            options.keyValueType = type
                            // Quietly after the first: the progress that people see is that of the measurements.
                            let model =
                                number == 0 && variants.isEmpty
                                ? try await loadWithProgress(
                                    Checkpoint.open(at: urls[index], projector: options.projector, visionTower: options.visionTower), options)
                                : try await AdaptiveModel(contentsOf: urls[index], options: options)
                            variants.append((model, ExperimentModel(reports[index], at: urls[index], loadedAs: model, options)))
                        }
                        return variants
                    }
                ) { Console.shared.measuring($0) }
            }
            try output.deliver(report, plotter: plotter)
        }
    }
}
