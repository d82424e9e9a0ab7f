import AdaLLaVA

/// Paints a layout.
struct SceneRenderer: Sendable {
    let fonts: SceneFonts
    /// Side of the picture in pixels.
    let size: Int

    func render(_ layout: SceneLayout, random: inout SceneRandom) -> RGBImage? {
        var canvas = ground(layout.background, random: &random)
        for item in layout.items {
            let placed = place(item)
            paint(placed.tile, on: &canvas, left: placed.left, top: placed.top)
        }
        let pixels = canvas.map { UInt8(min(max($0.rounded(), 0), 255)) }
        return RGBImage(width: size, height: size, pixels: pixels)
    }

    /// An item's picture and where its upper left corner comes to lie: inside the scene, a pixel from its edge, whatever was drawn.
    func place(_ item: SceneLayout.Item) -> (tile: Tile, left: Int, top: Int) {
        func clamp(_ position: Int, extent: Int) -> Int { max(0, min(max(position, 1), size - extent - 1)) }
        let tile = tile(for: item)
        let left = Int((item.centerX * Double(size)).rounded()) - tile.width / 2
        let top = Int((item.centerY * Double(size)).rounded()) - tile.height / 2
        return (tile, clamp(left, extent: tile.width), clamp(top, extent: tile.height))
    }

    /// `size * size * 3` values, 0 to 255.
    private func ground(_ background: SceneLayout.Background, random: inout SceneRandom) -> [Float] {
        var canvas = [Float](repeating: 0, count: size * size * 3)
        let last = Double(max(1, size - 1))
        for y in 0..<size {
            for x in 0..<size {
                let share = (background.slopeX * Double(x) + background.slopeY * Double(y)) / last
                for channel in 0..<3 {
                    let value = background.start[channel] + share * (background.end[channel] - background.start[channel])
                    let noise = background.noise > 0 ? background.noise * random.bell() : 0
                    canvas[(y * size + x) * 3 + channel] = Float(min(max(value + noise, 0), 255))
                }
            }
        }
        return canvas
    }

    private func paint(_ tile: Tile, on canvas: inout [Float], left: Int, top: Int) {
        for y in 0..<min(tile.height, size - top) {
            for x in 0..<min(tile.width, size - left) {
                let source = (y * tile.width + x) * 4
                let target = ((top + y) * size + left + x) * 3
                let alpha = tile.values[source + 3]
                for channel in 0..<3 {
                    canvas[target + channel] = tile.values[source + channel] * 255 + canvas[target + channel] * (1 - alpha)
                }
            }
        }
    }

    private func tile(for item: SceneLayout.Item) -> Tile {
        let side = item.size * Double(size)
        switch item.thing {
        case .pictogram(let pictogram):
            return (fonts.pictograms[pictogram] ?? Tile(width: 1, height: 1)).fitted(maxWidth: side, maxHeight: side)
        case .shape(let shape, let colour):
            return Self.tile(of: shape, colour: colour.rgb, side: max(1, Int(side * 0.92)))
        case .word(let word):
            // Words are wide: where there is room they get it, so that letters stay readable.
            let width = min(side * 1.5, item.place.room * Double(size))
            return wordTile(word, alphabet: item.alphabet, isLightOnDark: item.isLightOnDark).fitted(maxWidth: width, maxHeight: side * 0.5)
        }
    }

    /// A shape with smooth edges: 64 samples a pixel.
    private static func tile(of shape: SceneShape, colour: [Double], side: Int) -> Tile {
        var tile = Tile(width: side, height: side)
        let samples = 8
        let step = 2 / Double(side * samples)
        for y in 0..<side {
            for x in 0..<side {
                var covered = 0
                for subY in 0..<samples {
                    for subX in 0..<samples {
                        let sampleX = (Double(x * samples + subX) + 0.5) * step - 1
                        let sampleY = (Double(y * samples + subY) + 0.5) * step - 1
                        if shape.covers(sampleX, sampleY) { covered += 1 }
                    }
                }
                let alpha = Float(covered) / Float(samples * samples)
                for channel in 0..<3 { tile.values[(y * side + x) * 4 + channel] = alpha * Float(colour[channel] / 255) }
                tile.values[(y * side + x) * 4 + 3] = alpha
            }
        }
        return tile
    }

    /// A word on a plate, in the fonts' own size.
    private func wordTile(_ word: String, alphabet: Int, isLightOnDark: Bool) -> Tile {
        guard fonts.alphabets.indices.contains(alphabet) else { return Tile(width: 1, height: 1) }
        let letters = word.compactMap { fonts.alphabets[alphabet].letters[$0] }
        let margin = Int(SceneFonts.letterPixels) / 6
        // From the first letter's left edge to the last one's right edge; round letters dip below the baseline.
        let ascent = letters.map(\.top).max() ?? 1
        let descent = letters.map { max(0, $0.height - $0.top) }.max() ?? 0
        let width = letters.reduce(0) { $0 + $1.advance } + margin * 2
        let height = ascent + descent + margin * 2
        let (plate, ink): (Float, Float) = isLightOnDark ? (0.12, 0.98) : (0.98, 0.06)
        var tile = Tile(width: width, height: height, values: (0..<width * height).flatMap { _ in [plate, plate, plate, 1] })
        var pen = margin
        for letter in letters {
            for y in 0..<letter.height {
                for x in 0..<letter.width {
                    let (column, row) = (pen + letter.left + x, margin + ascent - letter.top + y)
                    guard (0..<width).contains(column), (0..<height).contains(row) else { continue }
                    let coverage = Float(letter.mask[y * letter.width + x]) / 255
                    for channel in 0..<3 {
                        let position = (row * width + column) * 4 + channel
                        tile.values[position] += coverage * (ink - tile.values[position])
                    }
                }
            }
            pen += letter.advance
        }
        return tile
    }
}
