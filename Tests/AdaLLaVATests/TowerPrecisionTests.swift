import Foundation
import Testing

@testable import AdaLLaVA

/// A vision transformer of a size that 8-bit tiles take, with random weights, in every precision.
@Suite struct TowerPrecisionTests {
    private static let hidden = 320, intermediate = 832, layers = 3, side = 56, patch = 14

    /// - Parameters:
    ///   - spread: what a few columns of the norms are larger by than the others, and the weights that meet them smaller: trained towers have such.
    ///   - stretch: what the first product of a feed-forward network gives more, and the second takes less.
    private static func write(_ folder: URL, spread: Float = 1, activation: String = "quick_gelu", stretch: Float = 1) throws {
        var random = SplitMix64(seed: 3)
        func values(_ count: Int, around centre: Float = 0, deviation: Float) -> [Float] {
            (0 ..< count).map { _ in centre + Float(random.unit() + random.unit() + random.unit() - 1.5) * 2 * deviation }
        }
        var tensors: [(name: String, shape: [Int], values: [Float])] = []
        let columns = [17, 150, 301]
        func linear(_ name: String, _ rows: Int, _ inputs: Int, readsNorm: Bool = false, by weightFactor: Float = 1, biasBy biasFactor: Float = 1) {
            var weight = values(rows * inputs, deviation: 1 / Float(inputs).squareRoot()).map { $0 * weightFactor }
            if readsNorm { for row in 0 ..< rows { for column in columns { weight[row * inputs + column] /= spread } } }
            tensors.append((name + ".weight", [rows, inputs], weight))
            tensors.append((name + ".bias", [rows], values(rows, deviation: 0.1).map { $0 * biasFactor }))
        }
        func norm(_ name: String) {
            var weight = values(hidden, around: 1, deviation: 0.2)
            for column in columns { weight[column] *= spread }
            tensors.append((name + ".weight", [hidden], weight))
            tensors.append((name + ".bias", [hidden], values(hidden, deviation: 0.1)))
        }
        let positions = (side / patch) * (side / patch) + 1
        tensors.append(("vision_model.embeddings.class_embedding", [hidden], values(hidden, deviation: 1)))
        tensors.append(("vision_model.embeddings.patch_embedding.weight", [hidden, 3, patch, patch], values(hidden * 3 * patch * patch, deviation: 0.05)))
        tensors.append(("vision_model.embeddings.position_embedding.weight", [positions, hidden], values(positions * hidden, deviation: 0.5)))
        tensors.append(("vision_model.pre_layrnorm.weight", [hidden], values(hidden, around: 1, deviation: 0.2)))
        tensors.append(("vision_model.pre_layrnorm.bias", [hidden], values(hidden, deviation: 0.1)))
        for layer in 0 ..< layers + 1 {
            let name = "vision_model.encoder.layers.\(layer)."
            norm(name + "layer_norm1")
            norm(name + "layer_norm2")
            for part in ["q_proj", "k_proj", "v_proj"] { linear(name + "self_attn." + part, hidden, hidden, readsNorm: true) }
            linear(name + "self_attn.out_proj", hidden, hidden)
            linear(name + "mlp.fc1", intermediate, hidden, readsNorm: true, by: stretch, biasBy: stretch)
            linear(name + "mlp.fc2", hidden, intermediate, by: 1 / stretch)
        }
        norm("vision_model.post_layernorm")
        try SafetensorsWriter.write(tensors, to: folder.appendingPathComponent("model.safetensors"))
        let configuration = """
            {"architectures":["CLIPVisionModel"],"hidden_act":"\(activation)","hidden_size":\(hidden),"image_size":\(side),"intermediate_size":\(intermediate),
             "layer_norm_eps":1e-05,"model_type":"clip_vision_model","num_attention_heads":5,"num_channels":3,"num_hidden_layers":\(layers + 1),
             "patch_size":\(patch),"projection_dim":\(hidden),"torch_dtype":"float32"}
            """
        try configuration.write(to: folder.appendingPathComponent("config.json"), atomically: true, encoding: .utf8)
        let processor = Fixtures.url("ada-L/vision_tower/preprocessor_config.json")
        try FileManager.default.copyItem(at: processor, to: folder.appendingPathComponent("preprocessor_config.json"))
    }

    private static func leastCosine(_ a: [Float], _ b: [Float]) -> Double {
        stride(from: 0, to: a.count, by: hidden).map { row in
            let pairs = (row ..< row + hidden).map { (Double(a[$0]), Double(b[$0])) }
            let (dot, first, second) = pairs.reduce((0, 0, 0)) { ($0.0 + $1.0 * $1.1, $0.1 + $1.0 * $1.0, $0.2 + $1.1 * $1.1) }
            return dot / (first * second).squareRoot()
        }.min() ?? 0
    }

    // A failure means that towers with SiLU run another activation, or none: quick GELU is SiLU of 1.702 times its input, by 1.702.
    @Test("SiLU is stretched QuickGELU", arguments: kernelSets) func siluIsStretchedQuickGELU(kernels: String) throws {
        var random = SplitMix64(seed: 10)
        let pixels = (0 ..< 3 * Self.side * Self.side).map { _ in Float(random.unit() * 4 - 2) }
        func features(_ activation: String, stretch: Float) throws -> [Float] {
            try CheckpointFixtures.withTemporaryFolder { folder in
                try Self.write(folder, activation: activation, stretch: stretch)
                return try VisionTower(contentsOf: folder, threads: 2, precision: .f32, kernels: kernels).features(pixels)
            }
        }
        let expected = try features("quick_gelu", stretch: 1)
        #expect(try largestDifference(features("silu", stretch: 1.702), expected) < 1e-3)
        #expect(try largestDifference(features("silu", stretch: 1), expected) > 0.05)
    }

    // A failure means that an image is seen otherwise in 8 bits than in float32: rounded to too few steps, or a scale that is not its own.
    @Test("eight bits are close", arguments: kernelSets, [Float(1), 4, 12]) func eightBitsAreClose(kernels: String, spread: Float) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            try Self.write(folder, spread: spread)
            var random = SplitMix64(seed: 9)
            let pixels = (0 ..< 3 * Self.side * Self.side).map { _ in Float(random.unit() * 4 - 2) }
            let exact = try VisionTower(contentsOf: folder, threads: 2, precision: .f32, kernels: kernels).features(pixels)
            #expect(exact.allSatisfy(\.isFinite) && exact.count == 16 * Self.hidden)
            let tower = try VisionTower(contentsOf: folder, threads: 2, precision: .q8, kernels: kernels)
            let rounded = try tower.features(pixels)
            // 1.0e-4 to 1.5e-4 from 1 and 1.0e-4 to 2.6e-4; columns 12 times as large as the others cost groups of 256 values 1.6e-3, blocks of 32 4e-4.
            #expect(Self.leastCosine(rounded, exact) >= (spread > 4 ? 0.997 : 0.9995), "\(Self.leastCosine(rounded, exact))")
            #expect(rounded != exact)
            #expect(try tower.features(pixels) == rounded, "what is kept between images must not show")
            for threads in [1, 3] {
                #expect(try VisionTower(contentsOf: folder, threads: threads, precision: .q8, kernels: kernels).features(pixels) == rounded)
            }
        }
    }
}
