import AdaLLaVA

/// One picture with questions about it.
package struct Scene: Sendable, Equatable {
    /// The picture.
    package let image: RGBImage
    /// The things in it, in the order of a caption.
    package let things: [SceneThing]
    /// The questions and answers, at least one; a description comes last.
    package let turns: [SceneQuestion]
    /// Questions drawn one by one, each without regard to the others.
    package let separate: [SceneQuestion]
    /// Where everything is drawn, in the order of the things; the letters of a word follow it.
    package let regions: [SceneRegion]

    /// The task of the first question.
    package var task: SceneTask { turns.first?.task ?? .caption }
    /// The first question, without an image mark.
    package var question: String { turns.first?.question ?? "" }
    /// The first question's one right answer.
    package var answer: String { turns.first?.answer ?? "" }
}

/// Draws small scenes (pictograms, coloured shapes, printed words) and asks about them: the project's own training and test set.
///
/// Scene `index` depends on the seed and the index alone, so any part of a set can be made anywhere, in any order. The same versions
/// of FreeType and of the fonts give the same pixels. The picture does not depend on how many questions are asked.
package struct SceneGenerator: Sendable {
    /// Seeds from here up are for evaluation: nothing is trained on their scenes.
    package static let firstEvaluationSeed: UInt64 = 1_000_000
    /// How many questions a scene can be asked for.
    package static let turnRange = 1...16
    private static let sizeRange = 56...2048
    /// How hard scenes can be.
    package static let levelRange = 1...2

    /// The set's seed.
    package let seed: UInt64
    /// Side of every picture in pixels.
    package let size: Int
    /// 1, or 2 for harder questions about grids of things.
    package let level: Int
    let renderer: SceneRenderer

    /// The first generator of a process renders the pictograms and letters that all scenes share.
    /// - Parameters:
    ///   - seed: of the whole set.
    ///   - size: side of the pictures in pixels, 56 to 2048.
    ///   - level: 1, or 2 for harder questions: ``SceneTask/tasks(level:)``.
    /// - Throws: ``SceneError``; a missing font names the package that brings it.
    package init(seed: UInt64, size: Int = 112, level: Int = 1) throws {
        guard Self.levelRange.contains(level) else {
            throw SceneError.argument(name: "level", expected: "1 or 2", found: "\(level)")
        }
        guard Self.sizeRange.contains(size) else {
            throw SceneError.argument(name: "size", expected: "56 to 2048 pixels", found: "\(size)")
        }
        let standard = try SceneFonts.standard.get()
        let fonts =
            size == SceneLayout.classicSize
            ? standard : try standard.resized(folders: SceneFonts.standardFolders, pictureSize: size)
        self.seed = seed
        self.size = size
        self.level = level
        renderer = SceneRenderer(fonts: fonts, size: size)
    }

    /// Scene number `index` of the set.
    /// - Parameters:
    ///   - turns: how many questions to ask at most, 1 to 16. There are fewer where the picture has no more to tell.
    ///   - separate: how many separate questions to draw at most, 0 to 16; the same one is not asked twice.
    /// - Throws: ``SceneError/argument(name:expected:found:)``
    package func scene(_ index: Int, turns: Int = 1, separate: Int = 0) throws -> Scene {
        guard Self.turnRange.contains(turns) else {
            throw SceneError.argument(name: "turns", expected: "1 to 16 questions", found: "\(turns)")
        }
        guard separate == 0 || Self.turnRange.contains(separate) else {
            throw SceneError.argument(name: "separate", expected: "0 to 16 questions", found: "\(separate)")
        }
        if level == 2 { return try gridScene(index, turns: turns, separate: separate) }
        var random = SceneRandom(seed: seed, index: index)
        let layout = SceneLayout(random: &random)
        var questionRandom = SceneRandom(seed: random.next(), index: index)
        let questions = SceneQuestions(layout: layout)
        let placed = renderer.place(layout)
        guard let image = renderer.render(layout.background, placed: placed, random: &random) else {
            throw SceneError.argument(name: "size", expected: "56 to 2048 pixels", found: "\(size)")
        }
        let conversation = questions.turns(turns, &questionRandom)
        // From the picture's own numbers, so that they do not depend on how many turns were asked.
        var separateRandom = SceneRandom(seed: random.next(), index: index)
        return Scene(
            image: image, things: layout.things, turns: conversation, separate: questions.separate(separate, &separateRandom),
            regions: renderer.regions(placed))
    }

    /// A scene of level 2. Its numbers are other ones than those of level 1 with the same seed.
    private func gridScene(_ index: Int, turns: Int, separate: Int) throws -> Scene {
        let (scene, first, numbers) = Self.grid(seed: seed, index: index)
        var random = numbers
        let placed = renderer.place(scene, &random)
        guard let image = renderer.render(scene.background, placed: placed, isDivided: scene.panels > 1, random: &random) else {
            throw SceneError.argument(name: "size", expected: "56 to 2048 pixels", found: "\(size)")
        }
        var turnRandom = SceneRandom(seed: random.next(), index: index), separateRandom = SceneRandom(seed: random.next(), index: index)
        let rest = GridQuestions(scene: scene)
        return Scene(
            image: image, things: scene.things, turns: rest.draw(turns, following: first, &turnRandom),
            separate: separate == 0 ? [] : rest.draw(separate, following: first, &separateRandom), regions: renderer.regions(placed))
    }

    /// A scene of level 2, its first question, and the random numbers that follow. Tasks are drawn uniformly.
    static func grid(seed: UInt64, index: Int) -> (scene: GridScene, first: SceneQuestion, random: SceneRandom) {
        var random = SceneRandom(seed: seed ^ 0x6C65_7665_6C20_3200, index: index)
        while true {
            let task = random.pick(SceneTask.tasks(level: 2)) ?? .chain1
            // A few scenes hold no path of the length that was drawn; they are drawn again for the same task, so that all are as frequent.
            for _ in 0..<16 {
                let scene = GridScene(for: task, &random)
                if let first = GridQuestions(scene: scene).question(task, &random) { return (scene, first, random) }
            }
        }
    }
}
