import AdaImages
import AdaLLaVA
import Foundation

/// A picture that shows where the latency token looked: the picture as the model sees it, dark where it did not look.
package struct AttentionMap {
    /// Side of the picture in pixels.
    package static let side = 448

    private let attention: LatencyAttention

    /// - Parameter attention: of one picture.
    package init(_ attention: LatencyAttention) { self.attention = attention }

    /// The map of the last prefix layer, which the scheduler reads, over a picture, as a PNG file's bytes.
    /// - Parameter crops: the model sees the middle square, instead of the whole picture with margins.
    /// - Throws: ``EvaluationError`` where features are not patches of a square; `ImageError`
    package func png(over image: RGBImage, crops: Bool) throws -> [UInt8] {
        guard let layer = attention.layers.last, let (grid, weights) = attention.patchWeights(layer) else {
            throw EvaluationError.argument(
                name: "--attention-map", expected: "a model with a scheduler whose image features are a square of patches", found: "one without")
        }
        let side = AttentionMap.side
        let processor = try CLIPImageProcessor(
            cropSize: side, shortestEdge: side, mean: [0.48145466, 0.4578275, 0.40821073], standardDeviation: [1, 1, 1])
        let pixels = processor.croppedPixels(image, mode: crops ? .crop : .pad)
        let largest = max(weights.max() ?? 0, .leastNormalMagnitude)
        // Bilinear between the patches' middles.
        func weight(_ x: Int, _ y: Int) -> Double {
            let scale = Double(grid) / Double(side)
            let (u, v) = (max((Double(x) + 0.5) * scale - 0.5, 0), max((Double(y) + 0.5) * scale - 0.5, 0))
            let (left, top) = (min(Int(u), grid - 1), min(Int(v), grid - 1)), (right, bottom) = (min(left + 1, grid - 1), min(top + 1, grid - 1))
            let (a, b) = (u - Double(left), v - Double(top))
            let upper = weights[top * grid + left] * (1 - a) + weights[top * grid + right] * a
            let lower = weights[bottom * grid + left] * (1 - a) + weights[bottom * grid + right] * a
            return (upper * (1 - b) + lower * b) / largest
        }
        var lit = pixels
        for y in 0 ..< side {
            for x in 0 ..< side {
                // A quarter of the light is left where nothing was looked at, so that the picture can be recognized.
                let light = 0.25 + 0.75 * min(max(weight(x, y), 0), 1).squareRoot()
                for channel in 0 ..< 3 { lit[(y * side + x) * 3 + channel] = UInt8(min(Double(pixels[(y * side + x) * 3 + channel]) * light, 255)) }
            }
        }
        guard let map = RGBImage(width: side, height: side, pixels: lit) else {
            throw EvaluationError.argument(name: "--attention-map", expected: "a picture", found: "none")
        }
        return try ImageEncoder.png(map)
    }
}
