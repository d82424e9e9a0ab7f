import AdaLLaVA

/// What the latency token looks at in the prefix layers, behind whose last one the scheduler reads it.
public struct LatencyAttention: Sendable, Equatable {
    /// One prefix layer, averaged over its heads.
    public struct Layer: Sendable, Equatable {
        public let index: Int
        /// Share of the attention that goes to the image, 0 ... 1.
        public let imageShare: Double
        /// To each row of image features, in the order of the rows.
        public let weights: [Double]
    }

    public let layers: [Layer]
    /// Rows of features of a side, if they are the patches of a square.
    public let grid: Int?

    /// Runs one question about one image and keeps the attention.
    /// - Throws: ``GenerationError``, `CancellationError`
    public init(_ model: AdaptiveModel, question: String, image: RGBImage, budget: Double) async throws {
        let tokens = try model.tokenize([.question(question, images: 1)])
        let trace = try await model.trace(tokens: tokens, images: [image], budget: .fraction(budget), maxTokens: 1, includesAttention: true)
        let rows = trace.entries["image_features"]?.shape.first ?? 0
        let place = tokens.firstIndex(of: PromptEncoder.imageToken) ?? 0
        layers = (0 ..< model.prefixLayers).compactMap { layer in
            guard let entry = trace.entries["latency_attention.\(layer)"], entry.shape.count == 2, place + rows <= entry.shape[1] else { return nil }
            let (heads, positions) = (entry.shape[0], entry.shape[1])
            let weights = (place ..< place + rows).map { position in
                (0 ..< heads).reduce(0.0) { $0 + Double(entry.values[$1 * positions + position]) } / Double(max(heads, 1))
            }
            return Layer(index: layer, imageShare: weights.reduce(0, +), weights: weights)
        }
        let side = Int(Double(rows).squareRoot().rounded())
        grid = side > 1 && side * side == rows ? side : nil
    }
}
