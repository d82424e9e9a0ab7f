import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct Explain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show which parts of a model run for which input, and test whether it matters.",
        discussion: """
            adallava explain --data val.json --limit 200 --budgets 0.85,0.6 --output report.html
            adallava explain --image photo.jpg --prompt "What is on the left?" --output report.html
            Heat maps of layers, heads and groups; what the latency token attends to; how much plans differ between inputs; and scores with the \
            scheduler's own plans, with plans swapped between inputs, with random plans of the same size and with one plan for all. \
            docs/explain.md says how to read it.
            """)

    @Option(help: "The benchmark that --data is of.")
    var task: BenchmarkTask = .scenes

    @Option(help: "The benchmark's folder; for scenes its JSON file.")
    var data: String?

    @Option(help: "An image to ask about, instead of --data; each --image goes with a --prompt.")
    var image: [String] = []

    @Option(help: "The question about the image of the same place.")
    var prompt: [String] = []

    @OptionGroup var model: ModelFlags

    @Option(help: "Budgets with commas between them, each a fraction of the full model's compute.")
    var budgets = "1,0.85,0.6"

    @Option(help: "Use at most this many samples: the first, or with --seed some drawn at random.")
    var limit: Int?

    @Option(help: "Draws the samples of --limit, whose plans are swapped, and random plans.")
    var seed: UInt64?

    @Option(help: "Inputs that the page shows one by one.")
    var examples = 6

    @Option(help: "The page, one self-contained HTML file.")
    var output: String?

    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    func validate() throws {
        if (data == nil) == image.isEmpty { throw ValidationError("expected --data FILE, or --image FILE with --prompt TEXT") }
        if image.count != prompt.count {
            throw ValidationError("--prompt: expected one for each --image, found \(prompt.count) for \(image.count)")
        }
        if let limit, limit < 1 { throw ValidationError("--limit: expected 1 or more, found \(limit)") }
        if !(0 ... 1000).contains(examples) { throw ValidationError("--examples: expected 0 to 1000, found \(examples)") }
        if let output, FileManager.default.fileExists(atPath: output, isDirectory: nil), isFolder(output) {
            throw ValidationError("--output: expected a file, found the folder \(output)")
        }
    }

    func run() async throws {
        try await reporting {
            let wanted = try fractions(of: budgets)
            let benchmark: any Benchmark = try data.map { try task.open(URL(fileURLWithPath: $0)) } ?? QuestionList(images: image, questions: prompt)
            let samples = EvaluationSettings.drawn(benchmark.samples, limit: limit, seed: seed)
            let (name, source) = (model.model ?? DefaultModel.name, data ?? "the command line")
            let study = PlanStudy(
                benchmark: benchmark, samples: samples, budgets: wanted, sources: data == nil ? [.own] : PlanSource.allCases, seed: seed ?? 1)
            let (flags, shown) = (model, examples)
            let report = try await withInterruption {
                let loaded = try await flags.load()
                for budget in wanted { try loaded.check(.fraction(budget)) }
                let results = try await study.run(loaded) { Console.shared.progress("answering", done: $0, of: $1) }
                var examples: [PlanReport.Example] = []
                for (index, sample) in samples.prefix(shown).enumerated() {
                    Console.shared.progress("watching attention", done: index, of: min(shown, samples.count))
                    let image = try sample.image?.load()
                    var attention: [(budget: Double, attention: LatencyAttention)] = []
                    if let image {
                        for budget in wanted {
                            attention.append((budget, try await LatencyAttention(loaded, question: sample.question, image: image, budget: budget)))
                        }
                    }
                    examples.append(PlanReport.Example(sample: sample, image: image, attention: attention, index: index))
                }
                return PlanReport(
                    model: URL(fileURLWithPath: name).lastPathComponent, data: source, prefixLayers: loaded.prefixLayers, cropsImages: loaded.cropsImages,
                    results: results, examples: examples)
            }
            Console.shared.finishProgress()
            if let output {
                do {
                    try Data(try report.html().utf8).write(to: URL(fileURLWithPath: output), options: .atomic)
                } catch let error as CocoaError {
                    throw EvaluationError.file(path: output, reason: error.localizedDescription)
                }
                Console.shared.message("report: \(output)")
            }
            printNow(json ? try adallava.json(["budgets": report.results.map(\.jsonObject)]) : report.table)
        }
    }

    private func isFolder(_ path: String) -> Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) && isFolder.boolValue
    }
}

/// Questions from the command line: without right answers, so without scores.
private struct QuestionList: Benchmark {
    let samples: [BenchmarkSample]
    let mainScore = ""

    init(images: [String], questions: [String]) {
        samples = zip(images, questions).enumerated().map { index, pair in
            BenchmarkSample(id: "\(index)", image: .file(URL(fileURLWithPath: pair.0)), question: pair.1, references: [])
        }
    }

    func score(_ answer: String, for sample: BenchmarkSample) -> Double? { nil }
    func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore] { [] }
}
