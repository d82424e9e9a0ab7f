import AdaLLaVA
import Foundation

/// Parts of an answer that no request times by itself, for measurements.
extension AdaptiveModel {
    /// How long choosing a plan takes: the latency token's embedding, the scheduler, the choice, and its lists for the kernels.
    /// - Returns: `nil` if the model is not adaptive.
    /// - Throws: ``BudgetError``
    package func measurePlanning(budget: Budget, repeats: Int) async throws -> [Duration]? {
        try check(budget)
        return try await requests.exclusively { engine in
            let parts = engine.parts
            guard let adaptive = parts.adaptive else { return nil }
            guard let fraction = try budget.validFraction() else { throw BudgetError.timesNotHere(budget.description) }
            let units = adaptive.units.granted(fraction: fraction)
            let clock = ContinuousClock()
            return (0 ..< repeats).map { _ in
                clock.measure {
                    let latency = adaptive.encoder(adaptive.units.normalized(units), engine.workspace)
                    let plan = adaptive.scheduler.plan(adaptive.scheduler.logits(latency, engine.workspace), units: units)
                    withExtendedLifetime(plan.selections(parts.space, parts.decoder)) {}
                }
            }
        }
    }

    /// The times of one budget, measured in turns with others.
    package struct BudgetCost: Sendable {
        package let plan: ExecutionPlan
        /// Prefill: every turn of a few layers.
        package let prefill: [Duration]
        /// One for each step of the decode.
        package var steps: [Duration] = []
    }

