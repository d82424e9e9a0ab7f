import AdaLLaVA

/// Why an evaluation cannot run, resume or be reported.
package enum EvaluationError: AdaLLaVAError, Equatable {
    /// A setting is out of range, or does not go with another.
    case argument(name: String, expected: String, found: String)
    /// A benchmark's file is not there.
    case missing(file: String, needed: String)
    /// A benchmark's file was read, but a value violates its format.
    case data(file: String, at: String, expected: String, found: String)
    /// The output folder holds a run with other settings, so its answers must not be mixed with new ones.
    case otherRun(folder: String, setting: String, expected: String, found: String)
    /// Another process writes to this output folder.
    case inUse(folder: String)
    /// Shards that do not make one whole run.
    case merge(reason: String)
    /// A file of a run cannot be written or read.
    case file(path: String, reason: String)
    /// gnuplot is not installed.
    case plotterMissing(searched: [String])
    /// gnuplot ran and failed.
    case plotterFailed(chart: String, output: String)

    package var category: ErrorCategory {
        switch self {
        case .argument, .otherRun, .merge: .usage
        case .missing, .plotterMissing: .missingInput
        case .data: .badData
        case .inUse, .file: .inputOutput
        case .plotterFailed: .software
        }
    }

    package var description: String {
        switch self {
        case .argument(let name, let expected, let found): "\(name): expected \(expected), found \(found)"
        case .missing(let file, let needed): "\(file): no such file (\(needed)); docs/evaluation.md lists the files to download and their folders"
        case .data(let file, let place, let expected, let found): "\(file), \(place): expected \(expected), found \(found)"
        case .otherRun(let folder, let setting, let expected, let found):
            "\(folder) holds a run with another \(setting): it has \(found), asked for is \(expected); name another --output, or repeat the run's settings to go on with it"
        case .inUse(let folder): "\(folder): another evaluation is writing to it; wait for it, or name another --output"
        case .merge(let reason): "--merge: \(reason)"
        case .file(let path, let reason): "\(path): \(reason)"
        case .plotterMissing(let searched):
            "charts are drawn by gnuplot, which is in none of \(searched.joined(separator: ", ")); install it with: apt-get install gnuplot-nox"
        case .plotterFailed(let chart, let output): "gnuplot could not draw \(chart): \(output)"
        }
    }
}
