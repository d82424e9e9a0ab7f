/// Loads the parts of one decoder layer by their canonical names.
struct LayerLoader {
    let source: any TensorSource
    let configuration: DecoderConfiguration
    /// The layer's number.
    let index: Int
    /// `model.layers.N.`
    var prefix: String { "model.layers.\(index)." }
    /// Whether plans leave heads and neurons of this layer out.
    let picksSwitches: Bool
    let packer: WeightPacker

    /// - Parameter needsBias: whether a bias must be there. One that is there is always added.
    func linear(_ name: String, rows: Int, inputs: Int, picksInputs: Bool = false, needsBias: Bool) throws -> Linear {
        if needsBias { _ = try source.tensor("\(prefix)\(name).bias") }
        return try Linear(source, prefix + name, rows: rows, inputs: inputs, picksInputs: picksInputs, packer: packer)
    }

    func rmsNorm(_ name: String) throws -> Norm { try Norm(rms: source, prefix + name, configuration) }

    func layerNorm(_ name: String) throws -> Norm { try Norm(layer: source, prefix + name, configuration) }

    /// Query, key, value and output projections, with their biases where the checkpoint has some.
    /// - Parameter normsHeads: whether each head's query and key are normed.
    func attention(normsHeads: Bool = false) throws -> Attention {
        let c = configuration
        func headNorm(_ name: String) throws -> Norm { try Norm(rms: source, prefix + name, c, count: c.headDim) }
        let headNorms = try normsHeads ? (query: headNorm("self_attn.q_norm"), key: headNorm("self_attn.k_norm")) : nil
        let (width, keyWidth) = (c.numAttentionHeads * c.headDim, c.numKeyValueHeads * c.headDim)
        let query = try linear("self_attn.q_proj", rows: width, inputs: c.hiddenSize, needsBias: c.attentionBias)
        return Attention(
            query: query, key: try linear("self_attn.k_proj", rows: keyWidth, inputs: c.hiddenSize, needsBias: c.attentionBias),
            value: try linear("self_attn.v_proj", rows: keyWidth, inputs: c.hiddenSize, needsBias: c.attentionBias),
            output: try linear("self_attn.o_proj", rows: c.hiddenSize, inputs: width, picksInputs: picksSwitches, needsBias: c.attentionBias),
            shape: AttentionShape(
                headDim: c.headDim, queriesPerKey: c.numAttentionHeads / c.numKeyValueHeads, window: c.window(index) ?? 0,
                rounds: packer.kernels.roundsAttention(query.weight, headDim: c.headDim), scale: c.attentionScale),
            rotaryDim: c.rotaryDim, interleaved: c.ropeInterleaved, headNorms: headNorms, isLocal: c.localRopeTheta != nil && c.window(index) != nil)
    }

    /// LFM2's gated convolution. The three projections are stored as one, of the gate, the output gate and the value.
    func shortConvolution() throws -> ShortConvolution {
        let c = configuration, hidden = c.hiddenSize, taps = c.convolutionTaps, name = prefix + "conv.in_proj"
        let stored = try source.tensor(name + ".weight")
        guard stored.shape == [3 * hidden, hidden] else {
            throw CheckpointError.shape(tensor: stored.name, expected: [3 * hidden, hidden], found: stored.shape, file: stored.file.path)
        }
        let bias: StoredTensor? = try c.convolutionBias ? source.tensor(name + ".bias") : source.find(name + ".bias")
        func projection(_ index: Int) throws -> Linear {
            let range = index * hidden ..< (index + 1) * hidden
            let biases = bias?.rows(range, named: name + ".bias")
            guard let rows = stored.rows(range, named: stored.name), bias == nil || biases != nil else {
                throw CheckpointError.elementType(
                    tensor: stored.name, expected: "a type whose blocks end with row \(range.upperBound)", found: stored.typeName, file: stored.file.path)
            }
            return Linear(
                weight: try WeightMatrix(rows, rows: hidden, inputs: hidden, packer: packer), bias: try biases.map { try Tensor(vector: $0, count: hidden) })
        }
        // [channels, 1, taps], in GGUF [channels, taps]: turned round, so that neighbouring channels are convolved together.
        let weight = try source.tensor(prefix + "conv.conv.weight"), byChannel = try Tensor(matrix: weight, rows: hidden, columns: taps)
        let byTap = Tensor(rows: taps, columns: hidden)
        for tap in 0 ..< taps { byTap.set(row: tap, to: (0 ..< hidden).map { byChannel.data[$0 * byChannel.stride + tap] }) }
        let biasName = prefix + "conv.conv.bias"
        let tapBias: StoredTensor? = try c.convolutionBias ? source.tensor(biasName) : source.find(biasName)
        return ShortConvolution(
            gate: try projection(0), outputGate: try projection(1), value: try projection(2),
            output: try linear("conv.out_proj", rows: hidden, inputs: hidden, picksInputs: picksSwitches, needsBias: c.convolutionBias), taps: byTap,
            bias: try tapBias.map { try Tensor(vector: $0, count: hidden) })
    }

    /// `down(function(gate(x)) * up(x))`
    func gatedMLP() throws -> GatedMLP {
        let c = configuration
        return GatedMLP(
            gate: try linear("mlp.gate_proj", rows: c.intermediateSize, inputs: c.hiddenSize, needsBias: c.mlpBias),
            up: try linear("mlp.up_proj", rows: c.intermediateSize, inputs: c.hiddenSize, needsBias: c.mlpBias),
            down: try linear("mlp.down_proj", rows: c.hiddenSize, inputs: c.intermediateSize, picksInputs: picksSwitches, needsBias: c.mlpBias),
            function: c.hiddenActivation == .geluTanh ? .geluTanh : .silu)
    }

    /// `down(activation(up(x)))`
    func plainMLP() throws -> PlainMLP {
        let c = configuration
        return PlainMLP(
            up: try linear("mlp.up_proj", rows: c.intermediateSize, inputs: c.hiddenSize, needsBias: c.mlpBias),
            down: try linear("mlp.down_proj", rows: c.hiddenSize, inputs: c.intermediateSize, picksInputs: picksSwitches, needsBias: c.mlpBias),
            activation: packer.kernels.activation(c.hiddenActivation))
    }
}

extension Norm {
    /// An RMSNorm of a decoder.
    /// - Parameter count: values that are normed together; `nil`: a hidden state.
    convenience init(rms source: any TensorSource, _ name: String, _ c: DecoderConfiguration, count: Int? = nil) throws {
        let weight = try Tensor(vector: source.tensor(name + ".weight"), count: count ?? c.hiddenSize)
        if c.normsAddOne { for column in 0 ..< weight.columns { weight.data[column] += 1 } }
        self.init(weight: weight, epsilon: c.normEpsilon)
    }

    /// A LayerNorm of a decoder.
    convenience init(layer source: any TensorSource, _ name: String, _ c: DecoderConfiguration) throws {
        self.init(
            weight: try Tensor(vector: source.tensor(name + ".weight"), count: c.hiddenSize),
            bias: try Tensor(vector: source.tensor(name + ".bias"), count: c.hiddenSize), epsilon: c.normEpsilon)
    }
}

extension KernelSet {
    /// The kernel of an activation function.
    func activation(_ activation: Activation) -> ActivationFunction {
        switch activation {
        case .silu: table.silu
        case .quickGELU: table.gelu_quick
        case .gelu: table.gelu_erf
        case .geluTanh: table.gelu_tanh
        }
    }
}
