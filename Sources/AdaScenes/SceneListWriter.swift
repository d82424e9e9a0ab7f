import Foundation

/// Writes a list of records, one a line, so that sets can be compared and cut with line tools. The file bears its name only when it is
/// whole.
final class SceneListWriter {
    private let url: URL
    private let partial: URL
    private let handle: FileHandle
    private var isEmpty = true
    private var isFinished = false

    /// - Throws: ``SceneError/unwritable(path:reason:)``
    init(_ url: URL) throws {
        self.url = url
        partial = url.appendingPathExtension("partial")
        do {
            try Data("[".utf8).write(to: partial)
            handle = try FileHandle(forWritingTo: partial)
            try handle.seekToEnd()
        } catch {
            throw SceneError.unwritable(path: url.path, reason: SceneDataset.reason(error))
        }
    }

    /// Adds records, each as JSON without line breaks.
    func append(_ records: [String]) throws {
        guard !records.isEmpty else { return }
        let text = (isEmpty ? "\n" : ",\n") + records.joined(separator: ",\n")
        isEmpty = false
        try attempt { try handle.write(contentsOf: Data(text.utf8)) }
    }

    /// Ends the list and gives the file its name.
    func finish() throws {
        try attempt {
            try handle.write(contentsOf: Data("\n]\n".utf8))
            try handle.synchronize()
            try handle.close()
            try FileManager.default.moveItem(at: partial, to: url)
        }
        isFinished = true
    }

    /// Removes what was written, unless the list is whole.
    func abandon() {
        guard !isFinished else { return }
        try? handle.close()
        try? FileManager.default.removeItem(at: partial)
    }

    private func attempt(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch {
            throw SceneError.unwritable(path: url.path, reason: SceneDataset.reason(error))
        }
    }
}
