import AdaKernels

/// One block of the CLIP vision transformer.
struct CLIPVisionLayer: Sendable {
    let norm1, norm2: Norm
    let query, key, value, output: Linear
    let fc1, fc2: Linear

    init(_ source: any TensorSource, index: Int, _ c: VisionConfiguration, backend: Backend) throws {
        let name = "vision_model.encoder.layers.\(index)."
        func linear(_ part: String, _ rows: Int, _ inputs: Int) throws -> Linear {
            try Linear(source, name + part, rows: rows, inputs: inputs, meetsManyRows: true, backend: backend)
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
    /// A LayerNorm of the tower.
    fileprivate init(_ source: any TensorSource, _ name: String, _ c: VisionConfiguration) throws {
        weight = try Tensor(vector: source.tensor(name + ".weight"), count: c.hiddenSize)
        bias = try Tensor(vector: source.tensor(name + ".bias"), count: c.hiddenSize)
        epsilon = c.layerNormEpsilon
    }
}

/// The CLIP vision transformer (Radford et al., 2021) of any size.
///
/// Only the layers below the selected hidden state are loaded and run, and the last layer's queries and keys when token selection asks
/// for them.
final class CLIPVisionTower: VisionNetwork, @unchecked Sendable {
    let configuration: VisionConfiguration
    private let patchEmbedding: Linear
    private let classEmbedding, positions: Tensor
    private let preNorm: Norm
    private let layers: [CLIPVisionLayer]
    private let last: CLIPVisionLayer?
    private let backend: Backend
    private let buffer = ActivationBuffer(), middle = ActivationBuffer()
    private let spanResults = SpanResults()

    /// - Parameters:
    ///   - used: layers that run, which is also the index of the hidden state they give as Hugging Face counts them (0 = embeddings).
    ///   - needsLastLayer: also load the last layer, for token selection.
    init(
        _ source: any TensorSource, _ configuration: VisionConfiguration, layers used: Int, needsLastLayer: Bool, backend: Backend,
        cancellation: Cancellation, onLayer: (Int) -> Void
    ) throws {
        let c = configuration
        self.configuration = c
        self.backend = backend
        let side = c.imageSize / c.patchSize
        let name = "vision_model.embeddings."
        patchEmbedding = try Linear(
            source, name + "patch_embedding", rows: c.hiddenSize, inputs: c.numChannels * c.patchSize * c.patchSize, backend: backend)
        classEmbedding = try Tensor(vector: source.tensor(name + "class_embedding"), count: c.hiddenSize)
        positions = try Tensor(matrix: source.tensor(name + "position_embedding.weight"), rows: side * side + 1, columns: c.hiddenSize)
        preNorm = try Norm(source, "vision_model.pre_layrnorm", c)
        var layers: [CLIPVisionLayer] = []
        for index in 0 ..< used {
            try cancellation.check()
            layers.append(try CLIPVisionLayer(source, index: index, c, backend: backend))
            onLayer(index + 1)
        }
        self.layers = layers
        // PruMerge reads the last layer's queries and keys; its input is the hidden state before it.
        last = needsLastLayer ? try CLIPVisionLayer(source, index: c.numHiddenLayers - 1, c, backend: backend) : nil
        if needsLastLayer, used != c.numHiddenLayers - 1 {
            throw CheckpointError.unsupported(
                what: "token selection on hidden state \(used) of \(c.numHiddenLayers)", file: source.location,
                hint: "it needs the one before the last (mm_vision_select_layer -2)")
        }
    }

    var linears: [Linear] { [patchEmbedding] + layers.flatMap(\.linears) + (last?.linears ?? []) }

    /// Encodes one image.
    /// - Parameter pixels: `[3, S, S]` normalized values, `S` the tower's image size.
    func callAsFunction(_ pixels: [Float], cancellation: Cancellation, progress: (Int, Int) -> Void) throws -> VisionOutput {
        let c = configuration
        let patches = patchRows(pixels)
        let hidden = Tensor(rows: patches.rows + 1, columns: c.hiddenSize)
        embed(patches, into: hidden.rows(1 ..< hidden.rows))
        hidden.data.update(from: classEmbedding.data, count: c.hiddenSize)
        backend.kernels.add(hidden.data, positions.data, hidden.rows * hidden.stride)
        preNorm(hidden, hidden, backend)

        let scratch = Scratch(rows: hidden.rows, c)
        for (index, layer) in layers.enumerated() {
            try cancellation.check()
            progress(index, layers.count)
            backend.multiply(attention(layer, hidden, scratch), [Product(linear: layer.output, output: hidden, accumulate: true)])
            feedForward(layer, hidden, scratch)
        }
        var (query, key): (Tensor?, Tensor?) = (nil, nil)
        if let last {
            let (q, k) = (Tensor(rows: hidden.rows, columns: c.hiddenSize), Tensor(rows: hidden.rows, columns: c.hiddenSize))
            backend.multiply(hidden, norm: last.norm1, [Product(linear: last.query, output: q), Product(linear: last.key, output: k)], buffer)
            (query, key) = (q, k)
        }
        return VisionOutput(features: hidden.rows(1 ..< hidden.rows), classFeature: hidden.rows(0 ..< 1), lastQuery: query, lastKey: key)
    }

    private final class Scratch {
        let query, key, value, attended: Tensor
        let cache: LayerCache
        /// Where it does not go piece by piece into a buffer: in float32.
        private(set) lazy var middle = Tensor(rows: rows, columns: intermediateSize)
        private let rows: Int, intermediateSize: Int

        init(rows: Int, _ c: VisionConfiguration) {
            query = Tensor(rows: rows, columns: c.hiddenSize)
            key = Tensor(rows: rows, columns: c.hiddenSize)
            value = Tensor(rows: rows, columns: c.hiddenSize)
            attended = Tensor(rows: rows, columns: c.hiddenSize)
            (self.rows, intermediateSize) = (rows, c.intermediateSize)
            cache = LayerCache(
                heads: Array(0 ..< c.numAttentionHeads), headDim: c.hiddenSize / c.numAttentionHeads, capacity: rows, type: AK_F32)
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

    /// The patch embedding, summed 128 inputs at a time: normalized pixels all have one sign in bright images, and one long float32 sum of
    /// them would start the tower with an error that PruMerge's attention magnifies.
    private func embed(_ patches: Tensor, into out: Tensor) {
        let blocks = patches.stride / Int(AK_BLOCK)
        for first in stride(from: 0, to: blocks, by: 4) {
            let part = IndexList((first ..< min(first + 4, blocks)).map { Int32($0) })
            backend.multiply(patches, [Product(linear: patchEmbedding, output: out, blocks: part, accumulate: first > 0)], buffer)
        }
    }

    /// What the output projection reads of one layer's attention.
    private func attention(_ layer: CLIPVisionLayer, _ x: Tensor, _ scratch: Scratch) -> ak_activations {
        backend.multiply(
            x, norm: layer.norm1,
            [
                Product(linear: layer.query, output: scratch.query), Product(linear: layer.key, output: scratch.key),
                Product(linear: layer.value, output: scratch.value),
            ], buffer)
        let heads = configuration.numAttentionHeads
        let headDim = configuration.hiddenSize / heads
        let (query, key, value, attended, cache) = (scratch.query, scratch.key, scratch.value, scratch.attended, scratch.cache)
        let kernels = backend.kernels
        backend.pool.run(heads) { head, _ in
            kernels.store_kv(
                cache.keys(head), cache.values(head), cache.type, key.data + head * headDim, key.stride, value.data + head * headDim,
                value.stride, Int32(headDim), 0, Int32(x.rows))
        }
        let shares = (0 ..< heads).map { head in
            HeadShare(
                query: query.data + head * headDim, attended: attended.data + head * headDim, column: head * headDim, queryStride: query.stride,
                attendedStride: attended.stride, keys: cache.keys(head), values: cache.values(head), heads: 1)
        }
        let activations = backend.attend(
            shares, attended, for: layer.output, cache.type, headDim: headDim, keys: x.rows, queries: x.rows, isCausal: false,
            rounds: [AK_BF16, AK_I8].contains(layer.query.weight.activationType(backend, rows: x.rows)), scale: 1 / Float(headDim).squareRoot(),
            spanResults, buffer)
        withExtendedLifetime(scratch) {}
        return activations
    }

    private func feedForward(_ layer: CLIPVisionLayer, _ x: Tensor, _ scratch: Scratch) {
        let down = Product(linear: layer.fc2, output: x, accumulate: true)
        func up(_ output: Tensor) -> Product { Product(linear: layer.fc1, output: output) }
        if backend.multiplyFeedForward(x, norm: layer.norm2, [up(x)], activation: activation, down: down, buffer, middle: middle) { return }
        let (values, activation) = (scratch.middle, activation)
        backend.multiply(x, norm: layer.norm2, [up(values)], buffer)
        backend.forRows(x.rows) { rows, _ in activation(values.data + rows.lowerBound * values.stride, rows.count * values.stride) }
        backend.multiply(values, [down], buffer)
    }

    private var activation: ActivationFunction {
        let kernels = backend.kernels
        return switch configuration.activation {
        case .silu: kernels.silu
        case .quickGELU: kernels.gelu_quick
        case .gelu: kernels.gelu_erf
        case .geluTanh: kernels.gelu_tanh
        }
    }
}
