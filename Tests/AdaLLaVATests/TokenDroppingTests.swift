import Foundation
import Testing

@testable import AdaLLaVA

/// Image tokens that are dropped inside the decoder (FastV), and selections that people ask for.
@Suite struct TokenDroppingTests {
    private static func model(_ folder: String, _ selection: String..., precision: Precision = .f32, kernels: String? = nil) throws -> TestModel {
        let selection = try TokenSelection(parsing: selection)
        let checkpoint = try Checkpoint.open(at: Fixtures.url(folder)).selecting(selection)
        return try TestModel(Fixtures.url(folder), precision: precision, kernels: kernels, threads: 2) { $0 = checkpoint }
    }

    private static func pixels(_ seed: UInt64) -> [Float] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< 3 * 56 * 56).map { _ in Float.random(in: -2 ... 2, using: &random) }
    }

    private static func tokens(_ count: Int, seed: UInt64) -> [Int] {
        var random = SeededGenerator(seed: seed)
        return (0 ..< count).map { _ in Int.random(in: 3 ..< 320, using: &random) }
    }

    /// 6 tokens, an image of 16, 9 tokens.
    private static let prompt = [1] + tokens(5, seed: 1) + [Engine.imageToken] + tokens(9, seed: 2)

    private static func request(_ tokens: [Int] = prompt, budget: Double = 1, image: UInt64 = 3, maxTokens: Int = 6) -> EngineRequest {
        EngineRequest(tokens: tokens, images: [EngineImage(pixels: pixels(image))], budget: .fraction(budget), maxTokens: maxTokens)
    }

    // MARK: - Against the formulas

    // A mismatch means that other image tokens are dropped than those with the least attention, that kept ones lose their positions, or that later layers see
    // tokens that were dropped.
    @Test("selection and logits are those of a plain float32 decoder", arguments: ["ada-L", "ada-H", "llava-hf/new-layout"], kernelSets)
    func equalsAPlainDecoder(folder: String, kernels: String) throws {
        for (layer, ratio, budget) in [(1, 0.5, 1.0), (3, 0.5, 1), (4, 0.75, 0.75), (2, 1, 0.6)] where folder.hasPrefix("ada") || layer == 1 {
            let model = try Self.model(folder, "fastv:k=\(layer),r=\(ratio)", kernels: kernels)
            let trace = Trace(), adaptive = model.loaded.parts.adaptive
            let result = try model.run(Self.request(budget: adaptive == nil ? 1 : budget), trace: trace)
            let plain = try PlainDecoder(model.loaded.checkpoint), features = try #require(trace.entries["image_features"])
            let images = (0 ..< 16).map { Array(features.values[$0 * features.shape[1] ..< ($0 + 1) * features.shape[1]]) }
            let prompt = Self.prompt.prefix(6).map(plain.embedding) + images + Self.prompt.dropFirst(7).map(plain.embedding)

            // All rows through the layers before the drop, with what the last one attends to.
            var attention: [Float] = []
            let whole = ExecutionPlan.full(layers: model.decoder.layers.count, heads: result.plan.headCount)
            _ = plain.logits(prompt, plan: { _ in whole }, attention: { if $0 == layer - 1, $1 == prompt.count - 1 { attention = $2 } })
            let dropped = Set((6 ..< 22).sorted { attention[$0] != attention[$1] ? attention[$0] < attention[$1] : $0 > $1 }.prefix(Int(16 * ratio)))
            let kept = prompt.indices.filter { !dropped.contains($0) }
            #expect(trace.entries["kept_positions"]?.values == kept.map(Float.init))
            #expect(largestDifference(trace.entries["selection_attention"]?.values ?? [], attention) < 1e-5)
            #expect(result.keptImageTokens == 16 - dropped.count && result.imageTokens == 16)

            var rows = prompt
            if let adaptive, let units = result.adaptive?.units { rows.append(adaptive.encoder(adaptive.units.normalized(units), model.engine.workspace).row(0)) }
            let steps = try #require(trace.entries["step_logits"]), width = steps.shape[1]
            for (index, token) in result.tokens.enumerated() {
                let logits = plain.logits(
                    rows, plan: { _ in result.plan }, drops: { $0 >= layer && $1 < prompt.count && dropped.contains($1) })
                #expect(largestDifference(Array(steps.values[index * width ..< (index + 1) * width]), logits) < 3e-4, "k=\(layer), token \(index)")
                rows.append(plain.embedding(token))
            }
            for (index, shape) in result.keyValueShapes.enumerated() {
                guard let shape else { continue }
                #expect(shape[2] == rows.count - 1 - (index >= layer ? dropped.count : 0), "layer \(index)")
            }
        }
    }

    // A difference means that choosing tokens changes an answer although nothing is dropped.
    @Test("a share of 0 changes no bit", arguments: ["ada-L", "ada-H", "llava-hf/new-layout"])
    func nothingDroppedChangesNothing(folder: String) throws {
        for precision in Precision.allCases {
            for budget in folder.hasPrefix("ada") ? [0.6, 1] : [1] {
                let traces = try [[], ["fastv:k=1,r=0"]].map { selection in
                    let checkpoint = try Checkpoint.open(at: Fixtures.url(folder)).selecting(TokenSelection(parsing: selection))
                    let model = try TestModel(Fixtures.url(folder), precision: precision, threads: 2) { $0 = checkpoint }
                    let trace = Trace(includesLayers: true)
                    return (try model.run(Self.request(budget: budget), trace: trace), trace)
                }
                #expect(traces[0].0.tokens == traces[1].0.tokens && traces[0].0.keyValueShapes == traces[1].0.keyValueShapes)
                #expect(traces[1].0.keptImageTokens == 16 && traces[0].0.keptImageTokens == nil)
                for (name, entry) in traces[0].1.entries {
                    #expect(traces[1].1.entries[name]?.values.map(\.bitPattern) == entry.values.map(\.bitPattern), "\(precision) \(budget) \(name)")
                }
            }
        }
    }

    // A difference means that the prefix depends on the budget, so that it cannot be computed before the budget is known or kept for another one.
    @Test("the selection does not depend on the budget", arguments: ["ada-L", "ada-H"]) func budgetsShareASelection(folder: String) throws {
        let model = try Self.model(folder, "fastv:k=3,r=0.5")
        let kept = try [0.5, 0.6, 0.75, 1].map { budget in
            let trace = Trace()
            _ = try model.run(Self.request(budget: budget), trace: trace)
            return try #require(trace.entries["kept_positions"]).values
        }
        #expect(Set(kept).count == 1 && kept[0].count == 31 - 8)
    }

    // MARK: - What is kept for later requests

    // A difference means that what was computed of a prompt is used for one whose tokens are dropped otherwise, or that nothing is saved.
    @Test("a known prompt is found again", arguments: ["ada-L", "ada-H", "llava-hf/new-layout"]) func knownPrompts(folder: String) throws {
        let isAdaptive = folder.hasPrefix("ada")
        for layer in isAdaptive ? [1, 3, 4] : [1] {
            let model = try Self.model(folder, "fastv:k=\(layer),r=0.5")
            func ask(_ question: [Int], budget: Double = 1, cached: Int, _ comment: String) throws {
                let request = Self.request([1] + Self.tokens(5, seed: 1) + [Engine.imageToken] + question, budget: isAdaptive ? budget : 1)
                let found = try model.run(request), fresh = try TestModel(sharing: model).run(request)
                #expect(found.tokens == fresh.tokens && found.plan == fresh.plan && found.keyValueShapes == fresh.keyValueShapes, "k=\(layer) \(comment)")
                #expect(found.cachedPrefix == cached, "k=\(layer) \(comment): \(found.cachedPrefix)")
            }
            let (first, second) = (Self.tokens(20, seed: 4), Self.tokens(31, seed: 5))
            // Without a scheduler the last row's logits are computed again.
            let all = isAdaptive ? 42 : 41
            try ask(first, cached: 0, "first")
            try ask(first, cached: all, "again")
            try ask(first, budget: 0.6, cached: all, "another budget")
            try ask(second, cached: 22, "another question")
            try ask(first + second, cached: 42, "a longer question")
            try ask(Array(first.prefix(7)), cached: 28, "a shorter question")
        }
    }

    // A failure means that requests of one step with and without dropped tokens, of different lengths and budgets, disturb each other.
    @Test("answers are the same alone and in a batch", arguments: ["ada-L", "ada-H"]) func inABatch(folder: String) throws {
        let model = try Self.model(folder, "fastv:k=2,r=0.75", precision: .automatic)
        var requests = (0 ..< 4).map { index in
            Self.request([1] + Self.tokens(3 + 40 * index, seed: 7) + [Engine.imageToken] + Self.tokens(5, seed: 8), budget: [1, 0.6, 0.75, 1][index], image: UInt64(index), maxTokens: 20)
        }
        requests.append(EngineRequest(tokens: [1] + Self.tokens(20, seed: 9), images: [], budget: 1, maxTokens: 20))
        let alone = try requests.map { try TestModel(sharing: model).run($0).tokens }
        let tasks = requests.map { GenerationTask($0, cancellation: Cancellation(), onToken: { _ in true }) }
        while tasks.contains(where: { !$0.isDone }) { model.engine.step(tasks) }
        #expect(try tasks.map { try #require(try $0.outcome?.get()).tokens } == alone)
    }

    // MARK: - Selections

    @Test("which tokens are kept") func choice() {
        let key = ContentKey("image")
        let elements: [PromptElement] = [.token(1)] + (0 ..< 6).map { .image(key, row: $0) } + [.token(2), .token(3)]
        let weights: [Float] = [0.9, 0.1, 0.3, 0.1, 0.2, 0.1, 0.0, 0.0, 0.0]
        #expect(FastV(layer: 1, ratio: 0.5).kept(elements, weights: weights) == [0, 1, 2, 4, 7, 8])
        #expect(FastV(layer: 1, ratio: 0).kept(elements, weights: weights) == Array(0 ..< 9))
        #expect(FastV(layer: 1, ratio: 1).kept(elements, weights: weights) == [0, 7, 8])
        // The row that is asked is never dropped.
        #expect(FastV(layer: 1, ratio: 1).kept(Array(elements.prefix(7)), weights: Array(weights.prefix(7))) == [0, 6])
        let random = FastV(layer: 1, ratio: 0.5, ranking: .random)
        #expect(random.kept(elements, weights: weights).count == 6 && random.kept(elements, weights: weights) == random.kept(elements, weights: weights.reversed()))
        #expect([0.7, 0.1, 0.29, 1].map { FastV(layer: 1, ratio: $0).dropped(of: 10) } == [7, 1, 2, 10])
    }

    @Test("what --select takes") func parsing() throws {
        let both = try TokenSelection(parsing: ["fastv:k=3,r=0.5", "prumerge+"])
        #expect(both == TokenSelection(tower: .pruMergePlus, decoder: FastV(layer: 3, ratio: 0.5)) && both.description == "prumerge+ and fastv:k=3,r=0.5")
        #expect(try TokenSelection(parsing: ["fastv:r=1, by=random,k=2"]).decoder?.description == "fastv:k=2,r=1,by=random")
        #expect(try TokenSelection(parsing: []) == TokenSelection() && TokenSelection(parsing: ["none"]).tower == LlavaConfiguration.TokenSelection.none)
        for text in ["", "fastv", "fastv:", "fastv:k=0,r=0.5", "fastv:k=3", "fastv:k=3,r=1.5", "fastv:k=3,r=nan", "fastv:k=3,r=0.5,k=3", "fastv:k=3,r=0.5,by=luck", "pruning"] {
            #expect(throws: TokenSelectionError.unreadable(text)) { try TokenSelection(parsing: [text]) }
        }
        #expect(throws: TokenSelectionError.twice("prumerge+")) { try TokenSelection(parsing: ["prumerge", "prumerge+"]) }
        #expect(throws: TokenSelectionError.twice("fastv:k=1,r=0")) { try TokenSelection(parsing: ["fastv:k=2,r=0", "fastv:k=1,r=0"]) }
    }

    // A failure means that a selection which would depend on the budget, or has no attention to go by, is made all the same.
    @Test("what a model cannot select is refused") func refusals() throws {
        let adaptive = try Checkpoint.open(at: Fixtures.url("ada-L"))
        let error = #expect(throws: TokenSelectionError.self) { try adaptive.selecting(TokenSelection(parsing: ["fastv:k=5,r=0.5"])) }
        #expect(error?.description == "fastv:k=5: expected k from 1 to 4, its prefix layers, for the selection must not depend on the budget, in ada-L")
        let plain = try Checkpoint.open(at: Fixtures.url("llava-hf/new-layout"))
        #expect(throws: TokenSelectionError.self) { try plain.selecting(TokenSelection(parsing: ["fastv:k=2,r=0.5"])) }
        let text = try Checkpoint.open(at: try #require(DecoderFixture.all.first).url)
        #expect(throws: TokenSelectionError.noVision(model: text.name)) { try text.selecting(TokenSelection(parsing: ["prumerge"])) }
        var mixed = plain.configuration
        mixed.language = try Checkpoint.open(at: try #require(DecoderFixture.all.first { $0.architecture == .lfm2 }).url).configuration.language
        let convolution = try #require((0 ..< mixed.language.numHiddenLayers - 1).first { mixed.language.kind($0) == .convolution })
        #expect(throws: TokenSelectionError.self) { try mixed.selecting(TokenSelection(decoder: FastV(layer: convolution + 1, ratio: 0.5)), name: "mixed") }
        // EfficientNet has no attention.
        let convolutional = try Checkpoint.open(at: Fixtures.models.appendingPathComponent("scenes/L"))
        #expect(throws: CheckpointError.self) { try convolutional.selecting(TokenSelection(tower: .pruMerge)) }
    }

    // A failure means that a selection in the tower and one in the decoder do not go together, or that one that the checkpoint names cannot be changed.
    @Test("tower and decoder select together, within a budget") func both() throws {
        let merged = try Self.model("ada-L", "prumerge+").run(Self.request(budget: 0.75))
        #expect(merged.imageTokens > 1 && merged.imageTokens < 17 && merged.keptImageTokens == nil)
        let both = try Self.model("ada-L", "prumerge+", "fastv:k=3,r=0.5").run(Self.request(budget: 0.75))
        #expect(both.imageTokens == merged.imageTokens && both.keptImageTokens == merged.imageTokens - merged.imageTokens / 2)
        #expect(both.plan.rows.count { $0.isSkipped } == 2)
    }

    // MARK: - Predictions

    // A failure means that budgets in time do not know of the tokens that are dropped.
    @Test("predicted times fall with the tokens that are dropped") func predictions() throws {
        var configuration = try Checkpoint.open(at: Fixtures.url("ada-L")).configuration
        let whole = TimePlanner(configuration, weightBytes: 1)
        configuration = try configuration.selecting(TokenSelection(parsing: ["fastv:k=2,r=0.5"]), name: "ada-L")
        let dropping = TimePlanner(configuration, weightBytes: 1)
        func predict(_ planner: TimePlanner, _ dropped: Int?) -> PhaseNanoseconds {
            var work = RemainingWork()
            work.setPrompt(620, dropped: dropped, isAdaptive: true)
            (work.tokens, work.slot) = (50, 621)
            return planner.predict(work, planner.times(units: planner.mostUnits))
        }
        let (all, none, half) = (predict(whole, nil), predict(dropping, 0), predict(dropping, 288))
        // Two steps instead of one, and nothing else.
        #expect(none.decode == all.decode && none.prefill >= all.prefill && none.prefill < all.prefill * 1.1)
        #expect(predict(dropping, nil).prefill == all.prefill)
        #expect(half.prefill < none.prefill * 0.75 && half.prefill > none.prefill * 0.5 && half.decode < none.decode)
    }

    @Test("a deadline is kept with dropped tokens") func deadlines() throws {
        let model = try Self.model("ada-L", "fastv:k=2,r=0.5")
        model.engine.planner = TimePlanner(model.loaded.checkpoint.configuration, weightBytes: 1)
        var request = Self.request(maxTokens: 6)
        request.budget = .answer(within: .seconds(1000))
        let result = try model.run(request)
        let whole = try Self.model("ada-L", "fastv:k=2,r=0.5").run(Self.request())
        #expect(result.keptImageTokens == 8 && result.tokens == whole.tokens)
        #expect(try #require(result.prediction).times.prefill > .zero)
    }
}
