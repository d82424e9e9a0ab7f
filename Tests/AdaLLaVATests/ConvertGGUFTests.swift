import Foundation
import Testing

@testable import AdaLLaVA

/// GGUF files for other programs: the vocabulary in GGUF's keys, the chat template, LLaVA as a pair, and the name of what they cannot run.
@Suite struct ConvertGGUFTests {
    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("gguf-\(UUID().uuidString)")
        try Files.createFolder(folder)
        defer { try? Files.remove(folder) }
        try body(folder)
    }

    /// A copy of a fixture's checkpoint with a tokenizer.
    private func checkpoint(_ path: String, at folder: URL, files: [String] = ["tokenizer.model", "tokenizer_config.json"]) throws {
        try Files.copy(Fixtures.url(path), to: folder)
        for name in files { try Files.copy(Fixtures.url("tokenizer/tok320/" + name), to: folder.appendingPathComponent(name)) }
    }

    private static let texts = [
        "Hello, world! How's it going?", " leading  spaces\n\n", "3 33 333 3333 3.3", "I'VE been told we'll see", "これはペンです。🚀", "a <|endoftext|> b</s>",
    ]

    // A mismatch means that another program reads a prompt as other tokens than the model was trained with.
    @Test("vocabularies survive a conversion to GGUF", arguments: [
        ("gpt2", "gpt-2"), ("llama3", "smaug-bpe"), ("qwen2", "qwen2"), ("smollm", "smollm"), ("metaspace-always", nil),
    ] as [(String, String?)]) func vocabularies(name: String, pre: String?) throws {
        let file = Fixtures.url("tokenizer-pipelines/\(name).json")
        let tokenizer = try TokenizerJSON([UInt8](Files.data(file)), file: name).makeTokenizer()
        let found = GGUFTokenizer(tokenizer, rows: tokenizer.vocabularySize + 7, ends: [])
        guard let pre else {
            // A list of merges of its own order: other programs would take SentencePiece's.
            #expect(found.vocabulary.model == "llama")
            return
        }
        #expect(found.problem == nil)
        #expect(found.vocabulary.model == "gpt2" && found.vocabulary.pre == pre && found.vocabulary.tokens.count == tokenizer.vocabularySize + 7)
        #expect(Set(found.vocabulary.tokens).count == found.vocabulary.tokens.count)
        let other = try found.vocabulary.makeTokenizer(file: "x.gguf")
        for text in Self.texts { #expect(other.encode(text) == tokenizer.encode(text), "\(text.debugDescription)") }
    }

    // A failure means that a tokenizer for which GGUF has no words is written as another one.
    @Test("tokenizers without a form", arguments: ["lowercase", "splits", "inverted", "gpt2-prefix-space"]) func tokenizersWithoutAForm(name: String) throws {
        let file = Fixtures.url("tokenizer-pipelines/\(name).json")
        let tokenizer = try TokenizerJSON([UInt8](Files.data(file)), file: name).makeTokenizer()
        #expect(GGUFTokenizer(tokenizer, rows: tokenizer.vocabularySize, ends: []).problem != nil)
    }

    // A mismatch means that SentencePiece vocabularies, in either of their files, become another one.
    @Test("SentencePiece vocabularies survive a conversion to GGUF", arguments: ["tok320", "tok2000"]) func sentencePiece(name: String) throws {
        for source in [TokenizerLoader.Source.sentencePiece, .tokenizerJSON] {
            let tokenizer = try TokenizerLoader.load(folder: Fixtures.url("tokenizer/" + name), source: source).tokenizer
            let found = GGUFTokenizer(tokenizer, rows: tokenizer.vocabularySize, ends: [2])
            #expect(found.problem == nil && found.vocabulary.model == "llama" && found.vocabulary.eosToken == 2 && found.vocabulary.addsBOS == true)
            let other = try found.vocabulary.makeTokenizer(file: "x.gguf")
            for text in Self.texts { #expect(other.encode(text) == tokenizer.encode(text), "\(text.debugDescription)") }
        }
    }

    // A failure means that llama.cpp refuses a LLaVA that we wrote: a tensor or key that it does not know, or one that it misses.
    @Test("llava is a pair", arguments: ["llava-hf/old-layout", "llava-hf/new-layout"]) func llavaIsAPair(path: String) throws {
        try withFolder { place in
            let (source, output) = (place.appendingPathComponent("source"), place.appendingPathComponent("llava.gguf"))
            try checkpoint(path, at: source)
            let report = try CheckpointConverter(source, to: .f16, output: output).run()
            #expect(report.note == nil && report.files.map { URL(fileURLWithPath: $0).lastPathComponent } == ["llava.gguf", "mmproj-llava.gguf"])
            let (model, image) = (try GGUFFile(contentsOf: output), try GGUFFile(contentsOf: place.appendingPathComponent("mmproj-llava.gguf")))
            #expect(try model.metadata.string("general.architecture") == "llama" && image.metadata.string("general.architecture") == "clip")
            #expect(model.names.allSatisfy { ["blk.", "token_embd.", "output"].contains(where: $0.hasPrefix) })
            #expect(image.names.allSatisfy { $0.hasPrefix("v.") || $0.hasPrefix("mm.") })
            #expect(!model.metadata.keys.contains { $0.hasPrefix("clip.") } && !image.metadata.keys.contains { $0.hasPrefix("llama.") })
            let rows = try model.tensor("token_embd.weight").shape[0]
            #expect(try model.metadata.array("tokenizer.ggml.tokens")?.count == rows)
            #expect(try model.metadata.string("tokenizer.chat_template")?.contains("USER: ") == true)
            for written in [try Checkpoint.open(at: output), try Checkpoint.open(at: place.appendingPathComponent("llava.gguf"), projector: place.appendingPathComponent("mmproj-llava.gguf"))] {
                CheckpointOpeningTests.expectComplete(written)
                #expect(written.formatDescription == "LLaVA-1.5, GGUF pair")
            }
            // Both halves are guarded by --force, and both are there or none.
            #expect(throws: ConversionError.self) { try CheckpointConverter(source, to: .f16, output: output) }
            try Files.remove(output)
            #expect(throws: ConversionError.self) { try CheckpointConverter(source, to: .f16, output: output) }
            // The pair again from the pair.
            _ = try CheckpointConverter(source, to: .f16, output: output, overwrites: true).run()
            let again = place.appendingPathComponent("again.gguf")
            _ = try CheckpointConverter(output, to: .f16, output: again).run()
            #expect(try GGUFFile(contentsOf: again).names == model.names)
            #expect(try GGUFFile(contentsOf: place.appendingPathComponent("mmproj-again.gguf")).names == image.names)
        }
    }

    // A failure means that other programs run a model without its scheduler, as if nothing were missing, or that nobody is told.
    @Test("adaptive models say what they are", arguments: ["ada-L", "ada-H"]) func adaptiveModelsSayWhatTheyAre(path: String) throws {
        try withFolder { place in
            let (source, output) = (place.appendingPathComponent("source"), place.appendingPathComponent("ada.gguf"))
            try checkpoint(path, at: source)
            let report = try CheckpointConverter(source, to: .q8_0, output: output).run()
            #expect(report.note?.contains("scheduler") == true && report.files == [output.path])
            let file = try GGUFFile(contentsOf: output)
            #expect(try file.metadata.string("general.architecture") == "adallava")
            #expect(try file.metadata.string("tokenizer.ggml.model") == "llama" && file.metadata.array("tokenizer.ggml.tokens")?.count == 320)
            #expect(try file.metadata.string("tokenizer.chat_template")?.contains("USER: ") == true)
            let (before, after) = (try Checkpoint.open(at: source), try Checkpoint.open(at: output))
            #expect(after.configuration.adaptive == before.configuration.adaptive && after.vision != nil)
        }
    }

    // A failure means that tied embeddings under the output head's name are missing in the file, or stand in it twice.
    @Test("tied embeddings are written once", arguments: ["model.embed_tokens.weight", "lm_head.weight", "both"]) func tiedEmbeddings(name: String) throws {
        try withFolder { place in
            let source = place.appendingPathComponent("source")
            try Files.copy(Fixtures.url("decoders/qwen2-tied"), to: source)
            let url = source.appendingPathComponent("model.safetensors")
            let stored = try SafetensorsFile(contentsOf: Fixtures.url("decoders/qwen2-tied/model.safetensors"))
            let embedding = "model.embed_tokens.weight"
            let names = stored.names.flatMap { $0 != embedding ? [$0] : name == "both" ? [embedding, "lm_head.weight"] : [name] }
            func tensor(_ name: String) throws -> StoredTensor { try stored.tensor(name == "lm_head.weight" ? embedding : name) }
            let descriptions = try names.map { TensorDescription(name: $0, type: try tensor($0).type, shape: try tensor($0).shape) }
            try SafetensorsWriter.write(descriptions, to: url) { try $1.write(tensor($0.name).bytes) }
            let output = place.appendingPathComponent("out.gguf")
            _ = try CheckpointConverter(source, to: .f16, output: output).run()
            let file = try GGUFFile(contentsOf: output)
            #expect(file.find("token_embd.weight") != nil && file.find("output.weight") == nil)
            // Without a tokenizer there is still a key that says so.
            #expect(try file.metadata.string("tokenizer.ggml.model") == "no_vocab")
        }
    }

    // A mismatch means that a program which reads the template from the file writes another prompt than we do.
    @Test("built in templates in Jinja", arguments: ChatTemplate.all) func builtInTemplatesInJinja(template: ChatTemplate) throws {
        let other = try ChatTemplate(jinja: template.jinja, name: "x", specialTokens: ["bos_token": "<s>", "eos_token": "</s>"])
        let question = ChatMessage(.user, "What's \\ \"this\"?"), answer = ChatMessage(.assistant, "A cat."), system = ChatMessage(.system, "Be brief.")
        for turns in [[question], [question, answer, ChatMessage(.user, "And that?")], [system, question], [system, question, answer, question]] {
            for opens in [true, false] {
                let expected = ChatTemplate.text(of: try template.render(turns, opensAnswer: opens))
                #expect(ChatTemplate.text(of: try other.render(turns, opensAnswer: opens)) == expected)
            }
        }
    }
}
