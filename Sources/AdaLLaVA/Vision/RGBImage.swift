/// An image as the engine takes it: 8-bit RGB, row-major, no padding. `AdaImages` makes one from a file; an app can bring its own.
public struct RGBImage: Sendable, Equatable {
    /// Pixels from left to right.
    public let width: Int
    /// Pixels from top to bottom.
    public let height: Int
    /// `height * width * 3` bytes, red first.
    public let pixels: [UInt8]

    /// - Precondition checked with an optional: `nil` unless both sides are positive and `pixels` holds `width * height * 3` bytes.
    public init?(width: Int, height: Int, pixels: [UInt8]) {
        guard width > 0, height > 0, width <= 1 << 20, height <= 1 << 20, pixels.count == width * height * 3 else { return nil }
        (self.width, self.height, self.pixels) = (width, height, pixels)
    }
}
