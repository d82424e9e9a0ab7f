/// Cuts a picture into tiles as LLaVA-1.6 does (Liu et al., 2024; Hugging Face's LlavaNextImageProcessorPil).
///
/// Of some given resolutions the one is taken that keeps most of the picture's pixels. The picture is resized into it with its proportions, the
/// margins are black, and it is cut into the tower's squares. The whole picture comes first, resized to one square of any proportions.
struct AnyResTiling: Sendable, Equatable {
    /// Pixels of a tile's side.
    let side: Int
    /// Resolutions that a picture may be resized into, multiples of a tile's side.
    let resolutions: [ImageProcessorConfiguration.Size]
    let filter: ResampleFilter

    /// The resolution for a picture: most of its pixels kept, then fewest wasted, then the first.
    func resolution(width: Int, height: Int) -> ImageProcessorConfiguration.Size {
        var best = (size: resolutions[0], effective: 0, wasted: Int.max)
        for size in resolutions {
            let scale = min(Double(size.width) / Double(width), Double(size.height) / Double(height))
            let effective = min(Int(Double(width) * scale) * Int(Double(height) * scale), width * height)
            let wasted = size.width * size.height - effective
            if effective > best.effective || (effective == best.effective && wasted < best.wasted) { best = (size, effective, wasted) }
        }
        return best.size
    }

    /// Tiles of a picture from top to bottom and from left to right, without the one for the whole.
    func grid(width: Int, height: Int) -> (rows: Int, columns: Int) {
        let size = resolution(width: width, height: height)
        return (size.height / side, size.width / side)
    }

    func callAsFunction(_ image: RGBImage) -> ImageTiles {
        let size = resolution(width: image.width, height: image.height)
        let (rows, columns) = grid(width: image.width, height: image.height)
        let inside = Self.inscribed(image, in: size)
        let canvas = image.resized(inside.width, inside.height, filter).centred(width: size.width, height: size.height)
        let tiles = (0 ..< rows * columns).map { canvas.cut(left: $0 % columns * side, top: $0 / columns * side, width: side, height: side) }
        return ImageTiles(
            width: image.width, height: image.height, rows: rows, columns: columns, pixels: [image.resized(side, side, filter).pixels] + tiles)
    }

    /// The largest size with an image's proportions in a resolution, the shorter side rounded up.
    private static func inscribed(_ image: RGBImage, in size: ImageProcessorConfiguration.Size) -> (width: Int, height: Int) {
        let (across, down) = (Double(size.width) / Double(image.width), Double(size.height) / Double(image.height))
        if across < down { return (size.width, min(Int((Double(image.height) * across).rounded(.up)), size.height)) }
        return (min(Int((Double(image.width) * down).rounded(.up)), size.width), size.height)
    }
}

/// Where the features of LLaVA-1.6's tiles go (`spatial_unpad`): those of the whole picture, then the tiles' as one map without the margins, a newline
/// token after each of its rows.
struct TileArrangement: Sendable, Equatable {
    /// Tiles from left to right.
    let columns: Int
    /// Patches of a tile's side.
    let side: Int
    /// Part of the map of all tiles' patches that is kept.
    let kept: (rows: Range<Int>, columns: Range<Int>)

    /// - Parameters:
    ///   - grid: tiles from top to bottom and from left to right.
    ///   - side: patches of a tile's side.
    ///   - width, height: the picture's, in pixels.
    init(grid: (rows: Int, columns: Int), side: Int, width: Int, height: Int) {
        (columns, self.side) = (grid.columns, side)
        let (down, across) = (grid.rows * side, grid.columns * side)
        func rounded(_ length: Double) -> Int { Int((length * 1e7).rounded(.toNearestOrEven) / 1e7) }
        if Double(width) / Double(height) > Double(across) / Double(down) {
            let margin = max(down - rounded(Double(height) * (Double(across) / Double(width))), 0) / 2
            kept = (margin ..< down - margin, 0 ..< across)
        } else {
            let margin = max(across - rounded(Double(width) * (Double(down) / Double(height))), 0) / 2
            kept = (0 ..< down, margin ..< across - margin)
        }
    }

    static func == (a: TileArrangement, b: TileArrangement) -> Bool {
        a.columns == b.columns && a.side == b.side && a.kept == b.kept
    }

    /// Rows of features of the picture.
    var rows: Int { side * side + kept.rows.count * (kept.columns.count + 1) }

    /// - Parameters:
    ///   - tiles: `[side * side, hidden]` each, that of the whole picture first.
    ///   - newline: `[1, hidden]`
    /// - Returns: `[rows, hidden]`
    func callAsFunction(_ tiles: [Tensor], newline: Tensor) -> Tensor {
        let out = Tensor(rows: rows, columns: newline.columns)
        out.copyRows(from: tiles[0], to: 0)
        var row = side * side
        for y in kept.rows {
            for x in kept.columns {
                let source = y % side * side + x % side
                out.copyRows(from: tiles[1 + y / side * columns + x / side].rows(source ..< source + 1), to: row)
                row += 1
            }
            out.copyRows(from: newline, to: row)
            row += 1
        }
        return out
    }
}
