import Foundation

/// Factor between the predicted and the allowed time, so that the requested fraction of deadlines is kept.
///
/// Adaptive conformal inference (Gibbs and Candès, 2021): the margin is a quantile of the recent errors of predictions, and the quantile's level moves up
/// when a deadline was missed and down a little when it was kept, so that the fraction is kept also when errors change with the machine's load.
package struct DeadlineMargin: Sendable, Equatable {
    /// Errors that are kept.
    static let count = 128
    /// Speed at which the level follows misses.
    static let rate = 0.02
    /// Errors before any is known: within 12 %.
    private static let usual = [-0.06, -0.04, -0.03, -0.02, -0.01, 0, 0, 0, 0.01, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12]

    /// Logarithms of measured over predicted time, the newest last.
    package private(set) var errors: [Double]
    private var shift = 0.0

    package init(errors: [Double] = []) { self.errors = errors.filter(\.isFinite).suffix(DeadlineMargin.count) }

    /// - Parameters:
    ///   - measured: nanoseconds from the choice to the deadline's event.
    ///   - predicted: of the same work under the load known at the choice.
    ///   - missed: whether a deadline that could have been kept was missed; `nil` where none was set.
    ///   - confidence: fraction of deadlines that must be kept.
    package mutating func add(measured: Double, predicted: Double, missed: Bool?, confidence: Double) {
        guard measured > 0, predicted > 0, measured.isFinite, predicted.isFinite else { return }
        errors.append(log(measured / predicted))
        if errors.count > DeadlineMargin.count { errors.removeFirst() }
        if let missed { shift = min(max(shift + DeadlineMargin.rate * ((missed ? 1 : 0) - (1 - confidence)), -0.2), 0.2) }
    }

    /// Factor of predictions that are shown: the median of the newest ratios of measured over predicted time. A fit of a few seconds is wrong by some
    /// percent, which depend on a model's size.
    package var center: Double {
        let newest = errors.suffix(DeadlineMargin.centerCount).sorted()
        return newest.count < DeadlineMargin.centerCount / 4 ? 1 : exp(newest[newest.count / 2])
    }
    private static let centerCount = 32

    /// Factor of predicted times when a deadline must be kept.
    package func factor(confidence: Double) -> Double {
        let level = min(max(confidence + shift, 0.5), 1)
        let known = (errors.count < DeadlineMargin.usual.count ? errors + DeadlineMargin.usual.dropFirst(errors.count) : errors).sorted()
        let place = min(Int((level * Double(known.count + 1)).rounded(.up)), known.count)
        // Beyond the largest error so far, the part of the level above 1 is added.
        let beyond = max(confidence + shift - 1, 0)
        return exp(max(known[max(place - 1, 0)], 0) + beyond)
    }
}
