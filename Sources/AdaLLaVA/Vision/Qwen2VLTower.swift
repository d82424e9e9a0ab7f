import AdaKernels
import Foundation

/// The vision transformer of Qwen2-VL and Qwen2.5-VL: pictures of any proportions, heads turned by row and column, in Qwen2.5-VL attention within windows in
/// most layers, and one row of features for `mergeSize` x `mergeSize` patches.
final class Qwen2VLTower: VisionNetwork {
    private enum MLP {
        case plain(first: Linear, second: Linear)
        case gated(gate: Linear, up: Linear, down: Linear)
    }

    private struct Layer {
        let norm1, norm2: Norm
        /// Queries, keys and values, concatenated.
        let stacked: Linear
        let output: Linear
        let mlp: MLP
        let attendsToAll: Bool
    }

    private let configuration: VisionConfiguration
    private let shape: Qwen2VLTowerShape
    private let patchEmbedding: Linear
    private let layers: [Layer]
    private let mergeNorm: Norm
    private let mergeFirst, mergeSecond: Linear
    private let activation: ActivationFunction

    init(
        _ source: any TensorSource, _ c: VisionConfiguration, _ shape: Qwen2VLTowerShape, packer: WeightPacker, cancellation: Cancellation,
        onLayer: (Int) -> Void
    ) throws {
        (configuration, self.shape) = (c, shape)
        activation = packer.kernels.activation(c.activation)
        func linear(_ name: String, _ rows: Int, _ inputs: Int) throws -> Linear {
            try Linear(source, TensorNames.visionPrefix + name, rows: rows, inputs: inputs, isAlwaysBatched: true, packer: packer)
        }
        func norm(_ name: String) throws -> Norm {
            let name = TensorNames.visionPrefix + name
            return shape.isSecond
                ? Norm(weight: try Tensor(vector: source.tensor(name + ".weight"), count: c.hiddenSize), epsilon: c.layerNormEpsilon) : try Norm(source, name, c)
        }
        patchEmbedding = try linear("patch_embed.proj", c.hiddenSize, c.numChannels * shape.temporalPatchSize * c.patchSize * c.patchSize)
        layers = try (0 ..< c.numHiddenLayers).map { index in
            try cancellation.check()
            defer { onLayer(index + 1) }
            let name = "blocks.\(index)."
            return Layer(
                norm1: try norm(name + "norm1"), norm2: try norm(name + "norm2"), stacked: try linear(name + "attn.qkv", 3 * c.hiddenSize, c.hiddenSize),
                output: try linear(name + "attn.proj", c.hiddenSize, c.hiddenSize),
                mlp: shape.isSecond
                    ? .gated(
                        gate: try linear(name + "mlp.gate_proj", c.intermediateSize, c.hiddenSize),
                        up: try linear(name + "mlp.up_proj", c.intermediateSize, c.hiddenSize),
                        down: try linear(name + "mlp.down_proj", c.hiddenSize, c.intermediateSize))
                    : .plain(
                        first: try linear(name + "mlp.fc1", c.intermediateSize, c.hiddenSize),
                        second: try linear(name + "mlp.fc2", c.hiddenSize, c.intermediateSize)),
                attendsToAll: !shape.isSecond || shape.fullAttentionLayers.contains(index))
        }
        mergeNorm = try norm("merger.ln_q")
        let merged = c.hiddenSize * shape.mergeSize * shape.mergeSize
        mergeFirst = try linear("merger.mlp.0", merged, merged)
        mergeSecond = try linear("merger.mlp.2", shape.outputSize, merged)
    }

