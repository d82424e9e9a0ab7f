import AdaLLaVA
import Foundation

/// Turns the bytes of an image file into upright 8-bit RGB.
///
/// JPEG, PNG, WebP, GIF (its first frame) and BMP are read; the format follows from the first bytes. Alpha is dropped without
/// blending and colour profiles are not applied, as Pillow's `convert("RGB")` does, so a model sees the pixels it was trained on.
/// EXIF orientation is honoured. An image that is cut off or damaged is an error, never a partly grey picture.
public enum ImageDecoder {
    /// - Parameters:
    ///   - bytes: the whole file.
    ///   - name: what messages call it.
    ///   - limits: checked against the size in the header before anything is decoded.
    /// - Throws: ``ImageError``
    public static func decode(_ bytes: [UInt8], name: String = "image", limits: ImageLimits = .standard) throws -> RGBImage {
        guard !bytes.isEmpty else { throw ImageError.empty(name: name) }
        guard bytes.count <= limits.maxFileBytes else { throw ImageError.tooManyBytes(name: name, limit: limits.maxFileBytes) }
        guard let format = ImageFormat(signatureOf: bytes) else {
            throw ImageError.unknownFormat(name: name, found: ImageFormat.describeUnknown(bytes))
        }
        let file = EncodedImage(bytes: bytes, format: format, name: name, limits: limits)
        let decoded: DecodedImage =
            switch format {
            case .jpeg: try JPEGFile.decode(file)
            case .png: try PNGFile.decode(file)
            case .webp: try WebPFile.decode(file)
            case .gif: try GIFFile.decode(file)
            case .bmp: try BMPFile.decode(file)
            }
        let upright = decoded.orientation.upright(decoded.pixels, width: decoded.width, height: decoded.height)
        guard let image = RGBImage(width: upright.width, height: upright.height, pixels: upright.pixels) else {
            throw file.damaged("\(upright.width) x \(upright.height) pixels do not match \(upright.pixels.count) bytes")
        }
        return image
    }

    /// The same for Foundation's `Data`.
    public static func decode(_ data: Data, name: String = "image", limits: ImageLimits = .standard) throws -> RGBImage {
        try decode([UInt8](data), name: name, limits: limits)
    }
}

extension RGBImage {
    /// Reads and decodes the image file at `path`.
    /// - Throws: ``ImageError``
    public init(contentsOf path: String, limits: ImageLimits = .standard) throws {
        try self.init(ImageSource.file(path), limits: limits)
    }

    /// Reads and decodes a file, standard input or a `data:` URL.
    /// - Throws: ``ImageError``
    public init(_ source: ImageSource, limits: ImageLimits = .standard) throws {
        self = try ImageDecoder.decode(source.read(limits: limits), name: source.name, limits: limits)
    }
}

/// A file's bytes with what is needed to report a problem in them.
struct EncodedImage {
    let bytes: [UInt8]
    let format: ImageFormat
    let name: String
    let limits: ImageLimits

    var reader: ByteReader { ByteReader(bytes: bytes) }

    func damaged(_ reason: String) -> ImageError { .damaged(name: name, format: format, reason: reason) }
    func truncated(_ reason: String) -> ImageError { .truncated(name: name, format: format, reason: reason) }
    func unsupported(_ what: String) -> ImageError { .unsupported(name: name, format: format, what: what) }

    func checkSize(width: Int, height: Int) throws {
        try limits.check(width: width, height: height, format: format, name: name)
    }
}

/// Pixels as the file stores them: `height * width * 3` bytes, not yet turned upright.
struct DecodedImage {
    let width: Int
    let height: Int
    let pixels: [UInt8]
    var orientation: ExifOrientation = .upright
}
