import Foundation

@testable import AdaScenes

/// Answers questions from a scene's regions alone, apart from the code that wrote them.
struct SceneOracle {
    struct Thing {
        let name: String
        let noun: String
        let colour: String?
        let word: String?
        let x: Double
        let y: Double
    }

    let things: [Thing]
    private let size = 112.0

    init(_ regions: [SceneRegion]) {
        var things: [Thing] = []
        for (number, region) in regions.enumerated() {
            guard let noun = region.labels["thing"] else { continue }
            let letters = regions[(number + 1)...].prefix { $0.labels["character"] != nil }.compactMap { $0.labels["character"] }.joined()
            let isWord = noun == "word"
            let colour = region.labels["color"]
            things.append(
                Thing(
                    name: isWord ? "word " + letters : colour.map { $0 + " " + noun } ?? noun, noun: noun, colour: colour,
                    word: isWord ? letters : nil, x: Double(region.box[0] + region.box[2]) / 2 / 112,
                    y: Double(region.box[1] + region.box[3]) / 2 / 112))
        }
        self.things = things
    }

    private var shapes: [Thing] { things.filter { $0.colour != nil } }
    private var pictograms: [Thing] { things.filter { $0.colour == nil && $0.word == nil } }
    private var words: [String] { things.compactMap(\.word) }

    static func category(_ name: String) -> String? { Pictogram.all.first { $0.name == name }?.category.rawValue }

    /// The only member, or `nil`.
    private func only<Element>(_ elements: [Element]) -> Element? { elements.count == 1 ? elements[0] : nil }

    private func isAbove(_ first: Thing, _ second: Thing) -> Bool { second.y - first.y > 0.2 }
    private func isLeft(_ first: Thing, _ second: Thing) -> Bool { second.x - first.x > 0.15 }
    private func sharesRow(_ first: Thing, _ second: Thing) -> Bool { abs(first.y - second.y) < 0.2 }
    private func sharesColumn(_ first: Thing, _ second: Thing) -> Bool { abs(first.x - second.x) < 0.15 }

    private func isTowards(_ direction: String, _ thing: Thing, of reference: Thing) -> Bool {
        switch direction {
        case "to the left of": isLeft(thing, reference) && sharesRow(thing, reference)
        case "to the right of": isLeft(reference, thing) && sharesRow(thing, reference)
        case "above": isAbove(thing, reference)
        default: isAbove(reference, thing)
        }
    }

    private func neighbour(_ direction: String, of name: String) -> Thing? {
        guard let reference = only(things.filter { $0.name == name }) else { return nil }
        let found = things.filter { isTowards(direction, $0, of: reference) }
        return only(found.filter { sharesColumn($0, reference) }) ?? only(found)
    }

    private func at(_ place: String) -> Thing? {
        func matches(_ thing: Thing) -> Bool {
            let words = place.split(separator: " ")
            return (!words.contains("left") || thing.x < 0.42) && (!words.contains("right") || thing.x > 0.58)
                && (!words.contains("top") || thing.y < 0.42) && (!words.contains("bottom") || thing.y > 0.58)
        }
        return only(things.filter(matches))
    }

    static let numbers = ["zero", "one", "two", "three", "four"]

    private static let directions = "to the left of|to the right of|above|below"
    private static let places =
        "on the left|on the right|at the top left|at the top right|at the bottom left|at the bottom right|at the top|at the bottom"

    /// The parts of `question` if it has this form.
    static func parts(_ question: String, _ pattern: String) -> [String]? {
        guard let expression = try? NSRegularExpression(pattern: "^" + pattern + "$"),
            let match = expression.firstMatch(in: question, range: NSRange(question.startIndex..., in: question))
        else { return nil }
        return (1..<match.numberOfRanges).map { Range(match.range(at: $0), in: question).map { String(question[$0]) } ?? "" }
    }

    /// The one right answer; `nil` where the form is unknown or the answer is not unique.
    func answer(to question: String) -> String? {
        let lines = question.split(separator: "\n").map(String.init)
        if lines.count == 5 { return choice(lines) }
        return classic(question) ?? relation(question) ?? further(question)
    }

    private func yesNo(_ isTrue: Bool) -> String { isTrue ? "yes" : "no" }

    private func choice(_ lines: [String]) -> String? {
        guard lines[4] == "Answer with the letter." else { return nil }
        let options = lines[1...3].map { String($0.dropFirst(3)) }
        let letters = lines[1...3].map { String($0.prefix(3)) }
        guard letters == ["A. ", "B. ", "C. "], Set(options).count == 3 else { return nil }
        func letter(where isRight: (String) -> Bool) -> String? {
            only(options.indices.filter { isRight(options[$0]) }).map { ["A", "B", "C"][$0] }
        }
        if let parts = Self.parts(lines[0], "Which color is the (.+)\\?"), let shape = only(shapes.filter({ $0.noun == parts[0] })) {
            return letter { $0 == shape.colour }
        }
        guard let parts = Self.parts(lines[0], "Which (\\w+) is shown\\?") else { return nil }
        switch parts[0] {
        case "word": return letter(where: words.contains)
        case "shape": return letter { option in shapes.contains { $0.noun == option } }
        default:
            guard options.allSatisfy({ Self.category($0) == parts[0] }) else { return nil }
            return letter { option in pictograms.contains { $0.noun == option } }
        }
    }

