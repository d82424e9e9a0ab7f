import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

struct Ask: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answer a question about an image within a budget.",
        discussion: """
            adallava ask photo.jpg "What is on the left?" --budget 0.7
            adallava ask "Name three rivers." --model SmolLM2-135M-Instruct.gguf
            An image is a file (JPEG, PNG, WebP, GIF, BMP), - for standard input, or a data: URL.
            """)

    @Argument(help: ArgumentHelp("Images, then the question.", valueName: "image … question"))
    var input: [String]

    @OptionGroup var model: ModelFlags
    @OptionGroup var sampling: SamplingFlags

    @Flag(help: "Print one JSON object instead of streaming the answer.")
    var json = false

    func validate() throws {
        if input.isEmpty { throw ValidationError("expected a question, or an image and a question") }
    }

    func run() async throws {
        try await reporting {
            // A wrong budget is told before anything is read.
            let budget = try Budget(parsing: sampling.budget)
            let images = try input.dropLast().map { try RGBImage(ImageSource(argument: $0)) }
            let question = input[input.count - 1]
            try await withInterruption {
                let model = try await model.load()
                try await answer(model, question, images, budget)
            }
        }
    }

    private func answer(_ model: AdaptiveModel, _ question: String, _ images: [RGBImage], _ budget: Budget) async throws {
        var options = sampling.generationOptions()
        options.onProgress = { Console.shared.show($0) }
        var summary: AnswerSummary?
        var text = ""
        for try await piece in model.answer(question, images: images, budget: budget, options: options) {
            if text.isEmpty { Console.shared.finishProgress() }
            text += piece.text
            if !json { printNow(piece.text, terminator: "") }
            summary = piece.summary ?? summary
        }
        if !json { printNow("") }
        guard let summary else { return }
        if json {
            printNow(try adallava.json(summary.jsonObject(answer: text)))
        } else {
            Console.shared.message(summary.line)
        }
        if let warning = summary.warning { Console.shared.message("adallava: " + warning) }
    }
}

extension Console {
    func show(_ progress: GenerationProgress) {
        switch progress {
        case .encoding(let image, let images, let layer, let layers):
            self.progress(images > 1 ? "encoding image \(image) of \(images)" : "encoding the image", done: layer, of: layers)
        case .reading(let done, let total): self.progress("reading the prompt", done: done, of: total)
        }
    }
}
