import Foundation
import Testing

@testable import AdaLLaVA

/// Where quantized weights lie.
@Suite struct WeightPlacementTests {
    // A failure means that answers depend on whether weights stay in the file, or that the options do not say where they stay.
    @Test("answers are the same", arguments: ["ada-L", "ada-H"])
    func answersAreTheSame(fixture: String) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appendingPathComponent("model.gguf")
        _ = try CheckpointConverter(Fixtures.url(fixture), to: .q8_0, output: file).run()
        var answers: [[Int]] = []
        for placement in [WeightPlacement.memory, .file, .automatic] {
            var options = AdaptiveModel.Options()
            (options.threads, options.placement) = (2, placement)
            let model = try await AdaptiveModel(contentsOf: file, options: options)
            for budget in [Budget.full, .fraction(0.6)] {
                answers.append(try await model.measure(tokens: [1, 5, 6, 9, 4], budget: budget, maxTokens: 12).tokens)
            }
        }
        #expect(answers[0] == answers[2] && answers[0] == answers[4])
        #expect(answers[1] == answers[3] && answers[1] == answers[5])

        let tensor = try GGUFFile(contentsOf: file).tensor("token_embd.weight")
        try #require(tensor.type == .q8_0)
        func packedBytes(_ placement: WeightPlacement) throws -> Int {
            let shape = (rows: tensor.shape[0], inputs: tensor.shape[1])
            let packer = WeightPacker(kernels: try KernelSet(), pool: try ThreadPool(threads: 1), placement: placement)
            return try WeightMatrix(tensor, rows: shape.rows, inputs: shape.inputs, packer: packer).packedBytes
        }
        #expect(try packedBytes(.memory) > 0)
        #expect(try packedBytes(.file) == 0)
        // A small file.
        #expect(try packedBytes(.automatic) > 0)
    }
}
