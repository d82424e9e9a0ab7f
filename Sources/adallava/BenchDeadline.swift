import AdaEvaluation
import AdaLLaVA
import ArgumentParser
import Foundation

extension NeighbourScript.Kind: ExpressibleByArgument {}

/// A busy process of `bench deadline`.
struct Neighbour: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "neighbour", abstract: "Keep one core busy until the parent ends.", shouldDisplay: false)

    @Argument var kind: NeighbourScript.Kind

    func run() { Neighbours.keepBusy(kind) }
}

struct BenchDeadline: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "deadline", abstract: "Measure whether time budgets are kept while other programs come and go.",
        discussion: """
              adallava bench deadline --data scenes/test.json --requests 100
              adallava bench deadline --model M --prompts 50,600 --generate 32

            Starts up to --neighbours busy processes by a script from --seed and replays it with deadlines, with fixed budgets, and without parts of the \
            method. Nothing else should run meanwhile.
            """)

    @OptionGroup var model: ModelFlags

    @Option(help: "Scenes to ask about, as `data scenes` writes them; without it prompts are synthetic.")
    var data: String?

    @Option(help: "Requests of a replay.")
    var requests = 100

    @Option(help: "Shortest and longest synthetic prompt, in tokens.")
    var prompts = "50,600"

    @Option(help: "Tokens of an answer to a synthetic prompt.")
    var generate = 24

    @Option(help: "Maximum number of busy processes that compete with the model.")
    var neighbours = 4

    @Option(help: "Shortest and longest deadline, as multiples of the time at the full budget on the quiet machine.")
    var factors = "0.7,3"

    @Option(help: "Replays of every fixed budget that an oracle chooses from; 0: no oracle.")
    var oracle = 0

    @Option(help: "Answers whose times are predicted, on the quiet machine and with one neighbour.")
    var predictions = 60

    @Flag(help: "Measure only predictions, without replays.")
    var predictionsOnly = false

    @Option(help: "Fraction of the deadlines that must be kept.")
    var confidence = 0.97

    @Option(help: "Seeds the script, the requests and their deadlines.")
    var seed: UInt64 = 1

    @OptionGroup var output: BenchOutputFlags

    func validate() throws {
        if !(1 ... 100_000).contains(requests) { throw ValidationError("--requests: expected 1 to 100000, found \(requests)") }
        if !(0 ... 64).contains(neighbours) { throw ValidationError("--neighbours: expected 0 to 64, found \(neighbours)") }
        if !(0 ... 100).contains(oracle) { throw ValidationError("--oracle: expected 0 to 100, found \(oracle)") }
        if !(1 ... 10_000).contains(predictions) { throw ValidationError("--predictions: expected 1 to 10000, found \(predictions)") }
        if !(0.5 ..< 1).contains(confidence) { throw ValidationError("--confidence: expected 0.5 or more, below 1, found \(confidence)") }
        _ = try range(factors, "--factors", least: 0.1)
        _ = try range(prompts, "--prompts", least: 1)
    }

    /// Two numbers with a comma between them, the smaller first.
    private func range(_ text: String, _ flag: String, least: Double) throws -> ClosedRange<Double> {
        let numbers = text.split(separator: ",").compactMap { Double($0.trimmingCharacters(in: .whitespaces)) }
        guard numbers.count == 2, numbers[0] >= least, numbers[0] <= numbers[1], numbers[1] <= 1e6 else {
            throw ValidationError("\(flag): expected two numbers from \(least) on such as 0.7,3, the smaller first, found '\(text)'")
        }
        return numbers[0] ... numbers[1]
    }

    func run() async throws {
        try await reporting {
            let plotter = try output.prepare()
            let report = try await withInterruption {
                let (loaded, description) = try await model.measured()
                var bench = DeadlineBench(requests: try requests(description))
                (bench.factors, bench.neighbours, bench.seed) = (try range(factors, "--factors", least: 0.1), neighbours, seed)
                (bench.confidence, bench.predictions) = (confidence, predictions)
                return try await measure(bench, loaded, description)
            }
            try output.deliver(report, plotter: plotter)
        }
    }

    private func measure(_ bench: DeadlineBench, _ loaded: AdaptiveModel, _ description: ExperimentModel) async throws -> DeadlineReport {
        let progress = { (what: String) in { (done: Int, total: Int) in Console.shared.progress(what, done: done, of: total) } }
        _ = try await loaded.calibrate { Console.shared.progress("measuring the model", done: $0, of: $1) }
        let command = (executable: URL(fileURLWithPath: Bundle.main.executablePath ?? CommandLine.arguments[0]), arguments: ["neighbour"])
        var predicted = [("quiet", try await bench.predict(loaded, onProgress: progress("predicting, quiet")))]
        let neighbour = try Neighbours(NeighbourScript(count: 1, seconds: 1e9, seed: 1), command: command)
        neighbour.setAllBusy()
        do {
            defer { neighbour.stop() }
            predicted.append(("beside 1 neighbour", try await bench.predict(loaded, onProgress: progress("predicting, with a neighbour"))))
        }
        let units = description.analyzed.units.map { ($0.total, $0.prefix) } ?? (1, 1)
        var modes: [(mode: DeadlineBench.Mode, runs: [DeadlineBench.Run])] = [], fixed: [(units: Int, repeats: [[DeadlineBench.Run]])] = []
        var seconds = 0.0
        if !predictionsOnly {
            let full = try await bench.fullTimes(loaded, onProgress: progress("timing the requests"))
            seconds = bench.seconds(full)
            var all: [DeadlineBench.Mode] = [.deadline]
            if let units = description.analyzed.units {
                all += [.withoutChanges, .withoutLoad, .fixed(1), .fixed(0.6), .fixed(units.floor)]
            } else {
                all.append(.fixed(1))
            }
            for mode in all { modes.append((mode, try await bench.replay(loaded, mode, full: full, command: command, onProgress: progress("replaying, \(mode.name)")))) }
            if oracle > 0, let units = description.analyzed.units {
                for optional in 0 ... units.total - units.prefix {
                    let mode = DeadlineBench.Mode.fixed(units.fraction(buying: optional))
                    var repeats: [[DeadlineBench.Run]] = []
                    for round in 0 ..< oracle {
                        let name = "oracle, \(mode.name), \(round + 1) of \(oracle)"
                        repeats.append(try await bench.replay(loaded, mode, full: full, command: command, onProgress: progress(name)))
                    }
                    fixed.append((optional, repeats))
                }
            }
        }
        Console.shared.finishProgress()
        return DeadlineReport(
            environment: .current, model: description, units: units, modes: modes, fixed: fixed, predictions: predicted, neighbours: neighbours, seconds: seconds)
    }

    private func requests(_ description: ExperimentModel) throws -> [DeadlineBench.Request] {
        if let data {
            let benchmark = try ScenesBenchmark(contentsOf: URL(systemPath: data))
            guard !benchmark.samples.isEmpty else { throw EvaluationError.argument(name: "--data", expected: "at least one question", found: "none") }
            return try (0 ..< requests).map { index in
                let sample = benchmark.samples[index % benchmark.samples.count]
                var request = DeadlineBench.Request()
                (request.question, request.maxTokens) = (sample.question, benchmark.maxTokens)
                request.image = try sample.image?.load().image
                request.score = { benchmark.score($0, for: sample) }
                return request
            }
        }
        var random = SplitMix64(seed: seed)
        let lengths = try range(prompts, "--prompts", least: 1), vocabulary = description.analyzed.configuration.language.vocabularySize
        let context = Double(description.analyzed.configuration.language.contextLength - generate - 2)
        return (0 ..< requests).map { _ in
            var request = DeadlineBench.Request()
            let length = min(lengths.lowerBound + (lengths.upperBound - lengths.lowerBound) * random.unit(), context)
            request.tokens = (0 ..< max(Int(length), 1)).map { _ in min(Int(random.unit() * Double(vocabulary)), vocabulary - 1) }
            request.maxTokens = generate
            return request
        }
    }
}
