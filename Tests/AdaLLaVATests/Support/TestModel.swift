import Foundation

@testable import AdaLLaVA

/// A loaded model whose requests are made in the engine's own terms.
final class TestModel {
    let loaded: LoadedModel

    init(
        _ url: URL, precision: Precision = .f32, kernels: String? = nil, threads: Int? = nil,
        change: (inout Checkpoint) -> Void = { _ in }
    ) throws {
        var checkpoint = try Checkpoint.open(at: url)
        change(&checkpoint)
        let backend = try Backend(threads: threads, precision: precision, kernels: kernels)
        loaded = try LoadedModel(checkpoint, backend: backend, template: nil, cancellation: Cancellation()) { _ in }
    }

    func run(
        _ tokens: [Int], pixels: [[Float]] = [], budget: Double = 1, maxTokens: Int = 12, endTokens: Set<Int> = [],
        sampling: SamplingOptions = SamplingOptions(), trace: Trace? = nil
    ) throws -> EngineResult {
        var request = EngineRequest(tokens: tokens, images: pixels, budget: .fraction(budget), maxTokens: maxTokens)
        request.endTokens = endTokens
        request.sampling = sampling
        request.trace = trace
        return try loaded.engine.generate(request, cancellation: Cancellation(), onProgress: { _ in }, onToken: { _ in true })
    }
}
