import Foundation
import Testing

@testable import AdaLLaVA

/// What `convert` writes must load again and compute the same.
@Suite struct ConvertTests {
    typealias Target = CheckpointConverter.Target

    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("convert-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder)
    }

    private func answers(_ url: URL, _ folder: String) throws -> [(tokens: [Int], heads: [Int], logits: [Float])] {
        let file: AdaptiveInferenceTests.CaseFile = try Fixtures.json(folder + "/cases.json")
        let recorded = try Recorded(folder + "/expected.safetensors")
        let model = try TestModel(url)
        return try file.cases.filter { ["p0@0.9", "p1@0.75", "p3@0.6", "p4@0.8"].contains($0.id) }.map { item in
            let prompt = try #require(file.prompts[item.prompt])
            let pixels = try prompt.images.map { try recorded.values("image.\($0).pixel_values") }
            let trace = Trace()
            let result = try model.run(prompt.inputIds, pixels: pixels, budget: item.latency, trace: trace)
            return (result.tokens, result.plan.headsPerLayer, trace.entries["prefill_last_logits"]?.values ?? [])
        }
    }

    // A mismatch means that queries and keys lose their order on the way to GGUF, or that a tensor is dropped or takes another's place.
    @Test("GGUF computes what the folder computes", arguments: ["ada-L", "ada-H"]) func ggufComputesWhatTheFolderComputes(folder: String) throws {
        try withFolder { place in
            let (asFolder, asFile) = (place.appendingPathComponent("f16"), place.appendingPathComponent("f16.gguf"))
            _ = try CheckpointConverter(Fixtures.url(folder), to: .f16, output: asFolder).run()
            let report = try CheckpointConverter(Fixtures.url(folder), to: .f16, output: asFile).run()
            #expect(report.tensors > 100)
            let (expected, found) = (try answers(asFolder, folder), try answers(asFile, folder))
            #expect(expected.count == 4)
            for (expected, found) in zip(expected, found) {
                #expect(found.tokens == expected.tokens)
                #expect(found.heads == expected.heads)
                // Only norms, biases and the scheduler differ: GGUF keeps them in float32.
                #expect(largestDifference(found.logits, expected.logits) < 0.05)
            }
        }
    }

    // A mismatch means that a GGUF file changes when it is converted to the type that it already has.
    @Test("converting twice changes nothing") func convertingTwiceChangesNothing() throws {
        try withFolder { place in
            let (first, second) = (place.appendingPathComponent("a.gguf"), place.appendingPathComponent("b.gguf"))
            _ = try CheckpointConverter(Fixtures.url("ada-H"), to: .q8_0, output: first).run()
            _ = try CheckpointConverter(first, to: .q8_0, output: second).run()
            let (a, b) = (try GGUFFile(contentsOf: first), try GGUFFile(contentsOf: second))
            #expect(a.names == b.names)
            for name in a.names {
                let (x, y) = (try a.tensor(name), try b.tensor(name))
                #expect(x.type == y.type && x.shape == y.shape && x.bytes.elementsEqual(y.bytes), "\(name)")
            }
        }
    }

    // A failure means that quantized weights are further from the original than their blocks allow.
    @Test("quantized weights stay within their blocks' error", arguments: Target.allCases) func valuesStayClose(target: Target) throws {
        try withFolder { place in
            let output = place.appendingPathComponent("out.gguf")
            _ = try CheckpointConverter(Fixtures.url("ada-L"), to: target, output: output).run()
            let (before, after) = (try Checkpoint.open(at: Fixtures.url("ada-L")), try Checkpoint.open(at: output))
            let name = "model.layers.5.self_attn.o_proj.weight"
            let (x, y) = (try before.language.tensor(name), try after.language.tensor(name))
            #expect(y.type == target.elementType)
            let (values, found) = (try Tensor(matrix: x, rows: 64, columns: 64).values, try Tensor(matrix: y, rows: 64, columns: 64).values)
            for block in 0 ..< values.count / 32 {
                let range = block * 32 ..< block * 32 + 32
                let largest = values[range].map(abs).max() ?? 0
                // Half a step of the block's scale, and its rounding to half precision.
                let step: Float = switch target {
                case .q8_0: largest / 127 * 0.51 + largest * 0.0006
                case .q4_0: largest / 8 * 1.01
                case .q4_1: ((values[range].max() ?? 0) - (values[range].min() ?? 0)) / 30 * 1.01 + largest * 0.002
                case .f32: 0
                case .f16: largest * 0.0005
                case .bf16: largest * 0.004
                }
                #expect(largestDifference(Array(found[range]), Array(values[range])) <= step + 1e-7, "block \(block)")
            }
            // The scheduler decides between close logits; its weights are never quantized.
            #expect(try after.language.tensor("scheduler.mlp_head.weight").type == .f32)
        }
    }

