import AdaKernels

/// Room for one token's way through the layers of a decoder, at addresses that stay.
final class TokenRoom: @unchecked Sendable {
    let hidden, query, key, value, attended, gate, up: Tensor
    fileprivate let normed: Tensor
    fileprivate let buffer = ActivationBuffer()
    fileprivate let spans = SpanResults()

    init(_ c: LlamaConfiguration) {
        func row(_ columns: Int) -> Tensor { Tensor(rows: 1, columns: columns) }
        let (width, keyWidth) = (c.numAttentionHeads * c.headDim, c.numKeyValueHeads * c.headDim)
        (hidden, normed) = (row(c.hiddenSize), row(c.hiddenSize))
        (query, key, value, attended) = (row(width), row(keyWidth), row(keyWidth), row(width))
        (gate, up) = (row(c.intermediateSize), row(c.intermediateSize))
        // The most that any row takes in any type, so that the buffer never grows.
        for type in [AK_F32, AK_Q8_0] {
            _ = buffer.reserve(type, rows: 1, stride: max(hidden.stride, attended.stride, gate.stride))
        }
    }

    /// A norm of the hidden states as activations.
    func conversion(_ norm: Norm, to type: ak_type) -> RowConversion { RowConversion(hidden, norm, to: type, buffer, room: normed) }
}

/// One token's way through one layer of a sequence, under the sequence's plan.
///
/// What does not change from one token to the next is found once: products and how they are shared out, addresses, what is read next. Between two
/// products all threads but one wait, so that whatever is done there weighs with every thread, and with every layer as much, however few heads and
/// neurons of it run: arrays, closures and reference counts took a tenth of a small model's decode, most of it where a plan leaves much out.
final class TokenPass {
    private let selection: LayerSelection?
    private let attention: Attention?
    private let feedForward: FeedForward?

    /// - Parameters:
    ///   - selection: what runs of the layer; `nil`: all of it.
    ///   - cache: the sequence's keys and values of this layer; needed if attention runs.
    ///   - next: what a token reads first behind this layer.
    /// - Returns: `nil` where products of the same rows take activations of different types.
    init?(
        _ layer: LlamaLayer, _ selection: LayerSelection?, cache: LayerCache?, next: [ak_expected], _ c: LlamaConfiguration, room: TokenRoom,
        _ backend: Backend
    ) {
        self.selection = selection
        let runsMLP = selection?.runsMLP ?? true
        func haveOneType(_ linears: Linear...) -> Bool {
            Set(linears.map { $0.weight.activationType(backend, rows: 1).rawValue }).count == 1
        }
        guard haveOneType(layer.query, layer.key, layer.value), haveOneType(layer.gate, layer.up) else { return nil }
        let gated = layer.gatedReadings(selection, backend)
        if selection?.runsAttention ?? true {
            guard let cache else { return nil }
            attention = Attention(layer, selection, cache, next: runsMLP ? gated : next, c, room, backend)
        } else {
            attention = nil
        }
        feedForward = runsMLP ? FeedForward(layer, selection, next: next, room, backend) : nil
    }

    /// Whether this is the way through a layer under a selection, with a sequence's keys and values.
    func isFor(_ selection: LayerSelection?, _ cache: LayerCache?) -> Bool {
        self.selection === selection && (attention == nil || attention?.cache === cache)
    }

    /// Passes `room.hidden` through, in place.
    /// - Parameter angles: the rotary embedding's cosines and sines of the token's position.
    func callAsFunction(position: Int, _ angles: (UnsafePointer<Float>, UnsafePointer<Float>), _ backend: Backend) {
        attention?.run(position: position, angles, backend)
        feedForward?.run(backend)
    }

    private final class Attention {
        let cache: LayerCache
        private let inputs, outputs: RowConversion
        private let products, output: ProductRun
        private let room: TokenRoom
        private let headDim: Int
        private let interleaved: Int32
        /// Neighbouring heads whose queries, and whose keys, are rotated.
        private let queryRuns, keyRuns: [Range<Int>]
        private let shares: [HeadShare]
        private let dropped: [Range<Int>]
        /// Keys and values, and the output projection's weights; those; what comes behind them.
        private var first: [ak_expected]
        private let second, third: [ak_expected]

