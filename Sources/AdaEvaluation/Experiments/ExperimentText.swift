import Foundation

/// How experiments write numbers and tables.
enum ExperimentText {
    /// Four digits or so.
    static func number(_ value: Double) -> String { String(format: "%.\(decimals(value))f", value) }

    private static func decimals(_ value: Double) -> Int { abs(value) < 1 ? 3 : abs(value) < 100 ? 2 : abs(value) < 10000 ? 1 : 0 }

    /// `12.34 ± 0.05`; without the margin where one value says nothing of it.
    static func number(_ value: Double, margin: Double?) -> String {
        margin.map { "\(number(value)) ± " + String(format: "%.\(decimals(value))f", $0) } ?? number(value)
    }

    static func mean(_ statistics: SampleStatistics) -> String { number(statistics.mean, margin: statistics.meanMargin) }

    static let meanNote = "± is the 95 % confidence interval of the mean (Student's t)"

    static func csv(_ rows: [[String]]) -> String {
        rows.map { $0.map(EvaluationReport.quoted).joined(separator: ",") }.joined(separator: "\n") + "\n"
    }

    /// A table that is also Markdown, its columns aligned.
    static func markdown(_ rows: [[String]], textColumns: Set<Int>) -> [String] {
        guard let header = rows.first else { return [] }
        let escaped = rows.map { $0.map { $0.replacingOccurrences(of: "|", with: "\\|") } }
        let widths = header.indices.map { column in escaped.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        func line(_ row: [String]) -> String {
            let cells = row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: max(0, widths[column] - cell.count))
                return textColumns.contains(column) ? cell + space : space + cell
            }
            return "| " + cells.joined(separator: " | ") + " |"
        }
        let rule = widths.enumerated().map { column, width in
            let dashes = String(repeating: "-", count: width)
            return textColumns.contains(column) ? " " + dashes + " " : " " + dashes + ":"
        }
        return [line(escaped[0]), "|" + rule.joined(separator: "|") + "|"] + escaped.dropFirst().map(line)
    }

    /// One line of at most `limit` characters.
    static func shortened(_ text: String, to limit: Int) -> String {
        let line = text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        return line.count > limit ? line.prefix(limit - 1) + "…" : line
    }
}
