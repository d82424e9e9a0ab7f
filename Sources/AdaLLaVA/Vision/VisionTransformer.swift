import AdaKernels

/// One block of a vision transformer: attention, then a plain MLP, each after its LayerNorm.
struct VisionTransformerLayer: Sendable {
    let norm1, norm2: Norm
    let query, key, value, output: Linear
    let fc1, fc2: Linear

    init(_ source: any TensorSource, index: Int, _ c: VisionConfiguration, packer: WeightPacker) throws {
        let name = "vision_model.encoder.layers.\(index)."
        func linear(_ part: String, _ rows: Int, _ inputs: Int) throws -> Linear {
            try Linear(source, name + part, rows: rows, inputs: inputs, isAlwaysBatched: true, packer: packer)
        }
        norm1 = try Norm(source, name + "layer_norm1", c)
        norm2 = try Norm(source, name + "layer_norm2", c)
        query = try linear("self_attn.q_proj", c.hiddenSize, c.hiddenSize)
        key = try linear("self_attn.k_proj", c.hiddenSize, c.hiddenSize)
        value = try linear("self_attn.v_proj", c.hiddenSize, c.hiddenSize)
        output = try linear("self_attn.out_proj", c.hiddenSize, c.hiddenSize)
        fc1 = try linear("mlp.fc1", c.intermediateSize, c.hiddenSize)
        fc2 = try linear("mlp.fc2", c.hiddenSize, c.intermediateSize)
    }

    var linears: [Linear] { [query, key, value, output, fc1, fc2] }
}

extension Norm {
    /// A LayerNorm of a tower.
    convenience init(_ source: any TensorSource, _ name: String, _ c: VisionConfiguration) throws {
        self.init(
            weight: try Tensor(vector: source.tensor(name + ".weight"), count: c.hiddenSize),
            bias: try Tensor(vector: source.tensor(name + ".bias"), count: c.hiddenSize), epsilon: c.layerNormEpsilon)
    }
}

/// Common part of all transformer towers: the patch embedding, and layers over all positions of a picture.
///
/// Only the layers below the selected hidden state are loaded and run.
struct VisionTransformer: Sendable {
    let configuration: VisionConfiguration
    private let patchEmbedding: Linear
    private let layers: [VisionTransformerLayer]
    private let shape: AttentionShape
    private let activation: ActivationFunction

    /// - Parameters:
    ///   - used: layers that run, which is also the index of the hidden state they give as Hugging Face counts them (0 = embeddings).
    ///   - onLayer: called with the layers that are loaded.
    /// - Throws: ``CheckpointError``, `CancellationError`
    init(
        _ source: any TensorSource, _ configuration: VisionConfiguration, layers used: Int, packer: WeightPacker, cancellation: Cancellation,
        onLayer: (Int) -> Void
    ) throws {
        let c = configuration
        self.configuration = c
        activation = packer.kernels.activation(c.activation)
        patchEmbedding = try Linear(
            source, "vision_model.embeddings.patch_embedding", rows: c.hiddenSize, inputs: c.numChannels * c.patchSize * c.patchSize,
            packer: packer)
        layers = try (0 ..< used).map { index in
            try cancellation.check()
            defer { onLayer(index + 1) }
            return try VisionTransformerLayer(source, index: index, c, packer: packer)
        }
        let headDim = c.hiddenSize / c.numAttentionHeads
        shape = AttentionShape(
            headDim: headDim, queriesPerKey: 1, isCausal: false,
            rounds: layers.first.map { packer.kernels.roundsAttention($0.query.weight, headDim: headDim) } ?? false)
    }

    var linears: [Linear] { [patchEmbedding] + layers.flatMap(\.linears) }

    /// The layers as phases.
    /// - Parameters:
    ///   - hidden: `[positions, hidden]`, input of the first layer; overwritten with the selected hidden state.
    ///   - finish: makes the output once all layers have run.
    func pass(_ hidden: Tensor, _ workspace: Workspace, finish: @escaping () -> VisionOutput) throws -> VisionPass {
        let scratch = try Scratch(rows: hidden.rows, configuration)
        // Queries, keys and values of all rows come first in each layer, because then the rest of its rows depend on nothing else.
        return VisionPass(
            count: 2 * layers.count, layers: layers.count,
            make: { index in
                let layer = layers[index / 2]
                if index % 2 == 0 {
                    return VisionPass.Phase(rows: hidden.rows, leastRows: Self.leastRows, layer: index / 2) { project(layer, hidden, $0, scratch, workspace) }
                }
                store(scratch, workspace)
                return VisionPass.Phase(rows: hidden.rows, leastRows: Self.leastRows) { rows in
                    let x = hidden.rows(rows)
                    workspace.multiply(attention(layer, rows, scratch, workspace), [Product(linear: layer.output, output: x, accumulate: true)])
                    feedForward(layer, x, scratch, workspace)
                }
            },
            finish: finish)
    }

    /// Rows below which a product costs as much as these.
    private static let leastRows = 16

    /// Embeds the patches of a picture, without their positions.
    /// - Parameters:
    ///   - pixels: `[3, S, S]` normalized values, `S` the tower's image size.
    ///   - out: `[patches, hidden]`
    ///
    /// Summed 128 inputs at a time: normalized pixels all have one sign in bright images, and one long float32 sum of them would start the tower with
    /// an error that PruMerge's attention magnifies.
    func embed(_ pixels: [Float], into out: Tensor, _ workspace: Workspace) { embed(rows: patchRows(pixels), into: out, workspace) }

