import Foundation

/// Pieces of SVG and HTML. Colours come from the page's style sheet, so that they suit light and dark.
enum SVG {
    /// A whole drawing that screen readers read as one picture.
    static func picture(_ width: Double, _ height: Double, title: String, class name: String, _ content: String) -> String {
        "<svg class=\"\(name)\" role=\"img\" aria-label=\"\(escape(title))\" viewBox=\"0 0 \(number(width)) \(number(height))\" width=\"\(number(width))\" height=\"\(number(height))\">\n\(content)</svg>\n"
    }

    static func text(_ x: Double, _ y: Double, _ content: String, _ anchor: String = "start", class name: String = "label") -> String {
        "<text class=\"\(name)\" x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor)\">\(escape(content))</text>\n"
    }

    /// - Parameter opacity: `nil` leaves it to the style sheet.
    static func rectangle(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, class name: String, opacity: Double? = nil, tip: String? = nil
    ) -> String {
        let fill = opacity.map { " fill-opacity=\"\(number($0))\"" } ?? ""
        let start = "<rect class=\"\(name)\" x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" height=\"\(number(height))\"\(fill)"
        return start + (tip.map { "><title>\(escape($0))</title></rect>\n" } ?? "/>\n")
    }

    static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, class name: String) -> String {
        "<line class=\"\(name)\" x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\"/>\n"
    }

    /// Many squares in one path: a page with thousands of cells stays small.
    struct Squares {
        private var data = ""

        mutating func add(_ x: Double, _ y: Double, _ side: Double) {
            data += "M\(number(x)) \(number(y))h\(number(side))v\(number(side))h-\(number(side))z"
        }

        func path(class name: String, opacity: Double? = nil) -> String {
            if data.isEmpty { return "" }
            return "<path class=\"\(name)\"\(opacity.map { " fill-opacity=\"\(number($0))\"" } ?? "") d=\"\(data)\"/>\n"
        }
    }

    /// At most two decimals, none that say nothing.
    static func number(_ value: Double) -> String { String(format: "%.7g", (value * 100).rounded() / 100) }

    static func percent(_ value: Double) -> String { String(format: "%.1f%%", 100 * value) }

    /// Text escaped for HTML, between tags and in quoted attributes.
    static func escape(_ text: String) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "'": escaped += "&#39;"
            // Control characters have no place in HTML.
            case "\n", "\t": escaped.unicodeScalars.append(scalar)
            case _ where scalar.properties.generalCategory == .control: escaped += "\u{FFFD}"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
