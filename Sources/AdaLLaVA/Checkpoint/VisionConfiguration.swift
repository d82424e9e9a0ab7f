/// The shape of a vision tower: CLIP's fields, and which other architecture it is if it is not CLIP.
package struct VisionConfiguration: Sendable, Equatable {
    /// The networks that can be a tower.
    package enum Architecture: Sendable, Equatable {
        /// CLIP's vision transformer, which the other fields describe.
        case clip
        /// SigLIP's (Zhai et al., 2023), which they describe too: no class token, no norm before the layers, one after them.
        ///
        /// Idefics3 looks up a patch's position embedding by its place as a fraction of the picture, in float32. With the published sizes (26, 27
        /// and 32 patches of a side) each patch gets its own; with others the result depends on the processor's vector width.
        case siglip
        /// A convolutional network. Of the other fields, ``hiddenSize`` (values of a row of features), ``numHiddenLayers`` (blocks),
        /// ``imageSize`` and ``patchSize`` (pixels from one token to the next) then follow from it; the rest is not used.
        case efficientNetLite(EfficientNetConfiguration)
        /// Qwen2-VL's and Qwen2.5-VL's, which the other fields describe too; ``imageSize`` then holds the pixels of a side that one row of features covers.
        case qwen2VL(Qwen2VLTowerShape)
        /// SigLIP2's with variable resolution (NaFlex), which they describe too; ``imageSize`` then holds the pixels of a side of the square picture whose
        /// patches have a position embedding each.
        case siglip2
    }

    /// The network that computes the features.
    package internal(set) var architecture: Architecture = .clip
    /// Values of a hidden state: the width of the features that the projector takes.
    package var hiddenSize: Int
    /// Neurons of a layer's MLP.
    package var intermediateSize: Int
    /// Encoder layers.
    package var numHiddenLayers: Int
    /// Attention heads of a layer.
    package var numAttentionHeads: Int
    /// Pixels of a side of the square image the tower sees.
    package var imageSize: Int
    /// Pixels of a side of a patch.
    package var patchSize: Int
    /// Colour channels of the image.
    package var numChannels: Int
    /// Added to the variance in LayerNorm.
    package var layerNormEpsilon: Float
    /// The activation of the MLP.
    package var activation: Activation
    /// Width of CLIP's shared space. Not used by LLaVA.
    package var projectionDim: Int

    /// A shape given by value; the defaults are CLIP's.
    package init(
        hiddenSize: Int, intermediateSize: Int, numHiddenLayers: Int, numAttentionHeads: Int, imageSize: Int, patchSize: Int,
        numChannels: Int = 3, layerNormEpsilon: Float = 1e-5, activation: Activation = .quickGELU, projectionDim: Int = 512
    ) {
        self.hiddenSize = hiddenSize
        self.intermediateSize = intermediateSize
        self.numHiddenLayers = numHiddenLayers
        self.numAttentionHeads = numAttentionHeads
        self.imageSize = imageSize
        self.patchSize = patchSize
        self.numChannels = numChannels
        self.layerNormEpsilon = layerNormEpsilon
        self.activation = activation
        self.projectionDim = projectionDim
    }

    /// A convolutional tower.
    package init(_ network: EfficientNetConfiguration) {
        self.init(
            hiddenSize: network.featureWidth, intermediateSize: 0, numHiddenLayers: network.blocks.count, numAttentionHeads: 1,
            imageSize: network.imageSize, patchSize: network.totalStride, projectionDim: 0)
        architecture = .efficientNetLite(network)
    }

    /// Rows of features of an image, without the class token.
    package var patches: Int {
        switch architecture {
        case .clip, .siglip: (imageSize / patchSize) * (imageSize / patchSize)
        case .efficientNetLite(let network): network.grid * network.grid
        // The least that there is; how many depends on the picture.
        case .qwen2VL, .siglip2: 1
        }
    }

    /// Whether it is a vision transformer, whose hidden states a projector can choose from.
    package var isTransformer: Bool {
        switch architecture {
        case .clip, .siglip: true
        case .efficientNetLite, .qwen2VL, .siglip2: false
        }
    }

    /// Rows of a transformer's hidden states: the patches, and CLIP's class token.
    package var positions: Int { patches + (architecture == .clip ? 1 : 0) }

    /// The architecture as `config.json` names it.
    package var modelType: String {
        switch architecture {
        case .clip: "clip_vision_model"
        case .siglip: Self.siglipType
        case .siglip2: Self.siglip2Type
        case .efficientNetLite: EfficientNetConfiguration.modelType
        case .qwen2VL(let shape): shape.isSecond ? "qwen2_5_vl" : "qwen2_vl"
        }
    }

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    func validate(file: String) throws {
        guard hiddenSize % numAttentionHeads == 0 else {
            throw CheckpointError.configuration(
                field: "vision hidden_size", expected: "a multiple of the \(numAttentionHeads) attention heads", found: "\(hiddenSize)",
                file: file)
        }
        guard patchSize <= imageSize else {
            throw CheckpointError.configuration(
                field: "vision patch_size", expected: "at most the image's \(imageSize) pixels", found: "\(patchSize)", file: file)
        }
        guard numChannels == 3 else {
            throw CheckpointError.configuration(
                field: "vision num_channels", expected: "3, for red, green and blue", found: "\(numChannels)", file: file)
        }
    }

    static let siglipType = "siglip_vision_model"
    /// The types of Idefics3's and SmolVLM's towers; published SmolVLM configurations also name the whole model's.
    private static let idefics3Types = ["idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm"]
    /// Types that a folder with a tower alone, or with a whole CLIP or SigLIP, may have.
    static let towerTypes = ["clip", "clip_vision_model", "siglip", siglipType, EfficientNetConfiguration.modelType]

    /// Reads the configuration of a vision tower of its own: `CLIPVisionModel` or `SiglipVisionModel`, or a whole `CLIPModel` or `SiglipModel` with
    /// `vision_config` inside, whose absent fields have Hugging Face's defaults; or an EfficientNet-Lite.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for other towers.
    package static func read(_ json: JSONValue, file: String) throws -> VisionConfiguration {
        let fields = try ConfigurationFields(json, file: file)
        let type = try fields.optionalString("model_type") ?? "clip_vision_model"
        switch type {
        case "clip", "siglip":
            guard let nested = try fields.optionalObject("vision_config") else {
                throw fields.invalid("vision_config", expected: "the vision tower's configuration")
            }
            return try VisionConfiguration(nested: nested, missingType: type + "_vision_model")
        case EfficientNetConfiguration.modelType: return VisionConfiguration(try EfficientNetConfiguration(fields))
        default: return try VisionConfiguration(nested: fields)
        }
    }

    static func unsupportedTower(_ type: String, file: String) -> CheckpointError {
        .unsupported(
            what: "the vision tower \"\(type.prefix(60))\"", file: file,
            hint: "supported: clip_vision_model (CLIP ViT), \(siglipType), \(idefics3Types[0]), \(EfficientNetConfiguration.modelType)")
    }

    /// Reads a transformer's configuration.
    /// - Parameters:
    ///   - missingType: the type if `model_type` is absent.
    ///   - knownType: the type, whatever `model_type` says.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for other towers.
    init(nested fields: ConfigurationFields, missingType: String = "clip_vision_model", knownType: String? = nil) throws {
        let type = try knownType ?? fields.optionalString("model_type") ?? missingType
        switch type {
        case "clip_vision_model": try self.init(huggingFace: fields)
        case Self.siglipType: try self.init(siglip: fields, hiddenSize: 768, heads: 12, patchSize: 16)
        case _ where Self.idefics3Types.contains(type): try self.init(siglip: fields, hiddenSize: 1152, heads: 16, patchSize: 32)
        default: throw Self.unsupportedTower(type, file: fields.file)
        }
    }

    /// SigLIP's configuration, and those of models with its tower; they differ in the defaults of absent fields.
    private init(siglip fields: ConfigurationFields, hiddenSize: Int, heads: Int, patchSize: Int) throws {
        typealias Limits = ConfigurationLimits
        self.init(
            hiddenSize: try fields.integer("hidden_size", in: Limits.hidden, missing: hiddenSize),
            intermediateSize: try fields.integer("intermediate_size", in: Limits.intermediate, missing: 3072),
            numHiddenLayers: try fields.integer("num_hidden_layers", in: Limits.layers, missing: 12),
            numAttentionHeads: try fields.integer("num_attention_heads", in: Limits.heads, missing: heads),
            imageSize: try fields.integer("image_size", in: Limits.imageSide, missing: 224),
            patchSize: try fields.integer("patch_size", in: Limits.imageSide, missing: patchSize),
            numChannels: try fields.integer("num_channels", in: 1...64, missing: 3),
            layerNormEpsilon: Float(try fields.number("layer_norm_eps", in: Limits.epsilon, missing: 1e-6)),
            activation: try fields.activation("hidden_act", missing: .geluTanh), projectionDim: 0)
        architecture = .siglip
        try validate(file: fields.file)
    }

    init(huggingFace fields: ConfigurationFields) throws {
        typealias Limits = ConfigurationLimits
        self.init(
            hiddenSize: try fields.integer("hidden_size", in: Limits.hidden, missing: 768),
            intermediateSize: try fields.integer("intermediate_size", in: Limits.intermediate, missing: 3072),
            numHiddenLayers: try fields.integer("num_hidden_layers", in: Limits.layers, missing: 12),
            numAttentionHeads: try fields.integer("num_attention_heads", in: Limits.heads, missing: 12),
            imageSize: try fields.integer("image_size", in: Limits.imageSide, missing: 224),
            patchSize: try fields.integer("patch_size", in: Limits.imageSide, missing: 32),
            numChannels: try fields.integer("num_channels", in: 1...64, missing: 3),
            layerNormEpsilon: Float(try fields.number("layer_norm_eps", in: Limits.epsilon, missing: 1e-5)),
            activation: try fields.activation("hidden_act", missing: .quickGELU),
            projectionDim: try fields.integer("projection_dim", in: 0...Limits.hidden.upperBound, missing: 512))
        try validate(file: fields.file)
    }

    /// The published CLIP towers that LLaVA checkpoints name: their shape is needed even where their files are not, when the weights
    /// are inside the checkpoint.
    package static func published(_ name: String) -> VisionConfiguration? {
        switch name {
        case "openai/clip-vit-large-patch14-336": .largePatch14(imageSize: 336)
        case "openai/clip-vit-large-patch14": .largePatch14(imageSize: 224)
        case "openai/clip-vit-base-patch16":
            VisionConfiguration(
                hiddenSize: 768, intermediateSize: 3072, numHiddenLayers: 12, numAttentionHeads: 12, imageSize: 224, patchSize: 16)
        case "openai/clip-vit-base-patch32":
            VisionConfiguration(
                hiddenSize: 768, intermediateSize: 3072, numHiddenLayers: 12, numAttentionHeads: 12, imageSize: 224, patchSize: 32)
        default: nil
        }
    }

    static func largePatch14(imageSize: Int) -> VisionConfiguration {
        VisionConfiguration(
            hiddenSize: 1024, intermediateSize: 4096, numHiddenLayers: 24, numAttentionHeads: 16, imageSize: imageSize, patchSize: 14,
            projectionDim: 768)
    }
}
