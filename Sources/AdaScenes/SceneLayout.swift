/// What stands in a scene, where, and on what ground; no pixels yet. Lengths are fractions of the picture's side.
struct SceneLayout: Sendable {
    /// Where a thing stands, as a question names it.
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

        /// How wide a thing here may be without meeting its neighbours.
        var room: Double { [.center, .top, .bottom].contains(self) ? 0.9 : 0.41 }

        var center: (x: Double, y: Double) {
            let (near, far) = (0.27, 0.73)
            return switch self {
            case .center: (0.5, 0.5)
            case .left: (near, 0.5)
            case .right: (far, 0.5)
            case .top: (0.5, near)
            case .bottom: (0.5, far)
            case .topLeft: (near, near)
            case .topRight: (far, near)
            case .bottomLeft: (near, far)
            case .bottomRight: (far, far)
            }
        }
    }

    struct Item: Sendable {
        let thing: SceneThing
        let place: Place
        /// Longer side of what is drawn.
        let size: Double
        let centerX: Double
        let centerY: Double
        /// Which alphabet prints a word, and whether it is light on dark.
        let alphabet: Int
        let isLightOnDark: Bool
    }

    struct Background: Sendable {
        /// The colours at the two ends, 0 to 255; alike for a plain ground.
        let start: [Double]
        let end: [Double]
        /// How the colour moves from start to end along x and y; the parts sum to 1.
        let slopeX: Double
        let slopeY: Double
        /// Standard deviation of the noise on every channel, 0 to 255.
        let noise: Double

        /// The smallest distance of `colour` from any colour of the ground.
        func distance(to colour: [Double]) -> Double {
            let shares: [Double] = [0, 0.25, 0.5, 0.75, 1]
            let squares = shares.map { share in
                (0..<3).reduce(0.0) { sum, channel in
                    let difference = colour[channel] - (start[channel] + share * (end[channel] - start[channel]))
                    return sum + difference * difference
                }
            }
            return (squares.min() ?? 0).squareRoot()
        }
    }

    let background: Background
    let items: [Item]

    var things: [SceneThing] { items.map(\.thing) }

    /// - Parameter meanColours: of every pictogram, to keep things apart from the ground.
    init(random: inout SceneRandom, meanColours: [Pictogram: [Double]], alphabets: Int) {
        let background = Self.background(&random)
        let places = Self.places(&random)
        let isRepeating = places.count >= 2 && random.chance(0.35)
        var things: [SceneThing] = []
        for (index, place) in places.enumerated() {
            if isRepeating, let first = things.first, first.pictogram != nil, index < places.count - 1 || random.chance(0.6) {
                things.append(first)
            } else {
                things.append(Self.thing(&random, at: place, on: background, besides: things, meanColours: meanColours))
            }
        }
        items = zip(things, places).map { thing, place in
            let isAlone = places.count == 1
            let size = isAlone ? random.between(0.56, 0.82) : random.between(0.34, 0.41)
            let jitter = isAlone ? 0.045 : 0.02
            let center = place.center
            return Item(
                thing: thing, place: place, size: size, centerX: center.x + random.between(-jitter, jitter),
                centerY: center.y + random.between(-jitter, jitter), alphabet: random.below(alphabets), isLightOnDark: random.chance(0.3))
        }
        self.background = background
    }

    private static func background(_ random: inout SceneRandom) -> Background {
        func colour(_ random: inout SceneRandom) -> [Double] { (0..<3).map { _ in random.between(120, 255) } }
        let start = colour(&random)
        let kind = random.fraction()
        let slopes: [Double] = [0, 0, 1, 1, 0.5]
        let slope: Double = random.pick(slopes) ?? 0
        let other = colour(&random)
        return Background(
            start: start, end: kind < 0.4 ? start : other, slopeX: slope, slopeY: 1 - slope,
            noise: kind < 0.75 ? 0 : random.between(5, 12))
    }

    private static func places(_ random: inout SceneRandom) -> [Place] {
        let counts: [(element: Int, weight: Double)] = [(1, 0.36), (2, 0.36), (3, 0.15), (4, 0.13)]
        return switch random.pick(weighted: counts) {
        case 2: random.chance(0.5) ? [.left, .right] : [.top, .bottom]
        case 3: random.chance(0.5) ? [.topLeft, .topRight, .bottom] : [.top, .bottomLeft, .bottomRight]
        case 4: [.topLeft, .topRight, .bottomLeft, .bottomRight]
        default: [.center]
        }
    }

    /// How far a thing's colour must be from the ground to be seen at a glance.
    private static let visibleDistance = 85.0

    private static func thing(
        _ random: inout SceneRandom, at place: Place, on background: Background, besides others: [SceneThing],
        meanColours: [Pictogram: [Double]]
    ) -> SceneThing {
        let hasWord = others.contains { if case .word = $0 { true } else { false } }
        let kind = random.fraction()
        // Five letters beside a neighbour would be too small to read.
        let words = SceneThing.words.filter { $0.count <= 4 || place.room > 0.5 }
        if kind >= 0.86, !hasWord, let word = random.pick(words) { return .word(word) }
        if kind < 0.62 {
            // Pictograms have inner contrast and dark lines; only those that would drown are left out.
            let visible = Pictogram.all.filter { background.distance(to: meanColours[$0] ?? [0, 0, 0]) > visibleDistance / 2 }
            if let pictogram = random.pick(visible) { return .pictogram(pictogram) }
        }
        let colours = SceneColour.allCases.filter { background.distance(to: $0.rgb) > visibleDistance }
        return .shape(random.pick(SceneShape.allCases) ?? .circle, random.pick(colours) ?? .black)
    }
}
