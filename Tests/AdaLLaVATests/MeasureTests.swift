import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// What the experiments measure with.
@Suite struct MeasureTests {
    static let model = Fixtures.models.appendingPathComponent("scenes-ref")

    // A failure means that the vision tower's time is measured on features that were kept from the request before.
    @Test("measured images are encoded anew") func measuredImagesAreEncodedAnew() throws {
        let model = try TestModel(Self.model, precision: .automatic)
        let image = try RGBImage(contentsOf: Self.model.appendingPathComponent("images/00.png").path)
        var request = EngineRequest(
            tokens: [1, -200, 5], images: [try model.loaded.image(image)], budget: .full, maxTokens: 2)
        func encodedLayers() throws -> Int {
            var count = 0
            _ = try model.engine.generate(
                request, cancellation: Cancellation(), onProgress: { if case .encoding = $0 { count += 1 } }, onToken: { _ in true })
            return count
        }
        let first = try encodedLayers()
        #expect(first > 0)
        #expect(try encodedLayers() == 0)
        request.reuses = false
        #expect(try encodedLayers() == first)
    }

    // A failure means that a measured request ends early, has another prompt than it was given, or that a report cannot say what computed it.
    @Test("a measured request has the prompt and the length that were asked for") func measuresAsAsked() async throws {
        var options = AdaptiveModel.Options()
        options.threads = 2
        let model = try await AdaptiveModel(contentsOf: Self.model, options: options)
        #expect(model.threads == 2 && KernelSet.names.contains(model.kernels))
        let image = try RGBImage(contentsOf: Self.model.appendingPathComponent("images/00.png").path)
        let text = try await model.measure(tokens: [1, 5, 6], budget: .fraction(0.5), maxTokens: 40)
        #expect(text.tokens.count == 40 && text.promptTokens == 3 && text.units == 0)
        let seen = try await model.measure(tokens: [1, -200, 5], images: [image], budget: .full, maxTokens: 3)
        #expect(seen.tokens.count == 3 && seen.promptTokens > 3)
        await #expect(throws: GenerationError.imageCount(marks: 0, images: 1)) {
            _ = try await model.measure(tokens: [1, 5], images: [image], budget: .full, maxTokens: 3)
        }
    }
}
