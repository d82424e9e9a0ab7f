/// Writes the questions that a scene can answer: mostly those of Scenes' reference script, word for word, and others.
struct SceneQuestions {
    let layout: SceneLayout

    var things: [SceneThing] { layout.things }
    var pictograms: [Pictogram] { things.compactMap(\.pictogram) }
    /// Shapes with their number in the layout.
    var shapes: [(item: Int, shape: SceneShape, colour: SceneColour)] {
        things.enumerated().compactMap { item, thing in thing.shape.map { (item, $0.shape, $0.colour) } }
    }
    /// Printed words with their number in the layout.
    var words: [(item: Int, word: String)] {
        things.enumerated().compactMap { item, thing in thing.word.map { (item, $0) } }
    }

    /// The fraction of questions with a given form, in scenes of one thing and of several; three of ten questions are not classic.
    private static func share(of form: SceneCandidate.Form, isAlone: Bool) -> Double {
        switch form {
        case .classic: isAlone ? 0.81 : 0.63
        case .relation: isAlone ? 0 : 0.25
        case .further: isAlone ? 0.19 : 0.12
        }
    }

    /// One question.
    func pick(_ random: inout SceneRandom) -> SceneQuestion {
        turns(1, &random).first ?? caption.question
    }

    /// Up to `count` different questions in a random order, a description last. Each asks for something that the earlier turns do not state;
    /// if a scene has no more such questions, there are fewer turns.
    func turns(_ count: Int, _ random: inout SceneRandom) -> [SceneQuestion] {
        var left = weighted(candidates(&random))
        var chosen: [SceneQuestion] = []
        var description: SceneQuestion?
        var known: Set<SceneFact> = []
        while chosen.count + (description == nil ? 0 : 1) < count {
            guard let pick = random.pick(weighted: left.map { ($0.candidate, $0.weight) }) else { break }
            if pick.question.task == .caption {
                description = pick.question
                left.removeAll { $0.candidate.question.task == .caption }
            } else {
                chosen.append(pick.question)
                known.formUnion(pick.states)
            }
            left.removeAll { entry in
                entry.candidate.question == pick.question
                    || (entry.candidate.question.task != .caption && entry.candidate.asks.isSubset(of: known))
            }
        }
        return chosen + [description].compactMap(\.self)
    }

    /// Factor of a task's frequency among separate questions. Tasks that take longest to learn are asked more often: finding one name among
    /// those of a picture, and a picture's name among options.
    private static func emphasis(_ task: SceneTask) -> Double {
        switch task {
        case .vqa: 1
        case .chain1, .chain2, .chain3, .chain4, .count, .read, .sum, .compare, .odd, .negation, .change: 1
        case .text: 2.5
        case .pope: 2.5
        case .choice: 3
        case .caption: 0.7
        }
    }

    /// Up to `count` different questions, drawn independently. A conversation's turns avoid stated facts and so mostly ask for absent things;
    /// these are answered yes and no equally often.
    func separate(_ count: Int, _ random: inout SceneRandom) -> [SceneQuestion] {
        var chosen: [SceneQuestion] = []
        for _ in 0..<count {
            let candidates = weighted(candidates(&random)).map { (element: $0.candidate.question, weight: $0.weight * Self.emphasis($0.candidate.question.task)) }
            guard let question = random.pick(weighted: candidates) else { break }
            if !chosen.contains(where: { $0.question == question.question }) { chosen.append(question) }
        }
        return chosen
    }

    /// Every question that the scene supports, none twice.
    func candidates(_ random: inout SceneRandom) -> [SceneCandidate] {
        let all = classic(&random) + relations(&random) + further(&random)
        var seen: Set<String> = []
        return all.filter { seen.insert($0.question.question).inserted }
    }

    /// Weights that give every form its fraction, whatever its number of questions.
    private func weighted(_ candidates: [SceneCandidate]) -> [(candidate: SceneCandidate, weight: Double)] {
        var sums: [SceneCandidate.Form: Double] = [:]
        for candidate in candidates { sums[candidate.form, default: 0] += candidate.weight }
        return candidates.map { candidate in
            let share = Self.share(of: candidate.form, isAlone: things.count == 1)
            return (candidate, candidate.weight / (sums[candidate.form] ?? 1) * share)
        }
    }

    // MARK: Facts

    /// Facts that naming an item states.
    func named(_ item: Int) -> Set<SceneFact> {
        guard things.indices.contains(item) else { return [] }
        switch things[item] {
        case .pictogram(let pictogram): return [.presence(pictogram.name)]
        case .shape(let shape, _): return [.presence(things[item].name), .presence(shape.rawValue), .colour(item), .outline(item)]
        case .word: return [.word(item), .hasText]
        }
    }

    /// Items that carry this name.
    func items(named name: String) -> [Int] { things.indices.filter { things[$0].name == name } }

