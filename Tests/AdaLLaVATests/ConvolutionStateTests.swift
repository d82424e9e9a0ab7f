import Foundation
import Testing

@testable import AdaLLaVA

/// The states of LFM2's convolutions: through chunks, tokens and batches, shared with later requests, and given back.
@Suite struct ConvolutionStateTests {
    private static let folders = ["lfm2", "lfm2-bias"]

    private func fixture(_ folder: String) throws -> DecoderFixture { try #require(DecoderFixture.all.first { $0.folder == folder }) }

    // A mismatch means that what a convolution has seen is lost, or seen twice, where one step ends and the next begins.
    @Test("streams through chunks and tokens", arguments: folders) func streamsThroughChunksAndTokens(folder: String) throws {
        let fixture = try fixture(folder), model = try TestModel(fixture.url, threads: 2), decoder = model.decoder
        let tokens = Array(try #require(fixture.expected().prompts.last).tokens.prefix(150))
        func logits(_ pieces: [Int]) throws -> [Float] {
            let sequence = TokenSequence(decoder)
            sequence.promptLength = tokens.count
            var first = 0, output: BatchRunner.Output?
            for count in pieces {
                let rows = Tensor(rows: count, columns: decoder.configuration.hiddenSize)
                for row in 0 ..< count { try decoder.embed(tokens[first + row], into: rows, row: row) }
                output = try model.engine.runner.step([
                    BatchSegment(
                        sequence: sequence, role: .chunk, position: first, slot: first, layers: 0 ..< decoder.layers.count, input: .hidden(rows), logitRows: 1)
                ])
                first += count
            }
            return output?.last(0)?.row(0) ?? []
        }
        let whole = try logits([150])
        for pieces in [[1, 149], [2, 1, 1, 146], [63, 1, 1, 85], [64, 64, 22], Array(repeating: 1, count: 150), [3, 130, 1, 1, 15]] {
            #expect(largestDifference(try logits(pieces), whole) < 1e-5, "\(pieces)")
        }
    }

    // A mismatch means that a request goes on from what a convolution saw of another text, or that nothing of a known beginning is used.
    @Test("convolution states are reused only with their prompt", arguments: folders) func promptsAreReused(folder: String) throws {
        let fixture = try fixture(folder), model = try TestModel(fixture.url, threads: 2)
        let prompt = try #require(fixture.expected().prompts.last).tokens
        func check(_ tokens: [Int], cached: Int, _ what: String) throws -> EngineResult {
            let found = try model.run(tokens, maxTokens: 20)
            #expect(try found.tokens == TestModel(sharing: model).run(tokens, maxTokens: 20).tokens, "\(what)")
            #expect(found.cachedPrefix == cached, "\(what)")
            return found
        }
        let first = try check(prompt, cached: 0, "new")
        // The whole prompt but its last token, whose logits have to be computed.
        _ = try check(prompt, cached: 299, "the same again")
        // The next turn goes on after the last token that was fed back.
        _ = try check(prompt + first.tokens + [9, 8, 7], cached: 319, "the next turn")
        // Elsewhere copies are kept every 64 positions.
        _ = try check(Array(prompt.prefix(200)) + [9, 8, 7], cached: 192, "another end")
        _ = try check(Array(prompt.prefix(64)) + [3, 4, 5], cached: 64, "at a copy")
        _ = try check(Array(prompt.prefix(63)) + [3, 4, 5], cached: 0, "before the first copy")
    }

    // A mismatch means that an adaptive model reuses states of another plan, or loses those of its own.
    @Test("adaptive prompts are reused", arguments: ["L", "H"]) func adaptivePromptsAreReused(type: String) throws {
        let fixture = try fixture("lfm2"), prompt = try #require(fixture.expected().prompts.last).tokens
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("model")
            try DecoderFamilyAdaptiveTests.write(fixture, .init(type: type, rank: 1, grouped: false), to: url)
            let model = try TestModel(url, threads: 2)
            for (budget, prefix, rest) in [(0.8, 0, 0), (0.8, 300, 300), (1.0, 300, 0), (0.6, 300, 0), (1.0, 300, 300)] {
                let found = try model.run(prompt, budget: budget, maxTokens: 8)
                let alone = try TestModel(sharing: model).run(prompt, budget: budget, maxTokens: 8)
                #expect(found.tokens == alone.tokens && found.plan == alone.plan && found.cachedPrefix == prefix, "\(budget)")
                #expect(found.cachedRest == rest, "\(budget)")
            }
            let longer = try model.run(prompt + [5, 6, 7], budget: 0.8, maxTokens: 8)
            #expect(try longer.tokens == TestModel(sharing: model).run(prompt + [5, 6, 7], budget: 0.8, maxTokens: 8).tokens && longer.cachedPrefix == 300)
        }
    }

    // A failure means that a cancelled answer keeps memory, or spoils the next one.
    @Test("cancelled requests leave nothing") func cancelledRequestsLeaveNothing() throws {
        let fixture = try fixture("lfm2"), model = try TestModel(fixture.url, threads: 2), prompt = try fixture.expected().prompts[2]
        for end in [1, 3] {
            let cancellation = Cancellation()
            var request = EngineRequest(tokens: prompt.tokens, images: [], budget: .full, maxTokens: 40), count = 0
            request.reuses = false
            #expect(throws: CancellationError.self) {
                _ = try model.engine.generate(request, cancellation: cancellation) { _ in
                    count += 1
                    if count == end { cancellation.cancel() }
                    return true
                }
            }
            #expect(model.engine.runner.pages.usedBytes == 0)
        }
        #expect(try model.run(prompt.tokens, maxTokens: 12).tokens == Array(prompt.greedy.prefix(12)))
    }

