/// How image features get from the vision tower into the language model.
package struct LlavaConfiguration: Sendable, Equatable {
    /// The map from a tower's hidden states to the language model's.
    package enum Projector: Sendable, Equatable {
        /// The features as they are.
        case identity
        /// One linear layer, `model.mm_projector`.
        case linear
        /// `layers` linear layers with GELU between them, `model.mm_projector.0`, `.2`, `.4`, …
        case mlp(layers: Int)
        /// The features of `scale` x `scale` patches side by side, then one linear layer without a bias, `model.mm_projector` (Idefics3).
        case pixelShuffle(scale: Int)
        /// The features of `scale` x `scale` patches side by side, a LayerNorm where `hasNorm`, then two linear layers with GELU between them:
        /// `model.mm_projector.norm`, `.0`, `.2` (LFM2-VL).
        case pixelUnshuffle(scale: Int, hidden: Int, hasNorm: Bool)

        /// The projector that LLaVA's `mm_projector_type` calls `name`.
        init?(llavaName name: String) {
            switch name {
            case "identity": self = .identity
            case "linear": self = .linear
            default:
                guard name.hasPrefix("mlp"), name.hasSuffix("x_gelu"), let layers = Int(name.dropFirst(3).dropLast(6)),
                    (1...16).contains(layers)
                else { return nil }
                self = .mlp(layers: layers)
            }
        }
    }

    /// Which positions of the tower's output are used.
    package enum Feature: String, Sendable {
        /// The patches without the class token.
        case patch
        /// The class token, then the patches.
        case classAndPatches = "cls_patch"
    }

    /// How a picture that is not square is brought into the tower's square.
    package enum AspectRatio: String, Sendable {
        /// Squared with the mean colour first.
        case pad
        /// As the image processor does: shorter side to size, middle cut out.
        case crop
    }

    /// Which image tokens are kept (LLaVA-PruMerge, Shang et al., 2024).
    package enum TokenSelection: String, Sendable {
        case none
        case pruMerge = "prumerge"
        case pruMergePlus = "prumerge+"
    }

    /// How a picture becomes one or several inputs of the tower.
    package enum Tiling: Sendable, Equatable {
        /// The picture as one.
        case none
        /// Tiles row by row, then the whole picture, each between tokens of its own (Idefics3, Laurençon et al., 2024).
        case idefics3
        /// The whole picture, then tiles of the best of some resolutions, as one map with a newline token after each row (LLaVA-1.6).
        case anyRes([ImageProcessorConfiguration.Size])
        /// The picture as one, in its own proportions (Qwen2-VL).
        case dynamic
        /// The picture as one in its own proportions, or tiles row by row before it, with tokens of their own around each (LFM2-VL).
        case lfm2VL
    }

    /// Tower features, projector and images of a LLaVA model.
    package var projector: Projector
    /// Whether the projector's linear layers have biases.
    package var projectorBias: Bool
    /// The hidden state taken from the tower, as configurations number it: 0 is the first layer's input, -1 the last layer's output.
    package var selectLayer: Int
    /// Which of the tower's positions are used.
    package var selectFeature: Feature
    /// Whether the hidden state passes the norm after the tower's layers.
    package var appliesFinalNorm = false
    /// Whether a picture is cut into tiles.
    package var tiling = Tiling.none
    /// How an image becomes a square.
    package var imageAspectRatio: AspectRatio
    /// Which image tokens reach the projector.
    package var tokenSelection: TokenSelection
    /// How the decoder drops image tokens; checkpoints do not say it, ``Checkpoint/selecting(_:)`` sets it.
    package internal(set) var fastV: FastV?
    /// `mm_vision_tower`: a folder or a name on the Hugging Face hub; `nil` where the format has none.
    package var visionTowerReference: String?
    /// Whether the checkpoint says that it holds the tower's weights itself.
    package var towerInside: Bool
    /// The placeholder of an image in llava-hf's prompts; LLaVA itself uses `PromptEncoder.imageToken`.
    package var imageTokenID: Int?
    /// Whether an image is framed by the tokens `<im_start>` and `<im_end>`.
    package var useImageStartEnd: Bool
    /// Whether the prompt has an `<im_patch>` token.
    package var useImagePatchToken: Bool
    /// `mm_patch_merge_type`; `flat` is computed.
    package var patchMergeType: String

    /// A configuration given by value; defaults are LLaVA-1.5's.
    package init(
        projector: Projector, projectorBias: Bool = true, selectLayer: Int = -2, selectFeature: Feature = .patch,
        imageAspectRatio: AspectRatio = .crop, tokenSelection: TokenSelection = .none, visionTowerReference: String? = nil,
        towerInside: Bool, imageTokenID: Int? = nil, useImageStartEnd: Bool = false, useImagePatchToken: Bool = false,
        patchMergeType: String = "flat"
    ) {
        self.projector = projector
        self.projectorBias = projectorBias
        self.selectLayer = selectLayer
        self.selectFeature = selectFeature
        self.imageAspectRatio = imageAspectRatio
        self.tokenSelection = tokenSelection
        self.visionTowerReference = visionTowerReference
        self.towerInside = towerInside
        self.imageTokenID = imageTokenID
        self.useImageStartEnd = useImageStartEnd
        self.useImagePatchToken = useImagePatchToken
        self.patchMergeType = patchMergeType
    }

    /// ``selectLayer`` counted from the front: how many of the tower's layers have to run. All blocks of a convolutional tower.
    package func layersToRun(of vision: VisionConfiguration) -> Int {
        guard vision.isTransformer else { return vision.numHiddenLayers }
        return selectLayer >= 0 ? selectLayer : vision.numHiddenLayers + 1 + selectLayer
    }

    /// Rows of features that an input of the tower becomes, before tokens are selected.
    package func featureRows(of tower: VisionConfiguration) -> Int {
        guard case .pixelShuffle(let scale) = projector else { return tower.patches + (selectFeature == .classAndPatches ? 1 : 0) }
        return tower.patches / (scale * scale)
    }

    /// Checks the selected layer against the tower. Only CLIP's has a class token. A convolutional tower has no hidden states to select from: its own
    /// configuration names its feature maps.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    func validate(for vision: VisionConfiguration, file: String) throws {
        if vision.architecture != .clip {
            guard selectFeature == .patch else {
                throw CheckpointError.configuration(
                    field: "mm_vision_select_feature", expected: "patch, for a \(vision.modelType) tower has no class token",
                    found: selectFeature.rawValue, file: file)
            }
            guard tokenSelection == .none else {
                throw CheckpointError.configuration(
                    field: "token_selecting",
                    expected: "none, for a \(vision.modelType) tower has no \(vision.isTransformer ? "class token's " : "")attention to select by",
                    found: tokenSelection.rawValue, file: file)
            }
        }
        guard tiling == .none || tokenSelection == .none else {
            throw CheckpointError.configuration(
                field: "token_selecting", expected: "none, for tokens are not selected of pictures that are cut into tiles",
                found: tokenSelection.rawValue, file: file)
        }
        if case .anyRes(let resolutions) = tiling {
            let side = vision.imageSize
            guard selectFeature == .patch, resolutions.allSatisfy({ $0.width % side == 0 && $0.height % side == 0 }) else {
                throw CheckpointError.configuration(
                    field: "image_grid_pinpoints", expected: "multiples of the vision tower's \(side) pixels, and features without a class token",
                    found: resolutions.prefix(8).map { "\($0.height) x \($0.width)" }.joined(separator: ", ") + " with \(selectFeature.rawValue)", file: file)
            }
        }
        guard vision.isTransformer else { return }
        if case .pixelShuffle(let scale) = projector, vision.imageSize / vision.patchSize % scale != 0 {
            throw CheckpointError.configuration(
                field: "scale_factor", expected: "a divisor of the \(vision.imageSize / vision.patchSize) patches of a side", found: "\(scale)", file: file)
        }
        guard (0...vision.numHiddenLayers).contains(layersToRun(of: vision)) else {
            throw CheckpointError.configuration(
                field: "mm_vision_select_layer", expected: "from \(-vision.numHiddenLayers - 1) to \(vision.numHiddenLayers)",
                found: "\(selectLayer)", file: file)
        }
    }
}

