import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// Pictures that are brought to the tower's size before the weights are read, and what is told before they are encoded.
@Suite struct ImagePreparationTests {
    private static let folder = Fixtures.models.appendingPathComponent("scenes-ref")

    private func picture(_ number: String) throws -> RGBImage {
        try RGBImage(contentsOf: Self.folder.appendingPathComponent("images/\(number).png").path)
    }

    @Test("A prepared picture gives the same pixels and the same answer") func preparedIsTheSame() async throws {
        // A mismatch means that the command line answers about other pixels than the library.
        let checkpoint = try Checkpoint.open(at: Self.folder)
        let prepare = try ImagePreparation(checkpoint)
        let model = try await AdaptiveModel(checkpoint)
        #expect(try model.imagePreparation == prepare)
        let image = try picture("03"), prepared = prepare(image)
        #expect(prepared.tiles.pixels[0].count == 3 * prepare.processor.cropSize * prepare.processor.cropSize)
        let tokens = try model.tokenize([.question("What is in the image?", images: 1)])
        let whole = try await model.trace(tokens: tokens, images: [image], budget: .fraction(0.75), maxTokens: 6)
        let small = try await model.trace(tokens: tokens, prepared: [prepared], budget: .fraction(0.75), maxTokens: 6)
        #expect(whole.entries["pixel_values"]?.values == small.entries["pixel_values"]?.values)
        #expect(whole.text == small.text && whole.entries["prefill_last_logits"]?.values == small.entries["prefill_last_logits"]?.values)
        func answer(_ stream: AnswerStream) async throws -> String { try await stream.whole().text }
        let question = [ChatMessage.question("What is in the image?", images: 1)]
        let first = try await answer(model.respond(to: question, images: [image]))
        let second = try await answer(model.respond(to: question, prepared: [prepared]))
        #expect(first == second && !first.isEmpty)
    }

    @Test("A prepared picture's features are found again by content") func features() throws {
        // A failure means that every turn of a conversation encodes its pictures anew.
        let model = try TestModel(Self.folder)
        let prepare = try model.loaded.requirePreparation()
        let encoded = try ["03", "03", "04"].map { number in
            let image = try model.loaded.image(prepare(picture(number)))
            return try model.run(EngineRequest(tokens: [1, Engine.imageToken, 5], images: [image], budget: .full, maxTokens: 1)).encodedImages
        }
        #expect(encoded == [1, 0, 1])
    }

    @Test("A picture prepared for another model is refused, and a text model prepares none") func otherModels() async throws {
        // A failure means that a tower is given pixels of another size or another normalization.
        let other = try ImagePreparation(Checkpoint.open(at: Fixtures.url("ada-L")))
        let checkpoint = try Checkpoint.open(at: Self.folder)
        let model = try await AdaptiveModel(checkpoint)
        let tokens = try model.tokenize([.question("What?", images: 1)])
        let prepared = other(try picture("00"))
        await #expect(throws: GenerationError.otherPreparation(model: checkpoint.name)) {
            try await model.trace(tokens: tokens, prepared: [prepared], budget: .full, maxTokens: 1)
        }
        var text = try TestModel(Self.folder).loaded.checkpoint
        text.configuration.llava = nil
        #expect(throws: GenerationError.noVision(model: checkpoint.name)) { try ImagePreparation(text) }
    }

    @Test("More images than the context holds are refused before any is read") func tooManyImages() throws {
        // A failure means that a thousand pictures are decoded and encoded for a prompt that can never be answered.
        let checkpoint = try Checkpoint.open(at: Self.folder)
        let prepare = try ImagePreparation(checkpoint)
        let most = (checkpoint.configuration.language.contextLength - 1) / prepare.leastPositions
        try prepare.check(images: most)
        for count in [most + 1, Int.max] {
            #expect {
                try prepare.check(images: count)
            } throws: {
                if case .promptTooLong(_, checkpoint.configuration.language.contextLength)? = $0 as? GenerationError { true } else { false }
            }
        }
    }

    @Test("A prompt that does not fit is told before its images are encoded", arguments: ["ada-L", "prumerge"]) func positionsFirst(folder: String) throws {
        // A failure means that minutes of encoding end in a message that could have come at once.
        let model = try TestModel(folder == "ada-L" ? Fixtures.url("ada-L") : Self.folder) { checkpoint in
            if folder == "prumerge" { checkpoint.configuration.llava?.tokenSelection = .pruMerge }
        }
        let limit = model.decoder.configuration.contextLength
        let image = EngineImage(key: ContentKey("never made")) { throw GenerationError.emptyPrompt }
        func error(_ tokens: [Int], memory: MemoryLimits? = nil) throws -> (any Error)? {
            let model = try TestModel(sharing: model, memory: memory)
            let images = tokens.filter { $0 == Engine.imageToken }.map { _ in image }
            do { _ = try model.run(EngineRequest(tokens: tokens, images: images, budget: .full, maxTokens: 1)) } catch { return error }
            return nil
        }
        let long = [Int](repeating: 5, count: limit) + [Engine.imageToken]
        #expect { if let error = try error(long) { throw error } } throws: {
            if case .promptTooLong(_, limit)? = $0 as? GenerationError { true } else { false }
        }
        var memory = MemoryLimits()
        memory.keyValueBytes = 1
        #expect(try error([1, Engine.imageToken, 5], memory: memory) is ComputeError)
        #expect(try error([1, Engine.imageToken, 5]) as? GenerationError == .emptyPrompt)
    }
}
