import AdaLLaVA
import ArgumentParser

/// Options for answers with time budgets.
struct DeadlineFlags: ParsableArguments {
    @Flag(help: "Refuse a time budget that not even the smallest plan keeps, instead of answering late (exit code 65).")
    var strict = false

    @Flag(help: "End an answer at its time budget, or at the end of a sentence shortly before it.")
    var cut = false

    @Option(parsing: .unconditional, help: "Fraction of time budgets that must be kept, from 0.5 to below 1; a higher one runs less of the model.")
    var confidence = 0.97

    func validate() throws {
        if !(0.5 ..< 1).contains(confidence) { throw ValidationError("--confidence: expected 0.5 or more, below 1, found \(confidence)") }
    }

    var options: DeadlineOptions {
        var options = DeadlineOptions()
        (options.isStrict, options.cutsAnswers, options.confidence) = (strict, cut, confidence)
        return options
    }
}

/// Loads a model; for a time budget also brings weights and scratch memory into place, which is no part of an answer's time.
func loadForBudget(_ flags: ModelFlags, _ checkpoint: Checkpoint, _ budget: Budget) async throws -> (model: AdaptiveModel, loading: Duration) {
    let start = ContinuousClock.now
    let model = try await flags.load(checkpoint)
    try await warmUp(model, for: budget)
    return (model, ContinuousClock.now - start)
}

/// Brings weights and scratch memory into place for a time budget.
func warmUp(_ model: AdaptiveModel, for budget: Budget) async throws {
    if case .time = budget { try await model.warmUp() }
}

/// Measures a model that answered with guessed times, so that the next process predicts its times.
func calibrateAfterAnswer(_ model: AdaptiveModel, _ budget: Budget) async throws {
    guard case .time = budget, await model.wantsCalibration else { return }
    try await model.calibrate(limit: .seconds(2)) { done, total in
        Console.shared.progress("measuring this model, once on this machine", done: done, of: total)
    }
    Console.shared.finishProgress()
}
