import Foundation

/// The GGUF side of a conversion: the file and type of each tensor, and the metadata.
///
/// Models that llama.cpp can run are written in its format: the language model in one file, and a LLaVA's tower with its projector in
/// another (`mmproj-NAME`). Everything else is one file of the architecture `adallava`, which other programs refuse by its name.
extension CheckpointConverter {
    func writeGGUF(cancellation: Cancellation, progress: ConversionProgress) throws -> ConversionReport {
        let language = try languageTensors(), image = try imageTensors()
        let vocabulary = try self.vocabulary()
        let obstacle = self.obstacle ?? vocabulary?.problem
        let isPair = obstacle == nil && !image.isEmpty
        let total = (language + image).reduce(0) { $0 + $1.tensor.bytes.count }
        var done = 0
        func prepare(_ tensors: [GGUFTensor], _ metadata: [(key: String, value: GGUFValue)], _ url: URL) throws -> AtomicFile {
            let byName = Dictionary(tensors.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
            let descriptions = tensors.map { TensorDescription(name: $0.name, type: type(of: $0.canonical, $0.tensor), shape: $0.tensor.shape) }
            return try GGUFWriter.prepare(descriptions, metadata: metadata, to: url) { description, sink in
                guard let tensor = byName[description.name] else { return }
                let rewriter = TensorRewriter(
                    tensor.tensor, to: description.type, order: rowOrder(tensor.canonical), adding: normShift(tensor.canonical, addsOne: false),
                    file: output.path)
                try rewriter.write(to: sink, cancellation: cancellation)
                done += tensor.tensor.bytes.count
                progress(done, total)
            }
        }
        let known = obstacle == nil ? language.filter(\.isKnown) : language
        let metadata = try languageMetadata(vocabulary?.vocabulary, isOurs: obstacle != nil, holdsImage: !isPair && !image.isEmpty)
        let file = try prepare(isPair ? known : known + image, metadata, output)
        let imageFile = isPair ? try prepare(image, [("general.architecture", .string("clip"))] + imageMetadata() + [fileType], imageOutput) : nil
        let places = (language: try file.complete() ?? output, image: try imageFile?.complete())
        var report = try CheckpointConverter.report(Checkpoint.openGGUF(places.language, mmproj: places.image, found: nil))
        if let imageFile {
            // The language model last: people name this file, so it exists only together with its other half.
            try imageFile.commit()
        } else if overwrites, FileKind(imageOutput) == .file {
            try? Files.remove(imageOutput)
        }
        try file.commit()
        report.files = [output.path] + (isPair ? [imageOutput.path] : [])
        report.note = obstacle.map { "only adallava runs this file (general.architecture is \(GGUFArchitecture.ours)): \($0)" }
        return report
    }

    /// Where the tower of a pair goes.
    var imageOutput: URL { output.deletingLastPathComponent().appendingPathComponent(Checkpoint.projectorName(of: output.lastPathComponent)) }

    /// Features that other programs have no form for; `nil` if there are none.
    private var obstacle: String? {
        let configuration = checkpoint.configuration
        if let adaptive = configuration.adaptive { return "it has the scheduler of AdaLLaVA-\(adaptive.schedulerType.rawValue)" }
        guard let vision = configuration.vision, let llava = configuration.llava else { return nil }
        guard case .clip = vision.architecture else { return "its vision tower is no CLIP" }
        guard llava.tokenSelection == .none else { return "it selects image tokens (\(llava.tokenSelection.rawValue))" }
        guard case .mlp(2) = llava.projector, llava.selectFeature == .patch else { return "its projector is not LLaVA-1.5's" }
        return nil
    }

    // MARK: - Tensors

    /// A tensor of the file: its name there, and the canonical one.
    private struct GGUFTensor {
        let name, canonical: String
        let tensor: StoredTensor

        /// Whether the format has a name for it.
        var isKnown: Bool { name != canonical || name == "rope_freqs.weight" }

        init(_ canonical: String, _ tensor: StoredTensor, _ architecture: DecoderArchitecture = .llama) {
            (name, self.canonical) = (TensorNames.gguf(canonical: canonical, architecture), canonical)
            // Hugging Face has a dimension of 1 between the channels and the taps of a convolution.
            let isConvolution = LFM2Description.isConvolution(canonical) && tensor.shape.count == 3
            self.tensor = isConvolution ? tensor.reshaped([tensor.shape[0], tensor.shape[2]]) : tensor
        }
    }

    private func languageTensors() throws -> [GGUFTensor] {
        let source = checkpoint.language
        let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight")
        var tensors: [GGUFTensor] = []
        for name in source.names where !name.hasPrefix("model.mm_projector.") {
            guard let tensor = source.find(name), tensor.type.kernelType != nil else { continue }
            // GGUF stores tied embeddings once, under the name of those that are read.
            if name == head, checkpoint.configuration.language.tieWordEmbeddings {
                if source.find(embedding) == nil { tensors.append(GGUFTensor(embedding, tensor)) }
                continue
            }
            tensors.append(GGUFTensor(name, tensor, checkpoint.configuration.language.architecture))
        }
        // Llama 3's frequency factors, which Hugging Face computes from the configuration and GGUF stores.
        if checkpoint.ggufMetadata == nil, let factors = try checkpoint.configuration.language.rotaryFrequencyFactors() {
            let (name, file) = ("rope_freqs.weight", MappedFile(copying: factors.withUnsafeBytes { Array($0) }, path: "the configuration"))
            tensors.append(GGUFTensor(name, StoredTensor(name: name, type: .f32, shape: [factors.count], bytes: file.bytes, file: file)))
        }
        return tensors.sorted { $0.name < $1.name }
    }

    private func imageTensors() throws -> [GGUFTensor] {
        guard let vision = checkpoint.vision, let projector = checkpoint.projector else { return [] }
        let found = projector.names.filter { $0.hasPrefix("model.mm_projector.") }.map { (projector, $0) } + vision.names.map { (vision, $0) }
        return found.compactMap { source, name in
            source.find(name).flatMap { $0.type.kernelType == nil ? nil : GGUFTensor(name, $0) }
        }.sorted { $0.name < $1.name }
    }

    /// The element type that a tensor is written in.
    private func type(of name: String, _ tensor: StoredTensor) -> ElementType {
        // Norms, biases and embeddings of position are small and added as they are.
        if tensor.shape.count < 2 || name.hasSuffix("position_embedding.weight") || LFM2Description.isConvolution(name) { return .f32 }
        // The scheduler compares logits that differ little, so rounding its weights would change plans. The patch embedding is
        // a convolution that other readers expect in floats.
        if name.hasPrefix("scheduler.") || tensor.shape.count > 2 { return tensor.type == .f32 ? .f32 : .f16 }
        let wanted = target.elementType
        guard let columns = tensor.shape.last, columns % wanted.block.values == 0 else { return .f16 }
        // Four bits are too few for embeddings and the output layer.
        if target == .q4_0, name == "lm_head.weight" || name == "model.embed_tokens.weight" { return .q8_0 }
        return wanted
    }

    /// GGUF's llama rotates neighbouring values of a head, Hugging Face and other architectures the two halves: rows of queries and keys change places.
    private func rowOrder(_ name: String) -> [Int]? {
        let language = checkpoint.configuration.language
        guard !language.ropeInterleaved, language.architecture.fileDescription.ggufIsInterleaved, let heads = rotatedHeads(name) else { return nil }
        let half = language.headDim / 2
        return (0 ..< heads).flatMap { head in
            (0 ..< language.headDim).map { head * language.headDim + $0 / 2 + ($0 % 2) * half }
        }
    }

    /// Offset to add to a tensor's values: 1 or -1 for a decoder's norms if only one of the two formats stores them as the distance from 1.
    func normShift(_ name: String, addsOne: Bool) -> Float {
        let stored = checkpoint.configuration.language.normsAddOne
        return stored != addsOne && name.hasPrefix("model.") && name.hasSuffix("norm.weight") ? (stored ? 1 : -1) : 0
    }

    /// Heads of a tensor of queries or keys; `nil` for every other.
    func rotatedHeads(_ name: String) -> Int? {
        guard name.hasPrefix("model.layers.") else { return nil }
        let language = checkpoint.configuration.language
        if name.contains(".self_attn.q_proj.") { return language.numAttentionHeads }
        return name.contains(".self_attn.k_proj.") ? language.numKeyValueHeads : nil
    }

    // MARK: - Metadata

    /// ggml's number for "mostly" this type.
    private var fileType: (key: String, value: GGUFValue) {
        let number: UInt32 = switch target {
        case .f32: 0
        case .f16: 1
        case .q4_0: 2
        case .q4_1: 3
        case .q8_0: 7
        case .bf16: 32
        }
        return ("general.file_type", .uint32(number))
    }

    private func imageMetadata() throws -> [(key: String, value: GGUFValue)] {
        guard let vision = checkpoint.configuration.vision, let llava = checkpoint.configuration.llava else { return [] }
        return try vision.ggufMetadata(llava: llava, imageProcessor: checkpoint.imageProcessor ?? .standard(for: vision))
    }

    /// The vocabulary in GGUF's own keys; `nil` where the source has it already.
    private func vocabulary() throws -> GGUFTokenizer? {
        guard checkpoint.ggufMetadata == nil else { return nil }
        guard let text = try TextProcessor(checkpoint, template: nil) else {
            return GGUFTokenizer(vocabulary: GGUFVocabulary(model: "no_vocab", tokens: []))
        }
        return GGUFTokenizer(text.tokenizer, rows: checkpoint.configuration.language.vocabularySize, ends: checkpoint.generation.eosTokenIDs)
    }

    /// - Parameter isOurs: the file has this engine's architecture, whose metadata has further fields.
    private func languageMetadata(_ vocabulary: GGUFVocabulary?, isOurs: Bool, holdsImage: Bool) throws -> [(key: String, value: GGUFValue)] {
        var pairs: [(key: String, value: GGUFValue)]
        if let source = checkpoint.ggufMetadata {
            let changed = ["general.alignment", "general.file_type", "general.architecture", GGUFArchitecture.baseKey]
            pairs = source.keys.compactMap { key in source[key].map { (key, $0) } }.filter { pair in
                !changed.contains(pair.key) && !pair.key.hasPrefix("split.") && (holdsImage || !pair.key.hasPrefix("clip."))
            }
        } else {
            pairs = try tokenizerFiles() + (vocabulary?.ggufMetadata ?? [])
            pairs.append(("general.name", .string(checkpoint.name)))
        }
        let configured = try checkpoint.configuration.language.ggufMetadata()
        let base = configured.first { $0.key == "general.architecture" }?.value ?? .string("llama")
        let architecture: [(key: String, value: GGUFValue)] =
            isOurs ? [("general.architecture", .string(GGUFArchitecture.ours)), (GGUFArchitecture.baseKey, base)] : [("general.architecture", base)]
        let more = checkpoint.ggufMetadata == nil ? configured : []
        let adaptive = checkpoint.configuration.adaptive?.ggufMetadata ?? []
        let image = holdsImage ? try imageMetadata() : []
        let present = Set(pairs.map(\.key)).union(["general.architecture"])
        return architecture + (more + adaptive + image).filter { !present.contains($0.key) } + pairs + [fileType]
    }

    /// The tokenizer's own files, which this engine reads, and the chat template for other programs.
    private func tokenizerFiles() throws -> [(key: String, value: GGUFValue)] {
        var pairs: [(key: String, value: GGUFValue)] = []
        for name in TokenizerLoader.fileNames {
            let url = checkpoint.folder.appendingPathComponent(name)
            guard FileKind(url) == .file else { continue }
            let file = try MappedFile(contentsOf: url, needed: "the tokenizer")
            pairs.append((EmbeddedFiles.prefix + name, .string(Array(file.bytes))))
        }
        guard let text = try TextProcessor(checkpoint, template: nil) else { return pairs }
        if let template = text.builtInTemplateName { pairs.append((EmbeddedFiles.templateKey, .string(template))) }
        if let template = try? text.template.get() { pairs.append(("tokenizer.chat_template", .string(template.jinja))) }
        return pairs
    }
}
