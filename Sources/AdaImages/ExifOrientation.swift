import AdaLLaVA

/// How stored pixels must be turned to stand upright: tag 0x0112 of EXIF 2.3, values 1 to 8.
enum ExifOrientation: Int, CaseIterable {
    case upright = 1
    case mirrored, rotated180, flipped, transposed, rotated90Clockwise, transversed, rotated90Counterclockwise

    /// The orientation in a TIFF block (with or without the `Exif\0\0` that JPEG puts before it). Whatever is missing or broken in
    /// the block means upright: metadata never makes a picture unreadable.
    init(exif block: ArraySlice<UInt8>) {
        let reader = ByteReader(bytes: Array(block.starts(with: Self.prefix) ? block.dropFirst(Self.prefix.count) : block))
        self = Self.find(reader).flatMap(ExifOrientation.init(rawValue:)) ?? .upright
    }

    static let prefix: [UInt8] = Array("Exif\0\0".utf8)

    private static func find(_ reader: ByteReader) -> Int? {
        let isBigEndian: Bool
        if reader.matches("II", at: 0) {
            isBigEndian = false
        } else if reader.matches("MM", at: 0) {
            isBigEndian = true
        } else {
            return nil
        }
        func value(_ offset: Int, _ size: Int) -> Int? { reader.integer(offset, size: size, isBigEndian: isBigEndian) }
        guard value(2, 2) == 42, let directory = value(4, 4), let entries = value(directory, 2) else { return nil }
        for entry in 0..<entries {
            let offset = directory + 2 + entry * 12
            guard let tag = value(offset, 2), let type = value(offset + 2, 2), let count = value(offset + 4, 4) else { return nil }
            guard tag == 0x0112 else { continue }
            guard count == 1 else { return nil }
            return type == 3 ? value(offset + 8, 2) : type == 4 ? value(offset + 8, 4) : nil
        }
        return nil
    }

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
