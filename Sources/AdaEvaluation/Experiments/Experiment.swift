import AdaLLaVA
import Foundation

/// Result of an experiment, for people and programs.
package protocol ExperimentReport: Sendable {
    /// `sweep`, `requests`, `linearity`, `throughput`: also the name of its files.
    static var name: String { get }
    var repeats: ExperimentRepeats { get }
    var environment: ExperimentEnvironment { get }
    /// Models that were measured.
    var models: [ExperimentModel] { get }
    /// Facts about the models that the table does not contain.
    var modelLines: [String] { get }
    /// The experiment's own members of its JSON.
    associatedtype Details: Codable & Sendable
    var details: Details { get }
    /// One line for each result under one of names (RFC 4180).
    var csv: String { get }
    /// Lines for people, without machine and models.
    var lines: [String] { get }
    /// gnuplot's script that draws the results into `path`.
    func chartScript(to path: String, format: ChartFormat) -> String
}

extension ExperimentReport {
    /// Everything, with machine, models, build and the number of repeats.
    package var json: ExperimentJSON<Details> {
        ExperimentJSON(
            joining: ExperimentJSON.Common(
                experiment: Self.name, environment: environment, models: models.map(\.json), repeats: repeats, complete: !repeats.wasStopped),
            details)
    }

    /// The models and the machine.
    package var headerLines: [String] { environment.lines + modelLines }

    package var modelLines: [String] { models.map(\.line) }

    /// Writes `NAME.json` and `NAME.csv`.
    /// - Throws: ``EvaluationError``
    package func write(to folder: URL) throws {
        try RunFiles.write(RunFiles.encode(json), to: folder.appendingPathComponent(Self.name + ".json"))
        try RunFiles.write(Data(csv.utf8), to: folder.appendingPathComponent(Self.name + ".csv"))
    }

    /// - Throws: ``EvaluationError``
    package func draw(to url: URL, format: ChartFormat, plotter: Gnuplot) throws {
        try plotter.run(to: url) { chartScript(to: $0, format: format) }
    }
}

/// The output of `bench EXPERIMENT --json`. The members of ``Common`` and of the experiment's details are those of one object.
package struct ExperimentJSON<Details: Codable & Sendable>: JoinedMembers, Sendable {
    package var common: Common
    package var details: Details

    /// Members of every experiment.
    package struct Common: Codable, Sendable {
        /// `sweep`, `requests`, `linearity`, `throughput`, `kernels`, `deadline`, `slo`.
        package var experiment: String
        package var environment: ExperimentEnvironment
        package var models: [ExperimentModel.JSON]
        package var repeats: ExperimentRepeats
        /// Whether all repeats were made.
        package var complete: Bool
    }

    package init(joining common: Common, _ details: Details) { (self.common, self.details) = (common, details) }

    package var joined: (Common, Details) { (common, details) }
}

/// How often everything was measured.
package struct ExperimentRepeats: Codable, Sendable, Equatable {
    /// Whole repeats that were made.
    package let done: Int
    package let asked: Int

    /// Whether the experiment was stopped before its end.
    package var wasStopped: Bool { done < asked }
}

/// How far an experiment is.
package struct ExperimentProgress: Sendable, Equatable {
    /// Measurements made, the warm-up's included.
    package let done: Int
    package let total: Int
    /// The current measurement.
    package let detail: String
}

/// Measures some cases repeatedly, one of each per round, so that other load of the machine affects all alike.
///
/// Each round begins with another case, so that none always follows the same one. The first round warms caches and the processor's clock,
/// and is not counted.
struct InterleavedRounds {
    /// `nil` takes as many as fit ``usualTime``, within ``usualRepeats``, so that short measurements are repeated more often.
    let repeats: Int?
    let cases: Int

    static let usualTime = Duration.seconds(20)
    static let usualRepeats = 9 ... 101

    /// - Parameter round: the duration of the warm-up.
    static func repeats(round: Duration) -> Int {
        let fitting = usualTime / max(round, .microseconds(1))
        return min(max(Int(min(fitting, 1e6)), usualRepeats.lowerBound), usualRepeats.upperBound)
    }

    /// - Parameter measure: called with the case's index and whether the result counts.
    /// - Returns: the completed repeats: fewer than requested if the task was cancelled after the first.
    /// - Throws: errors of `measure`; `CancellationError` before the first repeat is complete.
    func run(
        name: (Int) -> String, onProgress: (ExperimentProgress) -> Void, measure: (_ index: Int, _ counts: Bool) async throws -> Void
    ) async throws -> ExperimentRepeats {
        var rounds = 0
        var repeats = self.repeats ?? InterleavedRounds.usualRepeats.lowerBound
        let start = ContinuousClock.now
        do {
            var round = 0
            while round <= repeats {
                for step in 0 ..< cases {
                    let index = (step + round) % cases
                    try Task.checkCancellation()
                    onProgress(ExperimentProgress(done: round * cases + step, total: (repeats + 1) * cases, detail: name(index)))
                    try await measure(index, round > 0)
                }
                if round == 0, self.repeats == nil { repeats = InterleavedRounds.repeats(round: ContinuousClock.now - start) }
                rounds = round
                round += 1
            }
        } catch is CancellationError where rounds > 0 {
            return ExperimentRepeats(done: rounds, asked: repeats)
        }
        return ExperimentRepeats(done: repeats, asked: repeats)
    }
}

/// Checks an experiment's numbers.
enum ExperimentLimits {
    static let repeats = 1 ... 1000
    static let tokens = 1 ... 1 << 17

    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    static func require(_ value: Int, in range: ClosedRange<Int>, _ name: String) throws {
        guard !range.contains(value) else { return }
        throw EvaluationError.argument(name: name, expected: "\(range.lowerBound) to \(range.upperBound)", found: "\(value)")
    }

    /// Budgets in (0, 1], each once, at least one.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``, `BudgetError`
    static func require(budgets: [Double]) throws {
        guard !budgets.isEmpty else {
            throw EvaluationError.argument(name: "--budgets", expected: "fractions with commas between them, such as 1.0,0.8", found: "none")
        }
        for (index, budget) in budgets.enumerated() {
            _ = try Budget.fraction(budget).validFraction()
            if budgets[..<index].contains(budget) {
                throw EvaluationError.argument(name: "--budgets", expected: "each budget once", found: String(format: "%g twice", budget))
            }
        }
    }
}
