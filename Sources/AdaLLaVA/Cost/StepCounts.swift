/// Counts that a step's time depends on: the terms of ``TimeModel``.
///
/// Rows of a chunk are bound by multiplying, so their time grows with rows times outputs; a single row is bound by reading weights and keys, so its time grows
/// with their bytes (roofline model, Williams et al., 2009). Counts are in millions where they are products, so that coefficients have like sizes.
package struct StepCounts: Sendable, Hashable {
    /// The terms, with their units.
    package enum Term: Int, CaseIterable, Sendable {
        /// Multiply-adds of a chunk's rows: queries and outputs; keys and values; MLP. In millions.
        case chunkHeads, chunkKeyValues, chunkNeurons
        /// Multiply-adds of a chunk's queries with the keys that they see, and of the weights with the values. In millions.
        case chunkPairs
        /// Values of hidden states that a chunk's layer reads and writes, in millions; weights that it reads, in millions of bytes; layers.
        case chunkValues, chunkWeights, chunkLayers
        /// Weights that single rows read, in millions of bytes: of attention, of the MLP.
        case singleAttention, singleNeurons
        /// Keys and values that single rows read, in millions of values; layers.
        case singleKeys, singleLayers
        /// Rows of logits, in millions of multiply-adds; steps; values of hidden states that go into a chunk's step and out of it, in millions.
        case logits, steps, stepValues
        /// Latency tokens: their embedding, the scheduler and the plan.
        case latencyTokens
        /// Layers in which a chunk's last row alone goes on.
        case lastLayers
    }

    package var values = SIMD16<Double>(repeating: 0)

    package init() {}

    package subscript(term: Term) -> Double {
        get { values[term.rawValue] }
        set { values[term.rawValue] = newValue }
    }

    /// Weights that single rows read in the layers, in millions of bytes.
    var singleWeights: Double { self[.singleAttention] + self[.singleNeurons] }

    /// Whether a whole step of single rows is counted: its layers and logits.
    package var isToken: Bool { self[.singleLayers] > 0 && self[.logits] > 0 && self[.chunkLayers] + self[.lastLayers] == 0 }

    static func + (a: StepCounts, b: StepCounts) -> StepCounts {
        var sum = a
        sum.values += b.values
        return sum
    }

    static func += (a: inout StepCounts, b: StepCounts) { a.values += b.values }

    /// Single rows of two sequences in one layer: the weights are read once, keys by each.
    package func joined(_ other: StepCounts) -> StepCounts {
        var joined = StepCounts()
        joined.values = values.replacing(with: other.values, where: other.values .> values)
        joined[.singleKeys] = self[.singleKeys] + other[.singleKeys]
        return joined
    }

    static func * (counts: StepCounts, factor: Double) -> StepCounts {
        var scaled = counts
        scaled.values *= factor
        return scaled
    }
}

/// Counts the steps of one model.
package struct StepCounter: Sendable {
    private let hidden, headDim, vocabulary: Double
    private let matrices: Double
    /// Bytes of a weight of the decoder's layers, as packed, on average.
    private let weightBytes: Double
    private let window: Int?

    /// - Parameter weightBytes: bytes of a weight of the layers as it is read.
    package init(_ language: DecoderConfiguration, weightBytes: Double) {
        (hidden, headDim, vocabulary) = (Double(language.hiddenSize), Double(language.headDim), Double(language.vocabularySize))
        matrices = BlockShape(language).isGated ? 3 : 2
        (self.weightBytes, window) = (weightBytes, language.slidingWindow)
    }

    /// Pairs of a query and a key that it sees in layers of a kind, for the queries of `rows`.
    package func pairs(_ rows: Range<Int>, _ kind: DecoderLayerKind) -> Double {
        if kind == .convolution { return 0 }
        let window = kind == .slidingAttention ? window : nil
        func below(_ end: Int) -> Double {
            let (all, seen) = (Double(end), Double(min(end, window ?? end)))
            return seen * (seen + 1) / 2 + (all - seen) * seen
        }
        return below(rows.upperBound) - below(rows.lowerBound)
    }

    /// Keys that a row at `slot` sees in layers of a kind, its own included.
    package func keys(_ slot: Int, _ kind: DecoderLayerKind) -> Double {
        kind == .convolution ? 0 : Double(min(slot + 1, (kind == .slidingAttention ? window : nil) ?? slot + 1))
    }

    /// Values of hidden states of a chunk, in millions.
    package func values(rows: Double) -> Double { rows * hidden / 1e6 }

    /// One layer for a chunk.
    /// - Parameters:
    ///   - rows: rows whose keys and values are computed.
    ///   - outputs: rows that go on to the next layer.
    ///   - pairs: of those rows and the keys that they see.
    package func chunk(_ share: LayerShare, rows: Double, outputs: Double, pairs: Double) -> StepCounts {
        var counts = StepCounts()
        if share.isSkipped || (!share.runsMixer && outputs == 0) { return counts }
        counts[.chunkHeads] = 2 * outputs * queryWidth(share) * hidden / 1e6
        counts[.chunkKeyValues] = 2 * rows * keyWidth(share) * hidden / 1e6
        counts[.chunkNeurons] = matrices * outputs * Double(share.neurons) * hidden / 1e6
        counts[.chunkPairs] = 2 * pairs * Double(share.heads) * headDim / 1e6
        counts[.chunkValues] = values(rows: rows)
        counts[.chunkWeights] = bytes(share)
        counts[outputs < rows ? .lastLayers : .chunkLayers] = 1
        return counts
    }

    /// One layer for a single row.
    package func single(_ share: LayerShare, keys: Double) -> StepCounts {
        var counts = StepCounts()
        if share.isSkipped { return counts }
        counts[.singleAttention] = attentionBytes(share)
        counts[.singleNeurons] = neuronBytes(share)
        counts[.singleKeys] = 2 * keys * Double(share.keyValueHeads) * headDim / 1e6
        counts[.singleLayers] = 1
        return counts
    }

    /// Cost of a step besides its layers.
    /// - Parameters:
    ///   - chunkRows: rows of prompts.
    ///   - latencyTokens: latency tokens among the single rows.
    package func step(logitRows: Int, chunkRows: Double = 0, latencyTokens: Double = 0) -> StepCounts {
        var counts = StepCounts()
        (counts[.stepValues], counts[.latencyTokens]) = (values(rows: chunkRows), latencyTokens)
        counts[.logits] = Double(logitRows) * vocabulary * hidden / 1e6
        counts[.steps] = 1
        return counts
    }

    private func attentionBytes(_ share: LayerShare) -> Double {
        2 * (queryWidth(share) + keyWidth(share)) * hidden * weightBytes / 1e6
    }

    /// Outputs of queries and inputs of the output projection; of a convolution, its channels.
    private func queryWidth(_ share: LayerShare) -> Double { Double(share.heads) * headDim + Double(share.channels) }

    /// Outputs of keys, and of values; of a convolution, its channels.
    private func keyWidth(_ share: LayerShare) -> Double { Double(share.keyValueHeads) * headDim + Double(share.channels) }

    private func neuronBytes(_ share: LayerShare) -> Double { matrices * Double(share.neurons) * hidden * weightBytes / 1e6 }

    private func bytes(_ share: LayerShare) -> Double { attentionBytes(share) + neuronBytes(share) }
}
