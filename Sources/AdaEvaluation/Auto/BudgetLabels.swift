import AdaLLaVA
import Foundation

/// A model that answers with any number of units, and gives the outputs of its prefix layers.
package protocol BudgetedModel: AnsweringModel {
    /// Units of the whole model and of its prefix; `nil` if it is not adaptive.
    var budgetUnits: BudgetUnits? { get }
    /// A greedy answer, under a given plan or the scheduler's, and the outputs of the prefix layers.
    func respond(
        to question: String, image: RGBImage?, budget: Budget, plan: ExecutionPlan?, maxTokens: Int
    ) async throws -> (text: String, states: PrefixStates)
}

extension AdaptiveModel: BudgetedModel {
    package func respond(
        to question: String, image: RGBImage?, budget: Budget, plan: ExecutionPlan?, maxTokens: Int
    ) async throws -> (text: String, states: PrefixStates) {
        let states = Handed()
        var options = GenerationOptions()
        (options.maxTokens, options.plan) = (maxTokens, plan)
        options.onStates = { states.value = $0 }
        let text = try await answer(question, images: image.map { [$0] } ?? [], budget: budget, options: options).whole().text
        guard let value = states.value else { throw BudgetError.notAdaptive(budget: 0, model: name) }
        return (text, value)
    }

    /// Written on the model's thread before the answer's summary is delivered.
    private final class Handed: @unchecked Sendable { var value: PrefixStates? }
}

/// The data that a budget head is fitted to: for some inputs, the score at each number of optional units, and the head's input.
package struct BudgetLabels: Sendable, Equatable {
    package let units: BudgetUnits
    /// The last prompt row after the prefix layers, for each input; and the same with a grey picture, which shows what the question's text
    /// alone predicts.
    package private(set) var states: [[Float]] = []
    package private(set) var textStates: [[Float]] = []
    /// Scores by input and optional units, from none to all.
    package private(set) var scores: [[Float]] = []

    package init(units: BudgetUnits) { self.units = units }

    package var count: Int { scores.count }
    package var optional: Int { units.total - units.prefix }

    /// The fraction of the full model's units that so many optional ones are, with the prefix.
    package func share(_ optional: Int) -> Double { Double(units.prefix + optional) / Double(units.total) }

    /// - Parameter scores: for each number of optional units.
    package mutating func add(state: [Float], textState: [Float], scores: [Float]) {
        states.append(state)
        textStates.append(textState)
        self.scores.append(scores)
    }

    /// - Throws: ``EvaluationError`` for labels of a model of another shape.
    package mutating func append(_ other: BudgetLabels) throws {
        guard other.units == units, states.isEmpty || other.states.first?.count == states.first?.count else {
            throw EvaluationError.argument(name: "--labels", expected: "files of one model", found: "files of models of different shapes")
        }
        states += other.states
        textStates += other.textStates
        scores += other.scores
    }

    /// For each input the least optional units from which on the score never falls below the full model's.
    package var leastUnits: [Int] {
        scores.map { scores in
            let full = scores.last ?? 0
            return (scores.lastIndex { $0 < full } ?? -1) + 1
        }
    }

    // MARK: - Making

    /// Answers every sample at every number of units.
    /// - Parameter onProgress: called after each sample.
    /// - Throws: the model's errors, `ImageError`, ``EvaluationError``, `CancellationError`.
    package static func make(
        _ model: some BudgetedModel, _ benchmark: any Benchmark, _ samples: [BenchmarkSample], onProgress: (Int, Int) -> Void = { _, _ in }
    ) async throws -> BudgetLabels {
        guard let units = model.budgetUnits else {
            throw EvaluationError.argument(name: "--model", expected: "a model with a scheduler, whose budgets mean something", found: "one without")
        }
        var labels = BudgetLabels(units: units)
        for (index, sample) in samples.enumerated() {
            let image = try sample.image?.load().image
            var answers: [String] = []
            var state: [Float] = []
            for optional in 0 ... labels.optional {
                try Task.checkCancellation()
                let answer = try await model.respond(
                    to: sample.question, image: image, budget: .fraction(units.fraction(buying: optional)), plan: nil, maxTokens: benchmark.maxTokens)
                answers.append(answer.text)
                state = answer.states.prompt
            }
            let grey = try await model.respond(
                to: sample.question, image: image.flatMap(RGBImage.grey), budget: .fraction(units.floor), plan: nil, maxTokens: 1)
            // Without gold answers the full model's is the right one.
            let scores = answers.map { answer in Float(benchmark.score(answer, for: sample) ?? (answer == answers.last ? 1 : 0)) }
            labels.add(state: state, textState: grey.states.prompt, scores: scores)
            onProgress(index + 1, samples.count)
        }
        return labels
    }

    // MARK: - Files

    /// Writes `states`, `text_states` `[inputs, hidden]`, `scores` `[inputs, optional + 1]` and `units` `[total, prefix]` as safetensors.
    package func write(to url: URL) throws {
        let width = states.first?.count ?? 0
        try SafetensorsWriter.write(
            [
                ("states", [count, width], states.flatMap(\.self)), ("text_states", [count, width], textStates.flatMap(\.self)),
                ("scores", [count, optional + 1], scores.flatMap(\.self)), ("units", [2], [Float(units.total), Float(units.prefix)]),
            ], to: url)
    }

    /// - Throws: `CheckpointError` for a file that is missing, no safetensors, or holds something else.
    package init(contentsOf url: URL) throws {
        let file = try SafetensorsFile(contentsOf: url, needed: "labels that `adallava auto label` wrote")
        func rows(_ name: String) throws -> [[Float]] {
            let tensor = try file.tensor(name)
            guard tensor.shape.count == 2, tensor.shape[1] > 0 else {
                throw CheckpointError.shape(tensor: name, expected: [1, 1], found: tensor.shape, file: url.path)
            }
            let values = try tensor.widened()
            return (0 ..< tensor.shape[0]).map { Array(values[$0 * tensor.shape[1] ..< ($0 + 1) * tensor.shape[1]]) }
        }
        let counts = try file.tensor("units").widened()
        guard counts.count == 2, counts.allSatisfy({ (1 ... 65_536).contains($0) }), counts[0] > counts[1] else {
            throw CheckpointError.malformed(file: url.path, reason: "expected the units of a model and of its prefix, found \(counts)")
        }
        self.init(units: BudgetUnits(total: Int(counts[0]), prefix: Int(counts[1])))
        (states, textStates, scores) = (try rows("states"), try rows("text_states"), try rows("scores"))
        guard states.count == scores.count, textStates.count == scores.count, states.first?.count == textStates.first?.count,
            scores.allSatisfy({ $0.count == optional + 1 })
        else { throw CheckpointError.malformed(file: url.path, reason: "expected as many states as scores, for 0 to \(optional) units") }
    }
}
