import AdaLLaVA

/// Paints a layout.
struct SceneRenderer: Sendable {
    let fonts: SceneFonts
    /// Side of the picture in pixels.
    let size: Int

    /// A drawn thing: its picture and position. Parts may be outside the scene.
    struct Placed {
        let thing: SceneThing
        let tile: Tile
        let left: Int
        let top: Int
        /// For a word: the letters' edges, in pixels from the tile's left edge.
        let pens: [Int]
    }

    func place(_ layout: SceneLayout) -> [Placed] {
        layout.items.map { item in
            place(item.thing, center: item.place.center, size: item.size, shiftX: item.shiftX, shiftY: item.shiftY, print: item.print)
        }
    }

    /// - Parameter isDivided: whether a dark line divides the picture into left and right.
    func render(_ background: SceneLayout.Background, placed: [Placed], isDivided: Bool = false, random: inout SceneRandom) -> RGBImage? {
        var canvas = ground(background, random: &random)
        if isDivided {
            let width = pixels(2)
            for y in 0..<size { for x in (size - width) / 2 ..< (size + width) / 2 { canvas[y * size + x] = SIMD4(20, 20, 20, 0) } }
        }
        for item in placed { paint(item, on: &canvas) }
        var pixels = [UInt8]()
        pixels.reserveCapacity(canvas.count * 3)
        for pixel in canvas {
            let rounded = pixel.rounded(.toNearestOrAwayFromZero).clamped(lowerBound: .zero, upperBound: SIMD4(repeating: 255))
            for channel in 0..<3 { pixels.append(UInt8(rounded[channel])) }
        }
        return RGBImage(width: size, height: size, pixels: pixels)
    }

    /// One region for every thing, and one for every letter of a word.
    func regions(_ placed: [Placed]) -> [SceneRegion] { placed.flatMap(regions) }

    private func regions(_ placed: Placed) -> [SceneRegion] {
        func region(_ left: Int, _ right: Int, _ labels: [String: String]) -> SceneRegion? {
            SceneRegion(
                left: placed.left + left, top: placed.top, right: placed.left + right, bottom: placed.top + placed.tile.height,
                pictureSize: size, labels: labels)
        }
        let width = placed.tile.width
        switch placed.thing {
        case .pictogram(let pictogram): return [region(0, width, ["thing": pictogram.name])].compactMap(\.self)
        case .shape(let shape, let colour):
            return [region(0, width, ["thing": shape.rawValue, "color": colour.rawValue])].compactMap(\.self)
        case .word(let word):
            let labels = SceneWords.known.contains(word) ? ["thing": "word", "word": word] : ["thing": "word"]
            let letters = zip(word, zip(placed.pens, placed.pens.dropFirst())).map { letter, edges in
                region(edges.0, edges.1, ["character": String(letter)])
            }
            return ([region(0, width, labels)] + letters).compactMap(\.self)
        }
    }

    private func pixels(_ length: Int) -> Int { max(1, length * size / SceneLayout.classicSize) }

    /// - Parameters:
    ///   - center: as a fraction of the picture's side.
    ///   - size: longer side of a pictogram, in pixels of a picture of ``SceneLayout/classicSize``, as the shifts are.
    func place(
        _ thing: SceneThing, center: (x: Double, y: Double), size side: Int, shiftX: Int, shiftY: Int, print: SceneLayout.Print
    ) -> Placed {
        let (tile, pens) = drawing(of: thing, side: side, print: print)
        func corner(_ center: Double, _ extent: Int, _ shift: Int) -> Int {
            let scaledShift = Double(shift * size) / Double(SceneLayout.classicSize)
            return Int((center * Double(size) - Double(extent) / 2 + scaledShift).rounded(.toNearestOrEven))
        }
        return Placed(
            thing: thing, tile: tile, left: corner(center.x, tile.width, shiftX), top: corner(center.y, tile.height, shiftY), pens: pens)
    }

    private func drawing(of thing: SceneThing, side: Int, print: SceneLayout.Print) -> (tile: Tile, pens: [Int]) {
        switch thing {
        case .pictogram(let pictogram):
            return ((fonts.pictograms[pictogram] ?? Tile(width: 1, height: 1)).scaled(longerSide: pixels(side)), [])
        case .shape(let shape, let colour):
            return (Self.tile(of: shape, colour: colour.rgb, side: pixels(side * 9 / 10)), [])
        case .word(let word):
            guard let alphabet = alphabet(for: word, print: print) else { return (Tile(width: 1, height: 1), []) }
            let printed = alphabet.print(word, isLightOnDark: print.isLightOnDark)
            return (printed.tile, printed.pens)
        }
    }

    /// The largest letters that let the word fit.
    private func alphabet(for word: String, print: SceneLayout.Print) -> SceneAlphabet? {
        let heights = (SceneFonts.letterHeights.lowerBound...max(print.height, SceneFonts.letterHeights.lowerBound)).reversed()
        let alphabets = heights.compactMap { fonts.alphabet(print.font, height: $0) }
        return alphabets.first { $0.width(of: word) <= pixels(print.maxWidth) } ?? alphabets.last
    }

    /// `size * size` colours, 0 to 255.
    private func ground(_ background: SceneLayout.Background, random: inout SceneRandom) -> [SIMD4<Float>] {
        let start = SIMD4<Float>(Float(background.start[0]), Float(background.start[1]), Float(background.start[2]), 0)
        let end = SIMD4<Float>(Float(background.end[0]), Float(background.end[1]), Float(background.end[2]), 0)
        let (slopeX, slopeY) = (Float(background.slopeX), Float(background.slopeY))
        let last = Float(max(1, size - 1))
        let noise = Float(background.noise)
        var canvas = [SIMD4<Float>]()
        canvas.reserveCapacity(size * size)
        for y in 0..<size {
            for x in 0..<size {
                var value = start + (slopeX * Float(x) + slopeY * Float(y)) / last * (end - start)
                if noise > 0 { value += noise * SIMD4(Float(random.bell()), Float(random.bell()), Float(random.bell()), 0) }
                canvas.append(value.clamped(lowerBound: .zero, upperBound: SIMD4(repeating: 255)))
            }
        }
        return canvas
    }

    private func paint(_ placed: Placed, on canvas: inout [SIMD4<Float>]) {
        let tile = placed.tile
        for y in max(0, -placed.top)..<max(max(0, -placed.top), min(tile.height, size - placed.top)) {
            for x in max(0, -placed.left)..<max(max(0, -placed.left), min(tile.width, size - placed.left)) {
                let source = tile.pixels[y * tile.width + x]
                let target = (placed.top + y) * size + placed.left + x
                canvas[target] = source * 255 + canvas[target] * (1 - source.w)
            }
        }
    }

    /// A shape drawn at four times its size and scaled down, without the margin that some shapes leave.
    private static func tile(of shape: SceneShape, colour: [Double], side: Int) -> Tile {
        let large = side * 4
        var tile = Tile(width: large, height: large)
        let fill = SIMD4<Float>(Float(colour[0] / 255), Float(colour[1] / 255), Float(colour[2] / 255), 1)
        for y in 0..<large {
            for x in 0..<large where shape.covers((Double(x) + 0.5) / Double(large), (Double(y) + 0.5) / Double(large)) {
                tile.pixels[y * large + x] = fill
            }
        }
        return tile.scaled(width: side, height: side).trimmed(threshold: 0.03)
    }
}
