/// A small picture with transparency: float RGBA, colour multiplied by alpha, 0 to 1.
struct Tile: Sendable {
    let width: Int
    let height: Int
    /// `height * width * 4`.
    var values: [Float]

    init(width: Int, height: Int, values: [Float]) {
        (self.width, self.height, self.values) = (width, height, values)
    }

    init(width: Int, height: Int) {
        self.init(width: width, height: height, values: [Float](repeating: 0, count: width * height * 4))
    }

    /// Without the fully transparent rows and columns around the picture.
    func trimmed() -> Tile {
        func isVisible(_ x: Int, _ y: Int) -> Bool { values[(y * width + x) * 4 + 3] > 0.02 }
        let rows = (0..<height).filter { y in (0..<width).contains { isVisible($0, y) } }
        let columns = (0..<width).filter { x in (0..<height).contains { isVisible(x, $0) } }
        guard let top = rows.first, let bottom = rows.last, let left = columns.first, let right = columns.last else { return self }
        var result = Tile(width: right - left + 1, height: bottom - top + 1)
        for y in top...bottom {
            let source = (y * width + left) * 4
            let target = (y - top) * result.width * 4
            result.values.replaceSubrange(target..<target + result.width * 4, with: values[source..<source + result.width * 4])
        }
        return result
    }

    /// Mean colour of what is visible, 0 to 255.
    var meanColour: [Double] {
        var sums = [0.0, 0, 0, 0]
        for start in stride(from: 0, to: values.count, by: 4) {
            for channel in 0..<4 { sums[channel] += Double(values[start + channel]) }
        }
        return (0..<3).map { sums[3] > 0 ? sums[$0] / sums[3] * 255 : 0 }
    }

    /// Scaled so that it just fits into `maxWidth` x `maxHeight`, proportions kept.
    func fitted(maxWidth: Double, maxHeight: Double) -> Tile {
        let scale = min(maxWidth / Double(width), maxHeight / Double(height))
        return scaled(width: max(1, Int(Double(width) * scale)), height: max(1, Int(Double(height) * scale)))
    }

    /// Antialiased bicubic, a polynomial filter, so that results do not depend on a system's sine.
    func scaled(width newWidth: Int, height newHeight: Int) -> Tile {
        let horizontal = Self.filter(from: width, to: newWidth)
        let vertical = Self.filter(from: height, to: newHeight)
        var narrowed = [Float](repeating: 0, count: newWidth * height * 4)
        for y in 0..<height {
            for (x, taps) in horizontal.enumerated() {
                for channel in 0..<4 {
                    var sum: Float = 0
                    for (tap, weight) in taps.weights.enumerated() { sum += weight * values[(y * width + taps.start + tap) * 4 + channel] }
                    narrowed[(y * newWidth + x) * 4 + channel] = sum
                }
            }
        }
        var result = Tile(width: newWidth, height: newHeight)
        for (y, taps) in vertical.enumerated() {
            for position in 0..<newWidth * 4 {
                var sum: Float = 0
                for (tap, weight) in taps.weights.enumerated() { sum += weight * narrowed[(taps.start + tap) * newWidth * 4 + position] }
                result.values[y * newWidth * 4 + position] = sum
            }
        }
        // The filter overshoots at edges; a colour cannot exceed its alpha.
        for start in stride(from: 0, to: result.values.count, by: 4) {
            let alpha = min(max(result.values[start + 3], 0), 1)
            result.values[start + 3] = alpha
            for channel in 0..<3 { result.values[start + channel] = min(max(result.values[start + channel], 0), alpha) }
        }
        return result
    }

    private static func filter(from inputSize: Int, to outputSize: Int) -> [(start: Int, weights: [Float])] {
        let scale = Double(inputSize) / Double(outputSize)
        let widening = max(scale, 1)
        return (0..<outputSize).map { position in
            let center = (Double(position) + 0.5) * scale
            let start = max(0, Int(center - 2 * widening + 0.5))
            let end = min(inputSize, Int(center + 2 * widening + 0.5))
            let raw = (start..<max(start + 1, end)).map { cubic((Double($0) - center + 0.5) / widening) }
            let sum = raw.reduce(0, +)
            return (start, raw.map { Float($0 / sum) })
        }
    }

    private static func cubic(_ distance: Double) -> Double {
        let x = abs(distance)
        if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
        if x < 2 { return ((2.5 - 0.5 * x) * x - 4) * x + 2 }
        return 0
    }
}
