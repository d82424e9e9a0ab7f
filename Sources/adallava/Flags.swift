import AdaEvaluation
import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

/// Where quantized weights are stored.
struct PlacementFlag: ParsableArguments {
    @Flag(inversion: .prefixedNo, help: "Use Q8_0, Q4_0 and Q4_1 weights straight from the memory-mapped file (default for files of 1 GB and more), or repack them in RAM.")
    var mmap: Bool?

    var placement: WeightPlacement { mmap.map { $0 ? .file : .memory } ?? .automatic }
}

/// How keys and values are stored.
struct CacheFlag: ParsableArguments {
    @Option(help: "Keys and values in 16 bits (f16; 32 under --precision f32), or in 8 with a scale for each position and head (q8_0): half the memory, and faster after a long prompt.")
    var kv: KeyValueType = .f16
}

/// The chat template, where a person chooses it.
struct TemplateFlags: ParsableArguments {
    @Option(help: "A built-in chat template instead of the checkpoint's: \(ChatTemplate.names.joined(separator: ", ")).")
    var template: String?

    @Option(help: "A chat template in Jinja instead of the checkpoint's: a file, or a JSON file with a chat_template.")
    var chatTemplate: String?

    var choice: ChatTemplateChoice? {
        template.map(ChatTemplateChoice.named) ?? chatTemplate.map { .file(URL(systemPath: $0)) }
    }

    /// Its name in results.
    var summary: String { template ?? chatTemplate ?? "chosen" }

    func validate() throws {
        if template != nil, chatTemplate != nil { throw ValidationError("--template and --chat-template: expected one of them, found both") }
        if let template { try usable { _ = try ChatTemplate.named(template) } }
    }
}

/// Where a model's image part is, if it is not found by itself.
struct ImagePartFlags: ParsableArguments {
    @Option(help: "The projector file of a LLaVA GGUF pair; found automatically if both are alone in their folder.", completion: .file())
    var mmproj: String?

    @Option(
        help: "The folder of the vision tower that a LLaVA checkpoint names; found automatically next to the checkpoint and in the Hugging Face cache.",
        completion: .directory)
    var visionTower: String?

    var projector: URL? { mmproj.map { URL(systemPath: $0) } }
    var tower: URL? { visionTower.map { URL(systemPath: $0) } }

    func open(_ url: URL) throws -> Checkpoint { try Checkpoint.open(at: url, projector: projector, visionTower: tower) }
}

/// How a model is read and computes.
struct ComputeFlags: ParsableArguments {
    @OptionGroup var imagePart: ImagePartFlags

    @OptionGroup var templates: TemplateFlags

    @Option(name: [.customShort("t"), .customLong("threads")], help: "Threads; by default one per processor.")
    var threads: Int?

    @Option(help: "auto: the fastest arithmetic for the weights' type; q8: the same with float weights quantized to 8 bits; f32: all in float32.")
    var precision: Precision = .automatic

    @OptionGroup var cache: CacheFlag

    @OptionGroup var placement: PlacementFlag

    @Option(
        name: .customLong("select"), parsing: .singleValue,
        help: "Leave image tokens out: none, prumerge or prumerge+ between tower and decoder; fastv:k=3,r=0.5 drops this share before decoder layer k. May be given twice, for both.")
    var select: [String] = []

    @Flag(name: [.customShort("v"), .customLong("verbose")], help: "Print the loaded file, kernels and precision on standard error.")
    var verbose = false

    func load(_ url: URL) async throws -> AdaptiveModel { try await load(open(url)) }

    /// - Parameter change: changes options that are no flags of every command.
    func load(_ checkpoint: Checkpoint, _ change: (inout AdaptiveModel.Options) -> Void = { _ in }) async throws -> AdaptiveModel {
        let start = ContinuousClock.now
        var options = options
        change(&options)
        let model = try await loadWithProgress(checkpoint, options)
        if verbose {
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            Console.shared.message("file: \(checkpoint.folder.path), \(checkpoint.formatDescription)")
            Console.shared.message(
                "kernels: \(model.kernels), \(model.threads) thread\(model.threads == 1 ? "" : "s"), precision \(precision.rawValue), keys and values \(cache.kv.rawValue), loaded in \(String(format: "%.2f", seconds)) s")
        }
        return model
    }

