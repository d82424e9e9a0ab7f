/// Mean, spread and percentiles of a set of measurements. Every command that reports measured times uses this one.
///
/// Percentiles interpolate linearly between the two nearest values, as NumPy's default does; the deviation is the sample's (n - 1).
package struct SampleStatistics: Sendable, Equatable {
    package let count: Int
    package let mean: Double
    /// Sample standard deviation; 0 for one value.
    package let deviation: Double
    let sorted: [Double]

    /// - Returns: `nil` without values, or with one that is not finite.
    package init?(_ values: some Sequence<Double>) {
        let sorted = values.sorted()
        guard !sorted.isEmpty, sorted.allSatisfy(\.isFinite) else { return nil }
        let count = Double(sorted.count)
        let mean = sorted.reduce(0, +) / count
        let squares = sorted.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        self.sorted = sorted
        self.count = sorted.count
        self.mean = mean
        deviation = sorted.count > 1 ? (squares / (count - 1)).squareRoot() : 0
    }

    /// Of the mean; `nil` for one value.
    package var standardError: Double? { count > 1 ? deviation / Double(count).squareRoot() : nil }

    package var minimum: Double { sorted[0] }
    package var maximum: Double { sorted[sorted.count - 1] }
    package var median: Double { percentile(50) }

    /// - Parameter percent: 0 to 100; values outside are clamped.
    package func percentile(_ percent: Double) -> Double {
        let position = min(max(percent, 0), 100) / 100 * Double(sorted.count - 1)
        let below = Int(position.rounded(.down))
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (sorted[above] - sorted[below]) * (position - Double(below))
    }

    /// The mean and percentiles, as reports of many answers write them.
    package struct Percentiles: Codable, Sendable {
        package var mean, p50, p90, p99: Double
    }

    package var percentiles: Percentiles { Percentiles(mean: mean, p50: percentile(50), p90: percentile(90), p99: percentile(99)) }
}

extension Sequence<Double> {
    /// The mean in the order of the values, as Python's `sum(x) / len(x)`; `nil` without values.
    package var mean: Double? {
        var (sum, count) = (0.0, 0)
        for value in self {
            sum += value
            count += 1
        }
        return count == 0 ? nil : sum / Double(count)
    }
}
