import AdaEvaluation
import AdaLLaVA
import AdaProbes
import ArgumentParser
import Foundation

struct Perplexity: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure how well a model predicts a text.",
        discussion: """
              adallava perplexity book.txt --model M.gguf --tokens 20000 --kv f16,q8_0

            Windows of --context tokens overlap by half; each predicts its second half, with all layers, as prompts are read or, with --singly, as answers are \
            generated. --kv compares ways to store keys and values.
            """)

    @Argument(help: "A text file in UTF-8.", completion: .file())
    var file: String

    @OptionGroup var model: PerplexityModelFlags

    @Option(help: "Tokens to predict, at most.")
    var tokens = 20_000

    @Option(help: "Tokens of a window; by default 4096, or the model's context if that is shorter.")
    var context: Int?

    @Flag(help: "Predict one token a step, as answers are generated, instead of as prompts are read.")
    var singly = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if tokens < 1 { throw ValidationError("--tokens: expected 1 or more, found \(tokens)") }
        if let context, context < 2 { throw ValidationError("--context: expected 2 or more, found \(context)") }
        _ = try keyValueTypes(model.kv)
    }

    func run() async throws {
        try await reporting {
            let url = URL(systemPath: file)
            guard Files.exists(url) else { throw CheckpointError.missing(file: file, needed: "the text") }
            guard let data = try? Files.data(url), let text = String(data: data, encoding: .utf8) else {
                throw CheckpointError.unreadable(file: file, reason: "expected a text file in UTF-8")
            }
            let (tokens, context, singly, flags) = (tokens, context, singly, model)
            let result = try await withInterruption { try await Self.measure(text, flags, tokens: tokens, context: context, singly: singly) }
            printNow(json ? try adallava.json(result) : result.lines.joined(separator: "\n"))
        }
    }

    private static func measure(
        _ text: String, _ flags: PerplexityModelFlags, tokens limit: Int, context: Int?, singly: Bool
    ) async throws -> PerplexityResult {
        let url = try ModelLocation.find(flags.model)
        var result: PerplexityResult?
        for type in try keyValueTypes(flags.kv) {
            var options = AdaptiveModel.Options()
            (options.threads, options.precision, options.keyValueType) = (flags.threads, flags.precision, type)
            let model = try await AdaptiveModel(contentsOf: url, options: options)
            let most = model.contextLength - 1, window = context ?? min(4096, most)
            guard window <= most else { throw ValidationError("--context: expected at most \(most), the context of \(model.name) less one, found \(window)") }
            let tokens = try model.tokenize(prompt: text)
            guard tokens.count > window / 2 else {
                throw ValidationError("\(text.utf8.count) bytes of text: expected more than half of --context, \(window / 2) tokens, found \(tokens.count)")
            }
            let total = min(limit, tokens.count - window / 2)
            let found = try await model.surprise(of: tokens, context: window, singly: singly, limit: limit) {
                Console.shared.progress("predicting, keys and values \(type.rawValue)", done: $0, of: total)
            }
            Console.shared.finishProgress()
            let entry = PerplexityResult.Entry(kvType: type.rawValue, perplexity: found.perplexity)
            if result == nil { result = PerplexityResult(model: model.name, kernels: model.kernels, tokens: found.tokens, context: window, singly: singly) }
            result?.results.append(entry)
        }
        return result ?? PerplexityResult(model: "", kernels: "", tokens: 0, context: 0, singly: singly)
    }
}

/// Which model, and how it computes.
struct PerplexityModelFlags: ParsableArguments {
    @Option(name: [.customShort("m"), .customLong("model")], help: "A checkpoint folder, a .safetensors or a .gguf file; by default the embedded model.", completion: .file())
    var model: String?

    @Option(name: [.customShort("t"), .customLong("threads")], help: "Threads; by default one per processor.")
    var threads: Int?

    @Option(help: "auto: the fastest arithmetic for the weights' type; q8: the same with float weights quantized to 8 bits; f32: all in float32.")
    var precision: Precision = .automatic

    @Option(help: "How keys and values are stored: f16, q8_0, or both with a comma between them.")
    var kv = KeyValueType.f16.rawValue
}
