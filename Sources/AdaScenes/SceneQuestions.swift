/// What a question is about, named after the benchmarks it stands in for.
public enum SceneTask: String, Sendable, CaseIterable {
    /// Colour, count, position, "what is it": a word or two (VQAv2's form).
    case vqa
    /// "Is there a dog in the image?": yes or no (POPE's form).
    case pope
    /// "What does the text say?" (TextVQA's form).
    case text
    /// Three options, the answer is a letter (ScienceQA's and MMBench's form).
    case choice
    /// "Describe the image."
    case caption

    /// How often a task is chosen where a scene supports it.
    var weight: Double {
        switch self {
        case .vqa: 0.40
        case .pope: 0.18
        case .text: 0.22
        case .choice: 0.12
        case .caption: 0.08
        }
    }
}

/// A question about a scene and its one right answer.
public struct SceneQuestion: Sendable, Equatable {
    /// What the question asks for.
    public let task: SceneTask
    /// The question, without an image mark.
    public let question: String
    /// The one right answer.
    public let answer: String
}

/// Writes the questions that a scene can answer.
struct SceneQuestions {
    let layout: SceneLayout

    private var things: [SceneThing] { layout.things }
    private var pictograms: [Pictogram] { things.compactMap(\.pictogram) }
    private var shapes: [(shape: SceneShape, colour: SceneColour)] {
        things.compactMap { if case .shape(let shape, let colour) = $0 { (shape, colour) } else { nil } }
    }

    /// One question: first a task by its weight, then one of that task's questions.
    func pick(_ random: inout SceneRandom) -> SceneQuestion {
        let caption = SceneQuestion(task: .caption, question: "Describe the image.", answer: caption)
        let all = appearance(&random) + counts(&random) + positions(&random) + presence(&random) + texts() + choices(&random) + [caption]
        let tasks = SceneTask.allCases.filter { task in all.contains { $0.task == task } }
        let task = random.pick(weighted: tasks.map { ($0, $0.weight) }) ?? .caption
        return random.pick(all.filter { $0.task == task }) ?? caption
    }

    private var caption: String {
        "The image shows " + things.map(\.nameWithArticle).joined(separator: " and ") + "."
    }

    /// What something is, its colour, its shape; only where the question has one answer.
    private func appearance(_ random: inout SceneRandom) -> [SceneQuestion] {
        var found: [SceneQuestion] = []
        if things.count == 1, let only = pictograms.first {
            found.append(SceneQuestion(task: .vqa, question: "What is in the image?", answer: only.name))
        }
        let uniqueShapes = shapes.filter { candidate in shapes.count { $0.shape == candidate.shape } == 1 }
        if let pick = random.pick(uniqueShapes) {
            found.append(SceneQuestion(task: .vqa, question: "What color is the \(pick.shape.rawValue)?", answer: pick.colour.rawValue))
        }
        let uniqueColours = shapes.filter { candidate in shapes.count { $0.colour == candidate.colour } == 1 }
        if let pick = random.pick(uniqueColours) {
            found.append(SceneQuestion(task: .vqa, question: "What shape is \(pick.colour.rawValue)?", answer: pick.shape.rawValue))
        }
        return found
    }

    private func counts(_ random: inout SceneRandom) -> [SceneQuestion] {
        var found = [SceneQuestion(task: .vqa, question: "How many things are in the image?", answer: NumberWord.of(things.count))]
        if let pick = random.pick(pictograms) {
            let number = pictograms.count { $0 == pick }
            found.append(SceneQuestion(task: .vqa, question: "How many \(pick.plural) are there?", answer: NumberWord.of(number)))
        }
        if let pick = random.pick(shapes) {
            let number = shapes.count { $0.shape == pick.shape }
            found.append(SceneQuestion(task: .vqa, question: "How many \(pick.shape.plural) are there?", answer: NumberWord.of(number)))
        }
        return found
    }

    /// Only in scenes whose things differ: else the place would not matter.
    private func positions(_ random: inout SceneRandom) -> [SceneQuestion] {
        guard Set(things).count > 1 else { return [] }
        return random.shuffled(layout.items).prefix(2).map {
            SceneQuestion(task: .vqa, question: "What is \($0.place.phrase)?", answer: $0.thing.name)
        }
    }

    /// As many yes as no where the scene allows both.
    private func presence(_ random: inout SceneRandom) -> [SceneQuestion] {
        func question(_ name: String, _ isThere: Bool) -> SceneQuestion {
            SceneQuestion(task: .pope, question: "Is there \(SceneThing.withArticle(name)) in the image?", answer: isThere ? "yes" : "no")
        }
        let isThere = random.chance(0.5)
        let candidates = isThere ? pictograms : Pictogram.all.filter { !pictograms.contains($0) }
        var found = random.pick(candidates).map { [question($0.name, isThere)] } ?? []
        // For shapes a no has the right shape in another colour, or the right colour on another shape.
        if let (shape, colour) = random.pick(shapes) {
            let others = SceneColour.allCases.map { SceneThing.shape(shape, $0) } + SceneShape.allCases.map { .shape($0, colour) }
            let absent = others.filter { !things.contains($0) }
            if random.chance(0.5) {
                found.append(question(SceneThing.shape(shape, colour).name, true))
            } else if let other = random.pick(absent) {
                found.append(question(other.name, false))
            }
        }
        return found
    }

    private func texts() -> [SceneQuestion] {
        things.compactMap { thing in
            guard case .word(let word) = thing else { return nil }
            return SceneQuestion(task: .text, question: "What does the text say?", answer: word)
        }
    }

    private func choices(_ random: inout SceneRandom) -> [SceneQuestion] {
        var found: [SceneQuestion] = []
        if Set(pictograms).count == 1, let right = pictograms.first {
            let wrong = Pictogram.all.filter { $0.category == right.category && $0 != right }.map(\.name)
            found.append(choice("Which \(right.category.rawValue) is shown?", right: right.name, wrong: wrong, &random))
        }
        if shapes.count == 1, let (shape, colour) = shapes.first {
            let wrong = SceneColour.allCases.filter { $0 != colour }.map(\.rawValue)
            found.append(choice("Which color is the \(shape.rawValue)?", right: colour.rawValue, wrong: wrong, &random))
        }
        return found
    }

    private func choice(_ question: String, right: String, wrong: [String], _ random: inout SceneRandom) -> SceneQuestion {
        let options = random.shuffled([right] + random.shuffled(wrong).prefix(2))
        let letters = ["A", "B", "C"]
        let lines = zip(letters, options).map { "\($0). \($1)" }.joined(separator: "\n")
        let answer = zip(letters, options).first { $1 == right }?.0 ?? "A"
        return SceneQuestion(task: .choice, question: "\(question)\n\(lines)\nAnswer with the letter.", answer: answer)
    }
}
