/// Configurations as GGUF metadata: the other direction of `ModelConfiguration.read(_: GGUFFile)`.
extension DecoderConfiguration {
    /// The keys of a language model, architecture included; the vocabulary (`tokenizer.ggml.tokens` and the like) is not among them.
    /// Queries and keys must be written in the order that the architecture has in GGUF, and ``rotaryFrequencyFactors()`` as `rope_freqs.weight`.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for a rope scaling or an activation that GGUF has no keys for.
    package func ggufMetadata() throws -> [(key: String, value: GGUFValue)] {
        func number(_ value: Int) -> GGUFValue { .uint32(UInt32(clamping: value)) }
        let description = architecture.fileDescription
        guard hiddenActivation == description.defaults.activation else {
            throw CheckpointError.unsupported(
                what: "the activation \(hiddenActivation.rawValue) of a \(architecture.name) decoder in a GGUF file", file: "the model",
                hint: "write safetensors")
        }
        func key(_ name: String) -> String { "\(description.ggufArchitecture).\(name)" }
        var pairs: [(key: String, value: GGUFValue)] = [
            ("general.architecture", .string(description.ggufArchitecture)),
            (key("vocab_size"), number(vocabularySize)),
            (key("context_length"), number(maxPositionEmbeddings)),
            (key("embedding_length"), number(hiddenSize)),
            (key("block_count"), number(numHiddenLayers)),
            (key("feed_forward_length"), number(intermediateSize)),
            (key("attention.head_count"), number(numAttentionHeads)),
            (key("attention.head_count_kv"), number(numKeyValueHeads)),
            (key("attention.key_length"), number(headDim)),
            (key("attention.value_length"), number(headDim)),
            (key(description.epsilonField.gguf), .float32(normEpsilon)),
            (key("rope.dimension_count"), number(rotaryDim)),
            (key("rope.freq_base"), .float32(Float(ropeTheta))),
        ]
        if let slidingWindow { pairs.append((key("attention.sliding_window"), number(slidingWindow))) }
        switch ropeScaling {
        case nil, .llama3: break
        case .linear(let factor):
            pairs.append((key("rope.scaling.type"), .string("linear")))
            pairs.append((key("rope.scaling.factor"), .float32(Float(factor))))
        case .yarn(let yarn):
            pairs.append((key("rope.scaling.type"), .string("yarn")))
            pairs.append((key("rope.scaling.factor"), .float32(Float(yarn.factor))))
            pairs.append((key("rope.scaling.original_context_length"), number(yarn.originalMaxPositionEmbeddings)))
            pairs.append((key("rope.scaling.yarn_beta_fast"), .float32(Float(yarn.betaFast))))
            pairs.append((key("rope.scaling.yarn_beta_slow"), .float32(Float(yarn.betaSlow))))
            let attention = yarn.attentionFactor / RopeScaling.YaRN.magnitude(yarn.factor)
            pairs.append((key("rope.scaling.yarn_attn_factor"), .float32(Float(attention))))
        case .dynamic, .longrope:
            throw CheckpointError.unsupported(
                what: "dynamic or longrope scaling in a GGUF file", file: "the model", hint: "write safetensors")
        }
        if let bosTokenID { pairs.append(("tokenizer.ggml.bos_token_id", number(bosTokenID))) }
        for (key, token) in zip(["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"], eosTokenIDs) {
            pairs.append((key, number(token)))
        }
        if let padTokenID { pairs.append(("tokenizer.ggml.padding_token_id", number(padTokenID))) }
        let own = try description.ggufMetadata(self)
        return pairs.filter { pair in !own.contains { $0.key == pair.key } } + own
    }
}

extension VisionConfiguration {
    /// The keys of a vision tower and its projector, as an `mmproj` file holds them; `general.architecture` is `clip` there and is
    /// left to the caller, since a file that holds the language model too says `llama`.
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for a projector or activation that GGUF has no names for.
    package func ggufMetadata(llava: LlavaConfiguration, imageProcessor: ImageProcessorConfiguration) throws -> [(
        key: String, value: GGUFValue
    )] {
        func number(_ value: Int) -> GGUFValue { .uint32(UInt32(clamping: value)) }
        guard case .mlp = llava.projector, llava.selectFeature == .patch, activation != .geluTanh, architecture != .siglip, llava.tiling == .none else {
            throw CheckpointError.unsupported(
                what: "a \(modelType) tower and a \(llava.projector) projector on \(llava.selectFeature.rawValue) features with \(activation.rawValue)",
                file: "the model",
                hint: "GGUF is written for CLIP and EfficientNet-Lite towers with mlp projectors on patch features; write safetensors")
        }
        // GGUF has no rescale factor: its readers take bytes divided by 255.
        let unit = imageProcessor.rescaleFactor.map { abs($0 * 255 - 1) < 1e-9 ? 1 : Float(1 / ($0 * 255)) } ?? Float(1.0 / 255)
        var pairs: [(key: String, value: GGUFValue)] = [
            ("clip.has_vision_encoder", .bool(true)),
            ("clip.has_llava_projector", .bool(true)),
            ("clip.projector_type", .string("mlp")),
            ("clip.use_gelu", .bool(activation == .gelu)),
            ("clip.use_silu", .bool(activation == .silu)),
            ("clip.vision.image_size", number(imageSize)),
            ("clip.vision.patch_size", number(patchSize)),
            ("clip.vision.embedding_length", number(hiddenSize)),
            ("clip.vision.feed_forward_length", number(intermediateSize)),
            ("clip.vision.projection_dim", number(projectionDim)),
            ("clip.vision.block_count", number(numHiddenLayers)),
            ("clip.vision.attention.head_count", number(numAttentionHeads)),
            ("clip.vision.attention.layer_norm_epsilon", .float32(layerNormEpsilon)),
            ("clip.vision.feature_layer", .array(GGUFArray([Int32(clamping: llava.layersToRun(of: self))]))),
            ("clip.vision.image_aspect_ratio", .string(llava.imageAspectRatio == .pad ? "pad" : "square")),
            ("clip.vision.image_mean", .array(GGUFArray(imageProcessor.mean.map { $0 * unit }))),
            ("clip.vision.image_std", .array(GGUFArray(imageProcessor.standardDeviation.map { $0 * unit }))),
            ("adallava.token_selecting", .string(llava.tokenSelection.rawValue)),
        ]
        if case .efficientNetLite(let network) = architecture { pairs += network.ggufMetadata }
        return pairs
    }
}
