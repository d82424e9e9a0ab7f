import Foundation

/// A checkpoint's vision tower, found: inside the checkpoint, or where `mm_vision_tower` points.
struct VisionTowerFiles {
    let configuration: VisionConfiguration
    let tensors: any TensorSource
    let imageProcessor: ImageProcessorConfiguration

    /// - Parameters:
    ///   - shape: the tower's configuration if the checkpoint's own holds it.
    ///   - inside: the tower's tensors in the checkpoint, none if it has none.
    ///   - folder: the checkpoint's folder.
    ///   - tower: the tower's folder where it was named.
    /// - Throws: ``CheckpointError``; if the tower is nowhere, the error lists the places, and the command that downloads it.
    static func find(
        for llava: LlavaConfiguration, shape: VisionConfiguration?, inside: RenamedTensors, folder: URL, tower: URL?
    ) throws -> VisionTowerFiles {
        guard let reference = llava.visionTowerReference else {
            guard let shape else { throw CheckpointError.missingTensor(name: "vision_model.*", file: inside.location) }
            return VisionTowerFiles(configuration: shape, tensors: inside, imageProcessor: try imageProcessor(in: [folder], for: shape))
        }
        let candidates = tower.map { [$0] } ?? self.candidates(reference, folder: folder)
        let towerFolder = candidates.first { FileKind($0.appendingPathComponent("config.json")) == .file }

        let usesInside = !inside.names.isEmpty && tower == nil && (llava.towerInside || towerFolder == nil)
        let configuration: VisionConfiguration
        if let towerFolder {
            let url = towerFolder.appendingPathComponent("config.json")
            configuration = try VisionConfiguration.read(JSONValue.read(contentsOf: url), file: url.path)
        } else if usesInside, let published = VisionConfiguration.published(reference) {
            configuration = published
        } else {
            let places = candidates.map(\.path).joined(separator: ", ")
            let isPublished = reference.contains("/") && !reference.hasPrefix("/") && !reference.hasPrefix(".") && HuggingFaceCache.isRepository(reference)
            let advice = isPublished ? "; `hf download \(reference)` brings it into the Hugging Face cache" : ""
            throw CheckpointError.missing(
                file: reference,
                needed: "the vision tower that mm_vision_tower names; looked for a folder with config.json at \(places)\(advice), and --vision-tower names another folder")
        }
        let processor = try imageProcessor(in: [towerFolder, folder].compactMap { $0 }, for: configuration)
        if usesInside { return VisionTowerFiles(configuration: configuration, tensors: inside, imageProcessor: processor) }
        // Without the tower inside there is a folder, or an error was thrown above.
        let tensors = try weights(in: towerFolder ?? folder)
        return VisionTowerFiles(configuration: configuration, tensors: tensors, imageProcessor: processor)
    }

    /// A tower in a folder of its own.
    /// - Throws: ``CheckpointError``
    init(folder: URL) throws {
        let config = folder.appendingPathComponent("config.json")
        let configuration = try VisionConfiguration.read(
            JSONValue.read(contentsOf: config, needed: "the configuration of the vision tower"), file: config.path)
        self.init(
            configuration: configuration, tensors: try Self.weights(in: folder),
            imageProcessor: try Self.imageProcessor(in: [folder], for: configuration))
    }

    private init(configuration: VisionConfiguration, tensors: any TensorSource, imageProcessor: ImageProcessorConfiguration) {
        (self.configuration, self.tensors, self.imageProcessor) = (configuration, tensors, imageProcessor)
    }

    /// The weights of a tower's folder. The canonical names stay, and CLIP's own become canonical.
    private static func weights(in folder: URL) throws -> any TensorSource {
        let configuration = try JSONValue.read(contentsOf: folder.appendingPathComponent("config.json"))
        let tensors = try ScaledTensors.joined(WeightFiles.open(in: folder).tensors, configuration: configuration)
        return try RenamedTensors(tensors, rename: TensorNames.canonical(clip:))
    }

    /// Possible places of a tower named `reference`: next to the checkpoint, at an absolute path, in the Hugging Face cache.
    private static func candidates(_ reference: String, folder: URL) -> [URL] {
        if reference.hasPrefix("/") { return [URL(fileURLWithPath: reference, isDirectory: true)] }
        return [folder.appendingPathComponent(reference, isDirectory: true)] + HuggingFaceCache.snapshots(of: reference)
    }

    private static func imageProcessor(in folders: [URL], for tower: VisionConfiguration) throws -> ImageProcessorConfiguration {
        for folder in folders {
            for name in ["preprocessor_config.json", "processor_config.json"] {
                let url = folder.appendingPathComponent(name)
                guard FileKind(url) == .file else { continue }
                let json = try JSONValue.read(contentsOf: url)
                // A processor_config.json without an image_processor says nothing about images.
                guard name == "preprocessor_config.json" || json["image_processor"] != nil else { continue }
                let processor = try ImageProcessorConfiguration.read(json, file: url.path)
                try check(processor, for: tower, file: url.path)
                return processor
            }
        }
        return .standard(for: tower)
    }

