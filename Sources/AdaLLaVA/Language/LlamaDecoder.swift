import AdaKernels

/// The weights of one LLaMA block. A class, as is ``LayerSelection``, so that a decode, which passes them on at every layer, counts one reference
/// instead of nine.
final class LlamaLayer: Sendable {
    let inputNorm: Norm
    let query, key, value, output: Linear
    let postAttentionNorm: Norm
    let gate, up, down: Linear

    /// - Parameter picksHeads: whether plans will leave heads and neuron groups of this layer out.
    init(_ source: any TensorSource, index: Int, _ c: LlamaConfiguration, picksHeads: Bool, backend: Backend) throws {
        let name = "model.layers.\(index)."
        let queryWidth = c.numAttentionHeads * c.headDim
        let keyWidth = c.numKeyValueHeads * c.headDim
        func linear(_ part: String, _ rows: Int, _ inputs: Int, picksInputs: Bool = false) throws -> Linear {
            try Linear(source, name + part, rows: rows, inputs: inputs, picksInputs: picksInputs, backend: backend)
        }
        inputNorm = try Norm(source, name + "input_layernorm.weight", c)
        query = try linear("self_attn.q_proj", queryWidth, c.hiddenSize)
        key = try linear("self_attn.k_proj", keyWidth, c.hiddenSize)
        value = try linear("self_attn.v_proj", keyWidth, c.hiddenSize)
        output = try linear("self_attn.o_proj", c.hiddenSize, queryWidth, picksInputs: picksHeads)
        postAttentionNorm = try Norm(source, name + "post_attention_layernorm.weight", c)
        gate = try linear("mlp.gate_proj", c.intermediateSize, c.hiddenSize)
        up = try linear("mlp.up_proj", c.intermediateSize, c.hiddenSize)
        down = try linear("mlp.down_proj", c.hiddenSize, c.intermediateSize, picksInputs: picksHeads)
    }

    var linears: [Linear] { [query, key, value, output, gate, up, down] }
}

extension Norm {
    /// An RMSNorm of the decoder.
    fileprivate init(_ source: any TensorSource, _ name: String, _ c: LlamaConfiguration) throws {
        self.init(weight: try Tensor(vector: source.tensor(name), count: c.hiddenSize), epsilon: c.rmsNormEpsilon)
    }
}

/// A LLaMA decoder (Touvron et al., 2023; grouped-query attention as in Llama 2) under an execution plan.
///
/// Hidden states pass through ranges of layers, in chunks of positions, so that a caller can stop between the prefix layers and the rest
/// to make the plan. What a plan leaves out is neither read nor multiplied.
final class LlamaDecoder: @unchecked Sendable {
    let configuration: LlamaConfiguration
    let layers: [LlamaLayer]
    let finalNorm: Norm
    let head: Linear
    let embedding: StoredTensor
    private let rotary: RotaryCache
    private let backend: Backend
    private let buffer = ActivationBuffer(), middle = ActivationBuffer()
    private var scratch: Scratch
    private var gated: (gate: Tensor, up: Tensor)
    private let spanResults = SpanResults()
    private let allHeads: [Int]
    /// Of one position, `[1, vocabulary]`.
    private let lastLogits: Tensor
    private let room: TokenRoom
    private let logitsInput: RowConversion
    private let logitsRun: ProductRun

    /// Positions that pass through the layers at once during prefill: an image of 576 and a question, so that weights are read, and where they are not
    /// of the activations' type converted, once.
    static let chunk = 640

