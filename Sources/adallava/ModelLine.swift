import AdaLLaVA
import ArgumentParser
import Foundation

/// Whether only answers, warnings and errors are written.
struct QuietFlag: ParsableArguments {
    @Flag(name: .shortAndLong, help: "Print only results, warnings and errors: no progress, model or times.")
    var quiet = false

    func apply() { Console.shared.isQuiet = quiet }
}

/// Names the model in one line on standard error; for the default model also its training data, because it knows little.
enum ModelLine {
    /// Training data of the embedded models.
    private static let embeddedKnowledge = "rendered scenes only"

    static func text(_ checkpoint: Checkpoint) -> String {
        let embedded = embeddedName(checkpoint.folder)
        let name = embedded ?? HuggingFaceCache.repository(of: checkpoint.folder) ?? checkpoint.name
        let knowledge = embedded != nil ? embeddedKnowledge : checkpoint.configuration.vision == nil ? "text only" : "images and text"
        return "model: \(name) (\(count(ModelReport.parameterCount(of: checkpoint))), \(knowledge))" + (embedded == nil ? "" : "; --model FILE for another")
    }

    /// `scenes/L` or the name of a model next to it; `nil` for other folders.
    private static func embeddedName(_ folder: URL) -> String? {
        guard let standard = try? ModelLocation.find(nil) else { return nil }
        let folder = Files.resolved(folder), family = folder.deletingLastPathComponent()
        guard family.path == Files.resolved(standard).deletingLastPathComponent().path else { return nil }
        return family.lastPathComponent + "/" + folder.lastPathComponent
    }

    /// Parameters in short: `8 M`, `135 M`, `7.1 B`.
    private static func count(_ parameters: Int) -> String {
        let millions = Double(parameters) / 1e6
        let (value, unit) = millions < 1000 ? (millions, "M") : (millions / 1000, "B")
        return String(format: value < 100 ? "%.2g" : "%.0f", value) + " " + unit
    }
}
