/// Brings a picture to LFM2-VL's tower (Liquid AI, 2025; Hugging Face's Lfm2VlImageProcessor).
///
/// A picture keeps its proportions: both sides become multiples of what a token covers, within a range of tokens. A large one is also resized to the grid of
/// square tiles whose proportions are nearest, which then precede the whole.
struct LFM2VLTiling: Sendable, Equatable {
    let settings: LFM2VLTiles
    let filter: ResampleFilter

    /// Size to which a picture is resized that is not cut; that of the whole beside tiles.
    func wholeSize(width: Int, height: Int) -> (width: Int, height: Int) {
        let unit = settings.unit, covered = unit * unit
        let (wide, high, area) = (Double(width), Double(height), Double(width * height))
        func side(_ length: Double, _ rule: FloatingPointRoundingRule) -> Int { max(Int((length / Double(unit)).rounded(rule)), 1) * unit }
        var size = (width: side(wide, .toNearestOrEven), height: side(high, .toNearestOrEven))
        if size.width * size.height > settings.tokens.upperBound * covered {
            let factor = (area / Double(settings.tokens.upperBound * covered)).squareRoot()
            size = (side(wide / factor, .down), side(high / factor, .down))
        } else if size.width * size.height < settings.tokens.lowerBound * covered {
            let factor = (Double(settings.tokens.lowerBound * covered) / area).squareRoot()
            size = (side(wide * factor, .up), side(high * factor, .up))
        }
        // A picture one token high can be far longer than the tokens allow: beyond eight times as long, where transformers goes on, its proportions go.
        let most = 8 * settings.tokens.upperBound * unit
        if size.height == unit { size.width = min(size.width, most) } else if size.width == unit { size.height = min(size.height, most) }
        return size
    }

    /// Tiles of a picture from top to bottom and from left to right; zeros if it stays whole.
    func grid(width: Int, height: Int) -> (rows: Int, columns: Int) {
        guard settings.splits, settings.count.upperBound > 1, isLarge(width: width, height: height) else { return (0, 0) }
        let aspect = Double(width) / Double(height), area = Double(width * height), most = settings.count.upperBound
        var best = (difference: Double.infinity, rows: 1, columns: 1)
        for tiles in settings.count {
            for columns in 1 ... most where tiles % columns == 0 {
                let rows = tiles / columns, difference = abs(aspect - Double(columns) / Double(rows))
                // Of two grids that are equally near, the larger one if the picture has half its pixels.
                let isNearer = difference < best.difference
                    || difference == best.difference && area > 0.5 * Double(settings.side * settings.side * tiles)
                if isNearer { best = (difference, rows, columns) }
            }
        }
        return best.rows * best.columns > 1 ? (best.rows, best.columns) : (0, 0)
    }

    private func isLarge(width: Int, height: Int) -> Bool {
        let unit = Double(settings.unit)
        // A side shorter than half a token is one patch long here.
        func side(_ length: Int) -> Double { max((Double(length) / unit).rounded(.toNearestOrEven) * unit, Double(settings.patch)) }
        return side(width) * side(height) > Double(settings.tokens.upperBound) * unit * unit * settings.tolerance
    }

    /// Patches of each input of the tower: the tiles, then the whole.
    func patchGrids(width: Int, height: Int) -> [PatchGrid] {
        let (rows, columns) = grid(width: width, height: height), tile = settings.side / settings.patch
        let tiles = [PatchGrid](repeating: PatchGrid(rows: tile, columns: tile), count: rows * columns)
        guard tiles.isEmpty || settings.hasThumbnail else { return tiles }
        let whole = wholeSize(width: width, height: height)
        return tiles + [PatchGrid(rows: whole.height / settings.patch, columns: whole.width / settings.patch)]
    }

    func callAsFunction(_ image: RGBImage) -> ImageTiles {
        let (rows, columns) = grid(width: image.width, height: image.height), side = settings.side
        var inputs: [[UInt8]] = []
        if rows > 0 {
            let large = image.resized(columns * side, rows * side, filter, .torch)
            inputs = (0 ..< rows * columns).map { large.cut(left: $0 % columns * side, top: $0 / columns * side, width: side, height: side) }
        }
        if rows == 0 || settings.hasThumbnail {
            let whole = wholeSize(width: image.width, height: image.height)
            inputs.append(image.resized(whole.width, whole.height, filter, .torch).pixels)
        }
        return ImageTiles(width: image.width, height: image.height, rows: rows, columns: columns, pixels: inputs)
    }

    /// Rows of patches of all inputs of the tower, `[patches, patch * patch * channels]`.
    /// - Parameter value: of a byte in a channel.
    func rows(of tiles: ImageTiles, value: (_ channel: Int, _ byte: UInt8) -> Float) -> [Float] {
        let patch = settings.patch
        var out: [Float] = []
        for (grid, pixels) in zip(patchGrids(width: tiles.width, height: tiles.height), tiles.pixels) {
            let stride = grid.columns * patch * 3
            guard pixels.count == grid.rows * patch * stride else { return [] }
            out.reserveCapacity(out.count + pixels.count)
            for index in 0 ..< grid.rows * grid.columns {
                let corner = index / grid.columns * patch * stride + index % grid.columns * patch * 3
                for y in 0 ..< patch {
                    for byte in 0 ..< patch * 3 { out.append(value(byte % 3, pixels[corner + y * stride + byte])) }
                }
            }
        }
        return out
    }
}
