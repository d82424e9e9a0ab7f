import AdaKernels
import Testing

@testable import AdaLLaVA

/// What a decode finds once for a sequence, against layers that find everything anew.
@Suite struct TokenPassTests {
    private static let shape = LlamaConfiguration(
        vocabularySize: 50, hiddenSize: 96, intermediateSize: 200, numHiddenLayers: 4, numAttentionHeads: 6, numKeyValueHeads: 2, ropeInterleaved: true,
        maxPositionEmbeddings: 512)

    /// Made-up weights of one type each.
    private struct Source: TensorSource {
        private let tensors: [String: StoredTensor]
        var names: [String] { tensors.keys.sorted() }
        let location = "made-up weights"

        init(_ c: LlamaConfiguration, type: (String) -> ElementType) {
            var random = SplitMix64(seed: 5), made: [String: StoredTensor] = [:]
            func add(_ name: String, _ shape: [Int], _ type: ElementType) {
                let count = shape.reduce(1, *)
                var bytes: [UInt8] = []
                RandomWeights(type, deviation: 0.15, &random).read(type.bytes(for: count) ?? 0, &random) { bytes.append(contentsOf: $0) }
                let file = MappedFile(copying: bytes, path: "made-up weights")
                made[name] = StoredTensor(name: name, type: type, shape: shape, bytes: file.bytes, file: file)
            }
            let (width, keyWidth) = (c.numAttentionHeads * c.headDim, c.numKeyValueHeads * c.headDim)
            add("model.embed_tokens.weight", [c.vocabularySize, c.hiddenSize], .f16)
            add("lm_head.weight", [c.vocabularySize, c.hiddenSize], type("lm_head"))
            add("model.norm.weight", [c.hiddenSize], .f16)
            for layer in 0 ..< c.numHiddenLayers {
                let prefix = "model.layers.\(layer)."
                for norm in ["input_layernorm", "post_attention_layernorm"] { add(prefix + norm + ".weight", [c.hiddenSize], .f16) }
                for (name, rows, inputs) in [
                    ("self_attn.q_proj", width, c.hiddenSize), ("self_attn.k_proj", keyWidth, c.hiddenSize), ("self_attn.v_proj", keyWidth, c.hiddenSize),
                    ("self_attn.o_proj", c.hiddenSize, width), ("mlp.gate_proj", c.intermediateSize, c.hiddenSize),
                    ("mlp.up_proj", c.intermediateSize, c.hiddenSize), ("mlp.down_proj", c.hiddenSize, c.intermediateSize),
                ] { add(prefix + name + ".weight", [rows, inputs], inputs % 32 == 0 ? type(name) : .f16) }
            }
            tensors = made
        }

        func find(_ name: String) -> StoredTensor? { tensors[name] }
    }

    private static func decoder(_ kernels: String, threads: Int = 2, type: (String) -> ElementType) throws -> LlamaDecoder {
        try LlamaDecoder(
            Source(shape, type: type), shape, backend: try Backend(threads: threads, kernels: kernels), headPlans: 1 ..< 4,
            cancellation: Cancellation()) { _ in }
    }

    /// Whole layers, layers that are cut in every way, and one that does not run.
    private static let plan: [ExecutionPlan.Row] = [
        .init(heads: [0, 1, 2, 3, 4, 5], groups: [0, 1, 2, 3, 4, 5]), .init(heads: [0, 2, 4], groups: [1, 4]), .init(heads: [], groups: []),
        .init(heads: [3, 5], groups: [0, 1, 5]),
    ]

