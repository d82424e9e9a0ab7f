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
        /// Prefill: up to the end of every third layer that runs, and what follows the last of these.
        package let prefill: [Duration]
        /// One for each step of the decode.
        package var steps: [Duration] = []
    }

    private static let layersPerTurn = 3

    /// How long prefill, and then each step of a decode, takes under several budgets. All run together, a few layers of one and then of another, so
    /// that a machine whose speed changes from second to second slows them alike. Not layer by layer: another's turn leaves nothing in the caches, and
    /// what fetches hidden states costs a layer as much however little of it runs. Tokens are made up; none ends a sequence.
    /// - Parameter first: which of them begins; it meets memory and caches as the last round left them.
    /// - Throws: ``BudgetError``, ``GenerationError``
    package func measureBudgets(_ budgets: [Budget], prompt: [Int], steps: Int, first: Int = 0) async throws -> [BudgetCost] {
        for budget in budgets { try check(budget) }
        return try await queue.run { [self] in
            let engine = loaded.engine
            try check(prompt)
            let (clock, cancellation) = (ContinuousClock(), Cancellation())
            let shares = try budgets.map { Double(try $0.validFraction()) }
            let prefills = try PrefillTurns(shares: shares, first: first, pool: engine.backend.pool).run { index, turnDone in
                let request = EngineRequest(tokens: prompt, images: [], budget: budgets[index], maxTokens: steps + 1)
                let units = engine.adaptive.map { $0.units.granted(fraction: Float(shares[index])) }
                var result = EngineResult(layers: engine.decoder.configuration.numHiddenLayers, heads: engine.decoder.configuration.numAttentionHeads)
                var layers = 0
                let sequence = try engine.prefill(request, [], units: units, &result, cancellation) { progress in
                    guard case .reading(let done, let total) = progress else { return }
                    layers += 1
                    if layers % Self.layersPerTurn == 0 { turnDone(Double(done) / Double(total)) }
                }
                return (sequence, result.plan)
            }
            var sequences = prefills.map(\.result.0)
            var costs = prefills.map { BudgetCost(plan: $0.result.1, prefill: $0.turns) }
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
    ///   - between: called after each of them, and not timed; the threads are woken before the next one begins.
    /// - Returns: the time of each token.
    /// - Throws: ``GenerationError``
    package func measureDecoder(prompt: [Int], tokens: [Int], between: (@Sendable () -> Void)? = nil) async throws -> [Duration] {
        try await queue.run { [self] in
            let decoder = loaded.engine.decoder
            let c = decoder.configuration
            try check(prompt, tokens)
            let cache = KeyValueCache(layerCount: c.numHiddenLayers, capacity: prompt.count + tokens.count, spares: loaded.engine.backend.spareSlabs)
            let everything = [LayerSelection?](repeating: nil, count: c.numHiddenLayers)
            let cancellation = Cancellation()
            let read = Tensor(rows: prompt.count, columns: c.hiddenSize)
            for (row, token) in prompt.enumerated() { try decoder.embed(token, into: read, row: row) }
            try decoder.run(
                0 ..< c.numHiddenLayers, on: read, first: 0, cache: cache, selections: everything, cancellation: cancellation)
            let hidden = Tensor(rows: 1, columns: c.hiddenSize)
            return try tokens.enumerated().map { step, token in
                let time = try ContinuousClock().measure {
                    try decoder.embed(token, into: hidden, row: 0)
                    try decoder.run(
                        0 ..< c.numHiddenLayers, on: hidden, first: prompt.count + step, cache: cache, selections: everything,
                        cancellation: cancellation)
                    _ = decoder.logits(hidden, row: 0)
                }
                if let between {
                    between()
                    loaded.engine.backend.pool.wake()
                }
                return time
            }
        }
    }

    private func check(_ prompt: [Int], _ tokens: [Int] = []) throws {
        let vocabulary = loaded.engine.decoder.configuration.vocabularySize
        for (index, token) in (prompt + tokens).enumerated() where !(0 ..< vocabulary).contains(token) {
            throw GenerationError.token(token, position: index, vocabulary: vocabulary)
        }
        if prompt.isEmpty { throw GenerationError.emptyPrompt }
    }
}

/// Threads of which one runs at a time, always the one that is least far. Each sleeps on its own until its turn: threads that woke up only to see
/// whose turn it is would take the processors from the one that is timed.
private final class PrefillTurns: @unchecked Sendable {
    private let lock = NSLock()
    private let wakes: [DispatchSemaphore], ended = DispatchSemaphore(value: 0)
    /// What of everything each is going to do.
    private let shares: [Double]
    /// Who goes first of those that are equally far.
    private let order: [Int]
    /// How far each is, of its own share; infinite behind its end.
    private var progress: [Double]
    private var turns: [[Duration]]
    private var started = ContinuousClock.now
    /// What computes: in a prefill by itself its threads are awake from layer to layer.
    private let pool: ThreadPool

    init(shares: [Double], first: Int, pool: ThreadPool) {
        (self.shares, self.pool) = (shares, pool)
        order = shares.indices.map { (first + $0) % shares.count }
        wakes = shares.map { _ in DispatchSemaphore(value: 0) }
        progress = Array(repeating: 0, count: shares.count)
        turns = Array(repeating: [], count: shares.count)
    }

    /// What the threads share beside their turns.
    private final class Work<Value>: @unchecked Sendable {
        let body: (Int, @escaping (Double) -> Void) throws -> Value
        var results: [Result<Value, any Error>?]

        init(count: Int, _ body: @escaping (Int, @escaping (Double) -> Void) throws -> Value) {
            self.body = body
            results = Array(repeating: nil, count: count)
        }
    }

    /// Runs `body` once for each share. It says at each turn's end how much of everything there is, not of its share, is done.
    func run<Value>(_ body: @escaping (Int, @escaping (Double) -> Void) throws -> Value) throws -> [(result: Value, turns: [Duration])] {
        let work = Work(count: shares.count, body)
        for index in shares.indices {
            let thread = Thread { [self] in
                wait(index)
                let result = Result {
                    try work.body(index) { [self] done in
                        pass(index, progress: done / shares[index])
                        wait(index)
                    }
                }
                lock.withLock { work.results[index] = result }
                pass(index, progress: .infinity)
            }
            thread.stackSize = 8 << 20
            thread.start()
        }
        order.first.map { wakes[$0] }?.signal()
        if !shares.isEmpty { ended.wait() }
        return try lock.withLock {
            try work.results.indices.compactMap { index in try work.results[index].map { (try $0.get(), turns[index]) } }
        }
    }

    /// Ends a turn, and begins that of the one that is least far.
    private func pass(_ index: Int, progress done: Double) {
        let end = ContinuousClock.now
        let next = lock.withLock {
            turns[index].append(end - started)
            progress[index] = done
            return order.min { progress[$0] < progress[$1] }.flatMap { progress[$0].isFinite ? $0 : nil }
        }
        (next.map { wakes[$0] } ?? ended).signal()
    }

    private func wait(_ index: Int) {
        wakes[index].wait()
        pool.wake()
        lock.withLock { started = ContinuousClock.now }
    }
}
