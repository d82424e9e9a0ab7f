import AdaImages
import AdaLLaVA
import Foundation

/// Answers within a time: as much of the model runs as the time allows.
///
///     swift run --package-path Examples Deadline
@main
struct Deadline {
    static func main() async throws {
        let model = try await AdaptiveModel(contentsOf: URL(fileURLWithPath: "Models/scenes/L"))
        let image = try RGBImage(contentsOf: "Models/scenes-ref/images/14.png")

        // Measures this machine once; the result is kept for later processes.
        if await model.wantsCalibration { try await model.calibrate() }
        // The first answer of a process is otherwise a few milliseconds late.
        try await model.warmUp()

        var options = GenerationOptions()
        // A limit that not even the smallest plan keeps is refused; without this, the fastest answer is given, late.
        options.deadlines.isStrict = true
        for limit in [Duration.milliseconds(500), .milliseconds(1)] {
            do {
                let answer = model.answer("Describe the image.", image: image, budget: .answer(within: limit), options: options)
                let (text, summary) = try await answer.whole()
                print("\(text)\nlimit \(limit), took \(summary.measured.whole)")
            } catch let error as BudgetError {
                print(error)
            }
        }
    }
}
