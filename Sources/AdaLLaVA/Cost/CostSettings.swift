/// The request to analyze, and how the model is stored and run.
package struct CostSettings: Sendable, Equatable {
    /// Positions of the prompt, image tokens included, the latency token not.
    package var promptTokens: Int
    /// Tokens generated; the first one comes out of the prompt's pass.
    package var generatedTokens: Int
    /// Requests computed together, all with the same plan.
    package var batchSize: Int
    /// Bits of a weight as arithmetic takes it.
    package var weightBits: Int
    /// Bits of a weight in memory, including its part of a block's scales: 8.5 for Q8_0. `nil` takes ``weightBits``.
    package var readWeightBits: Double?
    package var activationBits: Int
    /// Bits of a stored key or value; `nil` takes ``activationBits``.
    package var keyValueBits: Int?
    /// Attention as one operation that keeps its scores on the chip.
    package var flashAttention: Bool
    /// Devices that share each layer (tensor parallelism); costs are those of one device.
    package var tensorParallel: Int
    /// Images a request encodes; not part of the reference's formula.
    package var images: Int
    /// Positions of the prompt that hold features of images; `nil`: those that the images have before tokens are selected.
    package var imageTokens: Int?

    package init(
        promptTokens: Int, generatedTokens: Int = 1, batchSize: Int = 1, weightBits: Int = 16, readWeightBits: Double? = nil,
        activationBits: Int = 16,
        keyValueBits: Int? = nil, flashAttention: Bool = false, tensorParallel: Int = 1, images: Int = 1
    ) {
        (self.promptTokens, self.generatedTokens, self.batchSize) = (promptTokens, generatedTokens, batchSize)
        (self.weightBits, self.activationBits, self.keyValueBits) = (weightBits, activationBits, keyValueBits)
        self.readWeightBits = readWeightBits
        (self.flashAttention, self.tensorParallel, self.images) = (flashAttention, tensorParallel, images)
    }

    /// Positions of the prompt that hold features of images, as far as the decoder is concerned.
    package func promptImageTokens(_ configuration: ModelConfiguration) -> Int {
        let rows = configuration.vision.flatMap { configuration.llava?.featureRows(of: $0) } ?? 0
        return min(imageTokens ?? images * rows, promptTokens)
    }

    /// Those of them that the decoder drops, and the first layer without them.
    package func drop(_ configuration: ModelConfiguration) -> (layer: Int, tokens: Int)? {
        configuration.llava?.fastV.map { ($0.layer, $0.dropped(of: promptImageTokens(configuration))) }
    }

    package var storedWeightBits: Double { readWeightBits ?? Double(weightBits) }
    package var cacheBits: Int { keyValueBits ?? activationBits }

    /// Bytes of one weight, activation, key or value.
    package var weightBytes: Double { storedWeightBits / 8 }
    package var activationBytes: Double { Double(activationBits) / 8 }
    package var keyValueBytes: Double { Double(cacheBits) / 8 }
}
