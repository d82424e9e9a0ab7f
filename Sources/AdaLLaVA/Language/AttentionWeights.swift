import AdaKernels
import Foundation

/// Attention weights of one row in a layer, computed separately because the attention kernels do not keep them.
package struct AttentionWeights {
    /// `[heads, keys]`; each head's weights add up to 1.
    let values: [Float]
    let heads: Int, keys: Int

    /// - Parameters:
    ///   - query: the row's rotated query, `[heads * headDim]`.
    ///   - pages: of the layer, with all its key-value heads.
    ///   - keys: slots that the row sees, its own included. Those that a window leaves out get weight 0.
    init(query: UnsafePointer<Float>, _ pages: LayerPages, keys: Int, layer: Int, _ c: DecoderConfiguration) {
        (heads, self.keys) = (c.numAttentionHeads, keys)
        let first = c.window(layer).map { max(keys - $0, 0) } ?? 0
        let shared = c.numAttentionHeads / c.numKeyValueHeads, dims = c.headDim, width = Int(AK_PANEL), scale = c.attentionScale
        var values = [Float](repeating: 0, count: heads * keys), panel = [Float](repeating: 0, count: dims * width)
        var sums = [Float](repeating: 0, count: width)
        for keyHead in 0 ..< c.numKeyValueHeads {
            guard let place = pages.head(keyHead) else { continue }
            for start in stride(from: first / width * width, to: keys, by: width) {
                guard let page = place.pages[start / KeyValueLayout.slots] else { continue }
                ak_page_keys(&panel, page + place.keys, place.type, Int32(dims), Int32(start % KeyValueLayout.slots / width))
                for head in keyHead * shared ..< (keyHead + 1) * shared {
                    for slot in 0 ..< width { sums[slot] = 0 }
                    for dim in 0 ..< dims {
                        let value = query[head * dims + dim]
                        for slot in 0 ..< width { sums[slot] += value * panel[dim * width + slot] }
                    }
                    for slot in max(start, first) ..< min(start + width, keys) { values[head * keys + slot] = sums[slot - start] * scale }
                }
            }
        }
        for head in 0 ..< heads {
            let seen = head * keys + first ..< (head + 1) * keys
            let largest = values[seen].max() ?? 0
            var sum: Float = 0
            for index in seen {
                values[index] = exp(values[index] - largest)
                sum += values[index]
            }
            for index in seen { values[index] /= sum }
        }
        self.values = values
    }

    /// The mean over the heads, `[keys]`.
    var mean: [Float] {
        (0 ..< keys).map { key in (0 ..< heads).reduce(Float(0)) { $0 + values[$1 * keys + key] } / Float(heads) }
    }
}
