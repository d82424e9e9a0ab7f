import AdaEvaluation
import AdaLLaVA
import ArgumentParser
import Foundation

struct BenchSlo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "slo", abstract: "Measure how many requests are answered by their deadlines when more are asked than the machine can answer.",
        discussion: """
              adallava bench slo --duration 60 --output results
              adallava bench slo --model M.gguf --loads 0.7,1 --duration 20

            Draws requests from the distributions of published traces and replays them at several loads: with budgets that shrink, and at the full budget in \
            the order of arrival and by the earliest deadline. Nothing else should run meanwhile.
            """)

    @OptionGroup var model: ModelFlags

    @Option(help: "Seconds of a replay at a load of 1; there is one for each load and policy.")
    var duration = 600.0

    @Option(help: "Rates of requests over the measured capacity, with commas between them.")
    var loads = "0.7,1.0,1.3,1.5"

    @Option(help: "The most answers that are computed at once.")
    var maxConcurrent = 32

    @Option(help: "Factor of the lengths of the traces' prompts and answers; by default a median conversation is an eighth of the context at most.")
    var lengths: Double?

    @Option(help: "Where requests and deadlines come from.")
    var seed: UInt64 = 1

    @OptionGroup var output: BenchOutputFlags

    func validate() throws {
        if !(1 ... 1e5).contains(duration) { throw ValidationError("--duration: expected 1 to 100000 seconds, found \(duration)") }
        if !(1 ... 1024).contains(maxConcurrent) { throw ValidationError("--max-concurrent: expected 1 to 1024, found \(maxConcurrent)") }
        if let lengths, !(lengths > 0 && lengths <= 100) { throw ValidationError("--lengths: expected a number above 0 and at most 100, found \(lengths)") }
        _ = try rates()
    }

    private func rates() throws -> [Double] {
        let numbers = loads.split(separator: ",").compactMap { Double($0.trimmingCharacters(in: .whitespaces)) }
        guard !numbers.isEmpty, numbers.count == loads.split(separator: ",").count, numbers.allSatisfy({ $0 > 0.01 && $0 <= 100 }), Set(numbers).count == numbers.count
        else { throw ValidationError("--loads: expected different numbers above 0.01 such as 0.7,1.0, found '\(loads)'") }
        return numbers.sorted()
    }

    func run() async throws {
        try await reporting {
            let plotter = try output.prepare()
            let report = try await withInterruption {
                let (loaded, description) = try await model.measured()
                _ = try await loaded.calibrate { Console.shared.progress("measuring the model", done: $0, of: $1) }
                let report = try await measure(loaded, description)
                Console.shared.finishProgress()
                return report
            }
            try output.deliver(report, plotter: plotter)
        }
    }

    private func measure(_ loaded: AdaptiveModel, _ description: ExperimentModel) async throws -> SloReport {
        let units = description.analyzed.units, imageTokens = description.imageTokens ?? 0
        func bench(_ count: Int) -> SloBench {
            let trace = SloTrace(count: count, context: loaded.contextLength, imageTokens: description.imageTokens, scale: lengths, seed: seed)
            var bench = SloBench(trace: trace, seconds: duration, imageTokens: imageTokens, floor: units?.floor ?? 1, steps: units.map { $0.total - $0.prefix } ?? 1)
            bench.concurrent = maxConcurrent
            return bench
        }
        // As many requests as the machine answers in the time.
        let rate = try await bench(64).rate(loaded) { Console.shared.progress("measuring the rate", done: $0, of: 0) }
        let count = min(max(Int(rate * duration), 16), 100_000)
        return try await bench(count).run(loaded, description, environment: .current, loads: rates()) { Console.shared.progress($0, done: $1, of: $2) }
    }
}