    /// The tower has a position for every patch, so its input must have the tower's size.
    private static func check(_ processor: ImageProcessorConfiguration, for tower: VisionConfiguration, file: String) throws {
        let size: ImageProcessorConfiguration.Size
        if let tiles = processor.tiles {
            guard tiles.side == tower.imageSize else {
                throw CheckpointError.configuration(
                    field: "max_image_size", expected: "\(tower.imageSize) pixels, as the vision tower takes", found: "\(tiles.side)", file: file)
            }
            return
        }
        switch (processor.centerCrop, processor.resize) {
        case (let crop?, _): size = crop
        case (nil, .exact(let exact)): size = exact
        default: return
        }
        guard size.width == tower.imageSize, size.height == tower.imageSize else {
            throw CheckpointError.configuration(
                field: processor.centerCrop == nil ? "size" : "crop_size",
                expected: "\(tower.imageSize) by \(tower.imageSize) pixels, as the vision tower takes",
                found: "\(size.width) by \(size.height)", file: file)
        }
    }
}

extension LlavaConfiguration {
    /// A tower that `mm_vision_tower` names relative to the checkpoint: it goes with a checkpoint that is written elsewhere.
    /// - Returns: its folder, and its name in the written checkpoint, which is never outside the checkpoint's folder.
    package func companionTower(of folder: URL) -> (folder: URL, name: String)? {
        guard let reference = visionTowerReference, !reference.isEmpty, !reference.hasPrefix("/") else { return nil }
        let tower = folder.appendingPathComponent(reference).standardizedFileURL
        guard FileKind(tower.appendingPathComponent("config.json")) == .file else { return nil }
        return (tower, reference.split(separator: "/").contains("..") ? "vision_tower" : reference)
    }
}

/// The cache folder of Hugging Face's libraries.
package enum HuggingFaceCache {
    /// The folders with a downloaded copy of the repository `name` (`openai/clip-vit-large-patch14-336`); the one that `main`
    /// refers to comes first. If there is none, the place where it would be.
    package static func snapshots(of name: String) -> [URL] {
        guard isRepository(name) else { return [] }
        let parts = name.split(separator: "/")
        let repository = root.appendingPathComponent("models--" + parts.joined(separator: "--"), isDirectory: true)
        let snapshots = repository.appendingPathComponent("snapshots", isDirectory: true)
        let main = (try? Files.data(repository.appendingPathComponent("refs/main"))).map { String(decoding: $0, as: UTF8.self) }?
            .trimmingCharacters(in: .whitespacesAndNewlines)
        guard let names = try? WeightFiles.names(in: snapshots), !names.isEmpty else { return [snapshots] }
        return names.sorted { ($0 == main ? 0 : 1, $0) < ($1 == main ? 0 : 1, $1) }.map {
            snapshots.appendingPathComponent($0, isDirectory: true)
        }
    }

    /// Whether `name` can be that of a repository: one or two parts, none of which leads elsewhere.
    package static func isRepository(_ name: String) -> Bool {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return (1...2).contains(parts.count) && parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
    }

    /// The repository whose snapshot `url` is, or is in; `nil` if it is in none.
    package static func repository(of url: URL) -> String? {
        let parts = url.path.split(separator: "/")
        guard let index = parts.lastIndex(of: "snapshots"), index > 0, index + 1 < parts.count, parts[index - 1].hasPrefix("models--") else { return nil }
        let name = parts[index - 1].dropFirst("models--".count).replacingOccurrences(of: "--", with: "/")
        return ([name] + parts[(index + 2)...].map(String.init)).joined(separator: "/")
    }

    /// A model's name for people: the repository that `url` is a snapshot of, else the last part of the path.
    package static func displayName(of url: URL) -> String { repository(of: url) ?? url.lastPathComponent }

    /// Where the cache is, as Hugging Face's tools find it: `HF_HUB_CACHE`, `hub` in `HF_HOME`, or `huggingface/hub` in `XDG_CACHE_HOME` or in
    /// `.cache` of `HOME`.
    package static var root: URL { root(in: ProcessInfo.processInfo.environment) }

    package static func root(in environment: [String: String]) -> URL {
        func folder(_ name: String) -> URL? {
            guard let path = environment[name], !path.isEmpty else { return nil }
            let home = environment["HOME"] ?? NSHomeDirectory()
            return URL(fileURLWithPath: path == "~" || path.hasPrefix("~/") ? home + path.dropFirst() : path, isDirectory: true)
        }
        if let hub = folder("HF_HUB_CACHE") ?? folder("HUGGINGFACE_HUB_CACHE") { return hub }
        let caches = folder("XDG_CACHE_HOME") ?? (folder("HOME") ?? URL(fileURLWithPath: NSHomeDirectory(), isDirectory: true))
            .appendingPathComponent(".cache", isDirectory: true)
        let home = folder("HF_HOME") ?? caches.appendingPathComponent("huggingface", isDirectory: true)
        return home.appendingPathComponent("hub", isDirectory: true)
    }
}
