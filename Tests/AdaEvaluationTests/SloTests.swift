import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// Traces, the optimum, and what the report makes of replays.
@Suite struct SloTests {
    @Test("a trace has the published shape, and the same seed gives the same one") func trace() {
        let trace = SloTrace(count: 4000, context: 1 << 20, imageTokens: 576, scale: 1, seed: 3)
        #expect(trace == SloTrace(count: 4000, context: 1 << 20, imageTokens: 576, scale: 1, seed: 3) && trace != SloTrace(count: 4000, context: 1 << 20, imageTokens: 576, scale: 1, seed: 4))
        func median(_ values: [Int]) -> Double { Double(values.sorted()[values.count / 2]) }
        func near(_ value: Double, _ expected: Double, _ share: Double = 0.1) -> Bool { abs(value / expected - 1) < share }
        #expect(near(median(trace.requests.filter { $0.images == 0 }.map(\.prompt)), SloTrace.medianPrompt))
        #expect(near(median(trace.requests.map(\.answer)), SloTrace.medianAnswer))
        #expect(near(Double(trace.requests.count { $0.images > 0 }) / 4000, SloTrace.imageShare))
        #expect(near(Double(trace.requests.count { $0.deadlineFactor != nil }) / 4000, SloTrace.interactiveShare))
        for (key, share) in SloTrace.keyShares.enumerated() { #expect(near(Double(trace.requests.count { $0.key == key }) / 4000, share, 0.15)) }
        #expect(trace.requests.compactMap(\.deadlineFactor).allSatisfy(SloTrace.deadlineFactors.contains))
        let arrivals = trace.requests.map(\.arrival), gaps = zip(arrivals.dropFirst(), arrivals).map { $0 - $1 }
        #expect(gaps.allSatisfy { $0 >= 0 } && abs((arrivals.last ?? 0) - 1) < 1e-9)
        let mean = gaps.reduce(0, +) / Double(gaps.count), variance = gaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(gaps.count)
        #expect(near(variance.squareRoot() / mean, SloTrace.burstiness))
        // Everything fits, also in a small context, and models without a tower see no images.
        for (context, image) in [(1024, 49), (600, 576), (64, nil)] as [(Int, Int?)] {
            let small = SloTrace(count: 500, context: context, imageTokens: image, seed: 1)
            #expect(small.requests.allSatisfy { $0.prompt >= 1 && $0.answer >= 1 && $0.prompt + $0.images * (image ?? 0) + $0.answer + 2 <= max(context, (image ?? 0) + 4) })
            #expect(image != nil || small.requests.allSatisfy { $0.images == 0 })
        }
    }

    @Test("what requests take alone is fitted from some of them") func isolated() {
        let requests = SloTrace(count: 30, context: 4096, imageTokens: 100, seed: 2).requests
        func truth(_ request: SloTrace.Request) -> Double {
            0.01 + 0.001 * Double(request.prompt + 100 * request.images) + 0.2 * Double(request.images) + 0.02 * Double(request.answer)
        }
        let fitted = IsolatedTimes(requests, seconds: requests.map(truth), imageTokens: 100)
        for request in SloTrace(count: 50, context: 4096, imageTokens: 100, seed: 9).requests {
            #expect(abs(fitted.seconds(request, imageTokens: 100) / truth(request) - 1) < 0.05)
        }
    }

    /// Whether jobs can be in time: in no interval more work begins and ends than it is long (Baruah, Mok and Rosier, 1990).
    private static func isFeasible(_ jobs: [SloOptimum.Job], _ steps: [Int?]) -> Bool {
        jobs.allSatisfy { first in
            jobs.allSatisfy { last in
                let work = jobs.indices.reduce(0.0) { sum, index in
                    guard let step = steps[index], jobs[index].arrival >= first.arrival, jobs[index].deadline <= last.deadline else { return sum }
                    return sum + jobs[index].floor + Double(step) * jobs[index].step
                }
                return work <= 1e-7 + max(last.deadline - first.arrival, 0) || work == 0
            }
        }
    }

    // A difference means that the optimum that we are compared with is none, or cannot be kept by anybody.
    @Test("the optimum keeps all deadlines, and no budget in it can be larger") func optimum() {
        var random = SplitMix64(seed: 5), left = 0, cut = 0
        for _ in 0 ..< 200 {
            let jobs = (0 ..< 1 + random.index(below: 8)).map { _ in
                let arrival = 10 * random.unit(), floor = 0.2 + 2 * random.unit()
                return SloOptimum.Job(arrival: arrival, deadline: arrival + floor * (0.8 + 4 * random.unit()), floor: floor, step: random.unit())
            }
            let steps = SloOptimum(jobs, steps: 4).steps
            #expect(Self.isFeasible(jobs, steps) && steps.allSatisfy { $0.map { (0 ... 4).contains($0) } ?? true })
            for index in jobs.indices {
                guard let step = steps[index] else { left += 1; continue }
                if step == 4 { continue }
                cut += 1
                var more = steps
                more[index] = step + 1
                #expect(!Self.isFeasible(jobs, more))
            }
            // Nobody is left out of what can be done.
            if Self.isFeasible(jobs, jobs.map { _ in 0 }) { #expect(!steps.contains(nil)) }
        }
        #expect(left > 20 && cut > 20)
    }

    @Test("a key's share is what it asked for, or an equal part of what others leave") func shares() {
        #expect(SloReport.leastShare(served: [10, 10], asked: [10, 10]) == 1)
        #expect(SloReport.leastShare(served: [15, 5], asked: [100, 100]) == 0.5)
        // The small one had all that it wanted.
        #expect(SloReport.leastShare(served: [90, 10], asked: [1000, 10]) == 1)
        #expect(SloReport.leastShare(served: [95, 5], asked: [1000, 10]) == 0.5)
        #expect(SloReport.leastShare(served: [0, 0], asked: [5, 5]) == 1)
    }

    private static func report(_ shares: [(Double, SloBench.Policy, Double)]) -> SloReport {
        let trace = SloTrace(count: 200, context: 4096, imageTokens: nil, seed: 6)
        let bench = SloBench(trace: trace, seconds: 100, imageTokens: 0, floor: 0.5, steps: 4)
        let times = trace.requests.map { _ in (full: 0.1, floor: 0.05) }, allowed = trace.requests.map { $0.deadlineFactor.map { $0 * 0.1 } }
        let runs = shares.map { load, policy, share in
            let interactive = allowed.indices.filter { allowed[$0] != nil }, kept = Set(interactive.prefix(Int((share * Double(interactive.count)).rounded())))
            let outcomes = allowed.indices.map { index -> SloBench.Outcome in
                var outcome = SloBench.Outcome()
                outcome.allowed = allowed[index]
                let isKept = allowed[index] == nil || kept.contains(index)
                (outcome.firstToken, outcome.whole, outcome.budget) = (0.01, isKept ? 0.05 : 9, 0.75)
                return outcome
            }
            return SloBench.Run(load: load, policy: policy, outcomes: outcomes, seconds: 100)
        }
        let model = FormulaModel(Experiments.analyzed())
        return SloReport(environment: Experiments.environment, model: Experiments.description(model), bench: bench, capacity: 20, times: times, allowed: allowed, runs: runs)
    }

    @Test("the report counts what was in time, and at which rate 99 % are") func report() throws {
        let report = Self.report([(0.7, .ours, 1), (1, .ours, 1), (1.5, .ours, 0.98), (0.7, .arrival, 1), (1, .arrival, 0.5), (0.7, .deadline, 0.9)])
        #expect(abs((report.rate(.ours) ?? 0) - 25) < 1 && abs((report.rate(.arrival) ?? 0) - 14.12) < 0.5 && report.rate(.deadline) == nil)
        let row = try #require(report.rows.first { $0.load == 1 && $0.policy == .arrival })
        #expect(abs(row.share - 0.5) < 0.01 && abs(row.budget - 0.375) < 0.01 && row.refused == 0 && row.bulk == row.bulkAnswered && row.leastShare <= 1)
        // With hardly any work the optimum is the full budget.
        #expect(abs((report.optimum[0.7] ?? 0) - 1) < 0.02 && abs((report.rows[0].ofOptimum ?? 0) - 0.75) < 0.02)
        let object = try report.decoded()
        #expect((object["runs"] as? [[String: Any]])?.count == 6 && (object["rate_at_99_percent"] as? [String: Any])?["ours"] as? Double == report.rate(.ours))
        #expect(report.csv.split(separator: "\r\n").count == 1 + 6 * 200 && report.lines.joined().contains("99 % in time up to"))
        for word in ["in time: ours", "mean budget: optimum"] { #expect(report.chartScript(to: "a.svg", format: .svg).contains(word)) }
    }

    // A failure means that a replay loses requests, or that full budgets are not full.
    @Test("a short replay of each policy on the embedded model answers everything") func replay() async throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let model = try await AdaptiveModel(contentsOf: root.appendingPathComponent("Models/scenes/L"))
        let trace = SloTrace(count: 12, context: model.contextLength, imageTokens: 49, scale: 0.02, seed: 1)
        var bench = SloBench(trace: trace, seconds: 1, imageTokens: 49, floor: try #require(model.budgetFloor), steps: 6)
        bench.patience = .seconds(1000)
        let report = try await bench.run(
            model, Experiments.description(FormulaModel(Experiments.analyzed())), environment: Experiments.environment, loads: [0.5], onProgress: { _, _, _ in })
        #expect(report.runs.map(\.policy) == SloBench.Policy.allCases && report.capacity > 0)
        for run in report.runs {
            #expect(run.outcomes.count == 12)
            let bulk = run.outcomes.filter { $0.allowed == nil }
            #expect(bulk.allSatisfy { $0.whole != nil })
            if run.policy != .ours { #expect(run.outcomes.allSatisfy { $0.whole != nil && $0.budget == 1 }) }
        }
    }
}
