/// How LFM2-VL's image processor (`Lfm2VlImageProcessor`) brings a picture to the tower: whole in its own proportions, or cut into square tiles where it is
/// large.
package struct LFM2VLTiles: Sendable, Equatable {
    /// Tokens of a picture that is not cut, and of the whole beside its tiles (`min_image_tokens`, `max_image_tokens`).
    package var tokens: ClosedRange<Int>
    /// Whether large pictures are cut (`do_image_splitting`).
    package var splits: Bool
    /// Tiles of a picture that is cut (`min_tiles`, `max_tiles`).
    package var count: ClosedRange<Int>
    /// Pixels of a tile's side (`tile_size`).
    package var side: Int
    /// A picture is cut if it has this many times the pixels of the most tokens (`max_pixels_tolerance`).
    package var tolerance: Double
    /// Whether the whole follows its tiles (`use_thumbnail`).
    package var hasThumbnail: Bool
    /// Pixels of a patch's side (`encoder_patch_size`), and patches of a side that become one token (`downsample_factor`).
    package var patch: Int, factor: Int

    /// Pixels of a side that one token covers.
    var unit: Int { patch * factor }

    /// Reads them from the processor's fields.
    init(_ fields: ConfigurationFields) throws {
        func range(_ least: String, _ most: String, missing: ClosedRange<Int>, limit: Int) throws -> ClosedRange<Int> {
            let first = try fields.integer(least, in: 1...limit, missing: missing.lowerBound), last = try fields.integer(most, in: 1...limit, missing: missing.upperBound)
            guard first <= last else { throw fields.invalid(most, expected: "at least \(least), \(first)") }
            return first...last
        }
        tokens = try range("min_image_tokens", "max_image_tokens", missing: 64...256, limit: 1 << 14)
        splits = try fields.bool("do_image_splitting", missing: true)
        count = try range("min_tiles", "max_tiles", missing: 2...10, limit: 256)
        side = try fields.integer("tile_size", in: 1...8192, missing: 512)
        tolerance = try fields.number("max_pixels_tolerance", in: 1e-3...1e6, missing: 2)
        hasThumbnail = try fields.bool("use_thumbnail", missing: true)
        patch = try fields.integer("encoder_patch_size", in: 1...256, missing: 16)
        factor = try fields.integer("downsample_factor", in: 1...16, missing: 2)
        guard !splits || side % unit == 0 else {
            throw fields.invalid("tile_size", expected: "a multiple of the \(unit) pixels that a token covers")
        }
    }

    /// Settings given by value.
    init(
        tokens: ClosedRange<Int>, splits: Bool = true, count: ClosedRange<Int>, side: Int, tolerance: Double, hasThumbnail: Bool = true, patch: Int, factor: Int
    ) {
        (self.tokens, self.splits, self.count, self.side, self.tolerance) = (tokens, splits, count, side, tolerance)
        (self.hasThumbnail, self.patch, self.factor) = (hasThumbnail, patch, factor)
    }
}

extension VisionConfiguration {
    static let siglip2Type = "siglip2_vision_model"

    /// Reads `vision_config` of a SigLIP2 tower with variable resolution (NaFlex).
    init(siglip2 fields: ConfigurationFields) throws {
        typealias Limits = ConfigurationLimits
        let patch = try fields.integer("patch_size", in: 1...256, missing: 16), places = try fields.integer("num_patches", in: 1...1 << 20, missing: 256)
        let side = Int(Double(places).squareRoot().rounded())
        guard side * side == places else { throw fields.invalid("num_patches", expected: "a square number of position embeddings") }
        self.init(
            hiddenSize: try fields.integer("hidden_size", in: Limits.hidden, missing: 768),
            intermediateSize: try fields.integer("intermediate_size", in: Limits.intermediate, missing: 3072),
            numHiddenLayers: try fields.integer("num_hidden_layers", in: Limits.layers, missing: 12),
            numAttentionHeads: try fields.integer("num_attention_heads", in: Limits.heads, missing: 12), imageSize: side * patch, patchSize: patch,
            numChannels: try fields.integer("num_channels", in: 1...64, missing: 3),
            layerNormEpsilon: Float(try fields.number("layer_norm_eps", in: Limits.epsilon, missing: 1e-6)),
            activation: try fields.activation("hidden_act", missing: .geluTanh), projectionDim: 0)
        architecture = .siglip2
        try validate(file: fields.file)
    }
}

