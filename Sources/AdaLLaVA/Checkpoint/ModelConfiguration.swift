/// Everything the engine needs to know of a model besides its weights.
public struct ModelConfiguration: Sendable, Equatable {
    /// The decoder.
    public var language: LlamaConfiguration
    /// The vision tower; `nil` for text models, and until the tower that a checkpoint only names has been found.
    public var vision: VisionConfiguration?
    /// How images reach the language model; `nil` for text models.
    public var llava: LlavaConfiguration?
    /// `nil` for models that always run in full.
    public var adaptive: AdaptiveConfiguration?

    /// A configuration given by its parts.
    public init(
        language: LlamaConfiguration, vision: VisionConfiguration? = nil, llava: LlavaConfiguration? = nil,
        adaptive: AdaptiveConfiguration? = nil
    ) {
        (self.language, self.vision, self.llava, self.adaptive) = (language, vision, llava, adaptive)
    }

    /// Values that a `model_type` may have, for messages.
    static let supportedTypes = "ada_llava_llama, llava_llama, llava (LLaVA-1.5), llama, mistral"

    /// Reads a `config.json`: AdaLLaVA's and LLaVA's own, llava-hf's, or a plain LLaMA's.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for other architectures,
    ///   ``CheckpointError/configuration(field:expected:found:file:)`` for fields that are missing or out of range.
    public static func read(_ json: JSONValue, file: String) throws -> ModelConfiguration {
        let fields = try ConfigurationFields(json, file: file)
        let type = try modelType(fields)
        var configuration: ModelConfiguration
        switch type {
        case "llama", "mistral":
            configuration = ModelConfiguration(
                language: try LlamaConfiguration(huggingFace: fields, modelType: type, requiresSizes: true))
        case "llava" where fields.has("text_config") || fields.has("vision_config"):
            configuration = try readLlavaHF(fields)
        case "llava", "llava_llama", "ada_llava_llama":
            configuration = ModelConfiguration(
                language: try LlamaConfiguration(huggingFace: fields, modelType: "llama", requiresSizes: true),
                llava: try LlavaConfiguration(llava: fields))
            if type == "ada_llava_llama" { configuration.adaptive = try AdaptiveConfiguration(fields) }
        default:
            throw CheckpointError.unsupported(
                what: "the model type \"\(type.prefix(60))\"", file: file, hint: "supported: \(supportedTypes)")
        }
        try configuration.adaptive?.validate(for: configuration.language, file: file)
        return configuration
    }

    /// `model_type`, or what `architectures` says where it is absent.
    private static func modelType(_ fields: ConfigurationFields) throws -> String {
        if let type = try fields.optionalString("model_type") { return type }
        guard case .array(let architectures) = fields.raw("architectures"), case .string(let architecture) = architectures.first else {
            throw fields.invalid("model_type", expected: "one of \(supportedTypes)")
        }
        switch architecture {
        case "LlamaForCausalLM": return "llama"
        case "MistralForCausalLM": return "mistral"
        case "LlavaLlamaForCausalLM": return "llava_llama"
        case "LlavaForConditionalGeneration": return "llava"
        case "AdaLlavaLlamaForCausalLM": return "ada_llava_llama"
        default: return architecture
        }
    }

    private static func readLlavaHF(_ fields: ConfigurationFields) throws -> ModelConfiguration {
        let empty = try ConfigurationFields(.object([:]), file: fields.file)
        let text = try fields.optionalObject("text_config")
        let textType = try text?.optionalString("model_type") ?? "llama"
        guard LlamaConfiguration.huggingFaceModelTypes.contains(textType) else {
            throw CheckpointError.unsupported(
                what: "the language model \"\(textType.prefix(60))\"", file: fields.file,
                hint: "supported: \(LlamaConfiguration.huggingFaceModelTypes.joined(separator: ", "))")
        }
        var language = try LlamaConfiguration(huggingFace: text ?? empty, modelType: textType, requiresSizes: false)
        if text?.has("tie_word_embeddings") != true {
            language.tieWordEmbeddings = try fields.bool("tie_word_embeddings", missing: false)
        }
        if language.padTokenID == nil { language.padTokenID = try fields.tokenID("pad_token_id") }

        let vision: VisionConfiguration
        if let tower = try fields.optionalObject("vision_config") {
            let type = try tower.optionalString("model_type") ?? "clip_vision_model"
            guard type == "clip_vision_model" else { throw VisionConfiguration.unsupportedTower(type, file: fields.file) }
            vision = try VisionConfiguration(huggingFace: tower)
        } else {
            vision = .largePatch14(imageSize: 336)
        }
        let llava = try LlavaConfiguration(llavaHF: fields)
        try llava.validate(for: vision, file: fields.file)
        return ModelConfiguration(language: language, vision: vision, llava: llava)
    }
}
