import Foundation

@testable import AdaLLaVA

/// A loaded model with an engine of its own, whose requests are made in the engine's own terms.
final class TestModel {
    let loaded: LoadedModel
    let engine: Engine

    var decoder: Decoder { loaded.parts.decoder }

    /// - Parameter memory: what the engine may take beside the weights; `nil` leaves it to the machine.
    init(
        _ url: URL, precision: Precision = .f32, kernels: String? = nil, threads: Int? = nil, memory: MemoryLimits? = nil,
        change: (inout Checkpoint) -> Void = { _ in }
    ) throws {
        var checkpoint = try Checkpoint.open(at: url)
        change(&checkpoint)
        let workspace = try Workspace(threads: threads, precision: precision, kernels: kernels)
        loaded = try LoadedModel(
            checkpoint, packer: WeightPacker(kernels: workspace.kernels, pool: workspace.pool), template: nil, cancellation: Cancellation()
        ) { _ in }
        engine = Engine(loaded.parts, workspace: workspace, memory: memory ?? MemoryLimits())
    }

    /// Another engine for the same weights, which knows nothing of earlier requests.
    init(sharing model: TestModel, memory: MemoryLimits? = nil) throws {
        loaded = model.loaded
        let kernels = model.engine.workspace.kernels
        engine = Engine(
            loaded.parts, workspace: Workspace(kernels: kernels, pool: try ThreadPool(threads: model.engine.workspace.pool.threads)),
            memory: memory ?? MemoryLimits())
    }

    func run(_ request: EngineRequest, trace: Trace? = nil) throws -> EngineResult {
        try engine.generate(request, cancellation: Cancellation(), trace: trace) { _ in true }
    }

    func run(
        _ tokens: [Int], pixels: [[Float]] = [], budget: Double = 1, maxTokens: Int = 12, endTokens: Set<Int> = [],
        sampling: SamplingOptions = SamplingOptions(), trace: Trace? = nil
    ) throws -> EngineResult {
        var request = EngineRequest(
            tokens: tokens, images: pixels.map { EngineImage(pixels: $0) }, budget: .fraction(budget), maxTokens: maxTokens)
        request.endTokens = endTokens
        request.sampling = sampling
        return try run(request, trace: trace)
    }
}
