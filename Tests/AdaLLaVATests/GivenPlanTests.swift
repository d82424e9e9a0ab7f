import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// Plans from outside, and what the latency token attends to: what `adallava explain` stands on.
@Suite struct GivenPlanTests {
    static let folder = Fixtures.models.appendingPathComponent("scenes-ref")

    private func request(_ model: TestModel, budget: Double) throws -> EngineRequest {
        let image = try RGBImage(contentsOf: Self.folder.appendingPathComponent("images/00.png").path)
        let text = try #require(model.loaded.text)
        let tokens = try text.prompt([.question("What is in the image?", images: 1)], system: nil)
        return EngineRequest(tokens: tokens, images: [try model.loaded.image(image)], budget: .fraction(budget), maxTokens: 6)
    }

    @Test("the own plan given from outside changes nothing") func theOwnPlanGivenFromOutsideChangesNothing() throws {
        // A mismatch means that experiments with plans measure something else than the plans.
        let model = try TestModel(Self.folder)
        var request = try request(model, budget: 0.75)
        func run() throws -> (result: EngineResult, logits: [Float]) {
            let trace = Trace()
            let result = try model.run(request, trace: trace)
            return (result, try #require(trace.entries["prefill_last_logits"]?.values))
        }
        let own = try run()
        request.plan = own.result.plan
        let given = try run()
        #expect(given.result.tokens == own.result.tokens && given.result.plan == own.result.plan)
        #expect(given.logits == own.logits)
        // Another plan of the same size runs something else.
        var rows = own.result.plan.rows
        let optional = Array(4 ..< 8)
        let (on, off) = (try #require(optional.first { !rows[$0].isSkipped }), try #require(optional.first { rows[$0].isSkipped }))
        rows.swapAt(on, off)
        request.plan = ExecutionPlan(headCount: own.result.plan.headCount, rows: rows)
        let other = try run()
        #expect(other.result.plan.rows == rows)
        #expect(other.logits != own.logits)
    }

    @Test("plans that do not fit are errors") func plansThatDoNotFitAreErrors() throws {
        // A mismatch means that a wrong plan traps, or runs something that the model cannot.
        let model = try TestModel(Self.folder)
        let whole = ExecutionPlan.full(layers: 8, heads: 6)
        func row(_ layer: Int, _ row: ExecutionPlan.Row) -> ExecutionPlan {
            var rows = whole.rows
            rows[layer] = row
            return ExecutionPlan(headCount: 6, rows: rows)
        }
        let wrong: [(ExecutionPlan, String)] = [
            (.full(layers: 7, heads: 6), "8 layers"), (.full(layers: 8, heads: 5), "6 heads"),
            (row(5, .init(heads: [0, 6], groups: [])), "layer 5"), (row(5, .init(heads: [-1], groups: [])), "layer 5"),
            (row(5, .init(heads: [], groups: [2, 1])), "ascending"), (row(5, .init(heads: [1, 1], groups: [])), "ascending"),
            (row(0, .init(heads: [], groups: [])), "prefix"),
        ]
        for (plan, part) in wrong {
            var request = try request(model, budget: 0.75)
            request.plan = plan
            #expect { _ = try model.run(request) } throws: { ($0 as? GenerationError)?.description.contains(part) == true }
        }
    }

    @Test("plans are made of logits") func plansAreMadeOfLogits() async throws {
        // A mismatch means that random plans are not of the budget's size, or that wrong numbers of logits trap.
        let model = try await AdaptiveModel(contentsOf: Self.folder)
        #expect(model.switchCount == 4 && model.prefixLayers == 4)
        let plan = try model.plan(switchLogits: [0.1, 0.9, 0.3, 0.2], units: 2)
        #expect(plan.rows.map(\.isSkipped) == [false, false, false, false, true, false, false, true])
        for (logits, units) in [([Float](repeating: 0, count: 3), 1), ([0, 1, .nan, 0], 1), ([0, 1, 2, 3], 5), ([0, 1, 2, 3], -1)] {
            #expect(throws: GenerationError.self) { _ = try model.plan(switchLogits: logits, units: units) }
        }
    }

    @Test("the latency token's attention is the softmax of its scores") func theLatencyTokensAttentionIsTheSoftmaxOfItsScores() throws {
        // A mismatch means that the overlays show something else than what the latency token attends to.
        let model = try TestModel(Self.folder)
        let request = try request(model, budget: 0.75)
        let trace = Trace(includesLayers: true, includesAttention: true)
        let watched = try model.run(request, trace: trace)
        #expect(try model.run(request).tokens == watched.tokens)
        let checkpoint = try Checkpoint.open(at: Self.folder)
        for layer in [0, 3] {
            let weights = try #require(trace.entries["latency_attention.\(layer)"])
            let input = try #require(trace.entries[layer == 0 ? "inputs_embeds" : "layer_output.\(layer - 1)"])
            let expected = try attention(of: input, layer: layer, checkpoint)
            #expect(weights.shape == [6, input.shape[0]] && weights.values.count == expected.count)
            let worst = zip(weights.values, expected).reduce(0.0) { max($0, abs(Double($1.0) - $1.1)) }
            #expect(worst < 1e-5, "layer \(layer): \(worst)")
            for head in 0 ..< 6 {
                let sum = weights.values[head * input.shape[0] ..< (head + 1) * input.shape[0]].reduce(0, +)
                #expect(abs(sum - 1) < 1e-5)
            }
        }
        #expect(trace.entries["latency_attention.4"] == nil)
    }

    /// The last position's attention weights, `[6, positions]`, in float64 from the checkpoint's own weights.
    private func attention(of input: Trace.Entry, layer: Int, _ checkpoint: Checkpoint) throws -> [Double] {
        let (hidden, heads, headDim) = (192, 6, 32)
        let positions = input.shape[0]
        func values(_ name: String) throws -> [Double] {
            let tensor = try checkpoint.language.tensor("model.layers.\(layer)." + name)
            let columns = tensor.shape.last ?? 0, reader = try RowReader(tensor, columns: columns)
            let row = Tensor(rows: 1, columns: columns)
            var all: [Double] = []
            for index in 0 ..< tensor.count / columns {
                reader.read(index, into: row.data)
                all += row.values.map(Double.init)
            }
            return all
        }
        let norm = try values("input_layernorm.weight")
        let normed = (0 ..< positions).map { position -> [Double] in
            let x = input.values[position * hidden ..< (position + 1) * hidden].map(Double.init)
            let scale = 1 / (x.reduce(0) { $0 + $1 * $1 } / Double(hidden) + 1e-5).squareRoot()
            return zip(x, norm).map { $0 * scale * $1 }
        }
        func project(_ x: [Double], _ matrix: [Double], _ position: Int) -> [Double] {
            var out = (0 ..< hidden).map { row in (0 ..< hidden).reduce(0.0) { $0 + matrix[row * hidden + $1] * x[$1] } }
            for head in 0 ..< heads {
                for i in 0 ..< headDim / 2 {
                    let angle = Double(position) * pow(10000, -2 * Double(i) / Double(headDim))
                    let (a, b) = (out[head * headDim + i], out[head * headDim + i + headDim / 2])
                    out[head * headDim + i] = a * cos(angle) - b * sin(angle)
                    out[head * headDim + i + headDim / 2] = b * cos(angle) + a * sin(angle)
                }
            }
            return out
        }
        let query = project(normed[positions - 1], try values("self_attn.q_proj.weight"), positions - 1)
        let matrix = try values("self_attn.k_proj.weight")
        let keys = (0 ..< positions).map { project(normed[$0], matrix, $0) }
        return (0 ..< heads).flatMap { head -> [Double] in
            let range = head * headDim ..< (head + 1) * headDim
            let scores = keys.map { key in range.reduce(0.0) { $0 + query[$1] * key[$1] } / Double(headDim).squareRoot() }
            let largest = scores.max() ?? 0
            let exponentials = scores.map { exp($0 - largest) }
            return exponentials.map { $0 / exponentials.reduce(0, +) }
        }
    }
}

/// Damaged weights, and files that are none.
@Suite struct DamageTests {
    @Test("weights that are not numbers are an error") func weightsThatAreNotNumbersAreAnError() throws {
        // A failure means that a damaged model answers nothing, at any length, as if all were well.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("damage-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.copyItem(at: GivenPlanTests.folder, to: folder)
        let file = try SafetensorsFile(contentsOf: Self.weights)
        for name in ["model.layers.1.self_attn.q_proj.weight", "lm_head.weight"] {
            let descriptions = try file.names.map { TensorDescription(name: $0, type: try file.tensor($0).type, shape: try file.tensor($0).shape) }
            try SafetensorsWriter.write(descriptions, to: folder.appendingPathComponent("model.safetensors")) { description, sink in
                let tensor = try file.tensor(description.name)
                if tensor.name == name {
                    try sink.write([UInt16](repeating: 0x7E00, count: tensor.count))
                } else {
                    try sink.write(tensor.bytes)
                }
            }
            let model = try TestModel(folder, precision: .automatic)
            #expect { _ = try model.run([1, 5, 9], budget: 0.75) } throws: { error in
                if case .notFinite? = error as? GenerationError { true } else { false }
            }
        }
    }

    private static let weights = GivenPlanTests.folder.appendingPathComponent("model.safetensors")

    @Test("links and pipes stay what they are") func linksAndPipesStayWhatTheyAre() throws {
        // A failure means that a trace written to a device or through a link replaces it by a file.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("atomic-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (target, link) = (folder.appendingPathComponent("target"), folder.appendingPathComponent("link"))
        try Data([1]).write(to: target)
        try FileManager.default.createSymbolicLink(at: link, withDestinationURL: target)
        let file = try AtomicFile(replacing: link)
        try file.write([7, 8, 9])
        try file.commit()
        #expect(try Data(contentsOf: target) == Data([7, 8, 9]))
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link.path) == target.path)

        let pipe = folder.appendingPathComponent("pipe")
        #expect(mkfifo(pipe.path, 0o600) == 0)
        let reader = open(pipe.path, O_RDONLY | O_NONBLOCK)
        defer { close(reader) }
        let piped = try AtomicFile(replacing: pipe)
        try piped.write([4, 5])
        try piped.commit()
        var bytes = [UInt8](repeating: 0, count: 8)
        #expect(read(reader, &bytes, 8) == 2 && bytes[0] == 4 && bytes[1] == 5)
        var status = stat()
        #expect(stat(pipe.path, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
    }
}
