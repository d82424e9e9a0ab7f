import AdaLLaVA

/// The request whose cost is asked for, and how the model is held and run.
public struct CostSettings: Sendable, Equatable {
    /// Positions of the prompt, image tokens included, the latency token not.
    public var promptTokens: Int
    /// Tokens generated; the first one comes out of the prompt's pass.
    public var generatedTokens: Int
    /// Requests computed together, all with the same plan.
    public var batchSize: Int
    public var weightBits: Int
    public var activationBits: Int
    /// Bits of a stored key or value; `nil` takes ``activationBits``.
    public var keyValueBits: Int?
    /// Attention as one operation that keeps its scores on the chip.
    public var flashAttention: Bool
    /// Devices that share each layer; costs are those of one device.
    public var tensorParallel: Int
    /// Images a request encodes; not part of the reference's formula.
    public var images: Int

    public init(
        promptTokens: Int, generatedTokens: Int = 1, batchSize: Int = 1, weightBits: Int = 16, activationBits: Int = 16,
        keyValueBits: Int? = nil, flashAttention: Bool = false, tensorParallel: Int = 1, images: Int = 1
    ) {
        (self.promptTokens, self.generatedTokens, self.batchSize) = (promptTokens, generatedTokens, batchSize)
        (self.weightBits, self.activationBits, self.keyValueBits) = (weightBits, activationBits, keyValueBits)
        (self.flashAttention, self.tensorParallel, self.images) = (flashAttention, tensorParallel, images)
    }

    var cacheBits: Int { keyValueBits ?? activationBits }

    /// Bytes of one weight, activation, key or value.
    var weightBytes: Double { Double(weightBits) / 8 }
    var activationBytes: Double { Double(activationBits) / 8 }
    var keyValueBytes: Double { Double(cacheBits) / 8 }

    /// Costs are sums of products in double precision; within these limits they stay far from its end, and a generation is summed up in
    /// seconds.
    private enum Limits {
        static let prompt = 1 ... 1 << 24
        static let generate = 1 ... 1 << 17
        static let batch = 1 ... 1 << 20
        static let bits = 1 ... 64
        static let parallel = 1 ... 4096
        static let images = 0 ... 1 << 16
    }

    /// - Throws: ``EvaluationError/argument(name:expected:found:)``, also where the devices do not divide the model.
    func validate(for model: AnalyzedModel) throws {
        func require(_ value: Int, _ range: ClosedRange<Int>, _ name: String) throws {
            guard !range.contains(value) else { return }
            throw EvaluationError.argument(name: name, expected: "\(range.lowerBound) to \(range.upperBound)", found: "\(value)")
        }
        try require(promptTokens, Limits.prompt, "--prompt")
        try require(generatedTokens, Limits.generate, "--generate")
        try require(batchSize, Limits.batch, "--batch")
        try require(weightBits, Limits.bits, "--weight-bits")
        try require(activationBits, Limits.bits, "--activation-bits")
        if let keyValueBits { try require(keyValueBits, Limits.bits, "--kv-bits") }
        try require(images, Limits.images, "--images")
        try require(tensorParallel, Limits.parallel, "--tensor-parallel")
        let language = model.configuration.language
        for (what, size) in [
            ("hidden size", language.hiddenSize), ("intermediate size", language.intermediateSize),
            ("key-value heads", language.numKeyValueHeads),
        ] where size % tensorParallel != 0 {
            throw EvaluationError.argument(
                name: "--tensor-parallel", expected: "a divisor of the \(what), \(size)", found: "\(tensorParallel)")
        }
    }
}
