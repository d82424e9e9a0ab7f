import Foundation
import Testing

/// Checkpoints that cannot be used: each command says what is wrong with which file, with the exit code that docs/architecture.md gives it.
@Suite struct BadModelTests {
    /// Every command that loads a model, on this one; `trace` must leave no file behind.
    private func expectRefused(_ model: URL, status: Int32, saying words: [String], sourceLocation: SourceLocation = #_sourceLocation) throws {
        let path = model.path
        try expectFailure(["ask", "Hello?", "--model", path], status: status, saying: words, sourceLocation: sourceLocation)
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("trace.safetensors")
            try expectFailure(
                ["trace", path, "--no-image", "--tokens", "1,2,3", "--output", output.path], status: status, saying: words,
                sourceLocation: sourceLocation)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty, sourceLocation: sourceLocation)
        }
        // `inspect` prints its report with the problem in it if the files can be opened at all.
        let report = try Command.run("inspect", path)
        #expect(report.status == status, "\(report.errors)", sourceLocation: sourceLocation)
        for word in words { #expect((report.output + report.errors).contains(word), "\(word): \(report)", sourceLocation: sourceLocation) }
    }

    // A failure means that a mistyped path is not told apart from a damaged model.
    @Test("a missing model is told apart from a damaged one") func missing() throws {
        try expectRefused(URL(fileURLWithPath: "/nowhere/model"), status: 66, saying: ["/nowhere/model", "expected a checkpoint folder"])
        try withTemporaryFolder { folder in
            try expectRefused(folder, status: 66, saying: [folder.lastPathComponent, "config.json"])
        }
    }

    // A failure means that a file which is not a model, or no longer one, is loaded, crashes, or is blamed on something else.
    @Test("damaged safetensors files are refused") func damagedSafetensors() throws {
        let damages: [(words: [String], change: (inout Data) -> Void)] = [
            (["the file is empty"], { $0 = Data() }),
            (["4 bytes", "expected at least 8"], { $0 = $0.prefix(4) }),
            (["cut off"], { $0 = $0.prefix($0.count / 2) }),
            (["cut off"], { $0 = $0.prefix(100) }),
            (["header of", "at most 100000000"], { $0.replaceSubrange(0 ..< 8, with: [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]) }),
            (["behind the last tensor"], { $0.append(contentsOf: [1, 2, 3]) }),
        ]
        for damage in damages {
            try Files.withCopy(of: "ada-L") { model in
                try Files.damage(model.appendingPathComponent("model.safetensors"), damage.change)
                try expectRefused(model, status: 65, saying: ["model.safetensors"] + damage.words)
            }
        }
    }

    // A failure means that overlapping or displaced tensors are taken for weights.
    @Test("overlapping or displaced tensors are refused") func displacedTensors() throws {
        try Files.withCopy(of: "ada-L") { model in
            try Files.damage(model.appendingPathComponent("model.safetensors")) { data in
                let mark = Data("\"data_offsets\":[0,".utf8)
                if let range = data.range(of: mark) { data.replaceSubrange(range, with: Data("\"data_offsets\":[4,".utf8)) }
            }
            try expectRefused(model, status: 65, saying: ["model.safetensors", "data_offsets", "does not fit the shape"])
        }
    }

    // A failure means that a configuration and weights that do not belong together run, or stop in the middle.
    @Test("configurations that do not fit the weights are refused") func configurations() throws {
        let changes: [(words: [String], change: [String: Any])] = [
            (["gpt_bigcode"], ["model_type": "gpt_bigcode"]),
            (["expected shape [320, 128]", "found [320, 64]"], ["hidden_size": 128]),
            (["expected shape [160, 64]", "found [172, 64]", "mlp.gate_proj"], ["intermediate_size": 160]),
            (["model.layers.8", "missing"], ["num_hidden_layers": 9]),
            (["num_hidden_layers", "-3"], ["num_hidden_layers": -3]),
            (["num_attention_heads", "0"], ["num_attention_heads": 0]),
            (["scheduler_rank"], ["scheduler_rank": 0]),
            (["num_prefix_layers"], ["num_prefix_layers": 9]),
        ]
        for item in changes {
            try Files.withCopy(of: "ada-L") { model in
                try Files.edit(model.appendingPathComponent("config.json"), item.change)
                try expectRefused(model, status: 65, saying: item.words)
            }
        }
        try Files.withCopy(of: "ada-L") { model in
            try Data("{\"model_type\": ".utf8).write(to: model.appendingPathComponent("config.json"))
            try expectRefused(model, status: 65, saying: ["config.json"])
        }
    }

    // A failure means that a half-downloaded sharded model runs with the shards it has, or does not say which one to fetch.
    @Test("a missing shard is named") func shards() throws {
        try Files.withCopy(of: "ada-H") { model in
            let shard = model.appendingPathComponent("model-00002-of-00003.safetensors")
            try FileManager.default.removeItem(at: shard)
            try expectRefused(model, status: 66, saying: ["model-00002-of-00003.safetensors", "model.safetensors.index.json"])
        }
        try Files.withCopy(of: "ada-H") { model in
            try Files.edit(model.appendingPathComponent("model.safetensors.index.json"), ["weight_map": ["a": "../../etc/passwd"]])
            try expectRefused(model, status: 65, saying: ["index.json", "not a plain file name"])
        }
    }

    // A failure means that a damaged GGUF file crashes the process, makes it allocate without bounds, or is called something else.
    @Test("damaged GGUF") func damagedGGUF() throws {
        let original = try Data(contentsOf: Files.fixture("vocabularies/ggml-vocab-llama-spm.gguf"))
        let damages: [(words: [String], change: (inout Data) -> Void)] = [
            (["model.gguf", "the file is empty"], { $0 = Data() }),
            (["model.gguf"], { $0 = $0.prefix(10) }),
            (["model.gguf"], { $0 = $0.prefix($0.count / 2) }),
            (["model.gguf"], { $0.replaceSubrange(0 ..< 4, with: Data("GGUX".utf8)) }),
            (["model.gguf", "version"], { $0[4] = 99 }),
            (["model.gguf"], { $0.replaceSubrange(8 ..< 16, with: Data(repeating: 0xFF, count: 8)) }),
            (["model.gguf"], { $0.replaceSubrange(16 ..< 24, with: Data(repeating: 0x7F, count: 8)) }),
            // Whole, but only a vocabulary.
            (["model.gguf", "missing"], { _ in }),
        ]
        for damage in damages {
            try withTemporaryFolder { folder in
                let model = folder.appendingPathComponent("model.gguf")
                var data = original
                damage.change(&data)
                try Data(data).write(to: model)
                try expectRefused(model, status: 65, saying: damage.words)
            }
        }
    }

    // A failure means that a tokenizer in which one text has two ids keeps anybody from using the model, or that nobody is told of it.
    @Test("a tokenizer with duplicate pieces works, with a note") func duplicatePieces() throws {
        try Files.withCopy(of: "ada-L") { model in
            let tokenizer = model.appendingPathComponent("tokenizer.model")
            var data = try Data(contentsOf: Files.fixture("tokenizer/tok320/tokenizer.model"))
            // A ModelProto begins with its pieces: tag 0x0A, a length below 128, the piece.
            var (start, piece) = (0, Data())
            for _ in 0 ..< 300 where start + 1 < data.count && data[start] == 0x0A {
                piece = data[start ..< start + 2 + Int(data[start + 1])]
                start += piece.count
            }
            data.append(piece)
            try data.write(to: tokenizer)
            let found = try Command.run("inspect", model.path)
            #expect(found.status == 0 && found.output.contains("1 token stands in the vocabulary twice") && found.output.contains("(299 and 320)"))
            #expect(try Command.run("ask", "hi", "--model", model.path, "--max-tokens", "2").status == 0)
        }
        try Files.withCopy(of: "ada-L") { model in
            try Data().write(to: model.appendingPathComponent("tokenizer.model"))
            try expectRefused(model, status: 65, saying: ["tokenizer.model"])
        }
    }

    // A failure means that other files are taken for a model, or that a damaged pickle is not named.
    @Test("other files are not taken for a model") func otherFiles() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("pytorch_model.bin")
            try Data([0x80, 2]).write(to: file)
            try expectRefused(file, status: 65, saying: ["pytorch_model.bin", "PyTorch's magic number"])
        }
        try expectRefused(URL(fileURLWithPath: Files.scene()), status: 65, saying: ["00.png", "expected a checkpoint folder"])
    }
}
