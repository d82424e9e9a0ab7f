import AdaKernels

/// Maps patch features to the language model's embedding space (`mm_projector`): `linear`, `mlp{N}x_gelu` or `identity`
/// (LLaVA-1.5, Liu et al., 2023), Idefics3's connector, or LFM2-VL's projector.
struct Projector: Sendable {
    private let linears: [Linear]
    /// Before the first of them.
    private let norm: Norm?
    /// Patches of a side whose features become one row.
    private let shuffle: Int

    init(_ source: any TensorSource, _ type: LlavaConfiguration.Projector, inputs: Int, outputs: Int, packer: WeightPacker) throws {
        switch type {
        case .pixelShuffle(let scale), .pixelUnshuffle(let scale, _, _): shuffle = scale
        default: shuffle = 1
        }
        var norm: Norm?
        switch type {
        case .identity: linears = []
        case .linear: linears = [try Linear(source, "model.mm_projector", rows: outputs, inputs: inputs, packer: packer)]
        case .pixelShuffle(let scale):
            linears = [try Linear(source, "model.mm_projector", rows: outputs, inputs: inputs * scale * scale, packer: packer)]
        case .pixelUnshuffle(let scale, let hidden, let hasNorm):
            let (name, wide) = ("model.mm_projector.", inputs * scale * scale)
            if hasNorm {
                // PyTorch's epsilon where none is given.
                norm = Norm(
                    weight: try Tensor(vector: source.tensor(name + "norm.weight"), count: wide),
                    bias: try Tensor(vector: source.tensor(name + "norm.bias"), count: wide), epsilon: 1e-5)
            }
            linears = [
                try Linear(source, name + "0", rows: hidden, inputs: wide, packer: packer), try Linear(source, name + "2", rows: outputs, inputs: hidden, packer: packer),
            ]
        case .mlp(let depth):
            // nn.Sequential: a GELU between any two linear maps, so these are the even entries.
            linears = try (0 ..< depth).map {
                try Linear(source, "model.mm_projector.\(2 * $0)", rows: outputs, inputs: $0 == 0 ? inputs : outputs, packer: packer)
            }
        }
        self.norm = norm
    }

    var weights: [Linear] { linears }

    /// The tower's features, `[patches, hidden of the tower]`, as rows of which each becomes a token: themselves, or those of a square of patches side by side.
    /// - Parameter grid: the patches; a square where it is `nil`.
    func input(_ features: Tensor, grid: PatchGrid?) -> Tensor {
        guard shuffle > 1 else { return features }
        let side = Int(Double(features.rows).squareRoot().rounded())
        return Projector.shuffled(features, grid ?? PatchGrid(rows: side, columns: side), shuffle)
    }

    /// Rows of ``input(_:grid:)``, any of them, to `[rows, hidden]`.
    func callAsFunction(_ rows: Tensor, _ workspace: Workspace) -> Tensor {
        var x = rows
        for (index, linear) in linears.enumerated() {
            let out = Tensor(rows: x.rows, columns: linear.weight.rows)
            workspace.multiply(x, norm: index == 0 ? norm : nil, role: .chunk, [Product(linear: linear, output: out)])
            if index + 1 < linears.count {
                let kernels = workspace.kernels.table
                workspace.forRows(out.rows) { rows, _ in kernels.gelu_erf(out.data + rows.lowerBound * out.stride, rows.count * out.stride) }
            }
            x = out
        }
        return x
    }

    /// Space to depth: a row holds the features of `scale` x `scale` patches, row by row.
    private static func shuffled(_ features: Tensor, _ grid: PatchGrid, _ scale: Int) -> Tensor {
        let cells = grid.columns / scale, width = features.columns
        let out = Tensor(rows: grid.rows / scale * cells, columns: width * scale * scale)
        for row in 0 ..< out.rows {
            for part in 0 ..< scale * scale {
                let patch = (row / cells * scale + part / scale) * grid.columns + row % cells * scale + part % scale
                (out.data + row * out.stride + part * width).update(from: features.data + patch * features.stride, count: width)
            }
        }
        return out
    }
}
