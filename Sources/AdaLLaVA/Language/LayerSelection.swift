import AdaKernels

/// The part of one layer that runs, in the kernels' terms: panels of outputs and blocks of inputs.
///
/// Weights are packed in panels of 16 outputs and blocks of 32 inputs that need not end where a head or a neuron group ends. A panel or
/// block is read if it holds a kept column; its other columns are set to zero before they can reach the residual stream.
package final class LayerSelection: Sendable {
    /// Query heads that run, ascending.
    let heads: [Int]
    /// Key-value heads that some kept head reads.
    let keyValueHeads: [Int]
    /// The same, neighbours together.
    let headRuns, keyValueHeadRuns: [Range<Int>]
    /// `nil` where all panels or blocks are touched.
    let queryPanels, keyValuePanels, outputBlocks, gatePanels, downBlocks: IndexList?
    /// Columns of the touched blocks of `down_proj` whose neurons are off.
    let droppedNeurons: [Range<Int>]
    /// Columns of the touched blocks of `o_proj` whose heads are off.
    let droppedHeadColumns: [Range<Int>]
    /// All columns of the neurons that are off, and of the heads.
    let offNeurons, offHeadColumns: [Range<Int>]
    /// Channels that run in a layer with a convolution instead of attention.
    let channels: [Range<Int>]
    /// Attention, or the convolution in its place.
    let runsAttention: Bool
    let runsMLP: Bool
    /// Everything runs.
    let isWhole: Bool

    /// Nothing of the layer runs: no compute, no keys and values.
    var isSkipped: Bool { !runsAttention && !runsMLP }

    /// All of a layer.
    init(whole c: DecoderConfiguration) {
        heads = Array(0 ..< c.numAttentionHeads)
        keyValueHeads = Array(0 ..< c.numKeyValueHeads)
        (headRuns, keyValueHeadRuns) = ([0 ..< c.numAttentionHeads], [0 ..< c.numKeyValueHeads])
        (queryPanels, keyValuePanels, outputBlocks, gatePanels, downBlocks) = (nil, nil, nil, nil, nil)
        (droppedNeurons, droppedHeadColumns, runsAttention, runsMLP, isWhole) = ([], [], true, true, true)
        (offNeurons, offHeadColumns, channels) = ([], [], [0 ..< c.hiddenSize])
    }

    /// Some of a layer.
    /// - Parameters:
    ///   - heads: query heads, ascending.
    ///   - neurons: ascending ranges that do not overlap.
    init(heads: [Int], neurons: [Range<Int>], _ c: DecoderConfiguration) {
        let perKeyValueHead = c.numAttentionHeads / c.numKeyValueHeads
        self.heads = heads
        let keyValueHeads = Array(Set(heads.map { $0 / perKeyValueHead })).sorted()
        self.keyValueHeads = keyValueHeads
        (headRuns, keyValueHeadRuns) = (runs(of: heads), runs(of: keyValueHeads))
        let headColumns = heads.map { $0 * c.headDim ..< ($0 + 1) * c.headDim }
        queryPanels = IndexList(touched(headColumns, step: Int(AK_PANEL)))
        keyValuePanels = IndexList(touched(keyValueHeads.map { $0 * c.headDim ..< ($0 + 1) * c.headDim }, step: Int(AK_PANEL)))
        let outputBlocks = touched(headColumns, step: Int(AK_BLOCK))
        self.outputBlocks = IndexList(outputBlocks)
        gatePanels = IndexList(touched(neurons, step: Int(AK_PANEL)))
        let downBlocks = touched(neurons, step: Int(AK_BLOCK))
        self.downBlocks = IndexList(downBlocks)
        droppedNeurons = complement(of: neurons, in: downBlocks, limit: c.intermediateSize)
        droppedHeadColumns = complement(of: headColumns, in: outputBlocks, limit: c.numAttentionHeads * c.headDim)
        offNeurons = complement(of: neurons, limit: c.intermediateSize)
        offHeadColumns = complement(of: headColumns, limit: c.numAttentionHeads * c.headDim)
        (runsAttention, runsMLP, isWhole, channels) = (!heads.isEmpty, !neurons.isEmpty, false, [])
    }

    /// Some of a layer with a convolution.
    /// - Parameters:
    ///   - channels: ascending ranges that do not overlap.
    ///   - neurons: the same.
    init(channels: [Range<Int>], neurons: [Range<Int>], _ c: DecoderConfiguration) {
        let limit = c.hiddenSize
        (heads, keyValueHeads, headRuns, keyValueHeadRuns, self.channels) = ([], [], [], [], channels)
        queryPanels = IndexList(touched(channels, step: Int(AK_PANEL)))
        keyValuePanels = queryPanels
        let outputBlocks = touched(channels, step: Int(AK_BLOCK)), downBlocks = touched(neurons, step: Int(AK_BLOCK))
        (self.outputBlocks, self.downBlocks) = (IndexList(outputBlocks), IndexList(downBlocks))
        gatePanels = IndexList(touched(neurons, step: Int(AK_PANEL)))
        droppedNeurons = complement(of: neurons, in: downBlocks, limit: c.intermediateSize)
        droppedHeadColumns = complement(of: channels, in: outputBlocks, limit: limit)
        (offNeurons, offHeadColumns) = (complement(of: neurons, limit: c.intermediateSize), complement(of: channels, limit: limit))
        (runsAttention, runsMLP, isWhole) = (!channels.isEmpty, !neurons.isEmpty, false)
    }
}

/// Ascending numbers, neighbours together.
private func runs(of numbers: [Int]) -> [Range<Int>] {
    numbers.reduce(into: []) { runs, number in
        if let last = runs.last, last.upperBound == number {
            runs[runs.count - 1] = last.lowerBound ..< number + 1
        } else {
            runs.append(number ..< number + 1)
        }
    }
}

/// Indices of the steps of `step` columns that any of the ascending ranges touches, ascending, each once.
private func touched(_ ranges: [Range<Int>], step: Int) -> [Int32] {
    var indices: [Int32] = []
    for range in ranges where !range.isEmpty {
        for index in range.lowerBound / step ... (range.upperBound - 1) / step where indices.last.map({ $0 < Int32(index) }) ?? true {
            indices.append(Int32(index))
        }
    }
    return indices
}

/// The columns below `limit` outside the ascending ranges.
private func complement(of ranges: [Range<Int>], limit: Int) -> [Range<Int>] {
    complement(of: ranges, in: (0 ..< Int32((limit + Int(AK_BLOCK) - 1) / Int(AK_BLOCK))).map { $0 }, limit: limit).reduce(into: []) { joined, range in
        if let last = joined.last, last.upperBound == range.lowerBound {
            joined[joined.count - 1] = last.lowerBound ..< range.upperBound
        } else {
            joined.append(range)
        }
    }
}

/// The columns of `blocks` below `limit` outside the ascending ranges.
private func complement(of ranges: [Range<Int>], in blocks: [Int32], limit: Int) -> [Range<Int>] {
    var result: [Range<Int>] = []
    var next = 0
    for block in blocks {
        var column = Int(block) * Int(AK_BLOCK)
        let end = min(column + Int(AK_BLOCK), limit)
        while column < end {
            while next < ranges.count, ranges[next].upperBound <= column { next += 1 }
            let start = next < ranges.count ? ranges[next].lowerBound : end
            if column < start {
                result.append(column ..< min(start, end))
                column = min(start, end)
            } else {
                column = min(ranges[next].upperBound, end)
            }
        }
    }
    return result
}
