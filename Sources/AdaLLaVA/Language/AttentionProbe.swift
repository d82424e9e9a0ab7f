import Foundation

/// What one position of a sequence attends to in each layer, computed beside the attention kernels from the same queries and keys, which do
/// not keep their weights.
final class AttentionProbe {
    /// The position that is watched.
    let position: Int
    /// For each layer `[heads, position + 1]`; each head's weights add up to 1.
    private(set) var weights: [Int: [Float]] = [:]
    private var keys: [Int: [Float]] = [:]

    init(position: Int) { self.position = position }

    /// Takes one chunk of a layer, after rotation.
    /// - Parameters:
    ///   - query: `[rows, heads * headDim]`
    ///   - key: `[rows, keyValueHeads * headDim]`
    ///   - first: position of the first row; chunks come in order.
    func see(layer: Int, query: Tensor, key: Tensor, position first: Int, _ c: LlamaConfiguration) {
        for row in 0 ..< key.rows where first + row <= position {
            keys[layer, default: []].append(contentsOf: UnsafeBufferPointer(start: key.data + row * key.stride, count: key.columns))
        }
        guard (first ..< first + query.rows).contains(position) else { return }
        let seen = keys.removeValue(forKey: layer) ?? []
        let width = key.columns
        let queries = query.row(position - first)
        let scale = 1 / Float(c.headDim).squareRoot()
        var all: [Float] = []
        for head in 0 ..< c.numAttentionHeads {
            let offset = head / (c.numAttentionHeads / c.numKeyValueHeads) * c.headDim
            let scores = (0 ... position).map { place in
                (0 ..< c.headDim).reduce(Float(0)) { $0 + queries[head * c.headDim + $1] * seen[place * width + offset + $1] } * scale
            }
            let largest = scores.max() ?? 0
            let exponentials = scores.map { exp($0 - largest) }
            let sum = exponentials.reduce(0, +)
            all += exponentials.map { $0 / sum }
        }
        weights[layer] = all
    }
}
