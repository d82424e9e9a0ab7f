import AdaLLaVA

/// How stored pixels are turned and mirrored to show the picture upright: tag 0x0112 of EXIF 2.3, values 1 to 8.
enum ExifOrientation: Int, CaseIterable {
    case upright = 1
    case mirrored, rotated180, flipped, transposed, rotated90Clockwise, transversed, rotated90Counterclockwise

    /// Whether upright width and height are the stored ones exchanged.
    var exchangesSides: Bool { rawValue >= ExifOrientation.transposed.rawValue }

    /// The upright picture. `pixels` holds `height * width * 3` bytes.
    func upright(_ pixels: [UInt8], width: Int, height: Int) -> (pixels: [UInt8], width: Int, height: Int) {
        let last = width * height - 1
        // Where the upright picture's first pixel is stored, and how far apart its neighbours to the right and below are.
        let (first, right, down): (Int, Int, Int) =
            switch self {
            case .upright: (0, 1, width)
            case .mirrored: (width - 1, -1, width)
            case .rotated180: (last, -1, -width)
            case .flipped: (last - (width - 1), 1, -width)
            case .transposed: (0, width, 1)
            case .rotated90Clockwise: (last - (width - 1), -width, 1)
            case .transversed: (last, -width, -1)
            case .rotated90Counterclockwise: (width - 1, width, -1)
            }
        guard self != .upright, pixels.count == width * height * 3 else { return (pixels, width, height) }
        let (uprightWidth, uprightHeight) = exchangesSides ? (height, width) : (width, height)
        let turned = [UInt8](unsafeUninitializedCapacity: pixels.count) { target, count in
            pixels.withUnsafeBufferPointer { source in
                var written = 0
                for y in 0..<uprightHeight {
                    var stored = (first + y * down) * 3
                    for _ in 0..<uprightWidth {
                        target[written] = source[stored]
                        target[written + 1] = source[stored + 1]
                        target[written + 2] = source[stored + 2]
                        written += 3
                        stored += right * 3
                    }
                }
                count = written
            }
        }
        return (turned, uprightWidth, uprightHeight)
    }
}
