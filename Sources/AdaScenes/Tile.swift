/// A small picture with transparency.
struct Tile: Sendable {
    let width: Int
    let height: Int
    /// `height * width`: red, green and blue multiplied by alpha, and alpha, 0 to 1.
    var pixels: [SIMD4<Float>]

    init(width: Int, height: Int) {
        (self.width, self.height) = (width, height)
        pixels = [SIMD4<Float>](repeating: .zero, count: width * height)
    }

    /// The picture without the outer rows and columns in which nothing is more opaque than `threshold`.
    func trimmed(threshold: Float = 0) -> Tile {
        func isVisible(_ x: Int, _ y: Int) -> Bool { pixels[y * width + x].w > threshold }
        let rows = (0..<height).filter { y in (0..<width).contains { isVisible($0, y) } }
        let columns = (0..<width).filter { x in (0..<height).contains { isVisible(x, $0) } }
        guard let top = rows.first, let bottom = rows.last, let left = columns.first, let right = columns.last else { return self }
        var result = Tile(width: right - left + 1, height: bottom - top + 1)
        for y in 0..<result.height {
            for x in 0..<result.width { result.pixels[y * result.width + x] = pixels[(top + y) * width + left + x] }
        }
        return result
    }

    /// Scaled so that its longer side has `side` pixels, proportions kept.
    func scaled(longerSide side: Int) -> Tile {
        let scale = Double(side) / Double(max(width, height, 1))
        return scaled(width: max(1, Int((Double(width) * scale).rounded())), height: max(1, Int((Double(height) * scale).rounded())))
    }

    /// Lanczos with three lobes, antialiased, as imaging libraries do it.
    func scaled(width newWidth: Int, height newHeight: Int) -> Tile {
        let horizontal = Lanczos.taps(from: width, to: newWidth)
        let vertical = Lanczos.taps(from: height, to: newHeight)
        var narrowed = [SIMD4<Float>](repeating: .zero, count: newWidth * height)
        pixels.withUnsafeBufferPointer { source in
            for y in 0..<height {
                for (x, taps) in horizontal.enumerated() {
                    var sum = SIMD4<Float>.zero
                    for (tap, weight) in taps.weights.enumerated() { sum += weight * source[y * width + taps.start + tap] }
                    narrowed[y * newWidth + x] = sum
                }
            }
        }
        var result = Tile(width: newWidth, height: newHeight)
        narrowed.withUnsafeBufferPointer { source in
            for (y, taps) in vertical.enumerated() {
                for x in 0..<newWidth {
                    var sum = SIMD4<Float>.zero
                    for (tap, weight) in taps.weights.enumerated() { sum += weight * source[(taps.start + tap) * newWidth + x] }
                    // The filter overshoots at edges; a colour cannot exceed its alpha.
                    let alpha = min(max(sum.w, 0), 1)
                    sum.clamp(lowerBound: .zero, upperBound: SIMD4(repeating: alpha))
                    result.pixels[y * newWidth + x] = sum
                }
            }
        }
        return result
    }
}

/// The Lanczos filter's weights, from a polynomial sine, so that pictures do not depend on a system's mathematics library.
enum Lanczos {
    /// Which inputs an output mixes, from `start` on.
    struct Taps {
        let start: Int
        let weights: [Float]
    }

    private static let lobes = 3.0

    static func taps(from inputSize: Int, to outputSize: Int) -> [Taps] {
        let scale = Double(inputSize) / Double(outputSize)
        let widening = max(scale, 1)
        return (0..<outputSize).map { position in
            let center = (Double(position) + 0.5) * scale
            let start = max(0, Int(center - lobes * widening + 0.5))
            let end = max(start + 1, min(inputSize, Int(center + lobes * widening + 0.5)))
            let raw = (start..<end).map { weight((Double($0) - center + 0.5) / widening) }
            let sum = raw.reduce(0, +)
            return Taps(start: start, weights: raw.map { Float($0 / sum) })
        }
    }

    private static func weight(_ distance: Double) -> Double {
        abs(distance) < lobes ? cardinalSine(distance) * cardinalSine(distance / lobes) : 0
    }

    /// sin(πx) / πx for |x| up to 3.
    static func cardinalSine(_ x: Double) -> Double {
        let distance = abs(x)
        if distance < 1e-9 { return 1 }
        // sin(π(n + r)) = (-1)ⁿ sin(πr), with r within ½, where eleven terms of the series are exact to the last bits.
        let whole = distance.rounded()
        let angle = (distance - whole) * Double.pi
        var term = angle
        var sine = angle
        for k in stride(from: 2.0, through: 20, by: 2) {
            term *= -angle * angle / (k * (k + 1))
            sine += term
        }
        let isOdd = whole.truncatingRemainder(dividingBy: 2) != 0
        return (isOdd ? -sine : sine) / (Double.pi * distance)
    }
}
