import AdaKernels

/// The SigLIP2 vision transformer with variable resolution (NaFlex; Tschannen et al., 2025): patches of a picture of any proportions, whose position
/// embeddings are a square map, resized to the picture's grid; a norm after the layers.
final class SigLIP2VisionTower: VisionNetwork {
    private let transformer: VisionTransformer
    /// `[side * side, hidden]`
    private let positions: Tensor
    private let side: Int
    private let finalNorm: Norm

    init(_ source: any TensorSource, _ c: VisionConfiguration, packer: WeightPacker, cancellation: Cancellation, onLayer: (Int) -> Void) throws {
        transformer = try VisionTransformer(source, c, layers: c.numHiddenLayers, packer: packer, cancellation: cancellation, onLayer: onLayer)
        side = c.imageSize / c.patchSize
        positions = try Tensor(matrix: source.tensor("vision_model.embeddings.position_embedding.weight"), rows: side * side, columns: c.hiddenSize)
        finalNorm = try Norm(source, "vision_model.post_layernorm", c)
    }

    var linears: [Linear] { transformer.linears }

    /// - Parameters:
    ///   - pixels: `[patches, patch * patch * channels]`, as ``LFM2VLTiling/rows(of:value:)`` makes them.
    ///   - grid: as the position embeddings where it is `nil`.
    func pass(_ pixels: [Float], grid: PatchGrid?, _ workspace: Workspace) throws -> VisionPass {
        let c = transformer.configuration, grid = grid ?? PatchGrid(rows: side, columns: side)
        let patches = grid.rows * grid.columns, inputs = c.numChannels * c.patchSize * c.patchSize
        guard pixels.count == patches * inputs else { throw VisionError.pixels(expected: patches * inputs, found: pixels.count) }
        let rows = try Tensor(checked: patches, columns: inputs, what: "an image's patches")
        pixels.withUnsafeBufferPointer { pixels in
            guard let source = pixels.baseAddress else { return }
            for row in 0 ..< patches { (rows.data + row * rows.stride).update(from: source + row * inputs, count: inputs) }
        }
        let hidden = try Tensor(checked: patches, columns: c.hiddenSize, what: "an image's hidden states")
        transformer.embed(rows: rows, into: hidden, workspace)
        addPositions(to: hidden, grid, workspace)
        return try transformer.pass(hidden, workspace) { [finalNorm] in
            finalNorm(hidden, hidden, workspace)
            return VisionOutput(features: hidden)
        }
    }

    /// Adds the map of position embeddings, resized bilinearly to the grid; where it shrinks, with a wider filter.
    private func addPositions(to hidden: Tensor, _ grid: PatchGrid, _ workspace: Workspace) {
        let across = Self.taps(to: grid.columns, from: side), down = Self.taps(to: grid.rows, from: side)
        let (width, side, positions) = (hidden.columns, side, positions)
        let narrow = Tensor(rows: side * grid.columns, columns: width)
        workspace.forRows(narrow.rows) { rows, _ in
            for row in rows {
                Self.sum(across[row % grid.columns], narrow.data + row * narrow.stride, width, adding: false) {
                    positions.data + (row / grid.columns * side + $0) * positions.stride
                }
            }
        }
        workspace.forRows(hidden.rows) { rows, _ in
            for row in rows {
                Self.sum(down[row / grid.columns], hidden.data + row * hidden.stride, width, adding: true) {
                    narrow.data + ($0 * grid.columns + row % grid.columns) * narrow.stride
                }
            }
        }
    }

    /// Weights of a bilinear filter along one axis, for each output.
    private static func taps(to outputs: Int, from inputs: Int) -> [[(source: Int, weight: Float)]] {
        let scale = Float(inputs) / Float(outputs), support = max(scale, 1)
        return (0 ..< outputs).map { output in
            let centre = (Float(output) + 0.5) * scale - 0.5
            let weights = (0 ..< inputs).map { max(1 - abs(Float($0) - centre) / support, 0) }
            let total = weights.reduce(0, +)
            return weights.enumerated().filter { $0.element > 0 }.map { ($0.offset, $0.element / total) }
        }
    }

    private static func sum(
        _ taps: [(source: Int, weight: Float)], _ out: UnsafeMutablePointer<Float>, _ width: Int, adding: Bool, _ row: (Int) -> UnsafeMutablePointer<Float>
    ) {
        if !adding { out.update(repeating: 0, count: width) }
        for tap in taps {
            let source = row(tap.source)
            for column in 0 ..< width { out[column] += tap.weight * source[column] }
        }
    }
}