        init(
            _ layer: LlamaLayer, _ selection: LayerSelection?, _ cache: LayerCache, next: [ak_expected], _ c: LlamaConfiguration, _ room: TokenRoom,
            _ backend: Backend
        ) {
            (self.cache, self.room, headDim, interleaved) = (cache, room, c.headDim, c.ropeInterleaved ? 1 : 0)
            let keyPanels = selection?.keyValuePanels
            products = ProductRun(
                [
                    Product(linear: layer.query, output: room.query, panels: selection?.queryPanels),
                    Product(linear: layer.key, output: room.key, panels: keyPanels), Product(linear: layer.value, output: room.value, panels: keyPanels),
                ], tokens: 1, backend)
            output = ProductRun(
                [Product(linear: layer.output, output: room.hidden, blocks: selection?.outputBlocks, accumulate: true)], tokens: 1, backend)
            inputs = room.conversion(layer.inputNorm, to: products.type)
            outputs = RowConversion(room.attended, to: output.type, room.buffer, room: room.normed)
            let heads = selection?.heads ?? Array(0 ..< c.numAttentionHeads)
            (queryRuns, keyRuns) = (runs(of: heads), runs(of: cache.heads))
            shares = HeadShare.shares(of: heads, query: room.query, attended: room.attended, cache: cache, c)
            dropped = selection?.droppedHeadColumns ?? []
            second = [backend.expected(layer.output.weight, blocks: selection?.outputBlocks)]
            first = cache.expected(positions: 1) + second
            third = next
        }

        func run(position: Int, _ angles: (UnsafePointer<Float>, UnsafePointer<Float>), _ backend: Backend) {
            let kernels = backend.kernels
            // Until a span is full, more is read at every token.
            if position < Int(AK_ATTENTION_SPAN) + Int(AK_PANEL) { first.replaceSubrange(0 ..< first.count - 1, with: cache.expected(positions: position + 1)) }
            backend.expect(first)
            products(inputs(kernels))
            for run in queryRuns {
                kernels.rope(room.query.data + run.lowerBound * headDim, angles.0, angles.1, Int32(run.count), Int32(headDim), interleaved)
            }
            for run in keyRuns {
                kernels.rope(room.key.data + run.lowerBound * headDim, angles.0, angles.1, Int32(run.count), Int32(headDim), interleaved)
            }
            for (index, head) in cache.heads.enumerated() {
                kernels.store_kv(
                    cache.keys(index), cache.values(index), cache.type, room.key.data + head * headDim, room.key.stride,
                    room.value.data + head * headDim, room.value.stride, Int32(headDim), Int32(position), 1)
            }
            backend.expect(second)
            shares.withUnsafeBufferPointer {
                backend.attend(
                    $0, cache.type, headDim: headDim, keys: position + 1, queries: 1, scale: 1 / Float(headDim).squareRoot(), room.spans)
            }
            room.attended.clear(columns: dropped)
            backend.expect(third)
            output(outputs(kernels))
        }
    }

    private final class FeedForward {
        private let inputs, outputs: RowConversion
        private let products, down: ProductRun
        private let room: TokenRoom
        private let dropped: [Range<Int>]
        private let first, second: [ak_expected]

        init(_ layer: LlamaLayer, _ selection: LayerSelection?, next: [ak_expected], _ room: TokenRoom, _ backend: Backend) {
            self.room = room
            products = ProductRun(
                gate: Product(linear: layer.gate, output: room.gate, panels: selection?.gatePanels),
                up: Product(linear: layer.up, output: room.up, panels: selection?.gatePanels), tokens: 1, backend)
            down = ProductRun(
                [Product(linear: layer.down, output: room.hidden, blocks: selection?.downBlocks, accumulate: true)], tokens: 1, backend)
            inputs = room.conversion(layer.postAttentionNorm, to: products.type)
            outputs = RowConversion(room.gate, to: down.type, room.buffer, room: room.normed)
            dropped = selection?.droppedNeurons ?? []
            first = [backend.expected(layer.down.weight, blocks: selection?.downBlocks)]
            second = next
        }

        func run(_ backend: Backend) {
            let kernels = backend.kernels
            backend.expect(first)
            products(inputs(kernels))
            room.gate.clear(columns: dropped)
            backend.expect(second)
            down(outputs(kernels))
        }
    }
}

extension LlamaLayer {
    /// What a token reads of gate and up.
    func gatedReadings(_ selection: LayerSelection?, _ backend: Backend) -> [ak_expected] {
        [gate, up].map { backend.expected($0.weight, panels: selection?.gatePanels) }
    }
}

/// Neighbouring numbers of an ascending list together.
private func runs(of list: [Int]) -> [Range<Int>] {
    var result: [Range<Int>] = []
    for number in list {
        if let last = result.last, last.upperBound == number {
            result[result.count - 1] = last.lowerBound ..< number + 1
        } else {
            result.append(number ..< number + 1)
        }
    }
    return result
}
