import AdaImages
import AdaLLaVA
import Foundation

/// A picture as the model sees it, and grids of weights over it.
struct AttentionOverlay {
    /// The picture's element in the page, which holds its data once.
    private let identifier: String
    private let data: String

    /// Side of a drawing in pixels.
    static let side = 168.0

    /// - Parameters:
    ///   - identifier: unique in the page.
    ///   - crops: the model sees the middle square, instead of the whole picture with margins.
    /// - Throws: `ImageError`
    init(_ image: RGBImage, identifier: String, crops: Bool) throws {
        // Twice the size at which it is drawn, for sharp screens.
        let side = Int(2 * AttentionOverlay.side)
        let processor = try CLIPImageProcessor(
            cropSize: side, shortestEdge: side, mean: [0.48145466, 0.4578275, 0.40821073], standardDeviation: [1, 1, 1])
        let square = RGBImage(width: side, height: side, pixels: processor.croppedPixels(image, mode: crops ? .crop : .pad))
        let bytes = try ImageEncoder.jpeg(square ?? image, quality: 88)
        self.identifier = identifier
        data = "data:image/jpeg;base64," + Data(bytes).base64EncodedString()
    }

    /// The picture alone; the page must contain it once, before any overlay.
    func picture(title: String) -> String {
        let side = SVG.number(AttentionOverlay.side)
        return SVG.picture(
            AttentionOverlay.side, AttentionOverlay.side, title: title, class: "picture",
            "<image id=\"\(identifier)\" href=\"\(data)\" width=\"\(side)\" height=\"\(side)\"/>\n")
    }

    /// The picture darkened, with light where the weight is: full where it is largest.
    /// - Parameter weights: `grid * grid`, row by row from the upper left.
    func drawing(_ weights: [Double], grid: Int, title: String) -> String {
        let side = AttentionOverlay.side
        let cell = side / Double(grid)
        let largest = weights.max() ?? 0
        var levels = [SVG.Squares](repeating: SVG.Squares(), count: 11)
        for (index, weight) in weights.enumerated() where largest > 0 {
            let level = Int((10 * weight / largest).rounded())
            levels[min(max(level, 0), 10)].add(Double(index % grid) * cell, Double(index / grid) * cell, cell)
        }
        var content = "<use href=\"#\(identifier)\"/>\n" + SVG.rectangle(0, 0, side, side, class: "shade")
        for (level, squares) in levels.enumerated().dropFirst() { content += squares.path(class: "light", opacity: 0.08 * Double(level)) }
        let place = weights.firstIndex(of: largest).map { ", most at row \($0 / grid + 1), column \($0 % grid + 1) of \(grid)" } ?? ""
        return SVG.picture(side, side, title: title + place, class: "overlay", content)
    }
}