    /// The times of prefill, and then of each decode step, under several budgets. They run in turns of a few layers, so that a machine whose speed changes
    /// from second to second slows them alike. Turns of one layer would cost each layer the same for fetching hidden states, however little of it runs,
    /// because another's turn evicts the caches. Tokens are made up; none ends a sequence.
    /// - Parameter first: which of them begins; it finds memory and caches as the last round left them.
    /// - Throws: ``BudgetError``, ``GenerationError``
    package func measureBudgets(_ budgets: [Budget], prompt: [Int], steps: Int, first: Int = 0) async throws -> [BudgetCost] {
        for budget in budgets { try check(budget) }
        return try await requests.exclusively { engine in
            try engine.parts.check(prompt: prompt)
            let prefills = try budgets.map { try PrefillTurns(engine, prompt: prompt, budget: $0) }
            let order = budgets.indices.map { (first + $0) % budgets.count }
            // Always the one that is least far, of its own share.
            while let next = order.filter({ !prefills[$0].isDone }).min(by: { prefills[$0].progress < prefills[$1].progress }) {
                try prefills[next].turn()
            }
            var costs = prefills.map { BudgetCost(plan: $0.plan, prefill: $0.times) }
            let clock = ContinuousClock()
            for step in 0 ..< steps {
                // There and back, so that none always follows the same one.
                for index in step % 2 == 0 ? Array(budgets.indices) : budgets.indices.reversed() {
                    let token = prompt[step % prompt.count]
                    let start = clock.now
                    try prefills[index].step(token)
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
        try await requests.exclusively { engine in
            let (decoder, runner) = (engine.parts.decoder, engine.runner)
            try engine.parts.check(prompt: prompt, tokens)
            let sequence = TokenSequence(decoder), layers = 0 ..< engine.parts.space.layers.count
            sequence.promptLength = prompt.count
            for start in stride(from: 0, to: prompt.count, by: BatchRunner.chunk) {
                let rows = prompt[start ..< min(start + BatchRunner.chunk, prompt.count)]
                let read = Tensor(rows: rows.count, columns: decoder.configuration.hiddenSize)
                for (row, token) in rows.enumerated() { try decoder.embed(token, into: read, row: row) }
                _ = try runner.step([
                    BatchSegment(sequence: sequence, role: .chunk, position: start, slot: start, layers: layers, input: .hidden(read), logitRows: 1)
                ])
            }
            return try tokens.enumerated().map { step, token in
                let place = prompt.count + step
                let time = try ContinuousClock().measure {
                    _ = try runner.step([
                        BatchSegment(
                            sequence: sequence, role: .single, position: place, slot: place, layers: layers, input: .token(token), logitRows: 1)
                    ])
                }
                if let between {
                    between()
                    engine.workspace.pool.wake()
                }
                return time
            }
        }
    }

    /// How long steps of several sequences take: each decodes after its prompt under its own plan. Batches take turns step by step, so that a machine whose
    /// speed changes slows them alike.
    /// - Parameters:
    ///   - batches: the plans of each batch's sequences; `nil` runs everything.
    ///   - prompt: the prompt of every sequence.
    ///   - steps: tokens of each.
    /// - Returns: of each batch the time of each of its steps, of all its sequences together.
    /// - Throws: ``GenerationError``, ``ComputeError``
    package func measureSteps(_ batches: [[ExecutionPlan?]], prompt: [Int], steps: Int) async throws -> [[Duration]] {
        try await requests.exclusively { engine in
            let (parts, runner) = (engine.parts, engine.runner)
            try parts.check(prompt: prompt)
            let layers = 0 ..< parts.space.layers.count
            let read = Tensor(rows: prompt.count, columns: parts.decoder.configuration.hiddenSize)
            for (row, token) in prompt.enumerated() { try parts.decoder.embed(token, into: read, row: row) }
            let sequences = try batches.map { plans in
                // Equal plans are one: rows that share lists share calls.
                var known: [(plan: ExecutionPlan, selections: [LayerSelection])] = []
                return try plans.map { plan in
                    let sequence = TokenSequence(parts.decoder)
                    if let plan {
                        if !known.contains(where: { $0.plan == plan }) { known.append((plan, plan.selections(parts.space, parts.decoder))) }
                        sequence.select(known.first { $0.plan == plan }?.selections ?? [], from: 0)
                    }
                    sequence.promptLength = prompt.count
                    _ = try runner.step([
                        BatchSegment(sequence: sequence, role: .chunk, position: 0, slot: 0, layers: layers, input: .hidden(read), logitRows: 1)
                    ])
                    return sequence
                }
            }
            var times = batches.map { _ in [Duration]() }
            for step in 0 ..< steps {
                let place = prompt.count + step, token = prompt[step % prompt.count]
                for (index, batch) in sequences.enumerated() {
                    let segments = batch.map {
                        BatchSegment(sequence: $0, role: .single, position: place, slot: place, layers: layers, input: .token(token), logitRows: 1)
                    }
                    times[index].append(try ContinuousClock().measure { _ = try runner.step(segments) })
                }
            }
            return times
        }
    }
}

extension ModelParts {
    func check(prompt: [Int], _ tokens: [Int] = []) throws {
        let vocabulary = decoder.configuration.vocabularySize
        for (index, token) in (prompt + tokens).enumerated() where !(0 ..< vocabulary).contains(token) {
            throw GenerationError.token(token, position: index, vocabulary: vocabulary)
        }
        if prompt.isEmpty { throw GenerationError.emptyPrompt }
    }
}

/// One prefill, a few layers at a time.
final class PrefillTurns {
    private let layersPerTurn: Int

    private let engine: Engine
    private let sequence: TokenSequence
    private let hidden: Tensor
    private let units: Int?
    private(set) var plan: ExecutionPlan
    private(set) var times: [Duration] = []
    private var left: [Range<Int>] = []
    private var isPlanned = false
    private var turnCount = 0, done = 0
    private var length: Int

    init(_ engine: Engine, prompt: [Int], budget: Budget, layersPerTurn: Int = 3) throws {
        (self.engine, self.layersPerTurn) = (engine, layersPerTurn)
        let parts = engine.parts
        sequence = TokenSequence(parts.decoder)
        units = try parts.grantedUnits(budget)
        if units == nil, parts.adaptive != nil { throw BudgetError.timesNotHere(budget.description) }
        plan = parts.fullPlan
        length = prompt.count + (parts.adaptive == nil ? 0 : 1)
        sequence.promptLength = length
        hidden = Tensor(rows: length, columns: parts.decoder.configuration.hiddenSize)
        for (row, token) in prompt.enumerated() { try parts.decoder.embed(token, into: hidden, row: row) }
        left = turns(Array(0 ..< parts.prefixLayers))
        turnCount = left.count
    }

    /// Ranges of layers that begin with each third layer that runs.
    private func turns(_ running: [Int]) -> [Range<Int>] {
        stride(from: 0, to: running.count, by: layersPerTurn).map { start in
            running[start] ..< running[min(start + layersPerTurn, running.count) - 1] + 1
        }
    }

    var isDone: Bool { left.isEmpty && (isPlanned || engine.parts.adaptive == nil) }
    /// How far it is, of its own share.
    var progress: Double { Double(done) / Double(max(turnCount, 1)) }

    func turn() throws {
        let start = ContinuousClock.now
        let (parts, runner) = (engine.parts, engine.runner)
        engine.workspace.pool.wake()
        if left.isEmpty, let adaptive = parts.adaptive, let units {
            // The latency token, the scheduler and the plan are a turn of their own.
            let last = length - 1 ..< length
            hidden.copyRows(from: adaptive.encoder(adaptive.units.normalized(units), engine.workspace), to: length - 1)
            _ = try runner.step([
                BatchSegment(
                    sequence: sequence, role: .single, position: length - 1, slot: length - 1, layers: 0 ..< parts.prefixLayers,
                    input: .hidden(hidden.rows(last)), output: hidden.rows(last))
            ])
            plan = adaptive.scheduler.plan(adaptive.scheduler.logits(hidden.rows(last), engine.workspace), units: units)
            let selections = Array(plan.selections(parts.space, parts.decoder).dropFirst(parts.prefixLayers))
            sequence.select(selections, from: parts.prefixLayers)
            isPlanned = true
            left = turns((parts.prefixLayers ..< parts.space.layers.count).filter { !plan.rows[$0].isSkipped })
            turnCount += left.count
        } else if let layers = left.first {
            left.removeFirst()
            let rows = parts.adaptive == nil || isPlanned ? 0 ..< length : 0 ..< length - 1
            let isLast = left.isEmpty && (isPlanned || parts.adaptive == nil)
            for first in stride(from: 0, to: rows.count, by: BatchRunner.chunk) {
                let chunk = hidden.rows(first ..< min(first + BatchRunner.chunk, rows.count))
                _ = try runner.step([
                    BatchSegment(
                        sequence: sequence, role: .chunk, position: first, slot: first, layers: layers, input: .hidden(chunk),
                        output: isLast ? nil : chunk, logitRows: isLast && first + chunk.rows == rows.count ? 1 : 0)
                ])
            }
            done += 1
        }
        times.append(ContinuousClock.now - start)
    }

    /// One token of the decode.
    func step(_ token: Int) throws {
        _ = try engine.runner.step([segment(token)])
        advance()
    }

    /// The row of the next token.
    func segment(_ token: Int) -> BatchSegment {
        BatchSegment(
            sequence: sequence, role: .single, position: length, slot: length, layers: 0 ..< engine.parts.space.layers.count, input: .token(token),
            logitRows: 1)
    }

    func advance() { length += 1 }
}
