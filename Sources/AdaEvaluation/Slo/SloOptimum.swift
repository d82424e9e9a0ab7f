/// The budgets that a planner would choose who knows all arrivals and lengths beforehand.
///
/// The machine is one processor that serves the earliest deadline first and may interrupt a request: with known work that order keeps all deadlines if any
/// order does (Liu and Layland, 1973). First requests that cannot be in time even at the floor are left out, as few as a pass by deadlines leaves (Moore, 1968);
/// then budgets of the others are raised in turn, a step each, as long as all stay in time.
struct SloOptimum {
    struct Job {
        /// In seconds.
        let arrival, deadline: Double
        /// Seconds of the processor at the floor, and of each step above it.
        let floor, step: Double
    }

    /// Steps above the floor of each job; `nil` for those that are left out.
    private(set) var steps: [Int?]
    private let jobs: [Job]

    /// - Parameter steps: from the floor to the full budget.
    init(_ jobs: [Job], steps most: Int) {
        self.jobs = jobs
        steps = Array(repeating: 0, count: jobs.count)
        while let late = late().first {
            // Of the jobs up to the late one's deadline the one with the most work.
            let candidates = jobs.indices.filter { steps[$0] != nil && jobs[$0].deadline <= jobs[late].deadline }
            steps[candidates.max { jobs[$0].floor < jobs[$1].floor } ?? late] = nil
        }
        // All together as far as they go, then one by one.
        var (fitting, tooMany) = (0, most + 1)
        while tooMany - fitting > 1 {
            let middle = (fitting + tooMany) / 2
            let before = steps
            steps = steps.map { $0.map { _ in middle } }
            if late().isEmpty { fitting = middle } else { (tooMany, steps) = (middle, before) }
        }
        for index in jobs.indices.sorted(by: { jobs[$0].step < jobs[$1].step }) {
            guard let known = steps[index], known < most else { continue }
            var (fits, beyond) = (known, most + 1)
            while beyond - fits > 1 {
                let middle = (fits + beyond) / 2
                steps[index] = middle
                if late().isEmpty { fits = middle } else { beyond = middle }
            }
            steps[index] = fits
        }
    }

    /// Jobs that are not in time.
    private func late() -> [Int] {
        var left = jobs.indices.map { index in steps[index].map { jobs[index].floor + Double($0) * jobs[index].step } ?? 0 }
        let arrivals = jobs.indices.filter { steps[$0] != nil }.sorted { jobs[$0].arrival < jobs[$1].arrival }
        var late: [Int] = [], ready: [Int] = [], next = 0, time = 0.0
        while next < arrivals.count || !ready.isEmpty {
            if ready.isEmpty { time = max(time, jobs[arrivals[next]].arrival) }
            while next < arrivals.count, jobs[arrivals[next]].arrival <= time {
                let index = arrivals[next]
                ready.insert(index, at: ready.firstIndex { jobs[$0].deadline > jobs[index].deadline } ?? ready.count)
                next += 1
            }
            let current = ready[0], until = next < arrivals.count ? jobs[arrivals[next]].arrival : .infinity
            let run = min(left[current], until - time)
            time += run
            left[current] -= run
            if left[current] <= 1e-12 {
                ready.removeFirst()
                if time > jobs[current].deadline + 1e-9 { late.append(current) }
            } else if run <= 0 {
                // Rounding: the next request comes now.
                time = until
            }
        }
        return late
    }
}
