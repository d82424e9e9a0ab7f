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

    /// What one budget costs beside others.
    package struct BudgetCost: Sendable {
        package let plan: ExecutionPlan
        package let prefill: Duration
        /// One for each step of the decode.
        package var steps: [Duration] = []
    }

    /// How long prefill, and then each step of a decode, takes under several budgets, one right behind the other: a machine whose speed changes from
    /// second to second slows neighbouring steps alike. Tokens are made up; none ends a sequence.
    /// - Throws: ``BudgetError``, ``GenerationError``
    package func measureBudgets(_ budgets: [Budget], prompt: [Int], steps: Int) async throws -> [BudgetCost] {
        for budget in budgets { try check(budget) }
        return try await queue.run { [self] in
            let engine = loaded.engine
            let (clock, cancellation) = (ContinuousClock(), Cancellation())
            var sequences: [Engine.Sequence] = []
            var costs: [BudgetCost] = []
            for budget in budgets {
                let request = EngineRequest(tokens: prompt, images: [], budget: budget, maxTokens: steps + 1)
                let units = try engine.adaptive.map { $0.units.granted(fraction: try budget.validFraction()) }
                var result = EngineResult(layers: engine.decoder.configuration.numHiddenLayers, heads: engine.decoder.configuration.numAttentionHeads)
                let start = clock.now
                sequences.append(try engine.prefill(request, [], units: units, &result, cancellation, { _ in }))
                costs.append(BudgetCost(plan: result.plan, prefill: clock.now - start))
            }
            let hidden = Tensor(rows: 1, columns: engine.decoder.configuration.hiddenSize)
            for step in 0 ..< steps {
                // There and back, so that none always follows the same one.
                for index in step % 2 == 0 ? Array(budgets.indices) : budgets.indices.reversed() {
                    let token = prompt[step % prompt.count]
                    let start = clock.now
                    try engine.step(token, &sequences[index], hidden, cancellation)
                    costs[index].steps.append(clock.now - start)
                }
            }
            return costs
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
