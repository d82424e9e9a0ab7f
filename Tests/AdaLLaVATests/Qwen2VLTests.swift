import Foundation
import Testing

@testable import AdaLLaVA

/// What Qwen2-VL has of its own: sizes, positions by several axes, refusals. Pixels, prompts and answers: `VisionFamilyTests`.
@Suite struct Qwen2VLTests {
    // A difference means that the tower sees a picture in other proportions than it was trained with.
    @Test("pictures get the sizes that transformers gives them") func sizes() throws {
        struct Sizes: Decodable {
            let ranges: [[Int]]
            let cases: [[Int]]
        }
        let sizes: Sizes = try Fixtures.json("vision/qwen2-vl-sizes.json")
        #expect(sizes.cases.count > 300)
        for item in sizes.cases {
            let range = sizes.ranges[item[2]]
            let resizing = DynamicResizing(patch: 14, merge: 2, frames: 2, pixels: range[0] ... range[1], filter: .bicubic)
            let size = resizing.size(width: item[0], height: item[1])
            #expect(size.width == item[3] && size.height == item[4], "\(item)")
        }
        // Beyond 200 to 1, where transformers gives up, a side is still at least one unit.
        let narrow = DynamicResizing(patch: 14, merge: 2, frames: 2, pixels: 3136 ... 10976, filter: .bicubic).size(width: 100_000, height: 1)
        #expect(narrow.height == 28 && narrow.width % 28 == 0 && narrow.width > 0)
    }

    // A difference means that the decoder takes text behind an image for text far away, or a row of an image for another.
    @Test("positions of text, of images by row and column, and of what follows") func positions() {
        let key = ContentKey("image")
        let elements: [PromptElement] = [.token(1), .token(2)] + (0 ..< 6).map { .image(key, row: $0) } + [.token(3)] + (0 ..< 2).map { .image(key, row: $0) } + [.token(4)]
        let places = PromptPositions(elements, grids: [PatchGrid(rows: 2, columns: 3), PatchGrid(rows: 2, columns: 1)])
        func place(_ time: Int, _ height: Int, _ width: Int) -> RowPosition { RowPosition(time: time, height: height, width: width) }
        let expected = [place(0, 0, 0), place(1, 1, 1), place(2, 2, 2), place(2, 2, 3), place(2, 2, 4), place(2, 3, 2), place(2, 3, 3), place(2, 3, 4),
            place(5, 5, 5), place(6, 6, 6), place(6, 7, 6), place(8, 8, 8)]
        #expect(elements.indices.map { places[$0] } == expected)
        #expect(places[elements.count] == place(9, 9, 9) && places[elements.count + 5] == place(14, 14, 14))
    }

    // A failure means that a damaged configuration is computed with, or that an error does not say what is wrong.
    @Test("configurations that do not fit are refused", arguments: [
        ("rope_scaling", "mrope_section"), ("hidden_size", "mrope_section"), ("width", "out_hidden_size"), ("vision_config", "vision_config"),
    ])
    func refusals(field: String, message: String) throws {
        let json = try JSONValue.read(contentsOf: VisionFixture(folder: "qwen2-vl").url.appendingPathComponent("config.json"))
        guard case .object(var members) = json else { return #expect(Bool(false)) }
        switch field {
        case "rope_scaling": members[field] = .object(["type": .string("mrope"), "mrope_section": .array([.integer(2), .integer(1)])])
        case "hidden_size": members[field] = .integer(96)
        case "width":
            guard case .object(var tower)? = members["vision_config"] else { return #expect(Bool(false)) }
            tower["hidden_size"] = .integer(40)
            members["vision_config"] = .object(tower)
        default: members[field] = nil
        }
        let error = #expect(throws: CheckpointError.self) { try ModelConfiguration.read(.object(members), file: "config.json") }
        #expect(error?.description.contains(message) == true, "\(String(describing: error))")
    }

    // A difference means that image tokens that are kept lose their row and column.
    @Test("image tokens can be dropped inside the decoder", arguments: ["qwen2-vl", "qwen2.5-vl"]) func dropping(folder: String) throws {
        let fixture = VisionFixture(folder: folder), item = try fixture.cases()[3]
        let traces = try [[], ["fastv:k=2,r=0"], ["fastv:k=2,r=0.5"]].map { selection in
            let checkpoint = try Checkpoint.open(at: fixture.url).selecting(TokenSelection(parsing: selection))
            let model = try TestModel(fixture.url, threads: 2) { $0 = checkpoint }
            let trace = Trace()
            let pictures = try item.images.map(model.loaded.image)
            let result = try model.run(EngineRequest(tokens: try item.tokens(model), images: pictures, budget: .full, maxTokens: 8), trace: trace)
            return (result, trace.entries["step_logits"]?.values.map(\.bitPattern))
        }
        #expect(traces[0].1 == traces[1].1 && traces[0].1 != traces[2].1)
        #expect(traces[2].0.keptImageTokens == 10 && traces[2].0.imageTokens == 20)
    }
}
