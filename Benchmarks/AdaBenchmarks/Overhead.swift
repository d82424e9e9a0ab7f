import AdaLLaVA
import AdaProbes
import ArgumentParser
import Foundation

/// What an answer costs beside the decoder: choosing, tokenizing and streaming tokens.
///
/// One repeat streams an answer and then passes the very same tokens through the decoder alone, so that what else the machine does meanwhile
/// hits both; the median of the repeats' ratios is reported.
struct Overhead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure what streaming an answer costs beyond computing it.",
        discussion: "Times streamed answers, and the decoder alone on the same tokens.")

    @Argument(help: "A checkpoint with a tokenizer.")
    var checkpoint: String

    @Option(help: "The question.")
    var question = "Write a long story about a lighthouse keeper and the sea."

    @Option(help: "Maximum tokens of an answer.")
    var tokens = 96

    @Option(help: "Repeats of both.")
    var repeats = 9

    @OptionGroup var measurement: MeasurementOptions

    func validate() throws {
        if tokens < 8 || repeats < 1 { throw ValidationError("expected --tokens of 8 or more and --repeats of 1 or more") }
    }

    /// How tokens are chosen in a case that is measured.
    private struct Choice {
        let name: String
        let sampling: SamplingOptions
        var answers: [Double] = []
        var decoders: [Double] = []
        var counts: [Int] = []

        var shares: [Double] { zip(answers, decoders).map { 1 - $1 / $0 } }
    }

    func run() async throws {
        var options = AdaptiveModel.Options()
        options.threads = measurement.threads
        let model = try await AdaptiveModel(contentsOf: URL(fileURLWithPath: checkpoint), options: options)
        var drawn = SamplingOptions()
        (drawn.temperature, drawn.topP, drawn.topK, drawn.seed) = (0.7, 0.9, 40, 1)
        var choices = [Choice(name: "greedy", sampling: SamplingOptions()), Choice(name: "temperature 0.7, top-k 40, top-p 0.9", sampling: drawn)]
        let conversation = [ChatMessage.question(question, images: 0)]
        let prompt = try model.tokenize(conversation)
        // Where a person would read it.
        let sink = try FileHandle(forWritingTo: URL(fileURLWithPath: "/dev/null"))
        // The first round warms caches and the processor's clock, and is not counted.
        for round in 0 ... repeats {
            for index in choices.indices {
                var generation = GenerationOptions()
                (generation.maxTokens, generation.sampling) = (tokens, choices[index].sampling)
                var summary: AnswerSummary?
                for try await event in model.respond(to: conversation, images: [], options: generation) {
                    switch event {
                    case .text(let new): try sink.write(contentsOf: Data(new.utf8))
                    case .logProbabilities: break
                    case .finished(let result): summary = result
                    }
                }
                guard let summary, summary.tokens.count > 1 else { throw ValidationError("\(checkpoint) answers with less than two tokens; ask something else") }
                let alone = try await model.measureDecoder(prompt: prompt, tokens: Array(summary.tokens.dropLast())).reduce(.zero, +)
                if round == 0 { continue }
                let steps = Double(summary.tokens.count - 1)
                choices[index].answers.append(summary.measured.decode / .milliseconds(1) / steps)
                choices[index].decoders.append(alone / .milliseconds(1) / steps)
                choices[index].counts.append(summary.tokens.count)
            }
        }
        print("\(URL(fileURLWithPath: checkpoint).lastPathComponent): \(repeats) repeats, load \(String(format: "%.2f", loadAverage()))")
        print("answer ms  decoder ms  beside it  tokens  chosen by")
        for choice in choices {
            print(
                String(
                    format: "%9.3f  %10.3f  %7.2f %%  %6.0f  %@", median(choice.answers), median(choice.decoders), 100 * median(choice.shares),
                    median(choice.counts.map(Double.init)), choice.name))
        }
        try writeJSON(
            [
                "model": URL(fileURLWithPath: checkpoint).lastPathComponent, "repeats": repeats, "load": loadAverage(),
                "choices": choices.map {
                    [
                        "name": $0.name, "answer_ms": median($0.answers), "decoder_ms": median($0.decoders), "share": median($0.shares),
                        "tokens": median($0.counts.map(Double.init)),
                    ] as [String: Any]
                },
            ], to: measurement.json)
    }
}