    /// The forms of Scenes' reference script.
    func classic(_ question: String) -> String? {
        if let parts = Self.parts(question, "Is there (an?) (.+) in the image\\?"), Self.category(parts[1]) != nil {
            guard (parts[0] == "an") == "aeiou".contains(parts[1].prefix(1)) else { return nil }
            return yesNo(pictograms.contains { $0.noun == parts[1] })
        }
        if question == "What does the text say?" { return only(words) }
        if let parts = Self.parts(question, "What color is the (\\w+)\\?") { return only(shapes.filter { $0.noun == parts[0] })?.colour }
        if let parts = Self.parts(question, "What shape is (\\w+)\\?") { return only(shapes.filter { $0.colour == parts[0] })?.noun }
        if question == "How many things are in the image?" { return Self.numbers[things.count] }
        if let parts = Self.parts(question, "How many (\\w+) are there\\?"),
            let pictogram = Pictogram.all.first(where: { ($0.name.hasSuffix("s") ? $0.name : $0.name + "s") == parts[0] })
        {
            return Self.numbers[pictograms.count { $0.noun == pictogram.name }]
        }
        if question == "What is in the image?" { return things.count == 1 ? pictograms.first?.noun : nil }
        if things.count == 2, let parts = Self.parts(question, "What is (on the left|on the right|at the top|at the bottom)\\?") {
            return at(parts[0])?.name
        }
        if question == "Describe the image." {
            let names = things.map { thing in
                thing.word != nil ? "the " + thing.name : ("aeiou".contains(thing.name.prefix(1)) ? "an " : "a ") + thing.name
            }
            return "The image shows " + names.joined(separator: " and ") + "."
        }
        return nil
    }

    private func relation(_ question: String) -> String? {
        if let parts = Self.parts(question, "What is (\(Self.directions)) the (.+)\\?") { return neighbour(parts[0], of: parts[1])?.name }
        if let parts = Self.parts(question, "What color is the shape (\(Self.directions)) the (.+)\\?") {
            return neighbour(parts[0], of: parts[1])?.colour
        }
        if let parts = Self.parts(question, "What shape is (\(Self.directions)) the (.+)\\?") {
            return neighbour(parts[0], of: parts[1]).flatMap { $0.colour == nil ? nil : $0.noun }
        }
        if let parts = Self.parts(question, "What does the text (\(Self.directions)) the (.+) say\\?") {
            return neighbour(parts[0], of: parts[1])?.word
        }
        if let parts = Self.parts(question, "Is the (.+) (\(Self.directions)) the (.+)\\?") {
            guard let first = only(things.filter { $0.name == parts[0] }), let second = only(things.filter { $0.name == parts[2] }) else {
                return nil
            }
            return yesNo(isTowards(parts[1], first, of: second))
        }
        if let parts = Self.parts(question, "What is (\(Self.places))\\?") { return at(parts[0])?.name }
        if let parts = Self.parts(question, "What color is the shape (\(Self.places))\\?") { return at(parts[0])?.colour }
        if let parts = Self.parts(question, "What shape is (\(Self.places))\\?") {
            return at(parts[0]).flatMap { $0.colour == nil ? nil : $0.noun }
        }
        if let parts = Self.parts(question, "What does the text (\(Self.places)) say\\?") { return at(parts[0])?.word }
        if let parts = Self.parts(question, "Is the (.+) (?:on the left or on the right|at the top or at the bottom)\\?") {
            guard let thing = only(things.filter { $0.name == parts[0] }) else { return nil }
            if question.contains("left") { return thing.x < 0.42 ? "left" : "right" }
            return thing.y < 0.42 ? "top" : "bottom"
        }
        if let parts = Self.parts(question, "Is the (.+) (\(Self.places))\\?") { return at(parts[1]).map { yesNo($0.name == parts[0]) } }
        return nil
    }

    private func further(_ question: String) -> String? {
        if let parts = Self.parts(question, "Is there (an?) (.+) in the image\\?") {
            guard (parts[0] == "an") == "aeiou".contains(parts[1].prefix(1)) else { return nil }
            return yesNo(shapes.contains { $0.name == parts[1] || $0.noun == parts[1] })
        }
        if question == "How many shapes are there?" { return Self.numbers[shapes.count] }
        if question == "How many animals are there?" { return Self.numbers[pictograms.count { Self.category($0.noun) == "animal" }] }
        if let parts = Self.parts(question, "How many (\\w+) are there\\?") {
            if parts[0] == "things" { return Self.numbers[things.count] }
            if let pictogram = Pictogram.all.first(where: { $0.plural == parts[0] }) {
                return Self.numbers[pictograms.count { $0.noun == pictogram.name }]
            }
            return Self.numbers[shapes.count { parts[0] == $0.noun + "s" || parts[0] == $0.noun + "es" }]
        }
        if question == "What is in the image?" { return only(things)?.name }
        if let parts = Self.parts(question, "What (\\w+) is shown\\?") {
            return parts[0] == "word"
                ? only(words)
                : Set(pictograms.map(\.noun)).count == 1 && Self.category(pictograms[0].noun) == parts[0] ? pictograms[0].noun : nil
        }
        if let parts = Self.parts(question, "Is this an? (.+)\\?") { return only(things).map { yesNo($0.noun == parts[0]) } }
        if let parts = Self.parts(question, "Is the (\\w+) (\\w+)\\?") {
            return only(shapes.filter { $0.noun == parts[0] }).map { yesNo($0.colour == parts[1]) }
        }
        if let parts = Self.parts(question, "What colour is the (\\w+)\\?") { return only(shapes.filter { $0.noun == parts[0] })?.colour }
        if question == "Is there text in the image?" { return yesNo(!words.isEmpty) }
        if question == "Read the text." { return only(words) }
        if let parts = Self.parts(question, "Does the text say (\\w+)\\?") { return only(words).map { yesNo($0 == parts[0]) } }
        if question == "What do you see in the image?" { return classic("Describe the image.") }
        return nil
    }
}