extension ModelConfiguration {
    /// The second is what the first published checkpoints say.
    static let lfm2VLTypes = ["lfm2_vl", "lfm2-vl"]

    /// LFM2-VL's layout: LFM2 in `text_config`, SigLIP2 in `vision_config`, the projector's fields beside them. A scheduler's fields make it adaptive.
    static func readLFM2VL(_ fields: ConfigurationFields) throws -> ModelConfiguration {
        typealias Limits = ConfigurationLimits
        guard let text = try fields.optionalObject("text_config"), let tower = try fields.optionalObject("vision_config") else {
            throw fields.invalid(fields.has("text_config") ? "vision_config" : "text_config", expected: "text_config (lfm2) and vision_config (siglip2_vision_model)")
        }
        for (part, type) in [(text, LFM2Description.modelType), (tower, VisionConfiguration.siglip2Type)] {
            let found = try part.optionalString("model_type") ?? type
            guard found == type else {
                throw CheckpointError.unsupported(what: "\"\(found.prefix(60))\" inside LFM2-VL", file: fields.file, hint: "expected \(type)")
            }
        }
        guard try fields.integer("vision_feature_layer", in: -Limits.layers.upperBound...Limits.layers.upperBound, missing: -1) == -1 else {
            throw fields.invalid("vision_feature_layer", expected: "-1, the last layer of the \(VisionConfiguration.siglip2Type)")
        }
        guard try fields.activation("projector_hidden_act", missing: .gelu) == .gelu else { throw fields.invalid("projector_hidden_act", expected: "gelu") }
        var language = try DecoderConfiguration(huggingFace: text, architecture: .lfm2, requiresSizes: false)
        if let tied = ["tie_embedding", "tie_word_embeddings"].first(where: fields.has) { language.tieWordEmbeddings = try fields.bool(tied, missing: true) }
        let vision = try VisionConfiguration(siglip2: tower)
        var llava = LlavaConfiguration(
            projector: .pixelUnshuffle(
                scale: try fields.integer("downsample_factor", in: 1...16, missing: 2),
                hidden: try fields.integer("projector_hidden_size", in: Limits.intermediate, missing: 2560),
                hasNorm: try fields.bool("projector_use_layernorm", missing: true)),
            projectorBias: try fields.bool("projector_bias", missing: true), selectLayer: -1, towerInside: true,
            imageTokenID: try fields.tokenID("image_token_id") ?? 396)
        (llava.appliesFinalNorm, llava.tiling) = (true, .lfm2VL)
        try llava.validate(for: vision, file: fields.file)
        return try ModelConfiguration(language: language, vision: vision, llava: llava).adaptive(fields)
    }

    /// Checks that the image processor of a checkpoint cuts pictures into what its tower and projector take.
    static func checkLFM2VL(_ processor: ImageProcessorConfiguration, _ tower: VisionConfiguration, _ llava: LlavaConfiguration, folder: String) throws {
        guard let tiles = processor.lfm2VL else {
            throw CheckpointError.configuration(
                field: "image_processor_type", expected: "Lfm2VlImageProcessor, which keeps a picture's proportions",
                found: "another in preprocessor_config.json and processor_config.json, or neither file", file: folder)
        }
        guard tiles.patch == tower.patchSize else {
            throw CheckpointError.configuration(
                field: "encoder_patch_size", expected: "\(tower.patchSize), as the vision tower has", found: "\(tiles.patch)", file: folder)
        }
        guard case .pixelUnshuffle(let scale, _, _) = llava.projector, scale == tiles.factor else {
            throw CheckpointError.configuration(
                field: "downsample_factor", expected: "the same in the image processor and in config.json", found: "\(tiles.factor) in the processor", file: folder)
        }
    }
}
