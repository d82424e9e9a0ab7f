/// The vision transformer of Qwen2-VL (Wang et al., 2024) and Qwen2.5-VL (Bai et al., 2025), in addition to ``VisionConfiguration``: it takes a picture
/// in its own proportions, and merges `mergeSize` x `mergeSize` patches into one row of features.
package struct Qwen2VLTowerShape: Sendable, Equatable {
    /// Qwen2.5-VL's: RMS norms, gated MLPs and windows, where Qwen2-VL has layer norms and plain ones.
    package var isSecond: Bool
    /// Patches of a side that become one row.
    package var mergeSize: Int
    /// Frames of a patch; a picture is all of them.
    package var temporalPatchSize: Int
    /// Pixels of a window's side, and the layers that attend to the whole picture; 0: all do.
    package var windowSize: Int
    package var fullAttentionLayers: [Int]
    /// Values of a row of features: the language model's.
    package var outputSize: Int
}

/// A picture's patches from top to bottom and from left to right.
struct PatchGrid: Sendable, Equatable {
    let rows: Int, columns: Int
}

extension VisionConfiguration {
    /// Values of the tower's input: of the smallest one of Qwen2-VL's, of a square one of SigLIP2's.
    var inputValues: Int {
        guard case .qwen2VL(let shape) = architecture else { return 3 * imageSize * imageSize }
        return 3 * shape.temporalPatchSize * imageSize * imageSize
    }

    /// Reads `vision_config`.
    init(qwen2VL fields: ConfigurationFields, isSecond: Bool) throws {
        typealias Limits = ConfigurationLimits
        let width = try isSecond
            ? fields.integer("hidden_size", in: Limits.hidden, missing: 3584) : fields.integer("embed_dim", in: Limits.hidden, missing: 1280)
        let patch = try fields.integer("patch_size", in: 1...256, missing: 14), merge = try fields.integer("spatial_merge_size", in: 1...16, missing: 2)
        let neurons = try isSecond
            ? fields.integer("intermediate_size", in: Limits.intermediate, missing: 3420)
            : Int(Double(width) * fields.number("mlp_ratio", in: 0.01...64, missing: 4))
        self.init(
            hiddenSize: width, intermediateSize: max(neurons, 1), numHiddenLayers: try fields.integer("depth", in: Limits.layers, missing: 32),
            numAttentionHeads: try fields.integer("num_heads", in: Limits.heads, missing: 16), imageSize: patch * merge, patchSize: patch,
            numChannels: try fields.optionalInteger("in_channels", in: 1...64) ?? fields.integer("in_chans", in: 1...64, missing: 3), layerNormEpsilon: 1e-6,
            activation: try fields.activation("hidden_act", missing: isSecond ? .silu : .quickGELU), projectionDim: 0)
        let layers = try fields.optionalNumbers("fullatt_block_indexes", counts: 0...Limits.layers.upperBound, in: 0...Double(Limits.layers.upperBound))
        let window = isSecond ? try fields.integer("window_size", in: 1...65536, missing: 112) : 0
        guard !isSecond || window >= patch * merge else {
            throw fields.invalid("window_size", expected: "at least the \(patch * merge) pixels that a row of features covers")
        }
        guard !isSecond || activation == .silu else { throw fields.invalid("hidden_act", expected: "silu") }
        architecture = .qwen2VL(
            Qwen2VLTowerShape(
                isSecond: isSecond, mergeSize: merge, temporalPatchSize: try fields.integer("temporal_patch_size", in: 1...16, missing: 2),
                windowSize: window, fullAttentionLayers: isSecond ? layers?.map { Int($0) } ?? [7, 15, 23, 31] : [],
                outputSize: try fields.integer(isSecond ? "out_hidden_size" : "hidden_size", in: Limits.hidden, missing: 3584)))
        try validate(file: fields.file)
        guard hiddenSize / numAttentionHeads % 4 == 0 else {
            throw fields.invalid("num_heads", expected: "heads of a multiple of 4 values, for a row and a column turn half of each")
        }
    }
}

extension ModelConfiguration {
    static let qwen2VLTypes = ["qwen2_vl", "qwen2_5_vl"]

    /// Qwen2-VL's layout: the text model's fields beside `vision_config`, or, as transformers 5 writes them, in `text_config`.
    static func readQwen2VL(_ fields: ConfigurationFields, type: String) throws -> ModelConfiguration {
        guard let tower = try fields.optionalObject("vision_config") else { throw fields.invalid("vision_config", expected: "the vision tower's configuration") }
        let text = try fields.optionalObject("text_config") ?? fields
        var language = try DecoderConfiguration(huggingFace: text, architecture: .qwen2, requiresSizes: false)
        guard language.ropeSections.reduce(0, +) == language.rotaryDim / 2 else {
            throw fields.invalid("mrope_section", expected: "numbers of pairs that add up to \(language.rotaryDim / 2), half of a head")
        }
        if !text.has("tie_word_embeddings") { language.tieWordEmbeddings = try fields.bool("tie_word_embeddings", missing: false) }
        let vision = try VisionConfiguration(qwen2VL: tower, isSecond: type == qwen2VLTypes[1])
        guard case .qwen2VL(let shape) = vision.architecture, shape.outputSize == language.hiddenSize else {
            throw fields.invalid(
                "vision_config", expected: "features of \(language.hiddenSize) values, as the language model's hidden states have (hidden_size, out_hidden_size)")
        }
        var llava = LlavaConfiguration(
            projector: .identity, selectLayer: -1, towerInside: true, imageTokenID: try fields.tokenID("image_token_id") ?? 151655)
        llava.tiling = .dynamic
        return try ModelConfiguration(language: language, vision: vision, llava: llava).adaptive(fields)
    }
}
