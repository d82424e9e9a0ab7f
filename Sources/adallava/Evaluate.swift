import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct Evaluate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "eval",
        abstract: "Score a model on a benchmark, at several budgets.",
        discussion: """
              adallava eval --task scenes --data val.json --budgets 1.0,0.85,0.6
              adallava eval --task pope --data DIR --model M --output runs/pope --charts svg

            Benchmarks are read from a local folder in their official formats: \(BenchmarkTask.allCases.map(\.rawValue).joined(separator: ", ")). \
            docs/evaluation.md says what to download and where to put it. With --output an interrupted run goes on where it was.
            """)

    @Option(help: "The benchmark.")
    var task: BenchmarkTask

    @Option(help: "The benchmark's folder; for scenes its JSON file, or a folder with one.")
    var data: String

    @Option(help: "The benchmark's split, if it has several (vqav2, gqa, scienceqa, textvqa, mmbench).")
    var split: String?

    @Flag(help: "TextVQA: give the OCR tokens in the prompt, as LLaVA does.")
    var ocr = false

    @OptionGroup var model: ModelFlags

    @Option(name: [.customLong("budgets"), .customLong("budget")], help: "Budgets with commas between them, each a fraction of the full model's compute, or auto: what each input needs.")
    var budgets = "1"

    @Option(name: [.customShort("n"), .customLong("max-tokens")], help: "The longest answer in tokens; by default what the benchmark's scripts take.")
    var maxTokens: Int?

    @Option(help: "Use at most this many samples: the first, or with --seed some drawn at random.")
    var limit: Int?

    @Option(help: "Draw the samples of --limit with this seed.")
    var seed: UInt64?

    @Flag(help: "Show the model grey pictures instead: the baseline of what questions alone let it guess.")
    var blankImages = false

    @Option(help: "A folder for answers, results and charts; naming it again goes on with an interrupted run.")
    var output: String?

    @Option(help: "Answer only part i of n, such as 2/4; merge the parts with --merge.")
    var shard: String?

    @Option(parsing: .upToNextOption, help: "Put finished shards together: their output folders. Nothing is answered.")
    var merge: [String] = []

    @Option(help: "Draw charts into the output folder: svg or png (needs gnuplot).")
    var charts: ChartFormat?

    @Option(parsing: .upToNextOption, help: "result.json files of other runs, to be drawn in the same charts.")
    var compare: [String] = []

    @Option(help: "Hardware that flops, times and memory are calculated for, as analyze names it.")
    var hardware: String = "nvidia_V100"

    @Option(help: "How they are calculated. reference: the published experiments' count; exact: what the engine does.")
    var formula: CostFormula = .reference

    @OptionGroup var format: FormatFlags
    @OptionGroup var quiet: QuietFlag

    func validate() throws {
        // An unset variable of the shell: the working folder is never meant.
        if output?.isEmpty == true { throw ValidationError("--output: expected a folder, found an empty name") }
        if charts != nil && output == nil { throw ValidationError("--charts: expected --output DIR to draw into") }
        if !compare.isEmpty && charts == nil { throw ValidationError("--compare: expected --charts to draw them in") }
        if !merge.isEmpty && shard != nil { throw ValidationError("expected --shard or --merge, not both") }
        if seed != nil && limit == nil { throw ValidationError("--seed: expected --limit, whose samples it draws") }
    }

    func run() async throws {
        try await reporting {
            quiet.apply()
            // What is missing is told before anything runs.
            let plotter = try charts.map { _ in try Gnuplot.locate() }
            let others = try compare.map { try ChartedRun(contentsOf: URL(systemPath: $0)) }
            let benchmark = try task.open(URL(systemPath: data), split: split, usesOCR: ocr)
            let folder = output.map { URL(systemPath: $0) }
            let evaluation =
                merge.isEmpty
                ? try await answer(benchmark, folder)
                : try Evaluation(merging: merge.map { URL(systemPath: $0) }, benchmark: benchmark)
            let report = evaluation.report()
            if let folder, report.isComplete {
                try report.write(to: folder, submissions: evaluation.submissions())
                if let plotter, let charts {
                    for file in try report.draw(with: others, in: folder, format: charts, plotter: plotter) {
                        Console.shared.note("chart: \(file.path)")
                    }
                }
            }
            switch format.chosen {
            case .json: printNow(try adallava.json(report.jsonObject))
            case .csv: printNow(report.csv, terminator: "")
            case .table: printNow(report.table)
            }
            if !report.isComplete {
                Console.shared.message("adallava: stopped; the scores are those of the answers so far. With --output a run can go on later")
                throw ExitCode(130)
            }
        }
    }

    /// Answers what is not yet answered; the model is not even loaded when nothing is left. A run that is stopped and kept nowhere is
    /// reported as far as it is.
    private func answer(_ benchmark: any Benchmark, _ folder: URL?) async throws -> Evaluation {
        let url = try model.locate()
        let weights = try ([url] + [model.compute.imagePart.projector, model.compute.imagePart.tower].compactMap(\.self)).map { try EvaluationSettings.fingerprint(ofModelAt: $0) }
        let analyzed = try AnalyzedModel(checkpoint: url)
        let costs = AnalyzedCost(
            model: analyzed, hardware: try Hardware.named(hardware), settings: analyzed.settings(promptTokens: 1), formula: formula)
        let settings = try EvaluationSettings(
            task: [task.rawValue, split ?? "", ocr ? "ocr" : ""].filter { !$0.isEmpty }.joined(separator: " "), benchmark: benchmark,
            model: HuggingFaceCache.displayName(of: url), modelFingerprint: weights.joined(separator: " "),
            computation: "\(model.compute.precision.rawValue), template \(model.compute.templates.summary)" + (blankImages ? ", blank images" : ""),
            budgets: try adallava.budgets(of: budgets),
            maxTokens: maxTokens, limit: limit, seed: seed, shard: try shard.map { try Shard(parsing: $0) } ?? .whole, costs: costs.description)
        let evaluation = try Evaluation(benchmark: benchmark, settings: settings, folder: folder, costs: costs)
        if evaluation.isComplete { return evaluation }
        let (flags, hidesImages) = (model, blankImages)
        let run = RunningEvaluation(evaluation)
        do {
            try await answer(run, flags, settings.budgets, hidesImages)
        } catch is CancellationError where evaluation.answers > 0 {
            if folder != nil {
                Console.shared.message("adallava: stopped; \(evaluation.answers) answers are kept, and the same command goes on from there")
                throw ExitCode(130)
            }
        }
        Console.shared.finishProgress()
        return evaluation
    }

    private func answer(_ run: RunningEvaluation, _ flags: ModelFlags, _ budgets: [Budget], _ hidesImages: Bool) async throws {
        try await withInterruption {
            let loaded = try await flags.load()
            for budget in budgets { try loaded.check(budget) }
            let damaged = DamagedImages { Console.shared.warn($0) }
            func show(_ progress: Evaluation.Progress) { Console.shared.progress("answering", done: progress.done, of: progress.total) }
            if hidesImages {
                try await run.evaluation.run(BlankImages(loaded), damaged: damaged, onProgress: show)
            } else {
                try await run.evaluation.run(loaded, damaged: damaged, onProgress: show)
            }
        }
    }
}

/// Lends the evaluation to the task that may be interrupted; the command waits for it meanwhile.
private final class RunningEvaluation: @unchecked Sendable {
    let evaluation: Evaluation
    init(_ evaluation: Evaluation) { self.evaluation = evaluation }
}

extension BenchmarkTask: ExpressibleByArgument {}
extension ChartFormat: ExpressibleByArgument {}
