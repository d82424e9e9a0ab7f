import AdaScenes
import ArgumentParser
import Foundation

struct DataSets: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "data", abstract: "Make data sets.", subcommands: [Scenes.self])

    struct Scenes: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make Scenes: pictures of pictograms, shapes and printed words with questions and answers.",
            discussion: """
                Writes DIR/images and DIR/SPLIT.json in LLaVA's instruction format. The same seed gives the same set. Seeds from 1000000 \
                up are for evaluation; nothing is trained on them.
                """)

        @Option(help: "The folder to write.")
        var out: String

        @Option(help: "Scenes to make.")
        var count = 1000

        @Option(help: "The set's seed.")
        var seed: UInt64 = 1

        @Option(help: "The set's name.")
        var split = "train"

        @Flag(help: "Print one JSON object.")
        var json = false

        func validate() throws {
            if !(1 ... 10_000_000).contains(count) { throw ValidationError("--count: expected 1 to 10000000, found \(count)") }
            if split.isEmpty || split.contains("/") { throw ValidationError("--split: expected a name without '/', found '\(split)'") }
        }

        func run() async throws {
            try await reporting {
                let folder = URL(fileURLWithPath: out)
                let (count, seed, split) = (count, seed, split)
                let records = try await withInterruption {
                    try await SceneDataset.write(to: folder, count: count, seed: seed, split: split) { progress in
                        Console.shared.progress("drawing scenes", done: progress.done, of: progress.count)
                    }
                }
                Console.shared.finishProgress()
                let list = folder.appendingPathComponent(split + ".json").path
                if json {
                    printNow(try adallava.json(["records": records.count, "file": list]))
                } else {
                    Console.shared.message("\(records.count) scenes in \(list)")
                }
            }
        }
    }
}
