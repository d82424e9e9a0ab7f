import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

/// A copy of the repository's small model whose products have biases, and whose scheduler's biases decide every plan: the optional layers run in
/// the order 5, 6, 4, 7, whatever is asked and however strong the noise.
private struct BiasedModel {
    static let order = [5, 6, 4, 7]
    let run: SmallRun
    let source: ModelSource
    let model: TorchModel
    /// Optional units of the batch's samples: nothing, and parts that leave layers without any switch.
    let units: [Int]

    init(_ variant: String) throws {
        var run = try SmallRun()
        let reference = URL(fileURLWithPath: run.recipe.modelNameOrPath), folder = run.folder.url.appendingPathComponent("biased")
        let copies = FileManager.default
        try copies.createDirectory(at: folder, withIntermediateDirectories: true)
        for name in ["generation_config.json", "tokenizer.model", "tokenizer_config.json", "vision_tower"] {
            try copies.copyItem(at: reference.appendingPathComponent(name), to: folder.appendingPathComponent(name))
        }
        let config = try String(contentsOf: reference.appendingPathComponent("config.json"), encoding: .utf8)
            .replacingOccurrences(of: "\"attention_bias\": false", with: "\"attention_bias\": true, \"mlp_bias\": true")
            .replacingOccurrences(of: "\"scheduler_type\": \"L\"", with: "\"scheduler_type\": \"\(variant)\"")
        try Data(config.utf8).write(to: folder.appendingPathComponent("config.json"))

        let (layers, prefix, heads, hidden, intermediate) = (8, 4, 6, 192, 516)
        var random = SplitMix64(seed: 24)
        func uniform(_ count: Int, _ size: Float) -> [Float] { (0 ..< count).map { _ in size * Float(2 * random.unit() - 1) } }
        let stored = try SafetensorsFile(contentsOf: reference.appendingPathComponent("model.safetensors"))
        var tensors: [(name: String, shape: [Int], values: [Float])] = []
        for name in stored.names where !name.hasPrefix("scheduler.mlp_head.") {
            let tensor = try stored.tensor(name)
            // Numbers of patches, which nothing reads.
            if tensor.type == .i64 { continue }
            tensors.append((name, tensor.shape, try tensor.widened()))
        }
        for layer in 0 ..< layers {
            for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
                tensors.append(("model.layers.\(layer).\(part).bias", [hidden], uniform(hidden, 0.3)))
            }
            for part in ["gate_proj", "up_proj"] {
                tensors.append(("model.layers.\(layer).mlp.\(part).bias", [intermediate], uniform(intermediate, 0.3)))
            }
            tensors.append(("model.layers.\(layer).mlp.down_proj.bias", [hidden], uniform(hidden, 0.3)))
        }
        // Far enough apart for any noise, also within a layer.
        let switches = variant == "L" ? 1 : 2 * heads
        var scores: [Float] = []
        for layer in prefix ..< layers {
            let rank = Self.order.firstIndex(of: layer) ?? Self.order.count
            for index in 0 ..< switches { scores.append(Float(10_000 * (Self.order.count - rank) + 1000 * ((5 * index + 3 * (index / heads)) % heads))) }
        }
        tensors.append(("scheduler.mlp_head.weight", [scores.count, hidden], uniform(scores.count * hidden, 0.01)))
        tensors.append(("scheduler.mlp_head.bias", [scores.count], scores))
        try SafetensorsWriter.write(tensors, to: folder.appendingPathComponent("model.safetensors"))

        run.recipe.modelNameOrPath = folder.path
        source = try ModelSource(run.recipe)
        model = try source.makeModel(TorchOptions(), recipe: run.recipe, library: #require(torch))
        units = variant == "L" ? [0, 1, 3] : [0, 4, 7]
        self.run = run
    }

    func budget(_ units: Int) throws -> Budget {
        let all = try #require(source.units)
        return .fraction(Double(all.prefix + units) / Double(all.total))
    }

