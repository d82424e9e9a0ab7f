import AdaLLaVA
import Foundation

/// Where a model is that people name: a path, a model that ships with the command, or a repository in the Hugging Face cache.
enum ModelLocation {
    /// The model that answers when none is named.
    static let defaultName = "scenes/L"

    /// - Parameter name: a path; the name of an embedded model, such as `scenes/H`; or `OWNER/NAME` of a repository that Hugging Face's tools
    ///   downloaded, with `/FILE` behind it where one of its files is meant. `nil` stands for the default model.
    /// - Throws: `CheckpointError` if it is nowhere, with what would fetch it.
    static func find(_ name: String?) throws -> URL {
        guard let name else {
            if let found = embedded(defaultName) { return found }
            throw CheckpointError.missing(
                file: "Models/\(defaultName)",
                needed: "the embedded default model; looked for it in \(folders.map(\.path).joined(separator: ", ")). ADALLAVA_MODELS names another "
                    + "folder of models, --model another model")
        }
        let url = URL(systemPath: name)
        if Files.exists(url) { return url }
        if let found = embedded(name) ?? cached(name) { return found }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        // A path that somebody mistyped is no repository.
        guard parts.count == 2, !name.hasPrefix("."), !name.hasPrefix("~"), !name.hasSuffix(".gguf"), !name.hasSuffix(".safetensors"),
            HuggingFaceCache.isRepository(name)
        else { return url }
        throw CheckpointError.missing(
            file: name,
            needed: "no path, no embedded model, and not in the Hugging Face cache \(HuggingFaceCache.root.path); this fetches it: hf download \(name)")
    }

    /// A model that ships with the command.
    private static func embedded(_ name: String) -> URL? {
        guard HuggingFaceCache.isRepository(name) else { return nil }
        return folders.map { $0.appendingPathComponent(name) }.first { Files.exists($0.appendingPathComponent("config.json")) }
    }

    /// Folders with models: `ADALLAVA_MODELS`, `Models` beside the command or above it, `share/adallava/Models` below the prefix that it is
    /// installed under, and `Models` in the working folder.
    private static var folders: [URL] {
        if let folder = ProcessInfo.processInfo.environment["ADALLAVA_MODELS"], !folder.isEmpty { return [URL(systemPath: folder)] }
        var folder = URL(fileURLWithPath: Bundle.main.executablePath ?? CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent()
        var folders: [URL] = []
        for _ in 0 ..< 6 where folder.path != "/" {
            folders += [folder.appendingPathComponent("Models"), folder.appendingPathComponent("share/adallava/Models")]
            folder = folder.deletingLastPathComponent()
        }
        return folders + [URL(systemPath: "Models")]
    }

    /// A repository's snapshot in the Hugging Face cache, or a file of it.
    private static func cached(_ name: String) -> URL? {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count >= 2, !parts.contains("..") else { return nil }
        let file = parts.dropFirst(2).joined(separator: "/")
        return HuggingFaceCache.snapshots(of: parts.prefix(2).joined(separator: "/"))
            .map { file.isEmpty ? $0 : $0.appendingPathComponent(file) }
            .first { HuggingFaceCache.repository(of: $0) != nil && Files.exists($0) }
    }
}
