import AdaImages
import Crypto
import Foundation
import Testing

@testable import AdaLLaVA

/// `Tests/Fixtures/vision`: tiny models of each family that looks at images, saved by transformers, with what transformers answers.
struct VisionFixture: Sendable, CustomTestStringConvertible {
    let folder: String

    static let all = [
        "idefics3", "smolvlm", "llava", "llava-next", "llava-next-mistral", "mipha", "qwen2-vl", "qwen2.5-vl", "lfm2-vl", "lfm2-vl-whole",
    ].map(VisionFixture.init)

    struct Case: Decodable {
        let pictures: [String]
        let question: String
        let prompt: String
        let inputIds: [Int]
        let greedy: [Int]
        let logits: [Float]
        let lastLogits: [Float]
        let tiles: Int?
        let tileHashes: [String]?
        let featureRows: Int?
        let featureRow: [Float]?

        /// The prompt's ids, -200 where images go: by the model's own template, or of the recorded text where it brings none.
        func tokens(_ model: TestModel) throws -> [Int] {
            let text = try #require(model.loaded.text)
            if model.loaded.checkpoint.configuration.llava?.imageTokenID == nil { return text.tokenize(prompt: prompt) }
            return try text.prompt([.question(question, images: pictures.count)], system: nil)
        }

        var images: [RGBImage] {
            get throws { try pictures.map { try RGBImage(contentsOf: Fixtures.url("images/\($0)").path) } }
        }
    }
    private struct Expected: Decodable { let cases: [Case] }

    var testDescription: String { folder }
    var url: URL { Fixtures.url("vision/\(folder)") }

    func cases() throws -> [Case] {
        let expected: Expected = try Fixtures.json(url.appendingPathComponent("expected.json"))
        return expected.cases
    }

    /// All tensors by the file's names.
    func tensors() throws -> [(name: String, shape: [Int], values: [Float])] {
        let file = try SafetensorsFile(contentsOf: url.appendingPathComponent("model.safetensors"))
        return try file.names.map { name in
            let tensor = try file.tensor(name)
            return (name, tensor.shape, try Tensor(vector: tensor, count: tensor.count).values)
        }
    }

    /// Writes the model with a random scheduler, and everything else as it is.
    func write(
        _ variant: DecoderFamilyAdaptiveTests.Variant, masking plan: ExecutionPlan? = nil, _ space: SwitchSpace? = nil, to folder: URL
    ) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for name in try FileManager.default.contentsOfDirectory(atPath: url.path) where !["config.json", "model.safetensors"].contains(name) {
            let copy = folder.appendingPathComponent(name)
            try? FileManager.default.removeItem(at: copy)
            try FileManager.default.copyItem(at: url.appendingPathComponent(name), to: copy)
        }
        let json = try JSONValue.read(contentsOf: url.appendingPathComponent("config.json"))
        try DecoderFamilyAdaptiveTests.write(json, tensors(), variant, masking: plan, space, to: folder)
    }

    /// SHA-256 of float32 values, as the recording script writes it.
    static func digest(_ values: some Sequence<Float>) -> String {
        digest(bytes: values.flatMap { value in withUnsafeBytes(of: value.bitPattern.littleEndian, Array.init) })
    }

    static func digest(bytes: [UInt8]) -> String {
        SHA256.hash(data: Data(bytes)).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }
}
