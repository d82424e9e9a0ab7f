/// Questions about a scene's content that Scenes' reference script does not ask.
extension SceneQuestions {
    func further(_ random: inout SceneRandom) -> [SceneCandidate] {
        pictogramQuestions(&random) + shapeQuestions(&random) + textQuestions(&random) + rewordings
    }

    private func pictogramQuestions(_ random: inout SceneRandom) -> [SceneCandidate] {
        var found: [SceneCandidate] = []
        if let absent = absentPictogram(&random) {
            found.append(
                SceneCandidate(
                    .vqa, "How many \(random.chance(0.5) ? absent.plainPlural : absent.plural) are there?", "zero", form: .further,
                    weight: 0.4, asks: [.number(absent.name)], states: [.presence(absent.name)]))
        }
        let animals = pictograms.filter { $0.category == .animal }
        if !animals.isEmpty {
            found.append(
                SceneCandidate(
                    .vqa, "How many animals are there?", NumberWord.of(animals.count), form: .further, weight: 0.7,
                    asks: [.number("animal")]))
        }
        guard Set(pictograms).count == 1, let only = pictograms.first else { return found }
        // "Object" and "nature" would not say which of the things is meant.
        if [.animal, .food, .vehicle].contains(only.category) {
            found.append(
                SceneCandidate(
                    .vqa, "What \(only.category.rawValue) is shown?", only.name, form: .further, weight: 0.8, asks: [.presence(only.name)]))
        }
        guard things.count == 1 else { return found }
        let isRight = random.chance(0.5)
        if let asked = isRight ? only : wrongPictograms(for: only, count: 1, &random).first {
            found.append(
                SceneCandidate(
                    .pope, "Is this \(SceneThing.withArticle(asked.name))?", SceneCandidate.yesNo(isRight), form: .further,
                    asks: [.presence(only.name)], states: [.presence(asked.name)], isTold: isRight))
        }
        return found
    }

    private func shapeQuestions(_ random: inout SceneRandom) -> [SceneCandidate] {
        guard let pick = random.pick(shapes) else { return [] }
        let (shape, colour) = (pick.shape, pick.colour)
        // A no has the right shape in another colour, or the right colour on another shape.
        let others = SceneColour.classic.map { SceneThing.shape(shape, $0) } + SceneShape.classic.map { .shape($0, colour) }
        let absent = others.filter { !things.contains($0) }
        let isThere = random.chance(0.5)
        let asked = isThere ? .shape(shape, colour) : random.pick(absent) ?? .shape(shape, colour)
        var found = [
            SceneCandidate(
                .pope, "Is there \(asked.nameWithArticle) in the image?", SceneCandidate.yesNo(things.contains(asked)), form: .further,
                weight: 1.2, asks: [.presence(asked.name)])
        ]
        let outlines =
            random.chance(0.5) ? shapes.map(\.shape) : SceneShape.classic.filter { outline in !shapes.contains { $0.shape == outline } }
        // Beside pictograms a no would be open to doubt: a ball is round.
        if pictograms.isEmpty, let outline = random.pick(outlines) {
            found.append(
                SceneCandidate(
                    .pope, "Is there \(SceneThing.withArticle(outline.rawValue)) in the image?",
                    SceneCandidate.yesNo(shapes.contains { $0.shape == outline }), form: .further, weight: 0.8,
                    asks: [.presence(outline.rawValue)]))
        }
        found.append(
            SceneCandidate(
                .vqa, "How many \(shape.plural) are there?", NumberWord.of(shapes.count { $0.shape == shape }), form: .further, weight: 0.8,
                asks: [.number(shape.rawValue)], states: [.presence(shape.rawValue)]))
        found.append(
            SceneCandidate(
                .vqa, "How many shapes are there?", NumberWord.of(shapes.count), form: .further, weight: 0.5, asks: [.number("shape")]))
        return found + uniqueShapeQuestions(&random)
    }

