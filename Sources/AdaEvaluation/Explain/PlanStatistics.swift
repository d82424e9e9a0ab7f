import AdaLLaVA

/// How often each switch of a model is on over some plans.
public struct SwitchFrequencies: Sendable, Equatable {
    public let layers: Int
    /// Attention heads of a layer, and as many MLP groups.
    public let heads: Int
    /// `[layers][2][heads]` in 0 ... 1: attention heads first, then MLP groups.
    public let values: [Double]

    /// - Returns: `nil` without plans, or with plans of several shapes.
    public init?(_ plans: [ExecutionPlan]) {
        guard let first = plans.first, plans.allSatisfy({ $0.rows.count == first.rows.count && $0.headCount == first.headCount }) else { return nil }
        (layers, heads) = (first.rows.count, first.headCount)
        var sums = [Double](repeating: 0, count: layers * 2 * heads)
        for plan in plans { for (index, switched) in plan.mask.enumerated() { sums[index] += Double(switched) } }
        values = sums.map { $0 / Double(plans.count) }
    }

    /// Attention heads (`part` 0) or MLP groups (1) of a layer.
    public func row(layer: Int, part: Int) -> ArraySlice<Double> { values[(layer * 2 + part) * heads ..< (layer * 2 + part + 1) * heads] }

    /// What a scheduler would have to put out for the switches that were on most often: one value for each switch that it decides.
    /// - Parameter switches: layers behind the prefix, or their heads and groups.
    func logits(switches: Int, prefix: Int) -> [Float] {
        let optional = layers - prefix
        if switches == optional {
            return (prefix ..< layers).map { layer in
                Float((row(layer: layer, part: 0).reduce(0, +) + row(layer: layer, part: 1).reduce(0, +)) / Double(2 * heads))
            }
        }
        return values.suffix(optional * 2 * heads).map { Float($0) }
    }
}

/// How much plans differ.
public enum PlanDifference {
    /// Switches that are on in one plan and off in the other.
    public static func hamming(_ a: ExecutionPlan, _ b: ExecutionPlan) -> Int { zip(a.mask, b.mask).count { $0 != $1 } }

    /// The mean over all pairs of plans; `nil` with fewer than two.
    ///
    /// Counted by switch: of `n` plans, `k` of which have a switch on, `k (n - k)` pairs differ in it.
    public static func meanHamming(_ plans: [ExecutionPlan]) -> Double? {
        guard plans.count > 1, let first = plans.first else { return nil }
        var counts = [Int](repeating: 0, count: first.mask.count)
        for plan in plans { for (index, switched) in plan.mask.enumerated() where switched > 0 { counts[index] += 1 } }
        let pairs = Double(plans.count) * Double(plans.count - 1) / 2
        return counts.reduce(0.0) { $0 + Double($1) * Double(plans.count - $1) } / pairs
    }

    /// An order in which nothing stays at its place: a random cycle (Sattolo, 1986), so that each input gets another one's plan.
    public static func derangement(count: Int, seed: UInt64) -> [Int] {
        var order = Array(0 ..< count)
        var generator = SplitMix64(seed: seed)
        for last in stride(from: count - 1, to: 0, by: -1) { order.swapAt(last, generator.index(below: last)) }
        return order
    }
}

/// A difference between two ways of answering the same samples.
public struct PairedDifference: Sendable, Equatable {
    /// Of the mean scores, first minus second.
    public let mean: Double
    /// The 95 % confidence interval, from a paired bootstrap (Efron, 1979) of 2,000 draws.
    public let low: Double
    public let high: Double

    /// - Returns: `nil` without samples.
    public init?(_ first: [Double], _ second: [Double], seed: UInt64 = 1) {
        guard !first.isEmpty, first.count == second.count else { return nil }
        let differences = zip(first, second).map { $0 - $1 }
        let count = differences.count
        var generator = SplitMix64(seed: seed)
        let draws = (0 ..< 2000).map { _ in
            (0 ..< count).reduce(0.0) { sum, _ in sum + differences[generator.index(below: count)] } / Double(count)
        }
        guard let statistics = SampleStatistics(draws) else { return nil }
        mean = differences.reduce(0, +) / Double(count)
        (low, high) = (statistics.percentile(2.5), statistics.percentile(97.5))
    }
}
