import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// A random network of ten blocks with every kind of convolution, at a size that no stride divides; `Tests/Fixtures/efficientnet/tiny`.
enum TinyEfficientNet {
    static func source(_ format: String) -> URL { Fixtures.url("efficientnet/tiny/\(format)") }

    static let image: RGBImage? = {
        guard let file = try? SafetensorsFile(contentsOf: Fixtures.url("efficientnet/tiny/expected.safetensors")), let image = file.find("image")
        else { return nil }
        return RGBImage(width: 72, height: 72, pixels: Array(image.bytes))
    }()

    static func expected() throws -> [Float] { try Recorded("efficientnet/tiny/expected.safetensors").values("features") }

    /// Converts the tiny network into `folder` and returns the tower's folder.
    static func tower(_ format: String = "legacy", type: ElementType = .f32, in folder: URL) throws -> URL {
        let output = folder.appendingPathComponent("tower-\(format)-\(type)")
        _ = try EfficientNetConverter(source(format), type: type, output: output, overwrites: false).run()
        return output
    }

    /// An adaptive model whose tower is the tiny network: `ada-L` with another projector.
    static func model(in folder: URL, towerInside: Bool) throws -> URL {
        let model = folder.appendingPathComponent(towerInside ? "inside" : "beside")
        try CheckpointFixtures.copy("ada-L", to: model)
        try FileManager.default.removeItem(at: model.appendingPathComponent("vision_tower"))
        let tower = try SafetensorsFile(contentsOf: self.tower(in: folder).appendingPathComponent("model.safetensors"))
        try FileManager.default.moveItem(at: folder.appendingPathComponent("tower-legacy-f32"), to: model.appendingPathComponent("vision_tower"))
        try CheckpointFixtures.write(
            CheckpointFixtures.json("ada-L/config.json", replacing: ["mm_hidden_size": .integer(400), "unfreeze_mm_vision_tower": .bool(towerInside)]),
            to: model.appendingPathComponent("config.json"))

        let original = try SafetensorsFile(contentsOf: CheckpointFixtures.fixture("ada-L/model.safetensors"))
        var tensors: [(name: String, shape: [Int], values: [Float])] = []
        for name in original.names where !name.contains("vision_tower") && name != "model.mm_projector.0.weight" {
            let tensor = try original.tensor(name)
            tensors.append((name, tensor.shape, try Tensor(vector: tensor, count: tensor.count).values))
        }
        var random = SeededGenerator(seed: 4)
        tensors.append(("model.mm_projector.0.weight", [64, 400], (0 ..< 64 * 400).map { _ in Float(random.unit() - 0.5) * 0.1 }))
        for name in tower.names where towerInside {
            let tensor = try tower.tensor(name)
            tensors.append(("model.vision_tower.vision_tower." + name, tensor.shape, try Tensor(vector: tensor, count: tensor.count).values))
        }
        try FileManager.default.removeItem(at: model.appendingPathComponent("model.safetensors"))
        try SafetensorsWriter.write(tensors, to: model.appendingPathComponent("model.safetensors"))
        return model
    }
}

/// The length of the difference over the length of what is expected: how far features are off, whatever their scale.
private func relativeError(_ found: [Float], _ expected: [Float]) -> Double {
    guard found.count == expected.count else { return .infinity }
    func square(_ values: some Sequence<Float>) -> Double { values.reduce(0) { $0 + Double($1) * Double($1) } }
    return (square(zip(found, expected).map { $0 - $1 }) / square(expected)).squareRoot()
}

@Suite struct EfficientNetTests {
    // A failure means that a published network is built with other blocks than its weights have.
    @Test("published variants have the blocks of their weights") func publishedVariants() throws {
        let lite0 = try EfficientNetConfiguration(variant: "lite0")
        #expect(lite0.grid == 7 && lite0.featureWidth == 2368 && lite0.blocks.count == 16 && lite0.variant == "lite0")
        #expect(lite0.stages.map(\.notation).last == "r1_k3_s11_e6_i192_o320")
        #expect(lite0.featureMaps.map { lite0.width(of: $0) } == [1280, 448, 640])
        let lite2 = try EfficientNetConfiguration(variant: "lite2")
        #expect(lite2.stages.map(\.repeats) == [1, 3, 3, 4, 4, 5, 1] && lite2.stages.map(\.outputs) == [16, 24, 48, 88, 120, 208, 352])
        #expect(lite2.grid == 9 && lite2.featureWidth == 2528)
        var large = lite2
        large.imageSize = 384
        #expect(large.grid == 12 && large.variant == "lite2")
        #expect(try EfficientNetConfiguration(variant: "lite4").blocks.count == 30)
    }

