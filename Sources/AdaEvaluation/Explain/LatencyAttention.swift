import AdaLLaVA

/// What the latency token looks at in the prefix layers, behind whose last one the scheduler reads it.
public struct LatencyAttention: Sendable, Equatable {
    /// One prefix layer, averaged over its heads.
    public struct Layer: Sendable, Equatable {
        public let index: Int
        /// Share of the attention that goes to the image, 0 ... 1.
        public let imageShare: Double
        /// Share that goes to the latency token itself; the rest goes to the text.
        public let ownShare: Double
        /// To each row of image features, in the order of the rows.
        public let weights: [Double]
    }

    public let layers: [Layer]
    /// Patches of a side, if the image's features are those of a square of patches.
    public let grid: Int?
    /// Rows of features before those of the patches.
    public let leadingRows: Int

    /// An attention given by value.
    public init(layers: [Layer], grid: Int?, leadingRows: Int = 0) {
        (self.layers, self.grid, self.leadingRows) = (layers, grid, leadingRows)
    }

    /// Runs one question about one image and keeps the attention.
    /// - Throws: ``GenerationError``, `CancellationError`
    public init(_ model: AdaptiveModel, question: String, image: RGBImage, budget: Double) async throws {
        let tokens = try model.tokenize([.question(question, images: 1)])
        let trace = try await model.trace(tokens: tokens, images: [image], budget: .fraction(budget), maxTokens: 1, includesAttention: true)
        let rows = trace.entries["image_features"]?.shape.first ?? 0
        let place = tokens.firstIndex(of: PromptEncoder.imageToken) ?? 0
        layers = (0 ..< model.prefixLayers).compactMap { layer in
            guard let entry = trace.entries["latency_attention.\(layer)"], entry.shape.count == 2, place + rows < entry.shape[1] else { return nil }
            let (heads, positions) = (entry.shape[0], entry.shape[1])
            func weight(_ position: Int) -> Double {
                (0 ..< heads).reduce(0.0) { $0 + Double(entry.values[$1 * positions + position]) } / Double(max(heads, 1))
            }
            let weights = (place ..< place + rows).map(weight)
            return Layer(index: layer, imageShare: weights.reduce(0, +), ownShare: weight(positions - 1), weights: weights)
        }
        leadingRows = model.featuresBeforePatches ?? 0
        let patches = rows - leadingRows
        let side = Int(Double(max(patches, 0)).squareRoot().rounded())
        grid = model.featuresBeforePatches != nil && side > 1 && side * side == patches ? side : nil
    }

    /// What a layer gives to each patch, row by row from the upper left; `nil` if features are not patches of a square.
    func patchWeights(_ layer: Layer) -> (grid: Int, weights: [Double])? {
        guard let grid, layer.weights.count >= leadingRows + grid * grid else { return nil }
        return (grid, Array(layer.weights[leadingRows ..< leadingRows + grid * grid]))
    }
}
