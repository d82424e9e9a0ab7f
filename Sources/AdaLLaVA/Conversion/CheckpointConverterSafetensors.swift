import Foundation

/// A GGUF text model as a folder in Hugging Face's layout: safetensors, `config.json`, `generation_config.json` and the tokenizer's files.
extension CheckpointConverter {
    /// Features of a GGUF model without a form in Hugging Face's layout; `nil` if there are none.
    var safetensorsObstacle: String? {
        let configuration = checkpoint.configuration
        if configuration.adaptive != nil { return "it has AdaLLaVA's scheduler" }
        if configuration.vision != nil || configuration.llava != nil { return "it has an image part" }
        return nil
    }

    /// Why the model gets no new scheduler; `nil` if it can have one.
    var schedulerObstacle: String? {
        let configuration = checkpoint.configuration
        if configuration.adaptive != nil { return "it has a scheduler already" }
        if writesGGUF { return "it is written into a folder first; name an output that does not end in .gguf, and convert that one then" }
        return nil
    }

    func writeHuggingFaceFolder(_ partial: URL, cancellation: Cancellation, progress: ConversionProgress) throws {
        guard let metadata = checkpoint.ggufMetadata else { return }
        let language = checkpoint.configuration.language
        let source = checkpoint.language
        let tensors = source.names.compactMap(source.find).filter { tensor in
            tensor.type.kernelType != nil && tensor.name != "rope_freqs.weight"
                && !(tensor.name == "lm_head.weight" && language.tieWordEmbeddings)
        }
        let factors = try source.find("rope_freqs.weight").map { try Tensor(vector: $0, count: $0.count).values.map(Double.init) }
        var fields = language.huggingFaceConfiguration(dtype: target.torchName, frequencyFactors: factors)
        if let scheduler {
            fields = scheduler.adapt(fields, language)
        }
        let files = try [
            ("config.json", Data(DecoderConfiguration.json(fields).utf8)),
            ("generation_config.json", Data(language.huggingFaceGeneration.utf8)),
        ] + tokenizerFiles(metadata)
        do {
            for (name, data) in files { try Files.write(data, to: partial.appendingPathComponent(name)) }
        } catch let error as SystemError {
            throw CheckpointError.unwritable(file: output.path, reason: error.localizedDescription)
        }
        let total = tensors.reduce(0) { $0 + $1.bytes.count }
        var done = 0
        let names = Dictionary(
            tensors.map { (TensorNames.huggingFace(canonical: $0.name, language.architecture), $0) }, uniquingKeysWith: { first, _ in first })
        let descriptions = names.map { name, tensor in
            let isConvolution = LFM2Description.isConvolution(name) && tensor.shape.count == 2
            let shape = isConvolution ? [tensor.shape[0], 1, tensor.shape[1]] : tensor.shape
            return TensorDescription(name: name, type: target.elementType, shape: shape)
        }
            + (scheduler?.descriptions(language, type: target.elementType) ?? [])
        try SafetensorsWriter.write(descriptions, to: partial.appendingPathComponent("model.safetensors")) { description, sink in
            if try scheduler?.write(description, language, to: sink) == true { return }
            guard let tensor = names[description.name] else { return }
            try TensorRewriter(
                tensor, to: description.type, order: huggingFaceRowOrder(tensor.name), adding: normShift(tensor.name, addsOne: language.architecture.fileDescription.normsAddOne), file: output.path)
                .write(to: sink, cancellation: cancellation)
            done += tensor.bytes.count
            progress(done, total)
        }
    }

    /// The other way round as for a GGUF file: rows of queries and keys whose neighbours are rotated together become halves of their head.
    private func huggingFaceRowOrder(_ name: String) -> [Int]? {
        let language = checkpoint.configuration.language
        guard language.ropeInterleaved, let heads = rotatedHeads(name) else { return nil }
        let half = language.headDim / 2
        return (0 ..< heads).flatMap { head in
            (0 ..< language.headDim).map { head * language.headDim + ($0 < half ? 2 * $0 : 2 * ($0 - half) + 1) }
        }
    }

