/// Everything the engine needs to know of a model besides its weights.
package struct ModelConfiguration: Sendable, Equatable {
    /// The decoder.
    package var language: DecoderConfiguration
    /// The vision tower; `nil` for text models, and until the tower that a checkpoint only names has been found.
    package var vision: VisionConfiguration?
    /// How images reach the language model; `nil` for text models.
    package var llava: LlavaConfiguration?
    /// `nil` for models that always run in full.
    package var adaptive: AdaptiveConfiguration?

    /// A configuration given by its parts.
    package init(
        language: DecoderConfiguration, vision: VisionConfiguration? = nil, llava: LlavaConfiguration? = nil,
        adaptive: AdaptiveConfiguration? = nil
    ) {
        (self.language, self.vision, self.llava, self.adaptive) = (language, vision, llava, adaptive)
    }

    /// Values that a `model_type` may have, for messages.
    static var supportedTypes: String {
        let text = DecoderArchitecture.modelTypes, llava = DecoderArchitecture.llavaNames
        return (text + ["llava (LLaVA-1.5)"] + nestedTypes.dropFirst() + [miphaType] + qwen2VLTypes + lfm2VLTypes.prefix(1) + llava.map { "llava_\($0)" } + llava.map { "ada_llava_\($0)" }).joined(separator: ", ")
    }

    /// Types with a `text_config` and a `vision_config`, as transformers writes models of images.
    private static let nestedTypes = ["llava", "llava_next", "idefics3", "smolvlm"]

    private static let miphaType = "mipha_phi"

    /// The layout that a `model_type` implies.
    private enum Layout {
        case text(DecoderArchitecture)
        /// LLaVA's own: the fields of decoder and image part side by side.
        case llava(DecoderArchitecture, isAdaptive: Bool)

        init?(_ type: String) {
            if let text = DecoderArchitecture(modelType: type) {
                self = .text(text)
                return
            }
            let name = type == "llava" ? "llava_llama" : type
            for architecture in DecoderArchitecture.allCases {
                let plain = "llava_\(architecture.fileDescription.llavaName)"
                guard name == plain || name == "ada_\(plain)" else { continue }
                self = .llava(architecture, isAdaptive: name != plain)
                return
            }
            return nil
        }
    }

    /// Reads a `config.json`: AdaLLaVA's and LLaVA's own, llava-hf's, or a text model's.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for other architectures,
    ///   ``CheckpointError/configuration(field:expected:found:file:)`` for fields that are missing or out of range.
    package static func read(_ json: JSONValue, file: String) throws -> ModelConfiguration {
        let fields = try ConfigurationFields(json, file: file)
        let type = try modelType(fields)
        if nestedTypes.contains(type), type != "llava" || fields.has("text_config") || fields.has("vision_config") {
            return try readNested(fields, type: type)
        }
        if qwen2VLTypes.contains(type) { return try readQwen2VL(fields, type: type) }
        if lfm2VLTypes.contains(type) { return try readLFM2VL(fields) }
        if type == miphaType { return try readMipha(fields) }
        // Gemma 3's own layout: the text model's part, alone.
        if type == Gemma3Description.ggufArchitecture, let text = try fields.optionalObject("text_config") {
            return ModelConfiguration(language: try DecoderConfiguration(huggingFace: text, architecture: .gemma3, requiresSizes: false))
        }
        guard let layout = Layout(type) else {
            throw CheckpointError.unsupported(
                what: "the model type \"\(type.prefix(60))\"", file: file, hint: "supported: \(supportedTypes)")
        }
        func language(_ architecture: DecoderArchitecture) throws -> DecoderConfiguration {
            try DecoderConfiguration(huggingFace: fields, architecture: architecture, requiresSizes: true)
        }
        switch layout {
        case .text(let architecture): return ModelConfiguration(language: try language(architecture))
        case .llava(let architecture, let isAdaptive):
            var configuration = ModelConfiguration(language: try language(architecture), llava: try LlavaConfiguration(llava: fields))
            if isAdaptive { configuration.adaptive = try AdaptiveConfiguration(fields) }
            try configuration.adaptive?.validate(for: configuration.language, file: file)
            return configuration
        }
    }

    /// `model_type`, or the value of `architectures` if it is absent.
    private static func modelType(_ fields: ConfigurationFields) throws -> String {
        if let type = try fields.optionalString("model_type") { return type }
        guard case .array(let architectures) = fields.raw("architectures"), case .string(let name) = architectures.first else {
            throw fields.invalid("model_type", expected: "one of \(supportedTypes)")
        }
        // `AdaLlavaQwenForCausalLM` → `ada_llava_qwen`
        let words = name.replacing("ForCausalLM", with: "").replacing("ForConditionalGeneration", with: "").reduce(into: "") { words, letter in
            words += letter.isUppercase && !words.isEmpty ? "_\(letter.lowercased())" : letter.lowercased()
        }
        return Layout(words) == nil ? name : words
    }

    /// The layout of transformers' models of images. A scheduler's fields beside them make it adaptive.
    private static func readNested(_ fields: ConfigurationFields, type: String) throws -> ModelConfiguration {
        let empty = try ConfigurationFields(.object([:]), file: fields.file)
        let text = try fields.optionalObject("text_config")
        let textType = try text?.optionalString("model_type") ?? "llama"
        guard let architecture = DecoderArchitecture(modelType: textType) else {
            throw CheckpointError.unsupported(
                what: "the language model \"\(textType.prefix(60))\"", file: fields.file,
                hint: "supported: \(DecoderArchitecture.modelTypes.joined(separator: ", "))")
        }
        var language = try DecoderConfiguration(huggingFace: text ?? empty, architecture: architecture, requiresSizes: false)
        if text?.has("tie_word_embeddings") != true {
            language.tieWordEmbeddings = try fields.bool("tie_word_embeddings", missing: language.tieWordEmbeddings)
        }
        if language.padTokenID == nil { language.padTokenID = try fields.tokenID("pad_token_id") }

        let isLlava = type.hasPrefix("llava")
        let vision: VisionConfiguration
        if let tower = try fields.optionalObject("vision_config") {
            vision = try VisionConfiguration(nested: tower, missingType: isLlava ? "clip_vision_model" : "\(type)_vision")
        } else {
            vision = isLlava ? .largePatch14(imageSize: 336) : try VisionConfiguration(nested: empty, missingType: "\(type)_vision")
        }
        var llava = isLlava ? try LlavaConfiguration(llavaHF: fields) : try LlavaConfiguration(idefics3: fields)
        if isLlava, vision.architecture == .siglip {
            guard llava.selectFeature == .classAndPatches else {
                throw fields.invalid("vision_feature_select_strategy", expected: "full, for a \(vision.modelType) tower has no class token to leave out")
            }
            llava.selectFeature = .patch
        }
        try llava.validate(for: vision, file: fields.file)
        return try ModelConfiguration(language: language, vision: vision, llava: llava).adaptive(fields)
    }

    /// Mipha's layout: Phi-2's fields, and tower and projector inside `vision_config`. A scheduler's fields beside them make it adaptive.
    private static func readMipha(_ fields: ConfigurationFields) throws -> ModelConfiguration {
        guard let parts = try fields.optionalObject("vision_config"), let tower = try parts.optionalObject("vision_tower") else {
            throw fields.invalid("vision_config", expected: "vision_tower and mm_projector")
        }
        let name = try tower.optionalString("vision_model_name_or_path") ?? ""
        let vision = try VisionConfiguration(nested: tower, knownType: name.contains("siglip") ? VisionConfiguration.siglipType : "clip_vision_model")
        let llava = try LlavaConfiguration(mipha: fields, tower: tower, projector: parts.optionalObject("mm_projector"))
        try llava.validate(for: vision, file: fields.file)
        let language = try DecoderConfiguration(huggingFace: fields, architecture: .phi2, requiresSizes: true)
        return try ModelConfiguration(language: language, vision: vision, llava: llava).adaptive(fields)
    }

    /// The same with the scheduler that the fields describe, if they do.
    func adaptive(_ fields: ConfigurationFields) throws -> ModelConfiguration {
        guard fields.has("scheduler_type") else { return self }
        var configuration = self
        configuration.adaptive = try AdaptiveConfiguration(fields)
        try configuration.adaptive?.validate(for: language, file: fields.file)
        return configuration
    }
}
