/// How a decoder's block is put together, as far as its cost depends on it.
struct BlockShape: Sendable, Equatable {
    /// `down(activation(gate) * up)`, or `down(activation(up))`.
    let isGated: Bool
    /// Attention and MLP read one norm of the block's input.
    let sharesNorm: Bool
    /// Operations of a norm for each value, and vectors of weights that it reads: 4 and one (RMS norm), or 7 and two (layer norm).
    let normOperations: Double, normVectors: Double
    /// Whether the outputs of attention and MLP are normed before they are added, and whether each head's query and key are normed.
    let hasOutputNorms, hasHeadNorms: Bool
    /// Whether token embeddings are scaled.
    let scalesEmbeddings: Bool
    /// Biases: of queries, keys and values; of the attention's output; of the MLP; of the output layer.
    let hasQueryBias, hasOutputBias, hasMLPBias, hasHeadBias: Bool

    init(_ c: DecoderConfiguration) {
        let isPhi = c.architecture == .phi2
        (isGated, sharesNorm) = (!isPhi, isPhi)
        (normOperations, normVectors) = isPhi ? (7, 2) : (4, 1)
        (hasOutputNorms, hasHeadNorms) = (c.architecture == .gemma3, [.gemma3, .lfm2].contains(c.architecture))
        scalesEmbeddings = c.embeddingScale != nil
        hasQueryBias = c.attentionBias || c.architecture == .qwen2 || isPhi
        hasOutputBias = (c.attentionBias && c.architecture != .qwen2) || isPhi
        (hasMLPBias, hasHeadBias) = (c.mlpBias || isPhi, isPhi)
    }
}
