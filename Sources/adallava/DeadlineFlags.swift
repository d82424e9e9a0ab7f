import AdaLLaVA
import ArgumentParser

/// What a time budget means for an answer.
struct DeadlineFlags: ParsableArguments {
    @Flag(help: "Refuse a time budget that not even the smallest plan keeps, instead of answering late (exit code 65).")
    var strict = false

    @Flag(help: "End an answer at its time budget, or at the end of a sentence shortly before it.")
    var cut = false

    @Option(parsing: .unconditional, help: "Share of the time budgets that are to be kept, from 0.5 to below 1; a higher share runs less of the model.")
    var confidence = 0.97

    var options: DeadlineOptions {
        var options = DeadlineOptions()
        (options.isStrict, options.cutsAnswers, options.confidence) = (strict, cut, confidence)
        return options
    }
}

/// Measures a model that answered with guessed times, so that the next process predicts its times.
func calibrateAfterAnswer(_ model: AdaptiveModel, _ budget: Budget) async throws {
    guard case .time = budget, await model.wantsCalibration else { return }
    _ = try await model.calibrate(limit: .seconds(2)) { done, total in
        Console.shared.progress("measuring this model, once on this machine", done: done, of: total)
    }
    Console.shared.finishProgress()
}
