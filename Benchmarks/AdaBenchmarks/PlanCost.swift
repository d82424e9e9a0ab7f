import AdaLLaVA
import AdaProbes
import ArgumentParser
import Foundation

/// How the time of prefill and decode falls with the budget.
///
/// A machine that others use too changes its speed by a tenth within seconds. So all budgets run together, three layers at a time in prefill and step by
/// step in decode. Of a prefill the median of each turn's time over the rounds counts, for which its rounds need not be quiet throughout; of a decode the
/// median of the ratios to the full budget in the same step.
struct PlanCost: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan-cost", abstract: "Check that time falls with the budget.",
        discussion: """
            Times prefill (a prompt of 128 tokens without --prompt) and decode at falling budgets, and compares them with the share of the \
            weights that runs.
            """)

    @OptionGroup var model: ModelOptions

    @Option(help: "L or H.")
    var variant: AdaptiveConfiguration.SchedulerType

    @Option(parsing: .upToNextOption, help: "Fractions of full compute.")
    var budgets = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]

    @OptionGroup var promptOption: PromptOption

    private var prompt: Int { promptOption.prompt ?? 128 }

    @Option(help: "Tokens to generate.")
    var tokens = 48

    @Option(help: "Repeats of every budget.")
    var repeats = 9

    @Option(help: "Maximum time of decode at the lowest budget, as a fraction of the full time.")
    var limit: Double?

    @OptionGroup var measurement: MeasurementOptions

    func validate() throws {
        if budgets.contains(where: { !($0 > 0 && $0 <= 1) }) { throw ValidationError("--budgets: expected numbers above 0 and at most 1") }
        if prompt < 1 || tokens < 2 || repeats < 1 { throw ValidationError("expected --prompt 1, --tokens 2, --repeats 1 or more") }
        if Set(budgets).count < budgets.count { throw ValidationError("--budgets: one stands there twice") }
    }

    /// What one budget took.
    private struct Times {
        /// Milliseconds: of prefill in each round one for each turn of a few layers, of decode one for each step.
        var prefill: [[Double]] = []
        var decode: [Double] = []
        /// Of the full budget's time in the same step.
        var decodeRatios: [Double] = []
        var plan: ExecutionPlan?
        /// Milliseconds of choosing the plan, once a repeat.
        var planning: [Double] = []

        /// Of each turn, the median of the rounds.
        var turns: [Double] { (0 ..< (prefill.map(\.count).min() ?? 0)).map { turn in median(prefill.map { $0[turn] }) } }
    }

    func run() async throws {
        let url = try model.file(variant)
        var options = AdaptiveModel.Options()
        options.threads = measurement.threads
        let loaded = try await AdaptiveModel(contentsOf: url, options: options)
        var random = SplitMix64(seed: model.seed)
        let language = model.shape.configuration
        let ids = (0 ..< prompt).map { _ in Int(random.unit() * Double(language.vocabularySize)) }
        let all = [1.0] + budgets.filter { $0 != 1 }
        var times = [Times](repeating: Times(), count: all.count)
        // The first round warms caches and the processor's clock, and is not counted.
        for round in 0 ... repeats {
            let costs = try await loaded.measureBudgets(all.map { .fraction($0) }, prompt: ids, steps: tokens, first: round % all.count)
            for (index, cost) in costs.enumerated() {
                times[index].plan = cost.plan
                if round == 0 { continue }
                times[index].prefill.append(cost.prefill.map { $0 / .milliseconds(1) })
                times[index].decode += cost.steps.map { $0 / .milliseconds(1) }
                times[index].decodeRatios += zip(cost.steps, costs[0].steps).map { $0 / $1 }
            }
            for index in all.indices where round > 0 {
                let planning = try await loaded.measurePlanning(budget: .fraction(all[index]), repeats: 5) ?? []
                times[index].planning.append(median(planning.map { $0 / .milliseconds(1) }))
            }
            note("  \(url.deletingPathExtension().lastPathComponent): round \(round) of \(repeats)")
        }
        try report(all, times, language, url.deletingPathExtension().lastPathComponent)
    }

    private func report(_ budgets: [Double], _ times: [Times], _ language: DecoderConfiguration, _ name: String) throws {
        let (fullDecode, fullPrefill) = (median(times[0].decode), times[0].turns.reduce(0, +))
        let fullPlan = ExecutionPlan.full(layers: language.numHiddenLayers, heads: language.numAttentionHeads)
        let switches = Double(fullPlan.mask.reduce(0, +))
        var rows: [[String: Any]] = []
        var (shares, decodeRatios, prefillRatios): ([Double], [Double], [Double]) = ([], [], [])
        print("\(name): prompt \(prompt), \(tokens) tokens, \(repeats) repeats, load \(String(format: "%.2f", loadAverage()))")
        print("budget  switches  weights   decode ms  ratio  excess   prefill ms  ratio  plan ms  of prefill")
        for (budget, time) in zip(budgets, times) {
            guard let plan = time.plan else { continue }
            let on = Double(plan.mask.reduce(0, +)) / switches
            let weights = Double(language.weightsRead(plan)) / Double(language.weightsRead(fullPlan))
            let (decodeRatio, prefill, planning) = (median(time.decodeRatios), time.turns.reduce(0, +), median(time.planning))
            let (decode, prefillRatio) = (decodeRatio * fullDecode, prefill / fullPrefill)
            let planShare = planning / prefill
            shares.append(on)
            decodeRatios.append(decodeRatio)
            prefillRatios.append(prefillRatio)
            print(
                String(
                    format: "%6.2f  %8.3f  %7.3f  %10.3f  %5.3f  %+6.3f  %11.1f  %5.3f  %7.3f  %8.2f %%", budget, on, weights, decode, decodeRatio,
                    decodeRatio - weights, prefill, prefillRatio, planning, 100 * planShare))
            rows.append([
                "budget": budget, "switches": on, "weights": weights, "decode_ms": decode, "decode_ratio": decodeRatio,
                "heads": plan.rows.map(\.heads.count), "groups": plan.rows.map(\.groups.count),
                "prefill_ms": prefill, "prefill_rounds_ms": time.prefill, "prefill_ratio": prefillRatio, "plan_ms": planning,
                "plan_share": planShare,
            ])
        }
        let fit = (coefficientOfDetermination(shares, decodeRatios), coefficientOfDetermination(shares, prefillRatios))
        print(String(format: "straight line through switches and time: R2 %.4f decode, %.4f prefill", fit.0, fit.1))
        let lowest = budgets.indices.min { budgets[$0] < budgets[$1] } ?? 0
        let passed = limit.map { decodeRatios[lowest] <= $0 } ?? true
        if let limit {
            print(
                String(
                    format: "%@ decode at budget %.2f takes %.3f of the full time, limit %.2f", passed ? "pass" : "FAIL", budgets[lowest],
                    decodeRatios[lowest], limit))
        }
        try writeJSON(
            [
                "model": name, "prompt": prompt, "tokens": tokens, "repeats": repeats, "load": loadAverage(), "budgets": rows,
                "r2_decode": fit.0, "r2_prefill": fit.1, "limit": limit ?? NSNull(), "passed": passed,
            ], to: measurement.json)
        if !passed { throw ExitCode(1) }
    }
}
