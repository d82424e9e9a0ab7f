import AdaLLaVA

/// Draws the pictures that the reference script draws with Pillow: eight bits per channel, rounded where Pillow rounds.
struct ReferencePictures: Sendable {
    /// Side of the pictures in pixels.
    static let size = 112

    /// A picture as it is painted, `[size][size]` RGB.
    struct Canvas {
        var pixels: [SIMD3<Float>]

        /// Composites a tile onto the picture; parts of it may be outside.
        mutating func paste(_ tile: Tile, left: Int, top: Int) {
            let size = ReferencePictures.size
            for y in 0 ..< tile.height where (0 ..< size).contains(top + y) {
                for x in 0 ..< tile.width where (0 ..< size).contains(left + x) {
                    let source = tile.pixels[y * tile.width + x]
                    let place = (top + y) * size + left + x
                    let colour = SIMD3(source.x, source.y, source.z) * 255
                    pixels[place] = (colour + pixels[place] * (1 - source.w)).rounded(.toNearestOrAwayFromZero)
                }
            }
        }

        var image: RGBImage? {
            let bytes = pixels.flatMap { pixel in (0 ..< 3).map { UInt8(min(max(pixel[$0], 0), 255)) } }
            return RGBImage(width: ReferencePictures.size, height: ReferencePictures.size, pixels: bytes)
        }
    }

    private let fonts: SceneFonts

    init() throws { fonts = try SceneFonts.standard.get() }

    /// A plain ground, one that changes from edge to edge, or such a one with noise.
    func background(_ random: inout PythonRandom, _ noise: inout NumPyRandom) -> Canvas {
        func colour(_ random: inout PythonRandom) -> SIMD3<Float> {
            SIMD3(Float(random.integer(120 ... 255)), Float(random.integer(120 ... 255)), Float(random.integer(120 ... 255)))
        }
        let size = Self.size
        let base = colour(&random)
        let kind = random.fraction()
        var pixels = [SIMD3<Float>](repeating: base, count: size * size)
        if kind > 0.4 {
            let other = colour(&random)
            let isDownward = random.fraction() < 0.5
            for place in pixels.indices {
                let ramp = Float(Double(isDownward ? place / size : place % size) / Double(size - 1))
                pixels[place] = base * (1 - ramp) + other * ramp
            }
        }
        if kind > 0.75 {
            for place in pixels.indices {
                for channel in 0 ..< 3 { pixels[place][channel] += Float(10 * noise.normal()) }
            }
        }
        return Canvas(pixels: pixels.map { $0.clamped(lowerBound: .zero, upperBound: SIMD3(repeating: 255)).rounded(.towardZero) })
    }

    func tile(of pictogram: Pictogram, longerSide: Int) -> Tile {
        guard let tile = fonts.pictograms[pictogram] else { return Tile(width: 1, height: 1) }
        let scale = Double(longerSide) / Double(max(tile.width, tile.height))
        func scaled(_ extent: Int) -> Int { max(1, Int((Double(extent) * scale).rounded(.toNearestOrEven))) }
        return tile.scaled(width: scaled(tile.width), height: scaled(tile.height))
    }

    /// A shape drawn at four times its size and scaled down.
    func tile(of shape: SceneShape, colour: SceneColour, side: Int) -> Tile {
        let large = side * 4
        let last = large - 1
        var tile = Tile(width: large, height: large)
        let fill = SIMD4<Float>(Float(colour.rgb[0] / 255), Float(colour.rgb[1] / 255), Float(colour.rgb[2] / 255), 1)
        for y in 0 ..< large {
            for x in 0 ..< large where Self.covers(shape, x, y, last: last) { tile.pixels[y * large + x] = fill }
        }
        return tile.scaled(width: side, height: side)
    }

    /// Whether Pillow's drawing of a shape into the box from 0 to `last` covers a pixel.
    private static func covers(_ shape: SceneShape, _ x: Int, _ y: Int, last: Int) -> Bool {
        let (u, v) = (Double(2 * x - last), Double(2 * y - last))
        let radius = Double(last)
        switch shape {
        case .circle: return u * u + v * v <= (radius + 0.5) * (radius + 0.5)
        case .square: return min(x, y) >= last / 10 && max(x, y) <= last - last / 10
        case .triangle: return abs(Double(x - last / 2)) <= (Double(y) + 0.5) / 2
        case .diamond: return abs(u) + abs(v) <= radius + 1
        case .cross:
            let arm = (last * 3 / 8) ... (last * 5 / 8)
            return arm.contains(x) || arm.contains(y)
        case .ring, .heart: return false  // Not among the script's shapes.
        }
    }

    /// A word in dark ink on a near-white plate that shows a little of the ground.
    func tile(of word: String, height: Int, isSerif: Bool) -> Tile {
        guard let alphabet = fonts.alphabet(isSerif ? .dejaVuSerifBold : .dejaVuSansBold, height: height) else { return Tile(width: 1, height: 1) }
        return alphabet.referencePrint(word)
    }
}
