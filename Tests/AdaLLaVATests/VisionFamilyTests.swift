import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// Families that look at images, as transformers saves them.
@Suite struct VisionFamilyTests {
    @Test("Pictures become the same pixels, prompts the same tokens", arguments: VisionFixture.all) func inputs(fixture: VisionFixture) throws {
        // A mismatch means that the tower sees other pixels, or the decoder another prompt, than the model was trained with.
        let model = try TestModel(fixture.url)
        let preparation = try model.loaded.requirePreparation()
        for item in try fixture.cases() {
            let images = try item.images
            var hashes: [String] = []
            for image in images {
                let tiles = preparation.tiles(of: image), values = preparation.values(of: tiles)
                let bytes = tiles.pixels.reduce(0) { $0 + $1.count }
                var start = 0
                for tile in tiles.pixels {
                    let count = values.count / bytes * tile.count
                    hashes.append(VisionFixture.digest(values[start ..< start + count]))
                    start += count
                }
                let (whole, prepared) = (try model.loaded.image(image), try model.loaded.image(preparation(image)))
                #expect(whole.tiles == tiles.pixels.count && prepared.tiles == whole.tiles && prepared.layout == whole.layout)
                let (first, second) = (try prepared.pixels(), try whole.pixels())
                #expect(first == values && second == values)
                #expect(whole.positions(leastRows: model.loaded.parts.vision?.leastRows ?? 0) >= preparation.tokens)
            }
            #expect(hashes == item.tileHashes ?? [])

            let prompt = try item.tokens(model)
            // LLaVA's own layout writes one mark for each picture.
            guard let mark = model.loaded.checkpoint.configuration.llava?.imageTokenID else {
                #expect(prompt == item.inputIds)
                continue
            }
            let pictures = try images.map(model.loaded.image)
            var next = pictures.makeIterator()
            let leastRows = model.loaded.parts.vision?.leastRows ?? 0
            let expanded = prompt.flatMap { token -> [Int] in
                guard token == Engine.imageToken, let picture = next.next() else { return [token] }
                return picture.expanded(picture.rows ?? leastRows, token: mark)
            }
            #expect(expanded == item.inputIds, "\(item.question)")
            // Ids copied from transformers are the same prompt.
            #expect(model.loaded.withImageMarks(item.inputIds, pictures) == prompt)
        }
    }

