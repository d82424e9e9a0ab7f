import Foundation
import Testing

@testable import AdaLLaVA

/// `Tests/Fixtures/scheduler`: draws, their gradients, and whole schedulers of full size.
@Suite struct SchedulerFixtureTests {
    struct CaseFile: Decodable {
        struct Single: Decodable {
            let id: String
            let size: Int
            let tau: Float
            let masked: Int
            let top: Int?
        }
        struct Layers: Decodable {
            let id: String
            let n: Int
            let tau: Float
        }
        struct Heads: Decodable {
            let id: String
            let layers, heads, rank, n: Int
            let tau: Float
        }
        struct Inference: Decodable {
            let id: String
            let type: String
            let hiddenSize, numHiddenLayers, numPrefixLayers, numAttentionHeads: Int
            let schedulerRank: Int?
        }
        let tauUsedByModel: Float
        let singleStep, singleStepTopk: [Single]
        let nTimes: [Layers]
        let nTimesHeads: [Heads]
        let inferenceNoNoise: [Inference]
    }

    let cases: CaseFile
    let recorded: Recorded

    init() throws {
        cases = try Fixtures.json("scheduler/cases.json")
        recorded = try Recorded("scheduler/expected.safetensors")
    }

    /// Rows of a recorded matrix; none when it is empty.
    private func rows(_ name: String) throws -> [[Float]] {
        let values = try recorded.values(name)
        let shape = try recorded.file.tensor(name).shape
        return (0 ..< shape[0]).map { Array(values[$0 * shape[1] ..< ($0 + 1) * shape[1]]) }
    }

