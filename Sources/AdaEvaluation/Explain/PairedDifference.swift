import AdaLLaVA

/// A difference between two ways of answering the same samples.
package struct PairedDifference: Codable, Sendable, Equatable {
    /// Of the mean scores, first minus second.
    package let mean: Double
    /// The 95 % confidence interval, from a paired bootstrap (Efron, 1979) of ``draws`` draws, by percentiles.
    package let low: Double
    package let high: Double

    /// Resamples per interval.
    package static let draws = 10_000

    /// - Returns: `nil` without samples, or with scores of another number.
    package init?(_ first: [Double], _ second: [Double], seed: UInt64 = 1) {
        guard !first.isEmpty, first.count == second.count else { return nil }
        let differences = zip(first, second).map { $0 - $1 }
        let count = differences.count
        var generator = SplitMix64(seed: seed)
        let means = (0 ..< PairedDifference.draws).map { _ in
            var sum = 0.0
            for _ in 0 ..< count { sum += differences[generator.index(below: count)] }
            return sum / Double(count)
        }
        guard let statistics = SampleStatistics(means) else { return nil }
        mean = differences.reduce(0, +) / Double(count)
        (low, high) = (statistics.percentile(2.5), statistics.percentile(97.5))
    }
}
