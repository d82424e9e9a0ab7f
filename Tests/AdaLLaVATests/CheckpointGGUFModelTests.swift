import Foundation
import Testing

@testable import AdaLLaVA

/// Models in GGUF, made from the fixtures: what one format says must survive in the other.
@Suite struct CheckpointGGUFModelTests {
    typealias Fixtures = CheckpointFixtures

    private static let clip: [(key: String, value: GGUFValue)] = [("general.architecture", .string("clip"))]

    /// Writes the tensors of `sources` under their GGUF names.
    private func write(
        _ sources: [any TensorSource], _ metadata: [(key: String, value: GGUFValue)], to url: URL, rename: (String) -> String = { $0 }
    ) throws {
        var stored: [String: StoredTensor] = [:]
        for source in sources {
            for name in source.names { stored[rename(TensorNames.gguf(canonical: name))] = try source.tensor(name) }
        }
        let descriptions = stored.map { TensorDescription(name: $0.key, type: $0.value.type, shape: $0.value.shape) }
        try GGUFWriter.write(descriptions.sorted { $0.name < $1.name }, metadata: metadata, to: url) { tensor, sink in
            if let bytes = stored[tensor.name]?.bytes { try sink.write(bytes) }
        }
    }

    @Test("a LLaVA GGUF pair loads as the original model") func pair() throws {
        // A failure means that a LLaVA model as a GGUF pair does not load as what it was, in the folder or file by file.
        let original = try Checkpoint.open(at: Fixtures.fixture("llava-hf/old-layout"))
        let (vision, llava) = (try #require(original.configuration.vision), try #require(original.configuration.llava))
        let processor = try #require(original.imageProcessor)
        try Fixtures.withTemporaryFolder { folder in
            let (model, mmproj) = (folder.appendingPathComponent("model.gguf"), folder.appendingPathComponent("mmproj-model.gguf"))
            let text = try RenamedTensors(original.language) { $0.hasPrefix("model.mm_projector.") ? nil : $0 }
            let image = try RenamedTensors(original.language) { $0.hasPrefix("model.mm_projector.") ? $0 : nil }
            try write([text], original.configuration.language.ggufMetadata(), to: model)
            try write(
                [image, #require(original.vision)], Self.clip + vision.ggufMetadata(llava: llava, imageProcessor: processor), to: mmproj)

            for checkpoint in [try Checkpoint.open(at: folder), try Checkpoint.open(at: model, projector: mmproj), try Checkpoint.open(at: model)] {
                CheckpointOpeningTests.expectComplete(checkpoint)
                var language = checkpoint.configuration.language
                #expect(language.ropeInterleaved)
                language.ropeInterleaved = false
                #expect(language == original.configuration.language)
                #expect(checkpoint.configuration.vision == vision && checkpoint.imageProcessor == processor)
                #expect(
                    checkpoint.configuration.llava?.layersToRun(of: vision) == 3
                        && checkpoint.configuration.llava?.imageAspectRatio == .crop)
                for name in try #require(checkpoint.vision).names {
                    #expect(try checkpoint.vision?.tensor(name).bytes.elementsEqual(#require(original.vision).tensor(name).bytes) == true)
                }
                #expect(checkpoint.ggufMetadata != nil && checkpoint.formatDescription == "LLaVA-1.5, GGUF pair")
            }
            #expect(checkpointError { try Checkpoint.open(at: mmproj) }?.description.contains("image part") == true)
            #expect(checkpointError { try Checkpoint.open(at: model, projector: model) }?.isUnsupported == true)
            try FileManager.default.copyItem(at: model, to: folder.appendingPathComponent("other.gguf"))
            #expect(checkpointError { try Checkpoint.open(at: folder) }?.description.contains("other.gguf") == true)
            // Beside several models a projector belongs to the one that it is called after.
            #expect(try Checkpoint.open(at: model).configuration.llava != nil)
            #expect(try Checkpoint.open(at: folder.appendingPathComponent("other.gguf")).configuration.llava == nil)
        }
    }

    @Test("projector files of llama.cpp's first converter load") func olderProjector() throws {
        // A failure means that mmproj files of llama.cpp's first converter, which swapped the MLP's names, dropped the last layer and said
        // nothing of the layer to use, give features of another layer or do not load.
        let original = try Checkpoint.open(at: Fixtures.fixture("llava-hf/old-layout"))
        var vision = try #require(original.configuration.vision)
        vision.numHiddenLayers -= 1
        let metadata = try vision.ggufMetadata(
            llava: #require(original.configuration.llava), imageProcessor: #require(original.imageProcessor))
        try Fixtures.withTemporaryFolder { folder in
            let (model, mmproj) = (folder.appendingPathComponent("model.gguf"), folder.appendingPathComponent("mmproj.gguf"))
            try write([original.language], original.configuration.language.ggufMetadata(), to: model)
            let tower = try RenamedTensors(#require(original.vision)) {
                $0.contains("layers.3.") || $0.contains("post_layernorm") ? nil : $0
            }
            let image = try RenamedTensors(original.language) { $0.hasPrefix("model.mm_projector.") ? $0 : nil }
            try write(
                [image, tower],
                Self.clip + metadata.filter { $0.key != "clip.vision.feature_layer" && $0.key != "clip.vision.image_aspect_ratio" },
                to: mmproj
            ) {
                $0.contains("ffn_up")
                    ? $0.replacingOccurrences(of: "ffn_up", with: "ffn_down") : $0.replacingOccurrences(of: "ffn_down", with: "ffn_up")
            }
            let checkpoint = try Checkpoint.open(at: model, projector: mmproj)
            CheckpointOpeningTests.expectComplete(checkpoint)
            #expect(checkpoint.configuration.llava?.layersToRun(of: vision) == 3)
            #expect(checkpoint.configuration.llava?.imageAspectRatio == .pad)
        }
    }

    @Test("adaptive in one file") func adaptiveInOneFile() throws {
        // A failure means that an AdaLLaVA checkpoint that we converted to GGUF has lost its scheduler or its tower.
        let original = try Checkpoint.open(at: Fixtures.fixture("ada-H"))
        let (vision, llava) = (try #require(original.configuration.vision), try #require(original.configuration.llava))
        let adaptive = try #require(original.configuration.adaptive)
        try Fixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("ada.gguf")
            let image = try vision.ggufMetadata(llava: llava, imageProcessor: #require(original.imageProcessor))
            try write(
                [original.language, #require(original.vision)],
                original.configuration.language.ggufMetadata() + adaptive.ggufMetadata + image, to: url)
            let checkpoint = try Checkpoint.open(at: url)
            CheckpointOpeningTests.expectComplete(checkpoint)
            #expect(checkpoint.configuration.adaptive == adaptive && checkpoint.configuration.vision == vision)
            #expect(checkpoint.configuration.llava?.imageAspectRatio == .pad)
            for name in ["scheduler.mlp_head.weight", "scheduler.scheduler_up_proj.net.0.bias"] {
                #expect(try checkpoint.language.tensor(name).bytes.elementsEqual(original.language.tensor(name).bytes))
            }
        }
    }

    @Test("absurd GGUF metadata is refused") func badMetadata() throws {
        // A failure means that an absurd GGUF configuration gets through to code that allocates or divides by it.
        let valid = try DecoderConfiguration(
            vocabularySize: 8, hiddenSize: 32, intermediateSize: 32, numHiddenLayers: 1, numAttentionHeads: 4
        ).ggufMetadata()
        func read(_ key: String, _ value: GGUFValue?) throws -> ModelConfiguration {
            try CheckpointFixtures.withTemporaryFolder { folder in
                let url = folder.appendingPathComponent("m.gguf")
                let pairs = valid.filter { $0.key != key } + (value.map { [(key: key, value: $0)] } ?? [])
                try GGUFWriter.write([], metadata: pairs, to: url) { _, _ in }
                return try ModelConfiguration.read(GGUFFile(contentsOf: url))
            }
        }
        #expect(try read("unused", nil).language.tieWordEmbeddings)
        for key in [
            "llama.embedding_length", "llama.block_count", "llama.attention.head_count", "llama.context_length",
            "llama.feed_forward_length",
        ] {
            for value in [nil, .uint32(0), .uint64(.max), .string("8"), .float32(8), .int32(-4)] as [GGUFValue?] {
                #expect(checkpointError { try read(key, value) }?.isConfiguration == true, "\(key)")
            }
        }
        #expect(checkpointError { try read("llama.attention.head_count", .uint32(5)) }?.isConfiguration == true)
        #expect(checkpointError { try read("llama.attention.layer_norm_rms_epsilon", .float32(.nan)) }?.isConfiguration == true)
        #expect(checkpointError { try read("llama.rope.dimension_count", .uint32(4)) }?.isUnsupported == true)
        #expect(checkpointError { try read("llama.expert_count", .uint32(8)) }?.isUnsupported == true)
        #expect(checkpointError { try read("general.architecture", .string("gemma4")) }?.isUnsupported == true)
        #expect(checkpointError { try read("adallava.scheduler_type", .string("Z")) }?.isConfiguration == true)
    }

    @Test("a number that is written once for each layer is read where all layers have the same, and refused by name where they differ")
    func numbersForEachLayer() throws {
        let shape = DecoderConfiguration(
            vocabularySize: 8, hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2)
        let valid = try shape.ggufMetadata()
        func read(_ key: String, _ layers: [Int32]) throws -> DecoderConfiguration {
            try Fixtures.withTemporaryFolder { folder in
                let url = folder.appendingPathComponent("m.gguf")
                let pairs = valid.map { $0.key == key ? (key: key, value: GGUFValue.array(GGUFArray(layers))) : $0 }
                try GGUFWriter.write([], metadata: pairs, to: url) { _, _ in }
                return try ModelConfiguration.read(GGUFFile(contentsOf: url)).language
            }
        }
        #expect(try read("llama.attention.head_count_kv", [2, 2]).numKeyValueHeads == 2)
        #expect(try read("llama.attention.head_count", [4, 4]).numAttentionHeads == 4)
        #expect(try read("llama.feed_forward_length", [48, 48]).intermediateSize == 48)
        let error = try #require(checkpointError { try read("llama.attention.head_count_kv", [4, 2]) })
        #expect(error.isUnsupported && error.description.contains("llama.attention.head_count_kv that differs between layers (2, 4)"))
        for bad in [[], [0, 0], [-1, -1]] as [[Int32]] {
            #expect(checkpointError { try read("llama.feed_forward_length", bad) }?.isConfiguration == true, "\(bad)")
        }
    }

    @Test("special tokens that the vocabulary does not hold are left out, with a line for those that do not say none")
    func specialTokensOutOfRange() throws {
        let file = try GGUFFile(contentsOf: Fixtures.fixture("llava-gguf/text.gguf"))
        func metadata(_ key: String, _ value: GGUFValue) -> GGUFMetadata {
            var values: [String: GGUFValue] = [:]
            for key in file.metadata.keys { values[key] = file.metadata[key] }
            values["tokenizer.ggml.\(key)_token_id"] = value
            return GGUFMetadata(keys: Array(values.keys), values: values, location: "test.gguf")
        }
        for value in [.uint32(100_000), .uint32(.max), .int32(-1)] as [GGUFValue] {
            for (key, usual) in [("bos", 1), ("eos", 2), ("unknown", 0), ("padding", nil), ("eot", nil)] as [(String, Int?)] {
                let changed = metadata(key, value)
                #expect(try changed.tokenID("tokenizer.ggml.\(key)_token_id") == usual, "\(key)")
                // As the file with the usual ones.
                let tokenizer = try #require(try GGUFVocabulary(changed)).makeTokenizer(file: "test.gguf")
                let expected = try #require(try GGUFVocabulary(file.metadata)).makeTokenizer(file: "test.gguf")
                #expect(tokenizer.encode("hello there", addSpecialTokens: true) == expected.encode("hello there", addSpecialTokens: true))
                let lines = try changed.unknownTokenIDs()
                #expect(value.integer == 100_000 ? lines.count == 1 && lines[0].contains("tokenizer.ggml.\(key)_token_id") : lines.isEmpty)
            }
        }
        #expect(try file.metadata.unknownTokenIDs().isEmpty && file.metadata.tokenID("tokenizer.ggml.bos_token_id") == 1)
    }
}
