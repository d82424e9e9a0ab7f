import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// The hand-made sample folders, and places to write to.
enum Samples {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    static let folder = root.appendingPathComponent("Tests/Fixtures/benchmarks")

    static func url(_ path: String) -> URL { folder.appendingPathComponent(path) }

    /// A new empty folder that `body` may fill; it is removed afterwards.
    static func withFolder<Result>(_ body: (URL) async throws -> Result) async throws -> Result {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("eval-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: url) }
        return try await body(url)
    }
}

/// A benchmark's answers by sample, and its scores by name.
extension Benchmark {
    func scores(_ answers: [String: String]) -> [String: Double] {
        let answered = samples.compactMap { sample in answers[sample.id].map { AnsweredSample(sample, $0) } }
        return Dictionary(scores(answered).map { ($0.name, $0.value) }) { first, _ in first }
    }

    func sample(_ id: String) throws -> BenchmarkSample { try #require(samples.first { $0.id == id }) }
}

/// Answers with the question's length and the budget, or as told; counts what it was asked; can fail after some answers.
final class ScriptedModel: AnsweringModel, @unchecked Sendable {
    struct Stopped: Error {}
    private let lock = NSLock()
    private var asked: [String] = []
    private var asksAfresh = 0
    private let answers: [String: String]
    private let failsAfter: Int

    init(answers: [String: String] = [:], failsAfter: Int = .max) { (self.answers, self.failsAfter) = (answers, failsAfter) }

    var count: Int { lock.withLock { asked.count } }
    /// How many of them may reuse nothing that was computed before.
    var afresh: Int { lock.withLock { asksAfresh } }

    func respondAfresh(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        lock.withLock { asksAfresh += 1 }
        return try await respond(to: question, image: image, budget: budget, maxTokens: maxTokens)
    }

    func respond(to question: String, image: RGBImage?, budget: Budget, maxTokens: Int) async throws -> ModelResponse {
        let number = lock.withLock {
            asked.append(question)
            return asked.count
        }
        if number > failsAfter { throw Stopped() }
        let budget = try #require(try budget.validFraction().map(Double.init))
        var measured = PhaseTimes()
        measured.decode = .milliseconds(30)
        measured.timeToFirstToken = .milliseconds(number)
        let plan = ExecutionPlan(
            headCount: 2, rows: [.init(heads: [0, 1], groups: [0, 1]), .init(heads: budget < 1 ? [] : [0, 1], groups: budget < 1 ? [] : [1, 0])])
        return ModelResponse(
            text: answers[question] ?? "\(question.count) \(budget)", plan: plan, units: 1, promptTokens: 9, generatedTokens: 4, keyValueBytes: 64,
            measured: measured)
    }
}

func settings(
    _ benchmark: any Benchmark, task: String = "scenes", budgets: [Budget] = [1, 0.6], limit: Int? = nil, seed: UInt64? = nil,
    shard: Shard = .whole
) throws -> EvaluationSettings {
    try EvaluationSettings(
        task: task, benchmark: benchmark, model: "scripted", modelFingerprint: "0", computation: "none", budgets: budgets, limit: limit,
        seed: seed, shard: shard)
}

/// The typed error that `body` throws; anything else is recorded as a failure.
func engineError(_ comment: String, _ body: () throws -> Void) -> (any AdaLLaVAError)? {
    do {
        try body()
        Issue.record("expected an error: \(comment)")
    } catch let error as any AdaLLaVAError {
        return error
    } catch {
        Issue.record("expected a typed error for \(comment), got \(error)")
    }
    return nil
}