    // A mismatch means that training would pick other switches than the reference from the same noise, or learn from other gradients.
    @Test("one Gumbel draw and its gradient are the reference's") func oneDraw() throws {
        #expect(cases.singleStep.count == 6)
        #expect(cases.singleStepTopk.count == 6)
        for item in cases.singleStep + cases.singleStepTopk {
            let taken = try recorded.values(item.id + ".mask").map { $0 > 0 }
            #expect(taken.filter { $0 }.count == item.masked, "\(item.id)")
            let draw = try GumbelDraw(
                logits: recorded.values(item.id + ".logits"), taken: taken, noise: recorded.values(item.id + ".noise"), temperature: item.tau,
                top: item.top ?? 1)
            #expect(try draw.hard == recorded.values(item.id + ".sample"), "\(item.id)")
            if let soft = try recorded.find(item.id + ".soft") { #expect(largestDifference(draw.soft, soft) <= 1e-6, "\(item.id)") }
            let gradient = try draw.gradient(recorded.values(item.id + ".weight"))
            #expect(try largestDifference(gradient, recorded.values(item.id + ".grad")) <= 1e-6, "\(item.id)")
        }
    }

    // A mismatch means that variant L trains, or answers, with other layers than the reference.
    @Test("draws of layers are the reference's") func drawsOfLayers() throws {
        #expect(cases.nTimes.count == 10)
        for item in cases.nTimes {
            let logits = try recorded.values(item.id + ".logits")
            let selection = try GumbelLayerSampling(logits: logits, draws: item.n, noise: rows(item.id + ".noise"), temperature: item.tau)
            #expect(try selection.sample == recorded.values(item.id + ".sample"), "\(item.id)")
            let gradient = try selection.gradient(recorded.values(item.id + ".weight"))
            #expect(try largestDifference(gradient, recorded.values(item.id + ".grad")) <= 1e-6, "\(item.id)")
            let inference = GumbelLayerSampling(logits: logits, draws: item.n).sample
            #expect(try inference == recorded.values(item.id + ".inference_sample"), "\(item.id)")
        }
    }

    // A mismatch means that variant H trains, or answers, with other heads and neurons than the reference, or learns from other gradients.
    @Test("draws of heads and groups are the reference's") func drawsOfHeads() throws {
        #expect(cases.nTimesHeads.count == 11)
        for item in cases.nTimesHeads {
            let logits = try recorded.values(item.id + ".logits")
            let (layer, attention, mlp) = try (
                rows(item.id + ".noise_layer"), rows(item.id + ".noise_attention"), rows(item.id + ".noise_mlp")
            )
            let noise = layer.indices.map { GumbelHeadSampling.Noise(layer: layer[$0], attention: attention[$0], mlp: mlp[$0]) }
            let selection = GumbelHeadSampling(
                logits: logits, heads: item.heads, rank: item.rank, draws: item.n, noise: noise, temperature: item.tau)
            #expect(try selection.sample == recorded.values(item.id + ".sample"), "\(item.id)")
            let gradient = try selection.gradient(recorded.values(item.id + ".weight"))
            #expect(try largestDifference(gradient, recorded.values(item.id + ".grad")) <= 1e-6, "\(item.id)")
            let inference = GumbelHeadSampling(logits: logits, heads: item.heads, rank: item.rank, draws: item.n).sample
            #expect(try inference == recorded.values(item.id + ".inference_sample"), "\(item.id)")
            #expect(GumbelHeadSampling.greedySample(logits: logits, heads: item.heads, rank: item.rank, draws: item.n) == inference, "\(item.id)")
        }
    }

    // A mismatch means that a model of real size gets another latency token, other scores or another plan than in the reference.
    @Test("a scheduler of real size is the reference's", arguments: kernelSets) func wholeScheduler(kernels: String) throws {
        let workspace = try Workspace(threads: 2, precision: .f32, kernels: kernels)
        let packer = WeightPacker(kernels: workspace.kernels, pool: workspace.pool)
        #expect(cases.inferenceNoNoise.count == 3)
        for item in cases.inferenceNoNoise {
            let weights = item.id + ".weights."
            let source = try RenamedTensors(recorded.file) { $0.hasPrefix(weights) ? String($0.dropFirst(weights.count)) : nil }
            let adaptive = try AdaptiveConfiguration(
                schedulerType: #require(AdaptiveConfiguration.SchedulerType(rawValue: item.type)), schedulerRank: item.schedulerRank ?? 1,
                numPrefixLayers: item.numPrefixLayers)
            let llama = DecoderConfiguration(
                vocabularySize: 320, hiddenSize: item.hiddenSize, intermediateSize: 64, numHiddenLayers: item.numHiddenLayers,
                numAttentionHeads: item.numAttentionHeads)
            let encoder = try LatencyEncoder(source, hiddenSize: item.hiddenSize, packer: packer)
            let scheduler = try Scheduler(
                source, adaptive, SwitchSpace(llama, grouped: false), hiddenSize: item.hiddenSize, packer: packer)
            let units = BudgetUnits(adaptive, layers: item.numHiddenLayers, heads: item.numAttentionHeads)

            let latencies = try recorded.values(item.id + ".latency")
            let (embeddings, inputs, scores) = try (rows(item.id + ".embedding"), rows(item.id + ".input"), rows(item.id + ".logits"))
            let plans = try Array(recorded.file.tensor(item.id + ".plan").bytes).map { Float($0) }
            let planSize = item.numHiddenLayers * 2 * item.numAttentionHeads
            #expect(plans.count == latencies.count * planSize)
            for (index, latency) in latencies.enumerated() {
                let granted = units.granted(fraction: latency)
                let embedding = encoder(units.normalized(granted), workspace)
                #expect(largestDifference(embedding.values, embeddings[index]) <= 1e-5, "\(item.id) at \(latency)")
                let logits = scheduler.logits(Tensor(inputs[index]), workspace)
                #expect(largestDifference(logits, scores[index]) <= 1e-5, "\(item.id) at \(latency)")
                let plan = scheduler.plan(logits, units: granted)
                #expect(plan.mask[...] == plans[index * planSize ..< (index + 1) * planSize], "\(item.id) at \(latency)")
            }
        }
    }

    // A failure means that equal scores make the plan depend on chance or on the processor.
    @Test("first index wins ties") func firstIndexWinsTies() {
        #expect(GumbelLayerSampling(logits: [1, 3, 3, 3, 2], draws: 2).sample == [0, 1, 1, 0, 0])
        let heads = GumbelHeadSampling(logits: [Float](repeating: 0, count: 16), heads: 4, rank: 2, draws: 1)
        #expect(heads.sample == [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    // A failure means that a temperature's rounding decides between close scores at inference: 3 and its successor are equal once
    // divided by 5.
    @Test("temperature does not touch inference") func temperatureDoesNotTouchInference() {
        let close: [Float] = [3, Float(3).nextUp]
        #expect(GumbelDraw(logits: close, taken: [false, false], noise: [0, 0]).chosen == [0])
        #expect(GumbelDraw(logits: close, taken: [false, false]).chosen == [1])
    }

    // A failure means that a request gets another plan than the one that training would have drawn without noise.
    @Test("greedy sample is that of the draws") func greedySampleIsThatOfTheDraws() {
        var random = SeededGenerator(seed: 21)
        for _ in 0 ..< 400 {
            let (heads, layers, rank) = (Int(random.next() % 6) + 1, Int(random.next() % 5), Int(random.next() % 4))
            let logits = (0 ..< layers * 2 * heads).map { _ in
                // Few values, so that many are equal, and some that are never drawn.
                [Float.nan, -.infinity, .infinity, -1, 0, 0.5, 0.5, 1, 2, 3][Int(random.next() % 10)]
            }
            let units = Int(random.next() % 20) - 1
            let expected = GumbelHeadSampling(logits: logits, heads: heads, rank: rank, draws: units).sample
            #expect(GumbelHeadSampling.greedySample(logits: logits, heads: heads, rank: rank, draws: units) == expected, "\(logits) \(heads) \(rank) \(units)")
        }
    }

    // A failure means that asking for more than there is crashes, or switches something on twice.
    @Test("nothing is drawn twice") func nothingIsDrawnTwice() {
        #expect(GumbelLayerSampling(logits: [1, 2], draws: 5).sample == [1, 1])
        #expect(GumbelLayerSampling(logits: [1, 2], draws: -1).sample == [0, 0])
        // Three heads in pairs: the second round of a layer finds one of each left.
        let heads = GumbelHeadSampling(logits: [6, 5, 4, 3, 2, 1], heads: 3, rank: 2, draws: 9)
        #expect(heads.sample == [1, 1, 1, 1, 1, 1])
        #expect(heads.rounds.count == 2)
        let nothing = GumbelDraw(logits: [1, 2], taken: [true, true], noise: [0, 0])
        #expect(nothing.chosen.isEmpty)
        #expect(nothing.soft == [0, 0])
        #expect(nothing.gradient([1, 2] as [Float]) == [0, 0])
        #expect(GumbelDraw(logits: [.nan, 1, -.infinity], taken: [false, false, false], top: 3).chosen == [1])
    }
}
