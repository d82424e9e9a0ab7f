import AdaKernels
import Foundation
import Testing

@testable import AdaLLaVA

/// Answers whose tokens are drafted and verified, against the same answers token by token.
@Suite struct SpeculationTests {
    private static let scenes = Fixtures.models.appendingPathComponent("scenes-ref")

    private static func url(_ name: String) -> URL {
        switch name {
        case "scenes": scenes
        case "L", "H": Fixtures.models.appendingPathComponent("scenes/" + name)
        default: Fixtures.url(name)
        }
    }

    /// Text requests with budgets, lengths, ends and samplings of their own.
    private static func requests(_ model: TestModel, count: Int = 12, seed: UInt64, longest: Int = 40) -> [EngineRequest] {
        var random = SeededGenerator(seed: seed)
        let vocabulary = model.decoder.configuration.vocabularySize, adaptive = model.loaded.parts.adaptive
        let words = (0 ..< 30).map { _ in Int.random(in: 3 ..< vocabulary, using: &random) }
        return (0 ..< count).map { index in
            // Few words, so that n-grams repeat.
            let length = [3, 20, 90, 33, 1, 150, 17, 64][index % 8] + index
            let tokens = [1] + (0 ..< length).map { _ in words[Int.random(in: 0 ..< (index % 3 == 0 ? 4 : 30), using: &random)] }
            let budget = adaptive == nil ? 1 : [1, 0.75, 0.9, 0.5, 0.6][index % 5]
            var request = EngineRequest(tokens: tokens, images: [], budget: .fraction(budget), maxTokens: [longest, 1, 30, 7, 2][index % 5])
            if index % 3 == 1 { (request.sampling.temperature, request.sampling.seed) = (0.8, UInt64(index)) }
            if index % 4 == 2 { request.sampling.repetitionPenalty = 1.1 }
            if index % 5 == 2 { request.endTokens = Set((0 ..< 10).map { _ in Int.random(in: 3 ..< vocabulary, using: &random) }) }
            if index % 5 == 2, index % 2 == 0 { request.minTokens = 9 }
            request.reuses = index % 2 == 0
            return request
        }
    }

    private static func speculating(_ request: EngineRequest, _ speculation: Speculation) -> EngineRequest {
        var request = request
        request.speculation = speculation
        return request
    }

    private static func expectSame(_ found: EngineResult, _ expected: EngineResult, _ what: Comment) {
        #expect(found.tokens == expected.tokens && found.finish == expected.finish && found.plan == expected.plan, what)
        #expect(found.keyValueShapes == expected.keyValueShapes && found.keyValueBytes == expected.keyValueBytes, what)
    }

    static let models: [(String, String)] = ["ada-L", "ada-H"].flatMap { name in kernelSets.map { (name, $0) } }

    // A difference means that asking for speed changes what a person is told.
    @Test("answers are the same with drafts of the prefix layers", arguments: models, Precision.allCases)
    func floorDrafts(model: (String, String), precision: Precision) throws {
        let model = try TestModel(Self.url(model.0), precision: precision, kernels: model.1, threads: 2)
        let requests = Self.requests(model, count: 6, seed: 5)
        let expected = try requests.map { try model.run($0) }
        var total = SpeculationCounts()
        for speculation in [Speculation.tokens(1), .tokens(5), .tokens(Speculation.mostTokens), .auto] {
            for (index, request) in requests.enumerated() {
                let result = try model.run(Self.speculating(request, speculation))
                Self.expectSame(result, expected[index], "request \(index), \(speculation)")
                let counts = try #require(result.speculation)
                #expect(counts.accepted <= counts.drafted && counts.accepted < max(result.tokens.count, 1), "request \(index), \(speculation)")
                (total.drafted, total.accepted) = (total.drafted + counts.drafted, total.accepted + counts.accepted)
                total.verifications += counts.verifications
            }
        }
        #expect(total.verifications > 20 && total.accepted < total.drafted)
    }

