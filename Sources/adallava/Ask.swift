import AdaEvaluation
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
              adallava ask -m scenes/H --image photo.jpg -p "What is on the left?" -n 32 --temp 0.5
              echo "What is on the left?" | adallava ask photo.jpg -

            An image is a file (JPEG, PNG, WebP, GIF, BMP), - for standard input, a file: or a data: URL. The question is the last argument (- reads it \
            from standard input), --prompt TEXT, or --file FILE.
            """)

    @Argument(help: ArgumentHelp("Images (files, file: or data: URLs, - for standard input), then the question.", valueName: "image … question"), completion: .file())
    var input: [String] = []

    @Option(help: "An image; may be given several times. These come before images among the arguments.", completion: .file())
    var image: [String] = []

    @Option(name: [.customShort("p"), .customLong("prompt")], parsing: .unconditional, help: "The question; all arguments are then images.")
    var prompt: String?

    @Option(
        name: [.customShort("f"), .customLong("file")], help: "A file with the question, - for standard input; all arguments are then images.",
        completion: .file())
    var file: String?

    @OptionGroup var model: ModelFlags
    @OptionGroup var sampling: SamplingFlags
    @OptionGroup var deadlines: DeadlineFlags
    @OptionGroup var damage: LenientFlag
    @OptionGroup var quiet: QuietFlag

    @Flag(help: "Print one JSON object instead of streaming the answer.")
    var json = false

    @Flag(help: "Print the parts that ran, predicted and measured times, the machine's load, and parts turned off during the answer.")
    var explain = false

    @Option(help: "Write the latency token's attention over the first image as a PNG file.", completion: .file(extensions: ["png"]))
    var attentionMap: String?

    func validate() throws {
        if attentionMap != nil, images.isEmpty || images[0] == "-" {
            throw ValidationError("--attention-map: expected an image among the arguments, as a file, a file: or a data: URL")
        }
        if prompt != nil, file != nil { throw ValidationError("expected --prompt or --file, not both") }
        if let prompt { try Question.expectText(prompt) }
        if prompt == nil, file == nil { try checkQuestion() }
        let inputs = images.count { $0 == "-" } + (question == .standardInput ? 1 : 0)
        if inputs > 1 { throw ValidationError("expected - for standard input once, found it for \(inputs) images or texts") }
    }

    /// The images in their order, and where the question is.
    private var images: [String] { image + (prompt == nil && file == nil ? Array(input.dropLast()) : input) }

    private var question: Question {
        if let prompt { return .text(prompt) }
        if let file { return file == "-" ? .standardInput : .file(file) }
        return input.last == "-" ? .standardInput : .text(input.last ?? "")
    }

    /// Mistakes with a question among the arguments: none, an image in its place, or one without quotes.
    private func checkQuestion() throws {
        guard let last = input.last else {
            throw ValidationError(
                image.isEmpty ? "expected a question, or an image and a question" : "expected a question after the image \(image[image.count - 1])")
        }
        if last != "-" { try Question.expectText(last) }
        if input.count == 1, image.isEmpty, last != "-", Files.exists(URL(systemPath: last)) || Question.looksLikeImage(last) {
            throw ValidationError(
                Files.exists(URL(systemPath: last)) ? "expected a question after the image \(last)"
                    : "expected an image and a question, found only '\(last)', which is no file")
        }
        try checkOrder(last)
        let words = input.dropLast().drop { $0 == "-" || $0.hasPrefix("data:") || Files.exists(URL(systemPath: $0)) || Question.looksLikeImage($0) }
        if let first = words.first, words.allSatisfy({ $0 != "-" && !Files.exists(URL(systemPath: $0)) && !$0.contains("/") && !Question.looksLikeImage($0) }) {
            if let option = input.drop(while: { $0 != first }).dropFirst().first(where: { $0.hasPrefix("-") && $0 != "-" && Double($0) == nil }) {
                throw ValidationError("unknown option '\(option.prefix(80))'")
            }
            let text = (words + [last]).joined(separator: " ")
            throw ValidationError("'\(first)' is no image; a question of several words needs quotes: \"\(text)\"")
        }
    }

    /// Refuses an image after the question.
    private func checkOrder(_ last: String) throws {
        guard Question.looksLikeImage(last) else { return }
        let texts = input.dropLast().filter { $0 != "-" && !$0.hasPrefix("data:") && !Question.looksLikeImage($0) && !Files.exists(URL(systemPath: $0)) }
        // Of several words, the last one may be part of a question about a file's name.
        guard texts.count == 1 || !texts.isEmpty && Files.exists(URL(systemPath: last)) else { return }
        throw ValidationError("expected images before the question, found \(last) after it: adallava ask \(last) \"\(texts.joined(separator: " "))\"")
    }

    func run() async throws {
        try await reporting {
            quiet.apply()
            // A wrong budget is reported before anything is read.
            let budget = try Budget(parsing: sampling.budget)
            let batch = try imageBatch(images, tolerance: damage.tolerance)
            let question = try question.read()
            let checkpoint = try model.open()
            let images = try batch.prepared(for: checkpoint)
            try await withInterruption {
                let (model, loading) = try await loadForBudget(model, checkpoint, budget)
                Console.shared.note(ModelLine.text(checkpoint))
                try await answer(model, question, images, budget, loading, contextLength: checkpoint.configuration.language.contextLength)
            }
        }
    }

    private func answer(
        _ model: AdaptiveModel, _ question: String, _ images: [PreparedImage], _ budget: Budget, _ loading: Duration, contextLength: Int
    ) async throws {
        var options = sampling.generationOptions()
        options.deadlines = deadlines.options
        let (text, summary) = try await streamed(
            model, [ChatMessage.question(question, images: images.count)], images, budget, options, isQuiet: json)
        guard let summary else { return }
        if json {
            printNow(try adallava.json(summary.json(answer: text, loading: loading)))
        } else {
            Console.shared.note(summary.line)
        }
        if explain {
            Console.shared.message(AnswerExplanation(summary: summary).text)
            Console.shared.message(String(format: "loading     %.0f ms, not part of the answer's time", loading / .milliseconds(1)))
        }
        if let attentionMap { try await writeMap(model, question, summary, to: URL(systemPath: attentionMap)) }
        summary.warn(maxTokens: sampling.maxTokens, contextLength: contextLength, isCutShown: !json)
        try await calibrateAfterAnswer(model, budget)
    }
}

extension Ask {
    /// Runs the question once more, keeping where the latency token looks.
    private func writeMap(_ model: AdaptiveModel, _ question: String, _ summary: AnswerSummary, to file: URL) async throws {
        let image = try readImage(images[0])
        let budget = summary.units.flatMap { units in model.fraction(buying: units) } ?? 1
        let attention = try await LatencyAttention(model, question: question, image: image, budget: budget)
        try Files.write(Data(try AttentionMap(attention).png(over: image, crops: model.cropsImages)), to: file)
        Console.shared.message("attention map: \(TerminalText.shown(file.path))")
    }
}

extension AnswerSummary {
    /// Warns about the unexpected in an answer.
    /// - Parameter isCutShown: also if it was cut, which JSON reports as `finish_reason`.
    func warn(maxTokens: Int, contextLength: Int, isCutShown: Bool) {
        switch finish {
        case .maxTokens where isCutShown: Console.shared.message("(the answer was cut at --max-tokens \(maxTokens))")
        case .contextFull where isCutShown:
            Console.shared.message("(the answer was cut at the end of the model's context of \(contextLength) positions)")
        case .deadline where isCutShown: Console.shared.message("(the answer was cut at its budget of \(budget))")
        default: break
        }
        if let warning { Console.shared.message("adallava: " + warning) }
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
        for try await event in model.respond(to: conversation, prepared: images, budget: budget, options: options) {
            switch event {
            case .text(let new): line.append(new)
            case .logProbabilities: break
            case .finished(let result): summary = result
            }
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