    /// Opens a checkpoint without reading its weights, so that errors in it, or in the template, are reported first.
    func open(_ url: URL) throws -> Checkpoint {
        _ = try templates.choice?.load()
        return try imagePart.open(url).selecting(selection)
    }

    /// Which image tokens are left out.
    var selection: TokenSelection { get throws { try TokenSelection(parsing: select) } }

    var options: AdaptiveModel.Options {
        var options = AdaptiveModel.Options()
        options.threads = threads
        options.precision = precision
        options.keyValueType = cache.kv
        options.placement = placement.placement
        (options.projector, options.visionTower) = (imagePart.projector, imagePart.tower)
        options.template = templates.choice
        return options
    }

    func validate() throws {
        if let threads, !(1 ... 256).contains(threads) { throw ValidationError("--threads: expected 1 to 256, found \(threads)") }
        try usable { _ = try selection }
    }
}

/// Loads a model, saying how far that is.
func loadWithProgress(_ checkpoint: Checkpoint, _ options: AdaptiveModel.Options) async throws -> AdaptiveModel {
    Console.shared.progress("opening " + checkpoint.name, done: 0, of: 0)
    let loaded = try await AdaptiveModel(checkpoint, options: options) { step in
        Console.shared.progress("loading " + step.part, done: step.done, of: step.total)
    }
    Console.shared.finishProgress()
    return loaded
}

/// Which model, and how it computes.
struct ModelFlags: ParsableArguments {
    @Option(
        name: [.customShort("m"), .customLong("model")],
        help: "A checkpoint folder, a .safetensors or a .gguf file; scenes/L or scenes/H, which ship with the command; or OWNER/NAME in the Hugging Face cache. The default is scenes/L.",
        completion: .file())
    var model: String?

    @OptionGroup var compute: ComputeFlags

    /// - Parameter model: the model, where it is not an option but an argument.
    func load(_ model: String? = nil) async throws -> AdaptiveModel {
        try await compute.load(try ModelLocation.find(model ?? self.model))
    }

    func load(_ checkpoint: Checkpoint) async throws -> AdaptiveModel { try await compute.load(checkpoint) }

    func open() throws -> Checkpoint { try compute.open(locate()) }

    /// Where the model is.
    func locate() throws -> URL { try ModelLocation.find(model) }
}

extension Precision: ExpressibleByArgument {}

extension KeyValueType: ExpressibleByArgument {}

/// Runs a check whose failure means a wrong option, so that it is reported before anything is read.
func usable(_ check: () throws -> Void) throws {
    do { try check() } catch let error as any AdaLLaVAError { throw ValidationError(error.description) }
}

/// Budgets with commas between them: `1.0,0.85,60%`.
/// - Throws: `BudgetError`; ``EvaluationError/argument(name:expected:found:)`` for a time or `auto`, or for none.
func fractions(of text: String, option: String = "--budgets") throws -> [Double] {
    try budgets(of: text, option: option).map { budget in
        guard case .fraction(let fraction) = budget else {
            throw EvaluationError.argument(name: option, expected: "fractions of full compute", found: "\(budget)")
        }
        return fraction
    }
}

/// Budgets with commas between them, `auto` among them: `1.0,0.6,auto`.
/// - Throws: `BudgetError`; ``EvaluationError/argument(name:expected:found:)`` for none.
func budgets(of text: String, option: String = "--budgets") throws -> [Budget] {
    let budgets = try text.split(separator: ",").map { try Budget(parsing: String($0)) }
    guard !budgets.isEmpty else { throw EvaluationError.argument(name: option, expected: "at least one budget", found: "none") }
    return budgets
}

