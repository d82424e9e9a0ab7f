import Foundation
import Testing

@testable import AdaLLaVA

/// Qwen2, Mistral and Phi-2 against transformers: `Tests/Fixtures/decoders`, recorded by `Tests/Tools/record_decoders.py`.
@Suite struct DecoderFamilyTests {
    static let all: [(DecoderFixture, String)] = DecoderFixture.all.flatMap { fixture in kernelSets.map { (fixture, $0) } }

    // A mismatch means that an architecture computes something else than transformers, or that one of the files it comes in is misread.
    @Test("answers as transformers does", arguments: all) func answersAsTransformersDoes(fixture: DecoderFixture, kernels: String) throws {
        let expected = try fixture.expected()
        try fixture.forEachForm { form, url in
            let model = try TestModel(url, kernels: kernels, threads: 2)
            #expect(model.decoder.configuration.architecture == fixture.architecture, "\(form)")
            for prompt in expected.prompts {
                let trace = Trace()
                let result = try model.run(prompt.tokens, maxTokens: prompt.greedy.count, trace: trace)
                let difference = largestDifference(trace.entries["prefill_last_logits"]?.values ?? [], prompt.logits)
                #expect(difference < 2e-4, "\(form), \(prompt.tokens.count) tokens")
                #expect(result.tokens == prompt.greedy, "\(form), \(prompt.tokens.count) tokens")
            }
        }
    }

    // A mismatch means that what runs by default drifts further than 16-bit keys and values explain.
    @Test("automatic precision stays close", arguments: all) func automaticPrecisionStaysClose(fixture: DecoderFixture, kernels: String) throws {
        let model = try TestModel(fixture.url, precision: .automatic, kernels: kernels, threads: 2)
        for prompt in try fixture.expected().prompts {
            let trace = Trace()
            _ = try model.run(prompt.tokens, maxTokens: 1, trace: trace)
            #expect(largestDifference(trace.entries["prefill_last_logits"]?.values ?? [], prompt.logits) < 0.05, "\(prompt.tokens.count) tokens")
        }
    }

    // A mismatch means that skipping heads, neurons or layers of an architecture is not the same as multiplying them by zero.
    @Test("skipping switches equals multiplying them by zero", arguments: all) func skippingEqualsMasking(fixture: DecoderFixture, kernels: String) throws {
        let expected = try fixture.expected()
        try fixture.forEachForm { form, url in
            let checkpoint = try Checkpoint.open(at: url)
            let workspace = try Workspace(threads: 2, precision: .f32, kernels: kernels)
            let language = checkpoint.configuration.language
            let decoder = try Decoder(
                checkpoint.language, language, packer: WeightPacker(kernels: workspace.kernels, pool: workspace.pool),
                switched: 0 ..< language.numHiddenLayers, cancellation: Cancellation()
            ) { _ in }
            let space = SwitchSpace(language, grouped: false)
            #expect(space.layers[0].neurons.map(\.count) == expected.groupSizes)
            let runner = BatchRunner(decoder, workspace, pages: PagePool())
            for plan in expected.plans {
                let rows = plan.layers.map { ExecutionPlan.Row(heads: $0.heads, groups: $0.groups) }
                let selections = ExecutionPlan(headCount: expected.headCount, rows: rows).selections(space, decoder)
                for result in plan.results {
                    let tokens = try #require(expected.prompts.first { $0.tokens.count == result.prompt }).tokens
                    // At once, and the last token by itself, as answers are read.
                    for first in [tokens.count, tokens.count - 1] {
                        let logits = try self.logits(tokens, first: first, selections, runner)
                        #expect(largestDifference(logits, result.logits) < 2e-4, "\(form), \(plan.name), \(first) of \(tokens.count) tokens")
                    }
                }
            }
        }
    }

    /// Logits of the last token when the first `first` tokens are one chunk and the others single rows.
    private func logits(_ tokens: [Int], first: Int, _ selections: [LayerSelection], _ runner: BatchRunner) throws -> [Float] {
        let decoder = runner.decoder, sequence = TokenSequence(decoder)
        sequence.promptLength = tokens.count
        sequence.select(selections, from: 0)
        let prompt = Tensor(rows: first, columns: decoder.configuration.hiddenSize)
        for row in 0 ..< first { try decoder.embed(tokens[row], into: prompt, row: row) }
        let layers = 0 ..< decoder.layers.count
        var output = try runner.step([
            BatchSegment(sequence: sequence, role: .chunk, position: 0, slot: 0, layers: layers, input: .hidden(prompt), logitRows: 1)
        ])
        for position in first ..< tokens.count {
            output = try runner.step([
                BatchSegment(
                    sequence: sequence, role: .single, position: position, slot: position, layers: layers, input: .token(tokens[position]),
                    logitRows: 1)
            ])
        }
        return output.last(0)?.row(0) ?? []
    }

    // A mismatch means that pages which a window has left behind are still read, or given back too early, when a prompt is found in the cache.
    @Test("windows and the cache of prompts agree") func windowsAndTheCacheOfPromptsAgree() throws {
        let fixture = try #require(DecoderFixture.all.first { $0.architecture == .mistral })
        let model = try TestModel(fixture.url, threads: 2), prompt = try #require(fixture.expected().prompts.last)
        #expect(model.decoder.configuration.slidingWindow == 24)
        var history = prompt.tokens
        for turn in 0 ..< 3 {
            let found = try model.run(history, maxTokens: 40)
            let alone = try TestModel(sharing: model).run(history, maxTokens: 40)
            #expect(found.tokens == alone.tokens, "turn \(turn)")
            #expect(turn == 0 ? found.cachedPrefix == 0 : found.cachedPrefix > 300)
            if turn == 0 { #expect(Array(found.tokens.prefix(12)) == prompt.greedy) }
            history += found.tokens + [5, 7, 11]
        }
        // What the window left behind cannot serve a prompt that goes another way there.
        let other = history.prefix(270) + [9, 8, 7]
        #expect(try model.run(Array(other), maxTokens: 8).tokens == TestModel(sharing: model).run(Array(other), maxTokens: 8).tokens)
        // Of 24 positions, two pages hold all that a later query sees.
        let long = try model.run(history, maxTokens: 8)
        let language = model.decoder.configuration
        let page = model.decoder.layout(.f32).pageBytes(heads: language.numKeyValueHeads)
        #expect(long.keyValueBytes <= 2 * page * language.numHiddenLayers)
    }
}
