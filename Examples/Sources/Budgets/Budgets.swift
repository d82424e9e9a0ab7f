import AdaImages
import AdaLLaVA
import Foundation

/// Answers one question with several shares of the model's compute, and says what ran.
///
///     swift run --package-path Examples Budgets
@main
struct Budgets {
    static func main() async throws {
        let model = try await AdaptiveModel(contentsOf: URL(fileURLWithPath: "Models/scenes/L"))
        let image = try RGBImage(contentsOf: "Models/scenes-ref/images/14.png")

        for fraction in [1.0, 0.6, 0.25] {
            let (answer, summary) = try await model.answer("Describe the image.", image: image, budget: .fraction(fraction)).whole()
            let layers = summary.plan.rows.count { !$0.isSkipped }
            print("budget \(fraction), \(layers) of \(model.planShape.layers) layers: \(answer)")
        }
    }
}
