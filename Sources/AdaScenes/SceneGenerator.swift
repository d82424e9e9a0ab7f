import AdaLLaVA

/// One picture with a question about it.
public struct Scene: Sendable, Equatable {
    /// The picture.
    public let image: RGBImage
    /// What is in it, in the order of a caption.
    public let things: [SceneThing]
    /// What the question asks for.
    public let task: SceneTask
    /// The question, without an image mark.
    public let question: String
    /// The one right answer.
    public let answer: String
}

/// Draws small scenes (pictograms, coloured shapes, printed words) and asks about them: the project's own training and test set.
///
/// Scene `index` depends on the seed and the index alone, so any part of a set can be made anywhere, in any order. The same versions
/// of FreeType and of the fonts give the same pixels.
public struct SceneGenerator: Sendable {
    /// The set's seed.
    public let seed: UInt64
    /// Side of every picture in pixels.
    public let size: Int
    let renderer: SceneRenderer

    /// The first generator of a process renders the pictograms and letters that all scenes share.
    /// - Parameters:
    ///   - seed: of the whole set.
    ///   - size: side of the pictures in pixels, 56 to 2048.
    /// - Throws: ``SceneError``; a missing font names the package that brings it.
    public init(seed: UInt64, size: Int = 112) throws {
        try self.init(seed: seed, size: size, fonts: SceneFonts.standard.get())
    }

    init(seed: UInt64, size: Int, fonts: SceneFonts) throws {
        guard (56...2048).contains(size) else {
            throw SceneError.argument(name: "size", expected: "56 to 2048 pixels", found: "\(size)")
        }
        self.seed = seed
        self.size = size
        renderer = SceneRenderer(fonts: fonts, size: size)
    }

    /// Scene number `index` of the set.
    public func scene(_ index: Int) throws -> Scene {
        var random = SceneRandom(seed: seed, index: index)
        let layout = SceneLayout(random: &random, meanColours: renderer.fonts.meanColours, alphabets: renderer.fonts.alphabets.count)
        let question = SceneQuestions(layout: layout).pick(&random)
        guard let image = renderer.render(layout, random: &random) else {
            throw SceneError.argument(name: "size", expected: "56 to 2048 pixels", found: "\(size)")
        }
        return Scene(image: image, things: layout.things, task: question.task, question: question.question, answer: question.answer)
    }
}
