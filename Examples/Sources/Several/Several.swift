import AdaImages
import AdaLLaVA
import Foundation

/// Answers several questions at once. One model serves them all: their rows share one read of the weights per step, and each answer is the
/// same as alone.
///
///     swift run --package-path Examples Several
@main
struct Several {
    static func main() async throws {
        let model = try await AdaptiveModel(contentsOf: URL(fileURLWithPath: "Models/scenes/L"))
        let image = try RGBImage(contentsOf: "Models/scenes-ref/images/14.png")
        let questions = ["Describe the image.", "How many things are in the image?", "Is there a car in the image?"]

        try await withThrowingTaskGroup(of: (String, String).self) { group in
            for question in questions {
                group.addTask {
                    // Cancelling the task ends the answer within one token.
                    (question, try await model.answer(question, image: image, budget: .fraction(0.6)).whole().text)
                }
            }
            for try await (question, answer) in group { print("\(question) \(answer)") }
        }
    }
}
