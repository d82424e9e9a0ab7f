import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

/// A recorded training step of the reference: `train/L`, `train/H`.
struct RecordedStep {
    struct Case: Decodable {
        let inputIds, labels, attentionMask: [[Int]]
        let units, insertPosition: [Int]
        let latency: [Float]
        let loss: Double
        let lengthsAfterInsertion: [Int]
        let turns: [[String]]
    }

    let recorded: Case
    let expected: SafetensorsFile
    let checkpoint: Checkpoint
    let model: TorchModel

    init(_ variant: String, change: (inout TorchOptions) -> Void = { _ in }) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        recorded = try decoder.decode(Case.self, from: Data(contentsOf: Fixtures.url("train/\(variant)/case.json")))
        expected = try SafetensorsFile(contentsOf: Fixtures.url("train/\(variant)/expected.safetensors"))
        checkpoint = try Checkpoint.open(at: Fixtures.url("ada-\(variant)"))
        var options = TorchOptions()
        change(&options)
        model = try TorchModel(checkpoint.configuration, options: options, library: #require(torch))
        try model.load(checkpoint)
        for parameter in model.parameters where !parameter.name.hasPrefix("vision_model.") && !parameter.name.contains(".lora_") {
            try model.setTraining(parameter, learningRate: 1e-3, weightDecay: 0)
        }
    }

    /// The recorded samples, assembled by the trainer from the recorded ids and labels.
    func samples() throws -> [TrainingSample] {
        let pixels = try expected.floats("pixel_values")
        let adaptive = try #require(checkpoint.configuration.adaptive)
        let language = checkpoint.configuration.language
        let units = BudgetUnits(adaptive, layers: language.numHiddenLayers, heads: language.numAttentionHeads)
        return recorded.inputIds.indices.map { index in
            let length = recorded.attentionMask[index].reduce(0, +)
            var sample = SampleAssembly(rowsPerImage: 16, adaptive: true, maximumLength: 2048).sample(
                ids: Array(recorded.inputIds[index].prefix(length)), labels: Array(recorded.labels[index].prefix(length)),
                pixels: [Array(pixels[index * pixels.count / 2 ..< (index + 1) * pixels.count / 2])])
            sample.units = units.granted(fraction: recorded.latency[index])
            sample.latency = units.normalized(sample.units)
            return sample
        }
    }

    /// The recorded noise of the samples in these places, in the batch's layout.
    func noise(_ places: some Sequence<Int>) throws -> [Float] {
        try places.flatMap { index -> [Float] in
            if expected.find("noise.\(index)") != nil { return try expected.floats("noise.\(index)") }
            let parts = try ["noise_layer", "noise_attention", "noise_mlp"].map { try expected.floats("\($0).\(index)") }
            return (0 ..< recorded.units[index]).flatMap { unit in
                parts.flatMap { part in
                    let width = part.count / recorded.units[index]
                    return Array(part[unit * width ..< (unit + 1) * width])
                }
            }
        }
    }

    func batch(_ places: Range<Int> = 0 ..< 2) throws -> TorchBatch {
        var batch = TorchBatch(Array(try samples()[places]))
        batch.noise = try noise(places)
        return batch
    }

    /// Every recorded gradient must be met, and there must be no other.
    func expectRecordedGradients(sourceLocation: SourceLocation = #_sourceLocation) throws {
        var compared = 0
        for parameter in model.parameters {
            let found = try model.read(parameter, .gradient)
            guard expected.find("grad." + parameter.name) != nil else {
                #expect(found.allSatisfy { $0 == 0 }, "\(parameter.name) has a gradient", sourceLocation: sourceLocation)
                continue
            }
            let wanted = try expected.floats("grad." + parameter.name)
            let tolerance = 2e-5 + 1e-4 * (wanted.map(abs).max() ?? 0)
            #expect(largestDifference(found, wanted) <= tolerance, "\(parameter.name)", sourceLocation: sourceLocation)
            compared += 1
        }
        #expect(compared == expected.names.count { $0.hasPrefix("grad.") }, sourceLocation: sourceLocation)
    }
}

