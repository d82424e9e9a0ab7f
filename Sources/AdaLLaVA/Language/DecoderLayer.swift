import AdaKernels

/// What a family of decoders has of its own: how a block is put together of attention, feed-forward network and norms.
protocol DecoderFamily {
    static func layer(_ load: LayerLoader) throws -> DecoderLayer
    /// The norm before the output layer.
    static func finalNorm(_ source: any TensorSource, _ c: DecoderConfiguration) throws -> Norm
    /// Whether the output layer must have a bias.
    static var headNeedsBias: Bool { get }
}

extension DecoderFamily {
    static var headNeedsBias: Bool { false }
}

extension DecoderArchitecture {
    var family: any DecoderFamily.Type {
        switch self {
        case .llama: Llama.self
        case .mistral: Mistral.self
        case .qwen2: Qwen2.self
        case .phi2: Phi2.self
        case .gemma3: Gemma3.self
        }
    }
}

/// One block: `x += attention(norm(x)); x += mlp(norm(x))`, or, without a second norm, both of one norm side by side.
final class DecoderLayer: Sendable {
    let inputNorm: Norm
    let attention: Attention
    /// `nil`: attention and MLP read the same normed input (Phi-2).
    let mlpNorm: Norm?
    let mlp: MLP
    /// Norms of what attention and MLP add; `nil` adds it as it is.
    let attentionOutputNorm, mlpOutputNorm: Norm?

    init(inputNorm: Norm, attention: Attention, attentionOutputNorm: Norm? = nil, mlpNorm: Norm?, mlp: MLP, mlpOutputNorm: Norm? = nil) {
        (self.inputNorm, self.attention, self.mlpNorm, self.mlp) = (inputNorm, attention, mlpNorm, mlp)
        (self.attentionOutputNorm, self.mlpOutputNorm) = (attentionOutputNorm, mlpOutputNorm)
    }

    var linears: [Linear] { attention.linears + mlp.linears }

    /// What single rows read first of this layer.
    func prefetched(_ selection: LayerSelection, _ workspace: Workspace) -> Prefetches {
        if !selection.runsAttention { return selection.runsMLP ? mlp.prefetched(selection, workspace) : Prefetches() }
        let panels = selection.keyValuePanels
        return Prefetches([
            workspace.prefetched(attention.query.weight, panels: selection.queryPanels), workspace.prefetched(attention.key.weight, panels: panels),
            workspace.prefetched(attention.value.weight, panels: panels),
        ])
    }

    /// One block for a batch of groups, ready to run.
    final class Prepared {
        private let layer: DecoderLayer
        private let x: Tensor
        private let normed: Tensor?
        private let attention: Attention.Prepared?
        private let mlp: MLP.Prepared?
        /// What running this reads beside weights and values.
        private(set) var lines = CacheLines()

        /// - Parameters:
        ///   - x: hidden states of the rows that this layer runs for, `[rows, hidden]`, changed in place.
        ///   - next: what single rows read after this layer.
        init(_ layer: DecoderLayer, _ x: Tensor, _ groups: [RowGroup], next: Prefetches, _ workspace: Workspace) {
            (self.layer, self.x) = (layer, x)
            let isParallel = layer.mlpNorm == nil
            normed = isParallel ? workspace.tensor(.normed, rows: x.rows, columns: x.columns) : nil
            let input = normed ?? x
            let mlpReads = groups.first.map { $0.selection.runsMLP ? layer.mlp.prefetched($0.selection, workspace) : next } ?? next
            attention = groups.contains(where: \.selection.runsAttention)
                ? Attention.Prepared(
                    layer.attention, input: input, norm: isParallel ? nil : layer.inputNorm, outputNorm: layer.attentionOutputNorm, adding: x, groups,
                    next: mlpReads, workspace) : nil
            mlp = groups.contains { $0.selection.runsMLP && !$0.outputs.isEmpty }
                ? MLP.Prepared(
                    layer.mlp, input: input, norm: layer.mlpNorm, outputNorm: layer.mlpOutputNorm, adding: x, groups, next: next, workspace) : nil
            lines.add(self)
            attention?.add(to: &lines)
            mlp?.add(to: &lines)
        }

        /// - Parameters:
        ///   - places: of each row.
        ///   - observe: given rotated queries and keys.
        func callAsFunction(_ sequences: [SequenceRows], places: UnsafePointer<RowPlace>, observe: ((Tensor, Tensor) -> Void)?, _ workspace: Workspace) {
            if let normed { layer.inputNorm(normed, x, workspace) }
            attention?(sequences, places: places, observe: observe, workspace)
            mlp?(workspace)
        }
    }
}
