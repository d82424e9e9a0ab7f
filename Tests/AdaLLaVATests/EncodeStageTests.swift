import Foundation
import Testing

@testable import AdaLLaVA

/// Images that are encoded piece by piece between the steps of other answers.
@Suite struct EncodeStageTests {
    private static let scenes = Fixtures.models.appendingPathComponent("scenes-ref")

    /// A transformer as tower, one with token selection, and a convolutional one.
    static let models: [(String, String)] = ["ada-L", "ada-H", "scenes"].flatMap { name in kernelSets.map { (name, $0) } }

    private static func url(_ name: String) -> URL { name == "scenes" ? scenes : Fixtures.url(name) }

    private static func pixels(_ model: TestModel, seed: UInt64) throws -> [Float] {
        var random = SeededGenerator(seed: seed)
        let count = try #require(model.loaded.parts.vision).pixels
        return (0 ..< count).map { _ in Float.random(in: -2 ... 2, using: &random) }
    }

    // A difference means that an image means something else when somebody else asks at the same time.
    @Test("features do not depend on how an encode is cut", arguments: models, Precision.allCases)
    func pieces(model: (String, String), precision: Precision) throws {
        let model = try TestModel(Self.url(model.0), precision: precision, kernels: model.1, threads: 2)
        let pixels = try Self.pixels(model, seed: 11), part = try #require(model.loaded.parts.vision)
        let tile = try TileEncoding(pixels, part, model.engine.workspace)
        while let next = try tile.next() { try tile.run(rows: next.rows, Cancellation(), progress: { _, _ in }, selecting: { _, _ in }) }
        let whole = try #require(tile.output)
        for seed in [UInt64(1), 2] {
            var random = SeededGenerator(seed: seed), layers: [Int] = [], pieces = 0
            var vision: Tensor?
            let encoding = try ImageEncoding(EngineImage(pixels: pixels), part, model.engine.workspace) { vision = $1.vision }
            while let next = try encoding.next() {
                let rows = seed == 1 ? next.least : Int.random(in: 1 ... max(next.rows, 1), using: &random)
                try encoding.run(rows: rows, Cancellation(), progress: { done, _ in layers.append(done) }, selecting: { _, _ in })
                pieces += 1
            }
            let output = try #require(encoding.output)
            #expect(output.values.map(\.bitPattern) == whole.features.values.map(\.bitPattern))
            #expect(vision?.values.map(\.bitPattern) == whole.vision.values.map(\.bitPattern))
            #expect(pieces > layers.count && layers == Array(0 ..< layers.count) && !layers.isEmpty)
        }
    }

    // A failure means that a stream stops while somebody else's image is encoded.
    @Test("every step of a growing answer gives a token while an image is encoded", arguments: ["ada-L", "scenes"])
    func steps(name: String) throws {
        let model = try TestModel(Self.url(name), threads: 2)
        var text = EngineRequest(tokens: [1] + (0 ..< 20).map { 3 + $0 }, images: [], budget: .full, maxTokens: 100)
        (text.reuses, text.sampling.temperature, text.sampling.seed) = (false, 1, 3)
        var image = EngineRequest(tokens: [1, Engine.imageToken, 5, 6], images: [EngineImage(pixels: try Self.pixels(model, seed: 4))], budget: .full, maxTokens: 4)
        image.reuses = false
        let expected = [try model.run(text), try model.run(image)].map(\.tokens)
        let engine = try TestModel(sharing: model).engine
        // No time is left for images, so each step takes the least.
        engine.pacing.learns = false
        let growing = GenerationTask(text, cancellation: Cancellation(), onToken: { _ in true })
        while !growing.isDecoding { engine.step([growing]) }
        let asking = GenerationTask(image, cancellation: Cancellation(), onToken: { _ in true })
        var steps = 0
        repeat {
            let before = growing.result.tokens.count
            engine.step([growing, asking])
            #expect(growing.result.tokens.count == before + 1)
            steps += 1
        } while asking.isEncoding && steps < 60
        #expect(steps > 5 && !growing.isDone)
        while !growing.isDone || !asking.isDone { engine.step([growing, asking]) }
        #expect(try [growing, asking].map { try #require(try $0.outcome?.get()).tokens } == expected)
    }

    // A failure means that a client that goes away keeps the tower busy, or that others' answers change when it does.
    @Test("an encode that is cancelled half way leaves nothing behind") func cancelled() throws {
        let model = try TestModel(Self.scenes, threads: 2), engine = model.engine
        var text = EngineRequest(tokens: [1] + (0 ..< 20).map { 3 + $0 }, images: [], budget: .full, maxTokens: 60)
        text.reuses = false
        let expected = try TestModel(sharing: model).run(text).tokens
        let growing = GenerationTask(text, cancellation: Cancellation(), onToken: { _ in true })
        while !growing.isDecoding { engine.step([growing]) }
        engine.pacing.learns = false
        let cancellation = Cancellation(), image = EngineImage(pixels: try Self.pixels(model, seed: 9))
        let leaving = GenerationTask(
            EngineRequest(tokens: [1, Engine.imageToken], images: [image], budget: .full, maxTokens: 4), cancellation: cancellation, onToken: { _ in true })
        for _ in 0 ..< 5 { engine.step([growing, leaving]) }
        #expect(leaving.isEncoding)
        cancellation.cancel()
        engine.step([growing, leaving])
        #expect(leaving.isDone && leaving.encoding == nil && engine.featureCache.find(image.key) == nil)
        while !growing.isDone { engine.step([growing]) }
        #expect(try growing.outcome?.get().tokens == expected)
        #expect(engine.runner.pages.usedBytes == 0)
    }

    @Test("the image of several requests is encoded once") func once() throws {
        let model = try TestModel(Self.scenes, threads: 2), engine = model.engine
        let image = EngineImage(pixels: try Self.pixels(model, seed: 5))
        let tasks = (0 ..< 3).map { index in
            GenerationTask(
                EngineRequest(tokens: [1, Engine.imageToken, 7 + index], images: [image], budget: .full, maxTokens: 3), cancellation: Cancellation(),
                onToken: { _ in true })
        }
        while tasks.contains(where: { !$0.isDone }) { engine.step(tasks.filter { !$0.isDone }) }
        #expect(try tasks.map { try #require(try $0.outcome?.get()).encodedImages } == [1, 0, 0])
    }
}
