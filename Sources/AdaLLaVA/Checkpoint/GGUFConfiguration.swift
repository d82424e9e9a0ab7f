/// Reads configurations from GGUF metadata.
/// Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and `clip.*` as llama.cpp's converters write them.
extension ModelConfiguration {
    /// Reads a language model.
    /// - Throws: ``CheckpointError``
    package static func read(_ file: GGUFFile) throws -> ModelConfiguration {
        let name = try GGUFArchitecture.decoder(file.metadata) ?? "nothing"
        guard let architecture = DecoderArchitecture.allCases.first(where: { $0.fileDescription.ggufArchitecture == name }) else {
            let supported = "supported: \(DecoderArchitecture.ggufArchitectures.joined(separator: ", "))"
            throw CheckpointError.unsupported(
                what: "the GGUF architecture \"\(name.prefix(60))\"", file: file.location,
                hint: name == "clip" ? "this is the image part of a model: give it together with the language model" : supported)
        }
        let fields = GGUFFields(file.metadata, architecture: name)
        if try fields.metadata.int(fields.key("expert_count")) ?? 0 > 0 {
            throw CheckpointError.unsupported(what: "a mixture of experts", file: file.location, hint: "supported: dense models")
        }
        let language = try DecoderConfiguration(file, fields, architecture)
        let adaptive = try AdaptiveConfiguration(fields)
        try adaptive?.validate(for: language, file: file.location)
        return ModelConfiguration(language: language, adaptive: adaptive)
    }
}

/// `general.architecture` of a model that other programs cannot run, and the key with its decoder's architecture.
enum GGUFArchitecture {
    static let ours = "adallava"
    static let baseKey = "adallava.base_architecture"

    /// The decoder's architecture, with whose name its keys begin.
    static func decoder(_ metadata: GGUFMetadata) throws -> String? {
        let name = try metadata.string("general.architecture")
        return name == ours ? try metadata.string(baseKey) ?? name : name
    }
}

extension DecoderConfiguration {
    fileprivate init(_ file: GGUFFile, _ fields: GGUFFields, _ architecture: DecoderArchitecture) throws {
        typealias Limits = ConfigurationLimits
        let (metadata, description) = (fields.metadata, architecture.fileDescription)
        let heads = try fields.integer(fields.key("attention.head_count"), in: Limits.heads)
        let hidden = try fields.integer(fields.key("embedding_length"), in: Limits.hidden)
        let headDim = try fields.optionalInteger(fields.key("attention.key_length"), in: Limits.headDim)
        let tokens = try metadata.array("tokenizer.ggml.tokens").map(\.count)
        let vocabulary = try fields.optionalInteger(fields.key("vocab_size"), in: Limits.vocabulary) ?? tokens ?? 0
        guard Limits.vocabulary.contains(vocabulary) else {
            throw fields.invalid(fields.key("vocab_size"), expected: "a number of tokens from 1 to \(Limits.vocabulary.upperBound)")
        }
        let positions = try fields.integer(fields.key("context_length"), in: Limits.positions)
        var ends: [Int] = []
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            if let token = try metadata.tokenID(key), !ends.contains(token) { ends.append(token) }
        }
        self.init(
            architecture: architecture, vocabularySize: vocabulary, hiddenSize: hidden,
            intermediateSize: try fields.integer(fields.key("feed_forward_length"), in: Limits.intermediate),
            numHiddenLayers: try fields.integer(fields.key("block_count"), in: Limits.layers),
            numAttentionHeads: heads,
            numKeyValueHeads: try fields.optionalInteger(
                fields.key("attention.head_count_kv"), in: Limits.heads, ignoring: architecture == .lfm2 ? 0 : nil) ?? heads,
            headDim: headDim,
            normEpsilon: Float(try fields.number(fields.key(description.epsilonField.gguf), in: Limits.epsilon, missing: nil)),
            slidingWindow: try fields.optionalInteger(fields.key("attention.sliding_window"), in: Limits.positions),
            rotaryDim: try fields.optionalInteger(fields.key("rope.dimension_count"), in: Limits.headDim),
            ropeTheta: try fields.number(fields.key("rope.freq_base"), in: 1...1e12, missing: 10000),
            ropeScaling: try fields.ropeScaling(positions: positions), ropeInterleaved: description.ggufIsInterleaved,
            maxPositionEmbeddings: positions, tieWordEmbeddings: file.find("output.weight") == nil,
            attentionBias: file.find("blk.0.attn_q.bias") != nil && file.find("blk.0.attn_output.bias") != nil,
            mlpBias: file.find("blk.0.ffn_up.bias") != nil,
            bosTokenID: try metadata.tokenID("tokenizer.ggml.bos_token_id"), eosTokenIDs: ends,
            padTokenID: try metadata.tokenID("tokenizer.ggml.padding_token_id"))
        try description.read(fields, into: &self)
        ignoredTokens = try metadata.unknownTokenIDs()
        try validate(headDimGiven: headDim != nil, file: fields.location)
        if let width = try fields.optionalInteger(fields.key("attention.value_length"), in: Limits.headDim), width != self.headDim {
            throw CheckpointError.unsupported(
                what: "\(fields.key("attention.value_length")) \(width) with heads of \(self.headDim) values", file: metadata.location,
                hint: "they must be equal")
        }
    }
}

