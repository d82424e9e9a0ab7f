import AdaLLaVA
import AdaServer
import ArgumentParser
import Foundation

struct Batch: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answer a file of requests, in OpenAI's batch format.",
        discussion: """
            adallava batch -m scenes/L --input requests.jsonl --output answers.jsonl
            adallava batch -m scenes/L --input requests.jsonl --output answers-$SLURM_ARRAY_TASK_ID.jsonl --shard $SLURM_ARRAY_TASK_ID/16
            Each line is {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}. An interrupted run resumes: lines whose \
            answers are in the output are skipped.
            """)

    @OptionGroup var model: ModelFlags

    @Option(help: "The file of requests.", completion: .file(extensions: ["jsonl"]))
    var input: String

    @Option(help: "The file that answers are appended to, as they are completed.", completion: .file(extensions: ["jsonl"]))
    var output: String

    @Option(help: "Answer one of several parts: 3/16 is the third of sixteen. All questions about the same images are in one part.")
    var shard: String?

    @Option(help: "Maximum number of answers computed at once.")
    var maxConcurrent = 32

    @Option(help: "A folder whose files requests may name as images (file:///photo.jpg).", completion: .directory)
    var allowMediaDir: String?

    @Option(help: "The model's name in requests, instead of the checkpoint's.")
    var servedModelName: String?

    @OptionGroup var drafts: SpeculationFlag

    func validate() throws {
        guard (1 ... 1024).contains(maxConcurrent) else { throw ValidationError("--max-concurrent: expected 1 to 1024, found \(maxConcurrent)") }
        _ = try part()
    }

    private func part() throws -> OfflineBatch.Shard? {
        guard let shard else { return nil }
        let numbers = shard.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
        guard numbers.count == 2, let number = numbers[0], let count = numbers[1], let part = OfflineBatch.Shard(number: number, count: count) else {
            throw ValidationError("--shard: expected a part and their number such as 3/16, found '\(shard)'")
        }
        return part
    }

    func run() async throws {
        try await reporting {
            let part = try part()
            guard Files.exists(URL(systemPath: input)) else { throw CheckpointError.missing(file: input, needed: "the requests of a batch") }
            var options = ServerOptions()
            (options.maxConcurrent, options.mediaFolder) = (maxConcurrent, try allowMediaDir.map(Serve.folder))
            let checkpoint = try model.open()
            let summary = try await withInterruption { [options] in
                let loaded = try await model.compute.load(checkpoint) { ($0.concurrentRequests, $0.speculation) = (maxConcurrent, drafts.speculation) }
                let runner = try OfflineBatch(loaded, modelName: Serve.name(of: model.model, served: servedModelName), options: options)
                return try await runner.run(input: URL(systemPath: input), output: URL(systemPath: output), shard: part) { done, count in
                    Console.shared.progress("answering", done: done, of: count)
                }
            }
            Console.shared.finishProgress()
            Console.shared.message(
                "\(summary.answered) answered, \(summary.errors) of them with an error; \(summary.known) known before; \(TerminalText.shown(output))")
        }
    }
}
