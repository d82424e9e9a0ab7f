import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct Auto: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make the budget head, with which `--budget auto` meets the need of each input.",
        discussion: """
              adallava auto label --model M --data fit.json --output fit.safetensors
              adallava auto label --model M --data calibration.json --output calibration.safetensors
              adallava auto fit --model M --labels fit.safetensors --calibration calibration.safetensors

            Labels are made with the model itself, on data that it was not trained on: see docs/adaptive.md.
            """, subcommands: [Label.self, Fit.self])

    struct Label: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Answer every question at every number of units, as labels for a budget head.")

        @Option(help: "The benchmark that --data is of.")
        var task: BenchmarkTask = .scenes

        @Option(help: "The benchmark's folder; for scenes its JSON file, which may also be any list in LLaVA's instruction format.")
        var data: String

        @OptionGroup var model: ModelFlags

        @Option(help: "Use at most this many samples: the first, or with --seed some drawn at random.")
        var limit: Int?

        @Option(help: "Draw the samples of --limit with this seed.")
        var seed: UInt64?

        @Option(help: "The file of labels, .safetensors.")
        var output: String

        func validate() throws {
            if let limit, limit < 1 { throw ValidationError("--limit: expected 1 or more, found \(limit)") }
            if seed != nil && limit == nil { throw ValidationError("--seed: expected --limit, whose samples it draws") }
        }

        func run() async throws {
            try await reporting {
                let file = URL(systemPath: output)
                try expectWritable(file)
                let url = URL(systemPath: data)
                let benchmark = task == .scenes ? try InstructionQuestions.open(url) : try task.open(url)
                let samples = EvaluationSettings.drawn(benchmark.samples, limit: limit, seed: seed)
                let flags = model
                let labels = try await withInterruption {
                    let loaded = try await flags.load()
                    return try await BudgetLabels.make(loaded, benchmark, samples) { Console.shared.progress("answering at all units", done: $0, of: $1) }
                }
                Console.shared.finishProgress()
                try labels.write(to: file)
                Console.shared.message("labels of \(labels.count) inputs: \(file.path)")
            }
        }
    }

    struct Fit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Fit a budget head to labels, calibrate it on others, and add it to a checkpoint.",
            discussion: """
                Fits regressions and a network with a hidden layer, and keeps the one that predicts the calibration labels best. Writes budget_head.safetensors \
                next to the checkpoint's weights and "budget_head": true into its config.json. With --test the head, and one that sees only the question's \
                text, are scored on further labels.
                """)

        @Option(help: "The checkpoint's folder.", completion: .directory)
        var model: String

        @Option(parsing: .upToNextOption, help: "Files of labels to fit the head to.")
        var labels: [String]

        @Option(
            parsing: .upToNextOption,
            help: "Files of labels of other inputs, on which the loss at each mean budget is measured: that of the file that loses most.")
        var calibration: [String]

        @Option(parsing: .upToNextOption, help: "Files of labels of further inputs, to score the head on.")
        var test: [String] = []

        @Flag(help: "Only score; do not change the checkpoint.")
        var dryRun = false

        @Flag(help: "Print one JSON object.")
        var json = false

        func run() async throws {
            try await reporting {
                let folder = URL(systemPath: model)
                let checkpoint = try Checkpoint.open(at: folder)
                func read(_ files: [String]) throws -> BudgetLabels {
                    var all: BudgetLabels?
                    for file in files {
                        let labels = try BudgetLabels(contentsOf: URL(systemPath: file))
                        if all == nil { all = labels } else { try all?.append(labels) }
                    }
                    guard let all else { throw EvaluationError.argument(name: "--labels", expected: "at least one file of labels", found: "none") }
                    return all
                }
                let fitted = try read(labels), held = try calibration.map { try read([$0]) }
                let head = try BudgetHeadFit.fit(fitted, calibration: held)
                let rival = test.isEmpty ? nil : try BudgetHeadFit.fit(fitted, calibration: held, usesText: true)
                let studies = try test.map { (name: $0, study: BudgetStudy(head, on: try read([$0]), textHead: rival)) }
                if !dryRun { try BudgetHeadFit.add(head, to: checkpoint) }
                if json {
                    printNow(try adallava.json(BudgetHeadFit.JSON(head, inputs: fitted.count, calibration: held.reduce(0) { $0 + $1.count }, studies: studies)))
                } else {
                    for (name, study) in studies { printNow("\(name): " + study.table) }
                }
                if !dryRun { Console.shared.message("budget head: \(folder.path)") }
            }
        }
    }
}
