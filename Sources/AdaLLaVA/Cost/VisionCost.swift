/// The vision tower and the projector, counted as ``ExactFormula`` counts.
struct VisionCost {
    let counter: OperationCounter
    let vision: VisionConfiguration
    let llava: LlavaConfiguration
    /// Width of the language model.
    let hidden: Int
    /// Images encoded.
    let images: Double

    private static func patchInputs(_ vision: VisionConfiguration) -> Double {
        Double(vision.numChannels) * Double(vision.patchSize) * Double(vision.patchSize)
    }

    var parts: [CostPart] {
        if case .efficientNetLite(let network) = vision.architecture {
            let maps = projection(Double(vision.patches) * images)
            let parts = EfficientNetCost(counter: counter, network: network, images: images).parts
            return maps.isEmpty ? parts : parts + [CostPart(name: "projector", layers: [], operations: maps)]
        }
        let width = Double(vision.hiddenSize)
        let patches = Double(vision.patches)
        let rows = (patches + 1) * images
        let layers = max(0, llava.layersToRun(of: vision))
        var parts = [
            CostPart(
                name: "vision embeddings", layers: [],
                operations: [
                    counter.linear("patch_embedding", inputs: VisionCost.patchInputs(vision), outputs: width, rows: patches * images),
                    counter.elementwise("position_add", values: rows * width, operations: 1, parameters: (patches + 1) * width),
                    counter.elementwise("pre_norm", values: rows * width, operations: 7, parameters: 2 * width),
                ])
        ]
        if layers > 0 { parts.append(CostPart(name: "vision layer", layers: Array(0 ..< layers), operations: layer(rows))) }
        if llava.tokenSelection != .none {
            // PruMerge reads the queries and keys of the tower's last layer.
            parts.append(
                CostPart(
                    name: "vision token selection", layers: [],
                    operations: [
                        counter.elementwise("norm", values: rows * width, operations: 7, parameters: 2 * width),
                        counter.linear("q_proj", inputs: width, outputs: width, rows: rows),
                        counter.linear("k_proj", inputs: width, outputs: width, rows: rows),
                    ]))
        }
        let tokens = (patches + (llava.selectFeature == .classAndPatches ? 1 : 0)) * images
        let maps = projection(tokens)
        return maps.isEmpty ? parts : parts + [CostPart(name: "projector", layers: [], operations: maps)]
    }

    private func layer(_ rows: Double) -> [RooflineOperation] {
        let (width, middle) = (Double(vision.hiddenSize), Double(vision.intermediateSize))
        let heads = Double(vision.numAttentionHeads)
        let positions = Double(vision.patches + 1)
        func linear(_ name: String, _ inputs: Double, _ outputs: Double) -> RooflineOperation {
            counter.linear(name, inputs: inputs, outputs: outputs, rows: rows)
        }
        return [
            counter.elementwise("attn_norm", values: rows * width, operations: 7, parameters: 2 * width),
            linear("q_proj", width, width), linear("k_proj", width, width), linear("v_proj", width, width),
        ] + counter.attention(
            heads: heads, keyValueHeads: heads, headDim: width / heads, queries: positions, pairs: positions * positions, keys: positions,
            sequences: images, cached: false
        ) + [
            linear("out_proj", width, width), counter.elementwise("attn_add", values: rows * width, operations: 1, inputs: 2),
            counter.elementwise("mlp_norm", values: rows * width, operations: 7, parameters: 2 * width), linear("fc1", width, middle),
            counter.elementwise("mlp_act", values: rows * middle, operations: 4), linear("fc2", middle, width),
            counter.elementwise("mlp_add", values: rows * width, operations: 1, inputs: 2),
        ]
    }

    /// Tokens as they leave the tower: those that PruMerge drops are not projected, but how many depends on the image.
    private func projection(_ tokens: Double) -> [RooflineOperation] {
        let (width, hidden) = (Double(vision.hiddenSize), Double(hidden))
        switch llava.projector {
        case .identity: return []
        case .linear: return [counter.linear("mm_projector", inputs: width, outputs: hidden, rows: tokens)]
        case .mlp(let layers):
            return (0 ..< layers).flatMap { index -> [RooflineOperation] in
                let map = counter.linear("mm_projector.\(2 * index)", inputs: index == 0 ? width : hidden, outputs: hidden, rows: tokens)
                let activation = counter.elementwise("projector_act", values: tokens * hidden, operations: 4)
                return index + 1 < layers ? [map, activation] : [map]
            }
        }
    }

    /// Weights of the layers that are loaded, and of the projector.
    static func weightValues(_ vision: VisionConfiguration, _ llava: LlavaConfiguration, hidden: Int) -> Double {
        let (width, middle, hidden) = (Double(vision.hiddenSize), Double(vision.intermediateSize), Double(hidden))
        let layer = 4 * width * width + 2 * width * middle + 4 * width
        let layers = Double(max(0, llava.layersToRun(of: vision)) + (llava.tokenSelection == .none ? 0 : 1))
        let embeddings = patchInputs(vision) * width + Double(vision.patches + 2) * width + 2 * width
        let projector =
            switch llava.projector {
            case .identity: 0.0
            case .linear: width * hidden
            case .mlp(let layers): width * hidden + Double(layers - 1) * hidden * hidden
            }
        if case .efficientNetLite(let network) = vision.architecture { return EfficientNetCost.weightValues(network) + projector }
        return embeddings + layer * layers + projector
    }
}
