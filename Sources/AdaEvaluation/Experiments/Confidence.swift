import AdaLLaVA
import Foundation

extension SampleStatistics {
    /// Half the width of the 95 % confidence interval of the mean, by Student's t; `nil` for one value, which says nothing of its spread.
    package var meanMargin: Double? {
        count > 1 ? SampleStatistics.studentQuantile(freedom: count - 1) * deviation / Double(count).squareRoot() : nil
    }

    /// The 95 % confidence interval of the median that assumes no distribution: between two values as far from either end as a fair coin
    /// allows (Conover, Practical Nonparametric Statistics, section 3.2). `nil` below six values, where even the extremes say less.
    package var medianInterval: ClosedRange<Double>? {
        guard count >= 6 else { return nil }
        let beyond = count > 1000 ? (Double(count) - 1.96 * Double(count).squareRoot()) / 2 : Double(SampleStatistics.coinTail(count))
        let skipped = max(0, min(Int(beyond), (count - 1) / 2))
        return sorted[skipped] ... sorted[count - 1 - skipped]
    }

    /// Half the width of ``medianInterval``.
    package var medianMargin: Double? { medianInterval.map { ($0.upperBound - $0.lowerBound) / 2 } }

    /// Values that may be left out at either end: the largest `k` for which so few heads, or fewer, in `count` throws have a chance of
    /// at most 2.5 %, so that the interval misses the median with at most 5 %.
    private static func coinTail(_ count: Int) -> Int {
        var probability = 1.0
        for _ in 0 ..< count { probability /= 2 }
        var (tail, heads) = (probability, 0)
        while heads < count, tail <= 0.025 {
            heads += 1
            probability *= Double(count - heads + 1) / Double(heads)
            tail += probability
        }
        return heads - 1
    }

    /// The 97.5 % quantile of Student's t distribution.
    static func studentQuantile(freedom: Int) -> Double {
        let table = [
            12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
            2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
        ]
        if freedom >= 1, freedom <= table.count { return table[freedom - 1] }
        // Expanded in 1 / freedom around the normal distribution's quantile (Abramowitz and Stegun, 26.7.5).
        let (z, v) = (1.959964, Double(max(freedom, 1)))
        return z + (z * z * z + z) / (4 * v) + (5 * z * z * z * z * z + 16 * z * z * z + 3 * z) / (96 * v * v)
    }

    /// The statistics that experiments report for a set of measurements.
    package struct JSON: Codable, Sendable {
        package var n: Int
        package var mean, median, deviation, min, max: Double
        /// Margin of the mean; `null` for one value.
        @Nullable package var ci95: Double?
    }

    package var json: JSON { JSON(n: count, mean: mean, median: median, deviation: deviation, min: minimum, max: maximum, ci95: meanMargin) }
}
