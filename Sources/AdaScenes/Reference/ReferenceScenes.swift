import AdaLLaVA

/// Scenes as the reference script `make_scenes.py` draws them, with the same questions. The embedded models' card is scored on these.
///
/// ``SceneGenerator``'s own scenes are harder: 150 pictograms instead of 52, 330 words and strings of letters instead of 30 words, seven
/// shapes in ten colours instead of five in eight, six fonts instead of two, and questions of many more forms. Things, places, questions and
/// answers are the script's for every seed; pixels differ a little, for fonts and shapes are drawn by FreeType and by this package.
package struct ReferenceScenes: Sendable {
    /// A thing and where it is drawn.
    struct Item {
        let thing: SceneThing
        let tile: Tile
        let left: Int
        let top: Int
        /// `left`, `right`, `top` or `bottom` in a scene of two.
        let place: String?
    }

    /// The set's seed.
    package let seed: UInt64
    private let pictures: ReferencePictures

    /// - Throws: ``SceneError``; a missing font names the package that brings it.
    package init(seed: UInt64) throws {
        self.seed = seed
        pictures = try ReferencePictures()
    }

    /// Scene number `index` of the set: `sample(seed, index)` of the script.
    /// - Throws: ``SceneError/argument(name:expected:found:)``
    package func scene(_ index: Int) throws -> Scene {
        var random = PythonRandom("scenes-\(seed)-\(index)")
        var noise = NumPyRandom([seed, UInt64(max(0, index))])
        var canvas = pictures.background(&random, &noise)
        let items = items(&random, on: &canvas)
        let question = Self.questions(items, &random)[0]
        guard let image = canvas.image else {
            throw SceneError.argument(name: "size", expected: "a picture", found: "\(ReferencePictures.size) pixels")
        }
        return Scene(image: image, things: items.map(\.thing), turns: [question], separate: [], regions: [])
    }

    private func items(_ random: inout PythonRandom, on canvas: inout ReferencePictures.Canvas) -> [Item] {
        let count = random.choice([1, 1, 1, 2, 2, 2, 3, 4])
        let isRepeating = count >= 2 && random.fraction() < 0.4
        let isSideBySide = random.fraction() < 0.5
        let centers: [(x: Double, y: Double)] = switch count {
        case 1: [(0.5, 0.5)]
        case 2: isSideBySide ? [(0.27, 0.5), (0.73, 0.5)] : [(0.5, 0.27), (0.5, 0.73)]
        case 3: [(0.27, 0.27), (0.73, 0.27), (0.5, 0.73)]
        default: [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)]
        }
        var items: [Item] = []
        for (index, center) in centers.enumerated() {
            let kind = random.fraction()
            let thing: SceneThing
            if isRepeating, let first = items.first?.thing, first.pictogram != nil, index < count - 1 || random.fraction() < 0.6 {
                thing = first
            } else if kind < 0.62 {
                thing = .pictogram(random.choice(Self.pictograms))
            } else if kind < 0.86 || items.contains(where: { $0.thing.word != nil }) {
                let shape = random.choice(SceneShape.classic)
                thing = .shape(shape, random.choice(Self.colours))
            } else {
                thing = .word(random.choice(SceneWords.classic))
            }
            let size = random.integer(count == 1 ? 64 ... 92 : 38 ... 50)
            let tile: Tile = switch thing {
            case .pictogram(let pictogram): pictures.tile(of: pictogram, longerSide: size)
            case .shape(let shape, let colour): pictures.tile(of: shape, colour: colour, side: size * 9 / 10)
            case .word(let word):
                pictures.tile(of: word, height: (count == 1 ? 24 : 14) + random.integer(0 ... 2), isSerif: random.choice([false, true]))
            }
            let jitter = count == 1 ? -5 ... 5 : -3 ... 3
            func corner(_ center: Double, _ extent: Int, _ random: inout PythonRandom) -> Int {
                Int((center * Double(ReferencePictures.size) - Double(extent) / 2 + Double(random.integer(jitter))).rounded(.toNearestOrEven))
            }
            let (left, top) = (corner(center.x, tile.width, &random), corner(center.y, tile.height, &random))
            let place = count == 2 ? (isSideBySide ? ["left", "right"] : ["top", "bottom"])[index] : nil
            items.append(Item(thing: thing, tile: tile, left: left, top: top, place: place))
            canvas.paste(tile, left: left, top: top)
        }
        return items
    }

    // MARK: - Questions

    private static let pictograms = Pictogram.classic.sorted { $0.name < $1.name }
    private static let colours = SceneColour.classic.sorted { $0.rawValue < $1.rawValue }

    /// Every question that a scene supports, in a random order.
    static func questions(_ items: [Item], _ random: inout PythonRandom) -> [SceneQuestion] {
        var found: [SceneQuestion] = []
        func ask(_ task: SceneTask, _ question: String, _ answer: String) { found.append(SceneQuestion(task: task, question: question, answer: answer)) }
        let things = items.map(\.thing)
        let shown = things.compactMap(\.pictogram)
        let absent = random.choice(pictograms.filter { !shown.contains($0) })
        let asked = !shown.isEmpty && random.fraction() < 0.5 ? random.choice(shown) : absent
        ask(.pope, "Is there \(SceneThing.withArticle(asked.name)) in the image?", SceneCandidate.yesNo(shown.contains(asked)))
        if let word = things.lazy.compactMap(\.word).first {
            for _ in 0 ..< 2 { ask(.text, "What does the text say?", word) }
        }
        let shapes = things.compactMap(\.shape)
        if !shapes.isEmpty, Set(shapes.map(\.shape)).count == shapes.count {
            let pick = random.choice(shapes)
            ask(.vqa, "What color is the \(pick.shape.rawValue)?", pick.colour.rawValue)
            if Set(shapes.map(\.colour)).count == shapes.count { ask(.vqa, "What shape is \(pick.colour.rawValue)?", pick.shape.rawValue) }
        }
        if !shown.isEmpty {
            let pick = random.choice(shown)
            ask(.vqa, "How many \(pick.plainPlural) are there?", NumberWord.of(shown.count { $0 == pick }))
        }
        ask(.vqa, "How many things are in the image?", NumberWord.of(things.count))
        if things.count == 1, let only = shown.first { ask(.vqa, "What is in the image?", only.name) }
        if things.count == 2, things[0].name != things[1].name {
            let pick = random.choice(items)
            let place = pick.place ?? ""
            ask(.vqa, "What is \(["left", "right"].contains(place) ? "on" : "at") the \(place)?", pick.thing.name)
        }
        if let right = shown.first, Set(shown).count == 1 {
            let others = pictograms.filter { $0.category == right.category && $0 != right }
            var options = [right] + random.sample(others, count: 2)
            random.shuffle(&options)
            let lines = zip(["A", "B", "C"], options).map { "\($0). \($1.name)\n" }.joined()
            let answer = zip(["A", "B", "C"], options).first { $1 == right }?.0 ?? ""
            ask(.choice, "Which \(right.category.rawValue) is shown?\n\(lines)Answer with the letter.", answer)
        }
        ask(.caption, "Describe the image.", "The image shows \(things.map(\.nameWithArticle).joined(separator: " and ")).")
        random.shuffle(&found)
        return found
    }
}
