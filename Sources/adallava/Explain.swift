import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct Explain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show which parts of a model run for which input, and test whether the choice matters.",
        discussion: """
              adallava explain --data val.json --limit 200 --budgets 1.0,0.85,0.6 --output report.html
              adallava explain --image photo.jpg --prompt "What is on the left?" --output report.html

            Heat maps of layers, heads and groups; the latency token's attention; the differences of plans between inputs; and scores with the \
            scheduler's own plans, with plans swapped between inputs, with random plans of the same size and with one plan for all. \
            docs/explain.md explains the page.
            """)

    @Option(help: "The benchmark that --data is of.")
    var task: BenchmarkTask = .scenes

    @Option(help: "The benchmark's folder; for scenes its JSON file, which may also be any list in LLaVA's instruction format.")
    var data: String?

    @Option(help: "An image to ask about, instead of --data; each --image goes with a --prompt.")
    var image: [String] = []

    @Option(parsing: .unconditionalSingleValue, help: "The question about the image at the same position.")
    var prompt: [String] = []

    @OptionGroup var model: ModelFlags

    @Option(name: [.customLong("budgets"), .customLong("budget")], help: "Budgets, separated by commas, each a fraction of the full model's compute.")
    var budgets = "1.0,0.85,0.6"

    @Option(help: "Use at most this many samples: the first, or with --seed some drawn at random.")
    var limit: Int?

    @Option(help: "Seeds the samples of --limit, the swaps and the random plans.")
    var seed: UInt64?

    @Option(help: "Inputs that the page shows individually.")
    var examples = 6

    @Option(help: "The page, one self-contained HTML file.")
    var output: String?

    @Flag(help: "Also run every plan of each budget's size for every input (variant L): the best plan for each input, the best one for all, and how well the scheduler's input predicts task and place.")
    var oracle = false

    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    func validate() throws {
        if (data == nil) == image.isEmpty { throw ValidationError("expected --data FILE, or --image FILE with --prompt TEXT") }
        if image.count != prompt.count {
            throw ValidationError("--prompt: expected one for each --image, found \(prompt.count) for \(image.count)")
        }
        if let limit, limit < 1 { throw ValidationError("--limit: expected 1 or more, found \(limit)") }
        if !(0 ... 1000).contains(examples) { throw ValidationError("--examples: expected 0 to 1000, found \(examples)") }
    }

    func run() async throws {
        try await reporting {
            // Errors are reported before anything runs.
            let budgets = try fractions(of: budgets)
            let page = output.map { URL(systemPath: $0) }
            if let page { try expectWritable(page) }
            let benchmark = try questions()
            let samples = EvaluationSettings.drawn(benchmark.samples, limit: limit, seed: seed)
            let study = PlanStudy(benchmark: benchmark, samples: samples, budgets: budgets, seed: seed ?? 1)
            let (flags, source, runsOracle, draw) = (model, data ?? "the command line", oracle, seed ?? 1)
            // Only the page shows single inputs in full, but --json holds their attention too.
            let shown = page == nil && !json ? [] : Array(samples.prefix(examples))
            let checkpoint = try flags.open()
            guard checkpoint.configuration.adaptive != nil else {
                throw EvaluationError.argument(
                    name: "--model", expected: "a model with a scheduler, whose plans can be explained",
                    found: "\(checkpoint.name), which has none and always runs whole")
            }
            let report = try await withInterruption {
                let loaded = try await flags.load(checkpoint)
                for budget in budgets { try loaded.check(.fraction(budget)) }
                let damaged = DamagedImages { Console.shared.warn($0) }
                let results = try await study.run(loaded, damaged: damaged) { Console.shared.progress("answering", done: $0, of: $1) }
                let isScored = results.contains { !$0.scores.isEmpty }
                var best: PlanOracle?
                if runsOracle {
                    best = try await PlanOracle(loaded, benchmark, samples, budgets: budgets, seed: draw) {
                        Console.shared.progress("running all plans", done: $0, of: $1)
                    }
                }
                var auto: BudgetStudy?
                if let head = loaded.budgetHead, isScored {
                    let labels = try await BudgetLabels.make(loaded, benchmark, samples) { Console.shared.progress("answering at all units", done: $0, of: $1) }
                    auto = BudgetStudy(head, on: labels, seed: draw)
                }
                let examples = try await watch(loaded, shown, budgets)
                return PlanReport(
                    model: HuggingFaceCache.displayName(of: try flags.locate()), data: source, prefixLayers: loaded.prefixLayers, cropsImages: loaded.cropsImages,
                    results: results, examples: examples, damagedImages: damaged.count, oracle: best, auto: auto)
            }
            Console.shared.finishProgress()
            if let page {
                try report.write(to: page)
                Console.shared.message("page: \(page.path)")
            }
            printNow(json ? try adallava.json(report.json) : report.table)
        }
    }

    private func questions() throws -> any Benchmark {
        if let data {
            let url = URL(systemPath: data)
            return task == .scenes ? try InstructionQuestions.open(url) : try task.open(url)
        }
        // A wrong path, or a file that is not an image, is reported before the model is loaded.
        for file in image { _ = try ImageSource.file(file).image(tolerance: .asPillow) }
        return QuestionPairs(images: image, questions: prompt)
    }
}

/// The latency token's attention for some samples.
private func watch(_ model: AdaptiveModel, _ samples: [BenchmarkSample], _ budgets: [Double]) async throws -> [PlanReport.Example] {
    var examples: [PlanReport.Example] = []
    for (index, sample) in samples.enumerated() {
        Console.shared.progress("watching attention", done: index, of: samples.count)
        let image = try sample.image?.load().image
        var attention: [(budget: Double, attention: LatencyAttention)] = []
        if let image {
            for budget in budgets {
                attention.append((budget, try await LatencyAttention(model, question: sample.question, image: image, budget: budget)))
            }
        }
        examples.append(PlanReport.Example(sample: sample, image: image, attention: attention, index: index))
    }
    return examples
}