    // A difference means that the embedded model answers otherwise than without drafts, or that its floor has stopped to predict its answers.
    @Test("the embedded models accept drafts", arguments: ["L", "H"]) func embeddedModels(name: String) throws {
        let model = try TestModel(Self.url(name), precision: .automatic, threads: 2)
        let requests = Self.requests(model, count: 16, seed: 8)
        var counts = SpeculationCounts()
        for (index, request) in requests.enumerated() {
            let expected = try model.run(request), found = try model.run(Self.speculating(request, .tokens(4)))
            Self.expectSame(found, expected, "request \(index)")
            counts.drafted += found.speculation?.drafted ?? 0
            counts.accepted += found.speculation?.accepted ?? 0
        }
        #expect(counts.accepted > 20 && counts.drafted > counts.accepted)
    }

    // A difference means that a text model answers otherwise when it looks its drafts up.
    @Test("answers are the same with looked-up drafts", arguments: kernelSets, Precision.allCases) func lookups(kernels: String, precision: Precision) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            try DecoderChunkTests.write(to: folder.appendingPathComponent("model"), keyValueHeads: 2, expanded: false)
            let model = try TestModel(folder.appendingPathComponent("model"), precision: precision, kernels: kernels, threads: 2)
            // Long enough to pass from one page to the next.
            let requests = Self.requests(model, count: 6, seed: 6, longest: 270)
            var counts = SpeculationCounts()
            for (index, request) in requests.enumerated() {
                let expected = try model.run(request)
                for speculation in [Speculation.tokens(4), .tokens(Speculation.mostTokens), .auto] {
                    let found = try model.run(Self.speculating(request, speculation))
                    Self.expectSame(found, expected, "request \(index), \(speculation)")
                    counts.drafted += found.speculation?.drafted ?? 0
                    counts.accepted += found.speculation?.accepted ?? 0
                }
            }
            #expect(counts.accepted > 50 && counts.drafted > counts.accepted)
        }
    }

    // A difference means that drafts of one answer change another one that is computed at the same time.
    @Test("speculating answers share steps with others", arguments: ["ada-L", "ada-H", "scenes", "text"]) func sharedSteps(name: String) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            if name == "text" { try DecoderChunkTests.write(to: folder.appendingPathComponent("model"), keyValueHeads: 2, expanded: false) }
            let model = try TestModel(name == "text" ? folder.appendingPathComponent("model") : Self.url(name), precision: .automatic, threads: 2)
            let requests = Self.requests(model, count: 16, seed: 9)
            let expected = try requests.map { try TestModel(sharing: model).run($0) }
            for seed in [UInt64(1), 2] {
                let engine = try TestModel(sharing: model).engine
                let tasks = requests.enumerated().map { index, request in
                    let speculation = [Speculation.tokens(3), .off, .auto, .tokens(7)][index % 4]
                    return GenerationTask(Self.speculating(request, speculation), cancellation: Cancellation(), onToken: { _ in true })
                }
                var random = SeededGenerator(seed: seed), admitted = 0
                while tasks.contains(where: { !$0.isDone }) {
                    admitted = min(admitted + Int.random(in: 0 ... 2, using: &random), tasks.count)
                    engine.step(tasks.prefix(admitted).filter { !$0.isDone && Int.random(in: 0 ..< 5, using: &random) > 0 }.shuffled(using: &random))
                }
                for (index, task) in tasks.enumerated() { Self.expectSame(try #require(try task.outcome?.get()), expected[index], "request \(index), order \(seed)") }
                while engine.promptCache.evict() {}
                #expect(engine.runner.pages.usedBytes == 0)
            }
        }
    }

    // A failure means that a reader, a stop text, probabilities or a filter see tokens that are not the answer's.
    @Test("readers and filters see the answer's tokens only", arguments: ["ada-L", "L"]) func readers(name: String) throws {
        final class EvenTokens: TokenFilter {
            var accepted: [Int] = []
            func mask(_ logits: UnsafeMutableBufferPointer<Float>) throws {
                // What may follow depends on what came.
                for token in logits.indices where (token + accepted.count) % 2 == 1 { logits[token] = -.infinity }
            }
            func accept(_ token: Int) { accepted.append(token) }
        }
        struct Seen: Equatable {
            var tokens: [Int] = []
            var probabilities: [Double] = []
            var result: [Int] = []
        }
        let model = try TestModel(Self.url(name), threads: 2)
        func answer(_ request: EngineRequest, stopAfter: Int) throws -> (Seen, EngineResult) {
            var seen = Seen()
            let task = GenerationTask(
                request, cancellation: Cancellation(),
                onToken: {
                    seen.tokens.append($0)
                    return seen.tokens.count < stopAfter
                }, onProbabilities: { chosen, likeliest in seen.probabilities += [chosen.logProbability] + likeliest.map(\.logProbability) })
            while !task.isDone { model.engine.step([task]) }
            let result = try #require(try task.outcome?.get())
            seen.result = result.tokens
            return (seen, result)
        }
        for (index, var request) in Self.requests(model, count: 10, seed: 12).enumerated() {
            request.logProbabilities = 3
            if index % 2 == 0 { request.filter = { EvenTokens() } }
            let stopAfter = index % 3 == 0 ? 5 + index : 1000
            let (expected, plain) = try answer(request, stopAfter: stopAfter)
            let (found, result) = try answer(Self.speculating(request, .tokens(6)), stopAfter: stopAfter)
            #expect(found == expected, "request \(index)")
            Self.expectSame(result, plain, "request \(index)")
        }
    }

    // A failure means that an answer goes on after its reader has gone.
    @Test("a cancelled answer ends within a draft") func cancellation() throws {
        let model = try TestModel(Self.url("L"), threads: 2)
        for request in Self.requests(model, count: 6, seed: 8) where request.maxTokens > 4 {
            let cancellation = Cancellation()
            var count = 0
            let task = GenerationTask(
                Self.speculating(request, .tokens(8)), cancellation: cancellation,
                onToken: { _ in
                    count += 1
                    if count == 3 { cancellation.cancel() }
                    return true
                })
            while !task.isDone { model.engine.step([task]) }
            #expect(throws: CancellationError.self) { try task.outcome?.get() }
            #expect(count == 3)
        }
    }

    // A failure means that keys of tokens that were taken back change later ones, or that rows of one sequence in one step are not computed as if alone.
    @Test("keys that were taken back are never seen", arguments: kernelSets, Precision.allCases) func rollback(kernels: String, precision: Precision) throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: kernels, precision: precision) { _ in .f16 }
        let runner = BatchRunner(decoder, workspace), layers = 0 ..< decoder.layers.count
        var random = SeededGenerator(seed: 3)
        let text = (0 ..< 400).map { _ in Int.random(in: 0 ..< 50, using: &random) }
        let plain = SequenceReader(decoder, promptLength: 5), speculating = SequenceReader(decoder, promptLength: 5)
        _ = try runner.step([plain.chunk(text[..<5])])
        _ = try runner.step([speculating.chunk(text[..<5])])
        let expected = try text[5...].map { token in try #require(try runner.bits([plain.single(token)])[0]) }
        var length = 5
        while length < text.count - Speculation.mostTokens {
            // Some right tokens, then wrong ones.
            let rows = Int.random(in: 1 ... Speculation.mostTokens + 1, using: &random), right = Int.random(in: 1 ... rows, using: &random)
            let tokens = (0 ..< rows).map { $0 < right ? text[length + $0] : Int.random(in: 0 ..< 50, using: &random) }
            let segment = BatchSegment(
                sequence: speculating.sequence, role: .single, position: length, slot: length, layers: layers, input: .tokens(tokens), logitRows: rows)
            let output = try runner.step([segment])
            let logits = try #require(output.all(0))
            for row in 0 ..< right { #expect(logits.row(row).map(\.bitPattern) == expected[length + row - 5], "slot \(length + row)") }
            length += right
            speculating.sequence.truncate(to: length)
            let pages = (length + KeyValueLayout.slots - 1) / KeyValueLayout.slots
            #expect(speculating.sequence.keyValueBytes == pages * layers.count * decoder.layout(workspace.kernels.precision).pageBytes(heads: 2))
        }
    }

    // A failure means that drafts are written into keys that another sequence reads.
    @Test("drafts leave shared pages alone") func sharedPages() throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: kernelSets[0]) { _ in .f16 }
        let runner = BatchRunner(decoder, workspace), layers = 0 ..< decoder.layers.count
        let text = (0 ..< 40).map { ($0 * 7) % 50 }
        let first = SequenceReader(decoder, promptLength: 20), second = SequenceReader(decoder, promptLength: 20)
        _ = try runner.step([first.chunk(text[..<20])])
        second.sequence.share(first.sequence.state, layers: layers, length: 20)
        let draft = BatchSegment(
            sequence: second.sequence, role: .single, position: 20, slot: 20, layers: layers, input: .tokens([9, 8, 7, 6]), logitRows: 4)
        let before = try runner.bits([first.single(text[20])])
        _ = try runner.step([draft])
        let plain = SequenceReader(decoder, promptLength: 20)
        _ = try runner.step([plain.chunk(text[..<20])])
        #expect(try runner.bits([plain.single(text[20])]) == before)
        for token in text[21...] { #expect(try runner.bits([plain.single(token)]) == runner.bits([first.single(token)])) }
    }

    // A failure means that a model whose states cannot be taken back, or that forgets keys behind a window, answers otherwise.
    @Test("windows and convolutions keep their answers", arguments: ["gemma3", "gemma3-scaled", "mistral", "lfm2", "phi2", "qwen2"]) func families(folder: String) throws {
        let model = try TestModel(Fixtures.url("decoders/" + folder), threads: 2)
        for (index, var request) in Self.requests(model, count: 8, seed: 15, longest: 80).enumerated() {
            // States of convolutions that are kept for others count as memory of whoever uses them.
            request.reuses = false
            let expected = try model.run(request)
            let found = try model.run(Self.speculating(request, .tokens(5)))
            Self.expectSame(found, expected, "request \(index)")
            #expect((found.speculation == nil) == folder.hasPrefix("lfm2"))
        }
    }

    // A failure means that sampled answers with drafts are drawn from another distribution.
    @Test("sampled answers keep their distribution") func distribution() throws {
        let model = try TestModel(Self.url("ada-L"), threads: 2)
        var request = EngineRequest(tokens: [1, 5, 9, 20], images: [], budget: .full, maxTokens: 3)
        (request.sampling.temperature, request.sampling.topK) = (1.5, 4)
        let draws = 800
        func counts(_ speculation: Speculation, seed: UInt64) throws -> [Int: Double] {
            var counts: [Int: Double] = [:]
            for draw in 0 ..< draws {
                request.sampling.seed = seed + UInt64(draw)
                let tokens = try model.run(Self.speculating(request, speculation)).tokens
                counts[tokens[2], default: 0] += 1
            }
            return counts
        }
        let plain = try counts(.off, seed: 1), drafted = try counts(.tokens(2), seed: 1_000_000)
        let tokens = Set(plain.keys).union(drafted.keys).filter { plain[$0, default: 0] + drafted[$0, default: 0] >= 10 }
        let chiSquare = tokens.reduce(0.0) { sum, token in
            let (a, b) = (plain[token, default: 0], drafted[token, default: 0])
            return sum + (a - b) * (a - b) / (a + b)
        }
        // Mean of the distribution: one less than there are tokens; five deviations.
        let freedom = Double(tokens.count - 1)
        #expect(freedom > 5 && chiSquare < freedom + 5 * (2 * freedom).squareRoot(), "\(chiSquare) at \(freedom)")
        // The same seed draws the same tokens, whatever was drafted.
        for draw in 0 ..< 50 {
            request.sampling.seed = UInt64(draw)
            #expect(try model.run(request).tokens == model.run(Self.speculating(request, .tokens(2))).tokens)
        }
    }
}