    /// - Parameter pixels: `[patches, channels * frames * patch * patch]`, as ``DynamicResizing/rows(of:value:)`` makes them.
    func pass(_ pixels: [Float], grid: PatchGrid?, _ workspace: Workspace) throws -> VisionPass {
        let c = configuration, grid = grid ?? PatchGrid(rows: shape.mergeSize, columns: shape.mergeSize)
        let patches = grid.rows * grid.columns, inputs = patchEmbedding.weight.inputs, together = shape.mergeSize * shape.mergeSize
        guard pixels.count == patches * inputs else { throw VisionError.pixels(expected: patches * inputs, found: pixels.count) }
        let windows = windows(grid), order = windows.flatMap(\.self)
        // Windows are concatenated: each is a range of rows.
        let input = try Tensor(checked: patches, columns: inputs, what: "an image's patches")
        pixels.withUnsafeBufferPointer { source in
            guard let base = source.baseAddress else { return }
            for (place, unit) in order.enumerated() {
                for part in 0 ..< together {
                    (input.data + (place * together + part) * input.stride).update(from: base + (unit * together + part) * inputs, count: inputs)
                }
            }
        }
        let hidden = try Tensor(checked: patches, columns: c.hiddenSize, what: "an image's hidden states")
        workspace.multiply(input, role: .chunk, [Product(linear: patchEmbedding, output: hidden)])
        var ranges: [Range<Int>] = [], start = 0
        for window in windows {
            ranges.append(start ..< start + window.count * together)
            start += window.count * together
        }
        let attention = try Attending(self, order: order, grid: grid, windows: ranges)
        return VisionPass(
            count: 2 * layers.count, layers: layers.count,
            make: { [self, ranges] index in
                let layer = layers[index / 2]
                if index % 2 == 0 {
                    // Attention of all windows is one unit, because they share memory for keys.
                    return VisionPass.Phase(rows: 1, layer: index / 2) { _ in attention(layer, hidden, layer.attendsToAll ? [0 ..< patches] : ranges, workspace) }
                }
                return VisionPass.Phase(rows: patches, leastRows: 16) { rows in self.feedForward(layer, hidden.rows(rows), workspace) }
            },
            finish: { [self] in VisionOutput(features: merged(hidden, order, workspace)) })
    }

    /// Rows of features by windows, row by row in each: all in one where there are none.
    private func windows(_ grid: PatchGrid) -> [[Int]] {
        let (rows, columns) = (grid.rows / shape.mergeSize, grid.columns / shape.mergeSize)
        guard shape.isSecond else { return [Array(0 ..< rows * columns)] }
        let side = max(shape.windowSize / shape.mergeSize / configuration.patchSize, 1)
        return stride(from: 0, to: rows, by: side).flatMap { top in
            stride(from: 0, to: columns, by: side).map { left in
                (top ..< min(top + side, rows)).flatMap { row in (left ..< min(left + side, columns)).map { row * columns + $0 } }
            }
        }
    }

    /// Scratch memory of the layers' attention, and the angles of each row.
    private final class Attending {
        private let c: VisionConfiguration
        private let stacked, query, key, value, attended, cosines, sines: Tensor
        private let pages: [LayerPages]
        private let attentionShape: AttentionShape
        /// Windows that are computed together: memory for keys is taken for so many.
        private static let together = 8

        init(_ tower: Qwen2VLTower, order: [Int], grid: PatchGrid, windows: [Range<Int>]) throws {
            c = tower.configuration
            let rows = grid.rows * grid.columns, headDim = c.hiddenSize / c.numAttentionHeads, quarter = headDim / 4, merge = tower.shape.mergeSize
            func tensor(_ columns: Int) throws -> Tensor { try Tensor(checked: rows, columns: columns, what: "attention of an image") }
            (stacked, query, key) = (try tensor(3 * c.hiddenSize), try tensor(c.hiddenSize), try tensor(c.hiddenSize))
            (value, attended) = (try tensor(c.hiddenSize), try tensor(c.hiddenSize))
            (cosines, sines) = (try tensor(headDim / 2), try tensor(headDim / 2))
            let frequencies = (0 ..< quarter).map { 1 / pow(Float(10000), Float(2 * $0) / Float(headDim / 2)) }
            let columns = grid.columns / merge
            for row in 0 ..< rows {
                let (unit, part) = (order[row / (merge * merge)], row % (merge * merge))
                let place = [unit / columns * merge + part / merge, unit % columns * merge + part % merge]
                for axis in 0 ..< 2 {
                    for (index, frequency) in frequencies.enumerated() {
                        let angle = Float(place[axis]) * frequency
                        cosines.data[row * cosines.stride + axis * quarter + index] = cos(angle)
                        sines.data[row * sines.stride + axis * quarter + index] = sin(angle)
                    }
                }
            }
            attentionShape = AttentionShape(headDim: headDim, queriesPerKey: 1, isCausal: false)
            let layout = KeyValueLayout(headDim: headDim, type: AK_F32), heads = Array(0 ..< c.numAttentionHeads)
            let longest = windows.map(\.count).max() ?? 0, pool = PagePool()
            let hasAll = tower.layers.contains(where: \.attendsToAll)
            pages = try (0 ..< max(min(windows.count, Attending.together), 1)).map { index in
                let pages = LayerPages(heads: heads, layout: layout)
                try pages.reserve(0 ..< (index == 0 && hasAll ? rows : longest), pool)
                return pages
            }
        }

