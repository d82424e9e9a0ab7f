import Foundation
import Testing

@testable import AdaLLaVA

/// Thousands of damaged files: every one ends in a typed error, or opens and can be read to its last byte.
@Suite struct CheckpointFuzzTests {
    /// One damaged copy of `original`: flipped bits, tampered length fields, pieces moved, bytes cut off.
    private func mutate(_ original: [UInt8], headerEnd: Int, _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = original
        let extremes: [UInt64] = [0, 1, 0x7F, 0xFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, 1 << 60, .max >> 1, 1 << 63, .max - 7, .max]
        for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
            // Most damage goes where the format's structure is.
            let end = Bool.random(using: &random) ? min(bytes.count, headerEnd) : bytes.count
            let position = Int.random(in: 0..<max(1, end), using: &random)
            switch Int.random(in: 0..<7, using: &random) {
            case 0: bytes[position] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 1: bytes[position] = UInt8.random(in: 0...255, using: &random)
            case 2: bytes.removeSubrange(position...)
            case 3:
                let value = extremes.randomElement(using: &random) ?? 0
                for offset in 0..<min(8, bytes.count - position) {
                    bytes[position + offset] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(offset)))
                }
            case 4:
                let length = min(Int.random(in: 1...64, using: &random), bytes.count - position)
                let piece = Array(bytes[position..<(position + length)])
                bytes.insert(contentsOf: piece, at: Int.random(in: 0...bytes.count, using: &random))
            case 5:
                let length = min(Int.random(in: 1...64, using: &random), bytes.count - position)
                bytes.removeSubrange(position..<(position + length))
            default:
                // A digit in a header, which keeps the JSON valid and changes a number.
                let digits = bytes.prefix(end).indices.filter { (0x30...0x39).contains(bytes[$0]) }
                if let digit = digits.randomElement(using: &random) { bytes[digit] = UInt8.random(in: 0x30...0x39, using: &random) }
            }
        }
        return bytes
    }

    private func touch(_ source: some TensorSource) -> Int {
        source.names.reduce(0) { sum, name in sum &+ (source.find(name)?.bytes.reduce(0) { $0 &+ Int($1) } ?? 0) }
    }

    @Test("damaged safetensors files end in typed errors") func safetensors() throws {
        // A failure means that a damaged safetensors file can crash the process or is refused without a typed error.
        let tensors: [(name: String, shape: [Int], values: [Float])] = (0..<6).map {
            ("layer.\($0).weight", [$0, 3], [Float](repeating: 1, count: $0 * 3))
        }
        let original = try CheckpointFixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("seed.safetensors")
            try SafetensorsWriter.write(tensors, to: url)
            return try Array(Data(contentsOf: url))
        }
        let headerEnd = original.count - tensors.reduce(0) { $0 + $1.values.count * 4 }
        var random = SeededGenerator(seed: 1)
        var opened = 0
        for _ in 0..<3500 {
            let bytes = mutate(original, headerEnd: headerEnd, &random)
            do {
                let file = try SafetensorsFile(MappedFile(copying: bytes, path: "fuzz"))
                _ = touch(file)
                opened += 1
            } catch { #expect(error is CheckpointError) }
        }
        // Some damage hits only values, most hits the structure: both paths must have been taken.
        #expect((1..<3500).contains(opened))
    }

    @Test("damaged GGUF files end in typed errors") func gguf() throws {
        // A failure means that a damaged GGUF file can crash the process or is refused without a typed error.
        let tensors = (0..<5).map {
            TensorDescription(name: "blk.\($0).ffn_up.weight", type: $0 % 2 == 0 ? .f32 : .q8_0, shape: [$0 + 1, 32])
        }
        let metadata: [(key: String, value: GGUFValue)] =
            try DecoderConfiguration(
                vocabularySize: 4, hiddenSize: 32, intermediateSize: 32, numHiddenLayers: 5, numAttentionHeads: 4
            ).ggufMetadata() + [
                ("tokenizer.ggml.tokens", .array(GGUFArray(["<unk>", "<s>", "</s>", "a"]))),
                ("tokenizer.ggml.scores", .array(GGUFArray([0, 1, 2, 3] as [Float]))),
                ("nested", .array(GGUFArray([GGUFArray([1, 2] as [Int32]), GGUFArray(["x", "y"])]))),
            ]
        let original = try CheckpointFixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("seed.gguf")
            try GGUFWriter.write(tensors, metadata: metadata, to: url) { tensor, sink in
                try sink.write([UInt8](repeating: 1, count: tensor.byteCount(file: "")))
            }
            return try Array(Data(contentsOf: url))
        }
        let headerEnd = original.count - tensors.reduce(0) { $0 + $1.shape[0] * ($1.type == .f32 ? 128 : 34) }
        var random = SeededGenerator(seed: 2)
        var opened = 0
        for _ in 0..<3500 {
            let bytes = mutate(original, headerEnd: headerEnd, &random)
            do {
                let file = try GGUFFile(MappedFile(copying: bytes, path: "fuzz"))
                _ = touch(file)
                for key in file.metadata.keys {
                    guard case .array(let array) = file.metadata[key] else { continue }
                    _ = (array.strings(), array.floats(), array.integers(), array.bools(), array.elements().count)
                }
                _ = try ModelConfiguration.read(file)
                opened += 1
            } catch { #expect(error is CheckpointError) }
        }
        #expect((1..<3500).contains(opened))
    }

    @Test("damaged configurations end in typed errors") func configurations() throws {
        // A failure means that a damaged config.json can crash the process.
        let seeds = try ["ada-H/config.json", "llava-hf/new-layout/config.json", "llava-hf/old-layout/preprocessor_config.json"].map {
            try Array(Data(contentsOf: CheckpointFixtures.fixture($0)))
        }
        var random = SeededGenerator(seed: 3)
        for round in 0..<1500 {
            let bytes = mutate(seeds[round % seeds.count], headerEnd: .max, &random)
            do {
                let json = try bytes.withUnsafeBytes { try JSONReader.parse($0, file: "fuzz") }
                if round % seeds.count == 2 {
                    _ = try ImageProcessorConfiguration.read(json, file: "fuzz")
                } else {
                    let configuration = try ModelConfiguration.read(json, file: "fuzz")
                    _ = try RotaryEmbedding(configuration.language).frequencies(sequenceLength: 100)
                }
            } catch { #expect(error is CheckpointError) }
        }
    }
}