extension AdaptiveConfiguration {
    /// The scheduler's settings as this engine's own GGUF files carry them; `nil` for every other model.
    fileprivate init?(_ fields: GGUFFields) throws {
        guard let name = try fields.metadata.string("adallava.scheduler_type") else { return nil }
        guard let type = SchedulerType(rawValue: name) else { throw fields.invalid("adallava.scheduler_type", expected: "L or H") }
        self.init(
            schedulerType: type,
            schedulerRank: try fields.integer("adallava.scheduler_rank", in: ConfigurationLimits.heads),
            numPrefixLayers: try fields.integer("adallava.num_prefix_layers", in: ConfigurationLimits.layers),
            switchesKeyValueGroups: try fields.metadata.bool("adallava.scheduler_kv_groups") ?? false,
            hasBudgetHead: try fields.metadata.bool("adallava.budget_head") ?? false)
    }

    /// The keys that say all this in a GGUF file.
    package var ggufMetadata: [(key: String, value: GGUFValue)] {
        [
            ("adallava.scheduler_type", .string(schedulerType.rawValue)),
            ("adallava.scheduler_rank", .uint32(UInt32(clamping: schedulerRank))),
            ("adallava.num_prefix_layers", .uint32(UInt32(clamping: numPrefixLayers))),
        ] + (switchesKeyValueGroups ? [("adallava.scheduler_kv_groups", .bool(true))] : [])
            + (hasBudgetHead ? [("adallava.budget_head", .bool(true))] : [])
    }
}

/// The image part of a model: a GGUF file of its own (`mmproj`), or tensors in one of ours.
struct GGUFProjector {
    let vision: VisionConfiguration
    let llava: LlavaConfiguration
    let imageProcessor: ImageProcessorConfiguration