    /// Loads every layer.
    /// - Parameters:
    ///   - headPlans: the layers of which plans leave heads and neuron groups out.
    ///   - onLayer: called with the number of layers loaded so far.
    init(
        _ source: any TensorSource, _ configuration: LlamaConfiguration, backend: Backend, frequencyFactors: [Float]? = nil,
        headPlans: Range<Int> = 0 ..< 0, cancellation: Cancellation, onLayer: (Int) -> Void
    ) throws {
        self.configuration = configuration
        self.backend = backend
        embedding = try source.tensor("model.embed_tokens.weight")
        let (vocabulary, hidden) = (configuration.vocabularySize, configuration.hiddenSize)
        guard embedding.shape == [vocabulary, hidden] else {
            throw CheckpointError.shape(
                tensor: embedding.name, expected: [vocabulary, hidden], found: embedding.shape, file: embedding.file.path)
        }
        var layers: [LlamaLayer] = []
        for index in 0 ..< configuration.numHiddenLayers {
            try cancellation.check()
            layers.append(try LlamaLayer(source, index: index, configuration, picksHeads: headPlans.contains(index), backend: backend))
            onLayer(index + 1)
        }
        self.layers = layers
        finalNorm = try Norm(source, "model.norm.weight", configuration)
        // Tied embeddings: the output matrix is the embedding's. A checkpoint that stores both is taken at its word.
        let headTensor = source.find("lm_head.weight") ?? (configuration.tieWordEmbeddings ? embedding : nil)
        guard let headTensor else { throw CheckpointError.missingTensor(name: "lm_head.weight", file: source.location) }
        head = Linear(weight: try WeightMatrix(headTensor, rows: vocabulary, inputs: hidden, backend: backend), bias: nil)
        rotary = RotaryCache(try RotaryEmbedding(configuration, frequencyFactors: frequencyFactors), headDim: configuration.headDim)
        scratch = Scratch(rows: 1, configuration)
        gated = (Tensor(rows: 1, columns: configuration.intermediateSize), Tensor(rows: 1, columns: configuration.intermediateSize))
        allHeads = Array(0 ..< configuration.numAttentionHeads)
        lastLogits = Tensor(rows: 1, columns: vocabulary)
        room = TokenRoom(configuration)
        logitsRun = ProductRun([Product(linear: head, output: lastLogits)], tokens: 1, backend)
        logitsInput = room.conversion(finalNorm, to: logitsRun.type)
    }

    /// Buffers of one layer's pass over a chunk.
    private struct Scratch {
        let rows: Int
        let query, key, value, attended: Tensor

        init(rows: Int, _ c: LlamaConfiguration) {
            self.rows = rows
            query = Tensor(rows: rows, columns: c.numAttentionHeads * c.headDim)
            key = Tensor(rows: rows, columns: c.numKeyValueHeads * c.headDim)
            value = Tensor(rows: rows, columns: c.numKeyValueHeads * c.headDim)
            attended = Tensor(rows: rows, columns: c.numAttentionHeads * c.headDim)
        }
    }

    // MARK: - Forward

    /// Writes the embedding of `token` into row `row` of `hidden`.
    func embed(_ token: Int, into hidden: Tensor, row: Int) throws {
        try embedding.dequantize(row: token, columns: configuration.hiddenSize, into: hidden.data + row * hidden.stride)
    }

    /// Passes hidden states through some of the layers, in place.
    /// - Parameters:
    ///   - hidden: `[positions, hidden]`.
    ///   - first: the position in the sequence of the first row.
    ///   - selections: for each layer what runs of it; `nil` runs everything.
    ///   - lastRowOnly: only the last row of `hidden` is read afterwards. Behind the keys and values of the last attention that runs, nothing else
    ///     is computed then: at few layers a good part of a prefill.
    ///   - observe: called after each layer with its index, the first row of the chunk, and the chunk's hidden states.
    ///   - probe: is told queries and keys of the layers that run whole.
    func run(
        _ range: Range<Int>, on hidden: Tensor, first: Int, cache: KeyValueCache, selections: [LayerSelection?],
        lastRowOnly: Bool = false, cancellation: Cancellation, observe: ((Int, Int, Tensor) -> Void)? = nil, probe: AttentionProbe? = nil
    ) throws {
        if hidden.rows == 1, probe == nil {
            return try step(range, on: hidden, position: first, cache: cache, selections: selections, cancellation: cancellation, observe: observe)
        }
        let lastAttention = lastRowOnly ? range.last { selections[$0]?.runsAttention ?? true } ?? range.lowerBound : range.upperBound
        var start = 0
        while start < hidden.rows {
            let chunk = hidden.rows(start ..< min(start + LlamaDecoder.chunk, hidden.rows))
            let read = hidden.rows - 1 < start + chunk.rows ? chunk.rows - 1 ..< chunk.rows : 0 ..< 0
            for index in range {
                try cancellation.check()
                let selection = selections[index]
                if let selection, !selection.runsAttention, !selection.runsMLP { continue }
                forward(
                    layers[index], selection, on: chunk, outputs: index < lastAttention ? 0 ..< chunk.rows : read, position: first + start,
                    cache: cache, index: index, probe: probe)
                observe?(index, start, chunk)
            }
            start += chunk.rows
        }
    }

