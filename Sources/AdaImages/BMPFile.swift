/// BMP with OS/2 and Windows headers: 1, 4, 8, 16, 24 and 32 bits a pixel, bit fields, RLE4 and RLE8, bottom-up and top-down.
enum BMPFile {
    static func decode(_ file: EncodedImage) throws -> DecodedImage {
        let header = try BMPHeader(file)
        try file.checkSize(width: header.width, height: header.height)
        let pixels: [UInt8]
        switch header.compression {
        case .runLengths8, .runLengths4:
            let indices = try BMPRunLengths.decode(file, header: header)
            pixels = lookUp(indices, colours: header.colours(file))
        case .none, .bitFields:
            try checkLength(file, header: header)
            pixels = header.bitsPerPixel <= 8 ? palettePixels(file, header: header) : try directPixels(file, header: header)
        }
        return DecodedImage(width: header.width, height: header.height, pixels: pixels)
    }

    static func size(_ file: EncodedImage) throws -> (width: Int, height: Int) {
        let header = try BMPHeader(file)
        return (header.width, header.height)
    }

    private static func checkLength(_ file: EncodedImage, header: BMPHeader) throws {
        let lastRow = (header.width * header.bitsPerPixel + 7) / 8
        let needed = header.rowBytes * (header.height - 1) + lastRow
        guard file.reader.range(header.pixelOffset, needed) != nil else {
            throw file.truncated("its pixels take \(needed) bytes, found \(max(0, file.bytes.count - header.pixelOffset))")
        }
    }

    private static func lookUp(_ indices: [UInt8], colours: [UInt8]) -> [UInt8] {
        var pixels = [UInt8](repeating: 0, count: indices.count * 3)
        for (position, index) in indices.enumerated() {
            for channel in 0..<3 { pixels[position * 3 + channel] = colours[Int(index) * 3 + channel] }
        }
        return pixels
    }

    private static func palettePixels(_ file: EncodedImage, header: BMPHeader) -> [UInt8] {
        let colours = header.colours(file)
        let bits = header.bitsPerPixel
        let mask = (1 << bits) - 1
        var pixels = [UInt8](repeating: 0, count: header.width * header.height * 3)
        for y in 0..<header.height {
            let row = header.pixelOffset + header.storedRow(y) * header.rowBytes
            var target = y * header.width * 3
            for x in 0..<header.width {
                let shift = 8 - bits - x * bits % 8
                let index = Int(file.bytes[row + x * bits / 8]) >> shift & mask
                for channel in 0..<3 { pixels[target + channel] = colours[index * 3 + channel] }
                target += 3
            }
        }
        return pixels
    }

    private static func directPixels(_ file: EncodedImage, header: BMPHeader) throws -> [UInt8] {
        let fields = try header.fields(file)
        let pixelBytes = header.bitsPerPixel / 8
        var pixels = [UInt8](repeating: 0, count: header.width * header.height * 3)
        for y in 0..<header.height {
            var source = header.pixelOffset + header.storedRow(y) * header.rowBytes
            var target = y * header.width * 3
            for _ in 0..<header.width {
                var value = 0
                for byte in 0..<pixelBytes { value |= Int(file.bytes[source + byte]) << (byte * 8) }
                for channel in 0..<3 { pixels[target + channel] = fields[channel].byte(of: value) }
                source += pixelBytes
                target += 3
            }
        }
        return pixels
    }
}

/// The file header, the bitmap header in all its versions, and the positions of palette and pixels.
struct BMPHeader {
    enum Compression: Int {
        case none = 0
        case runLengths8, runLengths4, bitFields
    }

    let width: Int
    let height: Int
    let isTopDown: Bool
    let bitsPerPixel: Int
    let compression: Compression
    let pixelOffset: Int
    private let paletteOffset: Int
    private let paletteCount: Int
    private let paletteEntryBytes: Int

    /// Rows are padded to four bytes.
    var rowBytes: Int { (width * bitsPerPixel + 31) / 32 * 4 }

    func storedRow(_ y: Int) -> Int { isTopDown ? y : height - 1 - y }

