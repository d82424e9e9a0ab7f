import AdaKernels
import Testing

@testable import AdaLLaVA

/// Rows of several sequences in one step, against the same rows alone.
@Suite struct BatchRunnerTests {
    typealias Row = ExecutionPlan.Row

    /// Whole layers, layers that are cut in every way, and one that does not run.
    private static let plan = [
        Row(heads: [0, 1, 2, 3, 4, 5], groups: [0, 1, 2, 3, 4, 5]), Row(heads: [0, 2, 4], groups: [1, 4]), Row(heads: [], groups: []),
        Row(heads: [3, 5], groups: [0, 1, 5]),
    ]
    /// What else a plan can do: attention or a feed-forward network alone, layers that others skip, a last layer that is skipped.
    private static let plans: [[Row]?] = [
        nil, plan, [plan[0], Row(heads: [], groups: []), Row(heads: [1], groups: [2, 3]), Row(heads: [], groups: [])],
        [plan[0], Row(heads: [0, 1, 2], groups: []), Row(heads: [], groups: [0, 3]), plan[0]],
        [plan[0], plan[0], plan[0], Row(heads: [4, 5], groups: [0])], plan,
    ]

    private static let types: [ElementType] = [.q8_0, .q4_0, .f16, .bf16, .f32]

    private static func selections(_ plan: [Row]?, _ decoder: Decoder) -> [LayerSelection]? {
        plan.map { $0.enumerated().map { $0 == 0 ? decoder.whole : LayerSelection($1, decoder.configuration) } }
    }

    /// A shape whose matrices all have whole blocks of 32 inputs, so that quantized types are used throughout.
    private static var wholeBlocks: DecoderConfiguration {
        DecoderConfiguration(
            vocabularySize: 50, hiddenSize: 96, intermediateSize: 224, numHiddenLayers: 4, numAttentionHeads: 6, numKeyValueHeads: 2,
            ropeInterleaved: true, maxPositionEmbeddings: 4096)
    }