    /// - Throws: ``CheckpointError``
    init(_ file: GGUFFile) throws {
        typealias Limits = ConfigurationLimits
        let fields = GGUFFields(file.metadata)
        let metadata = file.metadata
        guard try metadata.bool("clip.has_vision_encoder") ?? true else {
            throw CheckpointError.unsupported(what: "a projector without a vision tower", file: file.location, hint: "")
        }
        let type = try metadata.string("clip.projector_type") ?? metadata.string("clip.vision.projector_type") ?? "mlp"
        guard type == "mlp", file.find("mm.3.weight") == nil else {
            throw CheckpointError.unsupported(
                what: "the projector \"\(type == "mlp" ? "mlp_norm" : String(type.prefix(60)))\"", file: file.location,
                hint: "supported: mlp (LLaVA-1.5)")
        }
        let aspect = try metadata.string("clip.vision.image_aspect_ratio") ?? "pad"
        let merge = try metadata.string("clip.vision.mm_patch_merge_type") ?? "flat"
        guard !aspect.hasPrefix("anyres"), !merge.hasPrefix("spatial"), metadata["clip.vision.image_grid_pinpoints"] == nil else {
            throw CheckpointError.unsupported(what: "LLaVA-1.6 with several image tiles", file: file.location, hint: "supported: LLaVA-1.5")
        }
        let layers = try fields.integer("clip.vision.block_count", in: Limits.layers)
        vision = try Self.tower(fields, layers: layers)

        let linears = (0..<16).prefix { file.find("mm.\($0 * 2).weight") != nil }.count
        guard linears > 0 else { throw CheckpointError.missingTensor(name: "mm.0.weight", file: file.location) }
        llava = LlavaConfiguration(
            projector: .mlp(layers: linears), projectorBias: file.find("mm.0.bias") != nil,
            selectLayer: try Self.selectLayer(file, layers: layers), imageAspectRatio: aspect == "pad" ? .pad : .crop,
            tokenSelection: try metadata.string("adallava.token_selecting").flatMap(LlavaConfiguration.TokenSelection.init) ?? .none,
            towerInside: true)
        try llava.validate(for: vision, file: file.location)

        imageProcessor = ImageProcessorConfiguration(
            resize: .shortestEdge(vision.imageSize),
            centerCrop: .init(width: vision.imageSize, height: vision.imageSize),
            mean: try fields.threeFloats("clip.vision.image_mean") ?? ImageProcessorConfiguration.clipMean,
            standardDeviation: try fields.threeFloats("clip.vision.image_std") ?? ImageProcessorConfiguration.clipStandardDeviation)
    }

    /// The tower's shape: CLIP's, or an EfficientNet-Lite in a file of ours.
    private static func tower(_ fields: GGUFFields, layers: Int) throws -> VisionConfiguration {
        typealias Limits = ConfigurationLimits
        let metadata = fields.metadata
        if let type = try metadata.string("adallava.vision.model_type") {
            guard type == EfficientNetConfiguration.modelType else {
                throw VisionConfiguration.unsupportedTower(type, file: metadata.location)
            }
            return VisionConfiguration(try EfficientNetConfiguration(metadata))
        }
        let usesGELU = try metadata.bool("clip.use_gelu") ?? false
        let usesSiLU = try metadata.bool("clip.use_silu") ?? false
        let clip = VisionConfiguration(
            hiddenSize: try fields.integer("clip.vision.embedding_length", in: Limits.hidden),
            intermediateSize: try fields.integer("clip.vision.feed_forward_length", in: Limits.intermediate),
            numHiddenLayers: layers,
            numAttentionHeads: try fields.integer("clip.vision.attention.head_count", in: Limits.heads),
            imageSize: try fields.integer("clip.vision.image_size", in: Limits.imageSide),
            patchSize: try fields.integer("clip.vision.patch_size", in: Limits.imageSide),
            layerNormEpsilon: Float(try fields.number("clip.vision.attention.layer_norm_epsilon", in: Limits.epsilon, missing: 1e-5)),
            activation: usesGELU ? .gelu : usesSiLU ? .silu : .quickGELU,
            projectionDim: try fields.optionalInteger("clip.vision.projection_dim", in: 0...Limits.hidden.upperBound) ?? 512)
        try clip.validate(file: metadata.location)
        return clip
    }

    /// The hidden state that the projector takes.
    private static func selectLayer(_ file: GGUFFile, layers: Int) throws -> Int {
        if let listed = try file.metadata.ints("clip.vision.feature_layer") {
            guard listed.count == 1, let layer = listed.first, (0...layers).contains(layer) else {
                throw CheckpointError.unsupported(
                    what: "clip.vision.feature_layer \(listed.prefix(8)) of \(layers) layers", file: file.location,
                    hint: "supported: one layer")
            }
            return layer
        }
        // LLaVA takes the state before the tower's last layer. Converters that leave this layer out also leave out the norm after it.
        return file.find("v.post_ln.weight") == nil ? -1 : -2
    }
}

/// GGUF metadata, read with range checks.
struct GGUFFields {
    let metadata: GGUFMetadata
    /// `general.architecture`, with which the names of a language model's keys begin.
    private let architecture: String

