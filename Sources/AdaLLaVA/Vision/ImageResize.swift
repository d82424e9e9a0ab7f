/// Antialiased resizing of 8-bit RGB, equal to Pillow's `Image.resize(size, filter)` byte for byte, or to torchvision's of tensors of bytes.
///
/// Two passes, each rounded to 8 bits, with fixed-point weights; which one comes first is as in Pillow 13 (before, rows always did). When shrinking, the filter widens with the scale, so
/// every input pixel counts. Cost with the bicubic filter: about `4 * height * width` multiply-adds per channel for the first pass, which dominates;
/// of a canvas the image's height and width count.
package enum ImageResize {
    /// - Parameters:
    ///   - width: of the result, at least 1.
    ///   - height: of the result, at least 1.
    /// - Returns: the resized image; `nil` for a side below 1 or above 1,048,576.
    package static func resize(_ image: RGBImage, width: Int, height: Int, filter: ResampleFilter = .bicubic, arithmetic: ResampleArithmetic = .pillow) -> RGBImage? {
        guard (1...1 << 20).contains(width), (1...1 << 20).contains(height) else { return nil }
        let canvas = Canvas(image)
        let pixels = resize(canvas, to: (width, height), columns: 0..<width, rows: 0..<height, filter: filter, arithmetic: arithmetic)
        return RGBImage(width: width, height: height, pixels: pixels)
    }

    /// An image laid on a larger area of one colour, without a copy of it.
    struct Canvas {
        let image: RGBImage
        let width: Int
        let height: Int
        let left: Int
        let top: Int
        /// Red, green, blue.
        let fill: [UInt8]

        init(_ image: RGBImage) {
            self.image = image
            (width, height, left, top, fill) = (image.width, image.height, 0, 0, [0, 0, 0])
        }

        /// A square of the longer side, the image in its middle (one pixel up or left of it for an odd difference).
        init(squaring image: RGBImage, fill: [UInt8]) {
            self.image = image
            self.fill = fill
            (width, height) = (max(image.width, image.height), max(image.width, image.height))
            (left, top) = ((width - image.width) / 2, (height - image.height) / 2)
        }
    }

    /// The part `columns` x `rows` of `canvas` resized to `size`; the rest is not computed.
    /// - Returns: `rows.count * columns.count * 3` bytes.
    static func resize(
        _ canvas: Canvas, to size: (width: Int, height: Int), columns: Range<Int>, rows: Range<Int>, filter: ResampleFilter,
        arithmetic: ResampleArithmetic = .pillow
    ) -> [UInt8] {
        guard !columns.isEmpty, !rows.isEmpty else { return [] }
        let horizontal = ResampleAxis(
            inputSize: canvas.width, outputSize: size.width, window: columns, image: canvas.left..<canvas.left + canvas.image.width, filter: filter,
            arithmetic: arithmetic)
        let vertical = ResampleAxis(
            inputSize: canvas.height, outputSize: size.height, window: rows, image: canvas.top..<canvas.top + canvas.image.height, filter: filter,
            arithmetic: arithmetic)
        if arithmetic == .pillow, columnsComeFirst(canvas, size) {
            let (image, none) = (canvas.image, [UInt8](repeating: 0, count: canvas.image.width * 3))
            let flattened = flatten(image.pixels, from: 0, outside: none, axis: vertical)
            guard let flat = RGBImage(width: image.width, height: vertical.outputCount, pixels: flattened) else { return [] }
            return narrow(Canvas(flat), rows: 0..<flat.height, axis: horizontal)
        }
        let outside = horizontal.total.flatMap { weight in canvas.fill.map { byte(weight &* Int32($0)) } }
        let narrowed = narrow(canvas, rows: vertical.inputRange, axis: horizontal)
        return flatten(narrowed, from: vertical.inputRange.lowerBound, outside: outside, axis: vertical)
    }

    /// Whether Pillow 13 resizes columns before rows, which rounds otherwise: the height shrinks, and by more than twice the factor of the width.
    /// A square canvas, the only one with margins, never does.
    private static func columnsComeFirst(_ canvas: Canvas, _ size: (width: Int, height: Int)) -> Bool {
        let isWhole = canvas.image.width == canvas.width && canvas.image.height == canvas.height
        return isWhole && size.height < canvas.height && canvas.height - size.height > 2 * (canvas.width - size.width)
    }

    /// The pass along rows: every image row in `rows`, counted on the canvas, becomes `axis.outputCount` pixels.
    private static func narrow(_ canvas: Canvas, rows: Range<Int>, axis: ResampleAxis) -> [UInt8] {
        let rowBytes = axis.outputCount * 3
        let columns = axis.inputRange
        let planeCount = columns.count + axis.stride
        var planes = [Int16](repeating: 0, count: planeCount * 3)
        let image = canvas.image
        let outside = axis.outside.flatMap { weight in canvas.fill.map { weight &* Int32($0) } }
        return [UInt8](unsafeUninitializedCapacity: rows.count * rowBytes) { target, count in
            planes.withUnsafeMutableBufferPointer { planes in
                image.pixels.withUnsafeBufferPointer { pixels in
                    for row in rows {
                        let source = ((row - canvas.top) * image.width + columns.lowerBound - canvas.left) * 3
                        separate(UnsafeBufferPointer(rebasing: pixels[source..<source + columns.count * 3]), into: planes, planeCount: planeCount)
                        let start = (row - rows.lowerBound) * rowBytes
                        narrowRow(
                            planes, planeCount: planeCount, axis: axis, outside: outside,
                            into: UnsafeMutableBufferPointer(rebasing: target[start..<start + rowBytes]))
                    }
                }
            }
            count = rows.count * rowBytes
        }
    }

    /// Interleaved bytes to three planes of 16-bit values.
    private static func separate(
        _ pixels: UnsafeBufferPointer<UInt8>, into planes: UnsafeMutableBufferPointer<Int16>, planeCount: Int
    ) {
        guard let source = pixels.baseAddress, let red = planes.baseAddress else { return }
        let (green, blue) = (red + planeCount, red + 2 * planeCount)
        for column in 0..<pixels.count / 3 {
            red[column] = Int16(source[column * 3])
            green[column] = Int16(source[column * 3 + 1])
            blue[column] = Int16(source[column * 3 + 2])
        }
    }

    private static func narrowRow(
        _ planes: UnsafeMutableBufferPointer<Int16>, planeCount: Int, axis: ResampleAxis, outside: [Int32],
        into row: UnsafeMutableBufferPointer<UInt8>
    ) {
        let (origin, stride, blocks) = (axis.inputRange.lowerBound, axis.stride, axis.blocks)
        axis.high.withUnsafeBufferPointer { high in
            axis.low.withUnsafeBufferPointer { low in
                axis.starts.withUnsafeBufferPointer { starts in
                    guard let samples = planes.baseAddress, let high = high.baseAddress, let low = low.baseAddress else { return }
                    for output in 0..<starts.count {
                        for channel in 0..<3 {
                            row[output * 3 + channel] = weightedByte(
                                samples + channel * planeCount + starts[output] - origin,
                                high: high + output * stride, low: low + output * stride, blocks: blocks,
                                outside: outside[output * 3 + channel])
                        }
                    }
                }
            }
        }
    }

    /// round(sum of sample * weight / 2^22), clamped to a byte. Partial sums may wrap, but these filters' totals of
    /// bytes always fit.
    /// - Parameter outside: the sum over the samples outside the image.
    @inline(__always)
    private static func weightedByte(
        _ samples: UnsafePointer<Int16>, high: UnsafePointer<Int16>, low: UnsafePointer<Int16>, blocks: Int, outside: Int32
    ) -> UInt8 {
        var highSum = SIMD4<Int32>.zero
        var lowSum = SIMD4<Int32>.zero
        for block in 0..<blocks {
            let offset = block * ResampleAxis.block
            let sample = vector(samples + offset)
            let highProduct = sample &* vector(high + offset)
            let lowProduct = sample &* vector(low + offset)
            highSum &+= highProduct.evenHalf &+ highProduct.oddHalf
            lowSum &+= lowProduct.evenHalf &+ lowProduct.oddHalf
        }
        return byte((highSum &<< SIMD4(repeating: ResampleAxis.lowBits) &+ lowSum).wrappedSum() &+ outside)
    }

    @inline(__always)
    private static func vector(_ values: UnsafePointer<Int16>) -> SIMD8<Int32> {
        SIMD8<Int32>(truncatingIfNeeded: UnsafeRawPointer(values).loadUnaligned(as: SIMD8<Int16>.self))
    }

    @inline(__always)
    private static func byte(_ sum: Int32) -> UInt8 {
        let rounded = (sum &+ 1 << (ResampleAxis.precisionBits - 1)) >> ResampleAxis.precisionBits
        return UInt8(truncatingIfNeeded: min(max(rounded, 0), 255))
    }

    /// The pass along columns: every output row is a weighted sum of rows.
    /// - Parameters:
    ///   - origin: the first of `rows`, counted on the canvas.
    ///   - outside: a row above or below the image; they are all alike.
    private static func flatten(_ rows: [UInt8], from origin: Int, outside: [UInt8], axis: ResampleAxis) -> [UInt8] {
        let rowBytes = outside.count
        var sums = [Int32](repeating: 0, count: rowBytes)
        let rowCount = rows.count / max(rowBytes, 1)
        return [UInt8](unsafeUninitializedCapacity: axis.outputCount * rowBytes) { target, count in
            sums.withUnsafeMutableBufferPointer { sums in
                rows.withUnsafeBufferPointer { rows in
                    for output in 0..<axis.outputCount {
                        for byte in 0..<rowBytes { sums[byte] = Int32(outside[byte]) &* axis.outside[output] }
                        let first = axis.starts[output] - origin
                        for tap in 0..<min(axis.stride, rowCount - first) {
                            let position = output * axis.stride + tap
                            let weight = Int32(axis.high[position]) << ResampleAxis.lowBits + Int32(axis.low[position])
                            guard weight != 0, let sums = sums.baseAddress, let rows = rows.baseAddress else { continue }
                            let row = rows + (first + tap) * rowBytes
                            for byte in 0..<rowBytes { sums[byte] &+= Int32(row[byte]) &* weight }
                        }
                        for position in 0..<rowBytes { target[output * rowBytes + position] = byte(sums[position]) }
                    }
                }
            }
            count = axis.outputCount * rowBytes
        }
    }
}
