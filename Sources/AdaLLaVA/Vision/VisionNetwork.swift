/// A network that turns pixels into rows of image features: one implementation for each architecture that can be a tower.
protocol VisionNetwork: Sendable {
    /// Begins to encode one image.
    /// - Parameters:
    ///   - pixels: `[3, S, S]` normalized values, `S` the tower's image size; rows of patches for towers of any proportions.
    ///   - grid: the patches, for those.
    ///   - workspace: computes all phases.
    func pass(_ pixels: [Float], grid: PatchGrid?, _ workspace: Workspace) throws -> VisionPass
}

/// Output of encoding one image.
struct VisionOutput {
    /// The features without a class token, `[patches, hidden]`.
    let features: Tensor
    /// The class token's row of the same hidden state, `[1, hidden]`, where there is one.
    var classFeature: Tensor?
    /// Raw query and key projections of a transformer's last layer, `[patches + 1, hidden]` (PruMerge), if requested.
    var lastQuery: Tensor?
    var lastKey: Tensor?

    /// The rows that a projector takes when no tokens are selected.
    func rows(withClassToken: Bool) -> Tensor {
        guard withClassToken, let classFeature else { return features }
        let all = Tensor(rows: features.rows + 1, columns: features.columns)
        all.copyRows(from: classFeature, to: 0)
        all.copyRows(from: features, to: 1)
        return all
    }
}

/// Loads the network that a configuration describes.
enum VisionNetworks {
    /// - Parameters:
    ///   - source: the tower's weights under their canonical names.
    ///   - llava: which hidden state of a transformer is taken, and whether token selection needs its last layer.
    ///   - onLayer: called with the layers that are loaded and all of them.
    /// - Throws: ``CheckpointError``, `CancellationError`
    static func load(
        _ source: any TensorSource, _ configuration: VisionConfiguration, for llava: LlavaConfiguration, packer: WeightPacker,
        cancellation: Cancellation, onLayer: (Int, Int) -> Void
    ) throws -> any VisionNetwork {
        let layers = llava.layersToRun(of: configuration)
        switch configuration.architecture {
        case .clip:
            return try CLIPVisionTower(
                source, configuration, layers: layers, needsLastLayer: llava.tokenSelection != .none, packer: packer,
                cancellation: cancellation
            ) { onLayer($0, layers) }
        case .siglip:
            return try SigLIPVisionTower(
                source, configuration, layers: layers, appliesFinalNorm: llava.appliesFinalNorm, packer: packer,
                cancellation: cancellation
            ) { onLayer($0, layers) }
        case .siglip2:
            return try SigLIP2VisionTower(source, configuration, packer: packer, cancellation: cancellation) { onLayer($0, layers) }
        case .qwen2VL(let shape):
            return try Qwen2VLTower(source, configuration, shape, packer: packer, cancellation: cancellation) { onLayer($0, layers) }
        case .efficientNetLite(let network):
            return try EfficientNetLite(source, network, packer: packer, cancellation: cancellation) { onLayer($0, layers) }
        }
    }
}