    init(_ metadata: GGUFMetadata, architecture: String = "clip") { (self.metadata, self.architecture) = (metadata, architecture) }

    /// Where the metadata come from, for messages.
    var location: String { metadata.location }

    /// `rope.freq_base` → `llama.rope.freq_base`.
    func key(_ name: String) -> String { "\(architecture).\(name)" }

    func invalid(_ key: String, expected: String) -> CheckpointError {
        .configuration(field: key, expected: expected, found: metadata[key]?.summary ?? "nothing", file: metadata.location)
    }

    /// A whole number, or an array that says the same one for each layer.
    /// - Parameter ignored: the array's value for layers to which the number does not apply.
    func optionalInteger(_ key: String, in range: ClosedRange<Int>, ignoring ignored: Int? = nil) throws -> Int? {
        var single: Int?
        if case .array(let layers)? = metadata[key], let values = layers.integers(), let first = values.first(where: { $0 != ignored }) {
            guard values.allSatisfy({ $0 == first || $0 == ignored }) else {
                throw CheckpointError.unsupported(
                    what: "\(key) that differs between layers (\(Set(values).sorted().prefix(8).map(String.init).joined(separator: ", ")))",
                    file: metadata.location, hint: "supported: models whose layers are alike")
            }
            single = first
        }
        guard let value = try single ?? metadata.int(key) else { return nil }
        guard range.contains(value) else {
            throw invalid(key, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func integer(_ key: String, in range: ClosedRange<Int>) throws -> Int {
        guard let value = try optionalInteger(key, in: range) else {
            throw invalid(key, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func number(_ key: String, in range: ClosedRange<Double>, missing: Double?) throws -> Double {
        guard let value = try metadata.float(key) ?? missing, range.contains(value) else {
            throw invalid(key, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func threeFloats(_ key: String) throws -> [Float]? {
        guard let values = try metadata.floats(key) else { return nil }
        guard values.count >= 3, values.prefix(3).allSatisfy({ $0.isFinite && abs($0) < 1e6 }),
            key.hasSuffix("mean") || values.prefix(3).allSatisfy({ $0 > 1e-6 })
        else { throw invalid(key, expected: "three finite numbers") }
        return Array(values.prefix(3))
    }

    func ropeScaling(positions: Int) throws -> RopeScaling? {
        let factors = 1e-3...1e6
        let factor = try metadata.float(key("rope.scaling.factor")) ?? metadata.float(key("rope.scale_linear")) ?? 0
        // Older converters name a factor without a type, which then means linear.
        let type = try metadata.string(key("rope.scaling.type")) ?? "linear"
        switch type {
        case "none": return nil
        case "linear":
            guard factor != 0, factor != 1 else { return nil }
            guard factors.contains(factor) else { throw invalid(key("rope.scaling.factor"), expected: "a positive number") }
            return .linear(factor: factor)
        case "yarn":
            guard factors.contains(factor) else { throw invalid(key("rope.scaling.factor"), expected: "a positive number") }
            let attention =
                try metadata.float(key("rope.scaling.yarn_attn_factor")) ?? metadata.float(key("rope.scaling.attn_factor")) ?? 1
            guard factors.contains(attention) else { throw invalid(key("rope.scaling.attn_factor"), expected: "a positive number") }
            return .yarn(
                .init(
                    factor: factor,
                    originalMaxPositionEmbeddings: try optionalInteger(
                        key("rope.scaling.original_context_length"), in: ConfigurationLimits.positions) ?? positions,
                    betaFast: try number(key("rope.scaling.yarn_beta_fast"), in: factors, missing: 32),
                    betaSlow: try number(key("rope.scaling.yarn_beta_slow"), in: factors, missing: 1),
                    attentionFactor: attention * RopeScaling.YaRN.magnitude(factor)))
        default:
            throw CheckpointError.unsupported(
                what: "the rope scaling \"\(type.prefix(40))\"", file: metadata.location,
                hint: "supported: none, linear, yarn, and rope_freqs (llama 3)")
        }
    }
}
