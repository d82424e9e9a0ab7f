import AdaLLaVA
import Foundation

/// Writes a list of records, one per line, so that sets can be compared and split with line tools. The file gets its name only when it is
/// complete.
final class SceneListWriter {
    private let url: URL
    /// `nil` once the list is complete or abandoned.
    private var file: AtomicFile?
    private var isEmpty = true

    /// - Throws: ``SceneError/unwritable(path:reason:)``
    init(_ url: URL) throws {
        self.url = url
        try attempt {
            let file = try AtomicFile(replacing: url)
            try file.write(Array("[".utf8))
            self.file = file
        }
    }

    /// Adds records, each as JSON without line breaks.
    func append(_ records: [String]) throws {
        guard !records.isEmpty else { return }
        let text = (isEmpty ? "\n" : ",\n") + records.joined(separator: ",\n")
        isEmpty = false
        try attempt { try file?.write(Array(text.utf8)) }
    }

    /// Ends the list and gives the file its name.
    func finish() throws {
        try attempt {
            try file?.write(Array("\n]\n".utf8))
            try file?.commit()
        }
        file = nil
    }

    /// Removes the unfinished file, unless the list is complete.
    func abandon() { file = nil }

    private func attempt(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch CheckpointError.unwritable(_, let reason) {
            throw SceneError.unwritable(path: url.path, reason: reason)
        }
    }
}
