import Foundation
import Testing

@testable import AdaLLaVA

/// Files that other programs split, and tensors that they store under one name only.
@Suite struct CheckpointPartsTests {
    private typealias Fixtures = CheckpointFixtures

    /// Writes a model as parts; `change` may alter what a part says of itself, or leave it out.
    private func split(
        _ file: GGUFFile, into count: Int, at folder: URL, change: (Int, inout [(key: String, value: GGUFValue)]) -> Bool = { _, _ in true }
    ) throws {
        for number in 0 ..< count {
            var metadata: [(key: String, value: GGUFValue)] = number == 0 ? file.metadata.keys.compactMap { key in file.metadata[key].map { (key, $0) } } : []
            metadata += [
                ("split.no", .uint16(UInt16(number))), ("split.count", .uint16(UInt16(count))), ("split.tensors.count", .int32(Int32(file.names.count))),
            ]
            guard change(number, &metadata) else { continue }
            let names = file.names.enumerated().filter { $0.offset % count == number }.map(\.element)
            let tensors = try names.map { name in
                let tensor = try file.tensor(name)
                return TensorDescription(name: name, type: tensor.type, shape: tensor.shape)
            }
            let url = folder.appendingPathComponent(String(format: "tiny-%05d-of-%05d.gguf", number + 1, count))
            try GGUFWriter.write(tensors, metadata: metadata, to: url) { tensor, sink in try sink.write(file.tensor(tensor.name).bytes) }
        }
    }

    // A failure means that a split model does not open from every part of it, or loses tensors.
    @Test("every part opens the whole") func everyPartOpensTheWhole() throws {
        let whole = try GGUFFile(contentsOf: Fixtures.fixture("decoders/qwen2/qwen2.gguf"))
        let expected = try Checkpoint.open(at: Fixtures.fixture("decoders/qwen2/qwen2.gguf"))
        try Fixtures.withTemporaryFolder { folder in
            try split(whole, into: 3, at: folder)
            for name in ["", "tiny-00001-of-00003.gguf", "tiny-00002-of-00003.gguf", "tiny-00003-of-00003.gguf"] {
                let found = try Checkpoint.open(at: name.isEmpty ? folder : folder.appendingPathComponent(name))
                #expect(found.configuration == expected.configuration && found.language.names == expected.language.names)
                #expect(found.name == "tiny-00001-of-00003.gguf")
                for tensor in expected.language.names {
                    #expect(try found.language.tensor(tensor).bytes.elementsEqual(expected.language.tensor(tensor).bytes), "\(tensor)")
                }
            }
        }
    }

    @Test("a split model opens through a link that is not named as a part")
    func linkedPart() throws {
        let whole = try GGUFFile(contentsOf: Fixtures.fixture("decoders/qwen2/qwen2.gguf"))
        try Fixtures.withTemporaryFolder { folder in
            let parts = folder.appendingPathComponent("parts")
            try FileManager.default.createDirectory(at: parts, withIntermediateDirectories: true)
            try split(whole, into: 2, at: parts)
            let link = folder.appendingPathComponent("link.gguf")
            try FileManager.default.createSymbolicLink(at: link, withDestinationURL: parts.appendingPathComponent("tiny-00001-of-00002.gguf"))
            #expect(try Checkpoint.open(at: link).language.names == Checkpoint.open(at: parts).language.names)
        }
    }

    // A failure means that a model of which a part is missing, doubled or another's is used, or that the message does not say which.
    @Test("wrong parts are named") func wrongPartsAreNamed() throws {
        let whole = try GGUFFile(contentsOf: Fixtures.fixture("decoders/qwen2/qwen2.gguf"))
        func error(_ change: (Int, inout [(key: String, value: GGUFValue)]) -> Bool) throws -> String {
            try Fixtures.withTemporaryFolder { folder in
                try split(whole, into: 3, at: folder, change: change)
                return checkpointError { try Checkpoint.open(at: folder.appendingPathComponent("tiny-00001-of-00003.gguf")) }?.description ?? "none"
            }
        }
        func replace(_ key: String, _ value: GGUFValue?, in metadata: inout [(key: String, value: GGUFValue)]) {
            metadata = metadata.filter { $0.key != key } + (value.map { [(key, $0)] } ?? [])
        }
        #expect(try error { number, _ in number != 1 }.contains("tiny-00002-of-00003.gguf: no such file (part 2 of the 3"))
        #expect(try error { if $0 == 2 { replace("split.no", .uint16(1), in: &$1) }; return true }.contains("split.no in "))
        #expect(try error { if $0 == 1 { replace("split.count", .uint16(4), in: &$1) }; return true }.contains("split.count in "))
        #expect(try error { if $0 == 1 { replace("split.no", nil, in: &$1) }; return true }.contains("found nothing"))
        #expect(try error { if $0 == 0 { replace("split.tensors.count", .int32(7), in: &$1) }; return true }.contains("split.tensors.count in "))
        try Fixtures.withTemporaryFolder { folder in
            try split(whole, into: 2, at: folder)
            let renamed = folder.appendingPathComponent("tiny.gguf")
            try Files.move(folder.appendingPathComponent("tiny-00001-of-00002.gguf"), to: renamed)
            #expect(checkpointError { try Checkpoint.open(at: renamed) }?.description.contains("NAME-00001-of-00002.gguf") == true)
        }
    }

    // A failure means that tensors which safetensors stores once under another name are missed.
    @Test("names that metadata map") func namesThatMetadataMap() throws {
        let folder = Fixtures.fixture("decoders/qwen2-tied")
        let file = try SafetensorsFile(contentsOf: folder.appendingPathComponent("model.safetensors"))
        try Fixtures.withTemporaryFolder { place in
            try Files.copy(folder.appendingPathComponent("config.json"), to: place.appendingPathComponent("config.json"))
            let tensors = try file.names.map { name in
                let tensor = try file.tensor(name)
                return TensorDescription(name: name == "model.embed_tokens.weight" ? "shared" : name, type: tensor.type, shape: tensor.shape)
            }
            let url = place.appendingPathComponent("model.safetensors")
            try SafetensorsWriter.write(
                tensors, metadata: ["format": "pt", "model.embed_tokens.weight": "shared", "lm_head.weight": "shared", "gone": "nowhere"], to: url
            ) { tensor, sink in try sink.write(file.tensor(tensor.name == "shared" ? "model.embed_tokens.weight" : tensor.name).bytes) }
            let checkpoint = try Checkpoint.open(at: place)
            let expected = try file.tensor("model.embed_tokens.weight").bytes
            for name in ["model.embed_tokens.weight", "lm_head.weight"] {
                #expect(try checkpoint.language.tensor(name).bytes.elementsEqual(expected))
            }
            #expect(checkpoint.language.find("gone") == nil)
        }
    }

    // A mismatch means that entries which stand twice change what the others are, or cannot be decoded.
    @Test("an entry that occurs twice in the index does not change the others") func doubledEntries() throws {
        let merges = ["a b"].map { Array($0.utf8) }
        let vocabulary = GGUFVocabulary(model: "gpt2", pre: "gpt-2", tokens: ["a", "b", "ab", "b", "ab"].map { Array($0.utf8) }, merges: merges)
        let tokenizer = try vocabulary.makeTokenizer(file: "x.gguf")
        #expect(tokenizer.encode("abab", addSpecialTokens: false) == [2, 2] && tokenizer.decode([4, 3, 2]) == "abbab")
        #expect((tokenizer as? BytePairTokenizer)?.model.pieces.doubled == [3, 4])
    }
}
