import AdaKernels

/// The learned scheduler (AdaLLaVA, section 3.3): a linear layer that scores the switches of the layers after the prefix from the latency
/// token's hidden state, and the greedy choice of those that a budget pays for.
final class Scheduler: @unchecked Sendable {
    let configuration: AdaptiveConfiguration
    let heads: Int
    private let head: Linear
    private let buffer = ActivationBuffer()

    init(_ source: any TensorSource, _ adaptive: AdaptiveConfiguration, _ llama: LlamaConfiguration, backend: Backend) throws {
        configuration = adaptive
        heads = llama.numAttentionHeads
        let optional = llama.numHiddenLayers - adaptive.numPrefixLayers
        let outputs = adaptive.schedulerType == .layers ? optional : optional * 2 * heads
        head = try Linear(source, "scheduler.mlp_head", rows: outputs, inputs: llama.hiddenSize, backend: backend)
    }

    /// Scores: `layers - prefix` (variant L) or `(layers - prefix) * 2 * heads` (variant H; per layer, heads first, then groups).
    /// - Parameter hidden: the latency token's hidden state after the prefix, `[1, hidden]`, not normalized.
    func logits(_ hidden: Tensor, _ backend: Backend) -> [Float] {
        let logits = Tensor(rows: 1, columns: head.weight.rows)
        backend.multiply(hidden, [Product(linear: head, output: logits)], buffer)
        return logits.row(0)
    }

    func plan(_ logits: [Float], units: Int) -> ExecutionPlan {
        Scheduler.plan(logits, units: units, configuration, heads: heads)
    }

    /// The plan that `units` optional units buy: the choice that training makes, without its noise.
    static func plan(_ logits: [Float], units: Int, _ adaptive: AdaptiveConfiguration, heads: Int) -> ExecutionPlan {
        let rows: [ExecutionPlan.Row]
        switch adaptive.schedulerType {
        case .layers:
            let sample = GumbelLayerSelection(logits: logits, draws: units).sample
            let all = Array(0 ..< heads)
            rows = sample.map { $0 > 0 ? ExecutionPlan.Row(heads: all, groups: all) : ExecutionPlan.Row(heads: [], groups: []) }
        case .heads:
            let sample = GumbelHeadSelection.greedySample(logits: logits, heads: heads, rank: adaptive.schedulerRank, draws: units)
            rows = stride(from: 0, to: sample.count, by: 2 * heads).map { first in
                ExecutionPlan.Row(
                    heads: (0 ..< heads).filter { sample[first + $0] > 0 }, groups: (0 ..< heads).filter { sample[first + heads + $0] > 0 })
            }
        }
        let prefix = ExecutionPlan.full(layers: adaptive.numPrefixLayers, heads: heads).rows
        return ExecutionPlan(headCount: heads, rows: prefix + rows)
    }
}