    private func tokens(_ count: Int, seed: UInt64 = 4) -> [Int] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< count).map { _ in Int.random(in: 0 ..< 50, using: &random) }
    }

    private func isUsable(_ logits: [[UInt32]]) -> Bool {
        logits.allSatisfy { $0.allSatisfy { Float(bitPattern: $0).isFinite } } && Set(logits).count == logits.count
    }

    /// The logits after each of `count` single rows.
    /// - Parameter findsAnew: a runner for each token, which has nothing prepared.
    private func decode(
        _ decoder: Decoder, _ workspace: Workspace, count: Int, plan: [Row]?, findsAnew: Bool = false, selectsAnew: Bool = false
    ) throws -> [[UInt32]] {
        let reader = SequenceReader(decoder, selections: Self.selections(plan, decoder))
        let runner = BatchRunner(decoder, workspace)
        return try (0 ..< count).map { position in
            if selectsAnew, let selections = Self.selections(plan, decoder) { reader.sequence.select(selections, from: 0) }
            let step = [reader.single((position * 7 + 3) % decoder.configuration.vocabularySize)]
            return try #require(try (findsAnew ? BatchRunner(decoder, workspace, pages: runner.pages) : runner).bits(step)[0])
        }
    }

    // A difference means that a prepared step multiplies, rotates, keeps or clears something else than one that finds everything anew: after a few keys,
    // after those of several spans, whole or under a plan.
    @Test("prepared steps as new ones", arguments: kernelSets, types) func preparedStepsAsNewOnes(kernels: String, type: ElementType) throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: kernels) { _ in type }
        for plan in [nil, Self.plan] {
            let expected = try decode(decoder, workspace, count: 300, plan: plan, findsAnew: true)
            #expect(isUsable(expected))
            #expect(try decode(decoder, workspace, count: 300, plan: plan) == expected)
        }
    }

    // A difference means that the same prompt is answered otherwise when others are read at the same time, for then its chunks are shorter.
    @Test("chunks of any size", arguments: kernelSets, types) func chunksOfAnySize(kernels: String, type: ElementType) throws {
        for shape in [MadeUpModel.shape, Self.wholeBlocks] {
            let (decoder, workspace) = try MadeUpModel.decoder(shape, kernels: kernels) { _ in type }
            let runner = BatchRunner(decoder, workspace), prompt = tokens(300)
            for plan in [nil, Self.plan] {
                /// Hidden states of all rows, the prompt's logits, and those of two more tokens.
                func read(chunk: Int) throws -> [[UInt32]] {
                    let reader = SequenceReader(decoder, selections: Self.selections(plan, decoder), promptLength: prompt.count)
                    let hidden = Tensor(rows: prompt.count, columns: shape.hiddenSize)
                    var logits: [[UInt32]?] = []
                    for start in stride(from: 0, to: prompt.count, by: chunk) {
                        let rows = start ..< min(start + chunk, prompt.count)
                        logits = try runner.bits([try reader.chunk(prompt[rows], output: hidden.rows(rows))])
                    }
                    for token in [7, 11] { logits += try runner.bits([reader.single(token)]) }
                    return [hidden.values.map(\.bitPattern)] + logits.compactMap { $0 }
                }
                let whole = try read(chunk: prompt.count)
                #expect(whole.count == 4 && isUsable(whole))
                for chunk in [1, 3, 16, 33, 100, 256] { #expect(try read(chunk: chunk) == whole, "chunks of \(chunk), \(plan == nil ? "whole" : "plan")") }
            }
        }
    }

    /// A sequence of the random schedules below.
    private struct Script {
        let plan: [Row]?
        let prompt: [Int]
        let answer: [Int]
        /// Passes the first two layers first, then a row of its own, then, with that row, the others, as a model with a scheduler does.
        let isAdaptive: Bool
    }

    /// A script on its way.
    private final class Run {
        let script: Script
        let reader: SequenceReader
        let hidden: Tensor
        private var next = 0, stage = 0
        private(set) var logits: [[UInt32]] = []
        private var rows = 0
        private let latency: Tensor

        init(_ script: Script, _ decoder: Decoder, selections: [LayerSelection]?) {
            self.script = script
            let length = script.prompt.count + (script.isAdaptive ? 1 : 0)
            reader = SequenceReader(decoder, selections: selections, promptLength: length)
            hidden = Tensor(rows: length, columns: decoder.configuration.hiddenSize)
            latency = Tensor((0 ..< decoder.configuration.hiddenSize).map { Float($0 % 7) / 7 - 0.4 })
        }

        var isDone: Bool { stage == 3 && logits.count == script.answer.count + 1 }

        /// The next rows.
        /// - Parameter limit: of a chunk.
        func segment(atMost limit: Int) throws -> BatchSegment {
            let decoder = reader.sequence.decoder, prompt = script.prompt, all = decoder.layers.count
            func segment(
                _ role: RowRole, _ place: Int, _ layers: Range<Int>, _ input: BatchSegment.Input, output: Tensor? = nil, logits: Int = 0
            ) -> BatchSegment {
                BatchSegment(
                    sequence: reader.sequence, role: role, position: place, slot: place, layers: layers, input: input, output: output, logitRows: logits)
            }
            switch stage {
            case 0:
                rows = min(limit, prompt.count - next)
                let read = Tensor(rows: rows, columns: hidden.columns)
                for row in 0 ..< rows { try decoder.embed(prompt[next + row], into: read, row: row) }
                let isLast = next + rows == prompt.count
                return script.isAdaptive
                    ? segment(.chunk, next, 0 ..< 2, .hidden(read), output: hidden.rows(next ..< next + rows))
                    : segment(.chunk, next, 0 ..< all, .hidden(read), logits: isLast ? 1 : 0)
            case 1:
                return segment(.single, prompt.count, 0 ..< 2, .hidden(latency), output: hidden.rows(prompt.count ..< prompt.count + 1))
            case 2:
                rows = min(limit, hidden.rows - next)
                let isLast = next + rows == hidden.rows
                return segment(.chunk, next, 2 ..< all, .hidden(hidden.rows(next ..< next + rows)), logits: isLast ? 1 : 0)
            default:
                let step = logits.count - 1
                return segment(.single, hidden.rows + step, 0 ..< all, .token(script.answer[step]), logits: 1)
            }
        }

        func advance(_ found: [UInt32]?) {
            if let found { logits.append(found) }
            switch stage {
            case 0:
                next += rows
                if next == script.prompt.count { (next, stage) = (0, script.isAdaptive ? 1 : 3) }
            case 1: stage = 2
            case 2:
                next += rows
                if next == hidden.rows { stage = 3 }
            default: break
            }
        }
    }

    private static func scripts() -> [Script] {
        var random = SeededGenerator(seed: 99)
        return (0 ..< 12).map { index in
            let prompt = [5, 300, 40, 17, 130, 1, 64, 270, 33, 16, 90, 12][index]
            return Script(
                plan: plans[index % plans.count], prompt: (0 ..< prompt).map { _ in Int.random(in: 0 ..< 50, using: &random) },
                answer: (0 ..< 12).map { _ in Int.random(in: 0 ..< 50, using: &random) }, isAdaptive: index % 3 == 1)
        }
    }

    /// Checks that scripts that enter and leave steps at random give the logits of each alone.
    private func check(_ decoder: Decoder, _ workspace: Workspace, seed: UInt64) throws {
        let scripts = Self.scripts()
        let expected = try scripts.map { script in
            // Alone, prompts in one chunk.
            let run = Run(script, decoder, selections: Self.selections(script.plan, decoder)), runner = BatchRunner(decoder, workspace)
            while !run.isDone { run.advance(try runner.bits([try run.segment(atMost: .max)])[0]) }
            return run.logits
        }
        for logits in expected { #expect(isUsable(logits)) }
        var random = SeededGenerator(seed: seed)
        let runner = BatchRunner(decoder, workspace)
        // Two sequences hold one plan's selections, others make them anew.
        let shared = Self.selections(Self.plan, decoder)
        let runs = scripts.enumerated().map { index, script in
            Run(script, decoder, selections: index % 6 == 1 && index > 1 ? shared : Self.selections(script.plan, decoder))
        }
        while runs.contains(where: { !$0.isDone }) {
            let share = Double.random(in: 0.1 ... 1, using: &random)
            var chosen = runs.filter { _ in Double.random(in: 0 ..< 1, using: &random) < share }.filter { !$0.isDone }
            chosen.shuffle(using: &random)
            if chosen.isEmpty { continue }
            let segments = try chosen.map { try $0.segment(atMost: Int.random(in: 1 ... 150, using: &random)) }
            for (run, found) in zip(chosen, try runner.bits(segments)) { run.advance(found) }
        }
        for (index, run) in runs.enumerated() { #expect(run.logits == expected[index], "sequence \(index)") }
    }

    // A difference means that an answer depends on which others are computed at the same time.
    @Test("any batch as alone", arguments: kernelSets, types) func anyBatchAsAlone(kernels: String, type: ElementType) throws {
        for shape in [MadeUpModel.shape, Self.wholeBlocks] {
            let (decoder, workspace) = try MadeUpModel.decoder(shape, kernels: kernels) { _ in type }
            try check(decoder, workspace, seed: UInt64(shape.intermediateSize))
        }
    }

    // A difference means that an answer in float32, or of float weights in 8 bits, depends on which others are computed at the same time.
    @Test("any batch as alone", arguments: kernelSets, [Precision.f32, .q8]) func anyBatchAsAlone(kernels: String, precision: Precision) throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: kernels, precision: precision) { _ in .bf16 }
        try check(decoder, workspace, seed: 3)
    }

    // A failure means that a layer whose products take activations of different types is multiplied with the wrong ones.
    @Test("layers of several types", arguments: kernelSets) func layersOfSeveralTypes(kernels: String) throws {
        for mixed in ["self_attn.v_proj", "mlp.up_proj", "self_attn.o_proj", "mlp.down_proj", "lm_head"] {
            let (decoder, workspace) = try MadeUpModel.decoder(Self.wholeBlocks, kernels: kernels) { $0 == mixed ? .f16 : .q8_0 }
            let expected = try decode(decoder, workspace, count: 20, plan: Self.plan, findsAnew: true)
            #expect(try decode(decoder, workspace, count: 20, plan: Self.plan) == expected, "\(mixed)")
            try check(decoder, workspace, seed: 8)
        }
    }

    // A failure means that a sequence goes the way of another plan, or another sequence's.
    @Test("every sequence goes its own way") func everySequenceGoesItsOwnWay() throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: try #require(kernelSets.last)) { _ in .q8_0 }
        let planned = try decode(decoder, workspace, count: 20, plan: Self.plan)
        let whole = try decode(decoder, workspace, count: 20, plan: nil)
        #expect(planned != whole)
        #expect(try decode(decoder, workspace, count: 20, plan: Self.plan, selectsAnew: true) == planned)
        #expect(try decode(decoder, workspace, count: 20, plan: nil) == whole)
    }

    // A failure means that who shares a product's rows or panels shows in its sums, or that a part of the rows is left out.
    @Test("rows are shared out", arguments: kernelSets, [ElementType.q8_0, .f16, .bf16])
    func rowsAreSharedOut(kernels: String, type: ElementType) throws {
        let results = try [1, 2, 3].map { threads in
            let (decoder, workspace) = try MadeUpModel.decoder(kernels: kernels, threads: threads) { _ in type }
            let runner = BatchRunner(decoder, workspace)
            return try [127, 128, 193, 333].flatMap { rows in
                let reader = SequenceReader(decoder, selections: Self.selections(Self.plan, decoder), promptLength: rows)
                let hidden = Tensor(rows: rows, columns: decoder.configuration.hiddenSize)
                let prompt = (0 ..< rows).map { ($0 * 7 + 3) % decoder.configuration.vocabularySize }
                let first = try runner.bits([try reader.chunk(prompt, output: hidden)])
                // A step of as many sequences as rows would be, with other plans.
                let others = try (0 ..< 9).map { index in
                    let other = SequenceReader(decoder, selections: Self.selections(Self.plans[index % 6], decoder))
                    _ = try runner.bits([try other.chunk(prompt.prefix(index + 1))])
                    return other
                }
                let steps = try runner.bits([reader.single(5)] + others.map { $0.single(9) })
                return hidden.values.map(\.bitPattern) + (first + steps).flatMap { $0 ?? [] }
            }
        }
        #expect(results[0].allSatisfy { Float(bitPattern: $0).isFinite })
        #expect(results[0] == results[1] && results[0] == results[2])
    }

    // A failure means that what lay in a page before, such as another conversation's overflow, reaches an answer.
    @Test("used pages do not show", arguments: kernelSets, [ElementType.q8_0, .bf16, .f32]) func usedPagesDoNotShow(kernels: String, type: ElementType) throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: kernels, precision: type == .f32 ? .f32 : .automatic) { _ in type }
        func read(_ pages: PagePool) throws -> [[UInt32]?] {
            let runner = BatchRunner(decoder, workspace, pages: pages)
            return try [1, 15, 17, 255, 257, 300].flatMap { rows in
                let reader = SequenceReader(decoder, selections: Self.selections(Self.plan, decoder), promptLength: rows)
                return try runner.bits([try reader.chunk(tokens(rows))]) + (0 ..< 18).flatMap { try runner.bits([reader.single($0)]) }
            }
        }
        let used = PagePool(), layout = decoder.layout(workspace.kernels.precision)
        do {
            let dirty = try [1, 2].flatMap { heads in try (0 ..< 12).map { _ in try used.take(layout.pageBytes(heads: heads)) } }
            for page in dirty { page.address.initializeMemory(as: UInt8.self, repeating: 0xff, count: page.byteCount) }
        }
        #expect(used.spareBytes > 0)
        let found = try read(used)
        #expect(found == (try read(PagePool())))
        #expect(isUsable(found.compactMap { $0 }) || found.allSatisfy { $0?.allSatisfy { Float(bitPattern: $0).isFinite } ?? false })
    }

    // A failure means that a sliding window depends on how a prompt is cut up or on who else decodes, sees more or less than its width, or keeps pages that no
    // query reads.
    @Test("sliding windows do not depend on chunks or other sequences", arguments: kernelSets) func slidingWindows(kernels: String) throws {
        var windowed = MadeUpModel.shape, wide = MadeUpModel.shape
        (windowed.slidingWindow, wide.slidingWindow) = (70, 4000)
        let (decoder, workspace) = try MadeUpModel.decoder(windowed, kernels: kernels, precision: .f32) { _ in .f16 }
        let (all, others) = try MadeUpModel.decoder(wide, kernels: kernels, precision: .f32) { _ in .f16 }
        let prompt = tokens(700)
        func read(_ decoder: Decoder, _ runner: BatchRunner, chunk: Int, from first: Int = 0) throws -> [[UInt32]] {
            let reader = SequenceReader(decoder, promptLength: prompt.count)
            var logits: [[UInt32]?] = []
            for start in stride(from: first, to: prompt.count, by: chunk) {
                logits = try runner.bits([try reader.chunk(prompt[start ..< min(start + chunk, prompt.count)])])
            }
            for token in 0 ..< 40 { logits += try runner.bits([reader.single(token)]) }
            return logits.compactMap { $0 }
        }
        let whole = try read(decoder, BatchRunner(decoder, workspace), chunk: prompt.count)
        #expect(isUsable(whole))
        for chunk in [1, 64, 300] {
            let pages = PagePool()
            #expect(try read(decoder, BatchRunner(decoder, workspace, pages: pages), chunk: chunk) == whole, "chunks of \(chunk)")
        }
        #expect(try read(all, BatchRunner(all, others), chunk: prompt.count) != whole)
        // Pages of one sequence: a window's, and no more than one chunk's beside them.
        let pages = PagePool(), runner = BatchRunner(decoder, workspace, pages: pages)
        let reader = SequenceReader(decoder, promptLength: prompt.count), page = decoder.layout(.f32).pageBytes(heads: 2)
        for start in stride(from: 0, to: prompt.count, by: 50) {
            _ = try runner.step([try reader.chunk(prompt[start ..< start + 50])])
            #expect(pages.usedBytes <= 4 * 2 * page)
        }
        #expect(reader.sequence.keyValueBytes == pages.usedBytes && pages.usedBytes < 4 * 3 * page)
    }

    // A failure means that cancelling one answer spoils those that are computed in the same step, or that its rows are computed on.
    @Test("cancelled segments are left out") func cancelledSegmentsAreLeftOut() throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: try #require(kernelSets.last)) { _ in .q8_0 }
        let runner = BatchRunner(decoder, workspace)
        func readers() throws -> [SequenceReader] {
            try (0 ..< 3).map { index in
                let reader = SequenceReader(decoder, selections: Self.selections(Self.plans[index], decoder))
                _ = try runner.step([try reader.chunk(tokens(20 + index))])
                return reader
            }
        }
        let expected = try runner.bits(try readers().map { $0.single(3) })
        final class Raiser: BatchObserver {
            let cancellation: Cancellation, layer: Int
            var events: [LayerEvent] = []
            let wantsValues = false
            init(_ cancellation: Cancellation, layer: Int) { (self.cancellation, self.layer) = (cancellation, layer) }
            func layerEnded(_ event: LayerEvent) {
                events.append(event)
                if event.layer == layer { cancellation.cancel() }
            }
            func hiddenStates(layer: Int, segment: Int, rows: Range<Int>, _ hidden: Tensor) {}
            func wantsAttention(layer: Int, segment: Int) -> Bool { false }
            func attention(layer: Int, segment: Int, _ weights: AttentionWeights) {}
        }
        for layer in 0 ..< 3 {
            let cancellation = Cancellation(), observer = Raiser(cancellation, layer: layer)
            var segments = try readers().map { $0.single(3) }
            segments[0].cancellation = cancellation
            let output = try runner.step(segments, observer: observer)
            #expect(output.rows[0] == nil && output.last(0) == nil)
            for index in [1, 2] { #expect(output.last(index)?.values.map(\.bitPattern) == expected[index]) }
            #expect(observer.events.first?.rows == 3 && observer.events.allSatisfy { $0.layer <= layer || $0.rows <= 2 })
        }
    }

    // A failure means that rows of wanted logits, or those of sequences that want none, are mixed up.
    @Test("several rows of logits") func severalRowsOfLogits() throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: try #require(kernelSets.last)) { _ in .q8_0 }
        let runner = BatchRunner(decoder, workspace), prompt = tokens(30)
        // The last row of each beginning.
        let expected = try (26 ... 30).map { count in
            try #require(try runner.bits([try SequenceReader(decoder, promptLength: 30).chunk(prompt.prefix(count))])[0])
        }
        let wanted = [0, 5, 1, 3]
        let output = try runner.step(try wanted.map { try SequenceReader(decoder, promptLength: 30).chunk(prompt, logitRows: $0) })
        for (index, count) in wanted.enumerated() {
            let rows = try #require(output.rows[index])
            #expect(rows.count == count)
            let found = rows.map { row in output.logits?.row(row).map(\.bitPattern) ?? [] }
            #expect(found == Array(expected.suffix(count)))
        }
        #expect(output.last(0) == nil)
    }
}