    /// The logits of each token of a sequence of `count`.
    /// - Parameters:
    ///   - findsAnew: layers find everything at each token, as they do of a prompt.
    ///   - selections: made for each token, or once.
    private func logits(
        _ decoder: LlamaDecoder, count: Int, plan: [ExecutionPlan.Row]?, findsAnew: Bool, selectsAnew: Bool = false
    ) throws -> [[UInt32]] {
        let c = decoder.configuration
        func selections() -> [LayerSelection?] {
            plan?.enumerated().map { $0 == 0 ? nil : LayerSelection($1, c) } ?? Array(repeating: nil, count: c.numHiddenLayers)
        }
        let once = selections()
        let cache = KeyValueCache(layerCount: c.numHiddenLayers, capacity: count), hidden = Tensor(rows: 1, columns: c.hiddenSize)
        return try (0 ..< count).map { position in
            try decoder.embed((position * 7 + 3) % c.vocabularySize, into: hidden, row: 0)
            try decoder.run(
                0 ..< c.numHiddenLayers, on: hidden, first: position, cache: cache, selections: selectsAnew ? selections() : once,
                cancellation: Cancellation(), probe: findsAnew ? AttentionProbe(position: -1) : nil)
            return decoder.logits(hidden, row: 0).values.map(\.bitPattern)
        }
    }

    // A difference means that a decode multiplies, rotates, keeps or clears something else than the layers say: behind a few keys, behind those of several
    // spans, whole or under a plan.
    @Test(arguments: kernelSets, [ElementType.q8_0, .q4_0, .f16, .bf16])
    func tokensPassAsPromptsDo(kernels: String, type: ElementType) throws {
        let decoder = try Self.decoder(kernels) { _ in type }
        for plan in [nil, Self.plan] {
            let expected = try logits(decoder, count: 300, plan: plan, findsAnew: true)
            #expect(expected.allSatisfy { $0.allSatisfy { Float(bitPattern: $0).isFinite } } && Set(expected).count == expected.count)
            #expect(try logits(decoder, count: 300, plan: plan, findsAnew: false) == expected)
        }
    }

    // A failure means that a layer whose products take activations of different types is multiplied with the wrong ones.
    @Test(arguments: kernelSets) func layersOfSeveralTypes(kernels: String) throws {
        for mixed in ["self_attn.v_proj", "mlp.up_proj", "self_attn.o_proj", "lm_head"] {
            let decoder = try Self.decoder(kernels) { $0 == mixed ? .f16 : .q8_0 }
            let expected = try logits(decoder, count: 20, plan: Self.plan, findsAnew: true)
            #expect(try logits(decoder, count: 20, plan: Self.plan, findsAnew: false) == expected, "\(mixed)")
        }
    }

    // A failure means that a sequence goes the way of another plan, or another sequence's.
    @Test func everySequenceGoesItsOwnWay() throws {
        let decoder = try Self.decoder(try #require(kernelSets.last)) { _ in .q8_0 }
        let planned = try logits(decoder, count: 20, plan: Self.plan, findsAnew: false)
        let whole = try logits(decoder, count: 20, plan: nil, findsAnew: false)
        #expect(planned != whole)
        #expect(try logits(decoder, count: 20, plan: Self.plan, findsAnew: false, selectsAnew: true) == planned)
        #expect(try logits(decoder, count: 20, plan: nil, findsAnew: false) == whole)
    }

    // A failure means that who shares a product's rows or panels shows in its sums, or that a part of the rows is left out.
    @Test(arguments: kernelSets, [ElementType.q8_0, .f16, .bf16])
    func rowsAreSharedOut(kernels: String, type: ElementType) throws {
        let results = try [1, 2, 3].map { threads in
            let decoder = try Self.decoder(kernels, threads: threads) { _ in type }
            return try [127, 128, 193, 333].flatMap { rows in
                let c = decoder.configuration, hidden = Tensor(rows: rows, columns: c.hiddenSize)
                for row in 0 ..< rows { try decoder.embed((row * 7 + 3) % c.vocabularySize, into: hidden, row: row) }
                try decoder.run(
                    0 ..< c.numHiddenLayers, on: hidden, first: 0, cache: KeyValueCache(layerCount: c.numHiddenLayers, capacity: rows),
                    selections: Self.plan.map { LayerSelection($0, c) }, cancellation: Cancellation())
                return hidden.values.map(\.bitPattern)
            }
        }
        #expect(results[0].allSatisfy { Float(bitPattern: $0).isFinite })
        #expect(results[0] == results[1] && results[0] == results[2])
    }
}
