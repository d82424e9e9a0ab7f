/// Writes the questions of level 2. Every one has one right answer, which follows from the things and their cells.
struct GridQuestions {
    let scene: GridScene

    private var items: [GridScene.Item] { scene.items }

    /// Up to `count` different questions, `first` among them and first.
    func draw(_ count: Int, following first: SceneQuestion, _ random: inout SceneRandom) -> [SceneQuestion] {
        var chosen = [first]
        // Some scenes have fewer questions; a few tries for each find them.
        for _ in 0 ..< 4 * count where chosen.count < count {
            guard let task = random.pick(scene.kind.tasks), let question = question(task, &random),
                !chosen.contains(where: { $0.question == question.question })
            else { continue }
            chosen.append(question)
        }
        return chosen
    }

    /// A question for a task; `nil` where this scene supports none.
    func question(_ task: SceneTask, _ random: inout SceneRandom) -> SceneQuestion? {
        let made: (question: String, answer: String)? = switch task {
        case .chain1: chain(1, &random)
        case .chain2: chain(2, &random)
        case .chain3: chain(3, &random)
        case .chain4: chain(4, &random)
        case .count: count(&random)
        case .read: read(&random)
        case .sum: sum
        case .compare: scene.kind == .numbers ? compareNumbers(&random) : compare(&random)
        case .odd: odd
        case .negation: scene.kind == .oddOne ? exception : negation(&random)
        case .change: change(&random)
        case .vqa, .pope, .text, .choice, .caption: nil
        }
        return made.map { SceneQuestion(task: task, question: $0.question, answer: $0.answer) }
    }

    // MARK: Chains

    /// "What is just left of the thing just above the dog?": a path over neighbouring cells that are not empty and not visited twice.
    private func chain(_ length: Int, _ random: inout SceneRandom) -> (question: String, answer: String)? {
        let starts = items.indices.filter { scene.items(named: items[$0].thing.name).count == 1 }
        for start in random.shuffled(starts) {
            guard let path = path(from: start, length: length, visited: [start], &random), let end = path.last?.item else { continue }
            let steps = path.map(\.step.phrase).reversed().joined(separator: " the thing ")
            return ("What is \(steps) the \(items[start].thing.name)?", items[end].thing.name)
        }
        return nil
    }

    private func path(
        from item: Int, length: Int, visited: Set<Int>, _ random: inout SceneRandom
    ) -> [(step: GridScene.Step, item: Int)]? {
        if length == 0 { return [] }
        for step in random.shuffled(GridScene.Step.allCases) {
            guard let next = scene.neighbour(step, of: item), !visited.contains(next),
                let rest = path(from: next, length: length - 1, visited: visited.union([next]), &random)
            else { continue }
            return [(step, next)] + rest
        }
        return nil
    }

    // MARK: Counting

    private var names: [String] {
        var seen: Set<String> = []
        return items.map(\.thing.name).filter { seen.insert($0).inserted }
    }

    private func number(_ name: String) -> Int { scene.items(named: name).count }

    private func plural(_ thing: SceneThing) -> String {
        switch thing {
        case .pictogram(let pictogram): pictogram.plural
        case .shape(let shape, let colour): "\(colour.rawValue) \(shape.plural)"
        case .word: "words"
        }
    }

    private func things(named name: String) -> SceneThing? { items.first { $0.thing.name == name }?.thing }

    private func absent(_ random: inout SceneRandom) -> Pictogram? {
        let present = scene.things.compactMap(\.pictogram)
        return Pictogram.pick(&random) { candidate in !present.contains { $0 == candidate || $0.isConfusable(with: candidate) } }
    }

    private func count(_ random: inout SceneRandom) -> (question: String, answer: String)? {
        if random.chance(0.08), let absent = absent(&random) { return ("How many \(absent.plural) are there?", NumberWord.of(0)) }
        // The first kind is the one whose number is drawn evenly.
        guard let first = items.first?.thing else { return nil }
        return ("How many \(plural(first)) are there?", NumberWord.of(number(first.name)))
    }

    private func compare(_ random: inout SceneRandom) -> (question: String, answer: String)? {
        let pairs = names.flatMap { first in names.map { (first, $0) } }.filter { number($0) != number($1) }
        guard let (first, second) = random.pick(pairs), let one = things(named: first), let other = things(named: second) else { return nil }
        let isMore = number(first) > number(second)
        if random.chance(0.5) {
            return ("Are there more \(plural(one)) than \(plural(other))?", SceneCandidate.yesNo(isMore))
        }
        return ("Which are there more of, \(plural(one)) or \(plural(other))?", plural(isMore ? one : other))
    }

    private func negation(_ random: inout SceneRandom) -> (question: String, answer: String)? {
        guard let first = items.first?.thing else { return nil }
        let pictograms = scene.things.compactMap(\.pictogram)
        if pictograms.isEmpty || random.chance(0.5) { return ("How many things are not \(plural(first))?", NumberWord.of(items.count - number(first.name))) }
        let isThere = random.chance(0.5)
        guard let asked = isThere ? random.pick(pictograms) : absent(&random) else { return nil }
        return ("Is there no \(asked.name) in the image?", SceneCandidate.yesNo(!isThere))
    }

    // MARK: Reading

