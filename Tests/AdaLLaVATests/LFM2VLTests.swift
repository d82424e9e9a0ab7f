import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// What LFM2-VL has of its own: sizes and grids of pictures, torchvision's resizing, position embeddings of any grid, refusals. Pixels, prompts and answers:
/// `VisionFamilyTests`.
@Suite struct LFM2VLTests {
    private struct Recorded: Decodable {
        struct Resized: Decodable {
            let picture: String
            let width: Int
            let height: Int
            let filter: String
            let sha256: String
        }
        let settings: [[Double]]
        let cases: [[Int]]
        let resized: [Resized]
    }

    private static func tiling(_ settings: [Double]) -> LFM2VLTiling {
        let whole = settings.map { Int($0) }
        return LFM2VLTiling(
            settings: LFM2VLTiles(
                tokens: whole[0] ... whole[1], count: whole[2] ... whole[3], side: whole[4], tolerance: settings[7], patch: whole[5], factor: whole[6]),
            filter: .bilinear)
    }

    // A difference means that the tower sees other tiles, or a picture in other proportions, than it was trained with.
    @Test("pictures get the sizes and tiles that transformers gives them") func sizes() throws {
        let recorded: Recorded = try Fixtures.json("vision/lfm2-vl-sizes.json")
        #expect(recorded.cases.count > 300)
        for item in recorded.cases {
            let tiling = Self.tiling(recorded.settings[item[2]])
            let grid = tiling.grid(width: item[0], height: item[1]), whole = tiling.wholeSize(width: item[0], height: item[1])
            #expect((max(grid.columns, 1), max(grid.rows, 1)) == (item[3], item[4]), "\(item)")
            #expect(whole == (item[5], item[6]), "\(item)")
        }
        // A strip keeps at most eight times as many tokens as a picture may have, however long it is.
        let strip = Self.tiling(recorded.settings[0]).wholeSize(width: 1 << 20, height: 1)
        #expect(strip == (8 * 256 * 32, 32))
    }

    // A difference means that bytes are rounded otherwise than torchvision rounds them, which the tower was trained with.
    @Test("pictures are resized as torchvision does") func resizing() throws {
        let recorded: Recorded = try Fixtures.json("vision/lfm2-vl-sizes.json")
        #expect(recorded.resized.count == 42)
        for item in recorded.resized {
            let picture = try RGBImage(contentsOf: Fixtures.url("images/\(item.picture)").path)
            let resized = picture.resized(item.width, item.height, item.filter == "bilinear" ? .bilinear : .bicubic, .torch)
            #expect(VisionFixture.digest(bytes: resized.pixels) == item.sha256, "\(item)")
        }
    }

    // A difference means that a picture means something else when somebody else asks at the same time.
    @Test("features of pictures do not depend on how an encode is cut", arguments: ["idefics3", "smolvlm", "llava-next", "qwen2-vl", "lfm2-vl", "lfm2-vl-whole"], kernelSets)
    func pieces(folder: String, kernels: String) throws {
        let model = try TestModel(VisionFixture(folder: folder).url, kernels: kernels), part = try #require(model.loaded.parts.vision)
        let image = try model.loaded.image(RGBImage(contentsOf: Fixtures.url("images/im3.png").path))
        let whole = try model.engine.encode(image, cancellation: Cancellation())
        #expect(whole.rows == image.rows ?? part.leastRows)
        for seed in [UInt64(1), 2] {
            var random = SeededGenerator(seed: seed)
            let encoding = try ImageEncoding(image, part, model.engine.workspace)
            while let next = try encoding.next() {
                let rows = seed == 1 ? next.least : Int.random(in: 1 ... max(next.rows, 1), using: &random)
                try encoding.run(rows: rows, Cancellation(), progress: { _, _ in }, selecting: { _, _ in })
            }
            #expect(try #require(encoding.output).values.map(\.bitPattern) == whole.values.map(\.bitPattern))
        }
    }