    // A failure means that a conversion overwrites what is there, writes half a file, or says nothing useful about a wrong request.
    @Test("refuses what it cannot write") func refusesWhatItCannotWrite() throws {
        try withFolder { place in
            let source = Fixtures.url("ada-L")
            let folder = place.appendingPathComponent("folder")
            #expect(throws: ConversionError.self) { try CheckpointConverter(source, to: .q8_0, output: folder) }
            #expect(throws: ConversionError.self) { try CheckpointConverter(source, to: .f16, output: source, overwrites: true) }
            #expect(throws: CheckpointError.self) {
                try CheckpointConverter(source, to: .f16, output: place.appendingPathComponent("no/such/out.gguf"))
            }
            let file = place.appendingPathComponent("out.gguf")
            try Data("mine".utf8).write(to: file)
            #expect(throws: ConversionError.exists(file.path)) { try CheckpointConverter(source, to: .f16, output: file) }
            #expect(try Data(contentsOf: file) == Data("mine".utf8))

            let cancellation = Cancellation()
            cancellation.cancel()
            #expect(throws: CancellationError.self) {
                try CheckpointConverter(source, to: .bf16, output: folder).run(cancellation: cancellation)
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: place.path) == ["out.gguf"])
        }
    }

    // A failure means that a conversion leaves a folder whose tower cannot be found, because it lay beside the checkpoint.
    @Test("a conversion keeps the path of the vision tower", arguments: ["../tower", "inside/tower"]) func theTowerTravels(reference: String) throws {
        try withFolder { place in
            let (source, output) = (place.appendingPathComponent("source/model"), place.appendingPathComponent("a/b"))
            try Files.createFolder(source)
            try Files.createFolder(output.deletingLastPathComponent())
            for name in try Files.names(in: Fixtures.url("ada-L")) where name != "vision_tower" {
                try Files.copy(Fixtures.url("ada-L/" + name), to: source.appendingPathComponent(name))
            }
            try Files.createFolder(source.appendingPathComponent("inside"))
            try Files.copy(Fixtures.url("ada-L/vision_tower"), to: source.appendingPathComponent(reference))
            let config = source.appendingPathComponent("config.json")
            let text = String(decoding: try Files.data(config), as: UTF8.self).replacing(
                try Regex("\"mm_vision_tower\"\\s*:\\s*\"[^\"]*\"")) { _ in "\"mm_vision_tower\": \"\(reference)\"" }
            try Files.write(Data(text.utf8), to: config)
            _ = try CheckpointConverter(source, to: .bf16, output: output).run()
            try Files.remove(place.appendingPathComponent("source"))
            let written = try Checkpoint.open(at: output)
            #expect(written.configuration.llava?.visionTowerReference == (reference.hasPrefix("..") ? "vision_tower" : reference))
            #expect(try TestModel(output).loaded.parts.vision != nil)
        }
    }

    // A failure means that --force replaces a checkpoint that loads by one that does not.
    @Test("what does not load replaces nothing") func whatDoesNotLoadReplacesNothing() throws {
        try withFolder { place in
            let output = place.appendingPathComponent("out")
            _ = try CheckpointConverter(Fixtures.url("ada-L"), to: .bf16, output: output).run()
            // Whatever else lies in the folder stays, and this is then taken for the checkpoint's tokenizer.
            try Files.write(Data("{".utf8), to: output.appendingPathComponent("tokenizer.json"))
            let before = try Files.names(in: output).map { ($0, try? Files.data(output.appendingPathComponent($0))) }
            #expect(throws: CheckpointError.self) {
                try CheckpointConverter(Fixtures.url("ada-L"), to: .f16, output: output, overwrites: true).run()
            }
            let after = try Files.names(in: output).map { ($0, try? Files.data(output.appendingPathComponent($0))) }
            #expect(before.elementsEqual(after, by: ==))
            #expect(try Files.names(in: place) == ["out"])
        }
    }

    // A mismatch means that a converted model reads prompts differently from its source.
    @Test("a conversion keeps the tokenizer") func theTokenizerTravels() throws {
        try withFolder { place in
            let output = place.appendingPathComponent("out.gguf")
            let source = Fixtures.models.appendingPathComponent("scenes-ref")
            _ = try CheckpointConverter(source, to: .q4_0, output: output).run()
            let (before, after) = (try TestModel(source), try TestModel(output))
            let turns = [ChatMessage.question("What is on the left?", images: 1), ChatMessage(.assistant, "a cat"), ChatMessage(.user, "And  right?")]
            #expect(try after.loaded.text?.prompt(turns, system: nil) == before.loaded.text?.prompt(turns, system: nil))
            #expect(after.loaded.text?.templateName == "vicuna_v1")
            // Other readers take the standard vocabulary.
            let metadata = try GGUFFile(contentsOf: output).metadata
            let vocabulary = try #require(try GGUFVocabulary(metadata))
            let tokenizer = try vocabulary.makeTokenizer(file: "out.gguf")
            #expect(tokenizer.encode("What is on the left?") == before.loaded.text?.tokenizer.encode("What is on the left?"))
        }
    }
}
