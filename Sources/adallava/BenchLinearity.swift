import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct BenchLinearity: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "linearity", abstract: "Fit straight lines to time against FLOPs over the budgets.",
        discussion: """
            Times the first token, whole answers and single tokens at each budget that the model's units allow, without budgets below the floor. \
            The image is encoded anew for every request, so that the time to the first token includes the vision tower.
            """)

    @OptionGroup var model: ModelFlags

    @Option(name: [.customLong("budgets"), .customLong("budget")], help: "Budgets, separated by commas, each a fraction of the full model's compute.")
    var budgets = "1.0,0.9,0.8,0.7,0.6,0.5"

    @Option(help: "The image of a vision model's requests; by default a synthetic one.")
    var image: String?

    @Option(parsing: .unconditional, help: "Synthetic text tokens of the prompt, in addition to the image's.")
    var promptTokens = 64

    @Option(name: [.customShort("n"), .customLong("generate"), .customLong("n-gen")], parsing: .unconditional, help: "Tokens of a whole answer.")
    var generate = 50

    @Option(name: .customLong("repeat"), parsing: .unconditional, help: "Repeats of every budget, after one warm-up; by default 9 to 101, as many as fit 20 s.")
    var repeats: Int?

    @OptionGroup var output: BenchOutputFlags

    func run() async throws {
        try await reporting {
            var linearity = Linearity()
            linearity.budgets = try fractions(of: budgets)
            (linearity.promptTokens, linearity.answerTokens, linearity.repeats) = (promptTokens, generate, repeats)
            try linearity.validate()
            linearity.image = try image.map { try readImage($0) }
            let plotter = try output.prepare()
            let (experiment, flags) = (linearity, model)
            let report = try await withInterruption {
                let (model, description) = try await flags.measured()
                return try await experiment.run(model, as: description, environment: .current) { Console.shared.measuring($0) }
            }
            try output.deliver(report, plotter: plotter)
        }
    }
}
