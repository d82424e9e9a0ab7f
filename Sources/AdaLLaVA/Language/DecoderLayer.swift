import AdaKernels

/// Structure of a decoder family's block: order of attention, feed-forward network and norms.
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
        case .lfm2: LFM2.self
        }
    }
}

/// The operation that mixes positions in a block.
enum Mixer: Sendable {
    case attention(Attention)
    case convolution(ShortConvolution)

    var linears: [Linear] {
        switch self {
        case .attention(let attention): attention.linears
        case .convolution(let convolution): convolution.linears
        }
    }

    /// Memory that single rows read first.
    func prefetched(_ selection: LayerSelection, _ workspace: Workspace) -> Prefetches {
        let (first, others) = switch self {
        case .attention(let attention): (attention.query, [attention.key, attention.value])
        case .convolution(let convolution): (convolution.gate, [convolution.value, convolution.outputGate])
        }
        return Prefetches(
            [workspace.prefetched(first.weight, panels: selection.queryPanels)]
                + others.map { workspace.prefetched($0.weight, panels: selection.keyValuePanels) })
    }
}

/// One block: `x += attention(norm(x)); x += mlp(norm(x))`, or, without a second norm, both of one norm side by side.
final class DecoderLayer: Sendable {
    let inputNorm: Norm
    let mixer: Mixer
    /// `nil`: attention and MLP read the same normed input (Phi-2).
    let mlpNorm: Norm?
    let mlp: MLP
    /// Norms of the results of attention and MLP; `nil` for none.
    let attentionOutputNorm, mlpOutputNorm: Norm?

    init(inputNorm: Norm, mixer: Mixer, attentionOutputNorm: Norm? = nil, mlpNorm: Norm?, mlp: MLP, mlpOutputNorm: Norm? = nil) {
        (self.inputNorm, self.mixer, self.mlpNorm, self.mlp) = (inputNorm, mixer, mlpNorm, mlp)
        (self.attentionOutputNorm, self.mlpOutputNorm) = (attentionOutputNorm, mlpOutputNorm)
    }

    convenience init(inputNorm: Norm, attention: Attention, attentionOutputNorm: Norm? = nil, mlpNorm: Norm?, mlp: MLP, mlpOutputNorm: Norm? = nil) {
        self.init(
            inputNorm: inputNorm, mixer: .attention(attention), attentionOutputNorm: attentionOutputNorm, mlpNorm: mlpNorm, mlp: mlp,
            mlpOutputNorm: mlpOutputNorm)
    }

    var linears: [Linear] { mixer.linears + mlp.linears }

    /// Memory that single rows read first in this layer.
    func prefetched(_ selection: LayerSelection, _ workspace: Workspace) -> Prefetches {
        if !selection.runsAttention { return selection.runsMLP ? mlp.prefetched(selection, workspace) : Prefetches() }
        return mixer.prefetched(selection, workspace)
    }

    private enum PreparedMixer {
        case attention(Attention.Prepared)
        case convolution(ShortConvolution.Prepared)
    }

    /// One block for a batch of groups, ready to run.
    final class Prepared {
        private let layer: DecoderLayer
        private let x: Tensor
        private let normed: Tensor?
        private let mixer: PreparedMixer?
        private let mlp: MLP.Prepared?
        /// Memory that this reads besides weights and activations.
        private(set) var lines = CacheLines()

        /// - Parameters:
        ///   - x: hidden states of the rows that this layer runs for, `[rows, hidden]`, changed in place.
        ///   - next: memory that single rows read after this layer.
        init(_ layer: DecoderLayer, _ x: Tensor, _ groups: [RowGroup], next: Prefetches, _ workspace: Workspace) {
            (self.layer, self.x) = (layer, x)
            let isParallel = layer.mlpNorm == nil
            normed = isParallel ? workspace.tensor(.normed, rows: x.rows, columns: x.columns) : nil
            let input = normed ?? x
            let mlpReads = groups.first.map { $0.selection.runsMLP ? layer.mlp.prefetched($0.selection, workspace) : next } ?? next
            let (norm, outputNorm) = (isParallel ? nil : layer.inputNorm, layer.attentionOutputNorm)
            if !groups.contains(where: \.selection.runsAttention) {
                mixer = nil
            } else {
                switch layer.mixer {
                case .attention(let attention):
                    mixer = .attention(
                        Attention.Prepared(attention, input: input, norm: norm, outputNorm: outputNorm, adding: x, groups, next: mlpReads, workspace))
                case .convolution(let convolution):
                    mixer = .convolution(
                        ShortConvolution.Prepared(
                            convolution, input: input, norm: norm, outputNorm: outputNorm, adding: x, groups, next: mlpReads, workspace))
                }
            }
            mlp = groups.contains { $0.selection.runsMLP && !$0.outputs.isEmpty }
                ? MLP.Prepared(
                    layer.mlp, input: input, norm: layer.mlpNorm, outputNorm: layer.mlpOutputNorm, adding: x, groups, next: next, workspace) : nil
            lines.add(self)
            switch mixer {
            case .attention(let attention)?: attention.add(to: &lines)
            case .convolution(let convolution)?: convolution.add(to: &lines)
            case nil: break
            }
            mlp?.add(to: &lines)
        }

        /// - Parameters:
        ///   - places: of each row.
        ///   - observe: given rotated queries, once keys are in their pages.
        func callAsFunction(_ sequences: [SequenceRows], places: UnsafePointer<RowPlace>, observe: ((Tensor) -> Void)?, _ workspace: Workspace) {
            if let normed { layer.inputNorm(normed, x, workspace) }
            switch mixer {
            case .attention(let attention)?: attention(sequences, places: places, observe: observe, workspace)
            case .convolution(let convolution)?: convolution(sequences, workspace)
            case nil: break
            }
            mlp?(workspace)
        }
    }
}
