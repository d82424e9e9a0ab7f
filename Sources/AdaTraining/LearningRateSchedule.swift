import Foundation

/// The factor on the learning rates: linear warm-up, then `lr_scheduler_type`, as Hugging Face's schedulers compute it.
package struct LearningRateSchedule: Sendable, Equatable {
    package let type: Recipe.Schedule
    package let warmupSteps: Int
    package let totalSteps: Int

    package init(_ type: Recipe.Schedule, warmupRatio: Double, totalSteps: Int) {
        self.type = type
        self.totalSteps = totalSteps
        warmupSteps = Int((Double(totalSteps) * warmupRatio).rounded(.up))
    }

    /// - Parameter step: steps already done: the first one has 0.
    package func factor(_ step: Int) -> Double {
        if step < warmupSteps { return Double(step) / Double(max(1, warmupSteps)) }
        let progress = Double(step - warmupSteps) / Double(max(1, totalSteps - warmupSteps))
        switch type {
        case .constant: return 1
        case .linear: return max(0, 1 - progress)
        case .cosine: return max(0, 0.5 * (1 + cos(.pi * progress)))
        }
    }
}
