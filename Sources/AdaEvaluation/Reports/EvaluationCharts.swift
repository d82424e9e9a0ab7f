import AdaLLaVA
import Foundation

/// The charted values of a run: one point for each budget.
package struct ChartedRun: Sendable, Equatable {
    package struct Point: Sendable, Equatable {
        /// A fraction; for a budget that differs between inputs, the mean fraction that ran.
        package let budget: Double
        /// The budget as it was given.
        package let label: String
        package let score: Double
        /// Mean time to the first token, milliseconds.
        package let timeToFirstToken: Double?
        /// Mean time of the whole answer, milliseconds.
        package let wholeAnswer: Double?
    }

    package let model: String
    package let task: String
    package let score: String
    package let points: [Point]

    init(_ report: EvaluationReport) {
        (model, task, score) = (report.model, report.task, report.mainScore ?? "")
        points = report.results.compactMap { result in
            result.scores.first { $0.name == report.mainScore }.map { score in
                Point(
                    budget: ChartedRun.fraction(result.budget) ?? result.executedShare, label: result.budget.description, score: score.value, timeToFirstToken: result.meanTime("ttft_ms"),
                    wholeAnswer: ChartedRun.whole(firstToken: result.meanTime("ttft_ms"), decode: result.meanTime("decode_ms")))
            }
        }
    }

    /// - Parameter url: a `result.json` that ``EvaluationReport/write(to:submissions:)`` wrote.
    /// - Throws: `CheckpointError`, ``EvaluationError``
    package init(contentsOf url: URL) throws {
        let file = try JSONPlace(contentsOf: url, needed: "the result.json of an evaluation")
        model = try file.member("model").string()
        task = try file.member("task").string()
        let score = try file.member("main_score").string()
        self.score = score
        points = try file.member("results").array().map { result in
            func mean(_ name: String) throws -> Double? {
                try result.optionalMember("measured")?.optionalMember(name)?.optionalMember("mean")?.number()
            }
            let given = try result.member("budget")
            let budget = try? Budget(parsing: given.string())
            return Point(
                budget: try budget == nil ? given.number() : result.member("executed_share").number(),
                label: try budget?.description ?? String(format: "%g", given.number()), score: try result.member("scores").member(score).number(),
                timeToFirstToken: try mean("ttft_ms"),
                wholeAnswer: ChartedRun.whole(firstToken: try mean("ttft_ms"), decode: try mean("decode_ms")))
        }
    }

    private static func fraction(_ budget: Budget) -> Double? { if case .fraction(let fraction) = budget { fraction } else { nil } }

    /// The time to the first token also has the wait for other requests, which the phases' times leave out.
    private static func whole(firstToken: Double?, decode: Double?) -> Double? {
        guard let firstToken, let decode else { return nil }
        return firstToken + decode
    }
}

extension JSONPlace {
    func number() throws -> Double {
        switch value {
        case .integer(let number): return Double(number)
        case .number(let number): return number
        default: throw failure("a number")
        }
    }
}

/// The charts of some runs of one benchmark.
enum EvaluationCharts {
    /// Those points that no other is both faster and better than, by rising time.
    static func paretoFront(_ points: [(time: Double, score: Double)]) -> [(time: Double, score: Double)] {
        var front: [(time: Double, score: Double)] = []
        for point in points.sorted(by: { ($0.time, -$0.score) < ($1.time, -$1.score) }) where point.score > front.last?.score ?? -.infinity {
            front.append(point)
        }
        return front
    }

    /// File names without their ending, and charts.
    static func all(_ runs: [ChartedRun]) -> [(name: String, chart: Chart)] {
        guard let first = runs.first(where: { !$0.points.isEmpty }) else { return [] }
        let title = "\(first.task): \(runs.count == 1 ? first.model : "\(runs.count) runs")"
        // Fractions, or MME's points.
        let isFraction = runs.flatMap(\.points).allSatisfy { $0.score <= 1 }
        let score = first.score.replacingOccurrences(of: "_", with: " ") + (isFraction ? " (fraction)" : " (points)")
        var byBudget = Chart(title: title, xLabel: "budget (fraction of full compute)", yLabel: score, series: [])
        var byTime = Chart(title: title, xLabel: "mean time to the first token (ms); at the points: budget", yLabel: score, series: [])
        var front = Chart(title: "\(title): Pareto front", xLabel: "mean time of the whole answer (ms); at the points: budget", yLabel: score, series: [])
        for run in runs {
            let points = run.points.sorted { $0.budget < $1.budget }
            byBudget.series.append(Chart.Series(name: run.model, points: points.map { ($0.budget, $0.score) }))
            let timed = points.compactMap { point in point.timeToFirstToken.map { (x: $0, y: point.score, label: point.label) } }
            byTime.series.append(Chart.Series(name: run.model, points: timed.map { ($0.x, $0.y) }))
            byTime.labels += timed.map { ($0.x, $0.y, $0.label) }
            let whole = points.compactMap { point in point.wholeAnswer.map { (x: $0, y: point.score, label: point.label) } }
            front.series.append(Chart.Series(name: run.model, points: whole.map { ($0.x, $0.y) }, style: .points))
            front.labels += whole.map { ($0.x, $0.y, $0.label) }
        }
        let best = paretoFront(front.series.flatMap(\.points).map { (time: $0.x, score: $0.y) })
        front.series.append(Chart.Series(name: "Pareto front", points: best.map { ($0.time, $0.score) }, style: .steps))
        return [("score-by-budget", byBudget), ("score-by-time", byTime), ("pareto-front", front)].map { name, chart in
            var chart = chart
            chart.minimumHeight = isFraction ? 0.1 : 100
            chart.yLimit = isFraction ? 1 : nil
            return (name, chart)
        }
    }
}

extension EvaluationReport {
    /// Writes `result.json`, `result.csv` and the benchmark server's files.
    /// - Throws: ``EvaluationError``
    package func write(to folder: URL, submissions: [(name: String, data: Data)] = []) throws {
        do {
            try Files.createFolder(folder)
        } catch {
            throw EvaluationError.file(path: folder.path, reason: "cannot be made: \(error.localizedDescription)")
        }
        try RunFiles.write(try jsonData(), to: folder.appendingPathComponent("result.json"))
        try RunFiles.write(Data(csv.utf8), to: folder.appendingPathComponent("result.csv"))
        for submission in submissions { try RunFiles.write(submission.data, to: folder.appendingPathComponent(submission.name)) }
    }

    /// Draws accuracy against budget and against time, and the Pareto front of this run and `others`.
    /// - Returns: the files; none for a benchmark without scores.
    /// - Throws: ``EvaluationError``, also if another run is of another benchmark or score.
    package func draw(with others: [ChartedRun] = [], in folder: URL, format: ChartFormat, plotter: Gnuplot) throws -> [URL] {
        let own = ChartedRun(self)
        for other in others where other.task != own.task || other.score != own.score {
            throw EvaluationError.argument(name: "--compare", expected: "runs of \(own.task) with \(own.score)", found: "\(other.task) with \(other.score)")
        }
        return try EvaluationCharts.all([own] + others).map { name, chart in
            let file = folder.appendingPathComponent("\(name).\(format.rawValue)")
            try plotter.draw(chart, to: file, format: format)
            return file
        }
    }
}
