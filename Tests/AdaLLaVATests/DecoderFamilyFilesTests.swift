import Foundation
import Testing

@testable import AdaLLaVA

/// How Qwen2, Mistral and Phi-2 are read, refused, converted and reported.
@Suite struct DecoderFamilyFilesTests {
    private func read(_ fixture: DecoderFixture, _ changes: [String: JSONValue?], file: String = "config.json") throws -> ModelConfiguration {
        try ModelConfiguration.read(fixture.configuration(changes, file: file), file: "config.json")
    }

    private func fixture(_ folder: String) throws -> DecoderFixture { try #require(DecoderFixture.all.first { $0.folder == folder }) }

    // A mismatch means that one of the forms that a model is published in is another model than the others.
    @Test("all published forms of a model agree", arguments: DecoderFixture.all) func formsAgree(fixture: DecoderFixture) throws {
        let expected = try read(fixture, [:]).language
        #expect(try read(fixture, [:], file: "config-published.json").language == expected)
        for file in fixture.ggufFiles {
            let checkpoint = try Checkpoint.open(at: fixture.url.appendingPathComponent(file))
            var found = checkpoint.configuration.language
            #expect(found.ropeInterleaved == (fixture.architecture == .mistral))
            found.ropeInterleaved = false
            // Gemma's norms are stored less 1 in safetensors only.
            #expect(!found.normsAddOne)
            found.normsAddOne = expected.normsAddOne
            #expect(found == expected, "\(file)")
            #expect(checkpoint.formatDescription == "\(fixture.architecture.name), GGUF")
        }
    }

    // A mismatch means that a model type of LLaVA's layout is not read, or is read as another architecture.
    @Test("model types of LLaVA's layout are read", arguments: DecoderFixture.all) func modelTypes(fixture: DecoderFixture) throws {
        let expected = try read(fixture, [:]).language
        let plain = String(fixture.adaptiveType.dropFirst(4))
        let adaptive: [String: JSONValue?] = ["scheduler_type": .string("H"), "scheduler_rank": .integer(2), "num_prefix_layers": .integer(2)]
        #expect(try read(fixture, ["model_type": .string(plain)]).language == expected)
        let found = try read(fixture, adaptive.merging(["model_type": .string(fixture.adaptiveType)]) { $1 })
        #expect(found.language == expected && found.adaptive?.schedulerRank == 2)
        for (type, isAdaptive) in [(plain, false), (fixture.adaptiveType, true)] {
            let name = type.split(separator: "_").map(\.capitalized).joined() + "ForCausalLM"
            let found = try read(fixture, adaptive.merging(["model_type": nil, "architectures": .array([.string(name)])]) { $1 })
            #expect(found.language == expected && (found.adaptive != nil) == isAdaptive, "\(name)")
        }
        let nested = JSONValue.object(["model_type": .string("llava"), "text_config": try fixture.configuration([:])])
        #expect(try ModelConfiguration.read(nested, file: "config.json").language == expected)
    }

    // A mismatch means that a window holds where transformers has none, or the other way round.
    @Test("Qwen2's windows hold in the layers where transformers has them") func qwen2Windows() throws {
        let qwen2 = try fixture("qwen2")
        func window(_ changes: [String: JSONValue?], uses: Bool = true) throws -> Int? {
            let all: [String: JSONValue?] = [
                "use_sliding_window": .bool(uses), "sliding_window": .integer(16), "max_window_layers": .integer(0), "layer_types": nil,
            ]
            return try read(qwen2, all.merging(changes) { $1 }).language.slidingWindow
        }
        #expect(try window([:]) == 16 && window([:], uses: false) == nil)
        #expect(try window(["max_window_layers": .integer(5)]) == nil && window(["max_window_layers": .integer(28)]) == nil)
        #expect(try window(["sliding_window": .null]) == nil && window(["sliding_window": .integer(512)]) == nil)
        let sliding = JSONValue.string("sliding_attention"), full = JSONValue.string("full_attention")
        #expect(try window(["layer_types": .array(Array(repeating: sliding, count: 5)), "max_window_layers": .integer(28)]) == 16)
        #expect(try window(["layer_types": .array(Array(repeating: full, count: 5))]) == nil)
        // Windows that differ by layer are refused by name, not ignored.
        for changes in [["max_window_layers": .integer(2)], ["layer_types": .array([full, full, sliding, sliding, full])]] as [[String: JSONValue?]] {
            let error = try #require(checkpointError { try window(changes) })
            #expect(error.isUnsupported && error.description.contains("use_sliding_window"))
        }
        for changes in [
            ["sliding_window": .integer(0)], ["sliding_window": .integer(-16)], ["max_window_layers": .integer(-1)], ["layer_types": .array([full])],
            ["layer_types": .array(Array(repeating: .string("chunked_attention"), count: 5))],
        ] as [[String: JSONValue?]] {
            #expect(checkpointError { try window(changes) }?.isConfiguration == true)
        }
    }

    // A failure means that an absurd configuration gets through to code that divides by it, or that what is not computed is ignored.
    @Test("absurd configurations are refused", arguments: ["config.json", "config-published.json"]) func hostileConfigurations(file: String) throws {
        func error(_ folder: String, _ changes: [String: JSONValue?]) throws -> CheckpointError? {
            let fixture = try fixture(folder)
            return checkpointError { try read(fixture, changes, file: file) }
        }
        for value in [JSONValue.integer(0), .integer(-24), .string("24"), .number(2.5), .integer(1 << 40)] {
            #expect(try error("mistral", ["sliding_window": value])?.isConfiguration == true)
        }
        // Heads of 8 values: 0.1 leaves none to rotate, 0.4 leaves three.
        for value in [JSONValue.integer(0), .number(0.1), .number(0.4), .number(-0.5), .number(1.5), .string("half")] {
            let rope = JSONValue.object(["rope_theta": .number(10000), "partial_rotary_factor": value])
            let changes: [String: JSONValue?] = file == "config.json" ? ["rope_parameters": rope] : ["partial_rotary_factor": value]
            let found = try #require(try error("phi2", changes))
            #expect(found.isConfiguration && found.description.contains("partial_rotary_factor"))
        }
        #expect(try error("phi2", ["qk_layernorm": .bool(true)])?.description.contains("qk_layernorm") == true)
        #expect(try error("phi2", ["hidden_act": .string("relu")])?.isConfiguration == true)
        #expect(try error("phi2", ["layer_norm_eps": .integer(-1)])?.isConfiguration == true)
        for folder in ["qwen2", "mistral"] {
            let rope = JSONValue.object(["rope_theta": .number(10000), "partial_rotary_factor": .number(0.5)])
            #expect(try error(folder, ["rope_parameters": rope])?.isUnsupported == true)
            #expect(try error(folder, ["hidden_act": .string("gelu")])?.isConfiguration == true)
        }
        let unknown = try #require(try error("qwen2", ["model_type": .string("qwen3")]))
        #expect(unknown.isUnsupported && unknown.description.contains("qwen2") && unknown.description.contains("ada_llava_phi"))
    }

    // A mismatch means that a published form of Gemma 3 gets other layers, bases or scales than transformers or llama.cpp give it.
    @Test("the published forms of Gemma 3 give the same layers") func gemma3Forms() throws {
        let gemma = try fixture("gemma3")
        let sliding = DecoderLayerKind.slidingAttention, full = DecoderLayerKind.attention
        func read(_ changes: [String: JSONValue?]) throws -> DecoderConfiguration {
            try self.read(gemma, changes, file: "config-published.json").language
        }
        let plain = try read(["layer_types": nil])
        #expect(plain.layerKinds == [sliding, sliding, sliding, sliding, sliding] && plain.window(4) == 24)
        #expect(try read(["layer_types": nil, "sliding_window_pattern": .integer(3)]).layerKinds == [sliding, sliding, full, sliding, sliding])
        let none = try read(["sliding_window": .null])
        #expect(none.layerKinds.isEmpty && none.window(0) == nil && none.kind(3) == full)
        let bases = try read(["rope_theta": nil, "rope_local_base_freq": nil])
        #expect(bases.ropeTheta == 1_000_000 && bases.localRopeTheta == 10000)
        // Gemma names the stretched context, others the one before it was stretched.
        let scaled = try read(["rope_scaling": .object(["rope_type": .string("linear"), "factor": .number(8)])])
        #expect(scaled.contextLength == 512 && scaled.ropeScaling == .linear(factor: 8))
        // Multimodal files leave the text model's defaults out.
        let text: JSONValue = .object(["model_type": .string("gemma3_text"), "hidden_size": .integer(2560), "sliding_window": .integer(1024)])
        let nested = try ModelConfiguration.read(.object(["model_type": .string("gemma3"), "text_config": text, "vision_config": .object([:])]), file: "c")
        #expect(nested.vision == nil && nested.language.headDim == 256 && nested.language.numKeyValueHeads == 4 && nested.language.tieWordEmbeddings)
        #expect(nested.language.kind(5) == full && nested.language.window(4) == 1024 && nested.language.vocabularySize == 262_208)
        for changes in [
            ["attn_logit_softcapping": .number(50)], ["use_bidirectional_attention": .bool(true)],
            ["rope_parameters": .object(["sliding_attention": .object(["rope_type": .string("yarn")])])],
        ] as [[String: JSONValue?]] {
            #expect(checkpointError { try read(changes) }?.isUnsupported == true)
        }
        for changes in [
            ["hidden_activation": .string("silu")], ["sliding_window_pattern": .integer(0), "layer_types": nil], ["layer_types": .array([.string("conv")])],
            ["query_pre_attn_scalar": .integer(0)], ["final_logit_softcapping": .integer(-1)], ["rope_local_base_freq": .string("x")],
        ] as [[String: JSONValue?]] {
            #expect(checkpointError { try read(changes) }?.isConfiguration == true, "\(changes)")
        }
        // What GGUF's readers would take otherwise is refused.
        let source = try fixture("gemma3-scaled").url
        let other = try CheckpointFixtures.withTemporaryFolder { folder in
            checkpointError { try CheckpointConverter(source, to: .f16, output: folder.appendingPathComponent("a.gguf")).run() }
        }
        #expect(other?.isUnsupported == true && other?.description.contains("query_pre_attn_scalar 9") == true)
    }

    // A failure means that a GGUF file of Gemma 3 gets windows in other layers than llama.cpp gives it.
    @Test("Gemma 3 GGUF patterns") func gemma3GGUFPatterns() throws {
        let source = try GGUFFile(contentsOf: fixture("gemma3").url.appendingPathComponent("gemma3.gguf"))
        func read(_ key: String, _ value: GGUFValue?) throws -> DecoderConfiguration {
            try CheckpointFixtures.withTemporaryFolder { place in
                let url = place.appendingPathComponent("m.gguf")
                let pairs = source.metadata.keys.filter { $0 != key }.compactMap { key in source.metadata[key].map { (key: key, value: $0) } }
                try GGUFWriter.write([], metadata: pairs + (value.map { [(key: key, value: $0)] } ?? []), to: url) { _, _ in }
                return try ModelConfiguration.read(GGUFFile(contentsOf: url)).language
            }
        }
        let pattern = "gemma3.attention.sliding_window_pattern"
        #expect(try read(pattern, nil).layerKinds == Array(repeating: .slidingAttention, count: 5))
        #expect(try read(pattern, .uint32(2)).layerKinds == [.slidingAttention, .attention, .slidingAttention, .attention, .slidingAttention])
        #expect(try read("gemma3.attention.sliding_window", nil).layerKinds.isEmpty)
        #expect(try read("gemma3.final_logit_softcapping", .float32(30)).finalLogitSoftcap == 30)
        #expect(try read("gemma3.rope.freq_base_swa", .float32(500)).localRopeTheta == 500)
        for value in [GGUFValue.array(GGUFArray([true, false])), .array(GGUFArray([Int32(1), 1, 1, 1, 1])), .uint32(0), .string("x")] {
            #expect(checkpointError { try read(pattern, value) } != nil)
        }
    }

    // A mismatch means that a published form of LFM2 gets another MLP, or convolutions in other layers, than transformers or llama.cpp give it.
    @Test("the published forms of LFM2 give the same layers") func lfm2Forms() throws {
        let lfm2 = try fixture("lfm2"), conv = DecoderLayerKind.convolution, full = DecoderLayerKind.attention
        func read(_ changes: [String: JSONValue?]) throws -> DecoderConfiguration {
            try self.read(lfm2, changes, file: "config-published.json").language
        }
        // LFM2-350M: 6656 becomes 4608.
        #expect(try read(["block_ff_dim": .integer(6656), "block_multiple_of": .integer(256)]).intermediateSize == 4608)
        #expect(try read(["block_ffn_dim_multiplier": .number(1.3)]).intermediateSize == 96)
        #expect(try read(["block_ffn_dim_multiplier": .null]).intermediateSize == 66)
        #expect(try read(["block_auto_adjust_ff_dim": .bool(false)]).intermediateSize == 100)
        #expect(try read(["full_attn_idxs": nil]).layerKinds.isEmpty)
        let listed = JSONValue.array([conv, full, full, conv, full].map { .string($0.rawValue) })
        #expect(try read(["layer_types": listed]).layerKinds == [conv, full, full, conv, full])
        #expect(try read(["tie_embedding": .bool(false)]).tieWordEmbeddings == false)
        for changes in [
            ["full_attn_idxs": .array([.integer(5)])], ["full_attn_idxs": .array([.integer(-1)])], ["conv_L_cache": .integer(1)],
            ["conv_L_cache": .integer(1 << 30)], ["block_ffn_dim_multiplier": .number(0)], ["block_multiple_of": .integer(0)],
            ["layer_types": .array([.string("sliding_attention")])], ["block_ff_dim": .integer(1)],
        ] as [[String: JSONValue?]] {
            #expect(checkpointError { try read(changes) }?.isConfiguration == true, "\(changes)")
        }
        let source = try fixture("lfm2-bias").url
        let other = try CheckpointFixtures.withTemporaryFolder { folder in
            checkpointError { try CheckpointConverter(source, to: .f16, output: folder.appendingPathComponent("a.gguf")).run() }
        }
        #expect(other?.isUnsupported == true && other?.description.contains("conv_bias") == true)
    }

    // A failure means that damaged weights or metadata of a convolution are computed with.
    @Test("damaged convolutions are refused") func damagedConvolutions() throws {
        let lfm2 = try fixture("lfm2")
        for (name, shape) in [("conv.in_proj.weight", [96, 72]), ("conv.conv.weight", [48, 3, 1]), ("conv.out_proj.weight", [24, 96])] {
            try lfm2.withCopy { copy in
                let tensors = try lfm2.tensors().map { $0.name == "model.layers.2.\(name)" ? ($0.name, shape, $0.values) : $0 }
                try SafetensorsWriter.write(tensors, to: copy.appendingPathComponent("model.safetensors"))
                #expect { _ = try TestModel(copy, threads: 1) } throws: { error in
                    if case .shape? = error as? CheckpointError { true } else { false }
                }
            }
        }
        let gguf = try GGUFFile(contentsOf: lfm2.url.appendingPathComponent("lfm2.gguf"))
        for (key, value) in [
            ("lfm2.attention.head_count_kv", GGUFValue.array(GGUFArray([Int32(0), 2, 0, 4, 2]))), ("lfm2.attention.head_count_kv", .array(GGUFArray([Int32(0), 2]))),
            ("lfm2.shortconv.l_cache", .uint32(0)), ("lfm2.attention.sliding_window", .uint32(8)),
        ] {
            try CheckpointFixtures.withTemporaryFolder { place in
                let url = place.appendingPathComponent("m.gguf")
                let pairs = gguf.metadata.keys.filter { $0 != key }.compactMap { key in gguf.metadata[key].map { (key: key, value: $0) } }
                try GGUFWriter.write([], metadata: pairs + [(key: key, value: value)], to: url) { _, _ in }
                #expect(checkpointError { try ModelConfiguration.read(GGUFFile(contentsOf: url)) } != nil, "\(key)")
            }
        }
    }

