import CImageShims

/// JPEG (ITU-T T.81) through libjpeg-turbo: accurate integer DCT and smooth chroma upsampling, as Pillow decodes.
enum JPEGFile {
    static func decode(_ file: EncodedImage) throws -> DecodedImage {
        let header = try readHeader(file)
        try file.checkSize(width: header.width, height: header.height)
        let pixels = try CodecCall.pixels(of: file, width: header.width, height: header.height, cis_jpeg_decode)
        return DecodedImage(width: header.width, height: header.height, pixels: pixels, orientation: header.orientation)
    }

    /// Walks the marker segments up to the frame header, which holds the size.
    private static func readHeader(_ file: EncodedImage) throws -> (width: Int, height: Int, orientation: ExifOrientation) {
        let reader = file.reader
        var orientation: ExifOrientation?
        var offset = 2
        while let byte = reader.u8(offset) {
            guard byte == 0xFF, let marker = reader.u8(offset + 1), marker != 0xFF, marker != 0 else {
                offset += 1
                continue
            }
            offset += 2
            if marker == 0x01 || (0xD0...0xD8).contains(marker) { continue }
            guard marker != 0xD9, marker != 0xDA else { throw file.damaged("no frame header before the first scan") }
            guard let length = reader.u16BigEndian(offset) else { break }
            guard length >= 2 else { throw file.damaged("a marker segment with a length of \(length)") }
            let isFrameHeader = (0xC0...0xCF).contains(marker) && ![0xC4, 0xC8, 0xCC].contains(marker)
            if isFrameHeader {
                guard let height = reader.u16BigEndian(offset + 3), let width = reader.u16BigEndian(offset + 5) else { break }
                return (width, height, orientation ?? .upright)
            }
            if marker == 0xE1, orientation == nil, let body = reader.range(offset + 2, length - 2),
                file.bytes[body].starts(with: ExifOrientation.prefix)
            {
                orientation = ExifOrientation(exif: file.bytes[body])
            }
            offset += length
        }
        throw file.truncated("the data end before the frame header")
    }
}
