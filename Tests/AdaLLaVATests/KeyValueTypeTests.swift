import AdaKernels
import Foundation
import Testing

@testable import AdaLLaVA

/// Keys and values in 8 bits, through whole decoders: half the memory, and the same answers however they are computed.
@Suite struct KeyValueTypeTests {
    typealias Row = ExecutionPlan.Row

    /// A whole layer, layers of some heads, and one that does not run.
    private static let plan = [
        Row(heads: [0, 1, 2, 3, 4, 5], groups: [0, 1, 2, 3, 4, 5]), Row(heads: [0, 2, 4], groups: [1, 4]), Row(heads: [], groups: []),
        Row(heads: [3, 5], groups: [0, 1, 5]),
    ]

    /// Heads of 16 and of 18 values, which are no whole group of four; the latter with a window in every layer.
    private static var shapes: [DecoderConfiguration] {
        var odd = MadeUpModel.shape
        (odd.headDim, odd.rotaryDim, odd.slidingWindow) = (18, 18, 70)
        return [MadeUpModel.shape, odd]
    }

    private func tokens(_ count: Int, seed: UInt64 = 4, below: Int = 50) -> [Int] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< count).map { _ in Int.random(in: 3 ..< below, using: &random) }
    }

    private func reader(_ decoder: Decoder, _ plan: [Row]?, promptLength: Int) -> SequenceReader {
        let selections = plan.map { $0.enumerated().map { $0 == 0 ? decoder.whole : LayerSelection($1, decoder.configuration) } }
        return SequenceReader(decoder, selections: selections, promptLength: promptLength)
    }

    private func runner(_ decoder: Decoder, _ workspace: Workspace, pages: PagePool = PagePool()) -> BatchRunner {
        BatchRunner(decoder, workspace, pages: pages, keyValues: .q8)
    }

    // MARK: - Memory

    // A failure means that a long context takes more memory than the flag promises, or that the server admits too few requests.
    @Test("8 bits take half the memory, and a scale for each row") func halfTheMemory() throws {
        for headDim in [16, 64, 80, 128] {
            let (half, whole) = (KeyValueLayout(headDim: headDim, type: AK_Q8_0), KeyValueLayout(headDim: headDim, type: AK_F16))
            #expect(half.pageBytes(heads: 3) * 2 * headDim == whole.pageBytes(heads: 3) * (headDim + 2))
        }
        var shape = MadeUpModel.shape
        (shape.headDim, shape.rotaryDim) = (64, 64)
        let (decoder, workspace) = try MadeUpModel.decoder(shape, kernels: try #require(kernelSets.last)) { _ in .q8_0 }
        // Of the whole context, reserved and used, and of a plan that drops heads.
        for plan in [nil, Self.plan] {
            let runners = KeyValueType.allCases.map { BatchRunner(decoder, workspace, pages: PagePool(), keyValues: $0) }
            let used = try runners.map { runner in
                let reader = reader(decoder, plan, promptLength: 300)
                _ = try runner.step([try reader.chunk(tokens(300))])
                #expect(reader.sequence.keyValueBytes == runner.pages.usedBytes)
                let heads = reader.sequence.layers.reduce(0) { $0 + ($1?.heads.count ?? 0) }
                #expect(heads == (plan == nil ? 8 : 5))
                #expect(runner.pages.usedBytes == 2 * heads * runner.keyValueBytes(positions: 1) / 8)
                return runner.pages.usedBytes
            }
            #expect(used[1] * 64 == used[0] * 33)
        }
        #expect(KeyValueType.f16.bits(.automatic) == 16 && KeyValueType.f16.bits(.f32) == 32 && KeyValueType.q8.bits(.f32) == 8)
        #expect(KeyValueType(rawValue: "q8_0") == .q8 && KeyValueType(rawValue: "q4_0") == nil)
    }

    // MARK: - The same answers

    // A difference means that an answer depends on how its prompt was cut into pieces, or on who else is answered: the rows of a chunk must meet each other's
    // keys as they are stored.
    @Test("chunks of any size and company change nothing", arguments: kernelSets, [ElementType.q8_0, .bf16])
    func chunksAndCompany(kernels: String, type: ElementType) throws {
        for shape in Self.shapes {
            let (decoder, workspace) = try MadeUpModel.decoder(shape, kernels: kernels) { _ in type }
            let prompt = tokens(300)
            for plan in [nil, Self.plan] {
                func read(chunk: Int, company: Bool = false) throws -> [[UInt32]] {
                    let runner = runner(decoder, workspace), reader = reader(decoder, plan, promptLength: prompt.count)
                    let other = self.reader(decoder, nil, promptLength: 900)
                    var logits: [[UInt32]?] = []
                    for start in stride(from: 0, to: prompt.count, by: chunk) {
                        let rows = try reader.chunk(prompt[start ..< min(start + chunk, prompt.count)])
                        logits = [try runner.bits([rows] + (company ? [try other.chunk(tokens(37, seed: 9))] : []))[0]]
                    }
                    for token in 5 ..< 12 { logits.append(try runner.bits([reader.single(token)] + (company ? [other.single(9)] : []))[0]) }
                    return logits.compactMap { $0 }
                }
                let whole = try read(chunk: prompt.count)
                #expect(whole.count == 8 && Set(whole).count == 8 && whole.allSatisfy { $0.allSatisfy { Float(bitPattern: $0).isFinite } })
                for chunk in [1, 33, 256] { #expect(try read(chunk: chunk) == whole, "chunks of \(chunk)") }
                #expect(try read(chunk: 100, company: true) == whole)
            }
        }
    }

    // A failure means that what lay in a page before reaches an answer, a scale that is no number above all.
    @Test("used pages do not show", arguments: kernelSets) func usedPages(kernels: String) throws {
        for type in [ElementType.q8_0, .bf16] {
            let (decoder, workspace) = try MadeUpModel.decoder(kernels: kernels) { _ in type }
            func read(_ pages: PagePool) throws -> [[UInt32]?] {
                let runner = runner(decoder, workspace, pages: pages)
                return try [1, 17, 257].flatMap { rows in
                    let reader = reader(decoder, Self.plan, promptLength: rows)
                    return try runner.bits([try reader.chunk(tokens(rows))]) + (0 ..< 18).flatMap { try runner.bits([reader.single($0)]) }
                }
            }
            let used = PagePool(), layout = decoder.layout(.automatic, .q8)
            do {
                let dirty = try [1, 2].flatMap { heads in try (0 ..< 12).map { _ in try used.take(layout.pageBytes(heads: heads)) } }
                for page in dirty { page.address.initializeMemory(as: UInt8.self, repeating: 0xff, count: page.byteCount) }
            }
            #expect(used.spareBytes > 0)
            #expect(try read(used) == read(PagePool()))
        }
    }

    // A failure means that 8 bits cost more accuracy than rounding explains, or that the option is ignored.
    @Test("logits are close to those of 16 bits", arguments: kernelSets) func closeToSixteenBits(kernels: String) throws {
        for shape in Self.shapes {
            let (decoder, workspace) = try MadeUpModel.decoder(shape, kernels: kernels, precision: .f32) { _ in .f32 }
            let logits = try KeyValueType.allCases.map { type in
                let runner = BatchRunner(decoder, workspace, pages: PagePool(), keyValues: type), reader = reader(decoder, Self.plan, promptLength: 200)
                _ = try runner.step([try reader.chunk(tokens(200))])
                return try #require(try runner.step([reader.single(7)]).last(0)).values
            }
            let size = (logits[0].reduce(0) { $0 + $1 * $1 } / Float(logits[0].count)).squareRoot()
            #expect(logits[0] != logits[1] && largestDifference(logits[0], logits[1]) < 0.05 * size)
        }
    }

    // MARK: - Engines

    private func pixels(_ seed: UInt64) -> [Float] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< 3 * 56 * 56).map { _ in Float.random(in: -2 ... 2, using: &random) }
    }

    // A difference means that a second turn of a chat, another budget or a prompt in place of an evicted one is answered otherwise than alone, or that
    // rows which were dropped inside the decoder are mistaken for others.
    @Test("kept prompts are reused, evicted and computed again", arguments: ["ada-L", "ada-H"], [nil, "fastv:k=3,r=0.5"])
    func promptCache(folder: String, selection: String?) throws {
        var memory = MemoryLimits()
        memory.keyValueType = .q8
        let checkpoint = try Checkpoint.open(at: Fixtures.url(folder)).selecting(try TokenSelection(parsing: selection.map { [$0] } ?? []))
        let model = try TestModel(Fixtures.url(folder), precision: .automatic, threads: 2, memory: memory) { $0 = checkpoint }
        func request(_ tokens: [Int], budget: Double) -> EngineRequest {
            EngineRequest(tokens: tokens, images: [EngineImage(pixels: pixels(3))], budget: .fraction(budget), maxTokens: 6)
        }
        let first = [1] + tokens(9, seed: 2, below: 320) + [Engine.imageToken] + tokens(30, seed: 3, below: 320)
        let turns = [first, first + tokens(40, seed: 5, below: 320), first]
        for (turn, prompt) in turns.enumerated() {
            for budget in [1, 0.75] {
                let found = try model.run(request(prompt, budget: budget)), alone = try TestModel(sharing: model, memory: memory).run(request(prompt, budget: budget))
                #expect(found.tokens == alone.tokens && found.plan == alone.plan && found.keyValueShapes == alone.keyValueShapes)
                #expect(found.keyValueType == .q8 && found.keyValueBytes > 0 && (turn == 0 || found.cachedPrefix > 0) && alone.cachedPrefix == 0)
            }
        }
        let kept = model.engine.promptCache.byteCount
        var small = memory
        small.promptCacheBytes = kept / 2
        let tight = try TestModel(sharing: model, memory: small)
        for prompt in turns + turns {
            #expect(try tight.run(request(prompt, budget: 1)).tokens == model.run(request(prompt, budget: 1)).tokens)
            #expect(tight.engine.promptCache.byteCount <= small.promptCacheBytes)
        }
    }

    // A failure means that pages of one type could be taken for another's, or that times measured with one predict the other's.
    @Test("a model with another type is another model") func keys() throws {
        var memory = MemoryLimits()
        let model = try TestModel(Fixtures.url("ada-L"), precision: .automatic, threads: 1, memory: memory)
        memory.keyValueType = .q8
        let other = try TestModel(sharing: model, memory: memory)
        #expect(model.engine.modelKey != other.engine.modelKey)
        #expect(model.engine.modelKey == (try TestModel(sharing: model)).engine.modelKey)
        let identities = KeyValueType.allCases.map { model.loaded.timings(model.engine.workspace, $0, in: nil).identity }
        #expect(Set(identities).count == identities.count)
        // What admission reckons with.
        #expect(other.engine.keyValueBytes(positions: 300) < model.engine.keyValueBytes(positions: 300))
        #expect(other.engine.load([]).keyValueType == .q8 && model.engine.load([]).keyValueType == .f16)
        #expect(other.engine.load([]).keyValueBytesPerToken < model.engine.load([]).keyValueBytesPerToken)
    }
}
