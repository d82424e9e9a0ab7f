import AdaKernels

/// One block of the CLIP vision transformer.
struct CLIPVisionLayer: Sendable {
    let norm1Weight, norm1Bias, norm2Weight, norm2Bias: Tensor
    let query, key, value, output: Linear
    let fc1, fc2: Linear

    init(_ source: any TensorSource, index: Int, _ c: VisionConfiguration, backend: Backend) throws {
        let name = "vision_model.encoder.layers.\(index)."
        func vector(_ part: String) throws -> Tensor { try Tensor(vector: source.tensor(name + part), count: c.hiddenSize) }
        func linear(_ part: String, _ rows: Int, _ inputs: Int) throws -> Linear {
            try Linear(source, name + part, rows: rows, inputs: inputs, backend: backend)
        }
        (norm1Weight, norm1Bias) = (try vector("layer_norm1.weight"), try vector("layer_norm1.bias"))
        (norm2Weight, norm2Bias) = (try vector("layer_norm2.weight"), try vector("layer_norm2.bias"))
        query = try linear("self_attn.q_proj", c.hiddenSize, c.hiddenSize)
        key = try linear("self_attn.k_proj", c.hiddenSize, c.hiddenSize)
        value = try linear("self_attn.v_proj", c.hiddenSize, c.hiddenSize)
        output = try linear("self_attn.out_proj", c.hiddenSize, c.hiddenSize)
        fc1 = try linear("mlp.fc1", c.intermediateSize, c.hiddenSize)
        fc2 = try linear("mlp.fc2", c.hiddenSize, c.intermediateSize)
    }

    var linears: [Linear] { [query, key, value, output, fc1, fc2] }
}

/// The CLIP vision transformer (Radford et al., 2021) of any size.
///
/// Only the layers below the selected hidden state are loaded and run, and the last layer's queries and keys when token selection asks
/// for them.
final class CLIPVisionTower: VisionNetwork, @unchecked Sendable {
    let configuration: VisionConfiguration
    private let patchEmbedding: Linear
    private let classEmbedding, positions: Tensor
    private let preNormWeight, preNormBias: Tensor
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
        preNormWeight = try Tensor(vector: source.tensor("vision_model.pre_layrnorm.weight"), count: c.hiddenSize)
        preNormBias = try Tensor(vector: source.tensor("vision_model.pre_layrnorm.bias"), count: c.hiddenSize)
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
        let normed = Tensor(rows: hidden.rows, columns: c.hiddenSize)
        norm(hidden, hidden, preNormWeight, preNormBias)

        let scratch = Scratch(rows: hidden.rows, c)
        for (index, layer) in layers.enumerated() {
            try cancellation.check()
            progress(index, layers.count)
            norm(normed, hidden, layer.norm1Weight, layer.norm1Bias)
            attention(layer, normed, scratch)
            backend.multiply(scratch.attended, [Product(linear: layer.output, output: hidden, accumulate: true)], buffer)
            norm(normed, hidden, layer.norm2Weight, layer.norm2Bias)
            let (up, down) = (Product(linear: layer.fc1, output: scratch.middle), Product(linear: layer.fc2, output: hidden, accumulate: true))
            if backend.multiplyFeedForward(normed, [up], activation: activate, down: down, buffer, middle: middle) { continue }
            backend.multiply(normed, [up], buffer)
            backend.forRows(hidden.rows) { rows in activate(scratch.middle.data + rows.lowerBound * scratch.middle.stride, rows.count * scratch.middle.stride) }
            backend.multiply(scratch.middle, [down], buffer)
        }
        var (query, key): (Tensor?, Tensor?) = (nil, nil)
        if let last {
            norm(normed, hidden, last.norm1Weight, last.norm1Bias)
            let (q, k) = (Tensor(rows: hidden.rows, columns: c.hiddenSize), Tensor(rows: hidden.rows, columns: c.hiddenSize))
            backend.multiply(normed, [Product(linear: last.query, output: q), Product(linear: last.key, output: k)], buffer)
            (query, key) = (q, k)
        }
        return VisionOutput(features: hidden.rows(1 ..< hidden.rows), classFeature: hidden.rows(0 ..< 1), lastQuery: query, lastKey: key)
    }

    private struct Scratch {
        let query, key, value, attended, middle: Tensor
        let cache: LayerCache

        init(rows: Int, _ c: VisionConfiguration) {
            query = Tensor(rows: rows, columns: c.hiddenSize)
            key = Tensor(rows: rows, columns: c.hiddenSize)
            value = Tensor(rows: rows, columns: c.hiddenSize)
            attended = Tensor(rows: rows, columns: c.hiddenSize)
            middle = Tensor(rows: rows, columns: c.intermediateSize)
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

    private func attention(_ layer: CLIPVisionLayer, _ x: Tensor, _ scratch: Scratch) {
        backend.multiply(
            x,
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
                query: query.data + head * headDim, attended: attended.data + head * headDim, queryStride: query.stride,
                attendedStride: attended.stride, keys: cache.keys(head), values: cache.values(head), heads: 1)
        }
        backend.attend(
            shares, cache.type, headDim: headDim, keys: x.rows, queries: x.rows, isCausal: false,
            rounds: layer.query.weight.activationType(backend, rows: x.rows) == AK_BF16, scale: 1 / Float(headDim).squareRoot(), spanResults)
        withExtendedLifetime(scratch) {}
    }

    private func activate(_ values: UnsafeMutablePointer<Float>, _ count: Int) {
        let kernels = backend.kernels
        switch configuration.activation {
        case .silu: break
        case .quickGELU: kernels.gelu_quick(values, count)
        case .gelu: kernels.gelu_erf(values, count)
        case .geluTanh: kernels.gelu_tanh(values, count)
        }
    }

    private func norm(_ out: Tensor, _ x: Tensor, _ weight: Tensor, _ bias: Tensor) {
        backend.forRows(x.rows) { rows in
            backend.kernels.layer_norm(
                out.data + rows.lowerBound * out.stride, out.stride, x.data + rows.lowerBound * x.stride, x.stride, weight.data, bias.data,
                configuration.layerNormEpsilon, Int32(rows.count), Int32(x.columns))
        }
    }
}
