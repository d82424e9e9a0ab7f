import AdaLLaVA
import Foundation

/// The starting point of a run: a checkpoint, or a shape to be filled with random weights, with the recipe's changes applied.
package struct ModelSource: Sendable {
    package let folder: URL
    /// `nil` from scratch.
    package let checkpoint: Checkpoint?
    package let configuration: ModelConfiguration
    /// The members of the `config.json` that saved checkpoints get.
    let members: [String: JSONValue]
    package let imageProcessor: ImageProcessorConfiguration?
    package let tokenizer: any Tokenizer
    /// Whether saved checkpoints hold the vision tower's weights.
    let savesTower: Bool
    /// Parameters that the checkpoint does not have, or has for another scheduler.
    let startsAtRandom: @Sendable (String) -> Bool
    /// Layers that the recipe adds after the checkpoint's own; empty from scratch.
    let addedLayers: Range<Int>

    /// - Throws: ``CheckpointError``, ``TrainingError``
    package init(_ recipe: Recipe) throws {
        let folder = URL(fileURLWithPath: recipe.modelNameOrPath, isDirectory: true)
        let configURL = folder.appendingPathComponent("config.json")
        let json = try JSONValue.read(contentsOf: configURL, needed: "the configuration of the model to train")
        guard case .object(var members) = json else {
            throw CheckpointError.malformed(file: configURL.path, reason: "expected an object")
        }
        guard members["text_config"] == nil, members["vision_config"] == nil else {
            throw CheckpointError.unsupported(
                what: "training from llava-hf's layout", file: configURL.path,
                hint: "start from a checkpoint in LLaVA's or AdaLLaVA's own layout")
        }
        // Training changes the hidden states that a budget head was fitted to, so it is dropped and must be fitted again.
        members["budget_head"] = nil
        let before = try ModelConfiguration.read(.object(members), file: configURL.path)
        let decoder = before.language
        // Without a window Mistral is LLaMA, and is saved as such.
        guard decoder.architecture == .llama || decoder.architecture == .mistral && decoder.slidingWindow == nil else {
            throw CheckpointError.unsupported(
                what: "training a \(decoder.architecture.name) decoder\(decoder.slidingWindow == nil ? "" : " with a window")", file: configURL.path,
                hint: "start from a LLaMA decoder")
        }
        let layers = decoder.numHiddenLayers
        if let wanted = recipe.numHiddenLayers, wanted < layers, !recipe.fromScratch {
            throw TrainingError.recipe(
                field: "num_hidden_layers", expected: "at least the \(layers) layers of the model to start from, which are all kept",
                found: "\(wanted)", file: configURL.path)
        }
        ModelSource.apply(recipe, to: &members, adaptive: before.adaptive != nil)
        var configuration = try ModelConfiguration.read(.object(members), file: "\(configURL.path), changed by the recipe")

        if let llava = configuration.llava, llava.tiling != .none {
            throw CheckpointError.unsupported(
                what: "training a model whose pictures are cut into tiles", file: configURL.path, hint: "LLaVA-1.5's layout can be trained")
        }
        if recipe.fromScratch {
            checkpoint = nil
            (configuration.vision, imageProcessor) = try ModelSource.tower(of: configuration, in: folder)
        } else {
            let opened = try Checkpoint.open(at: folder)
            configuration.vision = opened.configuration.vision
            imageProcessor = opened.imageProcessor
            checkpoint = opened
        }
        let isTrainable = configuration.vision?.architecture == .clip
        if let vision = configuration.vision, !isTrainable, recipe.unfreezeMMVisionTower {
            throw CheckpointError.unsupported(
                what: "training the vision tower \"\(vision.modelType)\" itself", file: folder.path, hint: "CLIP towers can be trained; leave unfreeze_mm_vision_tower out")
        }
        let towerIsInside = configuration.llava?.towerInside ?? false
        let trainsTower = recipe.fromScratch || recipe.unfreezeMMVisionTower || recipe.objective == .regionLabels
        savesTower = trainsTower && isTrainable || towerIsInside
        if configuration.llava != nil, savesTower {
            members["unfreeze_mm_vision_tower"] = .bool(true)
            configuration.llava?.towerInside = true
        }
        self.folder = folder
        self.configuration = configuration
        self.members = members
        tokenizer = try TokenizerLoader.load(folder: folder).tokenizer
        let added = recipe.fromScratch ? 0 ..< 0 : layers ..< configuration.language.numHiddenLayers
        addedLayers = added
        let (fromScratch, kept) = (recipe.fromScratch, before.adaptive == configuration.adaptive && added.isEmpty)
        let hadScheduler = before.adaptive != nil
        startsAtRandom = { name in
            if fromScratch || name.contains(".lora_") || name.hasPrefix(TorchModel.regionHead) { return true }
            if let layer = TorchModel.layer(of: name) { return added.contains(layer) }
            guard name.hasPrefix("scheduler.") else { return false }
            return !hadScheduler || (!kept && name.hasPrefix("scheduler.mlp_head"))
        }
    }

    private static func apply(_ recipe: Recipe, to members: inout [String: JSONValue], adaptive: Bool) {
        if let layers = recipe.numHiddenLayers { members["num_hidden_layers"] = .integer(layers) }
        if let type = recipe.schedulerType { members["scheduler_type"] = .string(type.rawValue) }
        if let rank = recipe.schedulerRank { members["scheduler_rank"] = .integer(rank) }
        if let layers = recipe.numPrefixLayers { members["num_prefix_layers"] = .integer(layers) }
        if recipe.schedulerType != nil || adaptive {
            members["model_type"] = .string("ada_llava_llama")
            members["architectures"] = .array([.string("AdaLlavaLlamaForCausalLM")])
        }
        if recipe.tokenSelecting != "none" { members["token_selecting"] = .string(recipe.tokenSelecting) }
        if let aspect = recipe.imageAspectRatio { members["image_aspect_ratio"] = .string(aspect) }
        members["tokenizer_model_max_length"] = .integer(recipe.modelMaxLength)
        members["tune_mm_mlp_adapter"] = .bool(recipe.tuneMMMLPAdapter)
        members["torch_dtype"] = .string(recipe.saveDtype.rawValue)
        members["_name_or_path"] = nil
    }

    /// The tower's shape and processor, where there are no weights yet.
    private static func tower(
        of configuration: ModelConfiguration, in folder: URL
    ) throws -> (VisionConfiguration?, ImageProcessorConfiguration?) {
        guard let reference = configuration.llava?.visionTowerReference else { return (nil, nil) }
        let tower = reference.hasPrefix("/") ? URL(fileURLWithPath: reference) : folder.appendingPathComponent(reference)
        let url = tower.appendingPathComponent("config.json")
        let vision = try VisionConfiguration.read(
            JSONValue.read(contentsOf: url, needed: "the shape of the vision tower that mm_vision_tower names"), file: url.path)
        let processor = tower.appendingPathComponent("preprocessor_config.json")
        guard Files.exists(processor) else { return (vision, .standard(for: vision)) }
        return (vision, try ImageProcessorConfiguration.read(JSONValue.read(contentsOf: processor), file: processor.path))
    }

    /// The image processor of the model; `nil` for text models.
    func makeImageProcessor() throws -> CLIPImageProcessor? {
        guard let tower = configuration.vision else { return nil }
        return try CLIPImageProcessor(imageProcessor ?? .standard(for: tower), tower: tower, file: folder.path)
    }

    /// The tower if the engine computes its features; `nil` if libtorch computes them, so that the tower may be trained.
    /// - Parameters:
    ///   - folder: where features are kept.
    ///   - workers: images that may be encoded at the same time.
    func makeFrozenTower(folder: URL, workers: Int) throws -> FrozenTower? {
        guard let vision = configuration.vision, vision.architecture != .clip else { return nil }
        let towers = try (0 ..< workers).map { _ in
            if let checkpoint { return try VisionTower(checkpoint, threads: 1) }
            let reference = configuration.llava?.visionTowerReference ?? ""
            let location = reference.hasPrefix("/") ? URL(fileURLWithPath: reference) : self.folder.appendingPathComponent(reference)
            return try VisionTower(contentsOf: location, selectLayer: configuration.llava?.selectLayer ?? -2, threads: 1)
        }
        return try FrozenTower(towers, aspect: imageAspect, folder: folder)
    }

    /// How images become squares.
    var imageAspect: CLIPImageProcessor.AspectMode { configuration.llava?.imageAspectRatio == .crop ? .crop : .pad }

    /// Rows of features that an image becomes; 0 for text models.
    var rowsPerImage: Int {
        configuration.vision.flatMap { configuration.llava?.featureRows(of: $0) } ?? 0
    }

    /// The units of the model's budget; `nil` if it is not adaptive.
    var units: BudgetUnits? {
        configuration.adaptive.map {
            BudgetUnits($0, layers: configuration.language.numHiddenLayers, heads: configuration.language.numAttentionHeads)
        }
    }

    /// The model with its starting weights.
    func makeModel(_ options: TorchOptions, recipe: Recipe, library: TorchLibrary) throws -> TorchModel {
        let model = try TorchModel(configuration, options: options, library: library)
        var random = model.parameters
        if let checkpoint { random = try model.load(checkpoint, skipping: startsAtRandom) }
        try model.initialize(
            random, seed: UInt64(recipe.seed), deviation: Float(recipe.initializerRange),
            mimetic: recipe.mimeticAttention ? MimeticAttention(configuration.language) : nil)
        for parameter in random {
            if let values = startingValues(parameter, recipe) { try model.write(values, to: parameter) }
        }
        for parameter in model.parameters {
            try model.setTraining(
                parameter, learningRate: recipe.learningRate(of: parameter),
                weightDecay: parameter.shape.count > 1 ? recipe.weightDecay : 0)
        }
        return model
    }
}

