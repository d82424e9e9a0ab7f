/// A straight line through points, by least squares.
package struct LinearFit: Sendable, Equatable {
    /// `y` for each `x`.
    package let slope: Double
    /// `y` where `x` is 0.
    package let intercept: Double
    /// The fraction of `y`'s variance that the line explains; 1 if `y` never changes.
    package let rSquared: Double

    /// - Returns: `nil` with a value that is not finite, or without two different `x`.
    package init?(_ points: [(x: Double, y: Double)]) {
        let count = Double(points.count)
        guard !points.isEmpty, points.allSatisfy({ $0.x.isFinite && $0.y.isFinite }) else { return nil }
        let meanX = points.reduce(0) { $0 + $1.x } / count
        let meanY = points.reduce(0) { $0 + $1.y } / count
        let varianceX = points.reduce(0) { $0 + ($1.x - meanX) * ($1.x - meanX) }
        guard varianceX > 0, varianceX.isFinite else { return nil }
        let slope = points.reduce(0) { $0 + ($1.x - meanX) * ($1.y - meanY) } / varianceX
        let intercept = meanY - slope * meanX
        let varianceY = points.reduce(0) { $0 + ($1.y - meanY) * ($1.y - meanY) }
        let residuals = points.reduce(0) { sum, point in
            let residual = point.y - meanY - slope * (point.x - meanX)
            return sum + residual * residual
        }
        (self.slope, self.intercept) = (slope, intercept)
        rSquared = varianceY > 0 ? 1 - residuals / varianceY : 1
    }

    package func callAsFunction(_ x: Double) -> Double { intercept + slope * x }
}
