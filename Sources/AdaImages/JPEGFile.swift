import CImageShims

/// JPEG (ITU-T T.81) through libjpeg-turbo: accurate integer DCT and smooth chroma upsampling, as Pillow decodes.
enum JPEGFile {
    static func decode(_ file: EncodedImage) throws -> DecodedImage {
        let header = try readHeader(file)
        try file.checkSize(width: header.width, height: header.height)
        let pixels = try CodecCall.pixels(of: file, width: header.width, height: header.height, cis_jpeg_decode)
        return DecodedImage(width: header.width, height: header.height, pixels: pixels, orientation: header.orientation)
    }

    static func size(_ file: EncodedImage) throws -> (width: Int, height: Int) {
        let header = try readHeader(file)
        return (header.width, header.height)
    }

    private static let xmpPrefix = Array("http://ns.adobe.com/xap/1.0/\0".utf8)

    /// Walks the marker segments up to the first scan: the frame header has the size, and EXIF and XMP may be before or after it.
    private static func readHeader(_ file: EncodedImage) throws -> (width: Int, height: Int, orientation: ExifOrientation) {
        let reader = file.reader
        var metadata = OrientationMetadata()
        var size: (width: Int, height: Int)?
        var offset = 2
        while let byte = reader.u8(offset) {
            guard byte == 0xFF, let marker = reader.u8(offset + 1), marker != 0xFF, marker != 0 else {
                offset += 1
                continue
            }
            offset += 2
            if marker == 0x01 || (0xD0...0xD8).contains(marker) { continue }
            if marker == 0xD9 || marker == 0xDA {
                guard size != nil else { throw file.damaged("no frame header before the first scan") }
                break
            }
            guard let length = reader.u16BigEndian(offset) else { break }
            guard length >= 2 else { throw file.damaged("a marker segment with a length of \(length)") }
            let isFrameHeader = (0xC0...0xCF).contains(marker) && ![0xC4, 0xC8, 0xCC].contains(marker)
            if isFrameHeader, size == nil {
                guard let height = reader.u16BigEndian(offset + 3), let width = reader.u16BigEndian(offset + 5) else { break }
                size = (width, height)
            }
            if marker == 0xE1, let body = reader.range(offset + 2, length - 2) { keep(file.bytes[body], in: &metadata) }
            offset += length
        }
        guard let size else { throw file.truncated("the data end before the frame header") }
        return (size.width, size.height, metadata.orientation)
    }

    /// EXIF that is too long for one segment continues in the next; of several XMP packets the last counts.
    private static func keep(_ segment: ArraySlice<UInt8>, in metadata: inout OrientationMetadata) {
        if segment.starts(with: OrientationMetadata.exifPrefix) {
            metadata.exif = (metadata.exif ?? []) + segment.dropFirst(OrientationMetadata.exifPrefix.count)
        } else if segment.starts(with: xmpPrefix) {
            metadata.xmp = Array(segment.dropFirst(xmpPrefix.count))
        }
    }
}
