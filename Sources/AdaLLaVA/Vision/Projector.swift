import AdaKernels

/// Maps patch features to the language model's embedding space (`mm_projector`): `linear`, `mlp{N}x_gelu` or `identity`
/// (LLaVA-1.5, Liu et al., 2023), or Idefics3's connector.
struct Projector: Sendable {
    private let linears: [Linear]
    /// Patches of a side whose features become one row.
    private let shuffle: Int

    init(_ source: any TensorSource, _ type: LlavaConfiguration.Projector, inputs: Int, outputs: Int, packer: WeightPacker) throws {
        if case .pixelShuffle(let scale) = type { shuffle = scale } else { shuffle = 1 }
        switch type {
        case .identity: linears = []
        case .linear: linears = [try Linear(source, "model.mm_projector", rows: outputs, inputs: inputs, packer: packer)]
        case .pixelShuffle(let scale):
            linears = [try Linear(source, "model.mm_projector", rows: outputs, inputs: inputs * scale * scale, packer: packer)]
        case .mlp(let depth):
            // nn.Sequential: a GELU between any two linear maps, so these are the even entries.
            linears = try (0 ..< depth).map {
                try Linear(source, "model.mm_projector.\(2 * $0)", rows: outputs, inputs: $0 == 0 ? inputs : outputs, packer: packer)
            }
        }
    }

    var weights: [Linear] { linears }

    /// `[rows, hidden of the tower]` to `[tokens, hidden]`; tokens are as many as rows but for a pixel shuffle, which takes a square of patches.
    func callAsFunction(_ features: Tensor, _ workspace: Workspace) -> Tensor {
        var x = shuffle > 1 ? Projector.shuffled(features, shuffle) : features
        for (index, linear) in linears.enumerated() {
            let out = Tensor(rows: x.rows, columns: linear.weight.rows)
            workspace.multiply(x, role: .chunk, [Product(linear: linear, output: out)])
            if index + 1 < linears.count {
                let kernels = workspace.kernels.table
                workspace.forRows(out.rows) { rows, _ in kernels.gelu_erf(out.data + rows.lowerBound * out.stride, rows.count * out.stride) }
            }
            x = out
        }
        return x
    }

    /// Space to depth: a row holds the features of `scale` x `scale` patches of a square, row by row.
    private static func shuffled(_ features: Tensor, _ scale: Int) -> Tensor {
        let side = Int(Double(features.rows).squareRoot().rounded()), cells = side / scale, width = features.columns
        let out = Tensor(rows: cells * cells, columns: width * scale * scale)
        for row in 0 ..< out.rows {
            for part in 0 ..< scale * scale {
                let patch = (row / cells * scale + part / scale) * side + row % cells * scale + part % scale
                (out.data + row * out.stride + part * width).update(from: features.data + patch * features.stride, count: width)
            }
        }
        return out
    }
}
