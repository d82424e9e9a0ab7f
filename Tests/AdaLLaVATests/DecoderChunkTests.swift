import Foundation
import Testing

@testable import AdaLLaVA

/// The decoder under chunking, grouped queries and different numbers of threads.
@Suite struct DecoderChunkTests {
    typealias Fixtures = CheckpointFixtures

    /// A small LLaMA with random weights.
    /// - Parameter expanded: write every query head its own key-value head, which must change nothing.
    static func write(to folder: URL, keyValueHeads: Int, expanded: Bool) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let (hidden, intermediate, heads, layers, vocabulary) = (64, 96, 8, 3, 50)
        let headDim = hidden / heads
        try Data(
            """
            {"model_type": "llama", "hidden_size": \(hidden), "intermediate_size": \(intermediate), "num_attention_heads": \(heads),
             "num_key_value_heads": \(expanded ? heads : keyValueHeads), "num_hidden_layers": \(layers), "vocab_size": \(vocabulary),
             "max_position_embeddings": 2048, "rms_norm_eps": 1e-5}
            """.utf8
        ).write(to: folder.appendingPathComponent("config.json"))
        var random = SeededGenerator(seed: 21)
        var tensors: [(name: String, shape: [Int], values: [Float])] = []
        func add(_ name: String, _ rows: Int, _ columns: Int) {
            let values = (0 ..< rows * columns).map { _ in Float.random(in: -0.2 ... 0.2, using: &random) }
            let isKey = name.hasSuffix("k_proj.weight") || name.hasSuffix("v_proj.weight")
            if isKey, expanded {
                let size = headDim * columns
                var repeated: [Float] = []
                for head in 0 ..< heads {
                    let first = head * keyValueHeads / heads * size
                    repeated += values[first ..< first + size]
                }
                tensors.append((name, [heads * headDim, columns], repeated))
            } else {
                tensors.append((name, [rows, columns], values))
            }
        }
        func addNorm(_ name: String) { tensors.append((name, [hidden], [Float](repeating: 1, count: hidden))) }
        add("model.embed_tokens.weight", vocabulary, hidden)
        add("lm_head.weight", vocabulary, hidden)
        addNorm("model.norm.weight")
        for layer in 0 ..< layers {
            let name = "model.layers.\(layer)."
            addNorm(name + "input_layernorm.weight")
            addNorm(name + "post_attention_layernorm.weight")
            add(name + "self_attn.q_proj.weight", hidden, hidden)
            add(name + "self_attn.k_proj.weight", keyValueHeads * headDim, hidden)
            add(name + "self_attn.v_proj.weight", keyValueHeads * headDim, hidden)
            add(name + "self_attn.o_proj.weight", hidden, hidden)
            add(name + "mlp.gate_proj.weight", intermediate, hidden)
            add(name + "mlp.up_proj.weight", intermediate, hidden)
            add(name + "mlp.down_proj.weight", hidden, intermediate)
        }
        try SafetensorsWriter.write(tensors, to: folder.appendingPathComponent("model.safetensors"))
    }

    private func tokens(_ count: Int) -> [Int] {
        var random = SeededGenerator(seed: 4)
        return (0 ..< count).map { _ in Int.random(in: 3 ..< 50, using: &random) }
    }

    /// The logits behind the last token, the prompt passing through all layers in chunks of `chunk`.
    private func logits(
        _ model: TestModel, _ tokens: [Int], chunk: Int, selections: [LayerSelection]? = nil
    ) throws -> (logits: [Float], sequence: TokenSequence) {
        let reader = SequenceReader(model.decoder, selections: selections, promptLength: tokens.count)
        var logits: [Float] = []
        for start in stride(from: 0, to: tokens.count, by: chunk) {
            let output = try model.engine.runner.step([try reader.chunk(tokens[start ..< min(start + chunk, tokens.count)])])
            logits = try #require(output.last(0)).values
        }
        return (logits, reader.sequence)
    }

    // A mismatch means that a prompt longer than one chunk is read differently from a short one.
    @Test("chunks do not matter", arguments: kernelSets) func chunksDoNotMatter(kernels: String) throws {
        try Fixtures.withTemporaryFolder { folder in
            try Self.write(to: folder.appendingPathComponent("model"), keyValueHeads: 2, expanded: false)
            let model = try TestModel(folder.appendingPathComponent("model"), kernels: kernels)
            let prompt = tokens(BatchRunner.chunk * 2 + 77)
            let whole = try logits(model, prompt, chunk: prompt.count).logits
            for chunk in [1, 100, 512] where chunk > 1 || kernels == kernelSets.last {
                #expect(try logits(model, prompt, chunk: chunk).logits == whole, "chunks of \(chunk)")
            }
            // The engine, chunks and all, answers as token after token does.
            let trace = Trace()
            _ = try model.run(prompt, maxTokens: 1, trace: trace)
            #expect(trace.entries["prefill_last_logits"]?.values == whole)
            // A row by itself is computed by other kernels, which are close.
            let reader = SequenceReader(model.decoder, promptLength: prompt.count)
            _ = try model.engine.runner.step([try reader.chunk(prompt.dropLast())])
            let single = try model.engine.runner.step([reader.single(try #require(prompt.last))])
            #expect(largestDifference(try #require(single.last(0)).values, whole) <= 1e-4)
        }
    }

    // A mismatch means that a prompt whose last row alone is read leaves other keys and values, or another answer, behind.
    @Test("only the last row is read", arguments: kernelSets) func onlyTheLastRowIsRead(kernels: String) throws {
        try Fixtures.withTemporaryFolder { folder in
            try Self.write(to: folder.appendingPathComponent("model"), keyValueHeads: 2, expanded: false)
            let model = try TestModel(folder.appendingPathComponent("model"), kernels: kernels)
            let c = model.decoder.configuration
            let all = Array(0 ..< c.numAttentionHeads)
            typealias Row = ExecutionPlan.Row
            let (whole, nothing) = (Row(heads: all, groups: all), Row(heads: [], groups: []))
            let plans = [
                [whole, whole, whole], [whole, whole, nothing], [whole, nothing, nothing], [whole, whole, Row(heads: [], groups: [1, 4])],
                [whole, Row(heads: [2], groups: []), Row(heads: [0, 7], groups: [3])], [Row(heads: [], groups: all), nothing, nothing],
            ]
            for (rows, plan) in plans.flatMap({ plan in [1, 40, BatchRunner.chunk + 33].map { ($0, plan) } }) {
                let prompt = tokens(rows)
                let results = try [false, true].map { lastRowOnly in
                    let selections = plan.map { $0 == whole ? model.decoder.whole : LayerSelection($0, c) }
                    let reader = SequenceReader(model.decoder, selections: selections, promptLength: rows)
                    // Where hidden states are wanted, all rows are computed to the end.
                    let output = lastRowOnly ? nil : Tensor(rows: rows, columns: c.hiddenSize)
                    let first = try #require(try model.engine.runner.step([try reader.chunk(prompt, output: output)]).last(0)).values
                    return first + (try #require(try model.engine.runner.step([reader.single(7)]).last(0)).values)
                }
                #expect(results[0] == results[1], "\(rows) rows, \(plan)")
            }
        }
    }

    // A failure means that a checkpoint whose tied embeddings are stored under the output layer's name cannot be used, or answers otherwise.
    @Test("tied embeddings under either name") func tiedEmbeddingsUnderEitherName() throws {
        try Fixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("model")
            try Self.write(to: url, keyValueHeads: 2, expanded: false)
            let config = url.appendingPathComponent("config.json"), weights = url.appendingPathComponent("model.safetensors")
            let text = try String(contentsOf: config, encoding: .utf8)
            try Data(text.replacingOccurrences(of: "{\"model_type\"", with: "{\"tie_word_embeddings\": true, \"model_type\"").utf8).write(to: config)
            let file = try SafetensorsFile(contentsOf: weights)
            let all = try file.names.map { name in
                let tensor = try file.tensor(name)
                return (name: name, shape: tensor.shape, values: try Tensor(vector: tensor, count: tensor.count).values)
            }
            let answers = try ["model.embed_tokens.weight", "lm_head.weight"].map { kept in
                let named = all.filter { $0.name != "lm_head.weight" }
                    .map { (name: $0.name == "model.embed_tokens.weight" ? kept : $0.name, shape: $0.shape, values: $0.values) }
                try SafetensorsWriter.write(named, to: weights)
                return try TestModel(url).run([3, 7, 11], maxTokens: 8).tokens
            }
            #expect(answers[0] == answers[1] && answers[0].count == 8)
        }
    }

    // A mismatch means that a query head reads another group's keys and values, whole or under a plan.
    @Test("grouped queries equal repeated keys", arguments: kernelSets) func groupedQueriesEqualRepeatedKeys(kernels: String) throws {
        try Fixtures.withTemporaryFolder { folder in
            let names = ["grouped", "expanded"].map(folder.appendingPathComponent)
            for (index, name) in names.enumerated() { try Self.write(to: name, keyValueHeads: 2, expanded: index == 1) }
            let models = try names.map { try TestModel($0, kernels: kernels) }
            let rows: [ExecutionPlan.Row] = [
                .init(heads: [0, 1, 2, 3, 4, 5, 6, 7], groups: [0, 1, 2, 3, 4, 5, 6, 7]), .init(heads: [1, 6], groups: [0, 3]),
                .init(heads: [5, 7], groups: []),
            ]
            func run(chunk: Int) throws -> [(logits: [Float], sequence: TokenSequence)] {
                try models.map { model in
                    try logits(model, tokens(40), chunk: chunk, selections: rows.map { LayerSelection($0, model.decoder.configuration) })
                }
            }
            let results = try run(chunk: 40)
            // The last token by itself, as in a decode: the kept heads of a group read its keys together, whatever lies between them.
            let stepped = try models.map { model in
                let selections = rows.map { LayerSelection($0, model.decoder.configuration) }
                let reader = SequenceReader(model.decoder, selections: selections, promptLength: 40)
                _ = try model.engine.runner.step([try reader.chunk(tokens(40).dropLast())])
                return try #require(try model.engine.runner.step([reader.single(tokens(40)[39])]).last(0)).values
            }
            #expect(largestDifference(stepped[0], stepped[1]) <= 1e-5)
            #expect(largestDifference(stepped[0], results[0].logits) <= 1e-4)
            #expect(largestDifference(results[0].logits, results[1].logits) <= 1e-5)
            #expect(results[0].sequence.layers.map { $0?.heads } == [[0, 1], [0, 1], [1]])
            #expect(results[1].sequence.layers.map { $0?.heads } == [[0, 1, 2, 3, 4, 5, 6, 7], [1, 6], [5, 7]])
            // Only kept heads take memory: 40 positions are a page of each.
            for (result, model) in zip(results, models) {
                let perHead = model.decoder.layout(.f32).pageBytes(heads: 1)
                #expect(perHead >= 2 * KeyValueLayout.slots * 8 * 4)
                #expect(result.sequence.keyValueBytes == perHead * result.sequence.layers.reduce(0) { $0 + ($1?.heads.count ?? 0) })
            }
        }
    }

    // A mismatch means that the same seed answers differently on a machine with another number of processors.
    @Test("threads do not matter", arguments: Precision.allCases) func threadsDoNotMatter(precision: Precision) throws {
        let url = Fixtures.referenceModel
        var sampling = SamplingOptions()
        (sampling.temperature, sampling.seed) = (1, 17)
        let prompt = tokens(150)
        let runs = try [1, 2, 2].map { threads in
            let trace = Trace()
            let model = try TestModel(url, precision: precision, threads: threads)
            let size = try #require(model.loaded.checkpoint.configuration.vision).imageSize
            let pixels = [Float](repeating: 0.25, count: 3 * size * size)
            let result = try model.run(prompt + [-200], pixels: [pixels], budget: 0.7, maxTokens: 40, sampling: sampling, trace: trace)
            return (tokens: result.tokens, bits: trace.entries.mapValues { $0.values.map(\.bitPattern) })
        }
        #expect(runs[0].tokens.count == 40)
        #expect(runs[0].tokens == runs[1].tokens && runs[0].bits == runs[1].bits)
        #expect(runs[1].tokens == runs[2].tokens && runs[1].bits == runs[2].bits)
    }
}