@Suite(.needsTorch) struct TrainingStepTests {
    @Test("samples are assembled as recorded", arguments: ["L", "H"]) func samplesAreAssembledAsRecorded(variant: String) throws {
        // A mismatch means that the latency token or the image features stand elsewhere than in the reference, so the model learns to be
        // asked in a form in which nobody asks.
        let step = try RecordedStep(variant)
        for (index, sample) in try step.samples().enumerated() {
            #expect(sample.tokens.firstIndex(of: TrainingSample.latencyToken) == step.recorded.insertPosition[index])
            #expect(sample.tokens.count == step.recorded.lengthsAfterInsertion[index])
            #expect(sample.units == step.recorded.units[index])
        }
    }

    @Test("one step matches the reference", arguments: ["L", "H"]) func oneStepMatchesTheReference(variant: String) throws {
        // A mismatch means that training here follows another gradient than the paper's.
        let step = try RecordedStep(variant)
        let batch = try step.batch()
        var seen: [String: [Float]] = [:]
        let results = try step.model.accumulate([batch], TorchModel.StepOptions(scored: batch.scored)) { seen[$0] = $1 }
        let loss = try #require(results.first).lossSum / Double(batch.scored)
        #expect(abs(loss - step.recorded.loss) <= 1e-5 * step.recorded.loss)
        #expect(batch.scored == (try step.expected.tensor("supervised_positions")).shape[0])
        #expect(seen["plan"] == (try step.expected.floats("plan")))
        for name in ["latency_embedding", "scheduler_input", "scheduler_logits", "supervised_logits"] {
            let tolerance: Float = name == "latency_embedding" ? 1e-5 : 3e-4
            #expect(largestDifference(seen[name] ?? [], try step.expected.floats(name)) <= tolerance, "\(name)")
        }
        for name in step.expected.names where name.hasPrefix("grad_of_") {
            let wanted = try step.expected.floats(name)
            #expect(largestDifference(seen[name] ?? [], wanted) <= 2e-5 + 1e-4 * (wanted.map(abs).max() ?? 0), "\(name)")
        }
        try step.expectRecordedGradients()
    }

    @Test("one AdamW step matches the reference", arguments: ["L", "H"]) func oneAdamWStepMatchesTheReference(variant: String) throws {
        // A mismatch means that the optimizer is not torch.optim.AdamW, so published recipes do not carry over.
        let step = try RecordedStep(variant)
        for parameter in step.model.parameters where step.expected.find("grad." + parameter.name) != nil {
            try step.model.write(try step.expected.floats("grad." + parameter.name), to: parameter, .gradient)
        }
        _ = try step.model.update(TorchModel.UpdateOptions())
        var compared = 0
        for parameter in step.model.parameters where step.expected.find("after." + parameter.name) != nil {
            let difference = largestDifference(try step.model.read(parameter), try step.expected.floats("after." + parameter.name))
            #expect(difference <= 1e-6, "\(parameter.name)")
            compared += 1
        }
        #expect(compared == step.expected.names.count { $0.hasPrefix("after.") })
    }

    @Test("checkpointing and splitting change nothing", arguments: ["L", "H"]) func checkpointingAndSplittingChangeNothing(variant: String) throws {
        // A mismatch means that gradient_checkpointing, or the number of batches that a step is computed in, changes what is learned.
        let step = try RecordedStep(variant) {
            $0.gradientCheckpointing = true
            $0.workers = 2
        }
        let batches = try [step.batch(0 ..< 1), step.batch(1 ..< 2)]
        let results = try step.model.accumulate(batches, TorchModel.StepOptions(scored: batches[0].scored + batches[1].scored))
        let loss = results.reduce(0) { $0 + $1.lossSum } / Double(results.reduce(0) { $0 + $1.scored })
        #expect(abs(loss - step.recorded.loss) <= 1e-5 * step.recorded.loss)
        try step.expectRecordedGradients()
    }

    @Test("bfloat16 stays near float32") func bfloat16StaysNearFloat32() throws {
        // A mismatch means that bf16: true trains something else than float32 does.
        let step = try RecordedStep("H") { $0.bfloat16 = true }
        let batch = try step.batch()
        let results = try step.model.accumulate([batch], TorchModel.StepOptions(scored: batch.scored))
        let loss = try #require(results.first).lossSum / Double(batch.scored)
        #expect(abs(loss - step.recorded.loss) <= 2e-2 * step.recorded.loss)
        #expect(loss != step.recorded.loss)
    }
}
