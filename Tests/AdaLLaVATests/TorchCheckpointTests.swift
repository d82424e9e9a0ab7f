import Foundation
import Testing

@testable import AdaLLaVA

/// Checkpoints whose weights are PyTorch's pickles, as `liuhaotian/llava-v1.5-…` and `openai/clip-vit-large-patch14-336` are.
@Suite struct TorchCheckpointTests {
    @Test("A sharded pickle has the tensors of the safetensors that it was made from, whatever their order and storage")
    func shards() throws {
        let folder = CheckpointFixtures.fixture("torch/mistral")
        let found = try WeightFiles.open(in: folder), expected = try WeightFiles.open(in: CheckpointFixtures.fixture("decoders/mistral"))
        #expect(found.files == 2 && found.format == "PyTorch pickle" && expected.format == "safetensors")
        #expect(found.tensors.names == expected.tensors.names && found.tensors.names.count > 10)
        for name in expected.tensors.names {
            let (tensor, other) = (try found.tensors.tensor(name), try expected.tensors.tensor(name))
            #expect(tensor.shape == other.shape && tensor.type == other.type && tensor.bytes.elementsEqual(other.bytes), "\(name)")
        }
        #expect(try Checkpoint.open(at: folder).formatDescription.contains("PyTorch pickle in 2 files"))
    }

    @Test("It answers as the reference does, and converts to safetensors with the same weights")
    func answers() throws {
        let fixture = try #require(DecoderFixture.all.first { $0.architecture == .mistral }), prompt = try #require(fixture.expected().prompts.last)
        let model = try TestModel(CheckpointFixtures.fixture("torch/mistral"), threads: 2)
        #expect(Array(try model.run(prompt.tokens, maxTokens: 12).tokens) == prompt.greedy)
        try CheckpointFixtures.withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("out")
            _ = try CheckpointConverter(CheckpointFixtures.fixture("torch/mistral"), to: .f32, output: output).run()
            #expect(try Files.names(in: output).sorted() == ["config.json", "model.safetensors"])
            let written = try WeightFiles.open(in: output).tensors, expected = try WeightFiles.open(in: fixture.url).tensors
            for name in expected.names { #expect(try written.tensor(name).bytes.elementsEqual(expected.tensor(name).bytes), "\(name)") }
        }
    }

    @Test("A checkpoint of pickles that is replaced leaves none of them behind")
    func replaced() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("out")
            try CheckpointFixtures.copy("torch/mistral", to: output)
            try Data("mine".utf8).write(to: output.appendingPathComponent("optimizer.pt"))
            _ = try CheckpointConverter(CheckpointFixtures.fixture("decoders/mistral"), to: .f32, output: output, overwrites: true).run()
            let left = try Files.names(in: output).filter { $0.contains("pytorch") || $0.hasSuffix(".pt") || $0.hasSuffix(".safetensors") }
            #expect(left.sorted() == ["model.safetensors", "optimizer.pt"])
        }
    }

    @Test("A vision tower may be a pickle while the checkpoint is not")
    func tower() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            try CheckpointFixtures.copy("ada-L", to: folder.appendingPathComponent("model"))
            let tower = folder.appendingPathComponent("model/vision_tower")
            try Files.remove(tower)
            try CheckpointFixtures.copy("torch/tower", to: tower)
            let found = try #require(try Checkpoint.open(at: folder.appendingPathComponent("model")).vision)
            let expected = try #require(try Checkpoint.open(at: CheckpointFixtures.fixture("ada-L")).vision)
            #expect(found.names == expected.names)
            for name in expected.names { #expect(try found.tensor(name).bytes.elementsEqual(expected.tensor(name).bytes), "\(name)") }
        }
    }

    @Test("A tower may be named; where it is found nowhere, the message says how to get it")
    func namedTower() throws {
        let tower = CheckpointFixtures.fixture("torch/tower")
        try CheckpointFixtures.withTemporaryFolder { folder in
            let model = folder.appendingPathComponent("model"), config = model.appendingPathComponent("config.json")
            try CheckpointFixtures.copy("ada-L", to: model)
            try Files.remove(model.appendingPathComponent("vision_tower"))
            guard case .object(var members) = try JSONValue.read(contentsOf: config) else { return }
            members["mm_vision_tower"] = .string("nobody/clip-of-this-test")
            try CheckpointFixtures.write(.object(members), to: config)
            let error = checkpointError { try Checkpoint.open(at: model) }
            #expect(error?.isMissing == true)
            for words in ["hf download nobody/clip-of-this-test", "--vision-tower"] { #expect(error?.description.contains(words) == true, "\(words)") }
            let found = try #require(try Checkpoint.open(at: model, visionTower: tower).vision)
            #expect(try found.names == Checkpoint.open(at: CheckpointFixtures.fixture("ada-L")).vision?.names)
            #expect(checkpointError { try Checkpoint.open(at: model, visionTower: folder) }?.isMissing == true)
        }
        // What takes no tower says so.
        let decoder = CheckpointFixtures.fixture("decoders/mistral")
        #expect(checkpointError { try Checkpoint.open(at: decoder, visionTower: tower) }?.isUnsupported == true)
        #expect(checkpointError { try Checkpoint.open(at: decoder.appendingPathComponent("mistral.gguf"), visionTower: tower) }?.isUnsupported == true)
    }

    @Test("A shard that is missing, cut off or no pickle of tensors is named")
    func damage() throws {
        let shard = "pytorch_model-00002-of-00002.bin"
        for (change, words) in [
            ({ (_: Data) in nil }, "a shard that pytorch_model.bin.index.json names"), ({ $0.prefix(1000) }, shard),
            ({ _ in Data([0x80, 2]) }, "PyTorch's magic number"), ({ _ in Data("<html>".utf8) }, "a web page"),
        ] as [((Data) -> Data?, String)] {
            try CheckpointFixtures.withTemporaryFolder { folder in
                let model = folder.appendingPathComponent("model")
                try CheckpointFixtures.copy("torch/mistral", to: model)
                let file = model.appendingPathComponent(shard), data = try Data(contentsOf: file)
                try Files.remove(file)
                try change(data)?.write(to: file)
                let error = checkpointError { try Checkpoint.open(at: model) }
                #expect(error?.description.contains(words) == true && error?.description.contains(shard) == true, "\(error?.description ?? "opened")")
            }
        }
    }
}