extension ModelSource {
    /// The initial values of parameters that the checkpoint does not have and that are not random: outputs of added layers, and of a
    /// scheduler.
    private func startingValues(_ parameter: TorchModel.Parameter, _ recipe: Recipe) -> [Float]? {
        let (name, count) = (parameter.name, parameter.shape.reduce(1, *))
        if let layer = TorchModel.layer(of: name), addedLayers.contains(layer) {
            return name.contains(".o_proj.") || name.contains(".down_proj.") ? [Float](repeating: 0, count: count) : nil
        }
        guard recipe.schedulerInit == .frontToBack, name.hasPrefix("scheduler.mlp_head."), let adaptive = configuration.adaptive else { return nil }
        if name.hasSuffix(".weight") { return [Float](repeating: 0, count: count) }
        let language = configuration.language
        let layers = language.numHiddenLayers - adaptive.numPrefixLayers
        let heads = adaptive.schedulerType == .heads ? language.numAttentionHeads : 1
        // A layer above the next one, and of its heads and groups each a little above the next.
        return (0 ..< count).map { index in
            Float(recipe.schedulerInitScale) * (Float(layers - index / max(1, count / layers)) - 0.3 * Float(index % heads) / Float(heads))
        }
    }
}

extension TorchModel {
    /// The decoder layer that a parameter belongs to.
    static func layer(of name: String) -> Int? {
        let layers = "model.layers."
        guard name.hasPrefix(layers) else { return nil }
        return Int(name.dropFirst(layers.count).prefix { $0 != "." })
    }
}