    private func uniqueShapeQuestions(_ random: inout SceneRandom) -> [SceneCandidate] {
        var found: [SceneCandidate?] = []
        if let pick = random.pick(shapes.filter { candidate in shapes.count { $0.shape == candidate.shape } == 1 }) {
            let isTrue = random.chance(0.5)
            let wrong = random.shuffled(SceneColour.classic.filter { $0 != pick.colour }).prefix(2).map(\.rawValue)
            if let other = wrong.first {
                found.append(
                    SceneCandidate(
                        .pope, "Is the \(pick.shape.rawValue) \(isTrue ? pick.colour.rawValue : other)?", SceneCandidate.yesNo(isTrue),
                        form: .further, weight: 0.8, asks: [.colour(pick.item)],
                        states: isTrue ? named(pick.item) : [.presence(pick.shape.rawValue)], isTold: isTrue))
            }
            found.append(
                SceneCandidate.choice(
                    "Which color is the \(pick.shape.rawValue)?", right: pick.colour.rawValue, wrong: wrong, form: .further, weight: 0.8,
                    asks: [.colour(pick.item)], states: named(pick.item), &random))
            found.append(
                SceneCandidate(
                    .vqa, "What colour is the \(pick.shape.rawValue)?", pick.colour.rawValue, form: .further, weight: 0.6,
                    asks: [.colour(pick.item)], states: named(pick.item)))
        }
        if shapes.count == 1, let only = shapes.first {
            let wrong = random.shuffled(SceneShape.classic.filter { $0 != only.shape }).prefix(2).map(\.rawValue)
            found.append(
                SceneCandidate.choice(
                    "Which shape is shown?", right: only.shape.rawValue, wrong: wrong, form: .further, weight: 0.6,
                    asks: [.outline(only.item)], states: [.presence(only.shape.rawValue)], &random))
        }
        return found.compactMap(\.self)
    }

    private func textQuestions(_ random: inout SceneRandom) -> [SceneCandidate] {
        var found = [
            SceneCandidate(
                .pope, "Is there text in the image?", SceneCandidate.yesNo(!words.isEmpty), form: .further,
                weight: words.isEmpty ? 0.25 : 0.8,
                asks: [.hasText])
        ]
        guard words.count == 1, let only = words.first else { return found }
        found.append(
            SceneCandidate(
                .text, "What word is shown?", only.word, form: .further, weight: 0.8, asks: [.word(only.item)], states: [.hasText]))
        found.append(
            SceneCandidate(.text, "Read the text.", only.word, form: .further, weight: 0.8, asks: [.word(only.item)], states: [.hasText]))
        // Of the right length, so that a no takes reading.
        let alike = (SceneWords.classic + SceneWords.further).filter { $0 != only.word && $0.count == only.word.count }
        let isTrue = random.chance(0.5)
        if let other = random.pick(alike) {
            found.append(
                SceneCandidate(
                    .pope, "Does the text say \(isTrue ? only.word : other)?", SceneCandidate.yesNo(isTrue), form: .further,
                    asks: [.word(only.item)], states: [.hasText], isTold: isTrue))
        }
        let wrong = random.shuffled(alike).prefix(2)
        let choice = SceneCandidate.choice(
            "Which word is shown?", right: only.word, wrong: Array(wrong), form: .further, weight: 0.8, asks: [.word(only.item)],
            states: [.hasText], &random)
        return found + [choice].compactMap(\.self)
    }

    /// Alternative wordings of the classic questions.
    private var rewordings: [SceneCandidate] {
        var found = [
            SceneCandidate(
                .caption, "What do you see in the image?", caption.question.answer, form: .further, weight: 0.4, asks: [.total]),
            SceneCandidate(.vqa, "How many things are there?", NumberWord.of(things.count), form: .further, weight: 0.4, asks: [.total]),
        ]
        if things.count == 1, pictograms.isEmpty {
            found.append(
                SceneCandidate(
                    .vqa, "What is in the image?", things[0].name, form: .further, weight: 0.8, asks: named(0), states: [.place(0)]))
        }
        return found
    }
}
