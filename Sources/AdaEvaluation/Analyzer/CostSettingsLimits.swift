import AdaLLaVA

extension CostSettings {
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
        try require(promptTokens, Limits.prompt, "--prompt-tokens")
        try require(generatedTokens, Limits.generate, "--generate")
        try require(batchSize, Limits.batch, "--batch")
        try require(weightBits, Limits.bits, "--weight-bits")
        try require(activationBits, Limits.bits, "--activation-bits")
        if let keyValueBits { try require(keyValueBits, Limits.bits, "--kv-bits") }
        try require(images, Limits.images, "--images")
        try require(tensorParallel, Limits.parallel, "--tensor-parallel")
        if let imageTokens { try require(imageTokens, 0 ... promptTokens, "--image-tokens") }
        if let llava = model.configuration.llava, llava.fastV != nil, llava.tokenSelection != .none, imageTokens == nil {
            throw EvaluationError.argument(
                name: "--image-tokens", expected: "the image tokens that \(llava.tokenSelection.rawValue) leaves, which depend on the image, for \(llava.fastV?.description ?? "")",
                found: "none")
        }
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
