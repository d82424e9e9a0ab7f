import AdaEvaluation
import AdaLLaVA
import ArgumentParser
import Foundation

struct Calibrate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure how long a model's layers take on this machine, for time budgets.",
        discussion: """
              adallava calibrate --model M.gguf

            Takes at most ten seconds. With time budgets (--budget 400ms) this happens automatically after the first answer; run it again if the machine was \
            busy, or after its cooling or power settings changed.
            """)

    @OptionGroup var model: ModelFlags

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        try await reporting {
            try await withInterruption {
                let model = try await model.load()
                let report = try await model.calibrationReport { Console.shared.progress("measuring", done: $0, of: $1) }
                Console.shared.finishProgress()
                // The rooflines of `analyze` come from the same machine; they are measured once and kept.
                let ceilings = try? MachineCeilings.load(threads: model.threads).ceilings
                print(try json ? CalibrationText(report, ceilings).json() : CalibrationText(report, ceilings).text)
                if report.isDisturbed {
                    Console.shared.message("adallava: equal measurements differed by more than a third, so other programs ran; run this again on an idle machine")
                }
            }
        }
    }
}