    /// The files that the GGUF file carries as they were, or those that its vocabulary becomes.
    private func tokenizerFiles(_ metadata: GGUFMetadata) throws -> [(String, Data)] {
        let carried = TokenizerLoader.fileNames.compactMap { name -> (String, Data)? in
            guard case .string(let bytes) = metadata[EmbeddedFiles.prefix + name] else { return nil }
            return (name, Data(bytes))
        }
        if !carried.isEmpty { return carried }
        guard let vocabulary = try GGUFVocabulary(metadata), vocabulary.model != "no_vocab" else { return [] }
        return try HuggingFaceTokenizer(vocabulary, template: metadata.string("tokenizer.chat_template"), file: source.path).files.map {
            ($0.0, Data($0.1.utf8))
        }
    }
}

extension DecoderConfiguration {
    /// A text model's `config.json`.
    /// - Parameter frequencyFactors: divisors of the rotary frequencies in a GGUF file.
    func huggingFaceConfiguration(dtype: String, frequencyFactors: [Double]?) -> JSONValue {
        let description = architecture.fileDescription
        let fields: [String: JSONValue] = [
            "architectures": [.string("\(description.className)ForCausalLM")], "model_type": .string(description.modelType), "torch_dtype": .string(dtype),
            "vocab_size": .integer(vocabularySize), "hidden_size": .integer(hiddenSize), "intermediate_size": .integer(intermediateSize),
            "num_hidden_layers": .integer(numHiddenLayers), "num_attention_heads": .integer(numAttentionHeads),
            "num_key_value_heads": .integer(numKeyValueHeads), "head_dim": .integer(headDim),
            description.epsilonField.huggingFace: .number(Double("\(normEpsilon)") ?? Double(normEpsilon)), "rope_theta": .number(ropeTheta),
            "max_position_embeddings": .integer(maxPositionEmbeddings), "tie_word_embeddings": .bool(tieWordEmbeddings),
            "hidden_act": .string(hiddenActivation == .geluTanh ? "gelu_new" : hiddenActivation.rawValue), "bos_token_id": JSONValue(bosTokenID),
            "eos_token_id": eosTokenIDs.count == 1 ? .integer(eosTokenIDs[0]) : JSONValue(eosTokenIDs), "pad_token_id": JSONValue(padTokenID),
            "rope_scaling": huggingFaceScaling(frequencyFactors),
        ]
        return .object(fields.merging(description.huggingFaceFields(self)) { $1 })
    }

    private func huggingFaceScaling(_ factors: [Double]?) -> JSONValue {
        // Factors per frequency are written as longrope, with one list for every length.
        if let factors {
            let list = JSONValue.array(factors.map(JSONValue.number))
            return [
                "rope_type": "longrope", "short_factor": list, "long_factor": list, "factor": 1.0, "attention_factor": 1.0,
                "original_max_position_embeddings": .integer(maxPositionEmbeddings),
            ]
        }
        switch ropeScaling {
        case .linear(let factor): return ["rope_type": "linear", "factor": .number(factor)]
        case .yarn(let yarn):
            return [
                "rope_type": "yarn", "factor": .number(yarn.factor), "original_max_position_embeddings": .integer(yarn.originalMaxPositionEmbeddings),
                "beta_fast": .number(yarn.betaFast), "beta_slow": .number(yarn.betaSlow), "attention_factor": .number(yarn.attentionFactor),
                "truncate": .bool(yarn.truncate),
            ]
        // GGUF has no others.
        default: return .null
        }
    }

    /// `generation_config.json`: the tokens that begin and end an answer.
    var huggingFaceGeneration: String {
        var fields: [String: JSONValue] = ["eos_token_id": JSONValue(eosTokenIDs)]
        if let bosTokenID { fields["bos_token_id"] = .integer(bosTokenID) }
        if let padTokenID { fields["pad_token_id"] = .integer(padTokenID) }
        return Self.json(.object(fields))
    }

    static func json(_ fields: JSONValue) -> String {
        let data = try? JSONText.data(fields, isPretty: true)
        return String(decoding: data ?? Data("{}".utf8), as: UTF8.self) + "\n"
    }
}
