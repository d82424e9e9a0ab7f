/// Questions about relative positions, and about the thing at a place.
extension SceneQuestions {
    enum Direction: CaseIterable {
        case left, right, above, below

        /// "What is ___ the dog?"
        var phrase: String {
            switch self {
            case .left: "to the left of"
            case .right: "to the right of"
            case .above: "above"
            case .below: "below"
            }
        }

        var opposite: Direction {
            switch self {
            case .left: .right
            case .right: .left
            case .above: .below
            case .below: .above
            }
        }
    }

    /// One thing seen from another: `item` is in `direction` of `reference`.
    struct Relation {
        let item: Int
        let direction: Direction
        let reference: Int
    }

    /// The only item in a direction of another; `nil` if there is none or several are possible. Left and right apply within a row; above and
    /// below first within a column.
    func neighbour(_ direction: Direction, of reference: Int) -> Int? {
        guard layout.items.indices.contains(reference) else { return nil }
        let origin = layout.items[reference].place
        let found = layout.items.indices.filter { item in
            let place = layout.items[item].place
            return switch direction {
            case .left: place.row == origin.row && place.column < origin.column
            case .right: place.row == origin.row && place.column > origin.column
            case .above: place.row < origin.row
            case .below: place.row > origin.row
            }
        }
        let straight = found.filter { layout.items[$0].place.column == origin.column }
        if straight.count == 1 { return straight[0] }
        return found.count == 1 ? found[0] : nil
    }

    /// Every relation whose reference has a unique name.
    var allRelations: [Relation] {
        things.indices.filter { items(named: things[$0].name).count == 1 }.flatMap { reference in
            Direction.allCases.compactMap { direction in
                neighbour(direction, of: reference).map { Relation(item: $0, direction: direction, reference: reference) }
            }
        }
    }

    private func reference(_ item: Int) -> String { "the " + things[item].name }

    /// In a scene of two things, one thing's place implies the other's.
    private func located(_ relation: Relation) -> Set<SceneFact> {
        let both: Set<SceneFact> = things.count == 2 ? [.place(relation.item), .place(relation.reference)] : [.place(relation.item)]
        return both.union([.order(relation.item, relation.reference), .order(relation.reference, relation.item)])
    }

    func relations(_ random: inout SceneRandom) -> [SceneCandidate] {
        guard things.count > 1 else { return [] }
        return neighbours(&random) + orders(&random) + places(&random)
    }

    /// "What is above the dog?" and questions about that thing's colour, shape and text.
    private func neighbours(_ random: inout SceneRandom) -> [SceneCandidate] {
        var found: [SceneCandidate] = []
        if let relation = random.pick(allRelations) {
            found.append(
                SceneCandidate(
                    .vqa, "What is \(relation.direction.phrase) \(reference(relation.reference))?", things[relation.item].name,
                    form: .relation, weight: 3, asks: [.place(relation.item)],
                    states: located(relation).union(named(relation.item)).union(named(relation.reference))))
        }
        guard let relation = random.pick(allRelations.filter { things[$0.item].pictogram == nil }) else { return found }
        let place = "\(relation.direction.phrase) \(reference(relation.reference))"
        let (item, told) = (relation.item, named(relation.reference))
        switch things[item] {
        case .pictogram: break
        case .shape(let shape, let colour):
            found.append(
                SceneCandidate(
                    .vqa, "What color is the shape \(place)?", colour.rawValue, form: .relation, asks: [.colour(item)], states: told))
            found.append(
                SceneCandidate(
                    .vqa, "What shape is \(place)?", shape.rawValue, form: .relation, asks: [.outline(item)], states: told))
        case .word(let word):
            found.append(
                SceneCandidate(
                    .text, "What does the text \(place) say?", word, form: .relation, weight: 1.5, asks: [.word(item)],
                    states: told.union([.hasText])))
        }
        return found
    }

    /// "Is the cat above the dog?", answered yes and no equally often.
    private func orders(_ random: inout SceneRandom) -> [SceneCandidate] {
        let clear = allRelations.filter { items(named: things[$0.item].name).count == 1 }
        guard let relation = random.pick(clear) else { return [] }
        let isTrue = random.chance(0.5)
        let direction = isTrue ? relation.direction : relation.direction.opposite
        return [
            SceneCandidate(
                .pope, "Is \(reference(relation.item)) \(direction.phrase) \(reference(relation.reference))?", SceneCandidate.yesNo(isTrue),
                form: .relation, weight: 3, asks: [.order(relation.item, relation.reference)],
                states: located(relation).union(named(relation.item)).union(named(relation.reference)))
        ]
    }

    /// Questions for the thing at a place, and for the place of a thing.
    private func places(_ random: inout SceneRandom) -> [SceneCandidate] {
        var found: [SceneCandidate] = []
        let item = random.below(things.count)
        let (thing, place) = (things[item], layout.items[item].place)
        if things.count > 2, Set(things).count > 1 {
            found.append(
                SceneCandidate(
                    .vqa, "What is \(place.phrase)?", thing.name, form: .relation, weight: 1.5, asks: [.place(item)], states: named(item)))
        }
        if let (shape, colour) = thing.shape {
            found.append(
                SceneCandidate(
                    .vqa, "What color is the shape \(place.phrase)?", colour.rawValue, form: .relation, asks: [.colour(item)]))
            found.append(
                SceneCandidate(.vqa, "What shape is \(place.phrase)?", shape.rawValue, form: .relation, asks: [.outline(item)]))
        }
        if let printed = random.pick(words) {
            // If there are two, only the place tells them apart.
            found.append(
                SceneCandidate(
                    .text, "What does the text \(layout.items[printed.item].place.phrase) say?", printed.word, form: .relation,
                    weight: words.count > 1 ? 6 : 1, asks: [.word(printed.item)], states: [.hasText]))
        }
        guard things.count == 2, items(named: thing.name).count == 1 else { return found }
        let isHorizontal = place == .left || place == .right
        let (first, second): (SceneLayout.Place, SceneLayout.Place) = isHorizontal ? (.left, .right) : (.top, .bottom)
        let told = named(item).union([.place(1 - item)])
        found.append(
            SceneCandidate(
                .vqa, "Is \(reference(item)) \(first.phrase) or \(second.phrase)?", place.rawValue, form: .relation, asks: [.place(item)],
                states: told))
        let isTrue = random.chance(0.5)
        let asked = isTrue ? place : (place == first ? second : first)
        found.append(
            SceneCandidate(
                .pope, "Is \(reference(item)) \(asked.phrase)?", SceneCandidate.yesNo(isTrue), form: .relation, asks: [.place(item)],
                states: told))
        return found
    }
}