    @Test("Answers are those of transformers, for 64 tokens", arguments: VisionFixture.all, kernelSets)
    func answers(fixture: VisionFixture, kernels: String) throws {
        // A mismatch means that a model saved by transformers answers otherwise here.
        let model = try TestModel(fixture.url, kernels: kernels)
        for item in try fixture.cases() {
            let prompt = try item.tokens(model)
            let pictures = try item.images.map(model.loaded.image)
            let trace = Trace()
            let result = try model.run(EngineRequest(tokens: prompt, images: pictures, budget: .full, maxTokens: 64), trace: trace)
            #expect(result.tokens == item.greedy, "\(item.question)")
            let marks = item.inputIds.count { $0 == Engine.imageToken }
            #expect(result.promptTokens == item.inputIds.count + (marks > 0 ? (item.featureRows ?? 0) - marks : 0))
            #expect(result.imageTokens == item.featureRows ?? 0)
            #expect(result.encodedTiles == item.tiles ?? 0 && result.encodedImages == item.pictures.count)
            #expect(largestDifference(trace.entries["prefill_last_logits"]?.values ?? [], item.logits) <= 3e-4)
            #expect(largestDifference(trace.entries["step_logits"]?.values.suffix(item.logits.count) ?? [], item.lastLogits) <= 3e-4)
            if let row = item.featureRow { #expect(largestDifference(try lastRow(model, pictures), row) <= 1e-4) }
            // Features are kept by content: a second request encodes nothing.
            let again = EngineRequest(tokens: prompt, images: pictures, budget: .full, maxTokens: 4)
            let encoded = [try model.run(again).encodedImages, try model.run(again).encodedImages]
            #expect(encoded[0] <= pictures.count && encoded[1] == 0)
        }
    }

    @Test("Adaptive by configuration alone; skipping equals masking", arguments: VisionFixture.all, DecoderFamilyAdaptiveTests.variants.prefix(2))
    func adaptive(fixture: VisionFixture, variant: DecoderFamilyAdaptiveTests.Variant) throws {
        // A mismatch means that a family cannot be adaptive, or that what a plan skips still reaches the answer.
        try CheckpointFixtures.withTemporaryFolder { folder in
            let source = folder.appendingPathComponent("model"), masked = folder.appendingPathComponent("masked")
            try fixture.write(variant, to: source)
            let model = try TestModel(source, threads: 2)
            #expect(model.loaded.checkpoint.formatDescription.hasPrefix("AdaLLaVA-\(variant.type)"))
            let item = try fixture.cases()[3], tokens = try item.tokens(model), pictures = try item.images.map(model.loaded.image)
            for budget in [0.6, 0.8] {
                var request = EngineRequest(tokens: tokens, images: pictures, budget: .fraction(budget), maxTokens: 12)
                let trace = Trace(), expected = Trace()
                let result = try model.run(request, trace: trace)
                #expect(result.plan != model.loaded.parts.fullPlan && result.imageTokens == item.featureRows)
                try fixture.write(variant, masking: result.plan, model.loaded.parts.space, to: masked)
                let reference = try TestModel(masked, threads: 2)
                request.plan = reference.loaded.parts.fullPlan
                #expect(try reference.run(request, trace: expected).tokens == result.tokens)
                for name in ["scheduler_logits", "prefill_last_logits", "step_logits"] {
                    #expect(largestDifference(trace.entries[name]?.values ?? [], expected.entries[name]?.values ?? [.nan]) <= 1e-4, "\(name)")
                }
            }
        }
    }

    @Test("Both layouts of LLaVA-1.6 give the same answer") func layouts() throws {
        // A mismatch means that checkpoints in LLaVA's own layout cut pictures into other tiles than transformers does.
        let fixture = VisionFixture(folder: "llava-next"), item = try fixture.cases()[3]
        try CheckpointFixtures.withTemporaryFolder { folder in
            func members(of value: JSONValue?) -> [String: JSONValue] { if case .object(let members)? = value { members } else { [:] } }
            let whole = try JSONValue.read(contentsOf: fixture.url.appendingPathComponent("config.json"))
            let tower = try #require(whole["vision_config"])
            var fields = members(of: whole).merging(members(of: whole["text_config"])) { _, inner in inner }
            for key in ["text_config", "vision_config", "image_token_index"] { fields[key] = nil }
            for (key, value) in [
                ("model_type", "llava_llama"), ("mm_vision_tower", "tower"), ("mm_projector_type", "mlp2x_gelu"), ("image_aspect_ratio", "anyres"),
                ("mm_patch_merge_type", "spatial_unpad"),
            ] { fields[key] = .string(value) }
            fields["unfreeze_mm_vision_tower"] = .bool(true)
            fields["image_grid_pinpoints"] = .array([[56, 28], [28, 56], [56, 56], [28, 84], [84, 28]].map { .array($0.map(JSONValue.integer)) })
            let towerFolder = folder.appendingPathComponent("tower")
            try FileManager.default.createDirectory(at: towerFolder, withIntermediateDirectories: true)
            try CheckpointFixtures.write(.object(fields), to: folder.appendingPathComponent("config.json"))
            try CheckpointFixtures.write(tower, to: towerFolder.appendingPathComponent("config.json"))
            let names = [
                "vision_tower.": "model.vision_tower.vision_tower.vision_model.", "multi_modal_projector.linear_1": "model.mm_projector.0",
                "multi_modal_projector.linear_2": "model.mm_projector.2", "image_newline": "model.image_newline", "language_model.": "",
            ]
            let tensors = try fixture.tensors().map { tensor in
                let found = names.first { tensor.name.hasPrefix($0.key) }
                return (found.map { $0.value + tensor.name.dropFirst($0.key.count) } ?? tensor.name, tensor.shape, tensor.values)
            }
            try SafetensorsWriter.write(tensors, to: folder.appendingPathComponent("model.safetensors"))
            let model = try TestModel(folder), theirs = try TestModel(fixture.url)
            let pictures = try item.images.map(model.loaded.image), tokens = try item.tokens(theirs)
            #expect(pictures.map(\.rows) == (try item.images.map(theirs.loaded.image)).map(\.rows))
            #expect(try model.run(EngineRequest(tokens: tokens, images: pictures, budget: .full, maxTokens: 64)).tokens == item.greedy)
        }
    }

    @Test("Pictures are resized as Pillow does, with each filter") func filters() throws {
        // A difference means that a filter, or the order of the two passes, rounds otherwise than Pillow.
        struct Case: Decodable {
            let picture: String
            let width: Int
            let height: Int
            let filter: String
            let sha256: String
        }
        let cases: [Case] = try Fixtures.json("vision/filters.json")
        #expect(cases.count == 54)
        for item in cases {
            let picture = try RGBImage(contentsOf: Fixtures.url("images/\(item.picture)").path)
            let filter: ResampleFilter = item.filter == "lanczos" ? .lanczos : item.filter == "bilinear" ? .bilinear : .bicubic
            let resized = try #require(ImageResize.resize(picture, width: item.width, height: item.height, filter: filter))
            #expect(VisionFixture.digest(bytes: resized.pixels) == item.sha256, "\(item)")
        }
    }

    @Test("Tiles are counted by the analyzer and by the time model") func counts() throws {
        // A mismatch means that predicted times and operations of a picture are those of one tile.
        let model = try TestModel(VisionFixture(folder: "idefics3").url), configuration = model.loaded.checkpoint.configuration
        let vision = try #require(configuration.vision), llava = try #require(configuration.llava)
        #expect(vision.patches == 36 && vision.positions == 36 && llava.featureRows(of: vision) == 4 && llava.layersToRun(of: vision) == 3)
        let picture = try #require(RGBImage(width: 168, height: 84, pixels: [UInt8](repeating: 90, count: 168 * 84 * 3)))
        let image = try model.loaded.image(picture)
        #expect(image.tiles == 9 && image.rows == 36 && image.marks == 9)
        var settings = CostSettings(promptTokens: 50)
        settings.images = image.tiles
        let counter = OperationCounter(hardware: Hardware(name: "any", bandwidth: 1, fp16: 1, int8: nil, onChipBuffer: 1), settings: settings)
        let parts = VisionCost(counter: counter, vision: vision, llava: llava, hidden: 48, images: 9).parts
        let operations = parts.reduce(0) { sum, part in sum + part.operations.reduce(0) { $0 + $1.operations } * Double(max(part.layers.count, 1)) }
        // By hand: patches, layers with attention over 36 positions, the connector; norms and additions are below 5 percent.
        let rows = 9.0 * 36, layer = 2 * rows * (4 * 32 * 32 + 2 * 32 * 48) + 4 * rows * 36 * 32
        let expected = 2 * rows * 147 * 32 + 3 * layer + 2 * 36 * 288 * 48
        #expect(operations >= expected && operations < 1.15 * expected)
    }

    /// The last row of the features of the last picture.
    private func lastRow(_ model: TestModel, _ pictures: [EngineImage]) throws -> [Float] {
        let features = try model.engine.encode(try #require(pictures.last), cancellation: Cancellation())
        return features.row(features.rows - 1)
    }
}
