import Foundation

/// Parts of an answer that no request times by itself, for measurements.
extension AdaptiveModel {
    /// How long choosing a plan takes: the latency token's embedding, the scheduler, the choice, and its lists for the kernels.
    /// - Returns: `nil` if the model is not adaptive.
    /// - Throws: ``BudgetError``
    package func measurePlanning(budget: Budget, repeats: Int) async throws -> [Duration]? {
        try check(budget)
        return try await queue.run { [self] in
            let engine = loaded.engine
            guard let adaptive = engine.adaptive else { return nil }
            let units = adaptive.units.granted(fraction: try budget.validFraction())
            let c = engine.decoder.configuration
            let clock = ContinuousClock()
            return (0 ..< repeats).map { _ in
                clock.measure {
                    let latency = adaptive.encoder(adaptive.units.normalized(units), engine.backend)
                    let plan = adaptive.scheduler.plan(adaptive.scheduler.logits(latency, engine.backend), units: units)
                    let selections = (0 ..< c.numHiddenLayers).map { layer in plan.selection(layer).map { LayerSelection($0, c) } }
                    withExtendedLifetime(selections) {}
                }
            }
        }
    }

    /// How long the decoder takes for some tokens when nobody chooses, tokenizes or prints them: the part of a decode that an answer cannot
    /// do without. Everything runs, whatever the model's scheduler.
    /// - Parameters:
    ///   - prompt: ids that are read first, without being timed.
    ///   - tokens: ids that are passed through the decoder and the output layer one by one.
    /// - Throws: ``GenerationError``
    package func measureDecoder(prompt: [Int], tokens: [Int]) async throws -> Duration {
        try await queue.run { [self] in
            let decoder = loaded.engine.decoder
            let c = decoder.configuration
            for (index, token) in (prompt + tokens).enumerated() where !(0 ..< c.vocabularySize).contains(token) {
                throw GenerationError.token(token, position: index, vocabulary: c.vocabularySize)
            }
            if prompt.isEmpty { throw GenerationError.emptyPrompt }
            let cache = KeyValueCache(layerCount: c.numHiddenLayers, capacity: prompt.count + tokens.count)
            let everything = [LayerSelection?](repeating: nil, count: c.numHiddenLayers)
            let cancellation = Cancellation()
            let read = Tensor(rows: prompt.count, columns: c.hiddenSize)
            for (row, token) in prompt.enumerated() { try decoder.embed(token, into: read, row: row) }
            try decoder.run(
                0 ..< c.numHiddenLayers, on: read, first: 0, cache: cache, selections: everything, cancellation: cancellation)
            let hidden = Tensor(rows: 1, columns: c.hiddenSize)
            return try ContinuousClock().measure {
                for (step, token) in tokens.enumerated() {
                    try decoder.embed(token, into: hidden, row: 0)
                    try decoder.run(
                        0 ..< c.numHiddenLayers, on: hidden, first: prompt.count + step, cache: cache, selections: everything,
                        cancellation: cancellation)
                    _ = decoder.logits(hidden, row: 0)
                }
            }
        }
    }
}