extension LlavaConfiguration {
    private static let layers = -ConfigurationLimits.layers.upperBound...ConfigurationLimits.layers.upperBound

    /// Reads the image part of LLaVA's and AdaLLaVA's own `config.json`; `nil` if it names no vision tower.
    init?(llava fields: ConfigurationFields) throws {
        guard let tower = try fields.optionalString("mm_vision_tower") ?? fields.optionalString("vision_tower"), !tower.isEmpty else {
            return nil
        }
        let projector = try Self.projector(fields), feature = try Self.feature(fields)
        guard let selection = TokenSelection(rawValue: try fields.optionalString("token_selecting") ?? "none") else {
            throw fields.invalid("token_selecting", expected: "none, prumerge or prumerge+")
        }
        let aspect = try fields.optionalString("image_aspect_ratio") ?? ""
        self.init(
            projector: projector,
            selectLayer: try fields.integer("mm_vision_select_layer", in: Self.layers, missing: -2),
            selectFeature: feature, imageAspectRatio: aspect == "pad" ? .pad : .crop, tokenSelection: selection,
            visionTowerReference: tower, towerInside: try fields.bool("unfreeze_mm_vision_tower", missing: false),
            useImageStartEnd: try fields.bool("mm_use_im_start_end", missing: false),
            useImagePatchToken: try fields.bool("mm_use_im_patch_token", missing: false),
            patchMergeType: try fields.optionalString("mm_patch_merge_type") ?? "flat")
        guard aspect.hasPrefix("anyres") else { return }
        guard aspect == "anyres", patchMergeType == "spatial_unpad" else {
            throw CheckpointError.unsupported(
                what: "image_aspect_ratio \"\(aspect.prefix(40))\" with mm_patch_merge_type \"\(patchMergeType.prefix(40))\"", file: fields.file,
                hint: "supported: pad, square, and anyres with spatial_unpad (LLaVA-1.6)")
        }
        // LLaVA's own code keeps width before height.
        tiling = .anyRes(try Self.resolutions(fields).map { ImageProcessorConfiguration.Size(width: $0.first, height: $0.second) })
    }

