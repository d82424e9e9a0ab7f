import AdaImages
import AdaLLaVA
import Foundation

/// A set of scenes on disk, in LLaVA's instruction format: `images/SPLIT-NNNNNN.jpg` and `SPLIT.json`.
package struct SceneDataset: Sendable {
    /// One entry of `SPLIT.json`.
    package struct Record: Codable, Sendable, Equatable {
        /// One turn of a record's conversation.
        package struct Turn: Codable, Sendable, Equatable {
            /// `human` or `gpt`.
            package let from: String
            /// The text; the first one starts with `<image>` and a line break.
            package let value: String
        }

        /// The record's name: that of its picture without the ending.
        package let id: String
        /// Relative to the folder that holds `SPLIT.json`.
        package let image: String
        /// The task of the first question.
        package let task: String
        /// The task of each question, if there are several.
        package let tasks: [String]?
        /// The questions and their answers.
        package let conversations: [Turn]
        /// Where everything is drawn, if ``Options/regions`` is set.
        package let regions: [SceneRegion]?
    }

    /// The output of `data scenes --json`.
    package struct JSON: Codable, Sendable {
        package var records: Int
        /// The file that lists them.
        package var file: String

        package init(records: Int, file: String) { (self.records, self.file) = (records, file) }
    }

    /// Options of a set.
    package struct Options: Sendable, Equatable {
        /// Scenes to make, 1 to 10,000,000.
        package var count: Int
        /// The same seed gives the same set.
        package var seed: UInt64
        /// Part of the file names: letters, digits, `-` and `_`.
        package var split: String
        /// Side of the pictures in pixels.
        package var size: Int
        /// Questions on one picture at most, the turns of one conversation; 1 to 16.
        package var turns: Int
        /// Whether records say where everything is drawn.
        package var regions: Bool
        /// Questions on one picture at most, each drawn without regard to the others, in `SPLIT-separate.json`; 0 to 16, 0 writes none.
        package var separate: Int
        /// Draw the scenes of the reference script: one question each, pictures of 112 pixels.
        package var reference: Bool
        /// 1, or 2 for the harder tasks: ``SceneTask/tasks(level:)``.
        package var level: Int

        package init(
            count: Int, seed: UInt64, split: String = "train", size: Int = 112, turns: Int = 1, regions: Bool = false, separate: Int = 0,
            reference: Bool = false, level: Int = 1
        ) {
            (self.count, self.seed, self.split) = (count, seed, split)
            (self.size, self.turns, self.regions, self.separate, self.reference) = (size, turns, regions, separate, reference)
            self.level = level
        }

        fileprivate func check() throws {
            guard (1...10_000_000).contains(count) else {
                throw SceneError.argument(name: "count", expected: "1 to 10000000 scenes", found: "\(count)")
            }
            let allowed = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
            guard !split.isEmpty, split.count <= 64, split.allSatisfy(allowed.contains) else {
                throw SceneError.argument(name: "split", expected: "1 to 64 letters, digits, `-` or `_`", found: "`\(split.prefix(80))`")
            }
            guard SceneGenerator.turnRange.contains(turns) else {
                throw SceneError.argument(name: "turns", expected: "1 to 16 questions", found: "\(turns)")
            }
            guard separate == 0 || SceneGenerator.turnRange.contains(separate) else {
                throw SceneError.argument(name: "separate", expected: "0 to 16 questions", found: "\(separate)")
            }
            guard SceneGenerator.levelRange.contains(level) else {
                throw SceneError.argument(name: "level", expected: "1 or 2", found: "\(level)")
            }
            if reference, level != 1 || turns != 1 || regions || separate != 0 || size != ReferencePictures.size {
                throw SceneError.argument(
                    name: "reference", expected: "one question a scene of 112 pixels, as the reference script draws",
                    found: "turns, regions, separate questions, another level or another size")
            }
        }

        /// The function that draws scene `index`.
        fileprivate func source() throws -> @Sendable (Int) throws -> Scene {
            if reference {
                let scenes = try ReferenceScenes(seed: seed)
                return { try scenes.scene($0) }
            }
            let (generator, turns, separate) = (try SceneGenerator(seed: seed, size: size, level: level), turns, separate)
            return { try generator.scene($0, turns: turns, separate: separate) }
        }
    }

    /// How far the writing is, in scenes.
    package struct Progress: Sendable, Equatable {
        /// Scenes written so far.
        package let done: Int
        /// Scenes of the whole set.
        package let count: Int
    }

    /// JPEG quality of the pictures.
    package static let quality = 92
    /// Scenes that one task draws between two looks at cancellation.
    private static let batch = 16

    /// Writes a set into `folder`, which is made if it is not there.
    ///
    /// Every file appears whole or not at all, `SPLIT.json` last: an interrupted run leaves pictures but no list of them. A list from an
    /// earlier run is removed first, because its pictures are about to be replaced. Memory does not grow with the number of scenes.
    /// - Parameter progress: called on this task after every batch.
    /// - Throws: ``SceneError``, and `CancellationError` when the task is cancelled.
    package static func write(
        to folder: URL, _ options: Options, progress: @Sendable (Progress) -> Void = { _ in }
    ) async throws {
        try options.check()
        let draw = try options.source()
        let list = folder.appendingPathComponent(options.split + ".json")
        let separateList = folder.appendingPathComponent(options.split + "-separate.json")
        try prepare(folder, lists: [list, separateList])
        let writer = try SceneListWriter(list)
        defer { writer.abandon() }
        let separateWriter = options.separate > 0 ? try SceneListWriter(separateList) : nil
        defer { separateWriter?.abandon() }

        // Batches end in any order; their lines are kept until it is their turn.
        var waiting: [Int: Lines] = [:]
        var written = 0
        var done = 0
        progress(Progress(done: 0, count: options.count))
        try await withThrowingTaskGroup(of: (first: Int, lines: Lines).self) { group in
            var next = 0
            func startBatch() {
                guard next < options.count else { return }
                let range = next..<min(options.count, next + batch)
                next = range.upperBound
                group.addTask {
                    var lines = Lines(scenes: range.count)
                    for index in range {
                        try Task.checkCancellation()
                        let (record, separate) = try writeScene(index, of: draw(index), options: options, folder: folder)
                        if let record { lines.records.append(String(decoding: try JSONText.data(record), as: UTF8.self)) }
                        if let record = separate { lines.separate.append(String(decoding: try JSONText.data(record), as: UTF8.self)) }
                    }
                    return (range.lowerBound, lines)
                }
            }
            for _ in 0..<max(1, ProcessInfo.processInfo.activeProcessorCount) { startBatch() }
            while let finished = try await group.next() {
                waiting[finished.first] = finished.lines
                done += finished.lines.scenes
                while let lines = waiting.removeValue(forKey: written) {
                    try writer.append(lines.records)
                    try separateWriter?.append(lines.separate)
                    written += lines.scenes
                }
                progress(Progress(done: done, count: options.count))
                startBatch()
            }
        }
        try Task.checkCancellation()
        try separateWriter?.finish()
        try writer.finish()
    }

    /// Lines that a batch adds to the lists.
    private struct Lines: Sendable {
        let scenes: Int
        var records: [String] = []
        var separate: [String] = []
    }

    private static func prepare(_ folder: URL, lists: [URL]) throws {
        do {
            try Files.createFolder(folder.appendingPathComponent("images"))
            for list in lists where Files.exists(list) { try Files.remove(list) }
        } catch {
            throw SceneError.unwritable(path: folder.path, reason: reason(error))
        }
    }

    /// - Returns: the scene's record, and, if requested, one of separate questions.
    private static func writeScene(
        _ index: Int, of scene: Scene, options: Options, folder: URL
    ) throws -> (record: Record?, separate: Record?) {
        let number = String(index)
        let id = options.split + "-" + String(repeating: "0", count: max(0, 6 - number.count)) + number
        let image = "images/\(id).jpg"
        try save(Data(ImageEncoder.jpeg(scene.image, quality: quality)), to: folder.appendingPathComponent(image))
        func record(_ questions: [SceneQuestion]) -> Record? {
            guard let first = questions.first else { return nil }
            let turns = questions.enumerated().flatMap { index, question in
                [
                    Record.Turn(from: "human", value: (index == 0 ? "<image>\n" : "") + question.question),
                    Record.Turn(from: "gpt", value: question.answer),
                ]
            }
            return Record(
                id: id, image: image, task: first.task.rawValue, tasks: questions.count > 1 ? questions.map(\.task.rawValue) : nil,
                conversations: turns, regions: options.regions ? scene.regions : nil)
        }
        return (record(scene.turns), record(scene.separate))
    }

    private static func save(_ data: Data, to url: URL) throws {
        do {
            try Files.write(data, to: url)
        } catch {
            throw SceneError.unwritable(path: url.path, reason: reason(error))
        }
    }

    static func reason(_ error: any Error) -> String {
        let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
        return (underlying ?? error as NSError).localizedDescription
    }
}