    // MARK: The classic forms

    var caption: SceneCandidate {
        SceneCandidate(
            .caption, "Describe the image.", "The image shows " + things.map(\.nameWithArticle).joined(separator: " and ") + ".",
            form: .classic, asks: [.total])
    }

    private func classic(_ random: inout SceneRandom) -> [SceneCandidate] {
        presence(&random) + texts + appearance(&random) + counts(&random) + sides(&random) + choices(&random) + [caption]
    }

    /// A pictogram that is absent and cannot be mistaken for one that is shown.
    func absentPictogram(_ random: inout SceneRandom) -> Pictogram? {
        Pictogram.pick(&random) { candidate in !pictograms.contains { $0 == candidate || $0.isConfusable(with: candidate) } }
    }

    private func presence(_ random: inout SceneRandom) -> [SceneCandidate] {
        // A scene without pictograms can only be answered no; the others are answered yes more often to compensate.
        let isThere = !pictograms.isEmpty && random.chance(0.62)
        guard let asked = isThere ? random.pick(pictograms) : absentPictogram(&random) else { return [] }
        return [
            SceneCandidate(
                .pope, "Is there \(SceneThing.withArticle(asked.name)) in the image?", SceneCandidate.yesNo(isThere), form: .classic,
                asks: [.presence(asked.name)])
        ]
    }

    private var texts: [SceneCandidate] {
        // With two words the question would have two answers.
        guard words.count == 1, let only = words.first else { return [] }
        return [
            SceneCandidate(
                .text, "What does the text say?", only.word, form: .classic, weight: 3, asks: [.word(only.item)], states: [.hasText])
        ]
    }

    private func appearance(_ random: inout SceneRandom) -> [SceneCandidate] {
        var found: [SceneCandidate] = []
        if let pick = random.pick(shapes.filter { candidate in shapes.count { $0.shape == candidate.shape } == 1 }) {
            found.append(
                SceneCandidate(
                    .vqa, "What color is the \(pick.shape.rawValue)?", pick.colour.rawValue, form: .classic, asks: [.colour(pick.item)],
                    states: named(pick.item)))
        }
        if let pick = random.pick(shapes.filter { candidate in shapes.count { $0.colour == candidate.colour } == 1 }) {
            found.append(
                SceneCandidate(
                    .vqa, "What shape is \(pick.colour.rawValue)?", pick.shape.rawValue, form: .classic, asks: [.outline(pick.item)],
                    states: named(pick.item)))
        }
        if things.count == 1, let only = pictograms.first {
            found.append(
                SceneCandidate(.vqa, "What is in the image?", only.name, form: .classic, asks: [.presence(only.name)], states: [.place(0)]))
        }
        return found
    }

    private func counts(_ random: inout SceneRandom) -> [SceneCandidate] {
        var found = [
            SceneCandidate(.vqa, "How many things are in the image?", NumberWord.of(things.count), form: .classic, asks: [.total])
        ]
        if let pick = random.pick(pictograms) {
            // People write both "cherries" and "cherrys".
            let plural = random.chance(0.5) ? pick.plainPlural : pick.plural
            let number = pictograms.count { $0 == pick }
            found.append(
                SceneCandidate(
                    .vqa, "How many \(plural) are there?", NumberWord.of(number), form: plural == pick.plainPlural ? .classic : .further,
                    asks: [.number(pick.name)], states: [.presence(pick.name)]))
        }
        return found
    }

    private func sides(_ random: inout SceneRandom) -> [SceneCandidate] {
        guard things.count == 2, Set(things.map(\.name)).count == 2 else { return [] }
        let item = random.below(2)
        return [
            SceneCandidate(
                .vqa, "What is \(layout.items[item].place.phrase)?", things[item].name, form: .classic, asks: [.place(item)],
                states: named(item))
        ]
    }

    private func choices(_ random: inout SceneRandom) -> [SceneCandidate] {
        guard Set(pictograms).count == 1, let right = pictograms.first else { return [] }
        let wrong = wrongPictograms(for: right, count: 2, &random).map(\.name)
        let question = SceneCandidate.choice(
            "Which \(right.category.rawValue) is shown?", right: right.name, wrong: wrong, form: .classic, weight: 1.6,
            asks: [.presence(right.name)], &random)
        return [question].compactMap(\.self)
    }

    /// Pictograms of the same category that cannot be mistaken for the right one.
    func wrongPictograms(for right: Pictogram, count: Int, _ random: inout SceneRandom) -> [Pictogram] {
        var wrong: [Pictogram] = []
        for _ in 0..<count {
            let next = Pictogram.pick(&random) {
                $0.category == right.category && $0 != right && !$0.isConfusable(with: right) && !wrong.contains($0)
            }
            wrong += [next].compactMap(\.self)
        }
        return wrong
    }
}
