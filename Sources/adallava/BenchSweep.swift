import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct BenchSweep: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sweep", abstract: "Ask one question about one image at every budget, and report answer, FLOPs, time and memory.",
        discussion: "A budget below the model's floor is marked and run at the floor; a model without a scheduler runs at 1 only.")

    @Argument(
        help: ArgumentHelp(
            "The image (JPEG, PNG, WebP, GIF, BMP; - for standard input, a file: or a data: URL), then the question.", valueName: "image question"),
        completion: .file())
    var input: [String] = []

    @Option(help: "The image, instead of the first argument.", completion: .file())
    var image: String?

    @Option(name: [.customShort("p"), .customLong("prompt")], parsing: .unconditional, help: "The question, instead of the last argument.")
    var prompt: String?

    @OptionGroup var model: ModelFlags

    @Option(name: [.customLong("budgets"), .customLong("budget")], help: "Budgets, separated by commas, each a fraction of the full model's compute.")
    var budgets = "1.0,0.9,0.8,0.7,0.6,0.5,0.4,0.3,0.2,0.1"

    @Option(name: .customLong("repeat"), parsing: .unconditional, help: "Repeats of every budget, after one warm-up.")
    var repeats = 7

    @Option(name: [.customShort("n"), .customLong("max-tokens")], parsing: .unconditional, help: "Maximum tokens of an answer.")
    var maxTokens = 128

    @Option(help: "How FLOPs and memory are calculated. reference: the published experiments' count; exact: the engine's operations.")
    var formula: CostFormula = .exact

    @OptionGroup var output: BenchOutputFlags

    func validate() throws {
        let expected = (image == nil ? 1 : 0) + (prompt == nil ? 1 : 0)
        guard input.count == expected else {
            throw ValidationError("expected an image and a question, found \(input.isEmpty ? "neither among the arguments" : input.joined(separator: " "))")
        }
        try Question.expectText(prompt ?? input[input.count - 1])
    }

    func run() async throws {
        try await reporting {
            let image = image ?? input[0]
            var sweep = BudgetSweep(question: prompt ?? input[input.count - 1], image: nil)
            sweep.budgets = try fractions(of: budgets)
            (sweep.repeats, sweep.maxTokens, sweep.formula) = (repeats, maxTokens, formula)
            // Errors in the request are reported before the model is loaded.
            try sweep.validate()
            sweep.image = try readImage(image)
            let plotter = try output.prepare()
            let (experiment, flags) = (sweep, model)
            let report = try await withInterruption {
                let (model, description) = try await flags.measured()
                return try await experiment.run(model, as: description, environment: .current) { Console.shared.measuring($0) }
            }
            try output.deliver(report, plotter: plotter)
        }
    }
}
