import AdaLLaVA
import Foundation
import Logging
import Synchronization

/// Answers a file of requests without a server: OpenAI's batch format, one JSON object on each line.
///
/// A line starts once the previous line about the same images has read its prompt, so that an image is encoded once and the common beginning of their prompts is read
/// once (as BatchLLM does). A run that ended early can be resumed: lines whose answers are in the output are skipped.
public struct OfflineBatch: Sendable {
    /// One of several runs over the same input.
    public struct Shard: Sendable, Equatable {
        /// From 1 to ``count``.
        public let number: Int, count: Int

        public init?(number: Int, count: Int) {
            guard count >= 1, (1 ... count).contains(number) else { return nil }
            (self.number, self.count) = (number, count)
        }

        /// Whether lines with the same images belong to this run: all of them or none.
        func holds(_ group: String, _ customID: String) -> Bool {
            FNV1a(group.isEmpty ? customID : group).value % UInt64(count) == UInt64(number - 1)
        }
    }

    /// Counts of a run.
    public struct Summary: Sendable, Equatable {
        /// Lines answered now, those among them that are errors, and lines that were answered before.
        public var answered = 0, errors = 0, known = 0
    }

    private let server: ModelServer

    /// - Parameter modelName: the name that requests may use; `nil`: the checkpoint's.
    public init(_ model: AdaptiveModel, modelName: String? = nil, options: ServerOptions = ServerOptions()) throws {
        var options = options
        options.modelName = modelName
        (options.maxWaiting, options.maxWait) = (.max, nil)
        server = try ModelServer(options, logger: Logger(label: "adallava.batch")) { model }
        server.state.setReady(model, server.describe(model))
    }

    /// - Parameter onProgress: called with lines done and all of them.
    /// - Throws: ``CheckpointError`` for files; ``APIError`` for a line that is no request; `CancellationError`.
    public func run(
        input: URL, output: URL, shard: Shard? = nil, onProgress: @escaping @Sendable (Int, Int) -> Void = { _, _ in }
    ) async throws -> Summary {
        guard Files.exists(input) else { throw CheckpointError.missing(file: input.path, needed: "the requests of a batch") }
        var lines = try Self.lines(of: try Files.data(input))
        if let shard { lines.removeAll { !shard.holds($0.line.order.group, $0.line.customID) } }
        let file = try OutputLines(output)
        defer { file.close() }
        let count = lines.count
        lines.removeAll { file.known.contains($0.line.customID) }
        let progress = BatchProgress(known: count - lines.count, count: count, onProgress)
        let groups = Dictionary(grouping: lines.map { (line: $0.line, order: $0.line.order) }) { $0.order.group.isEmpty ? "line " + $0.line.customID : $0.order.group }
            .values.map { $0.sorted { $0.order.place < $1.order.place }.map(\.line) }.sorted { $0[0].customID < $1[0].customID }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for (index, group) in groups.enumerated() {
                if index >= server.options.maxConcurrent { try await tasks.next() }
                tasks.addTask { [server] in try await Self.answer(group, server, file, progress) }
            }
            try await tasks.waitForAll()
        }
        return progress.summary
    }

    /// Answers lines that have their images in common.
    private static func answer(_ lines: [BatchLine], _ server: ModelServer, _ file: OutputLines, _ progress: BatchProgress) async throws {
        @Sendable func answer(_ line: BatchLine) async throws {
            let result = try await server.answer(line, client: "", priority: 0)
            try file.write(result)
            progress.add(result)
        }
        // The first line encodes the images and reads the common beginning.
        try await answer(lines[0])
        try await withThrowingTaskGroup(of: Void.self) { rest in
            for line in lines.dropFirst() { rest.addTask { try await answer(line) } }
            try await rest.waitForAll()
        }
    }

    /// The requests of a file.
    /// - Throws: ``APIError`` for an invalid line, and for a `custom_id` that occurs twice.
    static func lines(of data: Data, endpoint: AnswerRoute? = nil) throws -> [(number: Int, line: BatchLine)] {
        var lines: [(Int, BatchLine)] = [], known: Set<String> = []
        for (index, text) in data.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            if text.allSatisfy({ [0x20, 0x09, 0x0D].contains($0) }) { continue }
            let line = try BatchLine(text, number: index + 1, endpoint: endpoint)
            guard known.insert(line.customID).inserted else {
                throw APIError.parameter("line \(index + 1).custom_id", expected: "one that no other line has", found: "\"\(line.customID.prefix(80))\" again")
            }
            lines.append((index + 1, line))
        }
        return lines
    }
}

/// Counts the lines of a run.
private final class BatchProgress: Sendable {
    private let state: Mutex<OfflineBatch.Summary>
    private let count: Int
    private let onProgress: @Sendable (Int, Int) -> Void

    init(known: Int, count: Int, _ onProgress: @escaping @Sendable (Int, Int) -> Void) {
        state = Mutex(OfflineBatch.Summary(known: known))
        (self.count, self.onProgress) = (count, onProgress)
    }

    var summary: OfflineBatch.Summary { state.withLock { $0 } }

    func add(_ result: BatchResult) {
        let done = state.withLock { state in
            state.answered += 1
            if result.isError { state.errors += 1 }
            return state.answered + state.known
        }
        onProgress(done, count)
    }
}

/// A file of results that grows line by line.
private final class OutputLines: Sendable {
    /// Requests whose results are in the file.
    let known: Set<String>
    private let handle: Mutex<FileHandle>

    /// Opens a file, or makes a new one. A last line without its end was cut off by whatever ended the run before, and is removed.
    init(_ url: URL) throws {
        var known: Set<String> = [], length = 0
        if Files.exists(url) {
            let data = try Files.data(url)
            length = (data.lastIndex(of: UInt8(ascii: "\n")).map { $0 - data.startIndex + 1 }) ?? 0
            for line in data.prefix(length).split(separator: UInt8(ascii: "\n")) {
                let value = try? Array(line).withUnsafeBytes { try JSONReader.parse($0, file: url.path) }
                guard case .string(let id)? = value?["custom_id"] else {
                    throw CheckpointError.malformed(file: url.path, reason: "expected results of a batch, which a run goes on with; name another output")
                }
                known.insert(id)
            }
        }
        self.known = known
        let descriptor = Files.open(url.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0, ftruncate(descriptor, off_t(length)) == 0, lseek(descriptor, 0, SEEK_END) >= 0 else {
            throw CheckpointError.unwritable(file: url.path, reason: String(cString: strerror(errno)))
        }
        handle = Mutex(FileHandle(fileDescriptor: descriptor, closeOnDealloc: true))
    }

    func write(_ result: BatchResult) throws {
        let line = try JSONBody.data(result) + Data("\n".utf8)
        try handle.withLock { try $0.write(contentsOf: line) }
    }

    func close() { handle.withLock { try? $0.close() } }
}
