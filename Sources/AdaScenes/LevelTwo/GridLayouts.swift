/// Draws the scenes of level 2. The question is chosen first and the scene drawn for it, so that answers are spread evenly.
extension GridScene {
    /// A scene for a task.
    init(for task: SceneTask, _ random: inout SceneRandom) {
        switch random.pick(Kind.supporting(task)) ?? .field {
        case .field: self = Self.field(&random)
        case .crowd: self = Self.crowd(task, &random)
        case .oddOne: self = Self.oddOne(task, &random)
        case .words: self = Self.words(&random)
        case .numbers: self = Self.numbers(task, &random)
        case .panels: self = Self.panels(&random)
        }
    }

    private static func cells(_ columns: Int, _ rows: Int, _ random: inout SceneRandom) -> [(column: Int, row: Int)] {
        random.shuffled((0 ..< columns * rows).map { (column: $0 % columns, row: $0 / columns) })
    }

    /// Things in random cells of three by three.
    private static func scattered(_ kind: Kind, _ things: [SceneThing], _ random: inout SceneRandom) -> GridScene {
        let places = cells(3, 3, &random)
        return GridScene(
            kind: kind, background: SceneLayout.background(&random),
            items: zip(things, places).map { Item(thing: $0, column: $1.column, row: $1.row) })
    }

    /// A thing with another name than all others, that cannot be mistaken for one of them. Shapes contrast with every background.
    private static func thing(besides others: [SceneThing], shapes: Double, _ random: inout SceneRandom) -> SceneThing {
        let present = others.compactMap(\.pictogram)
        if random.chance(shapes) {
            for _ in 0..<32 {
                let shape = SceneThing.shape(SceneShape.pick(&random), random.pick(darkColours) ?? .red)
                if !others.contains(shape) { return shape }
            }
        }
        let pictogram = Pictogram.pick(&random) { candidate in
            !present.contains { $0 == candidate || $0.isConfusable(with: candidate) }
        }
        return pictogram.map(SceneThing.pictogram) ?? .shape(.circle, .red)
    }

    /// Colours that differ from every ground, which is light.
    static let darkColours: [SceneColour] = [.red, .green, .blue, .purple, .black, .orange]

    // MARK: Kinds

    private static func field(_ random: inout SceneRandom) -> GridScene {
        var things: [SceneThing] = []
        for _ in 0..<random.integer(6...9) { things.append(thing(besides: things, shapes: 0.25, &random)) }
        // A name that two things carry cannot be where a chain starts, but may be passed.
        if random.chance(0.3) { things[0] = things[1] }
        return scattered(.field, things, &random)
    }

    /// One kind of thing 1 to 9 times, each number as likely, and fewer or more of one or two others.
    private static func crowd(_ task: SceneTask, _ random: inout SceneRandom) -> GridScene {
        let areShapes = random.chance(0.3)
        var kinds: [SceneThing] = []
        for _ in 0..<3 {
            if areShapes {
                let left = darkColours.filter { colour in !kinds.contains { $0.shape?.colour == colour } }
                let outlines = SceneShape.classic.filter { shape in !kinds.contains { $0.shape?.shape == shape } }
                kinds.append(.shape(random.pick(outlines) ?? .circle, random.pick(left) ?? .red))
            } else {
                kinds.append(thing(besides: kinds, shapes: 0, &random))
            }
        }
        let first: Int, second: Int
        if task == .compare {
            let larger = random.integer(2...6), smaller = random.integer(1 ... min(larger - 1, 9 - larger))
            (first, second) = random.chance(0.5) ? (larger, smaller) : (smaller, larger)
        } else {
            first = random.integer(1...9)
            second = random.integer(0 ... 9 - first)
        }
        let third = random.chance(0.5) ? random.integer(0 ... 9 - first - second) : 0
        let things = zip(kinds, [first, second, third]).flatMap { Array(repeating: $0, count: $1) }
        return scattered(.crowd, things, &random)
    }

    /// Categories that tell things apart, each without members that belong to another one too.
    private static let clearCategories: [Pictogram.Category: [Pictogram]] = {
        let eaten: Set<String> = ["fish", "chicken", "crab", "duck", "octopus", "sheep", "pig", "cow", "snail"]
        let clear: [Pictogram.Category] = [.animal, .food, .vehicle]
        return Dictionary(uniqueKeysWithValues: clear.map { category in
            (category, Pictogram.all.filter { $0.category == category && !eaten.contains($0.name) })
        })
    }()

    /// Whether all members of a category agree that this is one: no "food" that is an animal too.
    static func isClear(_ pictogram: Pictogram) -> Bool { clearCategories[pictogram.category]?.contains(pictogram) ?? false }

