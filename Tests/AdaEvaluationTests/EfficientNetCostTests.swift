import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

@Suite struct EfficientNetCostTests {
    // A mismatch means that the analyzer counts other work or weights than a convolutional vision tower has.
    @Test("EfficientNet-Lite's operations and weights are the published ones", arguments: [("lite0", 4_652_008, 383_907_552.0), ("lite1", 5_416_680, 598_905_232), ("lite2", 6_092_072, 858_456_272)])
    func publishedNumbers(variant: String, parameters: Int, multiplyAdds: Double) throws {
        // Counted in the PyTorch packages' networks: parameters, with the classifier (1280 x 1000 and 1000 biases) and a batch norm's two
        // where we have one bias; multiply-adds of the convolutions, at the variant's own image size.
        let network = try EfficientNetConfiguration(variant: variant)
        let norms = network.stemChannels + network.headChannels
            + network.blocks.reduce(0) { $0 + ($1.expanded != $1.inputs ? $1.expanded : 0) + $1.expanded + $1.outputs }
        #expect(EfficientNetCost.weightValues(network) == Double(parameters - 1_281_000 - norms))

        let hardware = Hardware(name: "test", bandwidth: 1e9, fp16: 1e12, int8: 2e12, fp32: 5e11, onChipBuffer: 1_048_576)
        let counter = OperationCounter(hardware: hardware, settings: CostSettings(promptTokens: 1))
        let parts = EfficientNetCost(counter: counter, network: network, images: 1).parts
        let operations = parts.flatMap(\.operations).filter { $0.name != "add" }.reduce(0) { $0 + $1.operations }
        #expect(operations / 2 == multiplyAdds)

        // The projector is counted behind the tower, once for each of its tokens.
        let llava = LlavaConfiguration(projector: .linear, towerInside: true)
        let whole = VisionCost(counter: counter, vision: VisionConfiguration(network), llava: llava, hidden: 64, images: 1).parts
        #expect(whole.count == parts.count + 1)
        #expect(whole.last?.operations.first?.operations == Double(2 * network.featureWidth * 64 * network.grid * network.grid))
    }
}
