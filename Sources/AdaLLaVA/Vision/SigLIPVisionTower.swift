/// The SigLIP vision transformer (Zhai et al., 2023) of any size: patches without a class token, and a norm after the layers. The pooling head of
/// published weights is not used.
final class SigLIPVisionTower: VisionNetwork {
    private let transformer: VisionTransformer
    private let positions: Tensor
    private let finalNorm: Norm?

    /// - Parameters:
    ///   - used: layers that run.
    ///   - appliesFinalNorm: whether the hidden state passes the norm after all layers.
    init(
        _ source: any TensorSource, _ c: VisionConfiguration, layers used: Int, appliesFinalNorm: Bool,
        packer: WeightPacker, cancellation: Cancellation, onLayer: (Int) -> Void
    ) throws {
        transformer = try VisionTransformer(source, c, layers: used, packer: packer, cancellation: cancellation, onLayer: onLayer)
        positions = try Tensor(
            matrix: source.tensor("vision_model.embeddings.position_embedding.weight"), rows: c.patches, columns: c.hiddenSize)
        finalNorm = appliesFinalNorm ? try Norm(source, "vision_model.post_layernorm", c) : nil
    }

    var linears: [Linear] { transformer.linears }

    func pass(_ pixels: [Float], grid: PatchGrid?, _ workspace: Workspace) throws -> VisionPass {
        let c = transformer.configuration
        let hidden = Tensor(rows: c.patches, columns: c.hiddenSize)
        transformer.embed(pixels, into: hidden, workspace)
        workspace.kernels.table.add(hidden.data, positions.data, hidden.rows * hidden.stride)
        return try transformer.pass(hidden, workspace) { [finalNorm] in
            finalNorm?(hidden, hidden, workspace)
            return VisionOutput(features: hidden)
        }
    }
}
