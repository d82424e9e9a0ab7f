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
    @OptionGroup var deadlines: DeadlineFlags
    @OptionGroup var damage: LenientFlag

    @Flag(help: "Print one JSON object instead of streaming the answer.")
    var json = false

    func validate() throws {
        if input.isEmpty { throw ValidationError("expected a question, or an image and a question") }
        if input.count == 1, input[0] == "-" || Files.exists(URL(systemPath: input[0])) {
            throw ValidationError("expected a question after the image \(input[0])")
        }
    }

    func run() async throws {
        try await reporting {
            // A wrong budget is told before anything is read.
            let budget = try Budget(parsing: sampling.budget)
            let batch = try imageBatch(input.dropLast(), tolerance: damage.tolerance)
            let question = SystemPath.prose(input[input.count - 1])
            let checkpoint = try model.open()
            let images = try batch.prepared(for: checkpoint)
            try await withInterruption {
                let model = try await model.load(checkpoint)
                try await answer(model, question, images, budget)
            }
        }
    }

    private func answer(_ model: AdaptiveModel, _ question: String, _ images: [PreparedImage], _ budget: Budget) async throws {
        var options = sampling.generationOptions()
        options.deadlines = deadlines.options
        let (text, summary) = try await streamed(
            model, [ChatMessage.question(question, images: images.count)], images, budget, options, isQuiet: json)
        guard let summary else { return }
        if json {
            printNow(try adallava.json(summary.jsonObject(answer: text)))
        } else {
            Console.shared.message(summary.line)
        }
        if let warning = summary.warning { Console.shared.message("adallava: " + warning) }
        try await calibrateAfterAnswer(model, budget)
    }
}

/// Answers the last turn of a conversation, printing the text as it comes unless `isQuiet`.
func streamed(
    _ model: AdaptiveModel, _ conversation: [ChatMessage], _ images: [PreparedImage], _ budget: Budget, _ options: GenerationOptions, isQuiet: Bool
) async throws -> (text: String, summary: AnswerSummary?) {
    var options = options
    options.onProgress = { Console.shared.show($0, countsTokens: isQuiet) }
    var line = AnswerLine(isQuiet: isQuiet)
    var summary: AnswerSummary?
    do {
        for try await piece in model.respond(to: conversation, prepared: images, budget: budget, options: options) {
            line.append(piece.text)
            summary = piece.summary ?? summary
        }
    } catch {
        line.abandon()
        throw error
    }
    line.finish()
    return (line.text, summary)
}

extension Console {
    /// - Parameter countsTokens: also count the answer's tokens, which is of use when they are not printed.
    func show(_ progress: GenerationProgress, countsTokens: Bool) {
        switch progress {
        case .answering(let done, let total): if countsTokens { self.progress("answering", done: done, of: total) }
        case .encoding(let image, let images, let layer, let layers):
            self.progress(images > 1 ? "encoding image \(image) of \(images)" : "encoding the image", done: layer, of: layers)
        case .selecting(let image, let images, let done, let total):
            self.progress(images > 1 ? "selecting tokens of image \(image) of \(images)" : "selecting image tokens", done: done, of: total)
        case .reading(let done, let total): self.progress("reading the prompt", done: done, of: total)
        }
    }
}
