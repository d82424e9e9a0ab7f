import Foundation

/// Content of a checkpoint, and the first problem found.
package struct ModelReport: Sendable {
    /// Tensors of one element type.
    package struct TypeShare: Sendable {
        /// The element type.
        package let type: ElementType
        /// Name of the type; it says which one ``ElementType/unread`` is.
        package let name: String
        /// How many tensors have it.
        package let tensors: Int
        /// Their values in all.
        package let values: Int
        package let bytes: Int
    }

    /// The format in words, such as `AdaLLaVA-L, safetensors in 3 files`.
    package let format: String
    /// The model's configuration.
    package let configuration: ModelConfiguration
    /// Parameters of the decoder with embeddings, of the vision tower, of the projector, of the scheduler.
    package let parameters: (language: Int, vision: Int, projector: Int, scheduler: Int)
    /// Element types of the weights, the largest share first.
    package let types: [TypeShare]
    /// Bytes that the weights take in memory once they are ready to run.
    package let weightBytes: Int
    /// Bytes of keys and values for one position, with everything on.
    package let keyValueBytesPerToken: Int
    /// The units of its budget; `nil` if the model is not adaptive.
    package let units: BudgetUnits?
    /// The tokenizer in words; `nil` if there is none.
    package let tokenizer: String?
    /// The chat template's name; `nil` if none could be chosen.
    package let template: String?
    /// Tokens that one image takes in the prompt, before token selection.
    package let imageTokens: Int?
    /// The first problem found, in the words of the error that loading would end with.
    package let problem: String?
    /// Remarks that are no problems, each in words.
    package let notes: [String]
    /// Proposals of `generation_config.json` that are out of range and ignored, each in words.
    package let ignored: [String]

    /// Opens the checkpoint and checks every tensor that the architecture needs, without reading the weights.
    /// - Throws: ``CheckpointError`` if it cannot be opened at all.
    package init(contentsOf url: URL, projector: URL? = nil, visionTower: URL? = nil, template: ChatTemplateChoice? = nil) throws {
        let checkpoint = try Checkpoint.open(at: url, projector: projector, visionTower: visionTower)
        let configuration = checkpoint.configuration
        format = checkpoint.formatDescription
        self.configuration = configuration
        ignored = checkpoint.generation.ignored
        let tensors = ModelReport.tensors(of: checkpoint)
        func count(_ prefix: (String) -> Bool) -> Int { tensors.filter { prefix($0.name) }.reduce(0) { $0 + $1.tensor.count } }
        let isScheduler = { (name: String) in name.hasPrefix("scheduler.") }
        let isProjector = { (name: String) in name.hasPrefix("model.mm_projector") }
        let isVision = { (name: String) in name.hasPrefix(TensorNames.visionPrefix) }
        parameters = (
            count { !isScheduler($0) && !isProjector($0) && !isVision($0) }, count(isVision), count(isProjector), count(isScheduler)
        )
        types = Dictionary(grouping: tensors, by: \.tensor.typeName).map { name, group in
            TypeShare(
                type: group[0].tensor.type, name: name, tensors: group.count, values: group.reduce(0) { $0 + $1.tensor.count },
                bytes: group.reduce(0) { $0 + $1.tensor.bytes.count })
        }.sorted { ($1.bytes, $0.name) < ($0.bytes, $1.name) }
        weightBytes = tensors.reduce(0) { $0 + $1.tensor.bytes.count }
        let language = configuration.language
        let attending = (0 ..< language.numHiddenLayers).count { language.kind($0) != .convolution }
        keyValueBytesPerToken = 2 * 2 * attending * language.numKeyValueHeads * language.headDim
        units = configuration.adaptive.map { BudgetUnits($0, layers: language.numHiddenLayers, heads: $0.switchesPerLayer(language)) }
        imageTokens = configuration.vision.flatMap { configuration.llava?.featureRows(of: $0) }
        let loaded = Result {
            try LoadedModel(
                checkpoint, packer: try WeightPacker(kernels: KernelSet(), pool: ThreadPool(threads: 1), packs: false), template: template,
                cancellation: Cancellation(),
                onProgress: { _ in })
        }
        switch loaded {
        case .success(let model):
            problem = model.text?.templateProblem
            tokenizer = model.text.map(\.tokenizerDescription)
            notes = [configuration.adaptive?.leftOut(language), model.text?.doubledTokens].compactMap { $0 }
            self.template = model.text?.templateName
        case .failure(let error):
            problem = (error as? any AdaLLaVAError)?.description ?? "\(error)"
            (tokenizer, self.template, notes) = (nil, nil, [])
        }
    }

    /// Parameters of all parts of a model.
    package static func parameterCount(of checkpoint: Checkpoint) -> Int { tensors(of: checkpoint).reduce(0) { $0 + $1.tensor.count } }

    private static func tensors(of checkpoint: Checkpoint) -> [(name: String, tensor: StoredTensor)] {
        var found: [String: StoredTensor] = [:]
        for source in [checkpoint.language, checkpoint.projector, checkpoint.vision].compactMap({ $0 }) {
            for name in source.names { found[name] = source.find(name) }
        }
        return found.map { ($0.key, $0.value) }
    }
}