    init(_ file: EncodedImage) throws {
        let reader = file.reader
        func read(_ value: Int?) throws -> Int {
            guard let value else { throw file.truncated("the data end inside the header") }
            return value
        }
        let start = try read(reader.u32LittleEndian(10))
        let headerBytes = try read(reader.u32LittleEndian(14))
        guard [12, 40, 52, 56, 64, 108, 124].contains(headerBytes) else {
            throw file.damaged("a bitmap header of \(headerBytes) bytes, expected 12, 40, 52, 56, 64, 108 or 124")
        }
        var code = 0
        var usedColours = 0
        if headerBytes == 12 {
            width = try read(reader.u16LittleEndian(18))
            height = try read(reader.u16LittleEndian(20))
            isTopDown = false
            bitsPerPixel = try read(reader.u16LittleEndian(24))
        } else {
            let signedHeight = try read(reader.i32LittleEndian(22))
            width = try read(reader.i32LittleEndian(18))
            height = abs(signedHeight)
            isTopDown = signedHeight < 0
            bitsPerPixel = try read(reader.u16LittleEndian(28))
            code = try read(reader.u32LittleEndian(30))
            usedColours = try read(reader.u32LittleEndian(46))
        }
        guard width >= 0 else { throw file.damaged("a width of \(width)") }
        guard let known = Compression(rawValue: code), !(headerBytes == 64 && known == .bitFields) else {
            throw file.unsupported("compression \(code); none, RLE8, RLE4 and bit fields are read")
        }
        compression = known
        let depths: [Int] =
            switch known {
            case .none: [1, 4, 8, 16, 24, 32]
            case .runLengths8: [8]
            case .runLengths4: [4]
            case .bitFields: [16, 24, 32]
            }
        guard depths.contains(bitsPerPixel) else {
            throw file.damaged("\(bitsPerPixel) bits a pixel, expected one of \(depths) for compression \(code)")
        }
        paletteOffset = 14 + headerBytes
        paletteEntryBytes = headerBytes == 12 ? 3 : 4
        let largest = bitsPerPixel <= 8 ? 1 << bitsPerPixel : 0
        let wanted = usedColours == 0 ? largest : min(usedColours, largest)
        // Some writers leave no room for all colours before the pixels, or do not say where the pixels start.
        let room = start > paletteOffset ? (start - paletteOffset) / paletteEntryBytes : wanted
        paletteCount = min(wanted, room)
        pixelOffset = start > paletteOffset ? start : paletteOffset + wanted * paletteEntryBytes
    }

    /// 256 colours as RGB; those that the file does not define are black.
    func colours(_ file: EncodedImage) -> [UInt8] {
        var colours = [UInt8](repeating: 0, count: 768)
        for index in 0..<paletteCount {
            guard let entry = file.reader.range(paletteOffset + index * paletteEntryBytes, 3) else { break }
            for channel in 0..<3 { colours[index * 3 + channel] = file.bytes[entry.upperBound - 1 - channel] }
        }
        return colours
    }

    /// The bits of a pixel that hold one channel.
    struct Field {
        let shift: Int
        let largest: Int

        func byte(of pixel: Int) -> UInt8 { UInt8(truncatingIfNeeded: (pixel >> shift & largest) * 255 / largest) }
    }

    /// Red, green, blue.
    func fields(_ file: EncodedImage) throws -> [Field] {
        let eightBits = [Field(shift: 16, largest: 255), Field(shift: 8, largest: 255), Field(shift: 0, largest: 255)]
        guard compression == .bitFields else {
            let fiveBits = [Field(shift: 10, largest: 31), Field(shift: 5, largest: 31), Field(shift: 0, largest: 31)]
            return bitsPerPixel == 16 ? fiveBits : eightBits
        }
        // The masks follow a 40-byte header, or are inside a longer one: the same offset.
        let masks = try [54, 58, 62].map { offset in
            guard let mask = file.reader.u32LittleEndian(offset) else { throw file.truncated("the data end inside the colour masks") }
            return mask
        }
        if masks == [0, 0, 0], bitsPerPixel != 16 { return eightBits }
        return try masks.map { mask in
            let shift = mask.trailingZeroBitCount
            let largest = mask == 0 ? 0 : mask >> shift
            guard largest > 0, largest & (largest + 1) == 0, mask < 1 << bitsPerPixel else {
                throw file.damaged("the colour masks \(masks.map { String($0, radix: 16) }) are not runs of bits within a pixel")
            }
            return Field(shift: shift, largest: largest)
        }
    }
}