    // A failure means that a wrong configuration is believed, or that its error does not name the field.
    @Test("wrong configurations are named") func wrongConfigurationsAreNamed() throws {
        func read(_ text: String) throws -> VisionConfiguration {
            try VisionConfiguration.read(CheckpointFixtures.json("{\"model_type\":\"efficientnet_lite\",\(text)}"), file: "config.json")
        }
        #expect(try read(#""variant":"lite1""#).patches == 64)
        #expect(try read(#""variant":"lite0","feature_maps":["stride8"]"#).hiddenSize == 640)
        let tiny = #""stem_channels":8,"head_channels":16,"image_size":64,"blocks_args":"#
        #expect(try read(tiny + #"["r1_k3_s22_e1_i8_o8","r1_k3_s2_e6_i8_o8","r1_k3_s22_e2_i8_o8"]"#).patches == 16)
        for (text, field) in [
            (#""variant":"b0""#, "variant"), (#""variant":"lite0","image_size":31"#, "image_size"), (#""variant":"lite0","image_size":4000"#, "image_size"),
            (#""variant":"lite0","feature_maps":[]"#, "feature_maps"), (#""variant":"lite0","feature_maps":["head","head"]"#, "feature_maps"),
            (#""variant":"lite0","feature_maps":"head""#, "feature_maps"), (#""variant":"lite0","blocks_args":["r1_k3_s11_e1_i32_o16"]"#, "blocks_args"),
            (tiny + "[]", "blocks_args"), (tiny + #"["r1_k3_s11_e1_i8"]"#, "blocks_args"), (tiny + #"["r1_k3_s11_e1_i8_o8_se0.25"]"#, "blocks_args"),
            (tiny + #"["r1_k4_s11_e1_i8_o8"]"#, "blocks_args"), (tiny + #"["r1_k3_s11_e1_i9_o8"]"#, "blocks_args"),
            (tiny + #"["r1_k3_s11_e1_i8_o8"]"#, "feature_maps"), (tiny + #"["r-1_k3_s11_e1_i8_o8"]"#, "blocks_args"),
            (tiny + "[" + (0 ..< 60).map { _ in #""r1_k3_s22_e1_i8_o8""# }.joined(separator: ",") + "]", "blocks_args"),
            (#""stem_channels":16384,"head_channels":16,"image_size":2048,"blocks_args":["r1_k3_s11_e16_i16384_o8"]"#, "image_size"),
        ] {
            guard case .configuration(let found, _, _, _)? = checkpointError({ try read(text) }) else {
                Issue.record("no error that names a field: \(text)")
                continue
            }
            #expect(found == field, "\(text)")
        }
    }

    // A mismatch means that images are seen wrongly: another padding, another order of channels or cells, a block that is not run, a pickle
    // read wrongly. Float32 is compared closely; stored in 16 bits, the weights themselves are off.
    @Test("features are the recorded ones", arguments: ["legacy", "zip"], kernelSets) func featuresAsRecorded(format: String, kernels: String) throws {
        let (expected, image) = (try TinyEfficientNet.expected(), try #require(TinyEfficientNet.image))
        try CheckpointFixtures.withTemporaryFolder { folder in
            for (type, tolerance) in [(ElementType.f32, 3e-6), (.f16, 3e-3), (.bf16, 3e-2)] {
                let tower = try VisionTower(
                    contentsOf: TinyEfficientNet.tower(format, type: type, in: folder), threads: 3, precision: .f32, kernels: kernels)
                #expect(tower.tokens == 9 && tower.width == 400)
                let features = try tower.features(of: [image, image])
                #expect(features[0] == features[1], "what is kept between images must not show")
                #expect(relativeError(features[0], expected) < tolerance, "\(type)")
                if type == .f32 { #expect(largestDifference(features[0], expected) < 2e-4) }
            }
        }
    }

    // A failure means that the features depend on the number of threads.
    @Test("features do not depend on the number of threads") func threadsChangeNothing() throws {
        let image = try #require(TinyEfficientNet.image)
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = try TinyEfficientNet.tower(in: folder)
            let features = try (1 ... 4).map { try VisionTower(contentsOf: url, threads: $0).features(of: [image])[0] }
            #expect(features.allSatisfy { $0 == features[0] })
            let tower = try VisionTower(contentsOf: url)
            #expect(throws: VisionError.pixels(expected: 3 * 72 * 72, found: 5)) { try tower.features([Float](repeating: 0, count: 5)) }
            let cancellation = Cancellation()
            cancellation.cancel()
            #expect(throws: CancellationError.self) { try tower.features(of: [image], cancellation: cancellation) }
        }
    }

    // A failure means that feature maps are put into other columns than their order says, or that one depends on another being there.
    @Test("feature maps can be chosen") func featureMapsCanBeChosen() throws {
        let (expected, image) = (try TinyEfficientNet.expected(), try #require(TinyEfficientNet.image))
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = try TinyEfficientNet.tower(in: folder)
            let config = url.appendingPathComponent("config.json")
            guard case .object(var members) = try JSONValue.read(contentsOf: config) else { return }
            members["feature_maps"] = .array([.string("stride8"), .string("head")])
            try CheckpointFixtures.write(.object(members), to: config)
            let features = try VisionTower(contentsOf: url, precision: .f32).features(of: [image])[0]
            let columns = Array(144 ..< 400) + Array(0 ..< 48)
            let wanted = (0 ..< 9).flatMap { row in columns.map { expected[row * 400 + $0] } }
            #expect(relativeError(features, wanted) < 3e-6)
        }
    }

    // A failure means that colours are read from another place than the rest of a row's features, or do not sum up a picture's pixels.
    @Test("colours are the means of the pixels") func coloursAreTheMeansOfThePixels() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = try TinyEfficientNet.tower(in: folder)
            let config = url.appendingPathComponent("config.json")
            guard case .object(var members) = try JSONValue.read(contentsOf: config) else { return }
            members["feature_maps"] = .array([.string("head"), .string("color8")])
            try CheckpointFixtures.write(.object(members), to: config)
            let tower = try VisionTower(contentsOf: url)
            // 72 pixels: 9 x 9 blocks of 8; 3 x 3 tokens of 32, the last of them with one block of each side inside.
            let size = 72
            let pixels = (0 ..< 3 * size * size).map { Float($0 / (size * size)) + Float($0 % (size * size) / size / 8) * 0.01 + Float($0 % size / 8) * 0.1 }
            let (features, width) = (try tower.features(pixels), tower.width)
            #expect(width == 48 + 16 * 3 && features.count == 9 * width)
            for row in 0 ..< 9 {
                for cell in 0 ..< 16 {
                    let (y, x) = (row / 3 * 4 + cell / 4, row % 3 * 4 + cell % 4)
                    for channel in 0 ..< 3 {
                        let wanted = y < 9 && x < 9 ? Float(channel) + Float(y) * 0.01 + Float(x) * 0.1 : 0
                        #expect(abs(features[row * width + 48 + 3 * cell + channel] - wanted) < 1e-4, "row \(row), cell \(cell)")
                    }
                }
            }
        }
    }

    // A failure means that the padding colour of a picture is not the one that becomes zero, or that pixels are not (byte - 127) / 128.
    @Test("pixels are centered at 127") func pixelsAreCenteredAt127() throws {
        let processor = try CLIPImageProcessor(
            .efficientNetLite(imageSize: 32), tower: VisionConfiguration(EfficientNetConfiguration(variant: "lite0")).sized(32), file: "")
        let image = try #require(RGBImage(width: 32, height: 16, pixels: [UInt8](repeating: 255, count: 32 * 16 * 3)))
        let pixels = processor(image, mode: .pad)
        #expect(processor.paddingColour == [127, 127, 127] && pixels[0] == 0 && pixels[16 * 32] == 1)
    }

    // A failure means that a whole model with this tower does not load, answers differently with its tower inside the checkpoint or beside it,
    // or loses its tower, its pixels' scale or its feature maps on the way through a conversion.
    @Test("whole models with this tower load and answer") func wholeModels() async throws {
        let image = try #require(TinyEfficientNet.image)
        try CheckpointFixtures.withTemporaryFolder { folder in
            let inside = try TinyEfficientNet.model(in: folder, towerInside: true)
            let beside = try TinyEfficientNet.model(in: folder, towerInside: false)
            let report = try ModelReport(contentsOf: inside)
            #expect(report.problem == nil && report.imageTokens == 9 && report.parameters.vision > 10_000)
            #expect(report.json.vision?.layers == 10 && report.json.vision?.imageSize == 72 && report.json.vision?.tokens == 9)
            #expect(report.json.vision?.modelType == "efficientnet_lite" && report.json.vision?.hiddenSize == 400)

            func answer(_ url: URL) throws -> (tokens: [Int], features: [Float]) {
                let model = try TestModel(url)
                let (pixels, trace) = (try model.loaded.pixels(image), Trace())
                let result = try model.run([1, 5, Engine.imageToken, 9, 40], pixels: [pixels], budget: 0.75, trace: trace)
                #expect(result.promptTokens == 4 + 9)
                return (result.tokens, trace.entries["vision_features"]?.values ?? [])
            }
            let (first, second) = (try answer(inside), try answer(beside))
            #expect(first.tokens == second.tokens && first.features == second.features)
            #expect(relativeError(first.features, try TinyEfficientNet.expected()) < 3e-6)
            #expect(try VisionTower(contentsOf: beside, precision: .f32).features(of: [image])[0] == second.features)

            for (target, tolerance) in [(CheckpointConverter.Target.f16, 3e-3), (.q8_0, 3e-2), (.q4_0, 0.5)] {
                let output = folder.appendingPathComponent("\(target).gguf")
                _ = try CheckpointConverter(target == .q8_0 ? inside : beside, to: target, output: output).run()
                let opened = try Checkpoint.open(at: output)
                #expect(opened.configuration.vision == report.configuration.vision)
                #expect(try ModelReport(contentsOf: output).problem == nil)
                if target == .q8_0 { #expect(opened.vision?.find("vision_model.head.weight")?.type == .q8_0) }
                let found = relativeError(try answer(output).features, first.features)
                #expect(found < tolerance, "\(target)")
            }
            let halved = folder.appendingPathComponent("halved")
            _ = try CheckpointConverter(inside, to: .f16, output: halved).run()
            #expect(relativeError(try answer(halved).features, first.features) < 3e-3)
        }
    }

    // A failure means that settings which such a tower cannot follow are ignored silently.
    @Test("what only transformers have is refused") func whatOnlyTransformersHaveIsRefused() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let model = try TinyEfficientNet.model(in: folder, towerInside: true)
            for (field, value) in [("mm_vision_select_feature", "cls_patch"), ("token_selecting", "prumerge")] {
                try CheckpointFixtures.write(
                    CheckpointFixtures.json("ada-L/config.json", replacing: ["mm_hidden_size": .integer(400), field: .string(value)]),
                    to: model.appendingPathComponent("config.json"))
                guard case .configuration(let found, _, _, _)? = checkpointError({ try Checkpoint.open(at: model) }) else {
                    Issue.record("opened with \(field) \(value)")
                    continue
                }
                #expect(found == field)
            }
        }
    }

    // A failure means that a tower whose weights do not fit its configuration is loaded, or refused without the tensor's name.
    @Test("weights that do not fit the configuration are refused by name") func weightsMustFit() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = try TinyEfficientNet.tower(in: folder)
            let weights = url.appendingPathComponent("model.safetensors")
            let original = try SafetensorsFile(contentsOf: weights)
            func rewrite(_ change: (inout [(name: String, shape: [Int], values: [Float])]) -> Void) throws {
                var tensors = try original.names.map { name in
                    let tensor = try original.tensor(name)
                    return (name: name, shape: tensor.shape, values: try Tensor(vector: tensor, count: tensor.count).values)
                }
                change(&tensors)
                try SafetensorsWriter.write(tensors, to: weights)
            }
            try rewrite { $0.removeAll { $0.name == "vision_model.blocks.3.expand.bias" } }
            #expect(checkpointError { try VisionTower(contentsOf: url) }?.isMissingTensor == true)
            try rewrite { tensors in
                for index in tensors.indices where tensors[index].name == "vision_model.blocks.2.depthwise.weight" {
                    tensors[index].shape = [tensors[index].shape[0], 1, 9, 1]
                }
            }
            guard case .shape(let tensor, _, _, _)? = checkpointError({ try VisionTower(contentsOf: url) }) else {
                Issue.record("a filter of another shape was loaded")
                return
            }
            #expect(tensor == "vision_model.blocks.2.depthwise.weight")
        }
    }
}

extension VisionConfiguration {
    /// The same tower for another image size.
    fileprivate func sized(_ side: Int) -> VisionConfiguration {
        var copy = self
        copy.imageSize = side
        return copy
    }
}
