import Foundation
import Testing

@testable import AdaLLaVA

/// Every architecture made adaptive by a scheduler's tensors and three fields.
@Suite struct DecoderFamilyAdaptiveTests {
    struct Variant: Sendable, CustomTestStringConvertible {
        let type: String
        let rank: Int
        let grouped: Bool
        var testDescription: String { type + (grouped ? ", groups of heads" : "") }
    }

    static let variants = [
        Variant(type: "L", rank: 1, grouped: false), Variant(type: "H", rank: 1, grouped: false), Variant(type: "H", rank: 1, grouped: true),
    ]
    static let all: [(DecoderFixture, Variant)] = DecoderFixture.all.flatMap { fixture in variants.map { (fixture, $0) } }
    private static let prefix = 2

    // A mismatch means that an architecture cannot be adaptive by configuration alone, or that what a plan skips is not what it should.
    @Test("every architecture runs under budgets", arguments: all) func runsUnderBudgets(fixture: DecoderFixture, variant: Variant) throws {
        let prompts = try fixture.expected().prompts
        try CheckpointFixtures.withTemporaryFolder { folder in
            let source = folder.appendingPathComponent("model"), masked = folder.appendingPathComponent("masked")
            try Self.write(fixture, variant, to: source)
            let model = try TestModel(source, threads: 2)
            let units = try #require(model.loaded.parts.adaptive).units
            #expect(model.loaded.checkpoint.formatDescription == "AdaLLaVA-\(variant.type) with \(fixture.architecture.name), safetensors in one file")
            let whole = try model.run(prompts[2].tokens, budget: 1, maxTokens: 6)
            #expect(whole.plan == model.loaded.parts.fullPlan && whole.tokens.count == 6)
            let floor = try model.run(prompts[2].tokens, budget: units.floor, maxTokens: 6)
            #expect(floor.plan.rows[Self.prefix...].allSatisfy(\.isSkipped) && floor.tokens.count == 6)
            for budget in [0.6, 0.8] {
                for prompt in prompts.dropFirst() {
                    let trace = Trace()
                    let result = try model.run(prompt.tokens, budget: budget, maxTokens: 6, trace: trace)
                    #expect(result.plan.rows.contains { $0 != whole.plan.rows[0] })
                    try Self.write(fixture, variant, masking: result.plan, model.loaded.parts.space, to: masked)
                    let reference = try TestModel(masked, threads: 2)
                    var request = EngineRequest(tokens: prompt.tokens, images: [], budget: .fraction(budget), maxTokens: 6)
                    request.plan = reference.loaded.parts.fullPlan
                    let expected = Trace()
                    #expect(try reference.run(request, trace: expected).tokens == result.tokens)
                    for name in ["scheduler_logits", "prefill_last_logits", "step_logits"] {
                        let difference = largestDifference(trace.entries[name]?.values ?? [], expected.entries[name]?.values ?? [.nan])
                        #expect(difference < 2e-4, "\(name) at \(budget), \(prompt.tokens.count) tokens")
                    }
                }
            }
        }
    }

    // A mismatch means that an adaptive model of another architecture is not the same model after a conversion.
    @Test("adaptive models of every architecture survive a conversion", arguments: DecoderFixture.all) func survivesConversion(fixture: DecoderFixture) throws {
        let tokens = try fixture.expected().prompts[2].tokens
        try CheckpointFixtures.withTemporaryFolder { folder in
            let source = folder.appendingPathComponent("model")
            try Self.write(fixture, Self.variants[2], to: source)
            let outputs = (fixture.ggufFiles.isEmpty ? ["f16"] : ["f16", "f16.gguf"]).map(folder.appendingPathComponent)
            var answers: [(tokens: [Int], logits: [Float], adaptive: AdaptiveConfiguration?, plan: ExecutionPlan)] = []
            for output in outputs {
                _ = try CheckpointConverter(source, to: .f16, output: output).run()
                let model = try TestModel(output, threads: 2), trace = Trace()
                #expect(model.decoder.configuration.architecture == fixture.architecture)
                let result = try model.run(tokens, budget: 0.8, maxTokens: 6, trace: trace)
                answers.append(
                    (result.tokens, trace.entries["prefill_last_logits"]?.values ?? [], model.loaded.checkpoint.configuration.adaptive, result.plan))
            }
            let last = try #require(answers.last)
            #expect(answers[0].adaptive == last.adaptive && last.adaptive?.switchesKeyValueGroups == true)
            #expect(answers[0].plan == last.plan)
            // Norms and biases stay in float32 in GGUF.
            #expect(largestDifference(answers[0].logits, last.logits) < 0.05)
        }
    }

    // A mismatch means that an answer depends on what else is computed at the same time.
    @Test("answers the same in a batch", arguments: DecoderFixture.all) func answersTheSameInABatch(fixture: DecoderFixture) throws {
        let prompts = try fixture.expected().prompts
        try CheckpointFixtures.withTemporaryFolder { folder in
            try Self.write(fixture, Self.variants[1], to: folder.appendingPathComponent("model"))
            let model = try TestModel(folder.appendingPathComponent("model"), threads: 2)
            let requests = [(3, 1.0), (1, 0.6), (2, 0.8), (3, 0.7), (0, 0.5)].map { prompt, budget in
                var request = EngineRequest(tokens: prompts[prompt].tokens, images: [], budget: .fraction(budget), maxTokens: 8)
                request.reuses = false
                return request
            }
            let alone = try requests.map { try TestModel(sharing: model).run($0) }
            let tasks = requests.map { GenerationTask($0, cancellation: Cancellation(), onToken: { _ in true }) }
            while tasks.contains(where: { !$0.isDone }) { model.engine.step(tasks) }
            for (task, expected) in zip(tasks, alone) {
                let found = try #require(try task.outcome?.get())
                #expect(found.tokens == expected.tokens && found.plan == expected.plan)
            }
        }
    }