    private static func oddOne(_ task: SceneTask, _ random: inout SceneRandom) -> GridScene {
        let count = random.integer(4...7)
        let form = task == .negation ? 0 : random.fraction()
        if form < 0.5 {
            let categories = random.shuffled([Pictogram.Category.animal, .food, .vehicle])
            let common = random.shuffled(clearCategories[categories[0]] ?? []).prefix(count - 1)
            let odd = random.pick(clearCategories[categories[1]] ?? [])
            return scattered(.oddOne, (Array(common) + [odd].compactMap(\.self)).map(SceneThing.pictogram), &random)
        }
        if form < 0.65 {
            let common = thing(besides: [], shapes: 0, &random), odd = thing(besides: [common], shapes: 0, &random)
            return scattered(.oddOne, Array(repeating: common, count: count - 1) + [odd], &random)
        }
        let colours = random.shuffled(darkColours), outlines = random.shuffled(SceneShape.classic)
        // The quality that the common things share is the one in which the odd thing differs; the other quality is mixed.
        let isByColour = form < 0.83
        let common = (0 ..< count - 1).map { index in
            isByColour ? SceneThing.shape(outlines[index % outlines.count], colours[0]) : .shape(outlines[0], colours[index % (colours.count - 1)])
        }
        // The mixed quality of the odd one occurs among the others too, so that it is odd by one quality alone.
        let odd = isByColour ? SceneThing.shape(outlines[random.below(min(count - 1, outlines.count))], colours[1])
            : .shape(outlines[1], colours[random.below(min(count - 1, colours.count - 1))])
        return scattered(.oddOne, common + [odd], &random)
    }

    private static func words(_ random: inout SceneRandom) -> GridScene {
        let isStacked = random.chance(0.6)
        func word(_ random: inout SceneRandom, not other: String?) -> String {
            for _ in 0..<32 {
                let word = SceneWords.pick(&random, maxLetters: isStacked ? 6 : 4)
                if word != other, isStacked || word.count <= 4 { return word }
            }
            return other == "CAT" ? "DOG" : "CAT"
        }
        let first = word(&random, not: nil), second = word(&random, not: first)
        let items = [first, second].enumerated().map { index, text in
            Item(thing: .word(text), column: isStacked ? 0 : index, row: isStacked ? index : 0)
        }
        return GridScene(
            kind: .words, background: SceneLayout.background(&random), columns: isStacked ? 1 : 2, rows: isStacked ? 2 : 1, items: items)
    }

    private static func numbers(_ task: SceneTask, _ random: inout SceneRandom) -> GridScene {
        var numbers: [Int]
        if task == .compare {
            // The largest is as likely to be each of 1 to 9.
            let largest = random.integer(1...9)
            numbers = random.shuffled([largest] + (0 ..< random.integer(1...2)).map { _ in random.below(largest) })
        } else {
            let sum = random.integer(2...18)
            let first = random.integer(max(1, sum - 9) ... min(9, sum - 1))
            numbers = [first, sum - first]
            // Three numbers: one of them is divided.
            if random.chance(0.4), let index = numbers.firstIndex(where: { $0 > 1 }) {
                let part = random.integer(1 ... numbers[index] - 1)
                numbers[index] -= part
                numbers.append(part)
            }
        }
        var things = numbers.map { SceneThing.word(String($0)) }
        for _ in 0..<random.integer(0...2) { things.append(thing(besides: things, shapes: 0.3, &random)) }
        return scattered(.numbers, things, &random)
    }

    /// Two panels of two by two cells: the right one differs in one thing, which is new, gone, another, moved or of another colour.
    private static func panels(_ random: inout SceneRandom) -> GridScene {
        let change = random.below(5)
        var things: [SceneThing] = []
        for index in 0..<3 { things.append(thing(besides: things, shapes: change == 4 && index == 0 ? 1 : 0.25, &random)) }
        let places = cells(2, 2, &random)
        var before = zip(things, places).map { Item(thing: $0, column: $1.column, row: $1.row) }
        var after = before
        let free = places[3]
        switch change {
        case 0: after.append(Item(thing: thing(besides: things, shapes: 0.25, &random), column: free.column, row: free.row))
        case 1: after.remove(at: random.below(3))
        case 2: after[random.below(3)].thing = thing(besides: things, shapes: 0.25, &random)
        case 3:
            let index = random.below(3)
            (after[index].column, after[index].row) = (free.column, free.row)
        default:
            // Among shapes of other outlines, so that the outline names it.
            guard let shape = things[0].shape else { break }
            let others = darkColours.filter { colour in colour != shape.colour && !things.contains(.shape(shape.shape, colour)) }
            after[0].thing = .shape(shape.shape, random.pick(others) ?? (shape.colour == .red ? .blue : .red))
        }
        for index in after.indices { after[index].panel = 1 }
        before += after
        return GridScene(kind: .panels, background: SceneLayout.background(&random), columns: 2, rows: 2, panels: 2, items: before)
    }
}