    // A failure means that a state grows with every token, or that the memory of a context is promised wrongly.
    @Test("a convolution's state does not grow") func statesAreSmall() throws {
        let fixture = try fixture("lfm2"), model = try TestModel(fixture.url, threads: 2), c = model.decoder.configuration
        let prompt = try #require(fixture.expected().prompts.last).tokens
        let found = try model.run(prompt, maxTokens: 20)
        let row = 64 * MemoryLayout<Float>.stride, attention = 2 * 2 * model.decoder.layout(.f32).pageBytes(heads: 2)
        // Two rows now, two at each of 64, 128, 192, 256, 299 and 300 positions, of each of three layers; at most one copy more is ready.
        let convolutions = found.keyValueBytes - attention
        #expect((3 * 7 * 2 * row ... 3 * 9 * 2 * row).contains(convolutions))
        #expect(model.engine.runner.keyValueBytes(positions: 320) >= found.keyValueBytes)
        #expect(found.keyValueShapes.map { $0 == nil } == c.layerKinds.map { $0 == .convolution })
    }

    // A failure means that two sequences write one state.
    @Test("shared states are copied") func sharedStatesAreCopied() throws {
        let pool = PagePool(), state = ConvolutionState(channels: 32, taps: 3)
        func advance(_ state: ConvolutionState, _ slots: Range<Int>, from value: Float, keepsEnd: Bool) throws {
            try state.reserve(slots, keepsEnd: keepsEnd, pool)
            let rows = Tensor(rows: slots.count, columns: 32)
            for row in 0 ..< slots.count { rows.set(row: row, to: Array(repeating: value + Float(slots.lowerBound + row), count: 32)) }
            state.advance(ConvolutionInputs(state: state, rows: rows, first: 0, slot: slots.lowerBound), count: slots.count, keepsEnd: keepsEnd)
        }
        func last(_ state: ConvolutionState) -> [Float?] {
            let inputs = ConvolutionInputs(state: state, rows: Tensor(rows: 0, columns: 32), first: 0, slot: state.length)
            return [state.length - 2, state.length - 1].map { inputs.row($0)?[31] }
        }
        try advance(state, 0 ..< 1, from: 1000, keepsEnd: false)
        #expect(last(state) == [0, 1000])
        try advance(state, 1 ..< 130, from: 1000, keepsEnd: true)
        #expect(last(state) == [1128, 1129] && [0, 63, 64, 127, 128, 129, 130, 500].map(state.longest) == [0, 0, 64, 64, 128, 129, 130, 130])
        let other = ConvolutionState(sharing: state, length: 129)
        try advance(other, 129 ..< 131, from: 5000, keepsEnd: false)
        #expect(last(other) == [5129, 5130] && last(state) == [1128, 1129])
        let third = ConvolutionState(sharing: state, length: 129)
        try third.reserve(129 ..< 130, keepsEnd: false, pool)
        #expect(last(third) == [1127, 1128] && third.longest(500) == 129)
        try advance(state, 130 ..< 131, from: 1000, keepsEnd: false)
        #expect(state.longest(500) == 130)
        state.seal()
        #expect(state.longest(500) == 131)
        let fourth = ConvolutionState(sharing: state, length: 131)
        try fourth.reserve(131 ..< 132, keepsEnd: false, pool)
        #expect(last(fourth) == [1129, 1130])
    }
}