/// Whether tokens are drafted.
struct SpeculationFlag: ParsableArguments {
    /// The value of `--speculate`, also a wrong one. A text that is no value at all belongs to the arguments that follow.
    enum Value: ExpressibleByArgument {
        case valid(Speculation)
        case wrong(String)

        init?(argument text: String) {
            if let speculation = Speculation(text) {
                self = .valid(speculation)
            } else if Double(text) != nil || (text.allSatisfy(\.isLetter) && !FileManager.default.fileExists(atPath: text)) {
                self = .wrong(text)
            } else {
                return nil
            }
        }

        var defaultValueDescription: String { if case .valid(let speculation) = self { speculation.description } else { "" } }
    }

    @Option(
        defaultAsFlag: Value.valid(.auto), parsing: .next,
        help: "Draft this many tokens with the first layers, or from repeated text if the model has no scheduler, and verify them in one step; auto (without a value): as many as pay; off. Answers stay the same.")
    var speculate: Value?

    var speculation: Speculation { if case .valid(let speculation) = speculate { speculation } else { .off } }

    func validate() throws {
        if case .wrong(let text) = speculate {
            throw ValidationError("--speculate: expected auto, off or a number from 1 to \(Speculation.mostTokens), found '\(text)'")
        }
    }
}

/// How tokens are chosen and when an answer ends.
struct SamplingFlags: ParsableArguments {
    // Parsed unconditionally, so that a budget of -1 gets an error that explains it.
    @Option(parsing: .unconditional, help: "A fraction of the full model's compute, above 0 and at most 1 (0.7, 70%), or times: 400ms, ttft:150ms, tpot:8ms; or auto: the need of the input, auto:within=0.01 with at most this loss of accuracy, auto:mean=0.4 at this mean fraction.")
    var budget: String = "1"

    @Option(
        name: [.customShort("n"), .customLong("max-tokens"), .customLong("predict"), .customLong("n-predict")], parsing: .unconditional,
        help: "Maximum tokens of an answer.")
    var maxTokens: Int = 512

    @Option(name: [.customLong("temperature"), .customLong("temp")], parsing: .unconditional, help: "0 always takes the most likely token; higher is more varied.")
    var temperature: Double = 0

    @Option(parsing: .unconditional, help: "Sample from the smallest set of tokens whose probabilities reach this sum; 1: all.")
    var topP: Double = 1

    @Option(parsing: .unconditional, help: "Sample from this many most likely tokens; 0: all.")
    var topK: Int = 0

    @Option(parsing: .unconditional, help: "Exclude tokens less likely than this times the most likely one.")
    var minP: Double = 0

    @Option(
        name: [.customLong("repetition-penalty"), .customLong("repeat-penalty")], parsing: .unconditional,
        help: "Make tokens that already occurred less likely; 1: no effect.")
    var repetitionPenalty: Double = 1

    @Option(name: [.customShort("s"), .customLong("seed")], help: "The same seed gives the same answer on the same machine.")
    var seed: UInt64?

    @Option(parsing: .unconditionalSingleValue, help: "Text that ends the answer; may be given several times.")
    var stop: [String] = []

    @Option(parsing: .unconditional, help: "The system prompt, instead of the template's.")
    var system: String?

    @OptionGroup var drafts: SpeculationFlag

    func validate() throws {
        try usable {
            _ = try Budget(parsing: budget)
            do { try generationOptions().validate() } catch let error as SamplingError { throw ValidationError("--\(error)") }
        }
    }

    func generationOptions() -> GenerationOptions {
        var options = GenerationOptions()
        options.maxTokens = maxTokens
        options.sampling.temperature = temperature
        options.sampling.topP = topP
        options.sampling.topK = topK
        options.sampling.minP = minP
        options.sampling.repetitionPenalty = repetitionPenalty
        options.sampling.seed = seed
        options.stop = stop.map(SystemPath.prose)
        options.system = system.map(SystemPath.prose)
        options.speculation = drafts.speculation
        return options
    }
}
