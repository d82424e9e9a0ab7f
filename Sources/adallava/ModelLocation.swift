import AdaEvaluation
import AdaLLaVA
import Foundation

/// Where a model is that people name: a path, a model that ships with the command, or a repository in the Hugging Face cache.
enum ModelLocation {
    /// The model that answers when none is named.
    static let defaultName = "scenes/L"

    /// The models that ship with the command.
    private static let shipped = ["scenes/L", "scenes/H"]

    /// - Parameter name: a path; the name of an embedded model, such as `scenes/H`; or `OWNER/NAME` of a repository that Hugging Face's tools
    ///   downloaded, followed by `/FILE` for one of its files. `nil` is the default model.
    /// - Throws: `CheckpointError` if it is not found, with the command that fetches it; `EvaluationError` for an empty name.
    static func find(_ name: String?) throws -> URL {
        guard let name else {
            if let found = embedded(defaultName) { return found }
            throw CheckpointError.missing(file: "Models/\(defaultName)", needed: "the embedded default model; " + search + ", --model another model")
        }
        // An unset variable of the shell: the working folder is never meant.
        if name.isEmpty { throw EvaluationError.argument(name: "model", expected: "a path or a name", found: "an empty name") }
        let url = URL(systemPath: name)
        if Files.exists(url) { return url }
        if let found = embedded(name) ?? cached(name) { return found }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        if parts.count == 2, shipped.contains(where: { $0.hasPrefix(parts[0] + "/") }) {
            let isShipped = shipped.contains(name)
            throw CheckpointError.missing(
                file: name, needed: (isShipped ? "an embedded model; " : "the embedded models are \(shipped.joined(separator: " and ")); ") + search)
        }
        guard let download = download(of: parts) else { return url }
        throw CheckpointError.missing(
            file: name,
            needed: "no path, no embedded model, and not in the Hugging Face cache \(HuggingFaceCache.root.path); this fetches it: \(download)")
    }

    /// Where embedded models are looked for, in words.
    private static var search: String {
        "looked in \(folders.map(\.path).joined(separator: ", ")). ADALLAVA_MODELS names another folder of models"
    }

    /// The command that fetches `OWNER/NAME`, or `OWNER/NAME/FILE`; `nil` for a mistyped path.
    private static func download(of parts: [String]) -> String? {
        guard parts.count >= 2, !parts[0].hasPrefix("."), !parts[0].hasPrefix("~"), parts.allSatisfy({ HuggingFaceCache.isRepository($0) }) else { return nil }
        let isFile = ["gguf", "safetensors", "bin"].contains(URL(systemPath: parts[parts.count - 1]).pathExtension)
        if parts.count == 2 { return isFile ? nil : "hf download " + parts.joined(separator: "/") }
        guard isFile, !Files.exists(URL(systemPath: parts[0])) else { return nil }
        return "hf download \(parts[0])/\(parts[1]) \(parts.dropFirst(2).joined(separator: "/"))"
    }

    /// A model that ships with the command.
    private static func embedded(_ name: String) -> URL? {
        guard HuggingFaceCache.isRepository(name) else { return nil }
        return folders.map { $0.appendingPathComponent(name) }.first { Files.exists($0.appendingPathComponent("config.json")) }
    }

    /// Folders with models: `ADALLAVA_MODELS`, `Models` next to the command or above it, `share/adallava/Models` under the prefix of its
    /// installation, and `Models` in the working folder.
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
