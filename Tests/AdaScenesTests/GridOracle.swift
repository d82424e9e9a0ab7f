@testable import AdaScenes

/// Answers questions of level 2 from a scene's regions alone, apart from the code that wrote them.
struct GridOracle {
    private let things: [SceneOracle.Thing]

    init(_ regions: [SceneRegion]) { things = SceneOracle(regions).things }

    private var numbers: [(value: Int, x: Double)] { things.compactMap { thing in thing.word.flatMap { Int($0) }.map { ($0, thing.x) } } }
    private func yesNo(_ isTrue: Bool) -> String { isTrue ? "yes" : "no" }
    private func only<Element>(_ elements: [Element]) -> Element? { elements.count == 1 ? elements[0] : nil }
    private static let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

    /// The one right answer; `nil` where the form is unknown or the answer is not unique.
    func answer(to question: String) -> String? {
        chain(question) ?? counting(question) ?? printed(question) ?? unlike(question) ?? change(question)
    }

    private func chain(_ question: String) -> String? {
        let step = "just left of|just right of|just above|just below"
        guard let parts = SceneOracle.parts(question, "What is ((?:(?:\(step)) the thing )*(?:\(step))) the (.+)\\?"),
            let start = only(things.filter { $0.name == parts[1] })
        else { return nil }
        var place = (start.x, start.y)
        var found: SceneOracle.Thing? = start
        // The step that is named last is taken first.
        for step in parts[0].components(separatedBy: " the thing ").reversed() {
            switch step {
            case "just left of": place.0 -= 1.0 / 3
            case "just right of": place.0 += 1.0 / 3
            case "just above": place.1 -= 1.0 / 3
            default: place.1 += 1.0 / 3
            }
            found = only(things.filter { abs($0.x - place.0) < 0.12 && abs($0.y - place.1) < 0.12 })
            guard let found else { return nil }
            place = (found.x, found.y)
        }
        return found?.name
    }

    /// Things that a plural such as "cats" or "red circles" names.
    private func count(_ plural: String) -> Int {
        things.count { thing in
            if let colour = thing.colour { return plural == "\(colour) \(thing.noun)s" || plural == "\(colour) \(thing.noun)es" }
            return Pictogram.all.contains { $0.name == thing.noun && $0.plural == plural }
        }
    }

    private func counting(_ question: String) -> String? {
        if let parts = SceneOracle.parts(question, "How many (.+) are there\\?") { return Self.words[count(parts[0])] }
        if let parts = SceneOracle.parts(question, "How many things are not (.+)\\?") { return Self.words[things.count - count(parts[0])] }
        if let parts = SceneOracle.parts(question, "Is there no (.+) in the image\\?") { return yesNo(!things.contains { $0.name == parts[0] }) }
        if let parts = SceneOracle.parts(question, "Are there more (.+) than (.+)\\?") {
            return count(parts[0]) == count(parts[1]) ? nil : yesNo(count(parts[0]) > count(parts[1]))
        }
        if let parts = SceneOracle.parts(question, "Which are there more of, (.+) or (.+)\\?") {
            return count(parts[0]) == count(parts[1]) ? nil : count(parts[0]) > count(parts[1]) ? parts[0] : parts[1]
        }
        return nil
    }

    private func printed(_ question: String) -> String? {
        if let parts = SceneOracle.parts(question, "What do the two words say, from (top|bottom|left|right) to (top|bottom|left|right)\\?") {
            let words = things.filter { $0.word != nil }.sorted { (first, second) in
                switch parts[0] {
                case "top": first.y < second.y
                case "bottom": first.y > second.y
                case "left": first.x < second.x
                default: first.x > second.x
                }
            }
            let apart = ["top", "bottom"].contains(parts[0]) ? abs(words[0].y - words[1].y) : abs(words[0].x - words[1].x)
            return words.count == 2 && apart > 0.3 ? words.compactMap(\.word).joined(separator: " ") : nil
        }
        if question == "What is the sum of the numbers?" { return numbers.count < 2 ? nil : "\(numbers.reduce(0) { $0 + $1.value })" }
        if question == "What is the largest number?" {
            let largest = numbers.map(\.value).max()
            return only(numbers.filter { $0.value == largest }).map { "\($0.value)" }
        }
        if let parts = SceneOracle.parts(question, "Is the number on the (left|right) larger than the one on the (left|right)\\?") {
            let ordered = numbers.sorted { $0.x < $1.x }
            guard ordered.count == 2, ordered[1].x - ordered[0].x > 0.2, ordered[0].value != ordered[1].value else { return nil }
            return yesNo((parts[0] == "left") == (ordered[0].value > ordered[1].value))
        }
        return nil
    }

    /// The one thing whose quality nobody shares, where all others share theirs.
    private func exception(_ quality: (SceneOracle.Thing) -> String?) -> SceneOracle.Thing? {
        let groups = Dictionary(grouping: things) { quality($0) }
        guard groups[nil] == nil, groups.count == 2 else { return nil }
        return only(groups.values.filter { $0.count == 1 }.map { $0[0] })
    }

    private func unlike(_ question: String) -> String? {
        switch question {
        case "Which shape has another color than the others?": return exception(\.colour)?.name
        case "Which shape has another form than the others?": return exception { $0.colour == nil ? nil : $0.noun }?.name
        case "Which thing is the odd one out?":
            guard things.allSatisfy({ $0.colour == nil && $0.word == nil }) else { return nil }
            return (exception(\.noun) ?? exception { SceneOracle.category($0.noun) })?.name
        default: break
        }
        guard let parts = SceneOracle.parts(question, "Which thing is not (?:an? )?(\\w+)\\?") else { return nil }
        return only(things.filter { SceneOracle.category($0.noun) != parts[0] })?.name
    }

    private func change(_ question: String) -> String? {
        let before = things.filter { $0.x < 0.5 }, after = things.filter { $0.x > 0.5 }
        func other(_ thing: SceneOracle.Thing, in list: [SceneOracle.Thing]) -> SceneOracle.Thing? { only(list.filter { $0.name == thing.name }) }
        func isMoved(_ thing: SceneOracle.Thing) -> Bool {
            other(thing, in: after).map { abs($0.x - 0.5 - thing.x) > 0.1 || abs($0.y - thing.y) > 0.1 } ?? false
        }
        let new = after.filter { other($0, in: before) == nil }, gone = before.filter { other($0, in: after) == nil }
        switch question {
        case "What is new in the right picture?": return only(new)?.name
        case "What is missing in the right picture?": return only(gone)?.name
        case "What moved from one picture to the other?": return only(before.filter(isMoved))?.name
        case "Which shape changed its color?":
            guard let was = only(gone), let now = only(new), was.colour != nil, now.colour != nil, was.noun == now.noun else { return nil }
            return before.count { $0.noun == was.noun } == 1 ? was.noun : nil
        default: break
        }
        if let parts = SceneOracle.parts(question, "What color is the (\\w+) that changed its color in the right picture\\?") {
            return only(new.filter { $0.noun == parts[0] })?.colour
        }
        guard let parts = SceneOracle.parts(question, "What happened to the (.+)\\?") else { return nil }
        if let thing = only(before.filter { $0.name == parts[0] }) {
            return other(thing, in: after) == nil ? "it is gone" : isMoved(thing) ? "it moved" : "nothing"
        }
        return only(after.filter { $0.name == parts[0] }).map { _ in "it is new" }
    }
}