    /// The logits of one position, `[1, vocabulary]`; valid until the next call.
    func logits(_ hidden: Tensor, row: Int) -> Tensor {
        room.hidden.copyRows(from: hidden.rows(row ..< row + 1), to: 0)
        logitsRun(logitsInput(backend.kernels))
        return lastLogits
    }

    /// What a token reads first behind layer `index`.
    private func firstRead(after index: Int, _ selections: [LayerSelection?]) -> [ak_expected] {
        for next in index + 1 ..< max(layers.count, index + 1) {
            let (layer, selection) = (layers[next], selections[next])
            if selection?.runsAttention ?? true {
                let panels = selection?.keyValuePanels
                return [
                    backend.expected(layer.query.weight, panels: selection?.queryPanels), backend.expected(layer.key.weight, panels: panels),
                    backend.expected(layer.value.weight, panels: panels),
                ]
            }
            if selection?.runsMLP ?? true { return layer.gatedReadings(selection, backend) }
        }
        return [backend.expected(head.weight)]
    }

    /// Passes one token's hidden states through some of the layers, in place: the way of each layer is found once.
    private func step(
        _ range: Range<Int>, on x: Tensor, position: Int, cache: KeyValueCache, selections: [LayerSelection?], cancellation: Cancellation,
        observe: ((Int, Int, Tensor) -> Void)?
    ) throws {
        let angles = rotary.angles(through: position + 1)
        room.hidden.copyRows(from: x, to: 0)
        for index in range {
            try cancellation.check()
            let selection = selections[index]
            if let selection, !selection.runsAttention, !selection.runsMLP { continue }
            if let pass = pass(index, selections, in: cache) {
                pass(position: position, angles.at(position), backend)
            } else {
                forward(layers[index], selection, on: room.hidden, outputs: 0 ..< 1, position: position, cache: cache, index: index, probe: nil)
            }
            if let observe {
                x.copyRows(from: room.hidden, to: 0)
                observe(index, 0, x)
            }
        }
        x.copyRows(from: room.hidden, to: 0)
    }

    private func pass(_ index: Int, _ selections: [LayerSelection?], in cache: KeyValueCache) -> TokenPass? {
        let selection = selections[index]
        if let known = cache.passes[index], known.isFor(selection, cache.layers[index]) { return known }
        let keys = selection?.runsAttention ?? true ? layerCache(index, selection, in: cache) : nil
        let pass = TokenPass(
            layers[index], selection, cache: keys, next: firstRead(after: index, selections), configuration, room: room, backend)
        cache.passes[index] = pass
        return pass
    }

    /// One layer's pass over a chunk, in place.
    /// - Parameters:
    ///   - outputs: rows whose hidden states go on; of the others only keys and values are computed.
    private func forward(
        _ layer: LlamaLayer, _ selection: LayerSelection?, on x: Tensor, outputs: Range<Int>, position: Int, cache: KeyValueCache, index: Int,
        probe: AttentionProbe?
    ) {
        if scratch.rows < x.rows { scratch = Scratch(rows: x.rows, configuration) }
        if selection?.runsAttention ?? true {
            let attended = attention(
                layer, selection, x, outputs: outputs, position: position, cache: layerCache(index, selection, in: cache))
            if selection == nil, outputs.count == x.rows {
                let (query, key) = (scratch.query.rows(outputs), scratch.key.rows(outputs))
                probe?.see(layer: index, query: query, key: key, position: position, configuration)
            }
            if let attended {
                let sum = Product(linear: layer.output, output: x.rows(outputs), blocks: selection?.outputBlocks, accumulate: true)
                backend.multiply(attended, [sum])
            }
        }
        if selection?.runsMLP ?? true, !outputs.isEmpty {
            let (x, norm) = (x.rows(outputs), layer.postAttentionNorm)
            func first(_ gate: Tensor, _ up: Tensor) -> [Product] {
                [(layer.gate, gate), (layer.up, up)].map { Product(linear: $0, output: $1, panels: selection?.gatePanels) }
            }
            let down = Product(linear: layer.down, output: x, blocks: selection?.downBlocks, accumulate: true)
            let dropped = selection?.droppedNeurons ?? []
            if backend.multiplyFeedForward(x, norm: norm, first(x, x), down: down, dropped: dropped, buffer, middle: middle) { return }
            let room = gatedRoom(x.rows), products = first(room.gate, room.up)
            backend.multiplyGated(x, norm: norm, gate: products[0], up: products[1], buffer)
            room.gate.clear(columns: dropped)
            backend.multiply(room.gate, [down], buffer)
        }
    }

