/// The first frame of a GIF (87a, 89a), on its logical screen.
///
/// Parts of the screen outside the frame show the transparent colour if there is one, else colour 0. A frame that reaches beyond the screen
/// enlarges it, and indices beyond the palette are black. All three follow Pillow.
enum GIFFile {
    static func decode(_ file: EncodedImage) throws -> DecodedImage {
        let header = try Header(file)
        let (width, height, frame) = (header.width, header.height, header.frame)
        try file.checkSize(width: width, height: height)
        guard frame.width > 0, frame.height > 0 else { throw file.damaged("a first frame of \(frame.width) x \(frame.height) pixels") }
        let indices = try GIFDecompressor.decompress(file, offset: header.pixelOffset, count: frame.width * frame.height)
        let pixels = paint(
            indices, frame: frame, width: width, height: height, colours: colours(header.palette), background: header.transparent ?? 0)
        return DecodedImage(width: width, height: height, pixels: pixels)
    }

    static func size(_ file: EncodedImage) throws -> (width: Int, height: Int) {
        let header = try Header(file)
        return (header.width, header.height)
    }

    /// Everything before the first frame's pixels.
    private struct Header {
        let width: Int
        let height: Int
        let frame: Frame
        let transparent: Int?
        let palette: [UInt8]?
        let pixelOffset: Int

        init(_ file: EncodedImage) throws {
            let reader = file.reader
            guard let screenWidth = reader.u16LittleEndian(6), let screenHeight = reader.u16LittleEndian(8), let flags = reader.u8(10) else {
                throw file.truncated("the data end inside the header")
            }
            var offset = 13
            var palette: [UInt8]?
            if flags & 0x80 != 0 { palette = try readPalette(file, flags: flags, offset: &offset) }
            (frame, transparent) = try findFirstFrame(file, offset: &offset)
            if frame.flags & 0x80 != 0 { palette = try readPalette(file, flags: frame.flags, offset: &offset) }
            (self.palette, pixelOffset) = (palette, offset)
            width = max(screenWidth, frame.left + frame.width)
            height = max(screenHeight, frame.top + frame.height)
        }
    }

    private struct Frame {
        let left: Int
        let top: Int
        let width: Int
        let height: Int
        let flags: Int

        var isInterlaced: Bool { flags & 0x40 != 0 }

        /// The image row that each stored row belongs to.
        var rows: [Int] {
            guard isInterlaced else { return Array(0..<height) }
            let passes = [(0, 8), (4, 8), (2, 4), (1, 2)]
            return passes.flatMap { first, step in Array(stride(from: first, to: height, by: step)) }
        }
    }

    private static func readPalette(_ file: EncodedImage, flags: Int, offset: inout Int) throws -> [UInt8] {
        let length = 3 << ((flags & 7) + 1)
        guard let range = file.reader.range(offset, length) else { throw file.truncated("the data end inside a palette") }
        offset += length
        return Array(file.bytes[range])
    }

    /// Leaves `offset` after the image descriptor of the first frame; the transparent index comes from the extension before it.
    private static func findFirstFrame(_ file: EncodedImage, offset: inout Int) throws -> (Frame, transparent: Int?) {
        let reader = file.reader
        var transparent: Int?
        while let introducer = reader.u8(offset) {
            offset += 1
            switch introducer {
            case 0x2C:
                guard let left = reader.u16LittleEndian(offset), let top = reader.u16LittleEndian(offset + 2),
                    let width = reader.u16LittleEndian(offset + 4), let height = reader.u16LittleEndian(offset + 6),
                    let flags = reader.u8(offset + 8)
                else { throw file.truncated("the data end inside an image descriptor") }
                offset += 9
                return (Frame(left: left, top: top, width: width, height: height, flags: flags), transparent)
            case 0x21:
                if reader.u8(offset) == 0xF9, let flags = reader.u8(offset + 2), let index = reader.u8(offset + 5) {
                    transparent = flags & 1 != 0 ? index : nil
                }
                offset += 1
                while let length = reader.u8(offset), length > 0 { offset += 1 + length }
                offset += 1
            case 0x3B:
                throw file.damaged("no frame in it")
            default:
                continue  // Stray zero bytes between blocks occur in files that every viewer opens.
            }
        }
        throw file.truncated("the data end before the first frame")
    }

    /// 256 colours, three bytes each. A file without any palette means grey levels.
    private static func colours(_ palette: [UInt8]?) -> [UInt8] {
        guard let palette else { return (0..<256).flatMap { [UInt8](repeating: UInt8($0), count: 3) } }
        return palette + [UInt8](repeating: 0, count: max(0, 768 - palette.count))
    }

    private static func paint(
        _ indices: [UInt8], frame: Frame, width: Int, height: Int, colours: [UInt8], background: Int
    ) -> [UInt8] {
        let colour = Array(colours[background * 3..<background * 3 + 3])
        var pixels = [UInt8](repeating: 0, count: width * height * 3)
        if frame.width != width || frame.height != height, colour != [0, 0, 0] {
            for start in stride(from: 0, to: pixels.count, by: 3) {
                for channel in 0..<3 { pixels[start + channel] = colour[channel] }
            }
        }
        for (storedRow, row) in frame.rows.enumerated() {
            var target = ((frame.top + row) * width + frame.left) * 3
            for index in indices[storedRow * frame.width..<(storedRow + 1) * frame.width] {
                let source = Int(index) * 3
                for channel in 0..<3 { pixels[target + channel] = colours[source + channel] }
                target += 3
            }
        }
        return pixels
    }
}
