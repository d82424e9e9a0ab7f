import Foundation
import Testing

@testable import AdaLLaVA

/// What an engine keeps of earlier prompts and images: found by content, and the same answers as computing it again.
@Suite struct PromptCacheTests {
    /// Tokens of an answer, the bits of the logits that each was chosen from, and what else there is to compare.
    private struct Answer {
        let result: EngineResult
        let logits: [[UInt32]]

        func expectEqual(_ other: Answer, _ comment: String) {
            #expect(result.tokens == other.result.tokens, "\(comment)")
            #expect(logits == other.logits, "\(comment)")
            #expect(result.plan == other.result.plan && result.keyValueShapes == other.result.keyValueShapes, "\(comment)")
            #expect(result.promptTokens == other.result.promptTokens && result.adaptive?.units == other.result.adaptive?.units, "\(comment)")
        }
    }

    private func answer(_ engine: Engine, _ request: EngineRequest) throws -> Answer {
        let vocabulary = engine.parts.decoder.configuration.vocabularySize
        var logits: [[UInt32]] = []
        let result = try engine.generate(request, cancellation: Cancellation()) { _ in
            // What the newest token was chosen from.
            logits.append(engine.workspace.tensor(.logits, rows: 1, columns: vocabulary).row(0).map(\.bitPattern))
            return true
        }
        #expect(logits.count == result.tokens.count && logits.allSatisfy { $0.allSatisfy { Float(bitPattern: $0).isFinite } })
        return Answer(result: result, logits: logits)
    }

    /// The answer of an engine that knows nothing.
    private func fresh(_ model: TestModel, _ request: EngineRequest) throws -> Answer { try answer(try TestModel(sharing: model).engine, request) }

