import AdaKernels

/// A decoder's weights: embedding, layers, final norm and output layer. Immutable; ``BatchRunner`` computes with them.
package final class Decoder: Sendable {
    package let configuration: DecoderConfiguration
    let layers: [DecoderLayer]
    let finalNorm: Norm
    let head: Linear
    let rotary: RotaryEmbedding
    /// Of layers with a window, where it differs.
    let localRotary: RotaryEmbedding?
    /// All of a layer.
    let whole: LayerSelection
    private let embedding: RowReader

    /// Loads every layer.
    /// - Parameters:
    ///   - switched: the layers of which plans leave heads and neurons out.
    ///   - onLayer: called with the number of layers loaded so far.
    /// - Throws: ``CheckpointError``, `CancellationError`
    init(
        _ source: any TensorSource, _ c: DecoderConfiguration, packer: WeightPacker, frequencyFactors: [Float]? = nil,
        switched: Range<Int> = 0 ..< 0, cancellation: Cancellation, onLayer: (Int) -> Void
    ) throws {
        configuration = c
        let (vocabulary, hidden, family) = (c.vocabularySize, c.hiddenSize, c.architecture.family)
        // Tied embeddings are stored once, under either name (`safetensors.torch.save_model` keeps the one that comes first in the alphabet).
        let tied = c.tieWordEmbeddings ? source.find("lm_head.weight") : nil
        let embedding = try source.find("model.embed_tokens.weight") ?? tied ?? source.tensor("model.embed_tokens.weight")
        guard embedding.shape == [vocabulary, hidden] else {
            throw CheckpointError.shape(
                tensor: embedding.name, expected: [vocabulary, hidden], found: embedding.shape, file: embedding.file.path)
        }
        self.embedding = try RowReader(embedding, columns: hidden)
        layers = try (0 ..< c.numHiddenLayers).map { index in
            try cancellation.check()
            defer { onLayer(index + 1) }
            return try family.layer(
                LayerLoader(
                    source: source, configuration: c, index: index, picksSwitches: switched.contains(index), packer: packer))
        }
        finalNorm = try family.finalNorm(source, c)
        // Tied embeddings: the output matrix is the embedding's. A checkpoint that stores both is taken at its word.
        let headTensor = source.find("lm_head.weight") ?? (c.tieWordEmbeddings ? embedding : nil)
        guard let headTensor else { throw CheckpointError.missingTensor(name: "lm_head.weight", file: source.location) }
        if family.headNeedsBias { _ = try source.tensor("lm_head.bias") }
        head = Linear(
            weight: try WeightMatrix(headTensor, rows: vocabulary, inputs: hidden, packer: packer),
            bias: try source.find("lm_head.bias").map { try Tensor(vector: $0, count: vocabulary) })
        rotary = try RotaryEmbedding(c, frequencyFactors: frequencyFactors)
        localRotary = try c.localRopeTheta.map { try RotaryEmbedding(c, plainBase: $0) }
        whole = LayerSelection(whole: c)
    }

    /// How a layer's keys and values are stored.
    func layout(_ precision: Precision, _ type: KeyValueType = .f16) -> KeyValueLayout {
        KeyValueLayout(headDim: configuration.headDim, type: type.elementType(precision))
    }

    /// Writes the embedding of `token` into row `row` of `hidden`.
    package func embed(_ token: Int, into hidden: Tensor, row: Int) throws {
        let values = hidden.data + row * hidden.stride
        try embedding.read(checked: token, into: values)
        if let scale = configuration.embeddingScale { for column in 0 ..< configuration.hiddenSize { values[column] *= scale } }
    }
}
