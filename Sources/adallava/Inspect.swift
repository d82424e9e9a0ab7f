import AdaLLaVA
import ArgumentParser
import Foundation

struct Inspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the content of a checkpoint, and the first problem found.",
        discussion: "Every tensor that the architecture needs is checked; the weights themselves are not read. Exit code 65 if there is a problem.")

    @Argument(help: "A checkpoint folder, a .safetensors or a .gguf file; an embedded model's name; or OWNER/NAME in the Hugging Face cache.", completion: .file())
    var model: String?

    @Option(name: [.customShort("m"), .customLong("model")], help: "The same as the argument.", completion: .file())
    var named: String?

    @OptionGroup var imagePart: ImagePartFlags

    @OptionGroup var templates: TemplateFlags

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if model != nil, named != nil { throw ValidationError("--model: expected it or the argument, found both") }
        if model == nil, named == nil { throw ValidationError("expected a model, such as: adallava inspect \(ModelLocation.defaultName)") }
    }

    func run() async throws {
        try await reporting {
            let report = try ModelReport(
                contentsOf: ModelLocation.find(model ?? named), projector: imagePart.projector, visionTower: imagePart.tower, template: templates.choice)
            printNow(json ? try adallava.json(report.json) : report.lines.joined(separator: "\n"))
            if report.problem != nil { throw ExitCode(ErrorCategory.badData.exitCode) }
        }
    }
}
