/// The vision tower and the projector, counted as ``ExactFormula`` counts.
struct VisionCost {
    let counter: OperationCounter
    let vision: VisionConfiguration
    let llava: LlavaConfiguration
    /// Width of the language model.
    let hidden: Int
    /// Inputs of the tower that are encoded: images, or the tiles that they are cut into.
    let images: Double

    private static func patchInputs(_ vision: VisionConfiguration) -> Double {
        Double(vision.numChannels) * Double(vision.patchSize) * Double(vision.patchSize)
    }

    var parts: [CostPart] {
        switch vision.architecture {
        // The cost depends on the picture's proportions.
        case .qwen2VL, .siglip2: return []
        case .clip, .siglip: break
        case .efficientNetLite(let network):
            let maps = projection(Double(vision.patches) * images)
            let parts = EfficientNetCost(counter: counter, network: network, images: images).parts
            return maps.isEmpty ? parts : parts + [CostPart(name: "projector", layers: [], operations: maps)]
        }
        let width = Double(vision.hiddenSize)
        let patches = Double(vision.patches)
        let rows = Double(vision.positions) * images
        let layers = max(0, llava.layersToRun(of: vision))
        var parts = [
            CostPart(
                name: "vision embeddings", layers: [],
                operations: [
                    counter.linear("patch_embedding", inputs: VisionCost.patchInputs(vision), outputs: width, rows: patches * images),
                    counter.elementwise("position_add", values: rows * width, operations: 1, parameters: Double(vision.positions) * width),
                ] + (vision.architecture == .clip ? [norm("pre_norm", rows)] : []))
        ]
        if layers > 0 { parts.append(CostPart(name: "vision layer", layers: Array(0 ..< layers), operations: layer(rows))) }
        if llava.tokenSelection != .none {
            // PruMerge reads the queries and keys of the tower's last layer.
            parts.append(
                CostPart(
                    name: "vision token selection", layers: [],
                    operations: [
                        norm("norm", rows),
                        counter.linear("q_proj", inputs: width, outputs: width, rows: rows),
                        counter.linear("k_proj", inputs: width, outputs: width, rows: rows),
                    ]))
        }
        if llava.appliesFinalNorm { parts.append(CostPart(name: "vision norm", layers: [], operations: [norm("post_norm", rows)])) }
        let maps = projection(Double(llava.featureRows(of: vision)) * images)
        return maps.isEmpty ? parts : parts + [CostPart(name: "projector", layers: [], operations: maps)]
    }

    private func norm(_ name: String, _ rows: Double) -> RooflineOperation {
        counter.elementwise(name, values: rows * Double(vision.hiddenSize), operations: 7, parameters: 2 * Double(vision.hiddenSize))
    }

    private func layer(_ rows: Double) -> [RooflineOperation] {
        let (width, middle) = (Double(vision.hiddenSize), Double(vision.intermediateSize))
        let heads = Double(vision.numAttentionHeads)
        let positions = Double(vision.positions)
        func linear(_ name: String, _ inputs: Double, _ outputs: Double) -> RooflineOperation {
            counter.linear(name, inputs: inputs, outputs: outputs, rows: rows)
        }
        return [
            norm("attn_norm", rows),
            linear("q_proj", width, width), linear("k_proj", width, width), linear("v_proj", width, width),
        ] + counter.attention(
            heads: heads, keyValueHeads: heads, headDim: width / heads, queries: positions, pairs: positions * positions, keys: positions,
            sequences: images, cached: false
        ) + [
            linear("out_proj", width, width), counter.elementwise("attn_add", values: rows * width, operations: 1, inputs: 2),
            norm("mlp_norm", rows), linear("fc1", width, middle),
            counter.elementwise("mlp_act", values: rows * middle, operations: 4), linear("fc2", middle, width),
            counter.elementwise("mlp_add", values: rows * width, operations: 1, inputs: 2),
        ]
    }

    /// Tokens as they leave the tower: those that PruMerge drops are not projected, but how many depends on the image.
    private func projection(_ tokens: Double) -> [RooflineOperation] {
        let (width, hidden) = (Double(vision.hiddenSize), Double(hidden))
        switch llava.projector {
        case .identity: return []
        case .pixelShuffle(let scale):
            return [counter.linear("mm_projector", inputs: width * Double(scale * scale), outputs: hidden, rows: tokens)]
        case .pixelUnshuffle(let scale, let middle, _):
            return [
                counter.linear("mm_projector.0", inputs: width * Double(scale * scale), outputs: Double(middle), rows: tokens),
                counter.elementwise("projector_act", values: tokens * Double(middle), operations: 4),
                counter.linear("mm_projector.2", inputs: Double(middle), outputs: hidden, rows: tokens),
            ]
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
        // Besides the positions: CLIP's class token, or the bias of SigLIP's patch embedding. CLIP has a norm before its layers, SigLIP may have one after.
        let norms = vision.architecture == .clip || llava.appliesFinalNorm ? 2 * width : 0
        let positions = vision.architecture == .siglip2 ? vision.imageSize / vision.patchSize * (vision.imageSize / vision.patchSize) : vision.positions
        let embeddings = patchInputs(vision) * width + Double(positions + 1) * width + norms
        let projector =
            switch llava.projector {
            case .identity: 0.0
            case .linear: width * hidden
            case .pixelShuffle(let scale): width * Double(scale * scale) * hidden
            case .pixelUnshuffle(let scale, let middle, _): (width * Double(scale * scale) + hidden) * Double(middle)
            case .mlp(let layers): width * hidden + Double(layers - 1) * hidden * hidden
            }
        if case .efficientNetLite(let network) = vision.architecture { return EfficientNetCost.weightValues(network) + projector }
        return embeddings + layer * layers + projector
    }
}
