import Foundation

/// How far loading is.
public struct LoadProgress: Sendable {
    /// The part that is loaded: "the language model", "the vision tower".
    public let part: String
    /// Layers loaded so far.
    public let done: Int
    /// Layers of this part.
    public let total: Int
}

/// A checkpoint made ready to run: weights packed, tokenizer and image processor set up.
struct LoadedModel: Sendable {
    let checkpoint: Checkpoint
    let parts: ModelParts
    let text: TextProcessor?
    /// `nil` for text models.
    let preparation: ImagePreparation?
    /// Everything that image features depend on besides the pixels: preprocessing, tower, model.
    private let contentKey: ContentKey

    init(
        _ checkpoint: Checkpoint, packer: WeightPacker, template: ChatTemplateChoice?, cancellation: Cancellation,
        onProgress: (LoadProgress) -> Void
    ) throws {
        let configuration = checkpoint.configuration
        let language = configuration.language
        let switched = configuration.adaptive.flatMap { $0.schedulerType == .heads ? $0.numPrefixLayers ..< language.numHiddenLayers : nil }
        let decoder = try Decoder(
            checkpoint.language, language, packer: packer, frequencyFactors: try LoadedModel.frequencyFactors(checkpoint.language),
            switched: switched ?? 0 ..< 0, cancellation: cancellation
        ) { onProgress(LoadProgress(part: "the language model", done: $0, total: language.numHiddenLayers)) }

        var vision: ModelParts.VisionPart?
        if let llava = configuration.llava, let tower = configuration.vision, let tensors = checkpoint.vision {
            var newline: Tensor?
            if case .anyRes = llava.tiling {
                newline = try Tensor(vector: checkpoint.language.tensor(TensorNames.imageNewline), count: language.hiddenSize)
            }
            vision = ModelParts.VisionPart(
                tower: try VisionNetworks.load(tensors, tower, for: llava, packer: packer, cancellation: cancellation) {
                    onProgress(LoadProgress(part: "the vision tower", done: $0, total: $1))
                },
                projector: try Projector(
                    checkpoint.projector ?? checkpoint.language, llava.projector, inputs: tower.hiddenSize, outputs: language.hiddenSize, packer: packer),
                selection: llava.tokenSelection, keepsClassToken: llava.selectFeature == .classAndPatches, newline: newline,
                pixels: tower.inputValues,
                leastRows: llava.leastRows(of: tower))
        }

        let space = configuration.switchSpace
        var adaptive: ModelParts.AdaptivePart?
        if let settings = configuration.adaptive, let units = configuration.budgetUnits {
            adaptive = ModelParts.AdaptivePart(
                encoder: try LatencyEncoder(checkpoint.language, hiddenSize: language.hiddenSize, packer: packer),
                scheduler: try Scheduler(checkpoint.language, settings, space, hiddenSize: language.hiddenSize, packer: packer),
                units: units,
                budgetHead: settings.hasBudgetHead ? try BudgetHead(checkpoint.language, units: units, hiddenSize: language.hiddenSize) : nil)
        }
        self.checkpoint = checkpoint
        preparation = vision == nil ? nil : try ImagePreparation(checkpoint)
        parts = ModelParts(name: checkpoint.name, decoder: decoder, vision: vision, adaptive: adaptive, space: space, fastV: configuration.llava?.fastV)
        text = try TextProcessor(checkpoint, template: template)
        contentKey = ContentKey("\(checkpoint.folder.path) \(checkpoint.name) \(configuration)")
    }

    /// Where measurements of this model's times are kept, for this machine, workspace and build.
    func timings(_ workspace: Workspace, _ keyValues: KeyValueType = .f16, in folder: URL?) -> TimingStore {
        let linears = parts.decoder.layers.flatMap(\.linears)
        let bytes = linears.reduce(0) { $0 + $1.weight.streamedBytes }, values = linears.reduce(0) { $0 + $1.weight.rows * $1.weight.inputs }
        // Another build of the program may compute at other speeds; its executable says which it is.
        let executable = Bundle.main.executablePath.flatMap { try? FileManager.default.attributesOfItem(atPath: $0) }
        let build = "\(executable?[.size] ?? 0) \(executable?[.modificationDate] ?? "")"
        // Dropped image tokens change the number of rows, not the time of each.
        var measured = checkpoint.configuration
        measured.llava?.fastV = nil
        let identity = "\(MachineCeilings.processorName()), \(workspace.pool.threads) of \(ThreadPool.availableProcessors) threads, \(workspace.kernels.name), "
            + "\(workspace.kernels.precision), \(keyValues == .f16 ? "" : "\(keyValues.rawValue) cache, ")\(parts.name), \(bytes) bytes, \(ContentKey("\(measured)")), build \(build)"
        return TimingStore(checkpoint.configuration, weightBytes: values > 0 ? Double(bytes) / Double(values) : 1, identity: identity, folder: folder)
    }

