extension ModelReport {
    /// The output of `inspect --json`.
    package struct JSON: Codable, Sendable {
        package var format: String
        package var parameters: Parameters
        package var decoder: DecoderShape
        /// `null` for text models.
        @Nullable package var vision: Vision?
        /// `null` for models without a scheduler.
        @Nullable package var adaptive: Adaptive?
        package var tensors: [TensorType]
        package var memory: Memory
        @Nullable package var tokenizer: String?
        @Nullable package var template: String?
        /// The first problem found.
        @Nullable package var problem: String?
        package var ignored: [String]
        package var notes: [String]

        /// Values of each part.
        package struct Parameters: Codable, Sendable {
            package var language: Int
            package var vision: Int
            package var projector: Int
            package var scheduler: Int
        }

        package struct DecoderShape: Codable, Sendable {
            package var architecture: String
            package var layers: Int
            package var hiddenSize: Int
            package var intermediateSize: Int
            package var heads: Int
            package var keyValueHeads: Int
            package var headDim: Int
            package var vocabularySize: Int
            package var contextLength: Int
            @Nullable package var slidingWindow: Int?
            package var rotaryDim: Int

            enum CodingKeys: String, CodingKey {
                case architecture, layers, heads
                case hiddenSize = "hidden_size"
                case intermediateSize = "intermediate_size"
                case keyValueHeads = "key_value_heads"
                case headDim = "head_dim"
                case vocabularySize = "vocabulary_size"
                case contextLength = "context_length"
                case slidingWindow = "sliding_window"
                case rotaryDim = "rotary_dim"
            }
        }

        package struct Vision: Codable, Sendable {
            package var modelType: String
            package var layers: Int
            package var hiddenSize: Int
            package var imageSize: Int
            package var patchSize: Int
            /// Tokens of an image or tile before token selection.
            package var tokens: Int
            package var tokenSelecting: String

            enum CodingKeys: String, CodingKey {
                case layers, tokens
                case modelType = "model_type"
                case hiddenSize = "hidden_size"
                case imageSize = "image_size"
                case patchSize = "patch_size"
                case tokenSelecting = "token_selecting"
            }
        }

        package struct Adaptive: Codable, Sendable {
            /// `L` or `H`.
            package var schedulerType: String
            package var schedulerRank: Int
            package var numPrefixLayers: Int
            package var totalUnits: Int
            package var prefixUnits: Int
            package var floor: Double

            enum CodingKeys: String, CodingKey {
                case floor
                case schedulerType = "scheduler_type"
                case schedulerRank = "scheduler_rank"
                case numPrefixLayers = "num_prefix_layers"
                case totalUnits = "total_units"
                case prefixUnits = "prefix_units"
            }
        }

        /// All tensors of one element type.
        package struct TensorType: Codable, Sendable {
            package var type: String
            package var tensors: Int
            package var values: Int
            package var bytes: Int
        }

        package struct Memory: Codable, Sendable {
            package var weightBytes: Int
            package var kvBytesPerToken: Int

            enum CodingKeys: String, CodingKey {
                case weightBytes = "weight_bytes"
                case kvBytesPerToken = "kv_bytes_per_token"
            }
        }
    }

    package var json: JSON {
        let language = configuration.language
        let vision = configuration.vision.flatMap { vision in
            imageTokens.map { tokens in
                JSON.Vision(
                    modelType: vision.modelType, layers: vision.numHiddenLayers, hiddenSize: vision.hiddenSize, imageSize: vision.imageSize,
                    patchSize: vision.patchSize, tokens: tokens, tokenSelecting: configuration.llava?.tokenSelection.rawValue ?? "none")
            }
        }
        let adaptive = configuration.adaptive.flatMap { adaptive in
            units.map { units in
                JSON.Adaptive(
                    schedulerType: adaptive.schedulerType.rawValue, schedulerRank: adaptive.schedulerRank, numPrefixLayers: adaptive.numPrefixLayers,
                    totalUnits: units.total, prefixUnits: units.prefix, floor: units.floor)
            }
        }
        return JSON(
            format: format,
            parameters: JSON.Parameters(
                language: parameters.language, vision: parameters.vision, projector: parameters.projector, scheduler: parameters.scheduler),
            decoder: JSON.DecoderShape(
                architecture: language.architecture.rawValue, layers: language.numHiddenLayers, hiddenSize: language.hiddenSize,
                intermediateSize: language.intermediateSize, heads: language.numAttentionHeads, keyValueHeads: language.numKeyValueHeads,
                headDim: language.headDim, vocabularySize: language.vocabularySize, contextLength: language.contextLength,
                slidingWindow: language.slidingWindow, rotaryDim: language.rotaryDim),
            vision: vision, adaptive: adaptive,
            tensors: types.map { JSON.TensorType(type: $0.name, tensors: $0.tensors, values: $0.values, bytes: $0.bytes) },
            memory: JSON.Memory(weightBytes: weightBytes, kvBytesPerToken: keyValueBytesPerToken), tokenizer: tokenizer, template: template,
            problem: problem, ignored: ignored, notes: notes)
    }
}
