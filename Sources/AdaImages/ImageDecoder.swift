import AdaLLaVA
import Foundation

/// Treatment of images whose data are damaged.
package enum ImageTolerance: Sendable {
    /// Any damage to pixels is an error.
    case strict
    /// Damaged images that Pillow reads are read in the same way: a JPEG with broken data in the middle, a PNG with a wrong CRC or without
    /// its end. A truncated picture is an error.
    case asPillow
}

/// Damage of a file that Pillow reads nevertheless.
package struct ImageDamage: Sendable, Hashable, CustomStringConvertible {
    /// The image's name in messages.
    package let name: String
    /// The format of the file.
    package let format: ImageFormat
    /// The damage.
    package let reason: String

    package var description: String { "\(name): the \(format) image is damaged: \(reason); it is read as Pillow reads it" }
}

/// An image, and the damage of its file.
package struct ReadImage: Sendable {
    package let image: RGBImage
    /// Why a strict reader refuses the file; `nil` for a sound one.
    package let damage: ImageDamage?
}

/// Turns the bytes of an image file into upright 8-bit RGB.
///
/// JPEG, PNG, WebP, GIF (its first frame) and BMP are read; the format follows from the first bytes. Alpha is dropped without
/// blending and colour profiles are not applied, as Pillow's `convert("RGB")` does, so a model sees the pixels it was trained on.
/// Orientation is honoured wherever Pillow's `exif_transpose` finds it. A truncated or damaged image is an error, never a partly grey picture,
/// unless the caller requests Pillow's reading of it.
package enum ImageDecoder {
    /// - Parameters:
    ///   - bytes: the whole file.
    ///   - name: the image's name in messages.
    ///   - limits: checked against the size in the header before anything is decoded.
    /// - Throws: ``ImageError``
    package static func decode(_ bytes: [UInt8], name: String = "image", limits: ImageLimits = .standard) throws -> RGBImage {
        try decode(bytes, name: name, limits: limits, tolerance: .strict).image
    }

    /// The same for Foundation's `Data`.
    package static func decode(_ data: Data, name: String = "image", limits: ImageLimits = .standard) throws -> RGBImage {
        try decode([UInt8](data), name: name, limits: limits)
    }

    /// Decodes an image and reports damage of its file.
    /// - Throws: ``ImageError``
    package static func decode(
        _ bytes: [UInt8], name: String, limits: ImageLimits = .standard, tolerance: ImageTolerance
    ) throws -> ReadImage {
        guard !bytes.isEmpty else { throw ImageError.empty(name: name) }
        guard bytes.count <= limits.maxFileBytes else { throw ImageError.tooManyBytes(name: name, limit: limits.maxFileBytes) }
        guard let format = ImageFormat(signatureOf: bytes) else {
            throw ImageError.unknownFormat(name: name, found: ImageFormat.describeUnknown(bytes))
        }
        var file = EncodedImage(bytes: bytes, format: format, name: name, limits: limits)
        do {
            return ReadImage(image: try decode(file), damage: nil)
        } catch let error as ImageError {
            guard let damage = error.damage else { throw error }
            // In strict mode the error still says whether Pillow would read the file.
            file.tolerance = .asPillow
            guard let image = try? decode(file) else { throw error }
            if tolerance == .strict { throw ImageError.readable(damage) }
            return ReadImage(image: image, damage: damage)
        }
    }

    private static func decode(_ file: EncodedImage) throws -> RGBImage {
        let decoded: DecodedImage =
            switch file.format {
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
}

extension ImageError {
    /// Damage after which Pillow's readers may continue; only its JPEG and PNG readers do.
    fileprivate var damage: ImageDamage? {
        switch self {
        case .damaged(let name, let format, let reason) where [.jpeg, .png].contains(format),
            .truncated(let name, let format, let reason) where [.jpeg, .png].contains(format):
            ImageDamage(name: name, format: format, reason: reason)
        default: nil
        }
    }
}

extension RGBImage {
    /// Reads and decodes the image file at `path`, as ``init(decoding:limits:)`` does.
    /// - Throws: an error that says why the file cannot be read or decoded.
    public init(contentsOf path: String, limits: ImageLimits = .standard) throws {
        try self.init(ImageSource.file(path), limits: limits)
    }

    /// Decodes the bytes of an image file: JPEG, PNG, WebP, GIF (its first frame) or BMP, told apart by their first bytes. Alpha is dropped without
    /// blending, colour profiles are ignored, and Exif orientation is applied.
    /// - Throws: an error that says how the image is damaged, unsupported or beyond `limits`.
    public init(decoding data: Data, limits: ImageLimits = .standard) throws {
        self = try ImageDecoder.decode(data, limits: limits)
    }

    /// Reads and decodes a file, standard input or a `data:` URL.
    /// - Throws: ``ImageError``
    package init(_ source: ImageSource, limits: ImageLimits = .standard) throws {
        self = try source.image(limits: limits, tolerance: .strict).image
    }
}

extension ImageSource {
    /// Reads and decodes it.
    /// - Throws: ``ImageError``
    package func image(limits: ImageLimits = .standard, tolerance: ImageTolerance) throws -> ReadImage {
        try ImageDecoder.decode(read(limits: limits), name: name, limits: limits, tolerance: tolerance)
    }
}

/// A file's bytes, with the name and format that errors report.
struct EncodedImage {
    let bytes: [UInt8]
    let format: ImageFormat
    let name: String
    let limits: ImageLimits
    var tolerance = ImageTolerance.strict

    var reader: ByteReader { ByteReader(bytes: bytes) }

    func damaged(_ reason: String) -> ImageError { .damaged(name: name, format: format, reason: reason) }
    func truncated(_ reason: String) -> ImageError { .truncated(name: name, format: format, reason: reason) }
    func unsupported(_ what: String) -> ImageError { .unsupported(name: name, format: format, what: what) }

    /// The picture's size according to the header; the bytes may be only the beginning of the file.
    /// - Throws: ``ImageError``; `truncated` if the header continues after the bytes.
    func announcedSize() throws -> (width: Int, height: Int) {
        switch format {
        case .jpeg: try JPEGFile.size(self)
        case .png: try PNGFile.size(self)
        case .webp: try WebPFile.size(self)
        case .gif: try GIFFile.size(self)
        case .bmp: try BMPFile.size(self)
        }
    }

    /// - Throws: ``ImageError`` for a picture beyond the limits, or if the system has no memory for it.
    func checkSize(width: Int, height: Int) throws {
        try limits.check(width: width, height: height, format: format, name: name)
        let needed = MemoryProbe.bytes(width: width, height: height)
        guard MemoryProbe.isAvailable(needed) else { throw ImageError.outOfMemory(name: name, format: format, bytes: needed) }
    }
}

/// Pixels in the file's order, `height * width * 3` bytes, before they are turned upright.
struct DecodedImage {
    let width: Int
    let height: Int
    let pixels: [UInt8]
    var orientation: ExifOrientation = .upright
}
