/// The largest budget whose cost fits a limit, for callers who give a time instead of a fraction.
extension BudgetUnits {
    /// The most optional units that cost at most `limit`, found by bisection.
    /// - Parameter cost: of so many optional units, in the limit's unit; never falls as units are added.
    /// - Returns: `nil` if not even the prefix alone fits.
    package func most(within limit: Double, cost: (Int) throws -> Double) rethrows -> Int? {
        guard try cost(0) <= limit else { return nil }
        var (fits, tooMany) = (0, total - prefix + 1)
        while tooMany - fits > 1 {
            let middle = (fits + tooMany) / 2
            if try cost(middle) <= limit { fits = middle } else { tooMany = middle }
        }
        return fits
    }

    /// The smallest fraction with few decimals that grants exactly `count` optional units.
    package func fraction(buying count: Int) -> Double {
        let exact = Double(prefix + count) / Double(total)
        for scale in [100.0, 1e3, 1e4, 1e5, 1e6, 1e7] {
            let rounded = min(1, (exact * scale).rounded(.up) / scale)
            if rounded > 0, granted(fraction: Float(rounded)) == count { return rounded }
        }
        return exact
    }
}