    // A failure means that a checkpoint without a bias that its architecture has computes something else than it was trained to.
    @Test("missing biases are refused", arguments: [
        ("lfm2-bias", "model.layers.1.conv.in_proj.bias", "model.layers.1.conv.in_proj.bias"),
        ("lfm2-bias", "model.layers.1.conv.conv.bias", "model.layers.1.conv.conv.bias"),
        ("lfm2-bias", "model.layers.3.conv.out_proj.bias", "model.layers.3.conv.out_proj.bias"),
        ("qwen2", "model.layers.3.self_attn.k_proj.bias", "model.layers.3.self_attn.k_proj.bias"),
        ("phi2", "model.layers.4.self_attn.dense.bias", "model.layers.4.self_attn.o_proj.bias"),
        ("phi2", "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias"),
        ("phi2", "model.layers.1.mlp.fc1.bias", "model.layers.1.mlp.up_proj.bias"),
        ("phi2", "model.layers.1.mlp.fc2.bias", "model.layers.1.mlp.down_proj.bias"),
        ("phi2", "lm_head.bias", "lm_head.bias"), ("phi2", "model.final_layernorm.bias", "model.norm.bias"),
        ("phi2", "model.layers.2.input_layernorm.bias", "model.layers.2.input_layernorm.bias"),
    ]) func missingBiases(folder: String, stored: String, canonical: String) throws {
        let fixture = try fixture(folder)
        try fixture.withCopy { copy in
            try SafetensorsWriter.write(fixture.tensors().filter { $0.name != stored }, to: copy.appendingPathComponent("model.safetensors"))
            #expect { _ = try TestModel(copy, threads: 1) } throws: { error in
                if case .missingTensor(canonical, _)? = error as? CheckpointError { true } else { false }
            }
            let report = try ModelReport(contentsOf: copy)
            #expect(report.problem?.contains(canonical) == true)
        }
    }

    // A failure means that a stacked tensor of another size is cut in the wrong places.
    @Test("stacked tensors are split where their sizes say") func stackedTensors() throws {
        let phi2 = try fixture("phi2")
        let file = try GGUFFile(contentsOf: phi2.url.appendingPathComponent("phi2.gguf"))
        let parts = (0 ..< 3).map { RenamedTensors.Part(name: "part\($0)", rows: 48) }
        let name = "blk.2.attn_qkv.weight", whole = try file.tensor(name)
        let split = try RenamedTensors(file) { $0 == name ? parts : nil } rename: { _ in nil }
        #expect(split.names == ["part0", "part1", "part2"] && split.storedName(of: "part1") == name)
        let second = try split.tensor("part1")
        // Not a copy: the same bytes of the same mapping.
        let size = 48 * 48 * 4
        #expect(second.shape == [48, 48] && second.bytes.baseAddress == whole.bytes.baseAddress.map { $0 + size } && second.bytes.count == size)
        for rows in [0, 47, 95, 97, 145] {
            let wrong = [RenamedTensors.Part(name: "a", rows: 48), .init(name: "b", rows: rows)]
            guard case .shape? = checkpointError({ try RenamedTensors(file) { $0 == name ? wrong : nil } rename: { _ in nil } }) else {
                Issue.record("\(rows) rows")
                continue
            }
        }
        #expect(whole.rows(0 ..< 145, named: "x") == nil && whole.rows(-1 ..< 3, named: "x") == nil)
        #expect(TensorNames.stacked(gguf: "blk.7.attn_qkv.bias")?.last == "model.layers.7.self_attn.v_proj.bias")
        for other in ["blk.7.attn_q.bias", "v.blk.7.attn_qkv.weight", "attn_qkv.weight", "blk.x.attn_qkv.weight"] {
            #expect(TensorNames.stacked(gguf: other) == nil)
        }
    }

    // A failure means that a GGUF file of another architecture gets a window or a rotary size that it does not have.
    @Test("hostile GGUF") func hostileGGUF() throws {
        func error(_ folder: String, _ file: String, _ key: String, _ value: GGUFValue?) throws -> CheckpointError? {
            let source = try GGUFFile(contentsOf: fixture(folder).url.appendingPathComponent(file))
            return try CheckpointFixtures.withTemporaryFolder { place in
                let url = place.appendingPathComponent("m.gguf")
                let pairs = source.metadata.keys.filter { $0 != key }.compactMap { key in source.metadata[key].map { (key: key, value: $0) } }
                try GGUFWriter.write([], metadata: pairs + (value.map { [(key: key, value: $0)] } ?? []), to: url) { _, _ in }
                return checkpointError { try ModelConfiguration.read(GGUFFile(contentsOf: url)) }
            }
        }
        #expect(try error("mistral", "mistral.gguf", "unused", nil) == nil && error("phi2", "phi2.gguf", "unused", nil) == nil)
        for value in [GGUFValue.uint32(0), .int32(-1), .string("24")] {
            #expect(try error("mistral", "mistral.gguf", "llama.attention.sliding_window", value)?.isConfiguration == true)
        }
        for value in [GGUFValue.uint32(0), .uint32(3), .uint32(10), .int32(-4)] {
            #expect(try error("phi2", "phi2.gguf", "phi2.rope.dimension_count", value)?.isConfiguration == true)
        }
        #expect(try error("phi2", "phi2.gguf", "phi2.attention.layer_norm_epsilon", nil)?.isConfiguration == true)
        #expect(try error("qwen2", "qwen2.gguf", "qwen2.rope.dimension_count", .uint32(4))?.isUnsupported == true)
        let unknown = try #require(try error("qwen2", "qwen2.gguf", "general.architecture", .string("gemma4")))
        #expect(unknown.isUnsupported && unknown.description.contains("llama, qwen2, phi2"))
    }

    // A mismatch means that a conversion changes an architecture, or loses a bias, a window or the order of a head's values.
    @Test("conversions keep the architecture", arguments: DecoderFixture.all) func conversionsKeepTheArchitecture(fixture: DecoderFixture) throws {
        let prompt = try fixture.expected().prompts[2]
        try CheckpointFixtures.withTemporaryFolder { folder in
            var sources = [(name: "model", url: folder.appendingPathComponent("model"))]
            try FileManager.default.createDirectory(at: sources[0].url, withIntermediateDirectories: true)
            for name in ["config.json", "model.safetensors"] {
                try FileManager.default.copyItem(at: fixture.url.appendingPathComponent(name), to: sources[0].url.appendingPathComponent(name))
            }
            sources += fixture.ggufFiles.map { (name: $0, url: fixture.url.appendingPathComponent($0)) }
            for source in sources {
                var logits: [[Float]] = []
                let targets = fixture.ggufFiles.isEmpty ? ["f16"] : source.name == "model" ? ["f16", "f16.gguf"] : ["f16.gguf"]
                for target in targets {
                    let output = folder.appendingPathComponent("\(source.name)-\(target)")
                    _ = try CheckpointConverter(source.url, to: .f16, output: output).run()
                    let model = try TestModel(output, threads: 2), trace = Trace()
                    let (found, expected) = (model.decoder.configuration, try Checkpoint.open(at: source.url).configuration.language)
                    #expect(found.architecture == fixture.architecture && found.slidingWindow == expected.slidingWindow)
                    #expect(found.layerKinds == expected.layerKinds && found.localRopeTheta == expected.localRopeTheta)
                    #expect(found.rotaryDim == expected.rotaryDim && found.normEpsilon == expected.normEpsilon && found.ropeTheta == expected.ropeTheta)
                    _ = try model.run(prompt.tokens, maxTokens: 1, trace: trace)
                    logits.append(trace.entries["prefill_last_logits"]?.values ?? [])
                }
                for values in logits { #expect(largestDifference(values, prompt.logits) < 0.1, "\(source.name)") }
                if logits.count > 1 { #expect(largestDifference(logits[0], logits[1]) < 0.05) }
            }
            for target in [CheckpointConverter.Target.q8_0, .q4_0] where !fixture.ggufFiles.isEmpty {
                let output = folder.appendingPathComponent("\(target).gguf")
                _ = try CheckpointConverter(sources[0].url, to: target, output: output).run()
                #expect(try ModelReport(contentsOf: output).configuration.language.architecture == fixture.architecture)
            }
        }
    }

    // A mismatch means that `inspect` does not say which architecture a decoder has.
    @Test("reports name the architecture and the window", arguments: DecoderFixture.all) func reports(fixture: DecoderFixture) throws {
        let report = try ModelReport(contentsOf: fixture.ggufFiles.first.map(fixture.url.appendingPathComponent) ?? fixture.url)
        let window = fixture.architecture == .mistral || fixture.architecture == .gemma3 ? 24 : nil
        #expect(report.problem == nil)
        #expect(report.json.decoder.architecture == fixture.architecture.rawValue)
        #expect(report.json.decoder.slidingWindow == window)
    }
}
