import AdaKernels

/// An execution plan's row in the kernels' terms: which panels of outputs and which blocks of inputs it touches.
///
/// Weights are packed in panels of 16 outputs and blocks of 32 inputs that need not end where a head or a neuron group ends. A panel or
/// block is read if anything kept lies in it; what else lies in it is set to zero before it can reach the residual stream.
final class LayerSelection: Sendable {
    let heads: [Int]
    /// Key-value heads that some kept head reads.
    let keyValueHeads: [Int]
    let queryPanels: IndexList
    let keyValuePanels: IndexList
    let outputBlocks: IndexList
    let gatePanels: IndexList
    let downBlocks: IndexList
    /// Columns of the touched blocks of `down_proj` whose neurons are off.
    let droppedNeurons: [Range<Int>]
    /// Columns of the touched blocks of `o_proj` whose heads are off.
    let droppedHeadColumns: [Range<Int>]
    let runsAttention: Bool
    let runsMLP: Bool

    init(_ row: ExecutionPlan.Row, _ configuration: LlamaConfiguration) {
        let (headDim, headCount) = (configuration.headDim, configuration.numAttentionHeads)
        let perKeyValueHead = headCount / configuration.numKeyValueHeads
        heads = row.heads
        let keyValueHeads = Array(Set(row.heads.map { $0 / perKeyValueHead })).sorted()
        self.keyValueHeads = keyValueHeads
        let headColumns = row.heads.map { $0 * headDim ..< ($0 + 1) * headDim }
        let neurons = row.groups.map { ExecutionPlan.neurons(group: $0, of: headCount, intermediateSize: configuration.intermediateSize) }
        queryPanels = IndexList(touched(headColumns, step: Int(AK_PANEL)))
        keyValuePanels = IndexList(touched(keyValueHeads.map { $0 * headDim ..< ($0 + 1) * headDim }, step: Int(AK_PANEL)))
        let outputBlocks = touched(headColumns, step: Int(AK_BLOCK))
        self.outputBlocks = IndexList(outputBlocks)
        gatePanels = IndexList(touched(neurons, step: Int(AK_PANEL)))
        let downBlocks = touched(neurons, step: Int(AK_BLOCK))
        self.downBlocks = IndexList(downBlocks)
        droppedNeurons = complement(of: neurons, in: downBlocks, limit: configuration.intermediateSize)
        droppedHeadColumns = complement(of: headColumns, in: outputBlocks, limit: headCount * headDim)
        runsAttention = !row.heads.isEmpty
        runsMLP = !row.groups.isEmpty
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

/// The columns of `blocks` below `limit` that lie in none of the ascending ranges.
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
