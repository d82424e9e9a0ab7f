import Foundation
import Testing

@testable import AdaLLaVA

/// Schedulers with random weights for models that have none.
@Suite struct UntrainedSchedulerTests {
    private func converter(_ source: URL, _ scheduler: UntrainedScheduler, _ output: URL) throws -> CheckpointConverter {
        try CheckpointConverter(source, to: .f32, scheduler: scheduler, output: output)
    }

    @Test("A text model becomes adaptive: the full budget runs everything, a smaller one leaves out heads after the prefix", arguments: [true, false])
    func textModels(isGGUF: Bool) throws {
        let fixture = try #require(DecoderFixture.all.first { $0.architecture == .llama } ?? DecoderFixture.all.first)
        let source = isGGUF ? fixture.url.appendingPathComponent(try #require(fixture.ggufFiles.first)) : fixture.url
        let layers = try Checkpoint.open(at: source).configuration.language.numHiddenLayers
        let tokens = try fixture.expected().prompts[2].tokens
        try CheckpointFixtures.withTemporaryFolder { folder in
            for (type, name) in [(AdaptiveConfiguration.SchedulerType.layers, "L"), (.heads, "H")] {
                let output = folder.appendingPathComponent(name)
                _ = try converter(source, UntrainedScheduler(type, prefixLayers: 1, seed: 3), output).run()
                let model = try TestModel(output, threads: 2)
                let adaptive = try #require(model.loaded.checkpoint.configuration.adaptive)
                #expect(adaptive == AdaptiveConfiguration(schedulerType: type, schedulerRank: 1, numPrefixLayers: 1))
                #expect(model.decoder.configuration.architecture == fixture.architecture && adaptive.numPrefixLayers < layers)
                let part = try model.run(tokens, budget: 0.75, maxTokens: 4), whole = try model.run(tokens, maxTokens: 4)
                func heads(_ plan: ExecutionPlan) -> Int { plan.rows.reduce(0) { $0 + $1.heads.count } }
                #expect(heads(whole.plan) == layers * model.decoder.configuration.numAttentionHeads && heads(part.plan) < heads(whole.plan))
                #expect(part.plan.rows[0] == whole.plan.rows[0])
            }
        }
    }

    @Test("The same seed gives the same file, another seed another scheduler and the same other weights")
    func seeds() throws {
        let fixture = try #require(DecoderFixture.all.first)
        try CheckpointFixtures.withTemporaryFolder { folder in
            let files = try [1, 1, 2].enumerated().map { index, seed in
                let output = folder.appendingPathComponent("\(index)")
                _ = try converter(fixture.url, UntrainedScheduler(.layers, prefixLayers: 1, seed: UInt64(seed)), output).run()
                return try SafetensorsFile(contentsOf: output.appendingPathComponent("model.safetensors"))
            }
            for name in files[0].names {
                let bytes = try files.map { Array(try $0.tensor(name).bytes) }
                #expect(bytes[0] == bytes[1], "\(name)")
                let isDrawn = name.hasPrefix("scheduler.") && !name.contains("net.0.")
                #expect((bytes[0] == bytes[2]) != isDrawn, "\(name)")
            }
            #expect(files[0].names.count { $0.hasPrefix("scheduler.") } == 8)
        }
    }

    @Test("A model in transformers' nested layout can have one")
    func nestedLayout() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("hf")
            _ = try converter(CheckpointFixtures.fixture("llava-hf/new-layout"), UntrainedScheduler(.layers, prefixLayers: 1), output).run()
            #expect(try Checkpoint.open(at: output).configuration.adaptive?.numPrefixLayers == 1)
        }
    }

    @Test("Models that cannot have one are refused before anything is written")
    func refusals() throws {
        let fixture = try #require(DecoderFixture.all.first)
        let layers = try Checkpoint.open(at: fixture.url).configuration.language.numHiddenLayers
        try CheckpointFixtures.withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("out")
            func message(_ source: URL, _ scheduler: UntrainedScheduler, _ output: URL) -> String {
                do { _ = try converter(source, scheduler, output).run() } catch { return "\(error)" }
                return ""
            }
            #expect(message(Fixtures.url("ada-L"), UntrainedScheduler(.layers, prefixLayers: 1), output).contains("a scheduler already"))
            #expect(message(fixture.url, UntrainedScheduler(.layers, prefixLayers: layers), output).contains("num_prefix_layers"))
            #expect(message(fixture.url, UntrainedScheduler(.layers, prefixLayers: 0), output).contains("num_prefix_layers"))
            #expect(message(fixture.url, UntrainedScheduler(.heads, rank: 1000, prefixLayers: 1), output).contains("scheduler_rank"))
            #expect(message(fixture.url, UntrainedScheduler(.layers, prefixLayers: 1), folder.appendingPathComponent("out.gguf")).contains(".gguf"))
            let left = try Files.names(in: folder)
            #expect(left.isEmpty)
        }
    }
}
