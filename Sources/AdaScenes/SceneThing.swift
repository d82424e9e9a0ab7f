/// A colour that shapes can have.
package enum SceneColour: String, Sendable, CaseIterable {
    case red, green, blue, yellow, orange, purple, black, white, pink, gray

    /// The eight colours of Scenes' reference script; the others are rarer.
    static let classic: [SceneColour] = [.red, .green, .blue, .yellow, .orange, .purple, .black, .white]

    /// Red, green, blue, 0 to 255.
    var rgb: [Double] {
        switch self {
        case .red: [214, 39, 40]
        case .green: [44, 150, 44]
        case .blue: [31, 90, 210]
        case .yellow: [240, 210, 30]
        case .orange: [255, 127, 14]
        case .purple: [130, 60, 170]
        case .black: [20, 20, 20]
        case .white: [250, 250, 250]
        case .pink: [255, 138, 186]
        case .gray: [118, 118, 118]
        }
    }

    static func pick(_ random: inout SceneRandom) -> SceneColour {
        (random.chance(0.88) ? random.pick(classic) : random.pick([.pink, .gray])) ?? .red
    }
}

/// The outline of a shape.
package enum SceneShape: String, Sendable, CaseIterable {
    case circle, square, triangle, diamond, cross, ring, heart

    /// The five shapes of Scenes' reference script; the others are rarer.
    static let classic: [SceneShape] = [.circle, .square, .triangle, .diamond, .cross]

    var plural: String { self == .cross ? "crosses" : rawValue + "s" }

    /// Whether the shape covers a point; x to the right and y down, the shape's box is 0 to 1 both ways.
    func covers(_ x: Double, _ y: Double) -> Bool {
        let (u, v) = (x * 2 - 1, y * 2 - 1)
        let squared = u * u + v * v
        switch self {
        case .circle: return squared <= 1
        case .square: return max(abs(u), abs(v)) <= 0.8
        case .triangle: return abs(u) <= y
        case .diamond: return abs(u) + abs(v) <= 1
        case .cross: return max(abs(u), abs(v)) <= 1 && min(abs(u), abs(v)) <= 0.25
        case .ring: return squared <= 1 && squared >= 0.3
        case .heart:
            let (a, b) = (u * 1.14, 0.12 - v * 1.11)
            let base = a * a + b * b - 1
            return base * base * base <= a * a * b * b * b
        }
    }

    static func pick(_ random: inout SceneRandom) -> SceneShape {
        (random.chance(0.88) ? random.pick(classic) : random.pick([.ring, .heart])) ?? .circle
    }
}

/// One thing in a scene.
package enum SceneThing: Sendable, Hashable {
    case pictogram(Pictogram)
    case shape(SceneShape, SceneColour)
    case word(String)

    /// As answers name it: "dog", "red circle", "word STOP".
    package var name: String {
        switch self {
        case .pictogram(let pictogram): pictogram.name
        case .shape(let shape, let colour): "\(colour.rawValue) \(shape.rawValue)"
        case .word(let word): "word \(word)"
        }
    }

    /// With its article: "an apple", "a red circle", "the word STOP".
    package var nameWithArticle: String {
        if case .word = self { return "the " + name }
        return Self.withArticle(name)
    }

    static func withArticle(_ noun: String) -> String {
        (noun.first.map { "aeiou".contains($0) } == true ? "an " : "a ") + noun
    }

    /// The pictogram, if it is one.
    package var pictogram: Pictogram? {
        if case .pictogram(let pictogram) = self { pictogram } else { nil }
    }

    /// The shape and its colour, if it is one.
    var shape: (shape: SceneShape, colour: SceneColour)? {
        if case .shape(let shape, let colour) = self { (shape, colour) } else { nil }
    }

    /// The printed text, if it is a word.
    var word: String? {
        if case .word(let word) = self { word } else { nil }
    }
}

/// Numbers as answers write them.
enum NumberWord {
    static func of(_ number: Int) -> String {
        let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
        return words.indices.contains(number) ? words[number] : String(number)
    }
}
