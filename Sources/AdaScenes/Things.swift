/// A pictogram that can stand in a scene.
public struct Pictogram: Sendable, Hashable {
    /// What kind of thing a pictogram shows.
    public enum Category: String, Sendable, CaseIterable {
        case animal, food, vehicle, object, nature
    }

    /// The noun, singular.
    public let name: String
    /// The noun, plural.
    public let plural: String
    public let category: Category
    /// Its character in the Noto Color Emoji font.
    let character: Unicode.Scalar

    /// Every pictogram, in a fixed order: datasets depend on it.
    public static let all: [Pictogram] = animals + food + vehicles + objects + nature

    private static let animals = list(
        .animal,
        [
            ("cat", "🐱"), ("dog", "🐶"), ("cow", "🐮"), ("pig", "🐷"), ("lion", "🦁"), ("frog", "🐸"), ("monkey", "🐵"), ("bear", "🐻"),
            ("fish", "🐟"), ("bird", "🐦"), ("snail", "🐌"), ("whale", "🐳"), ("turtle", "🐢"), ("bee", "🐝"), ("rabbit", "🐰"),
            ("horse", "🐴"), ("elephant", "🐘"), ("penguin", "🐧"),
        ])
    private static let food = list(
        .food,
        [
            ("apple", "🍎"), ("banana", "🍌"), ("lemon", "🍋"), ("grapes", "🍇"), ("carrot", "🥕"), ("pizza", "🍕"), ("bread", "🍞"),
            ("egg", "🥚"), ("cake", "🎂"), ("cherry", "🍒"), ("strawberry", "🍓"), ("burger", "🍔"),
        ])
    private static let vehicles = list(
        .vehicle,
        [
            ("car", "🚗"), ("bus", "🚌"), ("train", "🚆"), ("plane", "✈"), ("boat", "⛵"), ("bicycle", "🚲"), ("truck", "🚚"),
            ("rocket", "🚀"), ("tractor", "🚜"),
        ])
    private static let objects = list(
        .object,
        [
            ("house", "🏠"), ("clock", "🕒"), ("key", "🔑"), ("ball", "⚽"), ("book", "📕"), ("lamp", "💡"), ("umbrella", "☂"),
            ("shoe", "👟"), ("bell", "🔔"), ("phone", "📱"), ("camera", "📷"), ("guitar", "🎸"), ("chair", "🪑"), ("hammer", "🔨"),
        ])
    private static let nature = list(
        .nature,
        [
            ("sun", "☀"), ("moon", "🌙"), ("star", "⭐"), ("cloud", "☁"), ("flower", "🌻"), ("fire", "🔥"), ("tree", "🌳"),
            ("cactus", "🌵"), ("mushroom", "🍄"),
        ])

    private static let irregularPlurals = [
        "fish": "fish", "grapes": "grapes", "cherry": "cherries", "strawberry": "strawberries", "bus": "buses", "cactus": "cactuses",
    ]

    private static func list(_ category: Category, _ members: [(name: String, character: Unicode.Scalar)]) -> [Pictogram] {
        members.map {
            Pictogram(name: $0.name, plural: irregularPlurals[$0.name] ?? $0.name + "s", category: category, character: $0.character)
        }
    }
}

/// A colour that shapes can have.
public enum SceneColour: String, Sendable, CaseIterable {
    case red, green, blue, yellow, orange, purple, black, white, pink, gray

    /// Red, green, blue, 0 to 255.
    var rgb: [Double] {
        switch self {
        case .red: [214, 34, 38]
        case .green: [40, 150, 48]
        case .blue: [30, 88, 212]
        case .yellow: [244, 214, 24]
        case .orange: [255, 126, 12]
        case .purple: [128, 52, 172]
        case .black: [18, 18, 18]
        case .white: [250, 250, 250]
        case .pink: [255, 138, 186]
        case .gray: [118, 118, 118]
        }
    }
}

/// The outline of a shape.
public enum SceneShape: String, Sendable, CaseIterable {
    case circle, square, triangle, diamond, cross, ring, heart

    var plural: String { self == .cross ? "crosses" : rawValue + "s" }

    /// Whether the shape covers a point; x to the right and y down, the shape's box is -1 to 1 both ways.
    func covers(_ x: Double, _ y: Double) -> Bool {
        let squared = x * x + y * y
        switch self {
        case .circle: return squared <= 1
        case .square: return max(abs(x), abs(y)) <= 0.86
        case .triangle: return y <= 0.9 && abs(x) <= (y + 0.95) / 1.85
        case .diamond: return abs(x) + abs(y) <= 1
        case .cross: return max(abs(x), abs(y)) <= 1 && min(abs(x), abs(y)) <= 0.28
        case .ring: return squared <= 1 && squared >= 0.3
        case .heart:
            let (u, v) = (x * 1.18, 0.12 - y * 1.14)
            let base = u * u + v * v - 1
            return base * base * base <= u * u * v * v * v
        }
    }
}

/// One thing in a scene.
public enum SceneThing: Sendable, Hashable {
    case pictogram(Pictogram)
    case shape(SceneShape, SceneColour)
    case word(String)

    /// As answers name it: "dog", "red circle", "word STOP".
    public var name: String {
        switch self {
        case .pictogram(let pictogram): pictogram.name
        case .shape(let shape, let colour): "\(colour.rawValue) \(shape.rawValue)"
        case .word(let word): "word \(word)"
        }
    }

    /// With its article: "an apple", "a red circle", "the word STOP".
    public var nameWithArticle: String {
        if case .word = self { return "the " + name }
        return Self.withArticle(name)
    }

    static func withArticle(_ noun: String) -> String {
        (noun.first.map { "aeiou".contains($0) } == true ? "an " : "a ") + noun
    }

    /// The pictogram, if it is one.
    public var pictogram: Pictogram? {
        if case .pictogram(let pictogram) = self { pictogram } else { nil }
    }

    /// What can be printed: short, in capitals, all different at a glance.
    public static let words = [
        "CAT", "DOG", "SUN", "RED", "BUS", "MAP", "ICE", "TEA", "OWL", "BOX", "STOP", "OPEN", "EXIT", "SALE", "TAXI", "PARK", "HOME", "FIRE",
        "SHOP", "CAFE", "GATE", "ROAD", "MILK", "FISH", "BOOK", "HELP", "PUSH", "PULL", "SLOW", "WEST", "HOTEL", "BREAD", "NORTH", "MUSIC",
        "PIZZA", "QUIET", "ZOO", "BANK", "FREE", "WAIT",
    ]
}

/// Numbers as answers write them.
enum NumberWord {
    static func of(_ number: Int) -> String {
        let words = ["zero", "one", "two", "three", "four"]
        return words.indices.contains(number) ? words[number] : String(number)
    }
}