    private func pixels(_ seed: UInt64, side: Int = 56) -> [Float] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< 3 * side * side).map { _ in Float.random(in: -2 ... 2, using: &random) }
    }

    private func tokens(_ count: Int, seed: UInt64, below: Int = 320) -> [Int] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< count).map { _ in Int.random(in: 3 ..< below, using: &random) }
    }

    private func request(_ tokens: [Int], _ images: [[Float]] = [], budget: Double = 1, maxTokens: Int = 6) -> EngineRequest {
        EngineRequest(tokens: tokens, images: images.map { EngineImage(pixels: $0) }, budget: .fraction(budget), maxTokens: maxTokens)
    }

    static let all: [(String, String)] = ["ada-L", "ada-H"].flatMap { folder in kernelSets.map { (folder, $0) } }

    // A difference means that a second question about an image is answered otherwise than a first one, or that nothing is saved.
    @Test("same image other budgets and questions", arguments: all) func sameImageOtherBudgetsAndQuestions(folder: String, kernels: String) throws {
        for precision in Precision.allCases {
            let model = try TestModel(Fixtures.url(folder), precision: precision, kernels: kernels, threads: 2)
            let image = pixels(1), system = [1] + tokens(9, seed: 2)
            let (first, second) = (tokens(20, seed: 3), tokens(31, seed: 4))
            // 10 tokens, 16 features, the question.
            let shared = 26
            @discardableResult
            func ask(
                _ question: [Int], _ budget: Double, images: Int, prefix: Int, rest: (ExecutionPlan) -> Int, _ comment: String
            ) throws -> ExecutionPlan {
                let request = request(system + [Engine.imageToken] + question, [image], budget: budget)
                let found = try answer(model.engine, request)
                found.expectEqual(try fresh(model, request), "\(precision) \(comment)")
                #expect(found.result.encodedImages == images, "\(precision) \(comment)")
                #expect(found.result.cachedPrefix == prefix, "\(precision) \(comment)")
                #expect(found.result.cachedRest == rest(found.result.plan), "\(precision) \(comment)")
                return found.result.plan
            }
            try ask(first, 1, images: 1, prefix: 0, rest: { _ in 0 }, "first")
            try ask(first, 1, images: 0, prefix: shared + 20, rest: { _ in shared + 20 }, "again")
            let smaller = try ask(first, 0.6, images: 0, prefix: shared + 20, rest: { _ in 0 }, "another budget")
            try ask(first, 0.6, images: 0, prefix: shared + 20, rest: { _ in shared + 20 }, "another budget again")
            try ask(first, 1, images: 0, prefix: shared + 20, rest: { _ in shared + 20 }, "the first budget again")
            try ask(second, 1, images: 0, prefix: shared, rest: { _ in shared }, "another question")
            // The plan may be that of the first question, or another one.
            try ask(second, 0.6, images: 0, prefix: shared + 31, rest: { $0 == smaller ? shared : 0 }, "another question, another budget")
            // A question that goes on where the first one ended.
            try ask(first + second, 1, images: 0, prefix: shared + 20, rest: { _ in shared + 20 }, "a longer question")
            // A beginning of a known prompt.
            try ask(Array(first.prefix(7)), 1, images: 0, prefix: shared + 7, rest: { _ in shared + 7 }, "a shorter question")
        }
    }

    // A failure means that another image is answered with what was computed of the first one, or that one value of a pixel is not content.
    @Test("other images are other content") func otherImagesAreOtherContent() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let prompt = [1] + tokens(20, seed: 5) + [Engine.imageToken] + tokens(20, seed: 6)
        let first = pixels(7)
        var almost = first
        almost[4000] += 0.5
        for (image, encoded, prefix) in [(first, 1, 0), (almost, 1, 21), (first, 0, 57), (almost, 0, 57)] {
            let request = request(prompt, [image])
            let found = try answer(model.engine, request)
            found.expectEqual(try fresh(model, request), "")
            #expect(found.result.encodedImages == encoded && found.result.cachedPrefix == prefix, "\(found.result.cachedPrefix)")
        }
        // Two images in the other order: both are known, their positions are not.
        let two = request([1, Engine.imageToken] + tokens(20, seed: 8) + [Engine.imageToken, 9], [almost, first])
        let turned = request(two.tokens, [first, almost])
        for request in [two, turned] {
            let found = try answer(model.engine, request)
            found.expectEqual(try fresh(model, request), "")
            #expect(found.result.encodedImages == 0 && found.result.cachedPrefix == 0)
        }
    }

    // A failure means that what was evicted is used all the same, that memory grows without bound, or that a prompt that is used often goes first.
    @Test("the least recently used prompts are evicted first", arguments: ["ada-L", "ada-H"]) func evictionByBytes(folder: String) throws {
        let model = try TestModel(Fixtures.url(folder), threads: 2)
        let prompts = (0 ..< 4).map { index in [1] + tokens(60, seed: 10 + UInt64(index)) }
        _ = try answer(model.engine, request(prompts[0]))
        let bytes = model.engine.promptCache.byteCount
        #expect(bytes > 0 && model.engine.promptCache.count == 1)
        var memory = MemoryLimits()
        memory.promptCacheBytes = 2 * bytes + bytes / 2
        let small = try TestModel(sharing: model, memory: memory)
        func ask(_ index: Int, cached: Int, kept: Int) throws {
            let request = request(prompts[index])
            let found = try answer(small.engine, request)
            found.expectEqual(try fresh(model, request), "prompt \(index)")
            #expect(found.result.cachedPrefix == cached, "prompt \(index)")
            #expect(small.engine.promptCache.count == kept && small.engine.promptCache.byteCount <= memory.promptCacheBytes)
        }
        try ask(0, cached: 0, kept: 1)
        try ask(1, cached: 0, kept: 2)
        try ask(0, cached: 61, kept: 2)
        // The second prompt was used least recently.
        try ask(2, cached: 0, kept: 2)
        try ask(0, cached: 61, kept: 2)
        try ask(1, cached: 0, kept: 2)
        try ask(2, cached: 0, kept: 2)
        // Nothing is kept, and nothing is lost by it.
        memory.promptCacheBytes = bytes - 1
        memory.featureCacheBytes = 0
        let none = try TestModel(sharing: model, memory: memory)
        for _ in 0 ..< 2 {
            let request = request(prompts[3] + [Engine.imageToken], [pixels(3)])
            let found = try answer(none.engine, request)
            found.expectEqual(try fresh(model, request), "without a cache")
            #expect(found.result.cachedPrefix == 0 && found.result.encodedImages == 1 && none.engine.promptCache.count == 0)
        }
    }

    // A failure means that kept prompts make a request fail for want of memory that they take, or that its error does not say what there is.
    @Test("cached prompts are evicted for new ones") func keptPromptsMakeRoom() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let page = model.decoder.layout(.f32).pageBytes(heads: 8), all = model.engine.runner.keyValueBytes(positions: 300)
        #expect(all == 2 * 8 * page)
        var memory = MemoryLimits()
        memory.keyValueBytes = all + page
        let small = try TestModel(sharing: model, memory: memory)
        for seed in [UInt64(20), 21, 22] {
            let request = request([1] + tokens(290, seed: seed))
            let found = try answer(small.engine, request)
            found.expectEqual(try fresh(model, request), "\(seed)")
            #expect(small.engine.promptCache.count == 1 && small.engine.runner.pages.usedBytes <= memory.keyValueBytes)
        }
        // Too long for all the memory there may be.
        memory.keyValueBytes = all - page
        let tight = try TestModel(sharing: model, memory: memory)
        let expected = ComputeError.memory(what: "keys and values of 292 positions", bytes: all, used: 0, limit: memory.keyValueBytes)
        #expect(throws: expected) { try answer(tight.engine, request([1] + tokens(290, seed: 23))) }
        // The engine goes on.
        let last = request([1] + tokens(200, seed: 24))
        try answer(tight.engine, last).expectEqual(try fresh(model, last), "after the error")
    }

    // A failure means that measurements are of what was computed before, or that a trace misses what it did not compute.
    @Test("measurements and traces take nothing") func measurementsAndTracesTakeNothing() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2)
        let asked = request([1] + tokens(40, seed: 30) + [Engine.imageToken], [pixels(31)])
        let first = try answer(model.engine, asked)
        var measured = asked
        measured.reuses = false
        let again = try answer(model.engine, measured)
        again.expectEqual(first, "measured")
        #expect(again.result.cachedPrefix == 0 && again.result.cachedRest == 0 && again.result.encodedImages == 1)
        let trace = Trace(includesLayers: true)
        let traced = try model.run(asked, trace: trace)
        #expect(traced.tokens == first.result.tokens && traced.cachedPrefix == 0 && traced.encodedImages == 1)
        #expect(trace.entries["layer_output.0"]?.shape == [58, 64])
        // Nor do they leave anything; a trace leaves its images' features.
        let other = try TestModel(sharing: model)
        _ = try answer(other.engine, measured)
        #expect(other.engine.promptCache.count == 0 && other.engine.runner.pages.usedBytes == 0)
        #expect(try other.run(asked, trace: Trace()).encodedImages == 1)
        #expect(other.engine.promptCache.count == 0 && other.engine.runner.pages.usedBytes == 0)
        let found = try answer(other.engine, asked)
        found.expectEqual(first, "after a trace")
        #expect(found.result.encodedImages == 0 && found.result.cachedPrefix == 0)
    }

    // A failure means that an answer whose plan was taken down halfway leaves keys and values under a plan that they were not computed with.
    @Test("shrunk answers leave nothing wrong", arguments: ["ada-L", "ada-H"]) func shrunkAnswersLeaveNothingWrong(folder: String) throws {
        let model = try TestModel(Fixtures.url(folder), threads: 2)
        let engine = model.engine, adaptive = try #require(model.loaded.parts.adaptive)
        let whole = request([1] + tokens(60, seed: 40), maxTokens: 8), smaller = request(whole.tokens, budget: 0.75, maxTokens: 8)
        let units = adaptive.units.granted(fraction: 0.75)
        #expect(units < adaptive.units.granted(fraction: 1))
        let task = GenerationTask(whole, cancellation: Cancellation(), onToken: { _ in true })
        while !task.isDone {
            engine.step([task])
            if task.result.tokens.count == 3 { #expect(engine.shrink(task, to: units)) }
        }
        let result = try #require(try task.outcome?.get())
        #expect(result.tokens.count == 8 && result.adaptive?.units == units && result.plan == adaptive.scheduler.plan(task.schedulerLogits, units: units))
        for asked in [smaller, whole, smaller, whole] {
            let found = try answer(engine, asked)
            found.expectEqual(try fresh(model, asked), "\(asked.budget)")
            #expect(found.result.cachedPrefix == 61)
        }
    }

    // MARK: - Conversations

    // A failure means that the history of a conversation is read again at every turn, or that a turn is answered otherwise than if it was.
    @Test("six turns of a text", arguments: kernelSets) func sixTurnsOfAText(kernels: String) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            try DecoderChunkTests.write(to: folder.appendingPathComponent("model"), keyValueHeads: 2, expanded: false)
            let model = try TestModel(folder.appendingPathComponent("model"), kernels: kernels, threads: 2)
            var history = [1] + tokens(30, seed: 50, below: 50), known = 0
            for turn in 0 ..< 6 {
                history += tokens(15 + 7 * turn, seed: 60 + UInt64(turn), below: 50)
                let request = request(history, maxTokens: 10)
                let (found, expected) = (try answer(model.engine, request), try fresh(model, request))
                #expect(found.result.tokens == expected.result.tokens, "turn \(turn)")
                // Tokens of earlier answers were computed as single rows, not as a chunk: close, and the same while there are none.
                for (found, expected) in zip(found.logits, expected.logits) {
                    #expect(turn > 0 || found == expected)
                    #expect(largestDifference(found.map { Float(bitPattern: $0) }, expected.map { Float(bitPattern: $0) }) <= 1e-4, "turn \(turn)")
                }
                // All but the last token of the answer before, which was not fed back.
                #expect(found.result.cachedPrefix == known && found.result.cachedRest == 0, "turn \(turn)")
                #expect(model.engine.promptCache.count == 1)
                history += found.result.tokens
                known = history.count - 1
            }
        }
    }

    // A failure means that a conversation about an image is answered otherwise than if all of it was read at each turn, or that nothing of it is kept.
    @Test("six turns of an adaptive model", arguments: all) func sixTurnsOfAnAdaptiveModel(folder: String, kernels: String) throws {
        let model = try TestModel(Fixtures.url(folder), kernels: kernels, threads: 2)
        let image = pixels(70)
        var history = [1] + tokens(8, seed: 71) + [Engine.imageToken], known = 0
        for (turn, budget) in [1, 0.7, 0.7, 1, 0.55, 0.85].enumerated() {
            history += tokens(12 + 5 * turn, seed: 80 + UInt64(turn))
            let request = request(history, [image], budget: budget, maxTokens: 7)
            let found = try answer(model.engine, request)
            found.expectEqual(try fresh(model, request), "turn \(turn)")
            // The answer of the turn before is read again: the latency token stood before it.
            #expect(found.result.cachedPrefix == known, "turn \(turn)")
            #expect(found.result.encodedImages == (turn == 0 ? 1 : 0) && found.result.cachedRest <= known)
            known = found.result.promptTokens
            history += found.result.tokens
        }
    }

    // MARK: - Made-up models

    private func engine(_ c: DecoderConfiguration, _ type: ElementType = .f16) throws -> Engine {
        let (decoder, workspace) = try MadeUpModel.decoder(c, kernels: try #require(kernelSets.last), precision: .f32) { _ in type }
        let parts = ModelParts(name: "made up", decoder: decoder, vision: nil, adaptive: nil, space: SwitchSpace(c, grouped: false))
        return Engine(parts, workspace: workspace)
    }

    // A failure means that a prompt reads pages that the window of an earlier one had left behind.
    @Test("windows that left pages behind") func windowsThatLeftPagesBehind() throws {
        var c = MadeUpModel.shape
        c.slidingWindow = 50
        let engine = try engine(c), prompt = tokens(700, seed: 90, below: 50)
        for count in [700, 700, 300, 660, 120, 130] {
            let request = request(Array(prompt.prefix(count)) + [7], maxTokens: 4)
            let found = try answer(engine, request)
            let other = Engine(engine.parts, workspace: engine.workspace)
            found.expectEqual(try answer(other, request), "\(count)")
        }
    }

    // A failure means that keys which were turned by the frequencies of one length are read under those of another.
    @Test("scalings that depend on the length") func scalingsThatDependOnTheLength() throws {
        var c = MadeUpModel.shape
        c.ropeScaling = .dynamic(factor: 2, originalMaxPositionEmbeddings: 64)
        let engine = try engine(c), prompt = tokens(200, seed: 91, below: 50)
        for (count, cached) in [(150, 0), (150, 149), (180, 0), (40, 0), (60, 40), (180, 179)] {
            let request = request(Array(prompt.prefix(count)), maxTokens: 4)
            let found = try answer(engine, request)
            found.expectEqual(try answer(Engine(engine.parts, workspace: engine.workspace), request), "\(count)")
            #expect(found.result.cachedPrefix == cached, "\(count)")
        }
    }

    // MARK: - The cache by itself

    private func entry(
        _ tokens: [Int32], _ keys: PromptKeys? = nil, plan: ExecutionPlan? = nil, bytes: Int = 0
    ) -> PromptCache.Entry {
        let elements = tokens.map { PromptElement.token($0) }
        let hidden = bytes > 0 ? Tensor(rows: bytes / 128, columns: 32) : nil
        return PromptCache.Entry(
            elements: elements, keys: keys ?? PromptKeys(elements, model: ContentKey("m")), state: PromptState(pages: [], convolutions: []), hidden: hidden,
            plan: plan)
    }

    private func find(_ cache: PromptCache, _ tokens: [Int32], _ keys: PromptKeys? = nil, model: String = "m") -> (entry: PromptCache.Entry, length: Int)? {
        let elements = tokens.map { PromptElement.token($0) }
        return cache.find(elements, keys ?? PromptKeys(elements, model: ContentKey(model)))
    }

    // A failure means that a prompt is not found again although it was kept: its name depends on what the memory held before.
    @Test("equal elements have equal keys") func equalElementsHaveEqualKeys() {
        let image = ContentKey("image"), elements = (0 ..< 40).map { $0 % 5 == 0 ? PromptElement.image(image, row: Int32($0)) : .token(Int32($0)) }
        let keys = PromptKeys(elements, model: image).keys
        #expect(keys.count == 2 && Set(keys).count == 2)
        /// Leaves other values on the stack each time.
        @inline(never) func disturb(_ seed: UInt64) -> UInt64 {
            withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { memory in
                for index in memory.indices { memory[index] = UInt8(truncatingIfNeeded: seed &* UInt64(index + 1) >> 3) }
                return memory.reduce(0) { $0 &+ UInt64($1) }
            }
        }
        for seed in 1 ... 200 as ClosedRange<UInt64> {
            #expect(disturb(seed &* 0x9E37_79B9_7F4A_7C15) >= 0 && PromptKeys(elements, model: image).keys == keys)
        }
        // A token is no row of an image.
        #expect(PromptKeys((0 ..< 16).map { .token($0) }, model: image).keys != PromptKeys((0 ..< 16).map { .image(image, row: $0) }, model: image).keys)
    }

    // A failure means that two prompts whose keys are equal by chance, or by intent, are taken for each other.
    @Test("forged keys reuse nothing wrong") func forgedKeysReuseNothingWrong() {
        let cache = PromptCache(limit: 1 << 20)
        let keys = PromptKeys(forged: [ContentKey(forged: 1), ContentKey(forged: 2)])
        cache.insert(entry(Array(0 ..< 40), keys))
        // Other content under the same keys: not at all, or as far as it is the same.
        #expect(find(cache, Array(100 ..< 140), keys) == nil)
        #expect(find(cache, [99] + Array(1 ..< 40), keys) == nil)
        #expect(find(cache, Array(0 ..< 15) + [99] + Array(16 ..< 40), keys) == nil)
        #expect(find(cache, Array(0 ..< 20) + [99] + Array(21 ..< 40), keys)?.length == 20)
        #expect(find(cache, Array(0 ..< 40), keys)?.length == 40)
        // Several entries under one key.
        cache.insert(entry(Array(100 ..< 150), keys))
        cache.insert(entry(Array(0 ..< 25) + [99], keys))
        #expect(cache.count == 3)
        #expect(find(cache, Array(100 ..< 140), keys)?.length == 40)
        #expect(find(cache, Array(0 ..< 25) + [99, 98], keys)?.length == 26)
        #expect(find(cache, Array(0 ..< 40), keys)?.length == 40)
        #expect(find(cache, Array(200 ..< 240), keys) == nil)
        // Keys of another length than the elements.
        let many = PromptKeys(forged: (0 ..< 100).map { ContentKey(forged: $0) })
        #expect(find(cache, [0, 1, 2], many) == nil)
        #expect(find(cache, [], many) == nil && find(cache, Array(0 ..< 40), PromptKeys(forged: [])) == nil)
        // Image rows are told from tokens and from other images.
        let row = PromptElement.image(ContentKey(forged: 5), row: 3)
        #expect(row != .image(ContentKey(forged: 6), row: 3) && row != .image(ContentKey(forged: 5), row: 4) && row != .token(3))
    }

    // A failure means that one prompt is found under another model, precision or kernel set, or that a key does not depend on all that stands before.
    @Test("keys are of everything before") func keysAreOfEverythingBefore() {
        let tokens = (0 ..< 64).map { PromptElement.token(Int32($0)) }
        let keys = PromptKeys(tokens, model: ContentKey("m")).keys
        #expect(keys.count == 4 && Set(keys).count == 4)
        #expect(PromptKeys(Array(tokens.prefix(63)), model: ContentKey("m")).keys == Array(keys.prefix(3)))
        #expect(Set(PromptKeys(tokens, model: ContentKey("n")).keys).isDisjoint(with: keys))
        for index in [0, 15, 16, 47] {
            var changed = tokens
            changed[index] = .image(ContentKey("i"), row: 0)
            let found = PromptKeys(changed, model: ContentKey("m")).keys
            for (block, (found, key)) in zip(found, keys).enumerated() { #expect((found == key) == (block < index / 16)) }
        }
        let cache = PromptCache(limit: 1 << 20)
        cache.insert(entry(Array(0 ..< 64)))
        #expect(find(cache, Array(0 ..< 64))?.length == 64 && find(cache, Array(0 ..< 64), model: "n") == nil)
        #expect(find(cache, Array(0 ..< 50) + [99])?.length == 50 && find(cache, Array(0 ..< 15)) == nil)
    }

    // A failure means that a prompt which is used often goes before one that is not, that contained ones are kept twice, or that bytes are miscounted.
    @Test("least recently used goes first") func leastRecentlyUsedGoesFirst() {
        func prompt(_ index: Int32) -> [Int32] { Array(100 * index ..< 100 * index + 32) }
        let size = entry(prompt(0), bytes: 4096).byteCount
        #expect(size == 4096 + 32 * MemoryLayout<PromptElement>.stride)
        let cache = PromptCache(limit: 3 * size)
        for index in 0 ..< 3 { cache.insert(entry(prompt(Int32(index)), bytes: 4096)) }
        #expect(cache.count == 3 && cache.byteCount == 3 * size)
        #expect(find(cache, prompt(0)) != nil)
        cache.insert(entry(prompt(3), bytes: 4096))
        #expect(cache.count == 3 && cache.byteCount == 3 * size)
        #expect(find(cache, prompt(1)) == nil && find(cache, prompt(0)) != nil && find(cache, prompt(2)) != nil && find(cache, prompt(3)) != nil)
        // A larger one takes the place of several.
        let large = entry(prompt(4), bytes: 2 * 4096)
        cache.insert(large)
        #expect(cache.byteCount <= cache.limit && find(cache, prompt(4)) != nil && find(cache, prompt(0)) == nil)
        // What is larger than everything allowed is not kept, and drives nothing out.
        let count = cache.count
        cache.insert(entry(prompt(5), bytes: 4 * 4096))
        #expect(cache.count == count && find(cache, prompt(5)) == nil && find(cache, prompt(4)) != nil)
        while cache.evict() {}
        #expect(cache.count == 0 && cache.byteCount == 0 && find(cache, prompt(4)) == nil && !cache.evict())
        // A longer prompt holds the shorter one, under the same plan.
        let plan = ExecutionPlan.full(layers: 2, heads: 2)
        cache.insert(entry(Array(0 ..< 20)))
        cache.insert(entry(Array(0 ..< 20), plan: plan))
        #expect(cache.count == 2)
        cache.insert(entry(Array(0 ..< 40), plan: plan))
        #expect(cache.count == 2 && find(cache, Array(0 ..< 40))?.entry.plan == plan)
        cache.insert(entry(Array(0 ..< 40)))
        #expect(cache.count == 2)
    }

    // A failure means that features of many images take all memory, or that an image that is asked about again and again is encoded anew.
    @Test("image features are kept within their limit") func featuresByBytes() {
        let features = Tensor(rows: 4, columns: 32), size = 4 * 32 * 4
        var cache = FeatureCache(limit: 2 * size + 7)
        let keys = (0 ..< 4).map { ContentKey("\($0)") }
        cache.insert(keys[0], features)
        cache.insert(keys[1], features)
        #expect(cache.byteCount == 2 * size && cache.find(keys[0]) != nil)
        cache.insert(keys[2], features)
        #expect(cache.byteCount == 2 * size)
        #expect(cache.find(keys[1]) == nil && cache.find(keys[0]) != nil && cache.find(keys[2]) != nil)
        cache.insert(keys[2], Tensor(rows: 2, columns: 32))
        #expect(cache.byteCount == size + size / 2 && cache.find(keys[2])?.rows == 2)
        cache.insert(keys[3], Tensor(rows: 9, columns: 32))
        #expect(cache.find(keys[3]) == nil && cache.find(keys[0]) != nil)
    }
}
