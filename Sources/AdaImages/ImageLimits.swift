/// Limits on the size of images, checked against the header before memory for pixels is allocated.
public struct ImageLimits: Sendable, Equatable {
    /// Pixels in all: width times height.
    public let maxPixels: Int
    /// Pixels along one side.
    public let maxSide: Int
    /// Pixels of all images of a request together. Images are held one at a time, so this bounds decoding time.
    public let maxRequestPixels: Int

    /// 100 megapixels and 65,535 pixels per side: more than cameras produce, and at most 300 MB of RGB. A request may have ten such images,
    /// or eighty photos of a phone.
    public static let standard = ImageLimits(maxPixels: 100_000_000, maxSide: 65_535)

    /// Values are clamped between 1 and the maximum of `RGBImage` (1,048,576 per side).
    /// - Parameters:
    ///   - maxPixels: pixels of an image.
    ///   - maxSide: pixels of one side.
    ///   - maxRequestPixels: pixels of all images of a request; `nil` takes ten times `maxPixels`.
    public init(maxPixels: Int, maxSide: Int, maxRequestPixels: Int? = nil) {
        self.maxPixels = min(max(1, maxPixels), 1 << 40)
        self.maxSide = min(max(1, maxSide), 1 << 20)
        self.maxRequestPixels = min(max(1, maxRequestPixels ?? 10 * self.maxPixels), 1 << 50)
    }

    /// Maximum bytes of a file: four per pixel (uncompressed BMP) and a megabyte for everything else.
    var maxFileBytes: Int { maxPixels * 4 + (1 << 20) }

    /// - Throws: ``ImageError/zeroSize(name:format:width:height:)``, ``ImageError/tooLarge(name:format:width:height:limits:)``
    func check(width: Int, height: Int, format: ImageFormat, name: String) throws {
        guard width > 0, height > 0 else {
            throw ImageError.zeroSize(name: name, format: format, width: width, height: height)
        }
        let (pixels, overflow) = width.multipliedReportingOverflow(by: height)
        guard width <= maxSide, height <= maxSide, !overflow, pixels <= maxPixels else {
            throw ImageError.tooLarge(name: name, format: format, width: width, height: height, limits: self)
        }
    }
}
