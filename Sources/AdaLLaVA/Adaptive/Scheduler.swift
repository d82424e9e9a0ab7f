import AdaKernels

/// The learned scheduler (AdaLLaVA, section 3.3): a linear layer that scores the switches of the layers after the prefix from the latency
/// token's hidden state, and the greedy choice of those that a budget pays for.
package struct Scheduler: Sendable {
    let configuration: AdaptiveConfiguration
    /// Attention switches of a layer, and as many MLP switches.
    let switches: Int
    private let head: Linear

    init(_ source: any TensorSource, _ adaptive: AdaptiveConfiguration, _ space: SwitchSpace, hiddenSize: Int, packer: WeightPacker) throws {
        configuration = adaptive
        switches = space.switchesPerLayer
        let optional = space.layers.count - adaptive.numPrefixLayers
        let outputs = adaptive.schedulerType == .layers ? optional : optional * 2 * switches
        head = try Linear(source, "scheduler.mlp_head", rows: outputs, inputs: hiddenSize, packer: packer)
    }

    /// Scores: `layers - prefix` (variant L) or `(layers - prefix) * 2 * heads` (variant H; per layer, heads first, then groups).
    /// - Parameter hidden: the latency token's hidden state after the prefix, `[1, hidden]`, not normalized.
    package func logits(_ hidden: Tensor, _ workspace: Workspace) -> [Float] {
        let logits = Tensor(rows: 1, columns: head.weight.rows)
        workspace.multiply(hidden, role: .single, [Product(linear: head, output: logits)])
        return logits.row(0)
    }

    package func plan(_ logits: [Float], units: Int) -> ExecutionPlan {
        Scheduler.plan(logits, units: units, configuration, heads: switches)
    }

    /// The plan that `units` optional units buy: the choice that training makes, without its noise.
    static func plan(_ logits: [Float], units: Int, _ adaptive: AdaptiveConfiguration, heads: Int) -> ExecutionPlan {
        let rows: [ExecutionPlan.Row]
        switch adaptive.schedulerType {
        case .layers:
            let sample = GumbelLayerSampling(logits: logits, draws: units).sample
            let all = Array(0 ..< heads)
            rows = sample.map { $0 > 0 ? ExecutionPlan.Row(heads: all, groups: all) : ExecutionPlan.Row(heads: [], groups: []) }
        case .heads:
            let sample = GumbelHeadSampling.greedySample(logits: logits, heads: heads, rank: adaptive.schedulerRank, draws: units)
            rows = stride(from: 0, to: sample.count, by: 2 * heads).map { first in
                ExecutionPlan.Row(
                    heads: (0 ..< heads).filter { sample[first + $0] > 0 }, groups: (0 ..< heads).filter { sample[first + heads + $0] > 0 })
            }
        }
        let prefix = ExecutionPlan.full(layers: adaptive.numPrefixLayers, heads: heads).rows
        return ExecutionPlan(headCount: heads, rows: prefix + rows)
    }
}
