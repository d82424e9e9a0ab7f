import AdaLLaVA
import Foundation

/// Results of ``SloBench``.
package struct SloReport: ExperimentReport {
    package static let name = "slo"
    package let environment: ExperimentEnvironment
    package let models: [ExperimentModel]
    package let repeats = ExperimentRepeats(done: 1, asked: 1)
    let bench: SloBench
    /// Requests a second at the full budget.
    let capacity: Double
    /// Seconds that requests take by themselves, and that they were allowed.
    let times: [(full: Double, floor: Double)], allowed: [Double?]
    let runs: [SloBench.Run]
    /// By load: mean budget of an optimum that knows all arrivals and lengths, over interactive requests, 0 for those that it leaves out.
    let optimum: [Double: Double]

    init(
        environment: ExperimentEnvironment, model: ExperimentModel, bench: SloBench, capacity: Double, times: [(full: Double, floor: Double)],
        allowed: [Double?], runs: [SloBench.Run]
    ) {
        (self.environment, models, self.bench, self.capacity) = (environment, [model], bench, capacity)
        (self.times, self.allowed, self.runs) = (times, allowed, runs)
        var optimum: [Double: Double] = [:]
        for load in Set(runs.map(\.load)) { optimum[load] = SloReport.optimum(bench, capacity, times, allowed, load: load) }
        self.optimum = optimum
    }

    /// The machine works as fast as at its capacity, whatever it works on: so many seconds of requests by themselves in a second.
    private static func optimum(
        _ bench: SloBench, _ capacity: Double, _ times: [(full: Double, floor: Double)], _ allowed: [Double?], load: Double
    ) -> Double {
        let speed = capacity * (times.map(\.full).mean ?? 1), steps = max(bench.steps, 1)
        let interactive = allowed.indices.filter { allowed[$0] != nil }
        let jobs = interactive.map { index in
            let arrival = bench.trace.requests[index].arrival * bench.seconds / load
            return SloOptimum.Job(
                arrival: arrival, deadline: arrival + (allowed[index] ?? 0), floor: times[index].floor / speed,
                step: max(times[index].full - times[index].floor, 0) / speed / Double(steps))
        }
        let budgets = SloOptimum(jobs, steps: steps).steps.map { $0.map { bench.floor + (1 - bench.floor) * Double($0) / Double(steps) } ?? 0 }
        return budgets.mean ?? 0
    }

    struct Row {
        let load: Double
        let policy: SloBench.Policy
        /// Of interactive requests: how many there were, in time, and refused; of bulk work: how many were answered.
        let interactive: Int, inTime: Int, refused: Int, bulk: Int, bulkAnswered: Int
        /// Mean budget of interactive requests, 0 for those that are late or refused; and over the optimum's.
        let budget: Double, ofOptimum: Double?
        /// Milliseconds to the first token of those that were answered.
        let firstToken: SampleStatistics?
        /// The smallest part of its fair share that a key got.
        let leastShare: Double
        let tokensPerSecond: Double

        var share: Double { Double(inTime) / Double(max(interactive, 1)) }
    }

    private func row(_ run: SloBench.Run) -> Row {
        let interactive = allowed.indices.filter { allowed[$0] != nil }, bulk = allowed.indices.filter { allowed[$0] == nil }
        let outcomes = run.outcomes
        let budget = interactive.map { outcomes[$0].isInTime ? outcomes[$0].budget : 0 }.mean ?? 0
        let tokens = outcomes.indices.reduce(0) { outcomes[$1].whole == nil ? $0 : $0 + bench.trace.requests[$1].answer }
        return Row(
            load: run.load, policy: run.policy, interactive: interactive.count, inTime: interactive.count { outcomes[$0].isInTime },
            refused: interactive.count { outcomes[$0].whole == nil }, bulk: bulk.count, bulkAnswered: bulk.count { outcomes[$0].whole != nil }, budget: budget,
            ofOptimum: optimum[run.load].flatMap { $0 > 0 ? budget / $0 : nil }, firstToken: SampleStatistics(outcomes.compactMap { $0.firstToken.map { 1000 * $0 } }),
            leastShare: SloReport.leastShare(served: served(run), asked: asked), tokensPerSecond: Double(tokens) / max(run.seconds, 1e-9))
    }

    private func tokens(_ request: SloTrace.Request) -> Double { Double(request.prompt + request.images * bench.imageTokens + 2 * request.answer) }

    /// Tokens that each key requested, and that it was given in time.
    private var asked: [Double] { sums { _ in true } }

    private func served(_ run: SloBench.Run) -> [Double] { sums { run.outcomes[$0].isInTime } }

    private func sums(_ counts: (Int) -> Bool) -> [Double] {
        var sums = [Double](repeating: 0, count: SloTrace.keyShares.count)
        for (index, request) in bench.trace.requests.enumerated() where counts(index) { sums[request.key] += tokens(request) }
        return sums
    }

    /// The smallest fraction of its fair share that a key got. By max-min fairness the share is the key's demand, or, if that is less, an equal part of
    /// the served tokens that keys of smaller demand leave.
    static func leastShare(served: [Double], asked: [Double]) -> Double {
        var left = served.reduce(0, +), fair = [Double](repeating: 0, count: asked.count)
        let order = asked.indices.sorted { asked[$0] < asked[$1] }
        for (place, key) in order.enumerated() {
            fair[key] = min(asked[key], left / Double(order.count - place))
            left -= fair[key]
        }
        return fair.indices.filter { fair[$0] > 0 }.map { served[$0] / fair[$0] }.min() ?? 1
    }

    var rows: [Row] { runs.map(row) }

    /// Requests a second, interactive and bulk, up to which a policy answers 99 % of the interactive ones in time; between two loads on the line between their
    /// shares. `nil` if the smallest load is already too much.
    func rate(_ policy: SloBench.Policy) -> Double? {
        let rows = rows.filter { $0.policy == policy }.sorted { $0.load < $1.load }
        guard let first = rows.first, first.share >= SloReport.wanted else { return nil }
        var last = first
        for row in rows.dropFirst() {
            if row.share < SloReport.wanted {
                return capacity * (last.load + (row.load - last.load) * (last.share - SloReport.wanted) / max(last.share - row.share, 1e-9))
            }
            last = row
        }
        return capacity * last.load
    }

    private static let wanted = 0.99

    package var lines: [String] {
        var lines = [
            "", String(
                format: "%d requests, %.2f a second at the full budget; %.0f s at a load of 1; deadlines of %g to %g times the time alone", bench.trace.requests.count,
                capacity, bench.seconds, SloTrace.deadlineFactors.lowerBound, SloTrace.deadlineFactors.upperBound), "",
            "load   policy                  in time            refused   budget   of the optimum's   first token p50, p99 (ms)   least share   tokens/s",
        ]
        for row in rows {
            let time = row.firstToken.map { String(format: "%.0f, %.0f", $0.median, $0.percentile(99)) } ?? "-"
            lines.append(
                String(format: "%-6g ", row.load) + row.policy.rawValue.padding(toLength: 22, withPad: " ", startingAt: 0)
                    + String(format: "%5d of %-5d %5.1f %% %9d   %.3f   ", row.inTime, row.interactive, 100 * row.share, row.refused, row.budget)
                    + (row.ofOptimum.map { String(format: "%16.2f", $0) } ?? "               -") + time.padding(toLength: 28, withPad: " ", startingAt: 0).leading(3)
                    + String(format: "%11.2f %10.0f", row.leastShare, row.tokensPerSecond))
        }
        lines.append("")
        for policy in SloBench.Policy.allCases where runs.contains(where: { $0.policy == policy }) {
            let rate = rate(policy).map { String(format: "%.2f requests/s", $0) } ?? "less than the smallest load"
            lines.append("99 % in time up to: \(policy.rawValue.padding(toLength: 24, withPad: " ", startingAt: 0)) \(rate)")
        }
        return lines
    }

    package var csv: String {
        var text = "load,policy,request,key,arrival_s,prompt,images,answer,allowed_s,ttft_s,whole_s,budget,in_time\r\n"
        for run in runs {
            for (index, outcome) in run.outcomes.enumerated() {
                let request = bench.trace.requests[index]
                let number = { (value: Double?) in value.map { String(format: "%.4f", $0) } ?? "" }
                text += "\(run.load),\"\(run.policy.rawValue)\",\(index),\(request.key),\(number(request.arrival * bench.seconds / run.load)),\(request.prompt),"
                    + "\(request.images),\(request.answer),\(number(outcome.allowed)),\(number(outcome.firstToken)),\(number(outcome.whole)),"
                    + "\(number(outcome.budget)),\(outcome.isInTime ? 1 : 0)\r\n"
            }
        }
        return text
    }

    package struct Details: Codable, Sendable {
        package var capacityPerSecond: Double
        package var seconds: Double
        package var requests: Int
        package var floor: Double
        package var optimum: [Optimum]
        /// By policy; `null` if the smallest load is already too much.
        package var rateAt99Percent: [String: Double?]
        package var runs: [RunJSON]

        enum CodingKeys: String, CodingKey {
            case seconds, requests, floor, optimum, runs
            case capacityPerSecond = "capacity_per_second"
            case rateAt99Percent = "rate_at_99_percent"
        }

        package struct Optimum: Codable, Sendable {
            package var load: Double
            package var budget: Double
        }

        /// One load and one policy.
        package struct RunJSON: Codable, Sendable {
            package var load: Double
            package var policy: String
            package var interactive: Int
            package var inTime: Int
            package var refused: Int
            package var bulk: Int
            package var bulkAnswered: Int
            package var budget: Double
            @Nullable package var ofOptimum: Double?
            package var leastShare: Double
            package var tokensPerSecond: Double
            package var ttftMs: Percentiles

            enum CodingKeys: String, CodingKey {
                case load, policy, interactive, refused, bulk, budget
                case inTime = "in_time"
                case bulkAnswered = "bulk_answered"
                case ofOptimum = "of_optimum"
                case leastShare = "least_share"
                case tokensPerSecond = "tokens_per_second"
                case ttftMs = "ttft_ms"
            }
        }

        /// Empty if no request was answered.
        package struct Percentiles: Codable, Sendable {
            package var mean, p50, p90, p99: Double?

            init(_ statistics: SampleStatistics?) {
                let percentiles = statistics?.percentiles
                (mean, p50, p90, p99) = (percentiles?.mean, percentiles?.p50, percentiles?.p90, percentiles?.p99)
            }
        }
    }

    package var details: Details {
        Details(
            capacityPerSecond: capacity, seconds: bench.seconds, requests: bench.trace.requests.count, floor: bench.floor,
            optimum: optimum.sorted { $0.key < $1.key }.map { Details.Optimum(load: $0.key, budget: $0.value) },
            rateAt99Percent: Dictionary(uniqueKeysWithValues: SloBench.Policy.allCases.map { ($0.rawValue, rate($0)) }),
            runs: rows.map { row in
                Details.RunJSON(
                    load: row.load, policy: row.policy.rawValue, interactive: row.interactive, inTime: row.inTime, refused: row.refused, bulk: row.bulk,
                    bulkAnswered: row.bulkAnswered, budget: row.budget, ofOptimum: row.ofOptimum, leastShare: row.leastShare,
                    tokensPerSecond: row.tokensPerSecond, ttftMs: Details.Percentiles(row.firstToken))
            })
    }

    /// The share in time of each policy, and our budget beside the optimum's, by load.
    package func chartScript(to path: String, format: ChartFormat) -> String {
        let rows = rows
        var series = SloBench.Policy.allCases.map { policy in
            Chart.Series(name: "in time: " + policy.rawValue, points: rows.filter { $0.policy == policy }.map { ($0.load, $0.share) })
        }.filter { !$0.points.isEmpty }
        series.append(Chart.Series(name: "mean budget: ours", points: rows.filter { $0.policy == .ours }.map { ($0.load, $0.budget) }))
        series.append(Chart.Series(name: "mean budget: optimum", points: optimum.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }))
        var chart = Chart(title: "Interactive requests by load", xLabel: "rate of requests over the capacity at the full budget", yLabel: "share; budget", series: series)
        (chart.minimumHeight, chart.yLimit) = (1, 1)
        return Gnuplot.script(chart, to: path, format: format)
    }
}

extension String {
    fileprivate func leading(_ spaces: Int) -> String { String(repeating: " ", count: spaces) + self }
}
