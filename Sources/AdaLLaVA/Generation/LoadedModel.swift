import Foundation

/// How far loading is.
public struct LoadProgress: Sendable {
    /// What is being loaded: "the language model", "the vision tower".
    public let part: String
    /// Layers loaded so far.
    public let done: Int
    /// Layers of this part.
    public let total: Int
}

/// A checkpoint made ready to run: weights packed, tokenizer and image processor set up.
struct LoadedModel: @unchecked Sendable {
    let checkpoint: Checkpoint
    let engine: Engine
    let text: TextProcessor?
    let imageProcessor: CLIPImageProcessor?

    init(
        _ checkpoint: Checkpoint, backend: Backend, template: String?, cancellation: Cancellation, onProgress: (LoadProgress) -> Void
    ) throws {
        let configuration = checkpoint.configuration
        let language = configuration.language
        let headPlans = configuration.adaptive.flatMap { $0.schedulerType == .heads ? $0.numPrefixLayers ..< language.numHiddenLayers : nil }
        let decoder = try LlamaDecoder(
            checkpoint.language, language, backend: backend, frequencyFactors: try LoadedModel.frequencyFactors(checkpoint.language),
            headPlans: headPlans ?? 0 ..< 0, cancellation: cancellation
        ) { onProgress(LoadProgress(part: "the language model", done: $0, total: language.numHiddenLayers)) }

        var vision: Engine.VisionPart?
        var processor: CLIPImageProcessor?
        if let llava = configuration.llava, let tower = configuration.vision, let tensors = checkpoint.vision {
            vision = Engine.VisionPart(
                tower: try VisionNetworks.load(tensors, tower, for: llava, backend: backend, cancellation: cancellation) {
                    onProgress(LoadProgress(part: "the vision tower", done: $0, total: $1))
                },
                projector: try Projector(
                    checkpoint.projector ?? checkpoint.language, llava.projector, inputs: tower.hiddenSize, outputs: language.hiddenSize, backend: backend),
                selection: llava.tokenSelection, keepsClassToken: llava.selectFeature == .classAndPatches)
            processor = try CLIPImageProcessor(checkpoint.imageProcessor ?? .standard(for: tower), tower: tower, file: checkpoint.name)
        }

        var adaptive: Engine.AdaptivePart?
        if let settings = configuration.adaptive {
            adaptive = Engine.AdaptivePart(
                encoder: try LatencyEncoder(checkpoint.language, hiddenSize: language.hiddenSize, backend: backend),
                scheduler: try Scheduler(checkpoint.language, settings, language, backend: backend),
                units: BudgetUnits(settings, layers: language.numHiddenLayers, heads: language.numAttentionHeads))
        }
        self.checkpoint = checkpoint
        imageProcessor = processor
        engine = Engine(name: checkpoint.name, backend: backend, decoder: decoder, vision: vision, adaptive: adaptive)
        text = try TextProcessor(checkpoint, template: template)
    }

    /// GGUF's `rope_freqs.weight`: a divisor for each rotary frequency (Llama 3's scaling, computed by the converter).
    private static func frequencyFactors(_ source: any TensorSource) throws -> [Float]? {
        try source.find("rope_freqs.weight").map { try Tensor(vector: $0, count: $0.count).values }
    }

    /// A prompt in which llava-hf's image tokens, one or as many as an image has features, are ``Engine/imageToken`` once for each image.
    func withImageMarks(_ tokens: [Int]) -> [Int] {
        guard let mark = checkpoint.configuration.llava?.imageTokenID, let vision = checkpoint.configuration.vision else { return tokens }
        let features = vision.patches + (checkpoint.configuration.llava?.selectFeature == .classAndPatches ? 1 : 0)
        var marked: [Int] = []
        var run = 0
        for token in tokens + [mark + 1] {
            if token == mark {
                run += 1
                continue
            }
            let images = features > 0 && run % features == 0 ? run / features : run
            marked += [Int](repeating: Engine.imageToken, count: images)
            run = 0
            marked.append(token)
        }
        return Array(marked.dropLast())
    }

    /// The vision tower's input for one image, `[3, S, S]`.
    func pixels(_ image: RGBImage) throws -> [Float] {
        guard let imageProcessor, let llava = checkpoint.configuration.llava else { throw GenerationError.noVision(model: engine.name) }
        return imageProcessor(image, mode: llava.imageAspectRatio == .pad ? .pad : .crop)
    }
}

extension CLIPImageProcessor {
    /// The processor that a checkpoint's `preprocessor_config.json` describes.
    package init(_ configuration: ImageProcessorConfiguration, tower: VisionConfiguration, file: String) throws {
        guard configuration.resampling == .bicubic else {
            throw CheckpointError.unsupported(what: "resample \(configuration.resampling.rawValue)", file: file, hint: "it reads 3 (bicubic)")
        }
        let shortestEdge: Int
        switch configuration.resize {
        case .shortestEdge(let edge): shortestEdge = edge
        case nil: shortestEdge = tower.imageSize
        case .exact(let size):
            guard size.width == size.height else {
                throw CheckpointError.unsupported(what: "resizing to \(size.width) by \(size.height)", file: file, hint: "it reads squares")
            }
            shortestEdge = size.width
        }
        try self.init(
            cropSize: tower.imageSize, shortestEdge: shortestEdge, mean: configuration.mean.map(Double.init),
            standardDeviation: configuration.standardDeviation.map(Double.init), rescaleFactor: configuration.rescaleFactor ?? 1, file: file)
    }
}