    private func read(_ random: inout SceneRandom) -> (question: String, answer: String)? {
        let words = items.compactMap(\.thing.word)
        guard words.count == 2 else { return nil }
        let isStacked = scene.rows == 2, isForward = random.chance(0.5)
        let order = isStacked ? (isForward ? "from top to bottom" : "from bottom to top") : (isForward ? "from left to right" : "from right to left")
        return ("What do the two words say, \(order)?", (isForward ? words : words.reversed()).joined(separator: " "))
    }

    private var numbers: [Int] { items.compactMap { $0.thing.word.flatMap { Int($0) } } }

    private var sum: (question: String, answer: String)? {
        numbers.count < 2 ? nil : ("What is the sum of the numbers?", String(numbers.reduce(0, +)))
    }

    private func compareNumbers(_ random: inout SceneRandom) -> (question: String, answer: String)? {
        guard let largest = numbers.max(), numbers.count { $0 == largest } == 1 else { return nil }
        let printed = items.filter { $0.thing.word != nil }
        if printed.count == 2, printed[0].column != printed[1].column, random.chance(0.5) {
            let isFirst = random.chance(0.5)
            let (left, right) = printed[0].column < printed[1].column ? (numbers[0], numbers[1]) : (numbers[1], numbers[0])
            let side = isFirst ? ("left", "right") : ("right", "left")
            return ("Is the number on the \(side.0) larger than the one on the \(side.1)?", SceneCandidate.yesNo(isFirst ? left > right : right > left))
        }
        return ("What is the largest number?", String(largest))
    }

    // MARK: The odd one out

    private var categories: [Pictogram.Category] { scene.things.compactMap(\.pictogram?.category) }

    /// The one thing whose quality no other has, while all others agree in it.
    private func exception<Quality: Hashable>(_ quality: (SceneThing) -> Quality?) -> (index: Int, common: Quality)? {
        let qualities = scene.things.compactMap(quality)
        guard qualities.count == items.count, Set(qualities).count == 2 else { return nil }
        let rare = Set(qualities).filter { value in qualities.count { $0 == value } == 1 }
        guard rare.count == 1, let value = rare.first, let index = qualities.firstIndex(of: value),
            let common = qualities.first(where: { $0 != value })
        else { return nil }
        return (index, common)
    }

    private var odd: (question: String, answer: String)? {
        if let byColour = exception({ $0.shape?.colour }) {
            return ("Which shape has another color than the others?", items[byColour.index].thing.name)
        }
        if let byOutline = exception({ $0.shape?.shape }) {
            return ("Which shape has another form than the others?", items[byOutline.index].thing.name)
        }
        let found = exception({ $0.pictogram?.name })?.index ?? exception({ $0.pictogram?.category })?.index
        return found.map { ("Which thing is the odd one out?", items[$0].thing.name) }
    }

    /// "Which thing is not an animal?"
    private var exception: (question: String, answer: String)? {
        guard scene.things.compactMap(\.pictogram).allSatisfy(GridScene.isClear), let found = exception({ $0.pictogram?.category }) else { return nil }
        let noun = found.common == .food ? "food" : SceneThing.withArticle(found.common.rawValue)
        return ("Which thing is not \(noun)?", items[found.index].thing.name)
    }

    // MARK: Two pictures

    private func change(_ random: inout SceneRandom) -> (question: String, answer: String)? {
        let before = items.filter { $0.panel == 0 }, after = items.filter { $0.panel == 1 }
        func isIn(_ list: [GridScene.Item], _ item: GridScene.Item) -> Bool { list.contains { $0.thing == item.thing } }
        let new = after.filter { !isIn(before, $0) }, gone = before.filter { !isIn(after, $0) }
        let moved = after.filter { item in before.contains { $0.thing == item.thing && ($0.column, $0.row) != (item.column, item.row) } }
        if let one = new.first?.thing.shape, let other = gone.first?.thing.shape, one.shape == other.shape, before.count(where: { $0.thing.shape?.shape == one.shape }) == 1 {
            return random.chance(0.5)
                ? ("Which shape changed its color?", one.shape.rawValue)
                : ("What color is the \(one.shape.rawValue) that changed its color in the right picture?", one.colour.rawValue)
        }
        if random.chance(0.35) {
            // All four answers as likely where the scene allows: the thing that changed, or one that did not.
            let unchanged = before.filter { item in after.contains { $0.thing == item.thing && ($0.column, $0.row) == (item.column, item.row) } }
            let changed: [(GridScene.Item, String)] = new.map { ($0, "it is new") } + gone.map { ($0, "it is gone") } + moved.map { ($0, "it moved") }
            let pick = random.chance(0.7) ? random.pick(changed) : random.pick(unchanged).map { ($0, "nothing") }
            return pick.map { ("What happened to the \($0.thing.name)?", $1) }
        }
        var forms: [(String, String)] = []
        if let thing = new.first?.thing { forms.append(("What is new in the right picture?", thing.name)) }
        if let thing = gone.first?.thing { forms.append(("What is missing in the right picture?", thing.name)) }
        if let thing = moved.first?.thing { forms.append(("What moved from one picture to the other?", thing.name)) }
        return random.pick(forms).map { (question: $0.0, answer: $0.1) }
    }
}
