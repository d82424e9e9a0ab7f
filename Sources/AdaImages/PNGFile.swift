import CImageShims

/// PNG (ISO/IEC 15948) through libpng. Of 16-bit samples the high byte is kept, grayscale included.
enum PNGFile {
    static func decode(_ file: EncodedImage) throws -> DecodedImage {
        let (width, height) = try size(file)
        try file.checkSize(width: width, height: height)
        let pixels = try CodecCall.pixels(of: file, width: width, height: height, cis_png_decode)
        return DecodedImage(width: width, height: height, pixels: pixels, orientation: PNGMetadata(file).orientation)
    }

    static func size(_ file: EncodedImage) throws -> (width: Int, height: Int) {
        guard let width = file.reader.u32BigEndian(16), let height = file.reader.u32BigEndian(20) else {
            throw file.truncated("the data end inside the header")
        }
        guard file.reader.matches("IHDR", at: 12) else { throw file.damaged("the first chunk is not IHDR") }
        return (width, height)
    }
}
