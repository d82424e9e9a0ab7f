/// Resizes a picture in its own proportions to multiples of a length, as Qwen2-VL's image processor does (`smart_resize`), and makes rows of patches of it.
struct DynamicResizing: Sendable, Equatable {
    /// Pixels of a patch's side.
    let patch: Int
    /// Patches of a side that the tower merges: both sides become multiples of their product.
    let merge: Int
    /// Frames of a patch, which are all the same picture.
    let frames: Int
    /// The fewest and the most pixels.
    let pixels: ClosedRange<Int>
    let filter: ResampleFilter

    private var unit: Int { patch * merge }

    /// Size to which a picture is resized.
    func size(width: Int, height: Int) -> (width: Int, height: Int) {
        let (wide, high, unit) = (Double(width), Double(height), Double(unit))
        func sides(_ factor: Double, _ rule: FloatingPointRoundingRule) -> (width: Int, height: Int) {
            (Int((wide * factor / unit).rounded(rule) * unit), Int((high * factor / unit).rounded(rule) * unit))
        }
        func divided(by factor: Double) -> (width: Int, height: Int) {
            (Int((wide / factor / unit).rounded(.down) * unit), Int((high / factor / unit).rounded(.down) * unit))
        }
        var size = sides(1, .toNearestOrEven)
        if size.width * size.height > pixels.upperBound {
            size = divided(by: (wide * high / Double(pixels.upperBound)).squareRoot())
        } else if size.width * size.height < pixels.lowerBound {
            size = sides((Double(pixels.lowerBound) / (wide * high)).squareRoot(), .up)
        }
        return (max(size.width, self.unit), max(size.height, self.unit))
    }

    /// Patches from top to bottom and from left to right.
    func grid(width: Int, height: Int) -> (rows: Int, columns: Int) {
        let size = size(width: width, height: height)
        return (size.height / patch, size.width / patch)
    }

    func callAsFunction(_ image: RGBImage) -> ImageTiles {
        let size = size(width: image.width, height: image.height)
        return ImageTiles(
            width: image.width, height: image.height, rows: size.height / patch, columns: size.width / patch,
            pixels: [image.resized(size.width, size.height, filter).pixels])
    }

    /// Rows of patches, `[patches, channels * frames * patch * patch]`; those that the tower merges follow each other.
    /// - Parameter value: of a byte in a channel.
    func rows(of tiles: ImageTiles, value: (_ channel: Int, _ byte: UInt8) -> Float) -> [Float] {
        let (width, pixels) = (tiles.columns * patch, tiles.pixels.first ?? [])
        guard pixels.count == tiles.rows * patch * width * 3 else { return [] }
        var out: [Float] = []
        out.reserveCapacity(tiles.rows * tiles.columns * 3 * frames * patch * patch)
        for unit in 0 ..< tiles.rows / merge * (tiles.columns / merge) {
            let (top, left) = (unit / (tiles.columns / merge) * merge, unit % (tiles.columns / merge) * merge)
            for part in 0 ..< merge * merge {
                let (y, x) = ((top + part / merge) * patch, (left + part % merge) * patch)
                for channel in 0 ..< 3 {
                    for _ in 0 ..< frames {
                        for row in 0 ..< patch {
                            for column in 0 ..< patch { out.append(value(channel, pixels[((y + row) * width + x + column) * 3 + channel])) }
                        }
                    }
                }
            }
        }
        return out
    }
}
