import AdaImages
import AdaLLaVA
import Foundation

/// One benchmark, one model, some budgets: computes the missing answers, then scores everything.
///
///     let evaluation = try Evaluation(benchmark: scenes, settings: settings, folder: output)
///     if !evaluation.isComplete { try await evaluation.run(model) { print($0) } }
///     print(try evaluation.report().table)
package final class Evaluation {
    /// Progress of a run in answers, without those of earlier starts.
    package struct Progress: Sendable, Equatable {
        package let done: Int
        package let total: Int
    }

    package let benchmark: any Benchmark
    /// Budgets of the whole run: a folder's earlier budgets come before the new ones.
    package let settings: EvaluationSettings
    private let samples: [BenchmarkSample]
    private let log: AnswerLog?
    private let costs: (any CostReporter)?
    private var answered: [SampleRecord.Key: SampleRecord] = [:]

    /// - Parameter folder: where the run is stored, so that it can be resumed; `nil` keeps it in memory.
    /// - Throws: ``EvaluationError``
    package init(benchmark: any Benchmark, settings: EvaluationSettings, folder: URL? = nil, costs: (any CostReporter)? = nil) throws {
        samples = settings.selection(of: benchmark.samples)
        var ids = Set<String>()
        for sample in benchmark.samples where !ids.insert(sample.id).inserted {
            throw EvaluationError.argument(name: "--data", expected: "each sample once", found: "\(sample.id) twice")
        }
        guard !samples.isEmpty else {
            throw EvaluationError.argument(name: "--data", expected: "at least one sample", found: "none for shard \(settings.shard)")
        }
        log = try folder.map { try AnswerLog(folder: $0, settings: settings) }
        (self.benchmark, self.settings, self.costs) = (benchmark, log?.settings ?? settings, costs)
        for record in log?.earlier ?? [] { answered[record.key] = record }
    }

    /// All shards of a run together; nothing is answered.
    /// - Throws: ``EvaluationError/merge(reason:)`` if the shards are of different runs, one is missing or unfinished.
    package init(merging folders: [URL], benchmark: any Benchmark) throws {
        let parts = try folders.map { try AnswerLog.read(folder: $0) }
        guard let first = parts.first else { throw EvaluationError.merge(reason: "expected the output folders of the shards") }
        settings = first.settings.whole()
        (self.benchmark, log, costs) = (benchmark, nil, nil)
        guard settings.dataFingerprint == EvaluationSettings.fingerprint(of: benchmark) else {
            throw EvaluationError.merge(reason: "\(folders[0].path) was run on other questions than --data has")
        }
        var shards: [Int: URL] = [:]
        for (part, folder) in zip(parts, folders) {
            if let difference = first.settings.difference(from: part.settings, ignoringShard: true) {
                throw EvaluationError.merge(
                    reason: "\(folder.path) has another \(difference.name) than \(folders[0].path): \(difference.found), not \(difference.expected)")
            }
            guard part.settings.shard.count == first.settings.shard.count else {
                throw EvaluationError.merge(reason: "\(folder.path) is shard \(part.settings.shard), \(folders[0].path) is \(first.settings.shard)")
            }
            if let other = shards.updateValue(folder, forKey: part.settings.shard.index) {
                throw EvaluationError.merge(reason: "\(folder.path) and \(other.path) are both shard \(part.settings.shard)")
            }
            for record in part.records { answered[record.key] = record }
        }
        let missing = (1...first.settings.shard.count).filter { shards[$0] == nil }
        guard missing.isEmpty else {
            throw EvaluationError.merge(
                reason: "shard\(missing.count == 1 ? "" : "s") \(missing.map(String.init).joined(separator: ", ")) of \(first.settings.shard.count) missing")
        }
        samples = settings.selection(of: benchmark.samples)
        guard isComplete else {
            let waiting = samples.count * settings.budgets.count - answers
            throw EvaluationError.merge(reason: "\(waiting) answers are missing; let every shard finish first")
        }
    }

    private var completed: [SampleRecord] {
        samples.flatMap { sample in settings.budgets.compactMap { answered[SampleRecord.Key(id: sample.id, budget: $0)] } }
    }

    /// How many answers there are.
    package var answers: Int { completed.count }

    /// Whether every sample is answered at every budget, so that no model is needed.
    package var isComplete: Bool { answers == samples.count * settings.budgets.count }

    /// Computes the missing answers, sample by sample, each at all budgets. Every answer encodes its image anew, and each sample begins with
    /// another budget, so that measured times do not depend on the order of budgets, and load of the machine affects all budgets alike.
    /// - Parameters:
    ///   - damaged: collects damaged images that were read anyway.
    ///   - onProgress: called after each answer.
    /// - Throws: the model's errors, `ImageError`, ``EvaluationError``, `CancellationError`. Earlier answers stay.
    package func run(
        _ model: some AnsweringModel, damaged: DamagedImages = DamagedImages(), onProgress: (Progress) -> Void = { _ in }
    ) async throws {
        let waiting = samples.enumerated().map { index, sample in
            let first = index % settings.budgets.count
            let turns = settings.budgets[first...] + settings.budgets[..<first]
            return (sample: sample, budgets: turns.filter { answered[SampleRecord.Key(id: sample.id, budget: $0)] == nil })
        }.filter { !$0.budgets.isEmpty }
        guard let first = waiting.first else { return }
        let total = waiting.reduce(0) { $0 + $1.budgets.count }
        var done = 0
        // The first answer after loading finds cold caches; it is not measured.
        _ = try await model.respondAfresh(
            to: first.sample.question, image: try first.sample.image?.load().image, budget: first.budgets[0], maxTokens: settings.maxTokens)
        for (sample, budgets) in waiting {
            let image = try sample.image?.load()
            damaged.note(image?.damage)
            for budget in budgets {
                try Task.checkCancellation()
                let response = try await model.respondAfresh(to: sample.question, image: image?.image, budget: budget, maxTokens: settings.maxTokens)
                let cost = try costs?.cost(
                    plan: response.plan, promptTokens: response.promptTokens, imageTokens: response.imageTokens, generatedTokens: response.generatedTokens)
                let record = SampleRecord(
                    sample, task: sample.tags["task"] ?? settings.task, budget: budget, response: response,
                    score: benchmark.score(response.text, for: sample), cost: cost, damage: image?.damage)
                try log?.append(record)
                answered[record.key] = record
                done += 1
                onProgress(Progress(done: done, total: total))
            }
        }
    }

    /// The report of the answers so far.
    package func report() -> EvaluationReport {
        EvaluationReport(settings: settings, benchmark: benchmark, results: settings.budgets.map(result), isComplete: isComplete)
    }

    private func result(budget: Budget) -> EvaluationReport.Result {
        let records = samples.compactMap { sample in
            answered[SampleRecord.Key(id: sample.id, budget: budget)].map { (sample: sample, record: $0) }
        }
        let answers = records.map { AnsweredSample($0.sample, $0.record.answer) }
        return EvaluationReport.Result(budget: budget, scores: benchmark.scores(answers), records: records.map(\.record))
    }

    /// The files that the benchmark's server takes, one for each budget: name and contents.
    /// - Throws: ``EvaluationError``
    package func submissions() throws -> [(name: String, data: Data)] {
        try settings.budgets.compactMap { budget in
            let answers = samples.compactMap { sample in
                answered[SampleRecord.Key(id: sample.id, budget: budget)].map { AnsweredSample(sample, $0.answer) }
            }
            return try benchmark.submission(answers).map { ("submission-\(budget).json", $0) }
        }
    }
}
