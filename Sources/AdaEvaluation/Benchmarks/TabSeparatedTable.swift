import AdaLLaVA
import Foundation

/// A table of tab-separated values as pandas reads it: a header line, fields in quotes may hold tabs, line breaks and doubled quotes.
///
/// Fields stay bytes of the file until they are read, because MMBench's tables contain their images.
struct TabSeparatedTable {
    let columns: [String]
    let rows: [[Data]]
    let file: String

    /// - Throws: ``EvaluationError`` if the file is missing, empty, ends inside quotes, or a line has more fields than the header.
    init(contentsOf url: URL, needed: String) throws {
        guard Files.exists(url) else { throw EvaluationError.missing(file: url.path, needed: needed) }
        let data: Data
        do {
            data = try Files.data(url, mapped: true)
        } catch {
            throw EvaluationError.file(path: url.path, reason: "cannot be read: \(error.localizedDescription)")
        }
        var lines = try TabSeparatedTable.lines(data, file: url.path)
        guard !lines.isEmpty else {
            throw EvaluationError.data(file: url.path, at: "the whole file", expected: "a header line", found: "nothing")
        }
        columns = lines.removeFirst().map { String(decoding: $0, as: UTF8.self) }
        for (number, line) in lines.enumerated() where line.count > columns.count {
            throw EvaluationError.data(
                file: url.path, at: "row \(number + 1)", expected: "at most \(columns.count) fields", found: "\(line.count)")
        }
        (rows, file) = (lines, url.path)
    }

    /// The field as text; `nil` where pandas reads a missing value, or the text says nan or none.
    func text(_ row: [Data], _ column: String) -> String? {
        guard let index = columns.firstIndex(of: column), row.indices.contains(index) else { return nil }
        let text = String(decoding: row[index], as: UTF8.self)
        return TabSeparatedTable.missingValues.contains(text) || ["nan", "none"].contains(text.lowercased()) ? nil : text
    }

    /// Values that pandas reads as missing.
    private static let missingValues: Set<String> = [
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None",
        "n/a", "nan", "null",
    ]

    private static func lines(_ data: Data, file: String) throws -> [[Data]] {
        let (tab, newline, carriageReturn, quote) = (UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\""))
        var lines: [[Data]] = []
        var line: [Data] = []
        // The mapped bytes are walked directly: the tables are hundreds of megabytes.
        try data.withUnsafeBytes { bytes in
            var position = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
            while position < bytes.count {
                var field: Data
                if bytes[position] == quote {
                    (field, position) = try quoted(bytes, from: position + 1, file: file)
                } else {
                    let start = position
                    while position < bytes.count, bytes[position] != tab, bytes[position] != newline { position += 1 }
                    field = data[data.startIndex + start..<data.startIndex + position]
                    if position == bytes.count || bytes[position] == newline, field.last == carriageReturn { field = field.dropLast() }
                }
                if position < bytes.count, bytes[position] == carriageReturn { position += 1 }
                line.append(field)
                let endsLine = position >= bytes.count || bytes[position] == newline
                if position < bytes.count, bytes[position] != tab, bytes[position] != newline {
                    throw EvaluationError.data(
                        file: file, at: "byte \(position)", expected: "a tab or the end of the line after a field in quotes", found: "other text")
                }
                position += 1
                if endsLine {
                    if line.contains(where: { !$0.isEmpty }) { lines.append(line) }
                    line = []
                } else if position == bytes.count {
                    line.append(Data())
                }
            }
            if !line.isEmpty { lines.append(line) }
        }
        return lines
    }

    /// The field whose opening quote ends before `start`, and the position after its closing one.
    private static func quoted(_ bytes: UnsafeRawBufferPointer, from start: Int, file: String) throws -> (Data, Int) {
        let quote = UInt8(ascii: "\"")
        var field = Data()
        var position = start
        while position < bytes.count {
            if bytes[position] == quote {
                guard position + 1 < bytes.count, bytes[position + 1] == quote else { return (field, position + 1) }
                position += 1
            }
            field.append(bytes[position])
            position += 1
        }
        throw EvaluationError.data(file: file, at: "byte \(start - 1)", expected: "a closing quote", found: "the end of the file")
    }
}
