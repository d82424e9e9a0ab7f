import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// `Models/scenes-ref`: a model of the reference implementation, from image file to text.
@Suite struct ScenesReferenceTests {
    struct CaseFile: Decodable {
        struct Case: Decodable {
            let image: String
            let question: String
            let budget: Double
            let promptIds: [Int]
            let keptLayersAfterPrefix: [Double]
            let generatedIds: [Int]
            let generatedText: String
        }
        let cases: [Case]
    }

    static let model = Fixtures.models.appendingPathComponent("scenes-ref")

    // A mismatch means that the engine does not give the recorded answers of a whole model: in the fast arithmetic that it uses
    // by default, or in float32.
    @Test("the reference model gives its recorded answers", arguments: Precision.allCases, kernelSets) func answersAsRecorded(precision: Precision, kernels: String) async throws {
        let file: CaseFile = try Fixtures.json(Self.model.appendingPathComponent("cases.json"))
        #expect(file.cases.count == 80)
        let model = try TestModel(Self.model, precision: precision, kernels: kernels)
        let text = try #require(model.loaded.text)
        for item in file.cases {
            let image = try RGBImage(contentsOf: Self.model.appendingPathComponent(item.image).path)
            let prompt = try text.prompt([ChatMessage.question(item.question, images: 1)], system: nil)
            #expect(prompt == item.promptIds)
            let result = try model.run(
                prompt, pixels: [try model.loaded.pixels(image)], budget: item.budget, maxTokens: 64, endTokens: text.endTokens)
            #expect(result.tokens == item.generatedIds, "\(item.image) \(item.budget)")
            #expect(text.decode(result.tokens) == item.generatedText, "\(item.image) \(item.budget)")
            #expect(result.plan.rows.dropFirst(4).map { $0.isSkipped ? 0 : 1 } == item.keptLayersAfterPrefix)
        }
    }
}
