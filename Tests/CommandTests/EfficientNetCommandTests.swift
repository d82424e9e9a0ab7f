import Foundation
import Testing

@Suite struct EfficientNetCommandTests {
    // A failure means that the PyTorch package's weights do not become a tower's folder, or that a wrong file or type ends with the wrong exit code.
    @Test("converts PyTorch weights") func convertsPyTorchWeights() throws {
        try withTemporaryFolder { folder in
            let (source, output) = (Files.fixture("efficientnet/tiny/legacy").path, folder.appendingPathComponent("tower").path)
            let json = try Command.run("convert", source, output, "--to", "f16", "--json").json()
            #expect(json["tensors"] as? Int == 62 && (json["bytes"] as? Int ?? 0) > 20_000)
            #expect(try FileManager.default.contentsOfDirectory(atPath: output).sorted() == ["config.json", "model.safetensors", "preprocessor_config.json"])
            for (arguments, status, word) in [
                (["convert", source, output, "--to", "f16"], 64, "already there"),
                (["convert", source, output, "--to", "q8_0", "--force"], 64, "convert the whole model"),
                (["convert", source, folder.appendingPathComponent("t.gguf").path, "--to", "f16"], 64, "GGUF"),
                (["convert", Files.fixture("efficientnet/tiny/legacy/tiny.pth").path + "x", output + "2", "--to", "f16"], 66, "no such file"),
            ] as [([String], Int32, String)] {
                let result = try Command.run(arguments)
                #expect(result.status == status && result.errors.contains(word), "\(arguments): \(result.errors)")
            }
            let damaged = folder.appendingPathComponent("damaged.pth")
            try Data(contentsOf: Files.fixture("efficientnet/tiny/legacy/tiny.pth")).dropLast(1000).write(to: damaged)
            let result = try Command.run("convert", damaged.path, output + "2", "--to", "f16")
            #expect(result.status == 65 && result.errors.contains("cut off"))
        }
    }
}
