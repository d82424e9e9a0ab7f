import AdaLLaVA

/// Heat maps of the switches that run: the stronger a cell's colour, the more inputs run it.
enum SwitchMap {
    // MARK: - Heads and groups

    /// How often each head and group is on: a row for each layer, attention heads left, MLP groups right.
    /// - Parameters:
    ///   - prefix: the first layers, which always run.
    ///   - cell: the largest side of a cell in pixels.
    ///   - tips: show the exact fraction when the pointer is on a cell.
    static func heads(_ frequencies: SwitchFrequencies, prefix: Int, title: String, cell: Double = 18, tips: Bool = true) -> String {
        let (layers, heads) = (frequencies.layers, frequencies.heads)
        // Many heads: smaller cells, so that a page's width holds them.
        let side = max(min(cell, 640 / Double(2 * max(heads, 1))), 3)
        let inner = side < 6 ? side : side - 1
        let (left, top, gap) = (66.0, 42.0, 24.0)
        let block = Double(heads) * side
        let width = left + 2 * block + gap + 12
        var content = SVG.text(left - 8, top - 6, "layer", "end")
        for (part, name) in ["attention heads", "MLP groups"].enumerated() {
            let x = left + Double(part) * (block + gap)
            // Over narrow blocks both names would overlap.
            content += SVG.text(x + block / 2, top - 24, block < 84 ? ["heads", "groups"][part] : name, "middle")
            for tick in ticks(heads, spacing: side) { content += SVG.text(x + (Double(tick) + 0.5) * side, top - 6, "\(tick)", "middle") }
        }
        var cells = SVG.Squares()
        var (always, off) = (cells, cells)
        for layer in 0 ..< layers {
            let y = top + Double(layer) * side
            for part in 0 ..< 2 {
                for (head, value) in frequencies.row(layer: layer, part: part).enumerated() {
                    let x = left + Double(part) * (block + gap) + Double(head) * side
                    if layer < prefix {
                        always.add(x, y, inner)
                    } else if tips {
                        let tip = "layer \(layer), \(part == 0 ? "head" : "group") \(head): runs for \(SVG.percent(value))"
                        content += SVG.rectangle(x, y, inner, inner, class: "off") + SVG.rectangle(x, y, inner, inner, class: "cell", opacity: value, tip: tip)
                    } else if value > 0 {
                        cells.add(x, y, inner)
                    } else {
                        off.add(x, y, inner)
                    }
                }
            }
        }
        for layer in ticks(layers, spacing: side, room: 14) {
            content += SVG.text(left - 8, top + (Double(layer) + 0.5) * side + 4, "\(layer)", "end")
        }
        content += always.path(class: "prefix") + off.path(class: "off") + cells.path(class: "cell")
        return SVG.picture(width, top + Double(layers) * side + 6, title: title, class: "map", content)
    }

    // MARK: - Layers

    /// How often each layer is on: a row for each budget, a column for each layer.
    /// - Parameter numbers: write the fraction of inputs, in percent, if it fits.
    static func layers(
        _ rows: [(label: String, frequencies: SwitchFrequencies)], prefix: Int, title: String, cell: Double = 46, numbers: Bool = true
    ) -> String {
        let layers = rows.map(\.frequencies.layers).max() ?? 0
        let width = max(min(cell, 700 / Double(max(layers, 1))), 8)
        let (left, top, height) = (66.0, 40.0, 26.0)
        var content = SVG.text(left - 8, top - 6, "budget", "end") + SVG.text(left, 14, "decoder layer")
        for layer in ticks(layers, spacing: width) { content += SVG.text(left + (Double(layer) + 0.5) * width, top - 6, "\(layer)", "middle") }
        for (place, row) in rows.enumerated() {
            let y = top + Double(place) * height
            content += SVG.text(left - 8, y + height / 2 + 3, row.label, "end")
            for layer in 0 ..< row.frequencies.layers {
                let x = left + Double(layer) * width
                let share = row.frequencies.share(layer: layer)
                let tip = "layer \(layer), budget \(row.label): runs for \(SVG.percent(share))"
                if layer < prefix {
                    content += SVG.rectangle(x, y, width - 1, height - 2, class: "prefix", tip: tip + ", as a prefix layer always does")
                } else {
                    content += SVG.rectangle(x, y, width - 1, height - 2, class: "off")
                    content += SVG.rectangle(x, y, width - 1, height - 2, class: "cell", opacity: share, tip: tip)
                }
                if numbers, width >= 34, layer >= prefix {
                    let number = "\(Int((100 * share).rounded()))%"
                    content += SVG.text(x + width / 2, y + height / 2 + 3, number, "middle", class: share > 0.55 ? "onfull" : "label")
                }
            }
        }
        return SVG.picture(left + Double(layers) * width + 8, top + Double(rows.count) * height + 4, title: title, class: "map", content)
    }

    // MARK: - Legend

    /// The legend of the colours.
    /// - Parameter graded: cells are shares of inputs, not on or off.
    static func legend(graded: Bool) -> String {
        let steps: [(label: String, share: Double)] =
            graded ? [("0%", 0), ("25%", 0.25), ("50%", 0.5), ("75%", 0.75), ("100% of inputs run it", 1)] : [("off", 0), ("runs", 1)]
        var content = ""
        var x = 0.0
        func swatch(_ label: String, _ shapes: String) {
            content += shapes + SVG.text(x + 22, 15, label)
            // About the width of the label in the page's type.
            x += 40 + Double(label.count) * 6.6
        }
        for step in steps {
            swatch(step.label, SVG.rectangle(x, 3, 16, 16, class: "off") + SVG.rectangle(x, 3, 16, 16, class: "cell", opacity: step.share))
        }
        swatch("prefix: always runs", SVG.rectangle(x, 3, 16, 16, class: "prefix"))
        let title = graded ? "Legend: share of inputs that run a part, from pale to full colour; grey is the prefix" : "Legend: pale is off, full colour runs, grey is the prefix"
        return "<div class=\"scroll\">\(SVG.picture(x, 22, title: title, class: "legend", content))</div>\n"
    }

    /// The numbers to write along an axis of `count` cells: all, or every 2nd, 4th, 5th, 8th … so that they do not overlap.
    static func ticks(_ count: Int, spacing: Double, room: Double = 22) -> [Int] {
        let steps = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 256, 512, 1024]
        let step = steps.first { Double($0) * spacing >= room } ?? max(count, 1)
        return Array(stride(from: 0, to: count, by: step))
    }
}
