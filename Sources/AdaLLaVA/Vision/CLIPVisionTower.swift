/// The CLIP vision transformer (Radford et al., 2021) of any size: a class token in front of the patches, and a norm in front of the layers.
final class CLIPVisionTower: VisionNetwork {
    private let transformer: VisionTransformer
    private let classEmbedding, positions: Tensor
    private let preNorm: Norm
    private let last: VisionTransformerLayer?

    /// - Parameters:
    ///   - used: layers that run.
    ///   - needsLastLayer: also load the last layer, whose queries and keys token selection reads.
    init(
        _ source: any TensorSource, _ c: VisionConfiguration, layers used: Int, needsLastLayer: Bool, packer: WeightPacker,
        cancellation: Cancellation, onLayer: (Int) -> Void
    ) throws {
        transformer = try VisionTransformer(source, c, layers: used, packer: packer, cancellation: cancellation, onLayer: onLayer)
        let name = "vision_model.embeddings."
        classEmbedding = try Tensor(vector: source.tensor(name + "class_embedding"), count: c.hiddenSize)
        positions = try Tensor(matrix: source.tensor(name + "position_embedding.weight"), rows: c.positions, columns: c.hiddenSize)
        preNorm = try Norm(source, "vision_model.pre_layrnorm", c)
        // PruMerge reads the last layer's queries and keys; its input is the hidden state before it.
        last = needsLastLayer ? try VisionTransformerLayer(source, index: c.numHiddenLayers - 1, c, packer: packer) : nil
        if needsLastLayer, used != c.numHiddenLayers - 1 {
            throw CheckpointError.unsupported(
                what: "token selection on hidden state \(used) of \(c.numHiddenLayers)", file: source.location,
                hint: "it needs the one before the last (mm_vision_select_layer -2)")
        }
    }

    var linears: [Linear] { transformer.linears + (last?.linears ?? []) }

    func pass(_ pixels: [Float], grid: PatchGrid?, _ workspace: Workspace) throws -> VisionPass {
        let c = transformer.configuration
        let hidden = Tensor(rows: c.positions, columns: c.hiddenSize)
        let patches = 1 ..< hidden.rows
        transformer.embed(pixels, into: hidden.rows(patches), workspace)
        hidden.data.update(from: classEmbedding.data, count: c.hiddenSize)
        workspace.kernels.table.add(hidden.data, positions.data, hidden.rows * hidden.stride)
        preNorm(hidden, hidden, workspace)
        return try transformer.pass(hidden, workspace) { [last] in
            var (query, key): (Tensor?, Tensor?) = (nil, nil)
            if let last {
                let (q, k) = (Tensor(rows: hidden.rows, columns: c.hiddenSize), Tensor(rows: hidden.rows, columns: c.hiddenSize))
                workspace.multiply(
                    hidden, norm: last.norm1, role: .chunk, [Product(linear: last.query, output: q), Product(linear: last.key, output: k)])
                (query, key) = (q, k)
            }
            return VisionOutput(features: hidden.rows(patches), classFeature: hidden.rows(0 ..< 1), lastQuery: query, lastKey: key)
        }
    }
}
