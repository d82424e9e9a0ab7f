import AdaLLaVA
import Foundation

extension AdaptiveModel {
    /// How long several sequences take together.
    package struct TogetherTimes: Sendable {
        /// All prompts, one after the other.
        package let prefill: Duration
        /// All steps, each of one token of every sequence.
        package let decode: Duration
        package let plan: ExecutionPlan
    }

    /// Reads the prompts of several sequences one after the other, then generates from all of them together, as llama-batched-bench does: tokens are made
    /// up, none is sampled and none ends a sequence.
    /// - Parameter steps: tokens that each generates.
    /// - Throws: ``BudgetError``, ``GenerationError``, ``ComputeError``
    package func measureTogether(prompts: [[Int]], budget: Budget, steps: Int) async throws -> TogetherTimes {
        try check(budget)
        return try await requests.exclusively { engine in
            for prompt in prompts { try engine.parts.check(prompt: prompt) }
            let clock = ContinuousClock(), start = clock.now
            let sequences = try prompts.map { prompt in
                let prefill = try PrefillTurns(engine, prompt: prompt, budget: budget, layersPerTurn: engine.parts.space.layers.count)
                while !prefill.isDone { try prefill.turn() }
                return prefill
            }
            let read = clock.now
            for step in 0 ..< steps {
                _ = try engine.runner.step(zip(sequences, prompts).map { sequence, prompt in sequence.segment(prompt[step % prompt.count]) })
                for sequence in sequences { sequence.advance() }
            }
            let end = clock.now
            return TogetherTimes(prefill: read - start, decode: end - read, plan: sequences.first?.plan ?? engine.parts.fullPlan)
        }
    }
}
