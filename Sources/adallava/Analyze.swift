import AdaEvaluation
import AdaLLaVA
import ArgumentParser
import Foundation

struct Analyze: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Calculate a request's FLOPs, bytes, memory and time on named hardware (roofline model).",
        discussion: """
              adallava analyze --shape llava-1.5-7b --hardware nvidia_V100 --prompt-tokens 600 --generate 50 --budget 0.85 --json
              adallava analyze --model M --hardware this-machine --weight-bits 8 --activation-bits 8 --formula exact --fit 300ms

            The model is not run. docs/analyzer.md explains how each number is counted. The ceilings of this-machine are measured once and stored.
            """)

    @Option(help: "A published shape: \(AnalyzedModel.shapes.map(\.name).joined(separator: ", ")).")
    var shape: String?

    @Option(name: [.customShort("m"), .customLong("model")], help: "A checkpoint folder, a .safetensors or a .gguf file; its weights are not read.")
    var model: String?

    @Option(help: "A config.json.")
    var config: String?

    @Option(help: "Change the scheduler: L switches layers, H heads and neuron groups.")
    var scheduler: AdaptiveConfiguration.SchedulerType?

    @Option(help: "Change the scheduler: heads, and neuron groups, per unit (H).")
    var rank: Int?

    @Option(help: "Change the scheduler: layers that always run.")
    var prefixLayers: Int?

    @Option(help: "\(Hardware.names.joined(separator: ", ")).")
    var hardware: String = "nvidia_V100"

    @Flag(help: "Measure this machine's ceilings again.")
    var measure = false

    @Option(name: [.customShort("t"), .customLong("threads")], help: "Threads of this-machine; by default one per processor.")
    var threads: Int?

    @Option(help: "Positions of the prompt, including image tokens.")
    var promptTokens: Int = 600

    @Option(name: [.customShort("n"), .customLong("generate"), .customLong("n-gen")], help: "Tokens generated.")
    var generate: Int = 50

    @Option(help: "A fraction of the full model's compute, above 0 and at most 1: 0.85, 85%.")
    var budget: String?

    @Option(
        help: "Heads of each layer, separated by commas (-1: dropped), or a JSON file with such a list, a mask, or the output of ask --json.")
    var plan: String?

    @Option(help: "Batch size: requests computed together.")
    var batch: Int = 1

    @Option(help: "Bits of a weight; by default those of the model's file, 8.5 for Q8_0, and 16 for a shape.")
    var weightBits: Int?

    @Option(help: "Bits of an activation.")
    var activationBits: Int = 16

    @Option(help: "Bits of a stored key or value; by default those of an activation.")
    var kvBits: Int?

    @Flag(help: "Count attention as one operation whose scores stay on the chip (flash attention).")
    var flashAttention = false

    @Option(help: "Devices that share each layer (tensor parallelism); costs are those of one.")
    var tensorParallel: Int = 1

    @Option(help: "Images that are encoded, or the tiles that they are cut into (--formula exact).")
    var images: Int = 1

    @Option(
        name: .customLong("select"), parsing: .singleValue,
        help: "Image tokens that are left out: none, prumerge, prumerge+, fastv:k=3,r=0.5; may be given twice, for tower and decoder.")
    var select: [String] = []

    @Option(help: "Positions of the prompt that hold images; by default as many as the images have before tokens are selected.")
    var imageTokens: Int?

    @Option(help: "reference: the published experiments' count; exact: the engine's operations.")
    var formula: CostFormula = .reference

    @Option(help: "Detail of the list: total, layer, operation.")
    var by: CostReport.Detail = .total

    @OptionGroup var format: FormatFlags

    @Option(help: "Find the largest budget whose time is at most this: 300ms, 1.5s.")
    var fit: String?

    @Option(help: "The time that --fit limits: first-token, or the whole answer.")
    var fitGoal: BudgetFit.Goal = .firstToken

    @Option(help: "Draw the roofline into this .svg or .png file (needs gnuplot).")
    var chart: String?

    func validate() throws {
        if [shape, model, config].count(where: { $0 != nil }) > 1 {
            throw ValidationError("expected one of --shape, --model and --config")
        }
        if [budget, plan, fit].count(where: { $0 != nil }) > 1 { throw ValidationError("expected one of --budget, --plan and --fit") }
        try usable { _ = try TokenSelection(parsing: select) }
        if let threads, !(1 ... 256).contains(threads) { throw ValidationError("--threads: expected 1 to 256, found \(threads)") }
    }

    func run() async throws {
        try await reporting {
            let model = try analyzedModel().scheduled(type: scheduler, rank: rank, prefixLayers: prefixLayers)
                .selecting(TokenSelection(parsing: select))
            var settings = model.settings(promptTokens: promptTokens, generatedTokens: generate)
            if let weightBits { (settings.weightBits, settings.readWeightBits) = (weightBits, nil) }
            (settings.batchSize, settings.activationBits, settings.keyValueBits) = (batch, activationBits, kvBits)
            (settings.flashAttention, settings.tensorParallel, settings.images) = (flashAttention, tensorParallel, images)
            settings.imageTokens = imageTokens
            let report = try report(model, settings, try analyzedHardware())
            if let chart { try RooflineChart(report.analysis).draw(to: URL(systemPath: chart)) }
            switch format.chosen {
            case .json: printNow(try adallava.json(report.json))
            case .csv: printNow(report.csv)
            case .table: printNow(report.lines.joined(separator: "\n"))
            }
            if let warning = report.warning { Console.shared.message("adallava: " + warning) }
        }
    }

    private func analyzedModel() throws -> AnalyzedModel {
        if let config { return try AnalyzedModel(configuration: URL(systemPath: config)) }
        if let shape { return try AnalyzedModel.shape(shape) }
        return try AnalyzedModel(checkpoint: ModelLocation.find(model))
    }

    private func analyzedHardware() throws -> Hardware {
        guard measure || hardware.lowercased() == Hardware.thisMachine else { return try Hardware.named(hardware) }
        let (ceilings, notKept) = try MachineCeilings.load(threads: threads, refresh: measure) {
            Console.shared.message("measuring this machine: a few seconds")
        }
        if let notKept { Console.shared.message("adallava: the measured ceilings could not be kept: \(notKept)") }
        if let caution = ceilings.caution { Console.shared.message("adallava: warning: \(caution)") }
        return hardware.lowercased() == Hardware.thisMachine ? ceilings.hardware : try Hardware.named(hardware)
    }

    private func report(_ model: AnalyzedModel, _ settings: CostSettings, _ hardware: Hardware) throws -> CostReport {
        if let fit {
            let found = try BudgetFit(parsing: fit, goal: fitGoal, model: model, hardware: hardware, settings: settings, formula: formula)
            return CostReport(found.analysis, by: by, fit: found)
        }
        let costPlan = try plan.map { try CostPlan(argument: $0, model: model) } ?? CostPlan(parsing: budget ?? "1", model: model)
        let analysis = try CostAnalysis(model: model, hardware: hardware, settings: settings, plan: costPlan, formula: formula)
        return CostReport(analysis, by: by)
    }
}

extension CostFormula: ExpressibleByArgument {}
extension CostReport.Detail: ExpressibleByArgument {}
extension BudgetFit.Goal: ExpressibleByArgument {}
extension AdaptiveConfiguration.SchedulerType: ExpressibleByArgument {}
