import AdaLLaVA
import AdaProbes
import ArgumentParser
import Foundation

/// Time of a step of several sequences, compared with the sum over layers of max(reading the weights that any row keeps, multiplying the rows).
///
/// The same run measures both terms: steps of one row are bound by reading, steps of 24 rows by multiplying. Each is timed with all layers and with the
/// prefix layers alone; the difference is the cost of the layers after the prefix.
struct StepCost: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "step-cost", abstract: "Check the cost of a step of several sequences.",
        discussion: """
            Times steps of sequences (prompts of 32 tokens without --prompt) whose plans agree, half agree or differ, and compares them with \
            the longer of reading the weights and multiplying.
            """)

    @OptionGroup var model: ModelOptions

    @Option(help: "L or H.")
    var variant: AdaptiveConfiguration.SchedulerType

    @Option(name: .customLong("batch"), parsing: .upToNextOption, help: "Sequences of a step.")
    var sizes = [1, 2, 4, 8, 16]

    @Option(help: "Fraction of the switches after the prefix that a plan keeps.")
    var share = 0.5

    @OptionGroup var promptOption: PromptOption

    private var prompt: Int { promptOption.prompt ?? 32 }

    @Option(help: "Steps of each batch; batches take turns.")
    var steps = 40

    @Option(help: "Maximum time of a step, as a multiple of the sum.")
    var limit: Double?

    @OptionGroup var measurement: MeasurementOptions

    /// How far the plans of a batch agree.
    private enum Agreement: String, CaseIterable {
        case agree, half = "half agree", differ
    }

    func validate() throws {
        if sizes.isEmpty || sizes.contains(where: { !(1 ... 64).contains($0) }) { throw ValidationError("--batch: expected numbers from 1 to 64") }
        if prompt < 1 || steps < 4 || !(0 ... 1).contains(share) { throw ValidationError("expected --prompt 1, --steps 4 or more, --share from 0 to 1") }
    }

    func run() async throws {
        let url = try model.file(variant), name = url.deletingPathExtension().lastPathComponent
        var options = AdaptiveModel.Options()
        options.threads = measurement.threads
        let loaded = try await AdaptiveModel(contentsOf: url, options: options)
        let language = model.shape.configuration
        let adaptive = model.adaptive(variant)
        var random = SplitMix64(seed: model.seed)
        let ids = (0 ..< prompt).map { _ in Int(random.unit() * Double(language.vocabularySize)) }
        let cases = sizes.flatMap { size in
            Agreement.allCases.filter { size > 1 || $0 == .agree }.map { (size: size, agreement: $0) }
        }
        let rows = 24
        let floor = randomPlan(language, adaptive, share: 0, &random)
        var batches: [[ExecutionPlan?]] = [[nil], [floor], Array(repeating: nil, count: rows), Array(repeating: floor, count: rows)]
        for item in cases {
            let own = (0 ..< item.size).map { _ in randomPlan(language, adaptive, share: share, &random) }
            batches.append((0 ..< item.size).map { index in
                switch item.agreement {
                case .agree: own[0]
                case .half: index < item.size / 2 ? own[0] : own[index]
                case .differ: own[index]
                }
            })
        }
        let times = try await loaded.measureSteps(batches, prompt: ids, steps: steps).map { median($0.dropFirst(2).map { $0 / .milliseconds(1) }) }
        let costs = Costs(
            language, prefix: adaptive.numPrefixLayers, one: (times[0], times[1]), many: (times[2], times[3]), rows: rows)
        print("\(name): prompt \(prompt), \(steps) steps, load \(String(format: "%.2f", loadAverage()))")
        print(String(format: "a layer: %.1f us to read, %.2f us to multiply a row; the rest: %.2f ms, %.3f ms a row", costs.read * 1000, costs.multiply * 1000, costs.rest, costs.restOfRow))
        print("rows  plans        step ms   sum ms  ratio")
        var written: [[String: Any]] = [], worst = 0.0
        for (index, item) in cases.enumerated() {
            let (measured, expected) = (times[index + 4], costs.step(batches[index + 4].compactMap { $0 }))
            worst = max(worst, measured / expected)
            let label = item.agreement.rawValue.padding(toLength: 11, withPad: " ", startingAt: 0)
            print(String(format: "%4d  %@ %8.3f %8.3f  %5.3f", item.size, label, measured, expected, measured / expected))
            written.append(["rows": item.size, "plans": item.agreement.rawValue, "step_ms": measured, "sum_ms": expected, "ratio": measured / expected])
        }
        let passed = limit.map { worst <= $0 } ?? true
        if let limit { print(String(format: "%@ the largest ratio is %.3f, limit %.2f", passed ? "pass" : "FAIL", worst, limit)) }
        try writeJSON(
            [
                "model": name, "prompt": prompt, "steps": steps, "load": loadAverage(), "layer_read_ms": costs.read, "layer_multiply_ms": costs.multiply,
                "batches": written, "limit": limit ?? NSNull(), "passed": passed,
            ], to: measurement.json)
        if !passed { throw ExitCode(1) }
    }

    /// A plan that keeps the prefix and some of the switches after it.
    private func randomPlan(
        _ language: DecoderConfiguration, _ adaptive: AdaptiveConfiguration, share: Double, _ random: inout SplitMix64
    ) -> ExecutionPlan {
        let heads = language.numAttentionHeads, optional = language.numHiddenLayers - adaptive.numPrefixLayers
        func pick(_ count: Int) -> [Int] {
            var all = Array(0 ..< count)
            for index in all.indices.dropLast() { all.swapAt(index, index + Int(random.unit() * Double(count - index))) }
            return all.prefix(Int((share * Double(count)).rounded())).sorted()
        }
        let every = ExecutionPlan.Row(heads: Array(0 ..< heads), groups: Array(0 ..< heads)), none = ExecutionPlan.Row(heads: [], groups: [])
        let kept = variant == .layers ? Set(pick(optional)) : []
        let after = (0 ..< optional).map { layer in
            variant == .layers ? kept.contains(layer) ? every : none : ExecutionPlan.Row(heads: pick(heads), groups: pick(heads))
        }
        return ExecutionPlan(headCount: heads, rows: Array(repeating: every, count: adaptive.numPrefixLayers) + after)
    }

    /// Measured cost of reading and multiplying, in milliseconds.
    private struct Costs {
        let language: DecoderConfiguration
        /// To read all of a layer, and to multiply one row with it.
        let read, multiply: Double
        /// Everything outside the layers, mostly the output layer: for one row, and per row when multiplying bounds.
        let rest, restOfRow: Double

        /// - Parameters:
        ///   - one: steps of one row, of all layers and of the prefix alone.
        ///   - many: the same of `rows` rows.
        init(_ language: DecoderConfiguration, prefix: Int, one: (Double, Double), many: (Double, Double), rows: Int) {
            self.language = language
            let layers = Double(language.numHiddenLayers), optional = layers - Double(prefix)
            read = (one.0 - one.1) / optional
            multiply = (many.0 - many.1) / optional / Double(rows)
            rest = max(one.0 - layers * read, 0)
            restOfRow = max(many.0 - layers * multiply * Double(rows), 0) / Double(rows)
        }

        func step(_ plans: [ExecutionPlan]) -> Double {
            let whole = Double(weights(ExecutionPlan.Row(
                heads: Array(0 ..< language.numAttentionHeads), groups: Array(0 ..< language.numAttentionHeads))))
            let layers = (0 ..< language.numHiddenLayers).reduce(0.0) { sum, layer in
                let rows = plans.map { $0.rows[layer] }
                let union = ExecutionPlan.Row(heads: Set(rows.flatMap(\.heads)).sorted(), groups: Set(rows.flatMap(\.groups)).sorted())
                return sum + max(read * Double(weights(union)) / whole, multiply * rows.reduce(0.0) { $0 + Double(weights($1)) } / whole)
            }
            return layers + max(rest, restOfRow * Double(plans.count))
        }

        private func weights(_ row: ExecutionPlan.Row) -> Int {
            language.weightsRead(ExecutionPlan(headCount: language.numAttentionHeads, rows: [row])) - language.vocabularySize * language.hiddenSize
        }
    }
}
