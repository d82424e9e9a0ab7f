import AdaKernels

/// Maps patch features to the language model's embedding space (`mm_projector`): `linear`, `mlp{N}x_gelu` or `identity`
/// (LLaVA-1.5, Liu et al., 2023).
final class Projector: @unchecked Sendable {
    private let linears: [Linear]
    private let backend: Backend
    private let buffer = ActivationBuffer()

    init(_ source: any TensorSource, _ type: LlavaConfiguration.Projector, inputs: Int, outputs: Int, backend: Backend) throws {
        self.backend = backend
        switch type {
        case .identity: linears = []
        case .linear: linears = [try Linear(source, "model.mm_projector", rows: outputs, inputs: inputs, backend: backend)]
        case .mlp(let depth):
            // nn.Sequential: a GELU between any two linear maps, so these are the even entries.
            linears = try (0 ..< depth).map {
                try Linear(source, "model.mm_projector.\(2 * $0)", rows: outputs, inputs: $0 == 0 ? inputs : outputs, backend: backend)
            }
        }
    }

    var weights: [Linear] { linears }

    /// `[tokens, hidden of the tower]` to `[tokens, hidden]`.
    func callAsFunction(_ features: Tensor) -> Tensor {
        var x = features
        for (index, linear) in linears.enumerated() {
            let out = Tensor(rows: x.rows, columns: linear.weight.rows)
            backend.multiply(x, [Product(linear: linear, output: out)], buffer)
            if index + 1 < linears.count {
                let kernels = backend.kernels
                backend.forRows(out.rows) { rows, _ in kernels.gelu_erf(out.data + rows.lowerBound * out.stride, rows.count * out.stride) }
            }
            x = out
        }
        return x
    }
}
