import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct TraceRequest: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace",
        abstract: "Run one request and write its intermediates, for comparison with another implementation.",
        discussion: """
            Writes float32 tensors under the reference's names: pixel_values, image_features, latency_embedding, scheduler_input, \
            scheduler_logits, plan, prefill_last_logits, step_logits, and with --layers inputs_embeds and layer_output.N. Prints one JSON \
            object. The prompt is used without a chat template; <image> (token -200) is the placeholder of an image. Answers are \
            greedy.
            """)

    @Argument(help: "A checkpoint folder, a .safetensors or a .gguf file; an embedded model's name; or OWNER/NAME in the Hugging Face cache.", completion: .file())
    var checkpoint: String

    @OptionGroup var compute: ComputeFlags

    @Option(help: "An image file; once for each <image> of the prompt.")
    var image: [String] = []

    @Flag(help: "The prompt has no image.")
    var noImage = false

    @Option(parsing: .unconditional, help: "The whole prompt as text.")
    var prompt: String?

    // A prompt may begin with an image, -200, which looks like an option.
    @Option(parsing: .unconditional, help: "The whole prompt as token ids, such as 1,280,-200,13.")
    var tokens: String?

    @Option(parsing: .unconditional, help: "A fraction of the full model's compute, above 0 and at most 1.")
    var budget = "1"

    @Option(parsing: .unconditional, help: "Tokens to generate.")
    var maxTokens = 12

    @Option(help: "The safetensors file to write.")
    var output: String

    @Flag(help: "Also write the first layer's input and each layer's output in the first pass.")
    var layers = false

    @Flag(help: "Print one JSON object (always on).")
    var json = false

    func validate() throws {
        if (prompt == nil) == (tokens == nil) { throw ValidationError("expected either --prompt or --tokens") }
        if image.isEmpty != noImage { throw ValidationError("expected either --image FILE or --no-image") }
        if maxTokens < 1 { throw ValidationError("--max-tokens: expected 1 or more, found \(maxTokens)") }
        _ = try tokenList()
    }

    private func tokenList() throws -> [Int]? {
        try tokens?.split(separator: ",", omittingEmptySubsequences: false).map {
            guard let token = Int($0.trimmingCharacters(in: .whitespaces)) else {
                throw ValidationError("--tokens: expected whole numbers separated by commas, found '\($0)'")
            }
            return token
        }
    }

    func run() async throws {
        try await reporting {
            let budget = try Budget(parsing: budget)
            // Traces are compared with the reference, so a damaged image is read as Pillow reads it.
            let batch = try imageBatch(image, tolerance: .asPillow)
            let list = try tokenList()
            try expectWritable(URL(systemPath: output))
            let opened = try compute.open(ModelLocation.find(checkpoint))
            let images = try batch.prepared(for: opened)
            try await withInterruption {
                let model = try await compute.load(opened)
                let tokens = try list ?? model.tokenize(prompt: SystemPath.prose(prompt ?? ""))
                let traced = try await model.trace(
                    tokens: tokens, prepared: images, budget: budget, maxTokens: maxTokens, includesLayers: layers,
                    onProgress: { Console.shared.show($0, countsTokens: true) })
                Console.shared.finishProgress()
                try traced.write(to: URL(systemPath: output))
                printNow(try adallava.json(traced.json))
                if let warning = traced.summary.warning { Console.shared.message("adallava: " + warning) }
            }
        }
    }
}
