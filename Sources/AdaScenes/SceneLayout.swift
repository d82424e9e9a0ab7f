/// The things of a scene, their places and the background, before any pixels. Lengths are those of a picture of 112 pixels.
struct SceneLayout: Sendable {
    /// Side of the pictures that lengths are given for: Scenes' own size.
    static let classicSize = 112

    /// The place of a thing, as a question names it.
    enum Place: String, Sendable {
        case center, left, right, top, bottom
        case topLeft, topRight, bottomLeft, bottomRight

        /// "What is ___?"
        var phrase: String {
            switch self {
            case .center: "in the middle"
            case .left: "on the left"
            case .right: "on the right"
            case .top: "at the top"
            case .bottom: "at the bottom"
            case .topLeft: "at the top left"
            case .topRight: "at the top right"
            case .bottomLeft: "at the bottom left"
            case .bottomRight: "at the bottom right"
            }
        }

        /// 0 at the left or top, 1 in the middle, 2 at the right or bottom.
        var column: Int {
            switch self {
            case .left, .topLeft, .bottomLeft: 0
            case .center, .top, .bottom: 1
            case .right, .topRight, .bottomRight: 2
            }
        }
        var row: Int {
            switch self {
            case .top, .topLeft, .topRight: 0
            case .center, .left, .right: 1
            case .bottom, .bottomLeft, .bottomRight: 2
            }
        }

        /// The middle of the place, as a fraction of the picture's side.
        var center: (x: Double, y: Double) { (Self.fractions[column], Self.fractions[row]) }
        private static let fractions = [0.27, 0.5, 0.73]

        /// Whether there is a neighbour in the same row.
        var isNarrow: Bool { column != 1 }
    }

    struct Item: Sendable {
        let thing: SceneThing
        let place: Place
        /// Longer side of a pictogram; shapes are a tenth smaller.
        let size: Int
        /// From the place's middle.
        let shiftX: Int
        let shiftY: Int
        let print: Print
    }

    /// How an item that is a word is printed.
    struct Print: Sendable {
        let font: SceneFonts.TextFont
        /// Font size, before a long word is made to fit.
        let height: Int
        let isLightOnDark: Bool
        /// Widest plate.
        let maxWidth: Int
    }

    struct Background: Sendable {
        /// The colours at the two ends, 0 to 255; equal for a plain background.
        let start: [Double]
        let end: [Double]
        /// How the colour moves from start to end along x and y; the parts sum to 1.
        let slopeX: Double
        let slopeY: Double
        /// Standard deviation of the noise on every channel, 0 to 255.
        let noise: Double

        /// The colour at a point, both coordinates 0 to 1.
        func colour(_ x: Double, _ y: Double) -> [Double] {
            zip(start, end).map { $0 + (x * slopeX + y * slopeY) * ($1 - $0) }
        }
    }

    let background: Background
    let items: [Item]

    var things: [SceneThing] { items.map(\.thing) }

    init(random: inout SceneRandom) {
        background = Self.background(&random)
        let places = Self.places(&random)
        let things = Self.things(&random, places: places, background: background)
        let isAlone = places.count == 1
        let jitter = isAlone ? -5...5 : -3...3
        // The classic words keep the reference script's sizes, even where they touch a neighbour; but never another word.
        let hasOneWord = things.count { $0.word != nil } < 2
        items = zip(things, places).map { thing, place in
            let size = random.integer(isAlone ? 64...92 : 38...50)
            let isClassicWord = thing.word.map(SceneWords.classic.contains) ?? false
            let print = Print(
                font: SceneFonts.TextFont.pick(&random), height: (isAlone ? 24 : 14) + random.integer(0...2),
                isLightOnDark: random.chance(0.05),
                maxWidth: isClassicWord && hasOneWord ? Self.classicSize : place.isNarrow ? (hasOneWord ? 56 : 48) : 100)
            return Item(
                thing: thing, place: place, size: size, shiftX: random.integer(jitter), shiftY: random.integer(jitter), print: print)
        }
    }

    /// A layout made by hand, for tests.
    init(things: [SceneThing], places: [Place]) {
        background = Background(start: [200, 200, 200], end: [200, 200, 200], slopeX: 0, slopeY: 1, noise: 0)
        items = zip(things, places).map { thing, place in
            let print = Print(font: .dejaVuSansBold, height: 14, isLightOnDark: false, maxWidth: Self.classicSize)
            return Item(thing: thing, place: place, size: 44, shiftX: 0, shiftY: 0, print: print)
        }
    }

    static func background(_ random: inout SceneRandom) -> Background {
        func colour(_ random: inout SceneRandom) -> [Double] { (0..<3).map { _ in Double(random.integer(120...255)) } }
        let start = colour(&random)
        let kind = random.fraction()
        let slope = random.chance(0.05) ? 0.5 : random.chance(0.5) ? 0 : 1
        let other = colour(&random)
        return Background(
            start: start, end: kind > 0.4 ? other : start, slopeX: slope, slopeY: 1 - slope,
            noise: kind > 0.75 ? random.between(8, 12) : 0)
    }

    private static func places(_ random: inout SceneRandom) -> [Place] {
        switch random.pick([1, 1, 1, 2, 2, 2, 3, 4]) {
        case 2: random.chance(0.5) ? [.left, .right] : [.top, .bottom]
        case 3: random.chance(0.85) ? [.topLeft, .topRight, .bottom] : [.top, .bottomLeft, .bottomRight]
        case 4: [.topLeft, .topRight, .bottomLeft, .bottomRight]
        default: [.center]
        }
    }

    private static func things(_ random: inout SceneRandom, places: [Place], background: Background) -> [SceneThing] {
        let isRepeating = places.count >= 2 && random.chance(0.4)
        // Two printed words, so that reading can depend on the place.
        let hasTwoWords = places.count == 2 && !isRepeating && random.chance(0.04)
        var things: [SceneThing] = []
        for (index, place) in places.enumerated() {
            if isRepeating, let first = things.first, first.pictogram != nil, index < places.count - 1 || random.chance(0.6) {
                things.append(first)
            } else if hasTwoWords {
                var word = SceneWords.pick(&random, maxLetters: 5)
                while things.contains(.word(word)) { word = SceneWords.letters(&random) }
                things.append(.word(word))
            } else {
                things.append(thing(&random, at: place, on: background, besides: things))
            }
        }
        return things
    }

    private static func thing(
        _ random: inout SceneRandom, at place: Place, on background: Background, besides others: [SceneThing]
    ) -> SceneThing {
        let kind = random.fraction()
        let present = others.compactMap(\.pictogram)
        if kind < 0.61,
            let pictogram = Pictogram.pick(&random, where: { candidate in !present.contains { $0.isConfusable(with: candidate) } })
        {
            return .pictogram(pictogram)
        }
        if kind >= 0.84, others.allSatisfy({ $0.word == nil }) {
            return .word(SceneWords.pick(&random, maxLetters: place.isNarrow ? 5 : 6))
        }
        let ground = background.colour(place.center.x, place.center.y)
        // A white shape on a white background is drawn again; a faint one is kept.
        for _ in 0..<8 {
            let colour = SceneColour.pick(&random)
            let distance = zip(colour.rgb, ground).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
            if distance > 30 { return .shape(SceneShape.pick(&random), colour) }
        }
        return .shape(SceneShape.pick(&random), .black)
    }
}
