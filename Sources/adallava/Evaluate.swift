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
            docs/evaluation.md lists the files to download and their folders. With --output an interrupted run resumes.
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

    @Option(name: [.customLong("budgets"), .customLong("budget")], help: "Budgets, separated by commas, each a fraction of the full model's compute, or auto: the need of each input.")
    var budgets = "1"

    @Option(name: [.customShort("n"), .customLong("max-tokens")], help: "Maximum tokens of an answer; by default as in the benchmark's scripts.")
    var maxTokens: Int?

    @Option(help: "Use at most this many samples: the first, or with --seed some drawn at random.")
    var limit: Int?

    @Option(help: "Draw the samples of --limit with this seed.")
    var seed: UInt64?

    @Flag(help: "Replace all pictures by grey ones: the baseline without images.")
    var blankImages = false

    @Option(help: "A folder for answers, results and charts; an interrupted run in it is resumed.")
    var output: String?

    @Option(help: "Answer only part i of n, such as 2/4; merge the parts with --merge.")
    var shard: String?

    @Option(parsing: .upToNextOption, help: "Merge the output folders of finished shards. Nothing is answered.")
    var merge: [String] = []

    @Option(help: "Draw charts into the output folder: svg or png (needs gnuplot).")
    var charts: ChartFormat?

    @Option(parsing: .upToNextOption, help: "result.json files of other runs, to draw in the same charts.")
    var compare: [String] = []

    @Option(help: "Hardware that flops, times and memory are calculated for, as analyze names it.")
    var hardware: String = "nvidia_V100"

    @Option(help: "How they are calculated. reference: the published experiments' count; exact: the engine's operations.")
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
            // Missing files are reported before anything runs.
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
            case .json: printNow(try adallava.json(report.json))
            case .csv: printNow(report.csv, terminator: "")
            case .table: printNow(report.table)
            }
            if !report.isComplete {
                Console.shared.message("adallava: stopped; the scores are those of the answers so far. With --output a run can go on later")
                throw ExitCode(130)
            }
        }
    }

    /// Computes the missing answers; if none is missing, the model is not loaded. A stopped run that is not stored anywhere is reported as
    /// far as it got.
    private func answer(_ benchmark: any Benchmark, _ folder: URL?) async throws -> Evaluation {
        let url = try model.locate()
        let weights = try ([url] + [model.compute.imagePart.projector, model.compute.imagePart.tower].compactMap(\.self)).map { try EvaluationSettings.fingerprint(ofModelAt: $0) }
        let selection = try model.compute.selection
        let analyzed = try AnalyzedModel(checkpoint: url).selecting(selection)
        let costs = AnalyzedCost(
            model: analyzed, hardware: try Hardware.named(hardware), settings: analyzed.settings(promptTokens: 1), formula: formula)
        let settings = try EvaluationSettings(
            task: [task.rawValue, split ?? "", ocr ? "ocr" : ""].filter { !$0.isEmpty }.joined(separator: " "), benchmark: benchmark,
            model: HuggingFaceCache.displayName(of: url), modelFingerprint: weights.joined(separator: " "),
            computation: "\(model.compute.precision.rawValue), template \(model.compute.templates.summary)" + (blankImages ? ", blank images" : "")
                + (model.compute.cache.kv == .f16 ? "" : ", keys and values \(model.compute.cache.kv.rawValue)")
                + (selection == TokenSelection() ? "" : ", selection \(selection)"),
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
                Console.shared.message("adallava: stopped; \(evaluation.answers) answers are kept; the same command resumes")
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
