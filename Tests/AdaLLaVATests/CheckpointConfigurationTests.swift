import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct CheckpointConfigurationTests {
    typealias Fixtures = CheckpointFixtures

    private static let plainLlama = """
        "architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":1000,"hidden_size":64,"intermediate_size":128,\
        "num_hidden_layers":2,"num_attention_heads":8,"num_key_value_heads":2,"max_position_embeddings":256,"rms_norm_eps":1e-6
        """

    private func read(_ members: String) throws -> ModelConfiguration {
        try ModelConfiguration.read(Fixtures.json("{\(members)}"), file: "config.json")
    }

    @Test("configurations of LLaMA models are read") func plainLlama() throws {
        // A failure means that plain LLaMA-family models are misread.
        let language = try read(
            Self.plainLlama + #","tie_word_embeddings":true,"attention_bias":true,"mlp_bias":true,"head_dim":16,"eos_token_id":[2,7]"#
        ).language
        #expect(
            language
                == DecoderConfiguration(
                    vocabularySize: 1000, hiddenSize: 64, intermediateSize: 128, numHiddenLayers: 2, numAttentionHeads: 8,
                    numKeyValueHeads: 2, headDim: 16,
                    maxPositionEmbeddings: 256, tieWordEmbeddings: true, attentionBias: true, mlpBias: true, bosTokenID: 1,
                    eosTokenIDs: [2, 7]))
        #expect(try read(Self.plainLlama).language.headDim == 8)
        #expect(try read(Self.plainLlama).llava == nil)
    }

    @Test("configurations of Mistral models are read") func mistral() throws {
        // A failure means that Mistral models attend to other positions than they were trained to.
        let text = Self.plainLlama.replacingOccurrences(of: "\"llama\"", with: "\"mistral\"")
        for (field, window) in [(#","sliding_window":null"#, nil), (#","sliding_window":100"#, 100), ("", 4096)] as [(String, Int?)] {
            let language = try read(text + field).language
            #expect(language.architecture == .mistral && language.slidingWindow == window && language.maxPositionEmbeddings == 256)
        }
        #expect(try read(Self.plainLlama + #","sliding_window":100"#).language.slidingWindow == nil)
    }

    @Test("scalings of rotary positions are read") func ropeScaling() throws {
        // A failure means that a scaling is misread, and answers on long prompts turn to noise.
        func scaling(_ members: String) throws -> RopeScaling? { try read(Self.plainLlama + "," + members).language.ropeScaling }
        #expect(try scaling(#""rope_scaling":null"#) == nil)
        #expect(try scaling(#""rope_scaling":{"rope_type":"default"}"#) == nil)
        #expect(try scaling(#""rope_scaling":{"type":"linear","factor":4}"#) == .linear(factor: 4))
        #expect(try scaling(#""rope_scaling":{"type":"dynamic","factor":2.0}"#) == .dynamic(factor: 2, originalMaxPositionEmbeddings: 256))
        let llama3 =
            #"{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192,"rope_type":"llama3","rope_theta":500000.0}"#
        let expected = RopeScaling.llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalMaxPositionEmbeddings: 8192)
        #expect(try scaling(#""rope_theta":500000.0,"rope_scaling":\#(llama3)"#) == expected)
        #expect(try scaling(#""rope_parameters":\#(llama3)"#) == expected)
        #expect(try read(Self.plainLlama + #","rope_parameters":\#(llama3)"#).language.ropeTheta == 500000)
        guard case .yarn(let yarn) = try scaling(#""rope_scaling":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":64}"#)
        else {
            Issue.record("no yarn")
            return
        }
        #expect(
            yarn.originalMaxPositionEmbeddings == 64 && yarn.betaFast == 32 && yarn.betaSlow == 1
                && abs(yarn.attentionFactor - 1.1386294) < 1e-6)
        #expect(
            checkpointError { try scaling(#""rope_scaling":{"rope_type":"longrope","short_factor":[1],"long_factor":[1]}"#) }?
                .isConfiguration == true)
        #expect(checkpointError { try scaling(#""rope_scaling":{"rope_type":"mrope"}"#) }?.isUnsupported == true)
        #expect(checkpointError { try scaling(#""rope_scaling":{"rope_type":"linear"}"#) }?.isConfiguration == true)
        #expect(checkpointError { try scaling(#""rope_scaling":{"rope_type":"linear","factor":0}"#) }?.isConfiguration == true)
    }

    @Test("values out of range are refused", arguments: [
        ("hidden_size", "0"), ("hidden_size", "-64"), ("hidden_size", "65"), ("hidden_size", "\"64\""), ("hidden_size", "64.5"),
        ("hidden_size", "null"),
        ("hidden_size", "9223372036854775807"), ("num_attention_heads", "0"), ("num_attention_heads", "7"), ("num_key_value_heads", "3"),
        ("num_key_value_heads", "0"), ("num_hidden_layers", "0"), ("num_hidden_layers", "100000000"), ("vocab_size", "0"),
        ("vocab_size", "1e30"),
        ("intermediate_size", "-1"), ("rms_norm_eps", "-1"), ("rms_norm_eps", "\"x\""), ("max_position_embeddings", "0"),
        ("rope_theta", "0"),
        ("head_dim", "7"), ("hidden_act", "\"relu\""), ("tie_word_embeddings", "1"), ("num_prefix_layers", "0"), ("num_prefix_layers", "8"),
        ("num_prefix_layers", "null"), ("scheduler_type", "\"X\""), ("scheduler_type", "null"), ("scheduler_rank", "0"),
        ("scheduler_rank", "9"),
        ("mm_vision_select_feature", "\"cls\""), ("token_selecting", "\"half\""), ("eos_token_id", "\"</s>\""), ("bos_token_id", "\"<s>\""),
    ])
    func outOfRange(field: String, value: String) throws {
        // A failure means that an absurd configuration gets through to code that allocates or divides by it.
        let json = try Fixtures.json("ada-H/config.json", replacing: [field: Fixtures.json(value)])
        let error = try #require(checkpointError { try ModelConfiguration.read(json, file: "config.json") })
        #expect(error.isConfiguration && error.category == .badData)
    }

    @Test("special tokens beyond the vocabulary are left out of a configuration, with a line for each") func unknownSpecialTokens() throws {
        let changes: [String: JSONValue] = ["eos_token_id": .array([.integer(320), .integer(2), .integer(-1)]), "bos_token_id": .integer(99_999)]
        let language = try ModelConfiguration.read(Fixtures.json("ada-H/config.json", replacing: changes), file: "config.json").language
        #expect(language.eosTokenIDs == [2] && language.bosTokenID == nil)
        let lines = GenerationDefaults(language).ignored
        #expect(lines.count == 2 && lines[0].contains("bos_token_id") && lines[0].contains("99999") && lines[1].contains("320"))
    }

    @Test("unsupported features are refused") func unsupportedFeatures() throws {
        // A failure means that a checkpoint that needs more than we have gives wrong answers in place of an error.
        for (field, value) in [
            ("image_aspect_ratio", "anyres"), ("mm_projector_type", "resampler"), ("mm_projector_type", "mlp0x_gelu"),
            ("mm_projector_type", "mlp-2x_gelu"),
        ] {
            let json = try Fixtures.json("ada-L/config.json", replacing: [field: .string(value)])
            #expect(checkpointError { try ModelConfiguration.read(json, file: "config.json") }?.isUnsupported == true)
        }
        let other = try Fixtures.json(#"{"model_type":"dinov2"}"#)
        #expect(checkpointError { try VisionConfiguration.read(other, file: "config.json") }?.isUnsupported == true)
    }

    @Test("published variants of image settings are read") func llavaVariants() throws {
        // A failure means that a published variant of the image settings is misread.
        func llava(_ changes: [String: JSONValue]) throws -> LlavaConfiguration? {
            try ModelConfiguration.read(Fixtures.json("ada-L/config.json", replacing: changes), file: "config.json").llava
        }
        #expect(try llava(["mm_projector_type": .string("linear")])?.projector == .linear)
        #expect(try llava(["mm_projector_type": .null])?.projector == .linear)
        #expect(try llava(["mm_projector_type": .string("mlp3x_gelu")])?.projector == .mlp(layers: 3))
        #expect(try llava(["image_aspect_ratio": .string("square")])?.imageAspectRatio == .crop)
        #expect(try llava(["image_aspect_ratio": .null])?.imageAspectRatio == .crop)
        #expect(try llava(["token_selecting": .string("prumerge+")])?.tokenSelection == .pruMergePlus)
        #expect(try llava(["token_selecting": .null])?.tokenSelection == LlavaConfiguration.TokenSelection.none)
        #expect(try llava(["mm_vision_select_feature": .string("cls_patch")])?.selectFeature == .classAndPatches)
        #expect(try llava(["mm_vision_tower": .null]) == nil)
        let nested = try Fixtures.json(
            #"{"model_type":"clip","vision_config":{"hidden_size":1024,"num_attention_heads":16,"patch_size":14,"image_size":336}}"#)
        #expect(try VisionConfiguration.read(nested, file: "config.json").patches == 576)
    }

    @Test("image processors are read") func imageProcessors() throws {
        // A failure means that pictures are prepared differently from what the tower was trained on.
        func read(_ text: String) throws -> ImageProcessorConfiguration {
            try ImageProcessorConfiguration.read(Fixtures.json(text), file: "p.json")
        }
        let new = try read(
            #"{"size":{"shortest_edge":336},"crop_size":{"height":336,"width":336},"resample":3,"rescale_factor":0.00392156862745098}"#)
        #expect(new == .clip(imageSize: 336))
        #expect(try read(#"{"size":336,"crop_size":336}"#) == .clip(imageSize: 336))
        #expect(try read("{}") == .clip(imageSize: 224))
        let exact = try read(
            #"{"size":{"height":300,"width":400},"do_center_crop":false,"do_normalize":false,"do_rescale":false,"resample":2,"do_pad":true}"#
        )
        #expect(
            exact
                == ImageProcessorConfiguration(
                    resize: .exact(.init(width: 400, height: 300)), resampling: .bilinear, centerCrop: nil, rescaleFactor: nil,
                    mean: [0, 0, 0], standardDeviation: [1, 1, 1], padsToSquare: true))
        #expect(try read(#"{"image_processor":{"size":56,"crop_size":56}}"#) == .clip(imageSize: 56))
        for text in [
            #"{"size":0}"#, #"{"size":{"longest_edge":5}}"#, #"{"size":"big"}"#, #"{"image_std":[0,1,1]}"#, #"{"image_mean":[1]}"#,
            #"{"resample":9}"#, "[]",
        ] {
            #expect(checkpointError { try read(text) }?.isConfiguration == true, "\(text)")
        }
    }

    @Test("end tokens and sampling defaults are read") func generationDefaults() throws {
        // A failure means that answers do not end where the checkpoint says, or ignore its sampling.
        let language = DecoderConfiguration(vocabularySize: 100, hiddenSize: 8, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 1)
        func read(_ text: String) throws -> GenerationDefaults {
            try GenerationDefaults.read(Fixtures.json(text), file: "g.json", language: language)
        }
        let defaults = try read(#"{"eos_token_id":[7,8],"temperature":0.9,"top_p":0.6,"top_k":50,"do_sample":true,"max_length":4096}"#)
        #expect(defaults.eosTokenIDs == [7, 8, 2] && defaults.bosTokenID == 1 && defaults.temperature == 0.9 && defaults.topP == 0.6)
        #expect(defaults.topK == 50 && defaults.doSample == true && defaults.maxLength == 4096 && defaults.maxNewTokens == nil)
        #expect(try read("{}").eosTokenIDs == [2] && read(#"{"eos_token_id":[]}"#).eosTokenIDs.isEmpty)
        // Tokens beyond the vocabulary, and -1 in a list, are no tokens.
        let beyond = try read(#"{"eos_token_id":[7,100,-1]}"#)
        #expect(beyond.eosTokenIDs == [7, 2] && beyond.ignored.count == 1 && beyond.ignored[0].contains("100"))
        // Proposals that make no sense here are told, and keep nobody from using the model.
        for (text, field) in [
            (#"{"temperature":-1}"#, "temperature"), (#"{"top_p":2}"#, "top_p"), (#"{"top_k":-1,"max_length":7}"#, "top_k"),
            (#"{"repetition_penalty":NaN}"#, "repetition_penalty"), (#"{"max_new_tokens":Infinity}"#, "max_new_tokens"),
        ] {
            let defaults = try read(text)
            #expect(defaults.ignored.count == 1 && defaults.ignored.first?.contains(field) == true, "\(text)")
            #expect(defaults.temperature == nil && defaults.topP == nil && defaults.topK == nil && defaults.repetitionPenalty == nil)
        }
        #expect(try read(#"{"top_k":-1,"max_length":7}"#).maxLength == 7 && defaults.ignored.isEmpty)
        #expect(try read(#"{"do_sample":"yes"}"#).doSample == nil)
    }
}
