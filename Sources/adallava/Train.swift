import AdaImages
import AdaLLaVA
import AdaTraining
import ArgumentParser
import Foundation
import Synchronization

struct Train: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train a model from a recipe.",
        discussion: """
              adallava train recipe.yaml --set learning_rate=1e-4 --set output_dir=runs/a

            Needs libtorch: see --help-recipe for the fields, and scripts/build-adatorch.sh for the library. Several processes (torchrun, \
            Slurm, mpirun) train together. Ctrl-C saves a checkpoint first; the same command resumes from it.
            """)

    @Argument(help: "The recipe, a YAML file.")
    var recipe: String?

    @Option(name: .customLong("set"), help: ArgumentHelp("Replace a field of the recipe; may be given several times.", valueName: "key=value"))
    var changes: [String] = []

    @Flag(help: "Skip samples that cannot be used, and list them at the end.")
    var skipBadSamples = false

    @Flag(help: "Explain every field of a recipe.")
    var helpRecipe = false

    @Flag(help: "Print one JSON object at the end.")
    var json = false

    func run() async throws {
        try await reporting {
            if helpRecipe { return printNow(RecipeFields.help, terminator: "") }
            guard let path = recipe else { throw ValidationError("expected a recipe; --help-recipe explains its fields") }
            let recipe = try Recipe(
                contentsOf: URL(systemPath: path), changes: changes + (skipBadSamples ? ["skip_bad_samples=true"] : []))
            let launch = try Launch(environment: ProcessInfo.processInfo.environment)
            let summary = try await withInterruption { try await train(recipe, launch) }
            Console.shared.finishProgress()
            if launch.rank == 0 { try report(summary) }
            if summary.wasStopped { throw CancellationError() }
        }
    }

    private func train(_ recipe: Recipe, _ launch: Launch) async throws -> Trainer.Summary {
        let isCancelled = Atomic(false)
        return try await withTaskCancellationHandler {
            // A thread of its own: steps block for seconds.
            try await withCheckedThrowingContinuation { continuation in
                let thread = Thread {
                    continuation.resume(
                        with: Result {
                            let trainer = try Trainer(recipe, launch: launch)
                            if launch.rank == 0 {
                                let from = trainer.startStep > 0 ? ", resuming after step \(trainer.startStep)" : ""
                                Console.shared.message("\(trainer.totalSteps) steps\(from); \(trainer.description)")
                            }
                            return try trainer.run(
                                isCancelled: { isCancelled.load(ordering: .relaxed) }, damaged: DamagedImages { Console.shared.warn($0) }
                            ) { Console.shared.show($0) }
                        })
                }
                thread.stackSize = 16 << 20
                thread.start()
            }
        } onCancel: {
            isCancelled.store(true, ordering: .relaxed)
        }
    }

    private func report(_ summary: Trainer.Summary) throws {
        if json {
            printNow(try adallava.json(summary))
        } else {
            let done = summary.wasStopped ? "stopped after step \(summary.steps) of \(summary.totalSteps)" : "\(summary.steps) steps done"
            Console.shared.message(String(format: "%@, loss %.4f; saved in %@", done, summary.lastLoss, summary.folder))
        }
        if summary.damagedImages > 0 { Console.shared.message("\(summary.damagedImages) images were read although they are damaged") }
        if summary.skippedCount > 0 {
            Console.shared.message("\(summary.skippedCount) samples were skipped:\n" + summary.skippedSamples.joined(separator: "\n"))
        }
    }
}

extension Console {
    func show(_ p: TrainingProgress) {
        let recognized = (p.recognized ?? [:]).sorted { $0.key < $1.key }.map { String(format: ", %@ %.0f %%", $0.key, 100 * $0.value) }.joined()
        let detail = String(
            format: "step %d of %d, loss %.4f%@, learning rate %.3g, %.1f samples/s, %.0f tokens/s, %.2f GB", p.step, p.totalSteps, p.loss, recognized,
            p.learningRate, p.samplesPerSecond, p.tokensPerSecond, Double(p.memoryBytes) / 1e9)
        progress("training", done: p.step, of: p.totalSteps, detail: detail)
    }
}
