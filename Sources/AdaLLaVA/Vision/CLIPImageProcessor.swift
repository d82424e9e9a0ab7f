/// CLIP's image preprocessing as Hugging Face's `CLIPImageProcessor` does it, with LLaVA's padding to a square before it; SigLIP's where it keeps no
/// proportions.
///
/// Resize (as Pillow does) so that the shorter side is ``shortestEdge``, or both are, cut a centred square of ``cropSize`` (missing pixels are
/// zero bytes), then `(byte * rescaleFactor - mean) / std` per channel.
package struct CLIPImageProcessor: Sendable, Equatable {
    /// Treatment of images that are not square: LLaVA's `image_aspect_ratio`.
    package enum AspectMode: String, Sendable, CaseIterable {
        /// Squared with the mean colour first, so that nothing is lost (`expand2square`, LLaVA-1.5's way).
        case pad
        /// The sides that stick out are cut off (LLaVA-1.0's way, and plain CLIP's).
        case crop
    }

    /// Side of the square that the vision tower takes, in pixels.
    package let cropSize: Int
    /// Length of the shorter side after resizing, in pixels.
    package let shortestEdge: Int
    /// Whether the longer side is resized to the same length, for any proportions (SigLIP).
    package let ignoresProportions: Bool
    /// The filter that resizes.
    package let filter: ResampleFilter
    /// Per channel, red first, on the scale of rescaled bytes, usually 0 to 1.
    package let mean: [Double]
    /// Divisor of each channel, red first.
    package let standardDeviation: [Double]
    /// Factor of each byte, usually 1/255.
    package let rescaleFactor: Double
    /// `[3][256]`: the value of every byte in every channel.
    private let values: [Float]

    /// The value of a byte in a channel.
    func value(channel: Int, byte: UInt8) -> Float { values[channel << 8 | Int(byte)] }

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)`` for a value that no tower can use.
    /// - Parameters:
    ///   - fusesRescaling: whether bytes are normalized as processors on torchvision do.
    ///   - file: where the settings come from, for messages.
    package init(
        cropSize: Int, shortestEdge: Int, mean: [Double], standardDeviation: [Double], rescaleFactor: Double = 1.0 / 255,
        ignoresProportions: Bool = false, filter: ResampleFilter = .bicubic, fusesRescaling: Bool = false, file: String = "preprocessor_config.json"
    ) throws {
        func check(_ isRight: Bool, _ field: String, _ expected: String, _ found: Any) throws {
            guard isRight else {
                throw CheckpointError.configuration(field: field, expected: expected, found: "\(found)", file: file)
            }
        }
        try check((1...Self.largestSide).contains(cropSize), "crop_size", "1 to \(Self.largestSide) pixels", cropSize)
        try check((1...Self.largestSide).contains(shortestEdge), "size.shortest_edge", "1 to \(Self.largestSide) pixels", shortestEdge)
        try check(mean.count == 3 && mean.allSatisfy(\.isFinite), "image_mean", "three numbers", mean)
        let areDivisors = standardDeviation.allSatisfy { $0.isFinite && Float($0) != 0 }
        try check(standardDeviation.count == 3 && areDivisors, "image_std", "three numbers other than 0", standardDeviation)
        try check(rescaleFactor.isFinite && abs(rescaleFactor) >= 1e-12, "rescale_factor", "a number other than 0", rescaleFactor)
        self.cropSize = cropSize
        self.shortestEdge = shortestEdge
        (self.ignoresProportions, self.filter) = (ignoresProportions, filter)
        self.mean = mean
        self.standardDeviation = standardDeviation
        self.rescaleFactor = rescaleFactor
        // Rescaled in double precision, stored as single, then normalized in single: the order that gives the reference's bits. Processors on torchvision
        // rescale mean and deviation instead, in single precision.
        values = (0..<3).flatMap { channel in
            let (mean, deviation, inverse) = (Float(mean[channel]), Float(standardDeviation[channel]), Float(1 / rescaleFactor))
            return (0..<256).map {
                fusesRescaling ? (Float($0) - mean * inverse) / (deviation * inverse) : (Float(Double($0) * rescaleFactor) - mean) / deviation
            }
        }
    }

    /// Far above any tower's input; keeps a damaged configuration from asking for gigabytes.
    private static let largestSide = 8192

    /// The colour that ``AspectMode/pad`` fills with: the mean in bytes, rounded down.
    package var paddingColour: [UInt8] {
        // Means are in the unit of rescaled bytes, usually 1 for 255.
        mean.map { UInt8(min(max($0 * (1 / rescaleFactor), 0), 255)) }
    }

    /// The vision tower's input for one image.
    /// - Returns: `pixel_values`, `[3, cropSize, cropSize]`, row-major.
    package func callAsFunction(_ image: RGBImage, mode: AspectMode) -> [Float] {
        values(of: croppedPixels(image, mode: mode))
    }

    /// The vision tower's input for pixels that are resized and cut already.
    /// - Parameter pixels: result of ``croppedPixels(_:mode:)``.
    /// - Returns: `pixel_values`, `[3, cropSize, cropSize]`, row-major.
    func values(of pixels: [UInt8]) -> [Float] {
        let area = cropSize * cropSize
        return [Float](unsafeUninitializedCapacity: area * 3) { target, count in
            pixels.withUnsafeBufferPointer { pixels in
                values.withUnsafeBufferPointer { values in
                    for position in 0..<area {
                        for channel in 0..<3 {
                            target[channel * area + position] = values[channel << 8 | Int(pixels[position * 3 + channel])]
                        }
                    }
                }
            }
            count = area * 3
        }
    }

    /// The image resized and cut to the square, before normalization.
    /// - Returns: `cropSize * cropSize * 3` bytes.
    package func croppedPixels(_ image: RGBImage, mode: AspectMode) -> [UInt8] {
        let isPadded = mode == .pad && image.width != image.height
        let canvas = isPadded ? ImageResize.Canvas(squaring: image, fill: paddingColour) : ImageResize.Canvas(image)
        let size = resizedSize(width: canvas.width, height: canvas.height)
        let horizontal = CenteredWindow(size: size.width, cropSize: cropSize)
        let vertical = CenteredWindow(size: size.height, cropSize: cropSize)
        let resized = ImageResize.resize(canvas, to: size, columns: horizontal.kept, rows: vertical.kept, filter: filter)
        guard horizontal.kept.count < cropSize || vertical.kept.count < cropSize else { return resized }
        var pixels = [UInt8](repeating: 0, count: cropSize * cropSize * 3)
        let rowBytes = horizontal.kept.count * 3
        for row in 0..<vertical.kept.count {
            let start = ((vertical.margin + row) * cropSize + horizontal.margin) * 3
            pixels.replaceSubrange(start..<start + rowBytes, with: resized[row * rowBytes..<(row + 1) * rowBytes])
        }
        return pixels
    }

    /// The shorter side becomes ``shortestEdge``, the longer one keeps the proportion, rounded down.
    func resizedSize(width: Int, height: Int) -> (width: Int, height: Int) {
        if ignoresProportions { return (shortestEdge, shortestEdge) }
        let longerSide = Int(Double(shortestEdge * max(width, height)) / Double(min(width, height)))
        return width <= height ? (shortestEdge, longerSide) : (longerSide, shortestEdge)
    }

    /// One axis of the centre crop.
    private struct CenteredWindow {
        /// The positions of the resized image that stay.
        let kept: Range<Int>
        /// Zero bytes before them, where the resized image is smaller than the crop.
        let margin: Int

        init(size: Int, cropSize: Int) {
            if size >= cropSize {
                let start = (size - cropSize) / 2
                (kept, margin) = (start..<start + cropSize, 0)
            } else {
                (kept, margin) = (0..<size, (cropSize - size + 1) / 2)
            }
        }
    }
}
