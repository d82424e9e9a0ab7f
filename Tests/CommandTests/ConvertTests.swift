import Foundation
import Testing

@Suite struct ConvertCommandTests {
    // A failure means that a converted model does not answer, or answers another question than it was asked.
    @Test("what is written answers") func whatIsWrittenAnswers() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("small.gguf").path
            let json = try Command.run("convert", Files.referenceModel.path, output, "--to", "q8_0", "--json").json()
            #expect(json["tensors"] as? Int == 174)
            let answer = try Command.run("ask", Files.scene("05"), "What is in the image?", "--model", output, "--budget", "0.75", "--json")
            #expect(answer.status == 0)
            #expect((try answer.json()["answer"] as? String)?.isEmpty == false)
        }
    }

    // A failure means that a conversion which cannot be made leaves something behind, or ends with the wrong exit code.
    @Test("nothing is left behind") func nothingIsLeftBehind() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("out.gguf").path
            let model = Files.referenceModel.path
            for (arguments, status, word) in [
                (["convert", model, output, "--to", "q3_0"], 64, "--to"),
                (["convert", folder.appendingPathComponent("none").path, output, "--to", "f16"], 66, "none"),
                (["convert", model, folder.appendingPathComponent("out").path, "--to", "q4_0"], 64, ".gguf"),
                (["convert", model, folder.appendingPathComponent("no/out.gguf").path, "--to", "f16"], 66, "folder to write"),
            ] as [([String], Int32, String)] {
                let result = try Command.run(arguments)
                #expect(result.status == status && result.output.isEmpty && result.errors.contains(word), "\(arguments)")
            }
            try Files.withCopy(of: "ada-L") { damaged in
                try Files.damage(damaged.appendingPathComponent("model.safetensors")) { $0.removeLast(1000) }
                let result = try Command.run("convert", damaged.path, output, "--to", "f16")
                #expect(result.status == 65 && result.errors.contains("cut off"))
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { !["in", "out", "err"].contains($0) }.isEmpty)
        }
    }

    // A failure means that --force destroys what nobody asked it to replace.
    @Test("force replaces checkpoints only") func forceReplacesCheckpointsOnly() throws {
        try withTemporaryFolder { folder in
            let manager = FileManager.default
            let source = folder.appendingPathComponent("place/source")
            try manager.createDirectory(at: folder.appendingPathComponent("place"), withIntermediateDirectories: true)
            try manager.copyItem(at: Files.referenceModel, to: source)
            let notes = folder.appendingPathComponent("notes")
            try manager.createDirectory(at: notes, withIntermediateDirectories: true)
            try Data("thesis".utf8).write(to: notes.appendingPathComponent("thesis.txt"))
            for (output, word) in [(folder.appendingPathComponent("place").path, "lies in it"), (notes.path, "no checkpoint")] {
                let result = try Command.run("convert", source.path, output, "--to", "f16", "--force")
                #expect(result.status == 64 && result.errors.contains(word), "\(result.errors)")
            }
            #expect(manager.fileExists(atPath: notes.appendingPathComponent("thesis.txt").path))
            #expect(manager.fileExists(atPath: source.appendingPathComponent("config.json").path))

            let copy = folder.appendingPathComponent("copy")
            try manager.copyItem(at: Files.referenceModel, to: copy)
            try Data("mine".utf8).write(to: copy.appendingPathComponent("mine.txt"))
            #expect(try Command.run("convert", source.path, copy.path, "--to", "bf16", "--force").status == 0)
            #expect(manager.fileExists(atPath: copy.appendingPathComponent("mine.txt").path))
            let config = try String(contentsOf: copy.appendingPathComponent("config.json"), encoding: .utf8)
            #expect(config.contains("bfloat16"))
        }
    }

    // A failure means that a checkpoint with a missing or misshapen tensor is converted in silence to one that does not load.
    @Test("what does not load is not converted") func whatDoesNotLoadIsNotConverted() throws {
        try withTemporaryFolder { folder in
            try Files.withCopy(of: "ada-L") { damaged in
                // One name in the header becomes another: the tensor is missing.
                try Files.damage(damaged.appendingPathComponent("model.safetensors")) { bytes in
                    let name = Data("layers.1.self_attn.q_proj".utf8)
                    if let range = bytes.range(of: name) { bytes.replaceSubrange(range, with: Data("layers.1.self_attn.x_proj".utf8)) }
                }
                let output = folder.appendingPathComponent("out.gguf").path
                let result = try Command.run("convert", damaged.path, output, "--to", "f16")
                #expect(result.status == 65 && result.errors.contains("q_proj"), "\(result.status) \(result.errors)")
                #expect(!FileManager.default.fileExists(atPath: output))
            }
        }
    }
}
