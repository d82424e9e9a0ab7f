import AdaImages
import AdaLLaVA
import Foundation

/// Loads a model, asks one question about an image, and prints the answer while it grows.
///
///     swift run --package-path Examples Stream [MODEL IMAGE QUESTION]
@main
struct Stream {
    static func main() async throws {
        let arguments = Array(CommandLine.arguments.dropFirst())
        let (path, file, question) = arguments.count == 3
            ? (arguments[0], arguments[1], arguments[2]) : ("Models/scenes/L", "Models/scenes-ref/images/14.png", "Describe the image.")

        let model = try await AdaptiveModel(contentsOf: URL(fileURLWithPath: path))
        let image = try RGBImage(contentsOf: file)

        var options = GenerationOptions()
        options.maxTokens = 64
        for try await event in model.answer(question, image: image, options: options) {
            switch event {
            case .text(let text): FileHandle.standardOutput.write(Data(text.utf8))
            case .logProbabilities: break
            case .finished(let summary): print("\n\(summary.tokens.count) tokens in \(summary.measured.whole)")
            }
        }
    }
}
