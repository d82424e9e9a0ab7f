import AdaEvaluation
import AdaLLaVA
import ArgumentParser
import Foundation

/// Where an experiment's results go.
struct BenchOutputFlags: ParsableArguments {
    @Option(help: "Draw the chart into this .svg or .png file (needs gnuplot).")
    var chart: String?

    @Option(help: "A folder for NAME.json, NAME.csv and the chart.")
    var output: String?

    @Option(help: "The format of charts in the output folder: svg or png.")
    var charts: ChartFormat = .svg

    @OptionGroup var format: FormatFlags

    func validate() throws {
        if let chart, ChartFormat(rawValue: URL(systemPath: chart).pathExtension.lowercased()) == nil {
            throw ValidationError("--chart: expected a file that ends in .svg or .png, found \(chart)")
        }
    }

    /// The files that charts will be drawn into.
    private func drawings(_ name: String) -> [(file: URL, format: ChartFormat)] {
        var drawings: [(file: URL, format: ChartFormat)] = []
        if let chart {
            let file = URL(systemPath: chart)
            drawings.append((file, ChartFormat(rawValue: file.pathExtension.lowercased()) ?? .svg))
        }
        if let output { drawings.append((URL(systemPath: output).appendingPathComponent("\(name).\(charts.rawValue)"), charts)) }
        return drawings
    }

    /// Makes the output folder and looks for gnuplot, so that a missing program is reported before anything runs. Without gnuplot the
    /// experiment still runs: its numbers do not need it.
    /// - Throws: ``EvaluationError`` for a place that cannot be written to.
    func prepare() throws -> Gnuplot? {
        if let output {
            do {
                try Files.createFolder(URL(systemPath: output))
            } catch {
                throw EvaluationError.file(path: output, reason: "cannot be made: \(error.localizedDescription)")
            }
        }
        if let chart {
            let folder = URL(systemPath: chart).deletingLastPathComponent()
            guard Files.isWritable(folder) else {
                throw EvaluationError.file(path: chart, reason: "the folder \(folder.path) is not there or may not be written")
            }
        }
        if chart == nil, output == nil { return nil }
        do {
            return try Gnuplot.locate()
        } catch let error as EvaluationError {
            Console.shared.message("adallava: \(error.description); the numbers come without it")
            return nil
        }
    }

    /// Prints the results, then writes files and charts.
    /// - Parameter plotter: result of ``prepare()``.
    /// - Throws: ``EvaluationError``; `ExitCode` if the experiment was stopped, or the requested chart could not be drawn.
    func deliver(_ report: some ExperimentReport, plotter: Gnuplot?) throws {
        Console.shared.finishProgress()
        switch format.chosen {
        case .json: printNow(try adallava.json(report.json))
        case .csv: printNow(report.csv, terminator: "")
        case .table: printNow((report.headerLines + report.lines).joined(separator: "\n"))
        }
        if let output { try report.write(to: URL(systemPath: output)) }
        if let plotter {
            for (file, format) in drawings(type(of: report).name) {
                try report.draw(to: file, format: format, plotter: plotter)
                Console.shared.message("chart: \(file.path)")
            }
        }
        if report.repeats.wasStopped {
            Console.shared.message("adallava: stopped after \(report.repeats.done) of \(report.repeats.asked) repeats; the results are of those")
            throw ExitCode(130)
        }
        if chart != nil, plotter == nil { throw ExitCode(ErrorCategory.missingInput.exitCode) }
    }
}

/// Numbers of threads separated by commas: `1,2`. `nil` in the list means one thread per processor.
/// - Throws: `ValidationError`
func threadCounts(_ threads: String?) throws -> [Int?] { try threads.map { try counts($0, "--threads") } ?? [nil] }

/// Different numbers with commas between them.
func counts(_ text: String, _ flag: String, atMost most: Int = 256) throws -> [Int] {
    let counts = try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
        guard let count = Int(part.trimmingCharacters(in: .whitespaces)), (1 ... most).contains(count) else {
            throw ValidationError("\(flag): expected numbers from 1 to \(most) with commas between them, found '\(part)'")
        }
        return count
    }
    if Set(counts).count < counts.count { throw ValidationError("\(flag): expected each number once, found \(text)") }
    return counts
}

/// Ways to store keys and values, with commas between them: `f16,q8_0`.
func keyValueTypes(_ text: String) throws -> [KeyValueType] {
    let types = text.split(separator: ",", omittingEmptySubsequences: false).map { KeyValueType(rawValue: $0.trimmingCharacters(in: .whitespaces)) }
    let known = types.compactMap(\.self)
    guard known.count == types.count, Set(known).count == known.count else {
        let names = KeyValueType.allCases.map(\.rawValue).joined(separator: ", ")
        throw ValidationError("--kv: expected some of \(names), each once, with commas between them, found '\(text)'")
    }
    return known
}

extension ModelFlags {
    /// Opens the model and prints its name.
    func measured() async throws -> (model: AdaptiveModel, description: ExperimentModel) {
        let url = try locate()
        let report = try inspect()
        let loaded = try await compute.load(url)
        return (loaded, ExperimentModel(report, at: url, loadedAs: loaded, compute.options))
    }

    /// The content of the checkpoint; its weights are not read.
    func inspect() throws -> ModelReport {
        try ModelReport(contentsOf: locate(), projector: compute.imagePart.projector, visionTower: compute.imagePart.tower, template: compute.templates.choice)
    }
}

extension ExperimentEnvironment {
    /// This machine and this build.
    static var current: ExperimentEnvironment { ExperimentEnvironment(package: Version.name) }
}

extension Console {
    func measuring(_ progress: ExperimentProgress) {
        self.progress("measuring", done: progress.done, of: progress.total, detail: progress.detail)
    }
}
