import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct BenchRequests: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "requests", abstract: "Time requests one after another: the first one, more about its image, others about other images.",
        discussion: """
              adallava bench requests --image a.jpg b.jpg c.jpg
              adallava bench requests --data val.json --requests 16

            Each repeat loads the model anew and asks once about the first image, then --requests more questions about it, then one question \
            about each of the same number of other images.
            """)

    @OptionGroup var model: ModelFlags

    @Option(
        parsing: .upToNextOption, help: "Image files, at least two, after one --image or several.",
        completion: .file())
    var image: [String] = []

    @Option(help: "Images and questions: a Scenes JSON file, as `data scenes` writes it, or a folder with one.")
    var data: String?

    @Option(parsing: .upToNextOption, help: "Questions to ask in turn, at least two; by default the data's, or some general ones.")
    var questions: [String] = []

    @Option(parsing: .unconditional, help: "Requests of each warm pattern in a repeat; at most the number of other images.")
    var requests = 8

    @Option(name: .customLong("repeat"), parsing: .unconditional, help: "Repeats; each loads the model and asks everything.")
    var repeats = 5

    @Option(parsing: .unconditional, help: "A fraction of the full model's compute, above 0 and at most 1.")
    var budget = "1"

    @Option(name: [.customShort("n"), .customLong("max-tokens")], parsing: .unconditional, help: "Maximum tokens of an answer.")
    var maxTokens = 32

    @OptionGroup var output: BenchOutputFlags

    func validate() throws {
        if image.isEmpty == (data == nil) { throw ValidationError("expected either --image FILE... or --data FILE.json") }
    }

    func run() async throws {
        try await reporting {
            guard case .fraction(let fraction) = try Budget(parsing: budget) else { throw BudgetError.timesNotHere(budget) }
            var patterns =
                try data.map { try RequestPatterns(samples: ScenesBenchmark(contentsOf: URL(systemPath: $0)).samples, questions: questions) }
                ?? RequestPatterns(images: image.map { URL(systemPath: $0) }, questions: questions)
            (patterns.requests, patterns.repeats, patterns.maxTokens, patterns.budget) = (requests, repeats, maxTokens, fraction)
            try patterns.validate()
            // A picture that cannot be read is reported before the model is loaded.
            let damaged = DamagedImages { Console.shared.warn($0) }
            for item in patterns.items.prefix(requests + 1) { damaged.note(try item.image.load().damage) }
            let plotter = try output.prepare()
            let (experiment, flags) = (patterns, model)
            let report = try await withInterruption {
                let (url, options) = (try flags.locate(), flags.compute.options)
                let report = try flags.inspect()
                return try await experiment.run(
                    environment: .current,
                    load: {
                        // Quietly: the progress that people see is that of the requests.
                        let model = try await AdaptiveModel(contentsOf: url, options: options)
                        return (model, ExperimentModel(report, at: url, loadedAs: model, options))
                    }, damaged: damaged
                ) { Console.shared.measuring($0) }
            }
            try output.deliver(report, plotter: plotter)
        }
    }
}
