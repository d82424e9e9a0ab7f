/// The convolutions of an EfficientNet-Lite tower, counted as ``ExactFormula`` counts: pointwise ones and the stem as linear maps of every
/// cell, depthwise ones as functions of each value.
struct EfficientNetCost {
    let counter: OperationCounter
    let network: EfficientNetConfiguration
    /// Images encoded.
    let images: Double

    var parts: [CostPart] {
        let stemCells = Double(network.stemSide * network.stemSide) * images
        var parts = [
            CostPart(
                name: "vision stem", layers: [],
                operations: [counter.linear("stem", inputs: 27, outputs: Double(network.stemChannels), rows: stemCells)])
        ]
        for (index, block) in network.blocks.enumerated() {
            parts.append(CostPart(name: "vision block", layers: [index], operations: operations(block)))
        }
        if network.featureMaps.contains(.head) {
            let cells = Double(network.grid * network.grid) * images
            let channels = Double(network.blocks.last?.outputs ?? network.stemChannels)
            parts.append(
                CostPart(
                    name: "vision head", layers: [],
                    operations: [counter.linear("head", inputs: channels, outputs: Double(network.headChannels), rows: cells)]))
        }
        return parts
    }

    private func operations(_ block: EfficientNetConfiguration.Block) -> [RooflineOperation] {
        let (before, after) = (Double(block.side * block.side) * images, Double(block.outputSide * block.outputSide) * images)
        let (inputs, middle, outputs) = (Double(block.inputs), Double(block.expanded), Double(block.outputs))
        let taps = Double(block.kernelSize * block.kernelSize)
        var operations: [RooflineOperation] = []
        if middle != inputs { operations.append(counter.linear("expand", inputs: inputs, outputs: middle, rows: before)) }
        // A strided convolution reads the whole map and writes a part of it.
        operations.append(
            counter.elementwise(
                "depthwise", values: after * middle, operations: 2 * taps, inputs: before / after, parameters: middle * taps))
        operations.append(counter.linear("project", inputs: middle, outputs: outputs, rows: after))
        if block.isResidual { operations.append(counter.elementwise("add", values: after * outputs, operations: 1, inputs: 2)) }
        return operations
    }

    /// Weights and biases.
    static func weightValues(_ network: EfficientNetConfiguration) -> Double {
        var values = Double(28 * network.stemChannels)
        for block in network.blocks {
            if block.expanded != block.inputs { values += Double((block.inputs + 1) * block.expanded) }
            values += Double(block.expanded * (block.kernelSize * block.kernelSize + 1) + (block.expanded + 1) * block.outputs)
        }
        let channels = network.blocks.last?.outputs ?? network.stemChannels
        return values + (network.featureMaps.contains(.head) ? Double((channels + 1) * network.headChannels) : 0)
    }
}
