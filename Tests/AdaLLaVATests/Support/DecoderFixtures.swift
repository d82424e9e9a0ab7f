import Foundation
import Testing

@testable import AdaLLaVA

/// `Tests/Fixtures/decoders`: tiny models of every architecture beside LLaMA, with what transformers answers.
struct DecoderFixture: Sendable, CustomTestStringConvertible {
    let folder: String
    /// GGUF files of the same weights; none where GGUF has no keys for what is special.
    let ggufFiles: [String]
    let architecture: DecoderArchitecture
    /// `ada_llava_…`
    let adaptiveType: String

    static let all = [
        DecoderFixture(folder: "qwen2", ggufFiles: ["qwen2.gguf"], architecture: .qwen2, adaptiveType: "ada_llava_qwen"),
        DecoderFixture(folder: "qwen2-tied", ggufFiles: ["qwen2-tied.gguf"], architecture: .qwen2, adaptiveType: "ada_llava_qwen"),
        DecoderFixture(folder: "mistral", ggufFiles: ["mistral.gguf"], architecture: .mistral, adaptiveType: "ada_llava_mistral"),
        DecoderFixture(folder: "phi2", ggufFiles: ["phi2.gguf", "phi2-split.gguf"], architecture: .phi2, adaptiveType: "ada_llava_phi"),
        DecoderFixture(folder: "gemma3", ggufFiles: ["gemma3.gguf"], architecture: .gemma3, adaptiveType: "ada_llava_gemma3"),
        DecoderFixture(folder: "lfm2", ggufFiles: ["lfm2.gguf"], architecture: .lfm2, adaptiveType: "ada_llava_lfm2"),
        DecoderFixture(folder: "lfm2-bias", ggufFiles: [], architecture: .lfm2, adaptiveType: "ada_llava_lfm2"),
        DecoderFixture(folder: "gemma3-scaled", ggufFiles: [], architecture: .gemma3, adaptiveType: "ada_llava_gemma3"),
    ]

    struct Expected: Decodable {
        struct Prompt: Decodable {
            let tokens: [Int]
            let logits: [Float]
            let greedy: [Int]
        }
        struct Plan: Decodable {
            struct Row: Decodable {
                let heads: [Int]
                let groups: [Int]
            }
            struct Result: Decodable {
                let prompt: Int
                let logits: [Float]
            }
            let name: String
            let layers: [Row]
            let results: [Result]
        }
        let headCount: Int
        let groupSizes: [Int]
        let prompts: [Prompt]
        let plans: [Plan]
    }

    var testDescription: String { folder }
    var url: URL { Fixtures.url("decoders/\(folder)") }

    func expected() throws -> Expected { try Fixtures.json(url.appendingPathComponent("expected.json")) }

    /// Calls `body` with a name for, and the place of, each form that the weights come in.
    func forEachForm(_ body: (String, URL) throws -> Void) throws {
        try body("config.json", url)
        try withCopy { copy in
            let config = copy.appendingPathComponent("config.json")
            try FileManager.default.removeItem(at: config)
            try FileManager.default.copyItem(at: url.appendingPathComponent("config-published.json"), to: config)
            try body("config-published.json", copy)
        }
        for file in ggufFiles { try body(file, url.appendingPathComponent(file)) }
    }

    /// Calls `body` with a folder that has this model's configuration and weights, and is removed afterwards.
    func withCopy<Result>(_ body: (URL) throws -> Result) throws -> Result {
        try CheckpointFixtures.withTemporaryFolder { folder in
            for name in ["config.json", "model.safetensors"] {
                let copy = folder.appendingPathComponent(name)
                try FileManager.default.copyItem(at: url.appendingPathComponent(name), to: copy)
                try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: copy.path)
            }
            return try body(folder)
        }
    }

    /// The configuration with some fields replaced; `nil` takes a field away.
    func configuration(_ changes: [String: JSONValue?], file: String = "config.json") throws -> JSONValue {
        guard case .object(var members) = try JSONValue.read(contentsOf: url.appendingPathComponent(file)) else { return .null }
        for (key, value) in changes { members[key] = value }
        return .object(members)
    }

    /// All tensors by the file's names.
    func tensors() throws -> [(name: String, shape: [Int], values: [Float])] {
        let file = try SafetensorsFile(contentsOf: url.appendingPathComponent("model.safetensors"))
        return try file.names.map { name in
            let tensor = try file.tensor(name)
            return (name, tensor.shape, try Tensor(vector: tensor, count: tensor.count).values)
        }
    }
}
