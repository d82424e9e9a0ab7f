import Foundation

/// A chat template that replaces the checkpoint's.
public enum ChatTemplateChoice: Sendable, Equatable, ExpressibleByStringLiteral {
    /// A built-in template by its name: `vicuna_v1`, `chatml`, ….
    case named(String)
    /// A file in Jinja, or a JSON file with a `chat_template`.
    case file(URL)

    /// A template by its name.
    public init(stringLiteral name: String) { self = .named(name) }

    /// The template.
    /// - Throws: ``ChatTemplateError``, and ``CheckpointError`` for a file that cannot be read.
    package func load(specialTokens: [String: String] = [:], imageMark: String = ChatMessage.imageMark) throws -> ChatTemplate {
        switch self {
        case .named(let name): return try ChatTemplate.named(name)
        case .file(let url):
            return try ChatTemplate(
                jinja: try Self.source(url), name: url.lastPathComponent, specialTokens: specialTokens, imageMark: imageMark)
        }
    }

    private static func source(_ url: URL) throws -> String {
        guard Files.exists(url) else {
            throw CheckpointError.missing(file: url.path, needed: "the chat template")
        }
        let bytes: [UInt8]
        do {
            bytes = [UInt8](try Files.data(url))
        } catch {
            throw CheckpointError.unreadable(file: url.path, reason: error.localizedDescription)
        }
        guard url.pathExtension == "json" else { return String(decoding: bytes, as: UTF8.self) }
        guard let source = try TokenizerSettings.template(inFile: bytes, file: url.path) else {
            throw CheckpointError.malformed(file: url.path, reason: "expected a chat_template in it")
        }
        return source
    }
}
