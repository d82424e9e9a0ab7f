/// RLE8 and RLE4 of Windows BMP: runs, literal stretches, and jumps that leave pixels at index 0.
enum BMPRunLengths {
    /// - Returns: `height * width` palette indices, top row first.
    static func decode(_ file: EncodedImage, header: BMPHeader) throws -> [UInt8] {
        let reader = file.reader
        let (width, height) = (header.width, header.height)
        let isFourBit = header.compression == .runLengths4
        var indices = [UInt8](repeating: 0, count: width * height)
        var offset = header.pixelOffset
        var (x, y) = (0, 0)

        func byte() throws -> Int {
            guard let value = reader.u8(offset) else { throw file.truncated("the data end in row \(y) of \(height)") }
            offset += 1
            return value
        }
        // Pixels of a run or a literal stretch beyond the end of the row are dropped.
        func put(_ index: Int) {
            if x < width { indices[header.storedRow(y) * width + x] = UInt8(truncatingIfNeeded: index) }
            x += 1
        }

        while y < height {
            let count = try byte()
            let value = try byte()
            if count > 0 {
                for step in 0..<count { put(isFourBit ? (step % 2 == 0 ? value >> 4 : value & 15) : value) }
                continue
            }
            switch value {
            case 0:
                (x, y) = (0, y + 1)
            case 1:
                return indices
            case 2:
                x += try byte()
                y += try byte()
            default:
                let storedBytes = isFourBit ? (value + 1) / 2 : value
                for position in 0..<storedBytes {
                    let stored = try byte()
                    guard isFourBit else {
                        put(stored)
                        continue
                    }
                    put(stored >> 4)
                    if position * 2 + 1 < value { put(stored & 15) }
                }
                if storedBytes % 2 == 1 { _ = try byte() }
            }
        }
        return indices
    }
}
