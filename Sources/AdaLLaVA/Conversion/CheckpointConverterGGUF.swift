import Foundation

/// The GGUF side of a conversion: which tensor becomes what, and what is said about the model.
extension CheckpointConverter {
    func writeGGUF(cancellation: Cancellation, progress: ConversionProgress) throws -> ConversionReport {
        var tensors: [String: StoredTensor] = [:]
        for source in [checkpoint.language, checkpoint.projector, checkpoint.vision].compactMap({ $0 }) {
            for name in source.names where tensors[name] == nil { tensors[name] = source.find(name) }
        }
        // Llama 3's frequency factors, which Hugging Face computes from the configuration and GGUF stores.
        let factors = checkpoint.ggufMetadata == nil ? try checkpoint.configuration.language.rotaryFrequencyFactors() : nil
        let names = tensors.keys.sorted()
        var canonical: [String: String] = [:]
        var descriptions: [TensorDescription] = []
        for name in names {
            guard let tensor = tensors[name], tensor.type.kernelType != nil else { continue }
            let stored = TensorNames.gguf(canonical: name)
            canonical[stored] = name
            descriptions.append(TensorDescription(name: stored, type: type(of: name, tensor), shape: tensor.shape))
        }
        if let factors { descriptions.append(TensorDescription(name: "rope_freqs.weight", type: .f32, shape: [factors.count])) }

        let total = tensors.values.reduce(0) { $0 + $1.bytes.count }
        var done = 0
        let file = try GGUFWriter.prepare(descriptions, metadata: try metadata(), to: output) { description, sink in
            guard let name = canonical[description.name], let tensor = tensors[name] else {
                return try sink.write(factors ?? [])
            }
            let rewriter = TensorRewriter(tensor, to: description.type, order: rowOrder(name), file: output.path)
            try rewriter.write(to: sink, cancellation: cancellation)
            done += tensor.bytes.count
            progress(done, total)
        }
        let written = try file.complete() ?? output
        let report = try CheckpointConverter.report(Checkpoint.open(at: written))
        try file.commit()
        return report
    }

    /// The element type that a tensor is written in.
    private func type(of name: String, _ tensor: StoredTensor) -> ElementType {
        // Norms, biases and embeddings of position are small and added as they are.
        if tensor.shape.count < 2 || name.hasSuffix("position_embedding.weight") { return .f32 }
        // The scheduler decides between logits that lie close together: rounding its weights would change plans. The patch embedding is
        // a convolution that other readers expect in floats.
        if name.hasPrefix("scheduler.") || tensor.shape.count > 2 { return tensor.type == .f32 ? .f32 : .f16 }
        let wanted = target.elementType
        guard let columns = tensor.shape.last, columns % wanted.block.values == 0 else { return .f16 }
        // Four bits are too few for what reads and writes tokens.
        if target == .q4_0, name == "lm_head.weight" || name == "model.embed_tokens.weight" { return .q8_0 }
        return wanted
    }

    /// GGUF's llama rotates neighbouring values of a head, Hugging Face and other architectures the two halves: rows of queries and keys change places.
    private func rowOrder(_ name: String) -> [Int]? {
        let language = checkpoint.configuration.language
        guard !language.ropeInterleaved, language.architecture.fileDescription.ggufIsInterleaved, name.hasPrefix("model.layers.") else { return nil }
        let heads: Int
        if name.contains(".self_attn.q_proj.") {
            heads = language.numAttentionHeads
        } else if name.contains(".self_attn.k_proj.") {
            heads = language.numKeyValueHeads
        } else {
            return nil
        }
        let half = language.headDim / 2
        return (0 ..< heads).flatMap { head in
            (0 ..< language.headDim).map { head * language.headDim + $0 / 2 + ($0 % 2) * half }
        }
    }

    private func metadata() throws -> [(key: String, value: GGUFValue)] {
        var pairs: [(key: String, value: GGUFValue)]
        if let source = checkpoint.ggufMetadata {
            pairs = source.keys.compactMap { key in source[key].map { (key, $0) } }.filter { !["general.alignment", "general.file_type"].contains($0.key) }
        } else {
            pairs = try checkpoint.configuration.language.ggufMetadata() + tokenizer()
            pairs.append(("general.name", .string(checkpoint.name)))
        }
        let present = Set(pairs.map(\.key))
        var more: [(key: String, value: GGUFValue)] = []
        if let adaptive = checkpoint.configuration.adaptive { more += adaptive.ggufMetadata }
        if let vision = checkpoint.configuration.vision, let llava = checkpoint.configuration.llava {
            more += try vision.ggufMetadata(llava: llava, imageProcessor: checkpoint.imageProcessor ?? .standard(for: vision))
        }
        pairs += more.filter { !present.contains($0.key) && $0.key != "general.architecture" }
        // ggml's numbers for "mostly" this type.
        let fileType: UInt32 = switch target {
        case .f16: 1
        case .q4_0: 2
        case .q8_0: 7
        case .bf16: 32
        }
        pairs.append(("general.file_type", .uint32(fileType)))
        return pairs
    }

    /// The tokenizer: its own files as they are, which is what this engine reads, and GGUF's vocabulary for other readers.
    private func tokenizer() throws -> [(key: String, value: GGUFValue)] {
        var pairs: [(key: String, value: GGUFValue)] = []
        for name in TokenizerLoader.fileNames {
            let url = checkpoint.folder.appendingPathComponent(name)
            guard FileKind(url) == .file else { continue }
            let file = try MappedFile(contentsOf: url, needed: "the tokenizer")
            pairs.append((EmbeddedFiles.prefix + name, .string(Array(file.bytes))))
        }
        guard let text = try TextProcessor(checkpoint, template: nil) else { return pairs }
        if let template = text.builtInTemplateName { pairs.append((EmbeddedFiles.templateKey, .string(template))) }
        if let vocabulary = text.tokenizer as? SentencePieceTokenizer { pairs += vocabulary.model.ggufMetadata }
        return pairs
    }
}

extension SentencePieceModel {
    /// GGUF's keys of a `llama` vocabulary. Merging only compares scores, so their ranks stand for them.
    var ggufMetadata: [(key: String, value: GGUFValue)] {
        var pairs: [(key: String, value: GGUFValue)] = [
            ("tokenizer.ggml.model", .string("llama")), ("tokenizer.ggml.pre", .string("default")),
            ("tokenizer.ggml.tokens", .array(GGUFArray((0 ..< count).map { String(decoding: pieces[$0], as: UTF8.self) }))),
            ("tokenizer.ggml.scores", .array(GGUFArray(ranks.map { -Float($0) }))),
            ("tokenizer.ggml.token_type", .array(GGUFArray(kinds.map { Int32($0.rawValue) }))),
            ("tokenizer.ggml.add_bos_token", .bool(true)), ("tokenizer.ggml.add_eos_token", .bool(false)),
            ("tokenizer.ggml.add_space_prefix", .bool(normalization.addsDummyPrefix)),
        ]
        if let unknownID { pairs.append(("tokenizer.ggml.unknown_token_id", .uint32(UInt32(clamping: unknownID)))) }
        return pairs
    }
}
