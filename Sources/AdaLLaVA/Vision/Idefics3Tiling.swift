/// Cuts a picture into tiles as Idefics3's image processor does (Laurençon et al., 2024; Hugging Face's Idefics3ImageProcessorPil).
///
/// The longer side is resized to a given length, then both sides to multiples of a tile's. Tiles are cut from that, and the whole of it is resized
/// to one more. A picture that is no larger than a tile stays one.
struct Idefics3Tiling: Sendable, Equatable {
    /// Pixels of a tile's side.
    let side: Int
    /// Pixels of the longer side before it is cut.
    let longestEdge: Int
    /// Whether pictures are cut; otherwise each is resized to one tile.
    let splits: Bool
    let filter: ResampleFilter

    /// No side of a resized picture is longer.
    private static let largestSide = 4096

    /// Sizes to which a picture is resized, one after the other.
    func sizes(width: Int, height: Int) -> [(width: Int, height: Int)] {
        let size = Self.scaled((width, height), longestEdge: longestEdge)
        return [size, splits ? multiple(size) : (side, side)]
    }

    /// Tiles of a picture from top to bottom and from left to right; zeros if it stays one.
    func grid(width: Int, height: Int) -> (rows: Int, columns: Int) {
        guard let size = sizes(width: width, height: height).last, size.width > side || size.height > side else { return (0, 0) }
        return (size.height / side, size.width / side)
    }

    /// The fewest inputs of the tower that any picture becomes.
    var leastTiles: Int {
        guard splits else { return 1 }
        let columns = (min(longestEdge, Self.largestSide) + side - 1) / side
        return columns > 1 ? columns + 1 : 1
    }

    func callAsFunction(_ image: RGBImage) -> ImageTiles {
        let (rows, columns) = grid(width: image.width, height: image.height)
        let whole = sizes(width: image.width, height: image.height).reduce(image) { $0.resized($1.width, $1.height, filter) }
        var tiles = (0 ..< rows * columns).map { whole.cut(left: $0 % columns * side, top: $0 / columns * side, width: side, height: side) }
        tiles.append(whole.resized(side, side, filter).pixels)
        return ImageTiles(width: image.width, height: image.height, rows: rows, columns: columns, pixels: tiles)
    }

    /// The longer side becomes `longestEdge`, then at most ``largestSide``; the other keeps the proportion, rounded down and then to an even number.
    private static func scaled(_ size: (width: Int, height: Int), longestEdge: Int) -> (width: Int, height: Int) {
        func other(_ longer: Int, _ size: (width: Int, height: Int)) -> (width: Int, height: Int) {
            let ratio = Double(size.width) / Double(size.height)
            return size.width >= size.height ? (longer, Int(Double(longer) / ratio)) : (Int(Double(longer) * ratio), longer)
        }
        var scaled = other(longestEdge, size)
        if size.width >= size.height { scaled.height += scaled.height % 2 } else { scaled.width += scaled.width % 2 }
        scaled = (max(scaled.width, 1), max(scaled.height, 1))
        guard max(scaled.width, scaled.height) > largestSide else { return scaled }
        scaled = other(largestSide, scaled)
        return (max(scaled.width, 1), max(scaled.height, 1))
    }

    /// The next multiples of a tile's side, the shorter one after the proportion.
    private func multiple(_ size: (width: Int, height: Int)) -> (width: Int, height: Int) {
        func up(_ length: Int) -> Int { (length + side - 1) / side * side }
        let ratio = Double(size.width) / Double(size.height)
        if size.width >= size.height {
            let width = up(size.width)
            return (width, up(max(Int(Double(width) / ratio), 1)))
        }
        let height = up(size.height)
        return (up(max(Int(Double(height) * ratio), 1)), height)
    }
}
