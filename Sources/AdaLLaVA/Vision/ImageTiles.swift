/// A picture as inputs of a tower: one, or several tiles.
struct ImageTiles: Sendable, Equatable {
    /// The picture's own size in pixels.
    let width, height: Int
    /// Tiles from top to bottom and from left to right; 0 where the picture is one input; its patches, where it keeps its proportions.
    let rows, columns: Int
    /// Each `[S, S, 3]`, row by row. The whole picture is among them, the last one for Idefics3 and LFM2-VL (of its own size there), the first for LLaVA-1.6.
    let pixels: [[UInt8]]
}

/// How a model cuts pictures into tiles.
enum ImageTiling: Sendable, Equatable {
    case idefics3(Idefics3Tiling)
    case anyRes(AnyResTiling)
    /// One input of any proportions, whose grid is that of its patches.
    case dynamic(DynamicResizing)
    case lfm2VL(LFM2VLTiling)

    /// Tiles of a picture from top to bottom and from left to right; zeros if it is one input of the tower.
    func grid(width: Int, height: Int) -> (rows: Int, columns: Int) {
        switch self {
        case .idefics3(let tiling): tiling.grid(width: width, height: height)
        case .anyRes(let tiling): tiling.grid(width: width, height: height)
        case .dynamic(let resizing): resizing.grid(width: width, height: height)
        case .lfm2VL(let tiling): tiling.grid(width: width, height: height)
        }
    }

    func callAsFunction(_ image: RGBImage) -> ImageTiles {
        switch self {
        case .idefics3(let tiling): tiling(image)
        case .anyRes(let tiling): tiling(image)
        case .dynamic(let resizing): resizing(image)
        case .lfm2VL(let tiling): tiling(image)
        }
    }
}

extension RGBImage {
    /// The picture resized; itself if it has the size.
    /// - Parameters: from 1 to 1,048,576 pixels.
    func resized(_ width: Int, _ height: Int, _ filter: ResampleFilter, _ arithmetic: ResampleArithmetic = .pillow) -> RGBImage {
        self.width == width && self.height == height
            ? self : ImageResize.resize(self, width: width, height: height, filter: filter, arithmetic: arithmetic) ?? self
    }

    /// The picture in the middle of a black one that is at least as large, one pixel up or left of it for an odd difference.
    func centred(width: Int, height: Int) -> RGBImage {
        if self.width == width && self.height == height { return self }
        let (left, top) = ((width - self.width) / 2, (height - self.height) / 2)
        var canvas = [UInt8](repeating: 0, count: width * height * 3)
        for row in 0 ..< self.height {
            let start = ((top + row) * width + left) * 3
            canvas.replaceSubrange(start ..< start + self.width * 3, with: pixels[row * self.width * 3 ..< (row + 1) * self.width * 3])
        }
        return RGBImage(width: width, height: height, pixels: canvas) ?? self
    }

    /// Bytes of the part inside the picture.
    func cut(left: Int, top: Int, width: Int, height: Int) -> [UInt8] {
        var part: [UInt8] = []
        part.reserveCapacity(width * height * 3)
        for row in top ..< top + height {
            let start = (row * self.width + left) * 3
            part += pixels[start ..< start + width * 3]
        }
        return part
    }
}