    /// Room for both products of a feed-forward network, `[rows, intermediate]`: of the few rows, or the types, whose middle is not made in pieces.
    private func gatedRoom(_ rows: Int) -> (gate: Tensor, up: Tensor) {
        if gated.gate.rows < rows {
            func room() -> Tensor { Tensor(rows: rows, columns: configuration.intermediateSize) }
            gated = (room(), room())
        }
        return (gated.gate.rows(0 ..< rows), gated.up.rows(0 ..< rows))
    }

    /// The concatenated head outputs of one layer for the rows `outputs`, `[outputs, heads * headDim]`, as the output projection reads them.
    /// Keys and values of all rows go into the cache. `nil` without any outputs.
    private func attention(
        _ layer: LlamaLayer, _ selection: LayerSelection?, _ x: Tensor, outputs: Range<Int>, position: Int, cache: LayerCache
    ) -> ak_activations? {
        let c = configuration
        let rows = 0 ..< x.rows
        let (query, key, value) = (scratch.query.rows(rows), scratch.key.rows(rows), scratch.value.rows(rows))
        let asked = outputs.isEmpty ? [] : [Product(linear: layer.query, output: query.rows(outputs), panels: selection?.queryPanels)]
        let kept = [
            Product(linear: layer.key, output: key, panels: selection?.keyValuePanels),
            Product(linear: layer.value, output: value, panels: selection?.keyValuePanels),
        ]
        backend.multiply(x, norm: layer.inputNorm, outputs == rows ? asked + kept : kept, buffer)
        if outputs != rows, !asked.isEmpty { backend.multiply(x.rows(outputs), norm: layer.inputNorm, asked, buffer) }

        let kernels = backend.kernels
        let heads = selection?.heads ?? allHeads
        let interleaved: Int32 = c.ropeInterleaved ? 1 : 0
        let headDim = Int32(c.headDim)
        let angles = rotary.angles(through: position + x.rows)
        backend.forRows(x.rows) { range, _ in
            for row in range {
                let (cos, sin) = angles.at(position + row)
                for head in heads where outputs.contains(row) {
                    kernels.rope(query.data + row * query.stride + head * c.headDim, cos, sin, 1, headDim, interleaved)
                }
                for head in cache.heads {
                    kernels.rope(key.data + row * key.stride + head * c.headDim, cos, sin, 1, headDim, interleaved)
                }
            }
            for (index, head) in cache.heads.enumerated() {
                let offset = range.lowerBound * key.stride + head * c.headDim
                kernels.store_kv(
                    cache.keys(index), cache.values(index), cache.type, key.data + offset, key.stride, value.data + offset, value.stride,
                    headDim, Int32(position + range.lowerBound), Int32(range.count))
            }
        }

        if outputs.isEmpty { return nil }
        let attended = scratch.attended.rows(outputs)
        let shares = HeadShare.shares(of: heads, query: query.rows(outputs), attended: attended, cache: cache, c)
        let (scale, keys, queries) = (1 / Float(c.headDim).squareRoot(), position + outputs.upperBound, outputs.count)
        // Not with 8-bit weights: one of the five answers of SmolLM2 that agree with llama.cpp's in Q8_0 would not.
        let rounds = layer.query.weight.activationType(backend, rows: queries) == AK_BF16
        let activations = backend.attend(
            shares, attended, for: layer.output, dropped: selection?.droppedHeadColumns ?? [], cache.type, headDim: c.headDim, keys: keys,
            queries: queries, rounds: rounds, scale: scale, spanResults, buffer)
        withExtendedLifetime((cache, query, attended)) {}
        return activations
    }

    private func layerCache(_ index: Int, _ selection: LayerSelection?, in cache: KeyValueCache) -> LayerCache {
        if let layer = cache.layers[index] { return layer }
        let heads = selection?.keyValueHeads ?? Array(0 ..< configuration.numKeyValueHeads)
        // Below some megabytes, caches come from a processor's own and huge pages are only more to clear.
        let isLarge = layers.count * heads.count * configuration.headDim * cache.capacity >= 1 << 20
        let layer = LayerCache(
            heads: heads, headDim: configuration.headDim, capacity: cache.capacity, type: backend.precision == .f32 ? AK_F32 : AK_F16,
            in: isLarge ? cache.memory : nil)
        cache.layers[index] = layer
        return layer
    }
}
