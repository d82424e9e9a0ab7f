import Foundation
import Testing

@Suite struct ConvertCommandTests {
    // A failure means that a converted model does not answer, or answers another question than it was asked.
    @Test func whatIsWrittenAnswers() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("small.gguf").path
            let json = try Command.run("convert", Files.embeddedModel.path, output, "--to", "q8_0", "--json").json()
            #expect(json["tensors"] as? Int == 174)
            let answer = try Command.run("ask", Files.scene("05"), "What is in the image?", "--model", output, "--budget", "0.75", "--json")
            #expect(answer.status == 0)
            #expect((try answer.json()["answer"] as? String)?.isEmpty == false)
        }
    }

    // A failure means that a conversion which cannot be made leaves something behind, or ends with the wrong exit code.
    @Test func nothingIsLeftBehind() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("out.gguf").path
            let model = Files.embeddedModel.path
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
}