    /// GGUF's `rope_freqs.weight`: a divisor for each rotary frequency (Llama 3's scaling, computed by the converter).
    private static func frequencyFactors(_ source: any TensorSource) throws -> [Float]? {
        try source.find("rope_freqs.weight").map { try Tensor(vector: $0, count: $0.count).values }
    }

    /// A prompt in which transformers' image tokens are ``Engine/imageToken`` once for each image: llava-hf's, one or as many as an image has
    /// features, or all tokens of an image that is cut into tiles.
    func withImageMarks(_ tokens: [Int], _ images: [EngineImage] = []) -> [Int] {
        guard let llava = checkpoint.configuration.llava, let mark = llava.imageTokenID, let vision = checkpoint.configuration.vision else { return tokens }
        let features = llava.featureRows(of: vision)
        var tokens = tokens
        for image in images {
            guard let rows = image.rows else { continue }
            let whole = image.expanded(rows, token: mark)
            let starts = tokens.count < whole.count ? 0 ..< 0 : 0 ..< tokens.count - whole.count + 1
            guard let start = starts.first(where: { tokens[$0...].starts(with: whole) }) else { continue }
            tokens.replaceSubrange(start ..< start + whole.count, with: [Engine.imageToken])
        }
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

    /// - Throws: ``GenerationError/noVision(model:)``
    func requirePreparation() throws -> ImagePreparation {
        guard let preparation else { throw GenerationError.noVision(model: parts.name) }
        return preparation
    }

    /// The vision tower's inputs for one image, `[tiles, 3, S, S]`.
    func pixels(_ image: RGBImage) throws -> [Float] {
        let preparation = try requirePreparation()
        return preparation.values(of: preparation.tiles(of: image))
    }

    /// An image as the engine takes it: resized and normalized only if its features are not known.
    func image(_ image: RGBImage) throws -> EngineImage {
        let grid = try requirePreparation().grid(width: image.width, height: image.height)
        return try engineImage(ContentKey(image: image, mode: "", context: contentKey), grid, image.width, image.height) { try pixels(image) }
    }

    /// The same for one that is resized already.
    func image(_ image: PreparedImage) throws -> EngineImage {
        let preparation = try requirePreparation()
        guard image.preparation == preparation else { throw GenerationError.otherPreparation(model: parts.name) }
        let tiles = image.tiles
        return try engineImage(ContentKey(prepared: tiles, context: contentKey), (tiles.rows, tiles.columns), tiles.width, tiles.height) {
            preparation.values(of: tiles)
        }
    }

    /// - Parameters:
    ///   - grid: tiles from top to bottom and from left to right.
    ///   - width, height: the picture's, in pixels.
    private func engineImage(
        _ key: ContentKey, _ grid: (rows: Int, columns: Int), _ width: Int, _ height: Int, pixels: @escaping @Sendable () throws -> [Float]
    ) throws -> EngineImage {
        let configuration = checkpoint.configuration, tiles = grid.rows * grid.columns + 1
        guard let llava = configuration.llava, let tower = configuration.vision else { throw GenerationError.noVision(model: parts.name) }
        switch llava.tiling {
        case .none: return EngineImage(key: key, pixels: pixels)
        case .idefics3:
            guard let text else { throw GenerationError.noTokenizer(model: parts.name) }
            return EngineImage(
                key: key, tiles: tiles, layout: text.idefics3Layout(rows: grid.rows, columns: grid.columns), rows: tiles * llava.featureRows(of: tower),
                pixels: pixels)
        case .dynamic:
            guard case .qwen2VL(let shape) = tower.architecture else { throw GenerationError.noVision(model: parts.name) }
            let features = PatchGrid(rows: grid.rows / shape.mergeSize, columns: grid.columns / shape.mergeSize)
            return EngineImage(
                key: key, rows: features.rows * features.columns, grids: [PatchGrid(rows: grid.rows, columns: grid.columns)], featureGrid: features, pixels: pixels)
        case .lfm2VL:
            guard let text, case .lfm2VL(let tiling)? = preparation?.tiling else { throw GenerationError.noTokenizer(model: parts.name) }
            let grids = tiling.patchGrids(width: width, height: height), factor = tiling.settings.factor
            let rows = grids.map { $0.rows / factor * ($0.columns / factor) }
            return EngineImage(
                key: key, tiles: grids.count, layout: text.lfm2VLLayout(rows: grid.rows, columns: grid.columns, hasWhole: grids.count > grid.rows * grid.columns),
                rows: rows.reduce(0, +), markRows: rows, grids: grids, pixels: pixels)
        case .anyRes:
            let side = Int(Double(tower.patches).squareRoot().rounded())
            let arrangement = TileArrangement(grid: grid, side: side, width: width, height: height)
            return EngineImage(key: key, tiles: tiles, rows: arrangement.rows, arrangement: arrangement, pixels: pixels)
        }
    }
}