    /// `image_grid_pinpoints`, which transformers gives by height and width, LLaVA's own code by width and height.
    private static func resolutions(_ fields: ConfigurationFields) throws -> [(first: Int, second: Int)] {
        guard fields.has("image_grid_pinpoints"), !fields.isNull("image_grid_pinpoints") else {
            return [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
        }
        let expected = "1 to 64 pairs of numbers from 1 to 8192"
        guard case .array(let pairs) = fields.raw("image_grid_pinpoints"), (1...64).contains(pairs.count) else {
            throw fields.invalid("image_grid_pinpoints", expected: expected)
        }
        return try pairs.map { pair in
            guard case .array(let sides) = pair, sides.count == 2, case .integer(let first) = sides[0], case .integer(let second) = sides[1],
                (1...8192).contains(first), (1...8192).contains(second)
            else { throw fields.invalid("image_grid_pinpoints", expected: expected) }
            return (first, second)
        }
    }

    private static func projector(_ fields: ConfigurationFields?) throws -> Projector {
        let name = try fields?.optionalString("mm_projector_type") ?? "linear"
        if let projector = Projector(llavaName: name) { return projector }
        throw CheckpointError.unsupported(
            what: "the projector \"\(name.prefix(60))\"", file: fields?.file ?? "", hint: "supported: linear, identity, mlpNx_gelu")
    }

    private static func feature(_ fields: ConfigurationFields) throws -> Feature {
        if let feature = Feature(rawValue: try fields.optionalString("mm_vision_select_feature") ?? "patch") { return feature }
        throw fields.invalid("mm_vision_select_feature", expected: "patch or cls_patch")
    }

    /// Reads the image part of Mipha's `config.json`.
    /// - Parameters:
    ///   - fields: the whole of it.
    ///   - tower, projector: their parts of `vision_config`.
    init(mipha fields: ConfigurationFields, tower: ConfigurationFields, projector: ConfigurationFields?) throws {
        self.init(
            projector: try Self.projector(projector),
            selectLayer: try tower.integer("mm_vision_select_layer", in: Self.layers, missing: -2), selectFeature: try Self.feature(tower),
            imageAspectRatio: try fields.optionalString("image_aspect_ratio") == "pad" ? .pad : .crop, towerInside: true)
    }

    /// Reads the image part of Idefics3's and SmolVLM's `config.json`.
    init(idefics3 fields: ConfigurationFields) throws {
        self.init(
            projector: .pixelShuffle(scale: try fields.integer("scale_factor", in: 1...64, missing: 2)), projectorBias: false, selectLayer: -1,
            towerInside: true, imageTokenID: try fields.tokenID("image_token_id") ?? 128257)
        (appliesFinalNorm, tiling) = (true, .idefics3)
    }

    /// Reads the image part of llava-hf's `config.json`, LLaVA-1.5's or LLaVA-1.6's.
    init(llavaHF fields: ConfigurationFields) throws {
        guard try fields.activation("projector_hidden_act", missing: .gelu) == .gelu else {
            throw fields.invalid("projector_hidden_act", expected: "gelu")
        }
        let strategy = try fields.optionalString("vision_feature_select_strategy") ?? "default"
        guard ["default", "full"].contains(strategy) else {
            throw fields.invalid("vision_feature_select_strategy", expected: "default or full")
        }
        if case .array(let layers) = fields.raw("vision_feature_layer"), layers.count != 1 {
            throw CheckpointError.unsupported(what: "features of several tower layers at once", file: fields.file, hint: "")
        }
        let layer: Int
        if case .array(let layers) = fields.raw("vision_feature_layer"), case .integer(let value) = layers[0], Self.layers.contains(value) {
            layer = value
        } else {
            layer = try fields.integer("vision_feature_layer", in: Self.layers, missing: -2)
        }
        self.init(
            projector: .mlp(layers: 2),
            projectorBias: try fields.bool("multimodal_projector_bias", missing: true),
            selectLayer: layer, selectFeature: strategy == "full" ? .classAndPatches : .patch, towerInside: true,
            imageTokenID: try fields.tokenID("image_token_index") ?? fields.tokenID("image_token_id") ?? 32000)
        guard try fields.optionalString("model_type") == "llava_next" else { return }
        tiling = .anyRes(try Self.resolutions(fields).map { ImageProcessorConfiguration.Size(width: $0.second, height: $0.first) })
    }
}