    /// The same of patches that are rows already, `[patches, channels * patch * patch]` in the order of the weights.
    func embed(rows patches: Tensor, into out: Tensor, _ workspace: Workspace) {
        let blocks = patches.stride / Int(AK_BLOCK)
        // The bias is added with the first part.
        let rest = Linear(weight: patchEmbedding.weight, bias: nil)
        for first in stride(from: 0, to: blocks, by: 4) {
            let part = IndexList((first ..< min(first + 4, blocks)).map { Int32($0) })
            workspace.multiply(
                patches, role: .chunk,
                [Product(linear: first == 0 ? patchEmbedding : rest, output: out, blocks: part, accumulate: first > 0)])
        }
    }

    private final class Scratch {
        let query, key, value, attended: Tensor
        let pages: LayerPages
        /// In float32, if work items do not write it to a buffer of activations.
        private(set) lazy var middle = Tensor(rows: rows, columns: intermediateSize)
        private let rows: Int, intermediateSize: Int

        init(rows: Int, _ c: VisionConfiguration) throws {
            query = Tensor(rows: rows, columns: c.hiddenSize)
            key = Tensor(rows: rows, columns: c.hiddenSize)
            value = Tensor(rows: rows, columns: c.hiddenSize)
            attended = Tensor(rows: rows, columns: c.hiddenSize)
            (self.rows, intermediateSize) = (rows, c.intermediateSize)
            pages = LayerPages(
                heads: Array(0 ..< c.numAttentionHeads), layout: KeyValueLayout(headDim: c.hiddenSize / c.numAttentionHeads, type: AK_F32))
            try pages.reserve(0 ..< rows, PagePool())
        }
    }

    /// The patches as rows, `[patches, channels * patch * patch]`, in the order of the convolution's weights.
    private func patchRows(_ pixels: [Float]) -> Tensor {
        let (size, patch) = (configuration.imageSize, configuration.patchSize)
        let side = size / patch
        let rows = Tensor(rows: side * side, columns: configuration.numChannels * patch * patch)
        pixels.withUnsafeBufferPointer { pixels in
            guard let source = pixels.baseAddress, pixels.count >= configuration.numChannels * size * size else { return }
            for row in 0 ..< side * side {
                var out = rows.data + row * rows.stride
                for channel in 0 ..< configuration.numChannels {
                    for y in 0 ..< patch {
                        out.update(from: source + (channel * size + row / side * patch + y) * size + row % side * patch, count: patch)
                        out += patch
                    }
                }
            }
        }
        return rows
    }

    /// Queries, keys and values of some rows.
    private func project(_ layer: VisionTransformerLayer, _ x: Tensor, _ rows: Range<Int>, _ scratch: Scratch, _ workspace: Workspace) {
        workspace.multiply(
            x.rows(rows), norm: layer.norm1, role: .chunk,
            [
                Product(linear: layer.query, output: scratch.query.rows(rows)), Product(linear: layer.key, output: scratch.key.rows(rows)),
                Product(linear: layer.value, output: scratch.value.rows(rows)),
            ])
    }

    /// Puts the keys and values of all rows where attention reads them.
    private func store(_ scratch: Scratch, _ workspace: Workspace) {
        let (key, value, kernels) = (scratch.key, scratch.value, workspace.kernels.table)
        let (headDim, slots, pages) = (shape.headDim, KeyValueLayout.slots, (key.rows + KeyValueLayout.slots - 1) / KeyValueLayout.slots)
        let places = scratch.pages.heads.compactMap { scratch.pages.head($0) }
        workspace.pool.run(places.count * pages) { item, _ in
            let (head, page) = (item / pages, item % pages), first = page * slots
            guard let address = places[head].pages[page].map({ UnsafeMutableRawPointer(mutating: $0) }) else { return }
            kernels.store_kv(
                address + places[head].keys, address + places[head].values, places[head].type, key.data + first * key.stride + head * headDim,
                key.stride, value.data + first * value.stride + head * headDim, value.stride, Int32(headDim), 0,
                Int32(min(slots, key.rows - first)))
        }
    }

    /// The attention of some rows as the activations that the output projection reads.
    private func attention(_ layer: VisionTransformerLayer, _ range: Range<Int>, _ scratch: Scratch, _ workspace: Workspace) -> RowActivations {
        let attended = scratch.attended.rows(range)
        let rows = AttentionRows(
            role: .chunk, row: 0, queries: range.count, slot: 0, keys: scratch.key.rows, pages: scratch.pages, heads: scratch.pages.heads, dropped: [])
        let conversion = RowConversion(attended, for: layer.output.weight, RowsByRole(range.count, .chunk), workspace.kernels)
        return workspace.attend([rows], query: scratch.query.rows(range), attended: attended, for: conversion, shape)
    }

    private func feedForward(_ layer: VisionTransformerLayer, _ x: Tensor, _ scratch: Scratch, _ workspace: Workspace) {
        let down = Product(linear: layer.fc2, output: x, accumulate: true)
        if workspace.makesFeedForwardInPieces([layer.fc1.weight], down: layer.fc2.weight, picksPanels: false) {
            return workspace.multiplyFeedForward(
                x, norm: layer.norm2, [Product(linear: layer.fc1, output: x)], activation: activation, down: down)
        }
        let (values, activation) = (scratch.middle.rows(0 ..< x.rows), activation)
        workspace.multiply(x, norm: layer.norm2, role: .chunk, [Product(linear: layer.fc1, output: values)])
        workspace.forRows(x.rows) { rows, _ in activation(values.data + rows.lowerBound * values.stride, rows.count * values.stride) }
        workspace.multiply(values, role: .chunk, [down])
    }
}
