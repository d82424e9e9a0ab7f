/// The capital letters and digits of one font at one size.
struct SceneAlphabet: Sendable {
    struct Letter: Sendable {
        let width: Int
        let height: Int
        /// Coverage, 0 to 1, `height * width`.
        let mask: [Float]
        /// From the pen to the mask's left column, and from the baseline up to its top row, in pixels.
        let left: Int
        let top: Int
        /// How far the pen moves, in pixels.
        let advance: Int
        /// The same before it is rounded, which text shaping adds up.
        let exactAdvance: Double
    }

    /// A printed word on its plate.
    struct Print {
        let tile: Tile
        /// Pen positions before each letter and after the last one, in pixels from the plate's left edge.
        let pens: [Int]
    }

    private struct Pair: Hashable {
        let first: Character
        let second: Character
    }

    private let letters: [Character: Letter]
    private let kerning: [Pair: Int]
    private let exactKerning: [Pair: Double]
    /// Between the ink and the plate's edges, in pixels.
    private let margin: Int

    init(face: FreeTypeFace, margin: Int) throws {
        let capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".unicodeScalars
        var letters: [Character: Letter] = [:]
        var (kerning, exactKerning): ([Pair: Int], [Pair: Double]) = ([:], [:])
        for first in capitals {
            letters[Character(first)] = try face.letter(first)
            for second in capitals {
                let (pixels, exact) = try face.kerning(first, second)
                let pair = Pair(first: Character(first), second: Character(second))
                if pixels != 0 { kerning[pair] = pixels }
                if exact != 0 { exactKerning[pair] = exact }
            }
        }
        for digit in "0123456789".unicodeScalars { letters[Character(digit)] = try face.letter(digit) }
        (self.letters, self.kerning, self.exactKerning, self.margin) = (letters, kerning, exactKerning, margin)
    }

    private func pens(_ word: String) -> [Int] {
        var pens = [0]
        for (letter, following) in zip(word, word.dropFirst().map { Optional($0) } + [nil]) {
            let gap = following.flatMap { kerning[Pair(first: letter, second: $0)] } ?? 0
            pens.append((pens.last ?? 0) + (letters[letter]?.advance ?? 0) + gap)
        }
        return pens
    }

    /// Columns from the first letter's ink to the last one's, relative to the first pen.
    private func ink(_ word: String, pens: [Int]) -> Range<Int> {
        let extents = zip(word, pens).compactMap { character, pen in letters[character].map { (pen + $0.left, pen + $0.left + $0.width) } }
        let left = extents.map(\.0).min() ?? 0
        return left..<max(left + 1, extents.map(\.1).max() ?? 1)
    }

    /// Width of a word's plate in pixels.
    func width(of word: String) -> Int { ink(word, pens: pens(word)).count + margin * 2 }

    /// A word on a near-white plate that shows a little of the ground, dark ink; or the other way round.
    func print(_ word: String, isLightOnDark: Bool) -> Print {
        let pens = pens(word)
        let ink = ink(word, pens: pens)
        let tile = plate(word, pens: pens, columns: ink, isLightOnDark: isLightOnDark)
        return Print(tile: tile, pens: pens.map { margin - ink.lowerBound + $0 })
    }

    /// A word as the reference script prints it: letters where unrounded advances put them, on a plate from the pen's start to its end.
    func referencePrint(_ word: String) -> Tile {
        var pen = 0.0
        var pens: [Int] = []
        var before: Character?
        for letter in word {
            pen += before.flatMap { exactKerning[Pair(first: $0, second: letter)] } ?? 0
            pens.append(Int(pen.rounded()))
            pen += letters[letter]?.exactAdvance ?? 0
            before = letter
        }
        let ink = ink(word, pens: pens)
        return plate(word, pens: pens, columns: min(0, ink.lowerBound) ..< max(ink.upperBound, Int(pen.rounded())), isLightOnDark: false)
    }

    /// - Parameter columns: the plate's extent without its margin, in pixels from the first pen.
    private func plate(_ word: String, pens: [Int], columns: Range<Int>, isLightOnDark: Bool) -> Tile {
        let glyphs = word.compactMap { letters[$0] }
        let ascent = glyphs.map(\.top).max() ?? 1
        let descent = glyphs.map { $0.height - $0.top }.max() ?? 0
        let start = margin - columns.lowerBound
        var tile = Tile(width: columns.count + margin * 2, height: max(1, ascent + descent) + margin * 2)
        let alpha: Float = 235.0 / 255
        let (plate, dark): (Float, Float) = isLightOnDark ? (0.1, 0.98) : (1, 15.0 / 255)
        tile.pixels = tile.pixels.map { _ in SIMD4(plate * alpha, plate * alpha, plate * alpha, alpha) }
        let full = SIMD4<Float>(dark, dark, dark, 1)
        for (letter, pen) in zip(glyphs, pens) {
            for y in 0..<letter.height {
                for x in 0..<letter.width {
                    let (column, row) = (start + pen + letter.left + x, margin + ascent - letter.top + y)
                    guard (0..<tile.width).contains(column), (0..<tile.height).contains(row) else { continue }
                    let position = row * tile.width + column
                    tile.pixels[position] += letter.mask[y * letter.width + x] * (full - tile.pixels[position])
                }
            }
        }
        return tile
    }
}
