/// Intermediates of one request under the reference's names, for comparing with another implementation.
package final class Trace {
    /// One tensor.
    package struct Entry: Sendable {
        /// Row-major, outermost first.
        package var shape: [Int]
        /// As many as the shape says.
        package var values: [Float]
    }

    /// Also keep each layer's output in the first pass.
    package let includesLayers: Bool
    /// Also keep the latency token's attention in each prefix layer, `latency_attention.N` as `[heads, positions]`, each head's weights adding up to 1.
    package let includesAttention: Bool
    /// Recorded tensors, by name.
    package private(set) var entries: [String: Entry] = [:]

    /// An empty trace.
    package init(includesLayers: Bool = false, includesAttention: Bool = false) {
        (self.includesLayers, self.includesAttention) = (includesLayers, includesAttention)
    }

    func record(_ name: String, _ values: [Float], shape: [Int]? = nil) {
        entries[name] = Entry(shape: shape ?? [values.count], values: values)
    }

    /// A vector `[columns]`.
    func record(_ name: String, _ tensor: Tensor) { record(name, tensor.row(0)) }

    /// Input of the first layer, `[positions, hidden]`; with the layers only, being as large as one.
    func recordInput(_ hidden: Tensor) {
        guard includesLayers else { return }
        record("inputs_embeds", hidden.values, shape: [hidden.rows, hidden.columns])
    }

    /// One image's features; those of several images follow each other, `[tokens of all, hidden]`.
    func recordFeatures(_ name: String, _ tensor: Tensor) {
        append(name, rows: tensor.rows, tensor)
    }

    /// One image's pixels: `[3, S, S]`, or `[images, 3, S, S]` when there are several.
    func recordPixels(_ name: String, _ pixels: [Float]) {
        let side = Int(Double(pixels.count / 3).squareRoot().rounded())
        let values = (entries[name]?.values ?? []) + pixels
        let images = values.count / max(pixels.count, 1)
        entries[name] = Entry(shape: (images == 1 ? [] : [images]) + [3, side, side], values: values)
    }

    /// Appends one row, `[n, columns]`.
    func append(_ name: String, _ tensor: Tensor) {
        append(name, rows: 1, tensor)
    }

    /// In place: copying the recorded values at every token would cost more than the token.
    private func append(_ name: String, rows: Int, _ tensor: Tensor) {
        entries[name, default: Entry(shape: [0, tensor.columns], values: [])].shape[0] += rows
        for row in 0 ..< rows {
            entries[name]?.values.append(contentsOf: UnsafeBufferPointer(start: tensor.data + row * tensor.stride, count: tensor.columns))
        }
    }

    func recordLayer(_ layer: Int, rows: Range<Int>, of positions: Int, _ chunk: Tensor) {
        guard includesLayers else { return }
        let name = "layer_output.\(layer)"
        var entry = entries[name] ?? Entry(shape: [positions, chunk.columns], values: Array(repeating: 0, count: positions * chunk.columns))
        entry.values.replaceSubrange(rows.lowerBound * chunk.columns ..< rows.upperBound * chunk.columns, with: chunk.values)
        entries[name] = entry
    }
}
