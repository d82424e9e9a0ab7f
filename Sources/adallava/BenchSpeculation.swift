import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct BenchSpeculation: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "speculation", abstract: "Answer one question with and without drafted tokens, and report decode and accepted drafts.",
        discussion: """
              adallava bench speculation photo.jpg "Describe the image." --speculate auto,2,4
              adallava bench speculation -m SmolLM2-135M-Instruct-Q8_0.gguf "Repeat this text: ..."

            Every answer has --max-tokens tokens, whatever token would end it.
            """)

    @Argument(help: ArgumentHelp("An image (a file, - for standard input, a file: or a data: URL), then the question; a question alone for text models.", valueName: "image … question"), completion: .file())
    var input: [String] = []

    @OptionGroup var model: ModelFlags

    @Option(help: "Settings beside none, separated by commas: auto, or numbers of tokens.")
    var speculate = "auto"

    @Option(parsing: .unconditional, help: "The budget.")
    var budget = "1"

    @Option(name: .customLong("repeat"), parsing: .unconditional, help: "Repeats of every setting, after one warm-up.")
    var repeats = 9

    @Option(name: [.customShort("n"), .customLong("max-tokens")], parsing: .unconditional, help: "Tokens of an answer.")
    var maxTokens = 64

    @OptionGroup var output: BenchOutputFlags

    func validate() throws {
        guard (1 ... 2).contains(input.count) else {
            throw ValidationError("expected an image and a question, or a question, found \(input.isEmpty ? "neither" : input.joined(separator: " "))")
        }
        try Question.expectText(input[input.count - 1])
        _ = try settings()
    }

    private func settings() throws -> [Speculation] {
        try speculate.split(separator: ",", omittingEmptySubsequences: false).map { part in
            guard let setting = Speculation(part.trimmingCharacters(in: .whitespaces)) else {
                throw ValidationError("--speculate: expected auto, or numbers from 1 to \(Speculation.mostTokens), with commas between them, found '\(part)'")
            }
            return setting
        }
    }

    func run() async throws {
        try await reporting {
            var bench = SpeculationBench(question: input[input.count - 1], image: nil)
            (bench.budget, bench.settings, bench.repeats, bench.tokens) = (try Budget(parsing: budget), try settings(), repeats, maxTokens)
            // Errors in the request are reported before the model is loaded.
            try bench.validate()
            if input.count == 2 { bench.image = try readImage(input[0]) }
            let plotter = try output.prepare()
            let (experiment, flags) = (bench, model)
            let report = try await withInterruption {
                let (model, description) = try await flags.measured()
                return try await experiment.run(model, as: description, environment: .current) { Console.shared.measuring($0) }
            }
            try output.deliver(report, plotter: plotter)
        }
    }
}