    // A failure means that a damaged configuration is computed with, or that an error does not say what is wrong.
    @Test("configurations that do not fit are refused", arguments: [
        ("config.json", "vision_feature_layer", JSONValue.integer(-2), "vision_feature_layer"),
        ("config.json", "text_config", .null, "text_config"),
        ("config.json", "text_config", .object(["model_type": .string("llama")]), "llama"),
        ("config.json", "vision_config", .object(["num_patches": .integer(24)]), "num_patches"),
        ("config.json", "vision_config", .object(["num_channels": .integer(4)]), "num_channels"),
        ("config.json", "projector_hidden_act", .string("relu"), "projector_hidden_act"),
        ("config.json", "downsample_factor", .integer(3), "downsample_factor"),
        ("config.json", "projector_use_layernorm", .string("yes"), "projector_use_layernorm"),
        ("processor_config.json", "encoder_patch_size", .integer(8), "tile_size"),
        ("processor_config.json", "downsample_factor", .integer(1), "downsample_factor"),
        ("processor_config.json", "tile_size", .integer(20), "tile_size"),
        ("processor_config.json", "min_image_tokens", .integer(13), "max_image_tokens"),
        ("processor_config.json", "max_tiles", .integer(1 << 40), "max_tiles"),
        ("processor_config.json", "max_pixels_tolerance", .integer(0), "max_pixels_tolerance"),
        ("processor_config.json", "image_processor_type", .string("Qwen2VLImageProcessor"), "Lfm2VlImageProcessor"),
    ])
    func refusals(file: String, field: String, value: JSONValue, message: String) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("model"), url = copy.appendingPathComponent(file)
            try FileManager.default.copyItem(at: VisionFixture(folder: "lfm2-vl").url, to: copy)
            guard case .object(var members) = try JSONValue.read(contentsOf: url) else { return #expect(Bool(false)) }
            func set(_ members: inout [String: JSONValue]) {
                if case .object(let inner) = value, case .object(let whole)? = members[field] {
                    members[field] = .object(whole.merging(inner) { $1 })
                } else {
                    members[field] = value
                }
            }
            if case .object(var processor)? = members["image_processor"] {
                set(&processor)
                members["image_processor"] = .object(processor)
            } else {
                set(&members)
            }
            try CheckpointFixtures.write(.object(members), to: url)
            let error = #expect(throws: CheckpointError.self) { try Checkpoint.open(at: copy) }
            #expect(error?.description.contains(message) == true, "\(String(describing: error))")
        }
    }

    // A failure means that a wrong number of pixels, or weights of another shape, reach the kernels.
    @Test("inputs of another size are refused") func wrongSizes() throws {
        let model = try TestModel(VisionFixture(folder: "lfm2-vl").url), part = try #require(model.loaded.parts.vision)
        for grid in [nil, PatchGrid(rows: 3, columns: 4), PatchGrid(rows: 6, columns: 6)] {
            let count = 48 * (grid.map { $0.rows * $0.columns } ?? 25)
            #expect(throws: VisionError.pixels(expected: count, found: count - 1)) {
                try part.tower.pass([Float](repeating: 0, count: count - 1), grid: grid, model.engine.workspace)
            }
        }
        #expect(throws: CheckpointError.self) { try VisionTower(contentsOf: VisionFixture(folder: "lfm2-vl").url) }
    }

    // A difference means that image tokens cannot be dropped behind a convolution, or that dropping none changes an answer.
    @Test("image tokens can be dropped inside the decoder") func dropping() throws {
        let fixture = VisionFixture(folder: "lfm2-vl"), item = try fixture.cases()[3]
        let traces = try [[], ["fastv:k=2,r=0"], ["fastv:k=2,r=0.5"]].map { selection in
            let checkpoint = try Checkpoint.open(at: fixture.url).selecting(TokenSelection(parsing: selection))
            let model = try TestModel(fixture.url, threads: 2) { $0 = checkpoint }
            let trace = Trace()
            let pictures = try item.images.map(model.loaded.image)
            let result = try model.run(EngineRequest(tokens: try item.tokens(model), images: pictures, budget: .full, maxTokens: 8), trace: trace)
            return (result, trace.entries["step_logits"]?.values.map(\.bitPattern))
        }
        #expect(traces[0].1 == traces[1].1 && traces[0].1 != traces[2].1)
        #expect(traces[2].0.keptImageTokens == 47 && traces[2].0.imageTokens == 94)
    }
}
