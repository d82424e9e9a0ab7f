import Foundation

/// An open checkpoint in any format that is read: its configuration, and its weights. Weights are memory-mapped and have canonical names
/// (`TensorNames`), whatever the file calls them.
///
///     let checkpoint = try Checkpoint.open(at: url)
///     let embedding = try checkpoint.language.tensor("model.embed_tokens.weight")
///
/// Missing tensors and wrong shapes are reported when the model's layers are made.
package struct Checkpoint: Sendable {
    /// The folder that holds the checkpoint, and its tokenizer if there is one.
    package let folder: URL
    /// The model's name in messages: the folder's, or the GGUF file's.
    package let name: String
    /// The format in words, such as `AdaLLaVA-L, safetensors in 3 files`.
    package let formatDescription: String
    /// The shapes of the model's parts: decoder, tower, projector, scheduler.
    package internal(set) var configuration: ModelConfiguration
    /// The decoder, `model.layers.…`, with its other tensors: `model.embed_tokens`, `lm_head`, `scheduler.…`, `rope_freqs.weight`.
    package let language: any TensorSource
    /// The projector, `model.mm_projector.…`: with the language model, or with the tower in a GGUF pair. `nil` for text models.
    package let projector: (any TensorSource)?
    /// The vision tower, `vision_model.…`; `nil` for text models.
    package let vision: (any TensorSource)?
    /// How a picture becomes the tower's input; `nil` for text models.
    package let imageProcessor: ImageProcessorConfiguration?
    /// The checkpoint's defaults for generation.
    package let generation: GenerationDefaults
    /// The language model's metadata, which holds its vocabulary and chat template; `nil` for other formats than GGUF.
    package let ggufMetadata: GGUFMetadata?

    init(
        folder: URL, name: String? = nil, formatDescription: String, configuration: ModelConfiguration, language: any TensorSource,
        projector: (any TensorSource)? = nil, vision: (any TensorSource)? = nil,
        imageProcessor: ImageProcessorConfiguration? = nil, generation: GenerationDefaults, ggufMetadata: GGUFMetadata? = nil
    ) {
        self.folder = folder
        self.name = name ?? folder.lastPathComponent
        self.formatDescription = formatDescription
        self.configuration = configuration
        self.language = language
        self.projector = projector
        self.vision = vision
        self.imageProcessor = imageProcessor
        self.generation = generation
        self.ggufMetadata = ggufMetadata
    }

    /// Opens the checkpoint at `url`: a folder in Hugging Face's layout (`config.json` and safetensors or PyTorch's pickles), a weight file in such
    /// a folder, a `.gguf` file, or a folder with one GGUF model and perhaps its `mmproj`.
    /// - Parameters:
    ///   - url: the folder or file.
    ///   - mmproj: the image part of a GGUF pair, if it is not the folder's own.
    ///   - visionTower: the folder of the tower that `mm_vision_tower` names; `nil` looks beside the checkpoint and in the Hugging Face cache.
    /// - Throws: ``CheckpointError``
    package static func open(at url: URL, projector mmproj: URL? = nil, visionTower: URL? = nil) throws -> Checkpoint {
        let needed = "expected a checkpoint folder, a .safetensors, .bin or .gguf file"
        switch FileKind(url) {
        case .nothing: throw CheckpointError.missing(file: url.path, needed: needed)
        case .folder: return try openFolder(url, mmproj: mmproj, visionTower: visionTower)
        case .file: return try openFile(MappedFile(contentsOf: url, needed: needed), url, mmproj: mmproj, visionTower: visionTower)
        }
    }

    private static func openFile(_ file: MappedFile, _ url: URL, mmproj: URL?, visionTower: URL?) throws -> Checkpoint {
        if GGUFFile.isGGUF(file.bytes) || url.pathExtension == "gguf" {
            try rejectTower(visionTower, for: url)
            return try openGGUF(url, mmproj: mmproj, found: projector(beside: url))
        }
        let isPickle = WeightFiles.isPyTorch(url.lastPathComponent)
        guard url.pathExtension == "safetensors" || isPickle else {
            throw CheckpointError.unsupported(
                what: "this kind of file", file: url.path, hint: "expected a checkpoint folder, a .safetensors, .bin or .gguf file")
        }
        try rejectProjector(mmproj, for: url)
        let folder = url.deletingLastPathComponent()
        let weights = isPickle
            ? WeightFiles.Weights(tensors: try TorchArchive(file), format: WeightFiles.pickleFormat)
            : WeightFiles.Weights(tensors: try SafetensorsFile(file))
        return try openHuggingFace(folder, WeightFiles.withBudgetHead(weights, in: folder), visionTower: visionTower)
    }

    private static func openFolder(_ folder: URL, mmproj: URL?, visionTower: URL?) throws -> Checkpoint {
        let config = folder.appendingPathComponent("config.json")
        if FileKind(config) == .file {
            try rejectProjector(mmproj, for: folder)
            return try openHuggingFace(folder, WeightFiles.open(in: folder), visionTower: visionTower)
        }
        try rejectTower(visionTower, for: folder)
        let models = GGUFParts.models(among: try WeightFiles.names(in: folder).filter { $0.hasSuffix(".gguf") })
        let projectors = models.filter(isProjector)
        let languageModels = models.filter { !isProjector($0) }
        guard let model = languageModels.first else {
            throw CheckpointError.missing(file: config.path, needed: "the folder holds neither config.json nor a GGUF model")
        }
        guard languageModels.count == 1, mmproj != nil || projectors.count <= 1 else {
            throw CheckpointError.unsupported(
                what: "a folder with several GGUF models (\(models.prefix(8).joined(separator: ", ")))", file: folder.path,
                hint: "name one of them")
        }
        return try openGGUF(
            folder.appendingPathComponent(model), mmproj: mmproj, found: projectors.first.map(folder.appendingPathComponent))
    }

    private static func isProjector(_ name: String) -> Bool { name.lowercased().contains("mmproj") }

    /// The image part of a pair whose other part is `model`: the one that is called after it, or the only one in a folder where `model` is
    /// the only language model.
    private static func projector(beside model: URL) -> URL? {
        guard !isProjector(model.lastPathComponent) else { return nil }
        let folder = model.deletingLastPathComponent()
        let names = GGUFParts.models(among: ((try? WeightFiles.names(in: folder)) ?? []).filter { $0.hasSuffix(".gguf") })
        let own = projectorName(of: model.lastPathComponent)
        if names.contains(own) { return folder.appendingPathComponent(own) }
        let projectors = names.filter(isProjector)
        guard names.count == 2, projectors.count == 1 else { return nil }
        return folder.appendingPathComponent(projectors[0])
    }

    /// The name of the image part whose language model is called `name`.
    static func projectorName(of name: String) -> String { "mmproj-" + name }

    private static func rejectProjector(_ mmproj: URL?, for url: URL) throws {
        guard let mmproj else { return }
        throw CheckpointError.unsupported(
            what: "a separate projector (\(mmproj.lastPathComponent)) for a safetensors checkpoint", file: url.path,
            hint: "mmproj files belong to GGUF models")
    }

    private static func rejectTower(_ tower: URL?, for url: URL) throws {
        guard let tower else { return }
        throw CheckpointError.unsupported(
            what: "a separate vision tower (\(tower.lastPathComponent)) for a GGUF model", file: url.path,
            hint: "the image part of a GGUF pair is its mmproj file")
    }

    // MARK: Hugging Face

    private static func openHuggingFace(_ folder: URL, _ stored: WeightFiles.Weights, visionTower: URL?) throws -> Checkpoint {
        let configURL = folder.appendingPathComponent("config.json")
        let json = try JSONValue.read(contentsOf: configURL, needed: "the configuration of the checkpoint")
        var configuration = try ModelConfiguration.read(json, file: configURL.path)

        let weights = try ScaledTensors.joined(stored.tensors, configuration: json)
        let inside = try RenamedTensors(weights) { name in
            TensorNames.canonical(huggingFace: name).flatMap { $0.hasPrefix(TensorNames.visionPrefix) ? $0 : nil }
        }
        let language = try RenamedTensors(weights) { name in
            TensorNames.canonical(huggingFace: name).flatMap { $0.hasPrefix(TensorNames.visionPrefix) ? nil : $0 }
        }
        if let visionTower, configuration.llava?.visionTowerReference == nil {
            throw CheckpointError.unsupported(
                what: "a separate vision tower (\(visionTower.lastPathComponent))", file: configURL.path,
                hint: "this model \(configuration.llava == nil ? "has no image part" : "has its tower inside")")
        }
        var tower: VisionTowerFiles?
        if let llava = configuration.llava {
            let found = try VisionTowerFiles.find(for: llava, shape: configuration.vision, inside: inside, folder: folder, tower: visionTower)
            try llava.validate(for: found.configuration, file: configURL.path)
            if llava.tiling == .idefics3, found.imageProcessor.tiles == nil {
                throw CheckpointError.configuration(
                    field: "image_processor_type", expected: "Idefics3ImageProcessor or SmolVLMImageProcessor, which cut pictures into tiles",
                    found: "another in preprocessor_config.json and processor_config.json, or neither file", file: folder.path)
            }
            if llava.tiling == .lfm2VL { try ModelConfiguration.checkLFM2VL(found.imageProcessor, found.configuration, llava, folder: folder.path) }
            if llava.tiling == .dynamic {
                guard case .pixels = found.imageProcessor.resize else {
                    throw CheckpointError.configuration(
                        field: "image_processor_type", expected: "Qwen2VLImageProcessor, which keeps a picture's proportions",
                        found: "another in preprocessor_config.json and processor_config.json", file: folder.path)
                }
            }
            if let width = json["mm_hidden_size"], width != .integer(found.configuration.hiddenSize) {
                throw CheckpointError.configuration(
                    field: "mm_hidden_size",
                    expected: "\(found.configuration.hiddenSize), the width of the vision tower \(found.tensors.location)",
                    found: width.summary, file: configURL.path)
            }
            configuration.vision = found.configuration
            // LLaVA-1.6's processor has this field for padding batches, not images.
            if llava.visionTowerReference == nil, llava.tiling == .none, found.imageProcessor.padsToSquare {
                configuration.llava?.imageAspectRatio = .pad
            }
            tower = found
        }
        let generationURL = folder.appendingPathComponent("generation_config.json")
        let generation =
            FileKind(generationURL) == .file
            ? try GenerationDefaults.read(
                JSONValue.read(contentsOf: generationURL), file: generationURL.path, language: configuration.language)
            : GenerationDefaults(configuration.language)
        return Checkpoint(
            folder: folder,
            formatDescription: "\(familyName(configuration)), \(stored.format) in \(stored.files == 1 ? "one file" : "\(stored.files) files")",
            configuration: configuration, language: language, projector: tower == nil ? nil : language, vision: tower?.tensors,
            imageProcessor: tower?.imageProcessor, generation: generation)
    }

    // MARK: GGUF

    /// - Parameters:
    ///   - mmproj: the image part, where it was named.
    ///   - found: the image part in the file's folder; not needed if the file has a tower of its own.
    static func openGGUF(_ url: URL, mmproj: URL?, found: URL?) throws -> Checkpoint {
        let file = try GGUFFile.open(url)
        let url = GGUFParts.first(of: url)
        var configuration = try ModelConfiguration.read(file)
        let c = configuration.language
        let rows = [c.numAttentionHeads, c.numKeyValueHeads, c.numKeyValueHeads].map { $0 * c.headDim }
        let language = try RenamedTensors(file) { name in
            TensorNames.stacked(gguf: name).map { zip($0, rows).map { RenamedTensors.Part(name: $0, rows: $1) } }
        } rename: { name in
            let canonical = TensorNames.canonical(gguf: name, c.architecture)
            return canonical.hasPrefix(TensorNames.visionPrefix) ? nil : canonical
        }
        // This engine also writes both halves into one file.
        let holdsTower = mmproj == nil && file.metadata["clip.vision.block_count"] != nil
        let imageFile = holdsTower ? file : try (mmproj ?? found).map { try GGUFFile.open($0, needed: "the projector of a GGUF pair") }
        guard let imageFile else {
            return Checkpoint(
                folder: url.deletingLastPathComponent(), name: url.lastPathComponent, formatDescription: "\(familyName(configuration)), GGUF",
                configuration: configuration, language: language, generation: GenerationDefaults(configuration.language),
                ggufMetadata: file.metadata)
        }
        if !holdsTower {
            let architecture = try imageFile.metadata.string("general.architecture") ?? "nothing"
            guard architecture == "clip" else {
                throw CheckpointError.unsupported(
                    what: "the GGUF architecture \"\(architecture.prefix(60))\" as a projector", file: imageFile.location,
                    hint: "expected clip")
            }
        }
        let image = try GGUFProjector(imageFile)
        configuration.vision = image.vision
        configuration.llava = image.llava

        // Converters name the MLP's layers in two ways. The rows of the first layer are as long as the tower is wide, so ffn_down's shape tells which.
        let swaps =
            imageFile.find("v.blk.0.ffn_down.weight")?.shape.last == image.vision.hiddenSize
            && image.vision.hiddenSize != image.vision.intermediateSize
        let tensors = try RenamedTensors(imageFile) { TensorNames.canonical(gguf: $0, swapsTowerMLP: swaps) }
        return Checkpoint(
            folder: url.deletingLastPathComponent(), name: url.lastPathComponent,
            formatDescription: "\(familyName(configuration)), GGUF\(holdsTower ? "" : " pair")", configuration: configuration,
            language: language, projector: try RenamedTensors(tensors) { $0.hasPrefix("model.mm_projector.") ? $0 : nil },
            vision: try RenamedTensors(tensors) { $0.hasPrefix(TensorNames.visionPrefix) ? $0 : nil },
            imageProcessor: image.imageProcessor, generation: GenerationDefaults(configuration.language), ggufMetadata: file.metadata)
    }

    private static func familyName(_ configuration: ModelConfiguration) -> String {
        let decoder = configuration.language.architecture
        if case .qwen2VL(let shape)? = configuration.vision?.architecture, configuration.adaptive == nil { return shape.isSecond ? "Qwen2.5-VL" : "Qwen2-VL" }
        let with = decoder == .llama ? "" : " with \(decoder.name)"
        if let adaptive = configuration.adaptive { return "AdaLLaVA-\(adaptive.schedulerType.rawValue)\(with)" }
        guard let llava = configuration.llava else { return decoder.name }
        switch llava.tiling {
        case .lfm2VL: return "LFM2-VL"
        case .none, .dynamic: return "LLaVA-1.5" + with
        case .idefics3: return "Idefics3" + with
        case .anyRes: return "LLaVA-1.6" + with
        }
    }
}
