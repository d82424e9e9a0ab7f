import AdaImages
import Foundation

/// A set of scenes on disk, in LLaVA's instruction format: `images/SPLIT-NNNNNN.jpg` and `SPLIT.json`.
public struct SceneDataset: Sendable {
    /// One entry of `SPLIT.json`.
    public struct Record: Codable, Sendable, Equatable {
        /// One turn of a record's conversation.
        public struct Turn: Codable, Sendable, Equatable {
            /// `human` or `gpt`.
            public let from: String
            /// The text; the first one starts with `<image>` and a line break.
            public let value: String
        }

        /// The record's name, which is that of its picture without the ending.
        public let id: String
        /// Relative to the folder that holds `SPLIT.json`.
        public let image: String
        /// What the question asks for.
        public let task: String
        /// The question and its answer.
        public let conversations: [Turn]
    }

    /// How far the writing is, in scenes.
    public struct Progress: Sendable, Equatable {
        /// Scenes written so far.
        public let done: Int
        /// Scenes of the whole set.
        public let count: Int
    }

    /// JPEG quality of the pictures.
    public static let quality = 92
    /// Scenes that one task draws between two looks at cancellation.
    private static let batch = 16

    /// Writes `count` scenes into `folder`, which is made if it is not there.
    ///
    /// Every file appears whole or not at all, `SPLIT.json` last: an interrupted run leaves pictures but no list of them. A list from an
    /// earlier run is removed first, because its pictures are about to be replaced.
    /// - Parameters:
    ///   - seed: the same seed gives the same set.
    ///   - split: part of the file names: letters, digits, `-` and `_`.
    ///   - size: side of the pictures in pixels.
    ///   - progress: called on this task after every batch.
    /// - Returns: what `SPLIT.json` holds.
    /// - Throws: ``SceneError``, and `CancellationError` when the task is cancelled.
    @discardableResult
    public static func write(
        to folder: URL, count: Int, seed: UInt64, split: String = "train", size: Int = 112,
        progress: @Sendable (Progress) -> Void = { _ in }
    ) async throws -> [Record] {
        guard (1...10_000_000).contains(count) else {
            throw SceneError.argument(name: "count", expected: "1 to 10000000 scenes", found: "\(count)")
        }
        let allowed = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
        guard !split.isEmpty, split.count <= 64, split.allSatisfy(allowed.contains) else {
            throw SceneError.argument(name: "split", expected: "1 to 64 letters, digits, `-` or `_`", found: "`\(split.prefix(80))`")
        }
        let generator = try SceneGenerator(seed: seed, size: size)
        let list = folder.appendingPathComponent(split + ".json")
        try prepare(folder, list: list)

        var records: [Int: [Record]] = [:]
        var done = 0
        progress(Progress(done: 0, count: count))
        try await withThrowingTaskGroup(of: (first: Int, records: [Record]).self) { group in
            var next = 0
            func startBatch() {
                guard next < count else { return }
                let range = next..<min(count, next + batch)
                next = range.upperBound
                group.addTask {
                    let made = try range.map { index in
                        try Task.checkCancellation()
                        return try writeScene(index, generator: generator, split: split, folder: folder)
                    }
                    return (range.lowerBound, made)
                }
            }
            for _ in 0..<max(1, ProcessInfo.processInfo.activeProcessorCount) { startBatch() }
            while let finished = try await group.next() {
                records[finished.first] = finished.records
                done += finished.records.count
                progress(Progress(done: done, count: count))
                startBatch()
            }
        }
        try Task.checkCancellation()
        let ordered = records.sorted { $0.key < $1.key }.flatMap(\.value)
        try write(ordered, to: list)
        return ordered
    }

    private static func prepare(_ folder: URL, list: URL) throws {
        do {
            try FileManager.default.createDirectory(at: folder.appendingPathComponent("images"), withIntermediateDirectories: true)
            if FileManager.default.fileExists(atPath: list.path) { try FileManager.default.removeItem(at: list) }
        } catch {
            throw SceneError.unwritable(path: folder.path, reason: reason(error))
        }
    }

    private static func writeScene(_ index: Int, generator: SceneGenerator, split: String, folder: URL) throws -> Record {
        let scene = try generator.scene(index)
        let number = String(index)
        let id = split + "-" + String(repeating: "0", count: max(0, 6 - number.count)) + number
        let image = "images/\(id).jpg"
        try save(Data(ImageEncoder.jpeg(scene.image, quality: quality)), to: folder.appendingPathComponent(image))
        return Record(
            id: id, image: image, task: scene.task.rawValue,
            conversations: [
                Record.Turn(from: "human", value: "<image>\n" + scene.question), Record.Turn(from: "gpt", value: scene.answer),
            ])
    }

    /// One record a line, so that sets can be compared and cut with line tools.
    private static func write(_ records: [Record], to list: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let lines = try records.map { String(decoding: try encoder.encode($0), as: UTF8.self) }
        try save(Data(("[\n" + lines.joined(separator: ",\n") + "\n]\n").utf8), to: list)
    }

    private static func save(_ data: Data, to url: URL) throws {
        do {
            try data.write(to: url, options: .atomic)
        } catch {
            throw SceneError.unwritable(path: url.path, reason: reason(error))
        }
    }

    private static func reason(_ error: any Error) -> String {
        let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
        return (underlying ?? error as NSError).localizedDescription
    }
}
