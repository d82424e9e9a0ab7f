import ArgumentParser

/// Output formats.
struct FormatFlags: ParsableArguments {
    enum Format: String, CaseIterable, ExpressibleByArgument {
        case table, csv, json

        /// llama-bench calls its table markdown.
        init?(argument: String) { self.init(rawValue: ["markdown": "table", "md": "table"][argument] ?? argument) }
    }

    @Option(help: "Output format: table, csv or json.")
    var format: Format?

    @Flag(help: "Print one JSON object: --format json.")
    var json = false

    @Flag(help: "Print comma-separated values: --format csv.")
    var csv = false

    var chosen: Format { format ?? (json ? .json : csv ? .csv : .table) }

    func validate() throws {
        if json, csv { throw ValidationError("expected one of --json and --csv") }
        if let format, json && format != .json || csv && format != .csv {
            throw ValidationError("--format \(format.rawValue): expected it alone, found --\(json ? "json" : "csv") too")
        }
    }
}
