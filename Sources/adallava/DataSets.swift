import AdaLLaVA
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
                up are for evaluation; nothing is trained on them. Everything is drawn from Noto's pictograms and the DejaVu and \
                Liberation fonts; Openclipart is not used.

                --regions adds the boxes of things to every record: "regions": [{"box": [left, top, right, bottom], "labels": {"thing": \
                "circle", "color": "red"}}, ...], in pixels. A pictogram has its name as thing, a printed word is the thing "word", with \
                its "word" unless it is a random string, and every letter has a region with its "character".
                """)

        @Option(name: [.customLong("out"), .customLong("output")], help: "The folder to write.")
        var out: String

        @Option(help: "Scenes to make.")
        var count = 1000

        @Option(help: "The set's seed.")
        var seed: UInt64 = 1

        @Option(help: "1, or 2 for harder questions: chains of relations, counting to nine, two words, sums, comparisons, the odd one out, negations, differences between two pictures.")
        var level = 1

        @Option(help: "The set's name.")
        var split = "train"

        @Option(help: "Maximum questions per picture, as turns of one conversation (1 to 16).")
        var turns = 1

        @Flag(help: "Add the boxes of all things and letters to every record.")
        var regions = false

        @Option(help: "Also write DIR/SPLIT-separate.json: at most this many questions per picture, drawn independently, each a sample of its own (0 to 16).")
        var separate = 0

        @Flag(help: "Draw the reference script's scenes, one question each.")
        var reference = false

        @Flag(help: "Print one JSON object.")
        var json = false

        func validate() throws {
            if !(1 ... 10_000_000).contains(count) { throw ValidationError("--count: expected 1 to 10000000, found \(count)") }
            if !SceneGenerator.turnRange.contains(turns) { throw ValidationError("--turns: expected 1 to 16, found \(turns)") }
            if separate != 0, !SceneGenerator.turnRange.contains(separate) { throw ValidationError("--separate: expected 0 to 16, found \(separate)") }
            if !SceneGenerator.levelRange.contains(level) { throw ValidationError("--level: expected 1 or 2, found \(level)") }
            if reference, level != 1 || turns != 1 || regions || separate != 0 {
                throw ValidationError("--reference: the script asks one question a scene; expected it without --turns, --regions, --separate and --level 2")
            }
            if split.isEmpty || split.contains("/") { throw ValidationError("--split: expected a name without '/', found '\(split)'") }
        }

        func run() async throws {
            try await reporting {
                let folder = URL(systemPath: out)
                let options = SceneDataset.Options(
                    count: count, seed: seed, split: split, turns: turns, regions: regions, separate: separate, reference: reference,
                    level: level)
                if seed >= SceneGenerator.firstEvaluationSeed {
                    Console.shared.message("note: seeds from \(SceneGenerator.firstEvaluationSeed) up are for evaluation; do not train on this set")
                }
                try await withInterruption {
                    try await SceneDataset.write(to: folder, options) { progress in
                        Console.shared.progress("drawing scenes", done: progress.done, of: progress.count)
                    }
                }
                Console.shared.finishProgress()
                let list = folder.appendingPathComponent(split + ".json").path
                if json {
                    printNow(try adallava.json(SceneDataset.JSON(records: count, file: list)))
                } else {
                    Console.shared.message("\(count) scenes in \(list)")
                }
            }
        }
    }
}