        /// Adds a layer's attention within ranges of rows to `x`.
        func callAsFunction(_ layer: Layer, _ x: Tensor, _ ranges: [Range<Int>], _ workspace: Workspace) {
            workspace.multiply(x, norm: layer.norm1, role: .chunk, [Product(linear: layer.stacked, output: stacked)])
            let (width, heads, headDim) = (c.hiddenSize, c.numAttentionHeads, attentionShape.headDim), kernels = workspace.kernels.table
            workspace.forRows(x.rows) { rows, _ in
                for row in rows {
                    let source = stacked.data + row * stacked.stride
                    for (place, target) in [query, key, value].enumerated() {
                        let out = target.data + row * target.stride
                        out.update(from: source + place * width, count: width)
                        if place < 2 {
                            kernels.rope(out, cosines.data + row * cosines.stride, sines.data + row * sines.stride, Int32(heads), Int32(headDim), 0)
                        }
                    }
                }
            }
            for first in stride(from: 0, to: ranges.count, by: pages.count) {
                let group = Array(ranges[first ..< min(first + pages.count, ranges.count)].enumerated())
                workspace.pool.run(group.count * heads) { item, _ in store(group[item / heads].element, head: item % heads, pages[item / heads], kernels) }
                let rows = group.map { index, range in
                    AttentionRows(
                        role: .chunk, row: range.lowerBound, queries: range.count, slot: 0, keys: range.count, pages: pages[index], heads: pages[index].heads)
                }
                workspace.attend(rows, query: query, attended: attended, attentionShape)
            }
            workspace.multiply(attended, role: .chunk, [Product(linear: layer.output, output: x, accumulate: true)])
        }

        private func store(_ range: Range<Int>, head: Int, _ pages: LayerPages, _ kernels: ak_kernels) {
            guard let place = pages.head(head) else { return }
            let (slots, headDim) = (KeyValueLayout.slots, attentionShape.headDim)
            for start in stride(from: 0, to: range.count, by: slots) {
                guard let page = place.pages[start / slots] else { continue }
                let (address, row) = (UnsafeMutableRawPointer(mutating: page), range.lowerBound + start)
                kernels.store_kv(
                    address + place.keys, address + place.values, place.type, key.data + row * key.stride + head * headDim, key.stride,
                    value.data + row * value.stride + head * headDim, value.stride, Int32(headDim), 0, Int32(min(slots, range.count - start)))
            }
        }
    }

    private func feedForward(_ layer: Layer, _ x: Tensor, _ workspace: Workspace) {
        let middle = Tensor(rows: x.rows, columns: configuration.intermediateSize), kernels = workspace.kernels.table
        switch layer.mlp {
        case .plain(let first, let second):
            let activation = activation
            workspace.multiply(x, norm: layer.norm2, role: .chunk, [Product(linear: first, output: middle)])
            workspace.forRows(x.rows) { rows, _ in activation(middle.data + rows.lowerBound * middle.stride, rows.count * middle.stride) }
            workspace.multiply(middle, role: .chunk, [Product(linear: second, output: x, accumulate: true)])
        case .gated(let gate, let up, let down):
            let other = Tensor(rows: x.rows, columns: configuration.intermediateSize)
            workspace.multiply(x, norm: layer.norm2, role: .chunk, [Product(linear: gate, output: middle), Product(linear: up, output: other)])
            workspace.forRows(x.rows) { rows, _ in
                kernels.silu_mul(middle.data + rows.lowerBound * middle.stride, other.data + rows.lowerBound * other.stride, rows.count * middle.stride)
            }
            workspace.multiply(middle, role: .chunk, [Product(linear: down, output: x, accumulate: true)])
        }
    }

    /// The patch merger: `[units, outputSize]`, in the picture's order.
    private func merged(_ hidden: Tensor, _ order: [Int], _ workspace: Workspace) -> Tensor {
        let together = shape.mergeSize * shape.mergeSize, width = hidden.columns, kernels = workspace.kernels.table
        mergeNorm(hidden, hidden, workspace)
        let units = Tensor(rows: order.count, columns: together * width), middle = Tensor(rows: order.count, columns: together * width)
        for row in 0 ..< hidden.rows {
            (units.data + row / together * units.stride + row % together * width).update(from: hidden.data + row * hidden.stride, count: width)
        }
        workspace.multiply(units, role: .chunk, [Product(linear: mergeFirst, output: middle)])
        workspace.forRows(middle.rows) { rows, _ in kernels.gelu_erf(middle.data + rows.lowerBound * middle.stride, rows.count * middle.stride) }
        let made = Tensor(rows: order.count, columns: shape.outputSize), out = Tensor(rows: order.count, columns: shape.outputSize)
        workspace.multiply(middle, role: .chunk, [Product(linear: mergeSecond, output: made)])
        for (place, unit) in order.enumerated() { out.copyRows(from: made.rows(place ..< place + 1), to: unit) }
        return out
    }
}
