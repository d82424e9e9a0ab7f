import Foundation
import Testing

@testable import AdaLLaVA

/// What people have in place of a file that they did not download.
@Suite struct StandInFileTests {
    static let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"

    @Test(
        "a Git LFS pointer and a web page in place of weights or JSON are called what they are, with what to do",
        arguments: [("model.gguf", pointer, "git lfs pull"), ("model.safetensors", pointer, "git lfs pull"), ("config.json", pointer, "git lfs pull"),
                    ("model.gguf", "\n<!DOCTYPE HTML><html>", "/resolve/"), ("model.safetensors", "<html><head>", "/resolve/")])
    func standIns(name: String, text: String, advice: String) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            try CheckpointFixtures.copy("ada-L/config.json", to: folder.appendingPathComponent("config.json"))
            let url = folder.appendingPathComponent(name)
            if name == "config.json" {
                try CheckpointFixtures.copy("ada-L/model.safetensors", to: folder.appendingPathComponent("model.safetensors"))
                try FileManager.default.removeItem(at: url)
            }
            try Data(text.utf8).write(to: url)
            let error = try #require(checkpointError { try Checkpoint.open(at: name == "model.gguf" ? url : folder) })
            #expect(error.category == .badData && error.description.contains(name) && error.description.contains(advice), "\(error)")
        }
    }
}
