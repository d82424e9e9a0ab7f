import Foundation

/// A GGUF model in several files, as `llama-gguf-split` writes them: `NAME-00001-of-00003.gguf` and so on, the metadata in the first.
struct GGUFParts {
    /// The name before the number, and the number of parts.
    private let stem: String
    private let count: Int

    /// - Returns: `nil` if a file is not called as a part is.
    init?(_ name: String) {
        guard let match = name.wholeMatch(of: /(.+)-([0-9]{5})-of-([0-9]{5})\.gguf/), let count = Int(match.3), count > 1 else { return nil }
        (stem, self.count) = (String(match.1), count)
    }

    func name(_ number: Int) -> String { "\(stem)-\(Self.digits(number + 1))-of-\(Self.digits(count)).gguf" }

    private static func digits(_ number: Int) -> String { String(repeating: "0", count: max(0, 5 - String(number).count)) + String(number) }

    /// The models among the files of a folder: each split one by its first part alone.
    static func models(among names: [String]) -> [String] {
        var seen: Set<String> = []
        return names.compactMap { name in
            let first = GGUFParts(name)?.name(0) ?? name
            return seen.insert(first).inserted ? first : nil
        }
    }

    /// The first part of the model that `url` is a part of; any other file is itself.
    static func first(of url: URL) -> URL {
        GGUFParts(url.lastPathComponent).map { url.deletingLastPathComponent().appendingPathComponent($0.name(0)) } ?? url
    }
}

extension GGUFFile {
    /// Opens a file, and the others if it is one part of several.
    /// - Throws: ``CheckpointError``; a part that is missing, or is of another model, is named.
    static func open(_ url: URL, needed: String = "it was named as input") throws -> GGUFFile {
        let file = try GGUFFile(contentsOf: url, needed: needed)
        guard let count = try file.metadata.int("split.count"), count > 1 else { return file }
        // A link may have any name.
        let url = GGUFParts(url.lastPathComponent) == nil ? Files.resolved(url) : url
        guard let names = GGUFParts(url.lastPathComponent) else {
            throw CheckpointError.unsupported(
                what: "one of \(count) parts of a model under this name", file: url.path,
                hint: "parts are found by their names, NAME-00001-of-\(String(format: "%05d", count)).gguf; rename them, or join them with llama-gguf-split --merge")
        }
        let folder = url.deletingLastPathComponent()
        let parts = try (0 ..< count).map { number in
            let place = folder.appendingPathComponent(names.name(number))
            let part = place.lastPathComponent == url.lastPathComponent
                ? file : try GGUFFile(contentsOf: place, needed: "part \(number + 1) of the \(count) of \(url.lastPathComponent)")
            for (key, expected) in [("split.no", number), ("split.count", count)] {
                guard let found = try part.metadata.int(key), found == expected else {
                    throw CheckpointError.configuration(
                        field: key, expected: "\(expected)", found: part.metadata[key]?.summary ?? "nothing", file: place.path)
                }
            }
            return part
        }
        let joined = try GGUFFile(joining: parts)
        if let tensors = try parts[0].metadata.int("split.tensors.count"), tensors != joined.names.count {
            throw CheckpointError.configuration(
                field: "split.tensors.count", expected: "\(joined.names.count), the tensors of all \(count) parts", found: "\(tensors)",
                file: parts[0].location)
        }
        return joined
    }
}
