import Foundation

/// What is in a checkpoint, and the first thing that is wrong with it.
package struct ModelReport: Sendable {
    /// Tensors of one element type.
    package struct TypeShare: Sendable {
        /// The element type.
        package let type: ElementType
        /// What the type is called: it says which one ``ElementType/unread`` is.
        package let name: String
        /// How many tensors have it.
        package let tensors: Int
        /// Their values in all.
        package let values: Int
        package let bytes: Int
    }

    /// The format in words, such as `AdaLLaVA-L, safetensors in 3 files`.
    package let format: String
    /// What the model is.
    package let configuration: ModelConfiguration
    /// Parameters of the decoder with embeddings, of the vision tower, of the projector, of the scheduler.
    package let parameters: (language: Int, vision: Int, projector: Int, scheduler: Int)
    /// What the weights are stored in, the largest share first.
    package let types: [TypeShare]
    /// Bytes that the weights take in memory once they are ready to run.
    package let weightBytes: Int
    /// Bytes of keys and values for one position, with everything on.
    package let keyValueBytesPerToken: Int
    /// The units of its budget; `nil` if the model is not adaptive.
    package let units: BudgetUnits?
    /// The tokenizer in words; `nil` if there is none.
    package let tokenizer: String?
    /// The chat template's name; `nil` if none could be chosen.
    package let template: String?
    /// Tokens that one image takes in the prompt, before token selection.
    package let imageTokens: Int?
    /// The first problem found, in the words of the error that loading would end with.
    package let problem: String?
    /// What is unusual and no problem, each in words.
    package let notes: [String]
    /// Proposals of `generation_config.json` that are out of range and ignored, each in words.
    package let ignored: [String]

    /// Opens the checkpoint and checks every tensor that the architecture needs, without reading the weights.
    /// - Throws: ``CheckpointError`` if it cannot be opened at all.
    package init(contentsOf url: URL, projector: URL? = nil, visionTower: URL? = nil, template: ChatTemplate.Choice? = nil) throws {
        let checkpoint = try Checkpoint.open(at: url, projector: projector, visionTower: visionTower)
        let configuration = checkpoint.configuration
        format = checkpoint.formatDescription
        self.configuration = configuration
        ignored = checkpoint.generation.ignored
        let tensors = ModelReport.tensors(of: checkpoint)
        func count(_ prefix: (String) -> Bool) -> Int { tensors.filter { prefix($0.name) }.reduce(0) { $0 + $1.tensor.count } }
        let isScheduler = { (name: String) in name.hasPrefix("scheduler.") }
        let isProjector = { (name: String) in name.hasPrefix("model.mm_projector") }
        let isVision = { (name: String) in name.hasPrefix(TensorNames.visionPrefix) }
        parameters = (
            count { !isScheduler($0) && !isProjector($0) && !isVision($0) }, count(isVision), count(isProjector), count(isScheduler)
        )
        types = Dictionary(grouping: tensors, by: \.tensor.typeName).map { name, group in
            TypeShare(
                type: group[0].tensor.type, name: name, tensors: group.count, values: group.reduce(0) { $0 + $1.tensor.count },
                bytes: group.reduce(0) { $0 + $1.tensor.bytes.count })
        }.sorted { ($1.bytes, $0.name) < ($0.bytes, $1.name) }
        weightBytes = tensors.reduce(0) { $0 + $1.tensor.bytes.count }
        let language = configuration.language
        let attending = (0 ..< language.numHiddenLayers).count { language.kind($0) != .convolution }
        keyValueBytesPerToken = 2 * 2 * attending * language.numKeyValueHeads * language.headDim
        units = configuration.adaptive.map { BudgetUnits($0, layers: language.numHiddenLayers, heads: $0.switchesPerLayer(language)) }
        imageTokens = configuration.vision.flatMap { configuration.llava?.featureRows(of: $0) }
        let loaded = Result {
            try LoadedModel(
                checkpoint, packer: try WeightPacker(kernels: KernelSet(), pool: ThreadPool(threads: 1), packs: false), template: template,
                cancellation: Cancellation(),
                onProgress: { _ in })
        }
        switch loaded {
        case .success(let model):
            problem = model.text?.templateProblem
            tokenizer = model.text.map(\.tokenizerDescription)
            notes = [configuration.adaptive?.leftOut(language), model.text?.doubledTokens].compactMap { $0 }
            self.template = model.text?.templateName
        case .failure(let error):
            problem = (error as? any EngineError)?.description ?? "\(error)"
            (tokenizer, self.template, notes) = (nil, nil, [])
        }
    }

    /// Parameters of all parts of a model.
    package static func parameterCount(of checkpoint: Checkpoint) -> Int { tensors(of: checkpoint).reduce(0) { $0 + $1.tensor.count } }

    private static func tensors(of checkpoint: Checkpoint) -> [(name: String, tensor: StoredTensor)] {
        var found: [String: StoredTensor] = [:]
        for source in [checkpoint.language, checkpoint.projector, checkpoint.vision].compactMap({ $0 }) {
            for name in source.names { found[name] = source.find(name) }
        }
        return found.map { ($0.key, $0.value) }
    }

    /// Keys and values of a context that is full, of each layer what its window holds.
    private var keyValueBytesAtFullContext: Int {
        let language = configuration.language, layers = (0 ..< language.numHiddenLayers).filter { language.kind($0) != .convolution }
        let positions = layers.reduce(0) { $0 + min(language.contextLength, language.window($1) ?? .max) }
        return keyValueBytesPerToken / max(layers.count, 1) * positions
    }

    private func imageTokensText(_ count: Int) -> String {
        switch configuration.llava?.tiling {
        case .dynamic?: "as many tokens as the image has pixels for"
        case LlavaConfiguration.Tiling.none?, nil: "\(count) tokens an image"
        default: "\(count) tokens a tile"
        }
    }

    /// Lines for people.
    package var lines: [String] {
        let language = configuration.language
        func millions(_ count: Int) -> String { String(format: "%.1f M", Double(count) / 1e6) }
        func megabytes(_ bytes: Int) -> String { String(format: "%.1f MB", Double(bytes) / 1e6) }
        var lines = ["format        \(format)"]
        var parts = ["language \(millions(parameters.language))"]
        if parameters.vision > 0 { parts.append("vision \(millions(parameters.vision))") }
        if parameters.projector > 0 { parts.append("projector \(millions(parameters.projector))") }
        if parameters.scheduler > 0 { parts.append("scheduler \(millions(parameters.scheduler))") }
        let all = parameters.language + parameters.vision + parameters.projector + parameters.scheduler
        lines.append("parameters    \(millions(all)): \(parts.joined(separator: ", "))")
        let attention = language.numKeyValueHeads == language.numAttentionHeads ? "" : " (\(language.numKeyValueHeads) for keys and values)"
        let sliding = (0 ..< language.numHiddenLayers).count { language.kind($0) == .slidingAttention }
        let place = sliding == language.numHiddenLayers ? "" : " in \(sliding) of the layers"
        let window = language.slidingWindow.map { ", window \($0)\(place)" } ?? ""
        lines.append(
            "decoder       \(language.architecture.name): \(language.numHiddenLayers) layers, hidden \(language.hiddenSize), intermediate \(language.intermediateSize), \(language.numAttentionHeads) heads of \(language.headDim)\(attention), vocabulary \(language.vocabularySize), context \(language.contextLength)\(window)"
        )
        if let vision = configuration.vision, let imageTokens {
            let shape: String
            switch vision.architecture {
            case .clip, .siglip:
                shape = "\(vision.architecture == .siglip ? "SigLIP, " : "")\(vision.numHiddenLayers) layers, hidden \(vision.hiddenSize), image \(vision.imageSize), patch \(vision.patchSize)"
            case .qwen2VL(let tower):
                shape = "\(tower.isSecond ? "Qwen2.5-VL" : "Qwen2-VL"), \(vision.numHiddenLayers) layers, hidden \(vision.hiddenSize), patch \(vision.patchSize), \(tower.mergeSize) x \(tower.mergeSize) patches a token"
            case .efficientNetLite(let network):
                let maps = network.featureMaps.map { "\($0.rawValue) \(network.width(of: $0))" }.joined(separator: " + ")
                shape = "EfficientNet-Lite\(network.variant.map { " (\($0))" } ?? ""), \(vision.numHiddenLayers) blocks, image \(vision.imageSize), features \(maps)"
            }
            lines.append(
                "vision tower  \(shape): \(imageTokensText(imageTokens)), selection \(configuration.llava?.tokenSelection.rawValue ?? "none")")
        }
        lines.append("tensors       " + types.map { "\($0.tensors) \($0.name) (\(megabytes($0.bytes)))" }.joined(separator: ", "))
        lines.append("memory        weights \(megabytes(weightBytes)), keys and values \(String(format: "%.1f kB", Double(keyValueBytesPerToken) / 1e3)) a token, \(megabytes(keyValueBytesAtFullContext)) at full context")
        if let adaptive = configuration.adaptive, let units {
            let unit = adaptive.schedulerType == .layers ? "layers" : "units of \(adaptive.schedulerRank) heads and neuron groups"
            lines.append(
                String(
                    format: "adaptive      variant %@: %d of %d %@ always run, floor %.3g", adaptive.schedulerType.rawValue, units.prefix, units.total,
                    unit, units.floor))
        } else {
            lines.append("adaptive      no (no scheduler: it always runs whole)")
        }
        let unnamed = "none that is known (--template NAME or --chat-template FILE gives one; questions need it, token ids do not)"
        lines.append("tokenizer     " + (tokenizer.map { "\($0), template \(template ?? unnamed)" } ?? "none: it runs on token ids, not on questions"))
        lines += notes.map { "note          \($0)" }
        lines += ignored.map { "ignored       \($0)" }
        lines.append("problem       \(problem ?? "none")")
        return lines
    }

    /// The same as an object for JSON.
    package var jsonObject: [String: Any] {
        let language = configuration.language
        var object: [String: Any] = [
            "format": format,
            "parameters": [
                "language": parameters.language, "vision": parameters.vision, "projector": parameters.projector,
                "scheduler": parameters.scheduler,
            ],
            "decoder": [
                "architecture": language.architecture.rawValue, "layers": language.numHiddenLayers, "hidden_size": language.hiddenSize, "intermediate_size": language.intermediateSize,
                "heads": language.numAttentionHeads, "key_value_heads": language.numKeyValueHeads, "head_dim": language.headDim,
                "vocabulary_size": language.vocabularySize, "context_length": language.contextLength,
                "sliding_window": language.slidingWindow ?? NSNull(), "rotary_dim": language.rotaryDim,
            ] as [String: Any],
            "tensors": types.map { ["type": $0.name, "tensors": $0.tensors, "values": $0.values, "bytes": $0.bytes] },
            "memory": ["weight_bytes": weightBytes, "kv_bytes_per_token": keyValueBytesPerToken],
            "tokenizer": tokenizer ?? NSNull(), "template": template ?? NSNull(), "problem": problem ?? NSNull(), "ignored": ignored, "notes": notes, "adaptive": NSNull(),
            "vision": NSNull(),
        ]
        if let adaptive = configuration.adaptive, let units {
            object["adaptive"] = [
                "scheduler_type": adaptive.schedulerType.rawValue, "scheduler_rank": adaptive.schedulerRank,
                "num_prefix_layers": adaptive.numPrefixLayers, "total_units": units.total, "prefix_units": units.prefix, "floor": units.floor,
            ]
        }
        if let vision = configuration.vision, let imageTokens {
            object["vision"] = [
                "model_type": vision.modelType, "layers": vision.numHiddenLayers, "hidden_size": vision.hiddenSize, "image_size": vision.imageSize,
                "patch_size": vision.patchSize, "tokens": imageTokens,
                "token_selecting": configuration.llava?.tokenSelection.rawValue ?? "none",
            ]
        }
        return object
    }
}
