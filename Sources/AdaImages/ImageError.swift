import AdaLLaVA

/// Why an image could not be read or written. `name` is the caller's argument: a path, `standard input`, `data: URL`.
package enum ImageError: AdaLLaVAError, Equatable {
    /// There is no file at this path.
    case missing(name: String)
    /// A folder, a device that cannot be opened, a file without read permission.
    case unreadable(name: String, reason: String)
    /// An argument that is neither a path, `-`, nor a supported `data:` or `file:` URL.
    case argument(name: String, reason: String)
    /// The file has no bytes.
    case empty(name: String)
    /// More bytes than any image within the pixel limit needs.
    case tooManyBytes(name: String, limit: Int)
    /// The first bytes match none of the formats that are read.
    case unknownFormat(name: String, found: String)
    /// A known format in a variant that is not read.
    case unsupported(name: String, format: ImageFormat, what: String)
    /// The header announces more pixels, or a longer side, than the limits allow. Nothing was allocated or decoded.
    case tooLarge(name: String, format: ImageFormat, width: Int, height: Int, limits: ImageLimits)
    /// The images of a request have too many pixels together.
    case requestTooLarge(images: Int, pixels: Int, limit: Int)
    /// The header announces an image without pixels.
    case zeroSize(name: String, format: ImageFormat, width: Int, height: Int)
    /// The data end before the image is complete.
    case truncated(name: String, format: ImageFormat, reason: String)
    /// The data violate the format.
    case damaged(name: String, format: ImageFormat, reason: String)
    /// The data violate the format or end too soon, but Pillow reads the image, as does `ImageTolerance.asPillow`.
    case readable(ImageDamage)
    /// The system has no memory for an image within the limits.
    case outOfMemory(name: String, format: ImageFormat, bytes: Int)
    /// An image could not be encoded.
    case encoding(format: ImageFormat, reason: String)

    package var category: ErrorCategory {
        switch self {
        case .missing: .missingInput
        case .unreadable, .outOfMemory: .inputOutput
        case .argument: .usage
        case .encoding: .software
        default: .badData
        }
    }

    package var description: String {
        switch self {
        case .missing(let name):
            "\(name): no such file (expected an image file, `-` for standard input, a file: or a data: URL)"
        case .unreadable(let name, let reason):
            "\(name): cannot be read as an image: \(reason)"
        case .argument(let name, let reason):
            "\(name): \(reason)"
        case .empty(let name):
            "\(name): expected an image, found no data at all"
        case .tooManyBytes(let name, let limit):
            "\(name): more than \(limit) bytes, the most that an image within the pixel limit can need"
        case .unknownFormat(let name, let found):
            "\(name): expected a JPEG, PNG, WebP, GIF or BMP image, found data that \(found)"
        case .unsupported(let name, let format, let what):
            "\(name): this kind of \(format) image is not supported: \(what)"
        case .tooLarge(let name, let format, let width, let height, let limits):
            "\(name): the \(format) header says \(width) x \(height) pixels; the limit is \(limits.maxPixels) pixels and "
                + "\(limits.maxSide) a side; make the image smaller first"
        case .requestTooLarge(let images, let pixels, let limit):
            "\(images) images with \(pixels) pixels together; the limit for one request is \(limit); make the images smaller first, or give fewer"
        case .zeroSize(let name, let format, let width, let height):
            "\(name): the \(format) header says \(width) x \(height) pixels; both sides must be at least 1"
        case .truncated(let name, let format, let reason):
            "\(name): the \(format) image is cut off: \(reason)"
        case .damaged(let name, let format, let reason):
            "\(name): the \(format) image is damaged: \(reason)"
        case .readable(let damage):
            "\(damage.name): the \(damage.format) image is damaged: \(damage.reason); --lenient reads it all the same, as Pillow does"
        case .outOfMemory(let name, let format, let bytes):
            "\(name): not enough memory to decode the \(format) image, which needs about \(bytes) bytes; make it smaller first, or raise the limit of address space (ulimit -v)"
        case .encoding(let format, let reason):
            "cannot write a \(format) image: \(reason)"
        }
    }
}
