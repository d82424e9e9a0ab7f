/// Qwen2's `Qwen2Config`, and GGUF's `qwen2`.
enum Qwen2Description: DecoderDescription {
    static let modelType = "qwen2"
    static let llavaName = "qwen"
    static let ggufArchitecture = "qwen2"
    static let defaults = DecoderDefaults(
        vocabularySize: 151936, intermediateSize: 22016, numKeyValueHeads: 32, maxPositionEmbeddings: 32768, bosTokenID: nil, eosTokenIDs: [])

    static func read(_ fields: ConfigurationFields, _ rope: RopeParameters, into c: inout DecoderConfiguration) throws {
        try requireWholeHeadsAndSiLU(fields, rope, c)
        c.slidingWindow = try window(fields, c)
    }

    /// The window, which published files name and mostly turn off. It holds in the layers from `max_window_layers` on, or in those that `layer_types`
    /// lists as sliding: all or none here.
    private static func window(_ fields: ConfigurationFields, _ c: DecoderConfiguration) throws -> Int? {
        guard try fields.bool("use_sliding_window", missing: false), !fields.isNull("sliding_window") else { return nil }
        let window = try fields.integer("sliding_window", in: ConfigurationLimits.positions, missing: 4096)
        if window >= c.contextLength { return nil }
        let layers = c.numHiddenLayers
        var sliding = max(layers - (try fields.integer("max_window_layers", in: 0...ConfigurationLimits.layers.upperBound, missing: 28)), 0)
        if fields.has("layer_types") {
            sliding = try fields.layerKinds([.slidingAttention, .attention], layers: layers).count { $0 == .slidingAttention }
        }
        guard sliding == 0 || sliding == layers else {
            throw CheckpointError.unsupported(
                what: "a window of \(window) positions in \(sliding) of \(layers) layers (use_sliding_window)", file: fields.file,
                hint: "a window must hold in all layers or in none")
        }
        return sliding == 0 ? nil : window
    }

    static let className = "Qwen2"

    static func huggingFaceFields(_ c: DecoderConfiguration) -> [String: JSONValue] {
        guard let window = c.slidingWindow else { return ["use_sliding_window": false] }
        return ["use_sliding_window": true, "sliding_window": .integer(window), "max_window_layers": 0]
    }

    static func read(_ fields: GGUFFields, into c: inout DecoderConfiguration) throws { try requireWholeHeads(fields, c) }
}
