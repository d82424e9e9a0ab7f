/// A pictogram that a scene can show.
package struct Pictogram: Sendable, Hashable {
    /// The category of a pictogram's thing.
    package enum Category: String, Sendable, CaseIterable {
        case animal, food, vehicle, object, nature
    }

    /// The noun, singular.
    package let name: String
    /// The noun, plural.
    package let plural: String
    package let category: Category
    /// Its character in the Noto Color Emoji font.
    let character: Unicode.Scalar

    init(name: String, category: Category, character: Unicode.Scalar) {
        self.name = name
        plural = Self.irregularPlurals[name] ?? Self.regularPlural(name)
        self.category = category
        self.character = character
    }

    /// The plural as Scenes' reference script writes it, and people in a hurry: an s at the end, whatever the noun.
    var plainPlural: String { name.hasSuffix("s") ? name : name + "s" }

    /// Every pictogram, in a fixed order: datasets depend on it.
    package static let all: [Pictogram] = classic + further

    /// The 52 pictograms of Scenes as its reference script defines them, with its names and categories.
    static let classic: [Pictogram] = table(classicTable)

    /// Pictograms beyond the classic ones.
    static let further: [Pictogram] = table(furtherTable)

    static func table(_ rows: [(category: Category, members: [(name: String, character: Unicode.Scalar)])]) -> [Pictogram] {
        rows.flatMap { row in row.members.map { Pictogram(name: $0.name, category: row.category, character: $0.character) } }
    }

    /// Share of the classic pictograms among all that are drawn or named.
    static let classicShare = 0.75

    /// A pictogram that `isAllowed`, or `nil` if none is. Three draws of four are classic.
    static func pick(_ random: inout SceneRandom, where isAllowed: (Pictogram) -> Bool = { _ in true }) -> Pictogram? {
        let (first, second) = random.chance(classicShare) ? (classic, further) : (further, classic)
        return random.pick(first.filter(isAllowed)) ?? random.pick(second.filter(isAllowed))
    }

    /// Whether one of the two might be mistaken for the other, or is a kind of it: a duck is a bird. Two such pictograms are never in one
    /// scene, nor does a question ask about one if the other is shown.
    func isConfusable(with other: Pictogram) -> Bool {
        self != other && Self.kin[name]?.contains(other.name) == true
    }

    private static let kin: [String: Set<String>] = kinGroups.reduce(into: [:]) { kin, group in
        for name in group { kin[name, default: []].formUnion(group) }
    }

    private static let irregularPlurals = [
        "fish": "fish", "grapes": "grapes", "scissors": "scissors", "mouse": "mice", "sheep": "sheep",
    ]

    private static func regularPlural(_ name: String) -> String {
        if let last = name.last, last == "y", let before = name.dropLast().last, !"aeiou".contains(before) {
            return name.dropLast() + "ies"
        }
        return ["s", "x", "ch", "sh"].contains(where: name.hasSuffix) ? name + "es" : name + "s"
    }
}
