import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct CheckpointOpeningTests {
    typealias Fixtures = CheckpointFixtures

    /// Every tensor that a decoder of this shape needs, with its shape.
    static func decoderShapes(_ language: DecoderConfiguration) -> [String: [Int]] {
        let (hidden, intermediate) = (language.hiddenSize, language.intermediateSize)
        let (queries, keys) = (language.numAttentionHeads * language.headDim, language.numKeyValueHeads * language.headDim)
        var shapes = ["model.embed_tokens.weight": [language.vocabularySize, hidden], "model.norm.weight": [hidden]]
        if !language.tieWordEmbeddings { shapes["lm_head.weight"] = [language.vocabularySize, hidden] }
        for layer in 0..<language.numHiddenLayers {
            let prefix = "model.layers.\(layer)."
            shapes[prefix + "input_layernorm.weight"] = [hidden]
            shapes[prefix + "post_attention_layernorm.weight"] = [hidden]
            shapes[prefix + "self_attn.q_proj.weight"] = [queries, hidden]
            shapes[prefix + "self_attn.k_proj.weight"] = [keys, hidden]
            shapes[prefix + "self_attn.v_proj.weight"] = [keys, hidden]
            shapes[prefix + "self_attn.o_proj.weight"] = [hidden, queries]
            shapes[prefix + "mlp.gate_proj.weight"] = [intermediate, hidden]
            shapes[prefix + "mlp.up_proj.weight"] = [intermediate, hidden]
            shapes[prefix + "mlp.down_proj.weight"] = [hidden, intermediate]
        }
        return shapes
    }

    /// Every tensor that a tower of this shape needs, up to the norm behind its layers.
    static func towerShapes(_ vision: VisionConfiguration) -> [String: [Int]] {
        let (hidden, intermediate) = (vision.hiddenSize, vision.intermediateSize)
        var shapes = [
            "embeddings.class_embedding": [hidden],
            "embeddings.patch_embedding.weight": [hidden, 3, vision.patchSize, vision.patchSize],
            "embeddings.position_embedding.weight": [vision.patches + 1, hidden],
            "pre_layrnorm.weight": [hidden], "pre_layrnorm.bias": [hidden],
        ]
        for layer in 0..<vision.numHiddenLayers {
            let prefix = "encoder.layers.\(layer)."
            for norm in ["layer_norm1", "layer_norm2"] {
                (shapes["\(prefix)\(norm).weight"], shapes["\(prefix)\(norm).bias"]) = ([hidden], [hidden])
            }
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                shapes["\(prefix)self_attn.\(projection).weight"] = [hidden, hidden]
                shapes["\(prefix)self_attn.\(projection).bias"] = [hidden]
            }
            (shapes["\(prefix)mlp.fc1.weight"], shapes["\(prefix)mlp.fc1.bias"]) = ([intermediate, hidden], [intermediate])
            (shapes["\(prefix)mlp.fc2.weight"], shapes["\(prefix)mlp.fc2.bias"]) = ([hidden, intermediate], [hidden])
        }
        return Dictionary(uniqueKeysWithValues: shapes.map { ("vision_model." + $0.key, $0.value) })
    }

    static func expectComplete(_ checkpoint: Checkpoint, sourceLocation: SourceLocation = #_sourceLocation) {
        let configuration = checkpoint.configuration
        for (name, shape) in decoderShapes(configuration.language) {
            #expect(checkpoint.language.find(name)?.shape == shape, "\(name)", sourceLocation: sourceLocation)
        }
        if let vision = configuration.vision {
            for (name, shape) in towerShapes(vision) {
                #expect(checkpoint.vision?.find(name)?.shape == shape, "\(name)", sourceLocation: sourceLocation)
            }
            let (hidden, width) = (configuration.language.hiddenSize, vision.hiddenSize)
            for (name, shape) in ["0.weight": [hidden, width], "0.bias": [hidden], "2.weight": [hidden, hidden], "2.bias": [hidden]] {
                #expect(checkpoint.projector?.find("model.mm_projector.\(name)")?.shape == shape, "\(name)", sourceLocation: sourceLocation)
            }
        }
        #expect(checkpoint.language.names.allSatisfy { !$0.hasPrefix("vision_model.") }, sourceLocation: sourceLocation)
    }

    @Test("AdaLLaVA with layers") func adaLLaVAWithLayers() throws {
        // A failure means that a single-file AdaLLaVA-L checkpoint of the reference no longer opens as what it is.
        let checkpoint = try Checkpoint.open(at: Fixtures.fixture("ada-L"))
        Self.expectComplete(checkpoint)
        let language = checkpoint.configuration.language
        #expect((language.vocabularySize, language.hiddenSize, language.intermediateSize) == (320, 64, 172))
        #expect((language.numHiddenLayers, language.numAttentionHeads, language.headDim, language.maxPositionEmbeddings) == (8, 8, 8, 512))
        #expect(language.normEpsilon == 1e-5 && language.ropeTheta == 10000 && language.ropeScaling == nil && !language.ropeInterleaved)
        #expect(checkpoint.configuration.adaptive == AdaptiveConfiguration(schedulerType: .layers, schedulerRank: 8, numPrefixLayers: 4))
        let llava = try #require(checkpoint.configuration.llava)
        #expect(llava.projector == .mlp(layers: 2) && llava.selectLayer == -2 && llava.selectFeature == .patch)
        #expect(llava.imageAspectRatio == .pad && llava.tokenSelection == .none && llava.towerInside)
        #expect(checkpoint.configuration.vision?.patches == 16)
        #expect(checkpoint.generation.eosTokenIDs == [2] && checkpoint.generation.bosTokenID == 1 && checkpoint.generation.padTokenID == 0)
        #expect(checkpoint.generation.maxLength == 4096)
        #expect(checkpoint.language.find("scheduler.mlp_head.weight")?.shape == [4, 64])
        #expect(checkpoint.formatDescription == "AdaLLaVA-L, safetensors in one file")
    }

    @Test("AdaLLaVA with heads and shards") func adaLLaVAWithHeadsAndShards() throws {
        // A failure means that sharded AdaLLaVA-H checkpoints no longer open, or lose the scheduler's settings.
        let checkpoint = try Checkpoint.open(at: Fixtures.fixture("ada-H"))
        Self.expectComplete(checkpoint)
        #expect(checkpoint.configuration.adaptive == AdaptiveConfiguration(schedulerType: .heads, schedulerRank: 2, numPrefixLayers: 4))
        #expect(checkpoint.language.find("scheduler.mlp_head.weight")?.shape == [64, 64])
        #expect(checkpoint.formatDescription == "AdaLLaVA-H, safetensors in 3 files")
    }

    @Test("tower beside the checkpoint") func towerBesideTheCheckpoint() throws {
        // A failure means that checkpoints without a tower inside do not find the one that mm_vision_tower names, or that it differs.
        try Fixtures.withTemporaryFolder { parent in
            let folder = parent.appendingPathComponent("model")
            try Fixtures.copy("ada-H", to: folder)
            let index = folder.appendingPathComponent("model.safetensors.index.json")
            try FileManager.default.removeItem(at: index)
            try FileManager.default.copyItem(at: folder.appendingPathComponent("no_tower.index.json"), to: index)
            try FileManager.default.removeItem(at: folder.appendingPathComponent("model-00003-of-00003.safetensors"))
            try Fixtures.write(
                Fixtures.json("ada-H/config.json", replacing: ["unfreeze_mm_vision_tower": .bool(false)]),
                to: folder.appendingPathComponent("config.json"))
            let checkpoint = try Checkpoint.open(at: folder)
            Self.expectComplete(checkpoint)
            #expect(checkpoint.vision?.location.hasSuffix("vision_tower/model.safetensors") == true)
            let whole = try Checkpoint.open(at: Fixtures.fixture("ada-H"))
            #expect(whole.vision?.location.hasSuffix("index.json") == true)
            for name in Self.towerShapes(try #require(whole.configuration.vision)).keys {
                #expect(try checkpoint.vision?.tensor(name).bytes.elementsEqual(#require(whole.vision).tensor(name).bytes) == true)
            }

            try FileManager.default.removeItem(at: folder.appendingPathComponent("vision_tower"))
            let error = try #require(checkpointError { try Checkpoint.open(at: folder) })
            #expect(error.isMissing && error.description.contains("vision_tower") && error.description.contains(folder.path))
            #expect(error.category == .missingInput)
        }
    }

    @Test("llava-hf checkpoints open with their usual defaults", arguments: ["old-layout", "new-layout"])
    func llavaHF(layout: String) throws {
        // A failure means that llava-hf checkpoints of this layout no longer open, or that absent fields lost their usual defaults.
        let checkpoint = try Checkpoint.open(at: Fixtures.fixture("llava-hf/\(layout)"))
        Self.expectComplete(checkpoint)
        let language = checkpoint.configuration.language
        #expect((language.vocabularySize, language.hiddenSize, language.intermediateSize, language.numHiddenLayers) == (328, 32, 74, 2))
        #expect((language.bosTokenID, language.eosTokenIDs, language.padTokenID) == (1, [2], 321))
        #expect(language.ropeTheta == 10000 && language.normEpsilon == 1e-5)
        let vision = try #require(checkpoint.configuration.vision)
        #expect(vision.activation == .quickGELU && vision.imageSize == 56 && vision.layerNormEpsilon == 1e-5)
        let llava = try #require(checkpoint.configuration.llava)
        #expect(
            llava.imageTokenID == 320 && llava.projector == .mlp(layers: 2) && llava.selectLayer == -2 && llava.imageAspectRatio == .crop)
        #expect(llava.layersToRun(of: vision) == 3)
        #expect(checkpoint.imageProcessor == .clip(imageSize: 56))
        #expect(checkpoint.configuration.adaptive == nil)
    }

    @Test("the embedded model opens") func referenceModel() throws {
        // A failure means that `adallava ask` without --model has no model.
        let checkpoint = try Checkpoint.open(at: Fixtures.referenceModel)
        Self.expectComplete(checkpoint)
        #expect(checkpoint.language.find("model.embed_tokens.weight")?.type == .f16)
        #expect(checkpoint.vision?.find("vision_model.embeddings.position_ids") == nil)
        #expect(checkpoint.configuration.vision?.imageSize == 112)
    }

    @Test("a CLIP tower in its own folder opens") func standaloneTower() throws {
        // A failure means that CLIP towers in folders of their own cannot be used, as the pruning cases do.
        let folder = Fixtures.fixture("prumerge/tower_576")
        let config = folder.appendingPathComponent("config.json")
        let vision = try VisionConfiguration.read(JSONValue.read(contentsOf: config), file: config.path)
        #expect((vision.hiddenSize, vision.numHiddenLayers, vision.numAttentionHeads, vision.patches) == (16, 3, 2, 576))
        let tensors = try RenamedTensors(
            SafetensorsFile(contentsOf: folder.appendingPathComponent("model.safetensors")), rename: TensorNames.canonical(clip:))
        for (name, shape) in Self.towerShapes(vision) { #expect(tensors.find(name)?.shape == shape, "\(name)") }
    }

    @Test("a single safetensors file opens") func singleSafetensorsFile() throws {
        // A failure means that naming the weights' file instead of its folder stopped working.
        let checkpoint = try Checkpoint.open(at: Fixtures.fixture("ada-L/model.safetensors"))
        #expect(checkpoint.configuration.adaptive?.schedulerType == .layers)
    }

    @Test("what is not a checkpoint") func whatIsNotACheckpoint() throws {
        // A failure means that a wrong path ends in a wrong exit code or an error that does not help.
        let nothing = try #require(checkpointError { try Checkpoint.open(at: URL(fileURLWithPath: "/nowhere/at/all")) })
        #expect(nothing.isMissing && nothing.category == .missingInput)
        try Fixtures.withTemporaryFolder { folder in
            #expect(checkpointError { try Checkpoint.open(at: folder) }?.isMissing == true)

            let text = folder.appendingPathComponent("notes.txt")
            try Data("hello".utf8).write(to: text)
            #expect(checkpointError { try Checkpoint.open(at: text) }?.isUnsupported == true)

            let empty = folder.appendingPathComponent("empty.gguf")
            try Data().write(to: empty)
            #expect(checkpointError { try Checkpoint.open(at: empty) }?.isMalformed == true)

            let config = folder.appendingPathComponent("config.json")
            try FileManager.default.copyItem(at: Fixtures.fixture("ada-L/config.json"), to: config)
            #expect(checkpointError { try Checkpoint.open(at: folder) }?.isMissing == true)

            try Data([1]).write(to: folder.appendingPathComponent("pytorch_model.bin"))
            let pickled = try #require(checkpointError { try Checkpoint.open(at: folder) })
            #expect(pickled.isMalformed && pickled.description.contains("PyTorch's magic number"))
        }
        #expect(checkpointError { try MappedFile(contentsOf: Fixtures.fixture("ada-L")) }?.isUnreadable == true)
    }

    @Test("an unknown architecture is refused") func unknownArchitecture() throws {
        // A failure means that a model this engine cannot run is loaded as something it is not.
        for type in ["phi3", "qwen3", "mllama"] {
            let json = try Fixtures.json("ada-L/config.json", replacing: ["model_type": .string(type)])
            let error = try #require(checkpointError { try ModelConfiguration.read(json, file: "config.json") })
            #expect(error.isUnsupported && error.description.contains("ada_llava_llama"))
        }
    }
}
