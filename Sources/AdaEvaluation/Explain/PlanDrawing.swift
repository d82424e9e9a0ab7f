import AdaLLaVA
import Foundation

/// Heat maps and overlays as SVG, for a page that carries everything in itself. Colours come from the page's style sheet, so that they
/// suit light and dark.
enum PlanDrawing {
    /// How often each switch is on: a row for each layer, attention heads left, MLP groups right. Hatched: always on.
    /// - Parameter cell: side of a cell in pixels.
    static func heatMap(_ frequencies: SwitchFrequencies, prefix: Int, title: String, cell: Double = 18) -> String {
        let (layers, heads) = (frequencies.layers, frequencies.heads)
        // Many heads or layers: smaller cells, so that a page's width holds them.
        let side = min(cell, 640 / Double(2 * heads), 560 / Double(layers) < 8 ? 8 : 560 / Double(layers))
        let (left, top, gap) = (64.0, 40.0, 24.0)
        let block = Double(heads) * side
        let (width, height) = (left + 2 * block + gap + 8, top + Double(layers) * side + 26)
        var svg = "<svg class=\"map\" role=\"img\" aria-label=\"\(escape(title))\" viewBox=\"0 0 \(number(width)) \(number(height))\" width=\"\(number(width))\">\n"
        svg += "<title>\(escape(title))</title>\n"
        for (part, name) in ["attention heads", "MLP groups"].enumerated() {
            let x = left + Double(part) * (block + gap)
            // Under narrow blocks both names would meet.
            svg += text(x + block / 2, top - 22, block < 100 ? ["heads", "groups"][part] : name, "middle")
            for tick in Set([0, heads / 2, heads - 1]).sorted() { svg += text(x + (Double(tick) + 0.5) * side, top - 6, "\(tick)", "middle") }
        }
        let step = max(1, Int((14 / side).rounded(.up)))
        for layer in 0 ..< layers {
            let y = top + Double(layer) * side
            if layer % step == 0 { svg += text(left - 8, y + side / 2 + 4, layer == 0 ? "layer 0" : "\(layer)", "end") }
            for part in 0 ..< 2 {
                for (head, value) in frequencies.row(layer: layer, part: part).enumerated() {
                    let x = left + Double(part) * (block + gap) + Double(head) * side
                    let kind = layer < prefix ? "prefix" : "cell"
                    svg += "<rect class=\"\(kind)\" x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(side - 1))\" height=\"\(number(side - 1))\" fill-opacity=\"\(number(max(value, 0.04)))\"><title>layer \(layer), \(part == 0 ? "head" : "group") \(head): on in \(percent(value))</title></rect>\n"
                }
            }
        }
        return svg + text(left + block + gap / 2, height - 6, "number of head or group; rows are layers, the first \(prefix) always run", "middle", small: true) + "</svg>\n"
    }

    /// A picture with a grid of weights over it, brightest where the weight is largest.
    /// - Parameters:
    ///   - picture: a data: URL.
    ///   - crops: the model sees the middle square, instead of the whole picture with margins.
    static func overlay(_ weights: [Double], grid: Int, picture: String, crops: Bool, title: String) -> String {
        let side = 168.0
        let cell = side / Double(grid)
        let largest = max(weights.max() ?? 0, 1e-12)
        var svg = "<svg class=\"overlay\" role=\"img\" aria-label=\"\(escape(title))\" viewBox=\"0 0 168 168\" width=\"168\" height=\"168\">\n<title>\(escape(title))</title>\n"
        svg += "<image href=\"\(picture)\" width=\"168\" height=\"168\" preserveAspectRatio=\"xMidYMid \(crops ? "slice" : "meet")\"/>\n"
        svg += "<rect width=\"168\" height=\"168\" fill=\"#000\" fill-opacity=\"0.45\"/>\n"
        for (index, weight) in weights.enumerated() where index < grid * grid {
            let (x, y) = (Double(index % grid) * cell, Double(index / grid) * cell)
            svg += "<rect class=\"light\" x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(cell))\" height=\"\(number(cell))\" fill-opacity=\"\(number(0.8 * weight / largest))\"><title>\(percent(weight))</title></rect>\n"
        }
        return svg + "</svg>\n"
    }

    private static func text(_ x: Double, _ y: Double, _ content: String, _ anchor: String, small: Bool = false) -> String {
        "<text class=\"\(small ? "small" : "label")\" x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor)\">\(escape(content))</text>\n"
    }

    static func number(_ value: Double) -> String { String(format: "%.3g", value) == "0" ? "0" : String(format: "%.2f", value) }
    static func percent(_ value: Double) -> String { String(format: "%.1f %%", 100 * value) }

    static func escape(_ text: String) -> String {
        text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
            .replacingOccurrences(of: ">", with: "&gt;").replacingOccurrences(of: "\"", with: "&quot;")
    }
}
