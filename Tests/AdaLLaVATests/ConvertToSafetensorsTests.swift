import Foundation
import Testing

@testable import AdaLLaVA

/// GGUF text models as folders in Hugging Face's layout.
@Suite struct ConvertToSafetensorsTests {
    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("safetensors-\(UUID().uuidString)")
        try Files.createFolder(folder)
        defer { try? Files.remove(folder) }
        try body(folder)
    }

    @Test("Weights and configuration are those of the Hugging Face folder that the GGUF file was made from", arguments: DecoderFixture.all)
    func weights(fixture: DecoderFixture) throws {
        let original = try Checkpoint.open(at: fixture.url)
        for name in fixture.ggufFiles {
            try withFolder { place in
                let output = place.appendingPathComponent("out")
                let report = try CheckpointConverter(fixture.url.appendingPathComponent(name), to: .f32, output: output).run()
                #expect(report.files == [output.path])
                let written = try Checkpoint.open(at: output)
                var (expected, found) = (original.configuration.language, written.configuration.language)
                // A generation configuration may add tokens that end an answer, and biases that are there are always added.
                (expected.eosTokenIDs, expected.padTokenID, expected.bosTokenID) = (found.eosTokenIDs, found.padTokenID, found.bosTokenID)
                (expected.attentionBias, expected.mlpBias) = (found.attentionBias, found.mlpBias)
                (expected.normEpsilon, found.normEpsilon) = (0, 0)
                #expect(expected == found, "\(name)")
                let file = try SafetensorsFile(contentsOf: output.appendingPathComponent("model.safetensors"))
                let tensors = try fixture.tensors()
                #expect(Set(file.names) == Set(tensors.map(\.name)), "\(name)")
                for tensor in tensors {
                    let values = try Tensor(vector: file.tensor(tensor.name), count: tensor.values.count).values
                    #expect(try file.tensor(tensor.name).shape == tensor.shape)
                    let difference = zip(values, tensor.values).map { abs($0 - $1) }.max() ?? 0
                    #expect(difference < 2e-3, "\(name) \(tensor.name): \(difference)")
                }
            }
        }
    }

    @Test("The tokenizer's files read every text as the same tokens as the GGUF vocabulary", arguments: ["gpt-2", "llama-spm"])
    func tokenizers(name: String) throws {
        let file = try GGUFFile(contentsOf: Fixtures.url("vocabularies/ggml-vocab-\(name).gguf"))
        let vocabulary = try #require(try GGUFVocabulary(file.metadata))
        let expected = try vocabulary.makeTokenizer(file: name)
        try withFolder { place in
            for (name, text) in try HuggingFaceTokenizer(vocabulary, template: "{{ messages[0]['content'] }}\n\"é\"", file: name).files {
                try Files.write(Data(text.utf8), to: place.appendingPathComponent(name))
            }
            let loaded = try TokenizerLoader.load(folder: place)
            #expect(loaded.chatTemplate == "{{ messages[0]['content'] }}\n\"é\"")
            #expect(loaded.tokenizer.eosToken == expected.eosToken && loaded.tokenizer.bosToken == expected.bosToken)
            let input = try String(contentsOf: Fixtures.url("vocabularies/ggml-vocab-\(name).gguf.inp"), encoding: .utf8)
            let texts = input.components(separatedBy: "\n__ggml_vocab_test__\n") + ["Hello, world! How's it going?", "これはペンです。🚀 3333 déjà vu"]
            #expect(texts.count > 20)
            for text in texts {
                #expect(
                    loaded.tokenizer.encode(text, addSpecialTokens: true) == expected.encode(text, addSpecialTokens: true), "\(text.debugDescription)")
            }
        }
    }

    @Test("What has no form in that layout says so before anything is written")
    func refusals() throws {
        try withFolder { place in
            let file = place.appendingPathComponent("ada.gguf")
            _ = try CheckpointConverter(Fixtures.url("ada-L"), to: .f16, output: file).run()
            let output = place.appendingPathComponent("out")
            do {
                _ = try CheckpointConverter(file, to: .f16, output: output)
                Issue.record("an adaptive GGUF model was taken")
            } catch let error as ConversionError {
                #expect(error.description.contains("scheduler") && error.description.contains("original checkpoint"))
            }
            let text = Fixtures.url("decoders/qwen2/qwen2.gguf")
            #expect(throws: ConversionError.needsGGUF("q8_0", output: output.path)) { try CheckpointConverter(text, to: .q8_0, output: output) }
            #expect(FileKind(output) == .nothing)
        }
    }
}
