/// Measured costs of steps with and without drafts, from which the number of drafted tokens is chosen.
struct SpeculationCosts {
    /// Steps that cost about the same.
    struct Kind: Hashable {
        /// Answers that grow, and the optional units of all their plans.
        let sequences: Int, units: Int
        /// Whether drafts come from the prefix layers.
        let isFloor: Bool
    }

    /// A sequence that may draft.
    struct Candidate {
        /// The most tokens that it can draft.
        let most: Int
        /// Expected share of right tokens.
        let acceptance: Double

        /// Tokens that a step is expected to give with so many drafted ones.
        func tokens(_ count: Int) -> Double {
            let count = min(count, most)
            return acceptance > 0.999 ? Double(count + 1) : (1 - power(count + 1)) / (1 - acceptance)
        }

        private func power(_ count: Int) -> Double { (0 ..< count).reduce(1) { product, _ in product * acceptance } }
    }

    /// Steps of one kind: nanoseconds without drafts, and a line through those with drafts, by drafted tokens, in which older ones count less.
    private struct Steps {
        var plain = 0.0
        var plainCount = 0
        /// Steps with drafts since the last one without, and steps until drafts are tried again.
        var sincePlain = 0, left = SpeculationCosts.firstRetry, interval = SpeculationCosts.firstRetry
        // Sums over samples of weight, drafts, drafts², nanoseconds and drafts · nanoseconds.
        private var sums = (w: 0.0, x: 0.0, xx: 0.0, y: 0.0, xy: 0.0)

        mutating func add(plain sample: Double) {
            sincePlain = 0
            plainCount += 1
            // One step that the system interrupted says little.
            let sample = plainCount > 1 ? min(sample, 2 * plain) : sample
            plain += (sample - plain) * max(1 / Double(plainCount), 0.1)
        }

        mutating func add(drafts: Int, nanoseconds: Double, share: Double) {
            let expected = self.nanoseconds(drafts: drafts, share: share)
            let (x, y) = (Double(drafts), sums.w > 3 ? min(nanoseconds, 2 * expected) : nanoseconds)
            let decay = 0.97
            sums = (sums.w * decay + 1, sums.x * decay + x, sums.xx * decay + x * x, sums.y * decay + y, sums.xy * decay + x * y)
        }

        /// - Parameter share: cost of one more draft beside a step without, as long as nothing is measured.
        func nanoseconds(drafts: Int, share: Double) -> Double {
            var s = sums
            // A guess with the weight of one sample, for few or equal numbers of drafts make no line.
            for x in [1.0, 5.0] {
                let (w, y) = (0.5, plain * (1.1 + share * x))
                s = (s.w + w, s.x + w * x, s.xx + w * x * x, s.y + w * y, s.xy + w * x * y)
            }
            let slope = max((s.w * s.xy - s.x * s.y) / (s.w * s.xx - s.x * s.x), 0)
            return max((s.y - slope * s.x) / s.w + slope * Double(drafts), plain / 2)
        }
    }

    private var known: [Kind: Steps] = [:]
    private var rates: [DraftSource: AcceptanceRate] = [:]

    /// Kinds that are remembered.
    private static let mostKinds = 256
    /// Plain steps that are measured before anything is drafted, steps with drafts until a plain one is measured again, and plain steps until drafts
    /// that did not pay are tried again, which doubles each time.
    private static let plainSteps = 3, plainEvery = 96
    fileprivate static let firstRetry = 64
    private static let lastRetry = 2048

    /// The share of right tokens in drafts so far; a guess before the first one.
    func rate(_ source: DraftSource) -> Double { rates[source]?.value ?? (source == .floor ? 0.8 : 0.6) }

    mutating func add(_ source: DraftSource, accepted: Int, isRejected: Bool) {
        var rate = rates[source] ?? AcceptanceRate(expected: rate(source), weight: 4, decay: 0.98)
        rate.add(accepted: accepted, isRejected: isRejected)
        rates[source] = rate
    }

    /// The number of tokens to draft for each candidate in the next step.
    /// - Parameters:
    ///   - share: cost of one more draft beside a step without.
    ///   - others: answers that grow beside the candidates.
    mutating func choose(_ kind: Kind, _ candidates: [Candidate], share: Double, others: Int) -> Int {
        let most = candidates.reduce(0) { max($0, $1.most) }
        guard most > 0 else { return 0 }
        var steps = known[kind] ?? Steps()
        defer { set(kind, steps) }
        steps.sincePlain += 1
        if steps.plainCount < Self.plainSteps || steps.sincePlain > Self.plainEvery { return 0 }
        let plain = Double(candidates.count + others) / steps.plain
        // Less than this is within the error.
        var best = (count: 0, rate: plain * 1.02)
        for count in 1 ... most {
            let drafts = candidates.reduce(0) { $0 + min($1.most, count) }
            let tokens = candidates.reduce(Double(others)) { $0 + $1.tokens(count) }
            let rate = tokens / steps.nanoseconds(drafts: drafts, share: share)
            if rate > best.rate { best = (count, rate) }
        }
        if best.count > 0 {
            (steps.left, steps.interval) = (Self.firstRetry, Self.firstRetry)
            return best.count
        }
        steps.left -= 1
        guard steps.left <= 0 else { return 0 }
        steps.interval = min(2 * steps.interval, Self.lastRetry)
        steps.left = steps.interval
        return min(2, most)
    }

    /// Learns from a step.
    mutating func add(_ kind: Kind, drafts: Int, nanoseconds: Double, share: Double) {
        var steps = known[kind] ?? Steps()
        if drafts == 0 { steps.add(plain: nanoseconds) } else { steps.add(drafts: drafts, nanoseconds: nanoseconds, share: share) }
        set(kind, steps)
    }

    private mutating func set(_ kind: Kind, _ steps: Steps) {
        if known[kind] == nil, known.count >= Self.mostKinds { known.removeAll() }
        known[kind] = steps
    }
}