extension Recipe {
    /// The learning rate of a parameter, 0 if it is frozen.
    func learningRate(of parameter: TorchModel.Parameter) -> Double {
        let name = parameter.name
        if objective == .regionLabels {
            if name.hasPrefix(TorchModel.regionHead) { return learningRate }
            if name.hasPrefix(TensorNames.visionPrefix) { return mmVisionTowerLR ?? learningRate }
            // Names of projected features' content, through which they are scored.
            let isOutput = name == "lm_head.weight" || name == "model.embed_tokens.weight" || name == "model.norm.weight" || name.hasPrefix("model.mm_projector")
            return isOutput ? learningRate : 0
        }
        if isBelowFrozenLayers(name) { return 0 }
        if name.hasPrefix("model.mm_projector") { return mmProjectorLR ?? learningRate }
        if tuneMMMLPAdapter { return 0 }
        if name.hasPrefix(TensorNames.visionPrefix) { return unfreezeMMVisionTower ? mmVisionTowerLR ?? learningRate : 0 }
        if name.hasPrefix("scheduler.") { return schedulerLR ?? learningRate }
        if freezeBackbone { return 0 }
        return loraR == 0 || name.contains(".lora_") ? learningRate : 0
    }

    /// Whether `freeze_layers` freezes a parameter: the outputs of those layers depend on it.
    private func isBelowFrozenLayers(_ name: String) -> Bool {
        guard freezeLayers > 0 else { return false }
        if let layer = TorchModel.layer(of: name) { return layer < freezeLayers }
        return name == "model.embed_tokens.weight" || name.hasPrefix("model.mm_projector") || name.hasPrefix(TensorNames.visionPrefix)
    }
}
