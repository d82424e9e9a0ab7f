import AdaLLaVA
import ArgumentParser
import Foundation

/// Where a question comes from.
enum Question: Equatable {
    case text(String)
    case file(String)
    case standardInput

    /// The most that is read of a question: more than any context holds.
    private static let limit = 16 << 20

    /// - Throws: `ValidationError` for an empty one; `CheckpointError` for a file that is missing, too large or no text.
    func read() throws -> String {
        let (bytes, name): (Data, String)
        switch self {
        case .text(let text): return SystemPath.prose(text)
        case .file(let path): (bytes, name) = (try Self.read(path), path)
        case .standardInput: (bytes, name) = (try Self.read(.standardInput, named: "standard input"), "standard input")
        }
        guard bytes.count <= Self.limit else {
            throw CheckpointError.malformed(file: name, reason: "a question of more than \(Self.limit) bytes")
        }
        guard let text = String(data: bytes, encoding: .utf8) else {
            throw CheckpointError.malformed(file: name, reason: "expected the question as UTF-8 text, found \(bytes.count) bytes that are none")
        }
        // The line break is the file's, not the question's.
        let question = text.hasSuffix("\r\n") || text.hasSuffix("\n") ? String(text.dropLast()) : text
        try Self.expectText(question, in: name)
        return question
    }

    /// A file, or a pipe that a shell names as one.
    private static func read(_ path: String) throws -> Data {
        let url = URL(systemPath: path)
        switch FileKind(url) {
        case .nothing: throw CheckpointError.missing(file: path, needed: "the file with the question")
        case .folder: throw CheckpointError.unreadable(file: path, reason: "it is a folder; expected a file with the question")
        case .file: break
        }
        let descriptor = Files.open(url.path, O_RDONLY)
        guard descriptor >= 0 else { throw CheckpointError.unreadable(file: path, reason: SystemError().localizedDescription) }
        return try read(FileHandle(fileDescriptor: descriptor, closeOnDealloc: true), named: path)
    }

    private static func read(_ handle: FileHandle, named name: String) throws -> Data {
        do {
            return try handle.read(upToCount: limit + 1) ?? Data()
        } catch {
            throw CheckpointError.unreadable(file: name, reason: (error as NSError).localizedDescription)
        }
    }

    /// - Throws: `ValidationError` if nothing is asked.
    static func expectText(_ text: String, in place: String? = nil) throws {
        guard !text.allSatisfy(\.isWhitespace) else {
            throw ValidationError("expected a question, found \(text.isEmpty ? "an empty text" : "only blanks")" + (place.map { " in \($0)" } ?? ""))
        }
    }

    /// Whether a word names an image by its ending.
    static func looksLikeImage(_ word: String) -> Bool {
        !word.contains(where: \.isWhitespace) && ["jpg", "jpeg", "png", "webp", "gif", "bmp"].contains(URL(systemPath: word).pathExtension.lowercased())
    }
}
