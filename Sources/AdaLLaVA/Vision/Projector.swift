import AdaKernels

/// Maps patch features to the language model's embedding space (`mm_projector`): `linear`, `mlp{N}x_gelu` or `identity`
/// (LLaVA-1.5, Liu et al., 2023).
struct Projector: Sendable {
    private let linears: [Linear]

    init(_ source: any TensorSource, _ type: LlavaConfiguration.Projector, inputs: Int, outputs: Int, packer: WeightPacker) throws {
        switch type {
        case .identity: linears = []
        case .linear: linears = [try Linear(source, "model.mm_projector", rows: outputs, inputs: inputs, packer: packer)]
        case .mlp(let depth):
            // nn.Sequential: a GELU between any two linear maps, so these are the even entries.
            linears = try (0 ..< depth).map {
                try Linear(source, "model.mm_projector.\(2 * $0)", rows: outputs, inputs: $0 == 0 ? inputs : outputs, packer: packer)
            }
        }
    }

    var weights: [Linear] { linears }

    /// `[tokens, hidden of the tower]` to `[tokens, hidden]`.
    func callAsFunction(_ features: Tensor, _ workspace: Workspace) -> Tensor {
        var x = features
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
}
