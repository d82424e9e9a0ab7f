import AdaLLaVA
import Foundation

/// Whether deadlines are kept on a busy machine, at which budgets, and how well times are predicted.
///
/// One script of neighbours is replayed for each way of answering; the n-th request comes at the same moment of it, with the same deadline.
package struct DeadlineBench: Sendable {
    /// The question.
    package struct Request: Sendable {
        package var question = ""
        package var image: RGBImage?
        /// A made-up prompt, instead of a question.
        package var tokens: [Int] = []
        /// The longest answer; of a made-up prompt the answer's length.
        package var maxTokens = 64
        /// 1 for a right answer, 0 for a wrong one; `nil` without a reference.
        package var score: @Sendable (String) -> Double? = { _ in nil }

        package init() {}
    }

    /// A way of answering.
    package enum Mode: Sendable, Equatable {
        /// Deadlines, with everything.
        case deadline
        /// Without turning anything off while an answer is under way; without the machine's load.
        case withoutChanges, withoutLoad
        /// A fixed budget.
        case fixed(Double)

        package var name: String {
            switch self {
            case .deadline: "deadline"
            case .withoutChanges: "no changes mid-answer"
            case .withoutLoad: "load ignored"
            case .fixed(let budget): String(format: "fixed %.3g", budget)
            }
        }
    }

    package var requests: [Request]
    /// Deadlines, as multiples of the request's time at the full budget on the quiet machine.
    package var factors = 0.7 ... 3.0
    /// Processes that compete with the model.
    package var neighbours = 4
    package var seed: UInt64 = 1
    /// Seconds between two requests, as a multiple of the longest deadline.
    package var spacing = 1.2
    /// Repeats of every fixed budget that an oracle chooses from; 0: no oracle.
    package var oracleRepeats = 0
    package var confidence = 0.97
    /// Answers whose times are predicted and measured, at random budgets.
    package var predictions = 60

    package init(requests: [Request]) { self.requests = requests }

    /// One answer.
    package struct Run: Sendable {
        /// Seconds since the script's beginning.
        package let time: Double
        package let deadline: Double
        package let measured: Double
        package let predicted: Double
        /// Fraction of the switches that ran when the answer began, and at its end.
        package let firstShare: Double, lastShare: Double
        package let load: Double
        package let changes: Int
        package let score: Double?
        package var isInTime: Bool { measured <= deadline }
    }

    /// Predicted and measured milliseconds.
    package struct Prediction: Sendable {
        package let firstToken: (predicted: Double, measured: Double)
        /// For as many tokens as the answer had: its length is not predicted.
        package let whole: (predicted: Double, measured: Double)
    }

    /// The command that starts a busy process: executable, and arguments before the kind.
    package typealias Command = (executable: URL, arguments: [String])

    private func answer(
        _ model: AdaptiveModel, _ request: Request, _ budget: Budget, _ deadlines: DeadlineOptions
    ) async throws -> (summary: AnswerSummary, text: String) {
        if !request.tokens.isEmpty {
            let images = request.image.map { [$0] } ?? []
            let summary = try await model.measure(tokens: request.tokens, images: images, budget: budget, maxTokens: request.maxTokens, deadlines: deadlines)
            return (summary, "")
        }
        var options = GenerationOptions()
        (options.maxTokens, options.reusesEarlierWork, options.deadlines) = (request.maxTokens, false, deadlines)
        let (text, summary) = try await model.answer(
            request.question, images: request.image.map { [$0] } ?? [], budget: budget, options: options
        ).whole()
        return (summary, text)
    }

    /// Predicted against measured times at random budgets.
    package func predict(_ model: AdaptiveModel, onProgress: (Int, Int) -> Void) async throws -> [Prediction] {
        var random = SplitMix64(seed: seed &+ 17)
        var results: [Prediction] = []
        for index in 0 ..< predictions {
            onProgress(index, predictions)
            try Task.checkCancellation()
            let request = requests[Int(random.unit() * Double(requests.count)) % requests.count]
            let budget = model.isAdaptive ? 0.3 + 0.7 * random.unit() : 1
            let (summary, _) = try await answer(model, request, .fraction(budget), DeadlineOptions())
            guard let prediction = summary.prediction else { continue }
            let tokens = Double(max(summary.tokens.count - 1, 0))
            let whole = prediction.times.timeToFirstToken + prediction.perToken * tokens
            results.append(
                Prediction(
                    firstToken: (prediction.times.timeToFirstToken / .milliseconds(1), summary.measured.timeToFirstToken / .milliseconds(1)),
                    whole: (whole / .milliseconds(1), summary.measured.whole / .milliseconds(1))))
        }
        return results
    }

    /// Quiet milliseconds of each request at the full budget, the lower of two.
    package func fullTimes(_ model: AdaptiveModel, onProgress: (Int, Int) -> Void) async throws -> [Double] {
        var times: [Double] = []
        for (index, request) in requests.enumerated() {
            onProgress(index, requests.count)
            try Task.checkCancellation()
            var least = Double.infinity
            for _ in 0 ..< 2 { least = min(least, try await answer(model, request, .full, DeadlineOptions()).summary.measured.whole / .milliseconds(1)) }
            times.append(least)
        }
        return times
    }

    /// The deadline of each request in milliseconds, drawn at random.
    func deadlines(_ full: [Double]) -> [Double] {
        var random = SplitMix64(seed: seed)
        return full.map { $0 * (factors.lowerBound + (factors.upperBound - factors.lowerBound) * random.unit()) }
    }

    /// Milliseconds from one request to the next.
    func period(_ deadlines: [Double]) -> Double { spacing * max(deadlines.max() ?? 1, 5) }

    /// How long one replay of the script takes, in seconds.
    package func seconds(_ full: [Double]) -> Double { period(deadlines(full)) * Double(requests.count) / 1000 }

    /// Replays the script with one way of answering.
    package func replay(
        _ model: AdaptiveModel, _ mode: Mode, full: [Double], command: Command, onProgress: (Int, Int) -> Void
    ) async throws -> [Run] {
        let deadlines = deadlines(full), period = period(deadlines), seconds = seconds(full)
        try await model.forgetErrors()
        let script = NeighbourScript(count: neighbours, seconds: seconds, seed: seed)
        let others = try Neighbours(script, command: command)
        defer { others.stop() }
        var options = DeadlineOptions()
        options.confidence = confidence
        if mode == .withoutChanges { options.changesPlans = false }
        if mode == .withoutLoad { options.followsLoad = false }
        // The script's clock continues during an answer.
        let start = ContinuousClock.now
        let conductor = Task.detached {
            while !Task.isCancelled {
                others.set(time: (ContinuousClock.now - start) / .seconds(1))
                try? await Task.sleep(for: .milliseconds(5))
            }
        }
        defer { conductor.cancel() }
        var runs: [Run] = []
        for (index, request) in requests.enumerated() {
            onProgress(index, requests.count)
            try await Task.sleep(until: start + .milliseconds(period * Double(index)), clock: .continuous)
            let limit = deadlines[index]
            let budget: Budget = if case .fixed(let fraction) = mode { .fraction(fraction) } else { .answer(within: .microseconds(Int64(limit * 1000))) }
            let time = (ContinuousClock.now - start) / .seconds(1)
            let (summary, text) = try await answer(model, request, budget, options)
            runs.append(Run(time: time, deadline: limit, summary, score: request.score(text)))
        }
        // The task may be about to send a signal.
        conductor.cancel()
        await conductor.value
        return runs
    }
}

extension DeadlineBench.Run {
    init(time: Double, deadline: Double, _ summary: AnswerSummary, score: Double?) {
        (self.time, self.deadline, self.score) = (time, deadline, score)
        measured = summary.measured.whole / .milliseconds(1)
        predicted = (summary.prediction?.times.whole ?? .zero) / .milliseconds(1)
        let units = summary.units ?? 0, changes = summary.prediction?.changes ?? []
        lastShare = Double(units)
        firstShare = Double(changes.first?.from ?? units)
        load = summary.prediction?.load ?? 1
        self.changes = changes.count
    }
}
