import AdaKernels
import Foundation

/// Turns a granted fraction of compute into the latency token's embedding (AdaLLaVA, section 3.2): 128 sines and cosines, LayerNorm, and a
/// two-layer GELU network. Weights: `scheduler.scheduler_up_proj.net.{0,1,3}`.
package struct LatencyEncoder: Sendable {
    static let width = 256
    private let norm: Norm
    private let first, second: Linear

    init(_ source: any TensorSource, hiddenSize: Int, packer: WeightPacker) throws {
        let name = "scheduler.scheduler_up_proj.net."
        norm = Norm(
            weight: try Tensor(vector: source.tensor(name + "0.weight"), count: LatencyEncoder.width),
            bias: try Tensor(vector: source.tensor(name + "0.bias"), count: LatencyEncoder.width), epsilon: 1e-5)
        first = try Linear(source, name + "1", rows: hiddenSize, inputs: LatencyEncoder.width, packer: packer)
        second = try Linear(source, name + "3", rows: hiddenSize, inputs: hiddenSize, packer: packer)
    }

    /// The sinusoidal code of `q`: `concat(sin(2πq f), cos(2πq f))`, `f_k = 10000^(-k/128)`.
    static func sinusoids(_ q: Float) -> [Float] {
        let half = width / 2
        let angles = (0 ..< half).map { k in q * Float(2 * Double.pi) * Float(pow(10000, -Double(k) / Double(half))) }
        return angles.map { sin($0) } + angles.map { cos($0) }
    }

    /// The latency token, `[1, hidden]`.
    package func callAsFunction(_ q: Float, _ workspace: Workspace) -> Tensor {
        let code = Tensor(LatencyEncoder.sinusoids(q))
        let middle = Tensor(rows: 1, columns: first.weight.rows)
        workspace.multiply(code, norm: norm, role: .single, [Product(linear: first, output: middle)])
        workspace.kernels.table.gelu_erf(middle.data, middle.columns)
        let embedding = Tensor(rows: 1, columns: second.weight.rows)
        workspace.multiply(middle, role: .single, [Product(linear: second, output: embedding)])
        return embedding
    }
}
