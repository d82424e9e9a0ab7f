/// The latency token's attention in the prefix layers; the scheduler reads its hidden state after the last one.
package struct LatencyAttention: Sendable, Equatable {
    /// One prefix layer, averaged over its heads.
    package struct Layer: Sendable, Equatable {
        package let index: Int
        /// Share of the attention that goes to the image, 0 ... 1.
        package let imageShare: Double
        /// Share that goes to the latency token itself; the rest goes to the text.
        package let ownShare: Double
        /// To each row of image features, in the order of the rows.
        package let weights: [Double]

        package init(index: Int, imageShare: Double, ownShare: Double, weights: [Double]) {
            (self.index, self.imageShare, self.ownShare, self.weights) = (index, imageShare, ownShare, weights)
        }
    }

    package let layers: [Layer]
    /// Patches of a side, if the image's features are those of a square of patches.
    package let grid: Int?
    /// Rows of features before those of the patches.
    package let leadingRows: Int

    /// An attention given by value.
    package init(layers: [Layer], grid: Int?, leadingRows: Int = 0) {
        (self.layers, self.grid, self.leadingRows) = (layers, grid, leadingRows)
    }

    /// Runs one question about one image and keeps the attention.
    /// - Throws: ``GenerationError``, `CancellationError`
    package init(_ model: AdaptiveModel, question: String, image: RGBImage, budget: Double) async throws {
        let tokens = try model.tokenize([.question(question, images: 1)])
        self = try await model.latencyAttention(tokens: tokens, image: try model.imagePreparation(image), budget: .fraction(budget))
    }

    /// A layer's weight of each patch, row by row from the upper left; `nil` if features are not patches of a square.
    package func patchWeights(_ layer: Layer) -> (grid: Int, weights: [Double])? {
        guard let grid, layer.weights.count >= leadingRows + grid * grid else { return nil }
        return (grid, Array(layer.weights[leadingRows ..< leadingRows + grid * grid]))
    }
}

extension AdaptiveModel {
    /// Attention of the latency token, computed while other answers run.
    /// - Parameters:
    ///   - tokens: the whole prompt's ids; -200 for the one image.
    ///   - budget: a fraction, which the latency token carries.
    /// - Throws: ``BudgetError``, ``GenerationError``, ``ComputeError``, `CancellationError`
    package func latencyAttention(tokens: [Int], image: PreparedImage, budget: Budget) async throws -> LatencyAttention {
        try check(budget)
        let prompt = loaded.withImageMarks(tokens), cancellation = Cancellation(), requests = requests
        let request = EngineRequest(tokens: prompt, images: [try loaded.image(image)], budget: budget, maxTokens: 0)
        let entries = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<[String: Trace.Entry], any Error>) in
                requests.submit(
                    cancellation, positions: loaded.parts.leastPositions(request) + 1,
                    make: {
                        let trace = Trace(includesAttention: true)
                        return GenerationTask(
                            request, cancellation: cancellation, trace: trace, onToken: { _ in true },
                            onEnd: { outcome in continuation.resume(with: outcome.map { _ in trace.entries }) })
                    }, drop: { continuation.resume(throwing: $0) })
            }
        } onCancel: {
            cancellation.cancel()
            requests.dropCancelled()
        }
        return LatencyAttention(entries, place: prompt.firstIndex(of: Engine.imageToken) ?? 0, layers: prefixLayers, leadingRows: featuresBeforePatches)
    }
}

extension LatencyAttention {
    /// - Parameters:
    ///   - entries: a trace's `image_features` and `latency_attention.N`.
    ///   - place: position of the image's first row.
    ///   - leadingRows: `nil` where features are not those of patches.
    fileprivate init(_ entries: [String: Trace.Entry], place: Int, layers: Int, leadingRows: Int?) {
        let rows = entries["image_features"]?.shape.first ?? 0
        let read = (0 ..< layers).compactMap { layer -> Layer? in
            guard let entry = entries["latency_attention.\(layer)"], entry.shape.count == 2, place + rows < entry.shape[1] else { return nil }
            let (heads, positions) = (entry.shape[0], entry.shape[1])
            func weight(_ position: Int) -> Double {
                (0 ..< heads).reduce(0.0) { $0 + Double(entry.values[$1 * positions + position]) } / Double(max(heads, 1))
            }
            let weights = (place ..< place + rows).map(weight)
            return Layer(index: layer, imageShare: weights.reduce(0, +), ownShare: weight(positions - 1), weights: weights)
        }
        let patches = rows - (leadingRows ?? 0), side = Int(Double(max(patches, 0)).squareRoot().rounded())
        self.init(layers: read, grid: leadingRows != nil && side > 1 && side * side == patches ? side : nil, leadingRows: leadingRows ?? 0)
    }
}