    // A mismatch means that the picture of what a budget looks at shows positions that a window hides.
    @Test("recorded attention keeps to the window") func recordedAttentionKeepsToTheWindow() throws {
        let fixture = try #require(DecoderFixture.all.first { $0.architecture == .mistral })
        let tokens = try fixture.expected().prompts[2].tokens
        try CheckpointFixtures.withTemporaryFolder { folder in
            try Self.write(fixture, Self.variants[0], to: folder.appendingPathComponent("model"))
            let trace = Trace(includesLayers: true, includesAttention: true)
            _ = try TestModel(folder.appendingPathComponent("model"), threads: 2).run(tokens, maxTokens: 1, trace: trace)
            let weights = try #require(trace.entries["latency_attention.1"])
            #expect(weights.shape == [4, 41])
            for head in stride(from: 0, to: weights.values.count, by: 41) {
                let row = weights.values[head ..< head + 41]
                #expect(row.prefix(41 - 24).allSatisfy { $0 == 0 } && row.suffix(24).allSatisfy { $0 > 0 } && abs(row.reduce(0, +) - 1) < 1e-5)
            }
        }
    }

    /// Writes the fixture with a random scheduler.
    /// - Parameter plan: switches that are off in it are multiplied by zero: their columns of the output projections, and the bias of a projection
    ///   none of whose switches is on.
    static func write(
        _ fixture: DecoderFixture, _ variant: Variant, masking plan: ExecutionPlan? = nil, _ space: SwitchSpace? = nil, to folder: URL
    ) throws {
        let json = try fixture.configuration(["model_type": .string(fixture.adaptiveType)])
        try write(json, fixture.tensors(), variant, masking: plan, space, to: folder)
    }

    /// The same of any model, given by its `config.json` and its weights.
    static func write(
        _ json: JSONValue, _ tensors: [(name: String, shape: [Int], values: [Float])], _ variant: Variant, masking plan: ExecutionPlan? = nil,
        _ space: SwitchSpace? = nil, to folder: URL
    ) throws {
        guard case .object(var members) = json else { return }
        members["scheduler_type"] = .string(variant.type)
        members["scheduler_rank"] = .integer(variant.rank)
        members["num_prefix_layers"] = .integer(Self.prefix)
        members["scheduler_kv_groups"] = .bool(variant.grouped)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try CheckpointFixtures.write(.object(members), to: folder.appendingPathComponent("config.json"))
        let language = try ModelConfiguration.read(.object(members), file: "config.json").language
        var tensors = tensors
        if let plan, let space { for index in tensors.indices { mask(&tensors[index], plan, space, language) } }
        var random = SeededGenerator(seed: 7)
        func add(_ name: String, _ shape: [Int], _ scale: Float, around middle: Float = 0) {
            let values = (0 ..< shape.reduce(1, *)).map { _ in middle + (2 * Float(random.unit()) - 1) * scale }
            tensors.append(("scheduler." + name, shape, values))
        }
        let (hidden, switches) = (language.hiddenSize, variant.grouped ? language.numKeyValueHeads : language.numAttentionHeads)
        let outputs = (language.numHiddenLayers - Self.prefix) * (variant.type == "L" ? 1 : 2 * switches)
        add("scheduler_up_proj.net.0.weight", [256], 0.1, around: 1)
        add("scheduler_up_proj.net.0.bias", [256], 0.1)
        add("scheduler_up_proj.net.1.weight", [hidden, 256], 0.1)
        add("scheduler_up_proj.net.1.bias", [hidden], 0.1)
        add("scheduler_up_proj.net.3.weight", [hidden, hidden], 0.3)
        add("scheduler_up_proj.net.3.bias", [hidden], 0.1)
        add("mlp_head.weight", [outputs, hidden], 0.3)
        add("mlp_head.bias", [outputs], 0.1)
        let url = folder.appendingPathComponent("model.safetensors")
        try? FileManager.default.removeItem(at: url)
        try SafetensorsWriter.write(tensors, to: url)
    }

    private static func mask(
        _ tensor: inout (name: String, shape: [Int], values: [Float]), _ plan: ExecutionPlan, _ space: SwitchSpace, _ language: DecoderConfiguration
    ) {
        // Models of images have their decoder's tensors under names of their own.
        let name = tensor.name.replacing("text_model.", with: "").replacing("language_model.", with: "")
        let parts = name.split(separator: ".").map(String.init)
        guard parts.count == 6, parts[1] == "layers", let layer = Int(parts[2]) else { return }
        let row = plan.rows[layer], switches = space.layers[layer]
        let off: [Range<Int>], isOff: Bool
        switch parts[4] {
        case "o_proj", "dense", "out_proj":
            // A convolution's switches own channels, which are columns of its output projection.
            let width = switches.kind == .convolution ? 1 : language.headDim
            off = switches.heads.indices.filter { !row.heads.contains($0) }.map {
                switches.heads[$0].lowerBound * width ..< switches.heads[$0].upperBound * width
            }
            isOff = row.heads.isEmpty
        case "down_proj", "fc2", "w2":
            off = switches.neurons.indices.filter { !row.groups.contains($0) }.map { switches.neurons[$0] }
            isOff = row.groups.isEmpty
        default: return
        }
        if parts[5] == "bias" {
            if isOff { tensor.values = tensor.values.map { _ in 0 } }
            return
        }
        let columns = tensor.shape[1]
        for first in stride(from: 0, to: tensor.values.count, by: columns) {
            for column in off.joined() { tensor.values[first + column] = 0 }
        }
    }
}