    func sample(_ prompt: [Int], _ answer: [Int], _ image: RGBImage, units: Int) throws -> TrainingSample {
        let ignored = [Int](repeating: TrainingConversation.ignoredLabel, count: prompt.count)
        let processor = try #require(try source.makeImageProcessor())
        var sample = SampleAssembly(rowsPerImage: source.rowsPerImage, adaptive: true, maximumLength: 512).sample(
            ids: prompt + answer, labels: ignored + answer, pixels: [processor(image, mode: source.imageAspect)])
        (sample.units, sample.latency, sample.seed) = (units, try #require(source.units).normalized(units), UInt64(units))
        return sample
    }

    /// What one pass over the samples computes, by name.
    func intermediates(_ samples: [TrainingSample]) throws -> [String: [Float]] {
        let batch = TorchBatch(samples)
        var seen: [String: [Float]] = [:]
        model.clearGradients()
        _ = try model.accumulate([batch], TorchModel.StepOptions(scored: batch.scored)) { seen[$0] = $1 }
        return seen
    }
}

@Suite(.needsTorch) struct OutputBiasTests {
    @Test("skipped layers leave their output biases out", arguments: ["L", "H"]) func skippedLayersLeaveTheirOutputBiasesOut(variant: String) async throws {
        // A mismatch means that a model with biases learns in layers that add them even where all is off, and answers in layers that do not.
        let biased = try BiasedModel(variant)
        let image = try RGBImage(contentsOf: biased.run.recipe.imageFolder + "/00.png")
        var options = AdaptiveModel.Options()
        options.precision = .f32
        let engine = try await AdaptiveModel(contentsOf: biased.source.folder, options: options)
        let prompt = try engine.tokenize([.question("What is on the left?", images: 1)])
        var samples: [TrainingSample] = []
        var (logits, plans): ([Float], [Float]) = ([], [])
        for units in biased.units {
            let trace = try await engine.trace(tokens: prompt, images: [image], budget: biased.budget(units), maxTokens: 4)
            #expect(trace.summary.units == units)
            samples.append(try biased.sample(prompt, trace.summary.tokens, image, units: units))
            logits += try #require(trace.entries["step_logits"]?.values)
            plans += try #require(trace.entries["plan"]?.values)
        }
        let seen = try biased.intermediates(samples)
        #expect(seen["plan"] == plans)
        #expect(largestDifference(seen["supervised_logits"] ?? [], logits) <= 1e-3)
        // Samples with other plans in the same batch change nothing.
        let width = biased.source.configuration.language.vocabularySize
        var alone: [Float] = []
        for sample in samples { alone += try biased.intermediates([sample])["supervised_logits"] ?? [] }
        #expect(alone.count == samples.reduce(0) { $0 + $1.scored * width })
        #expect(largestDifference(alone, logits) <= 1e-3)
    }

    @Test("biases of skipped layers take no part in learning", arguments: ["L", "H"]) func biasesOfSkippedLayersTakeNoPartInLearning(variant: String) throws {
        // A mismatch means that biases change, or the scheduler is told what to change, by outputs that no answer has.
        let biased = try BiasedModel(variant)
        let image = try RGBImage(contentsOf: biased.run.recipe.imageFolder + "/00.png")
        let samples = try biased.units.map { try biased.sample([1, 5, PromptEncoder.imageToken, 9], [20, 30], image, units: $0) }
        let biases = ["self_attn.o_proj.bias", "mlp.down_proj.bias"]
        func parameter(_ name: String) throws -> TorchModel.Parameter { try #require(biased.model.parameters.first { $0.name == name }) }

        let before = try biased.intermediates(samples)
        for name in biases {
            // No sample runs layer 7, two run 5.
            #expect(try biased.model.read(parameter("model.layers.7.\(name)"), .gradient).allSatisfy { $0 == 0 })
            #expect(try biased.model.read(parameter("model.layers.5.\(name)"), .gradient).contains { $0 != 0 })
            let skipped = try parameter("model.layers.7.\(name)")
            try biased.model.write([Float](repeating: 0, count: skipped.shape[0]), to: skipped)
        }
        let after = try biased.intermediates(samples)
        for name in ["supervised_logits", "grad_of_plan"] { #expect(before[name] != nil && before[name] == after[name], "\(name)") }
        // The scheduler still learns what the skipped layer's heads and neurons would have done.
        let gradient = try #require(before["grad_of_plan"]), layer = 2 * 6
        for sample in samples.indices {
            let last = gradient.dropFirst(sample * 8 * layer + 7 * layer).prefix(layer)
            #expect(last.count == layer && last.allSatisfy { $0 != 0 })
        }
    }
}
