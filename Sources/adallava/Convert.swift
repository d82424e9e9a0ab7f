import AdaLLaVA
import ArgumentParser
import Foundation

struct Convert: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a checkpoint with its weights in another type.",
        discussion: """
            An output that ends in .gguf becomes a file that llama.cpp reads; the image part of a LLaVA becomes mmproj-NAME next to it, and a model that \
            llama.cpp cannot run becomes a single file. Any other output becomes a folder with safetensors in the source's \
            layout, for a GGUF text model in Hugging Face's (f16, bf16 and f32 only). An EfficientNet-Lite's PyTorch weights (.pth, or its folder) \
            become the folder of a vision tower. The output is opened again to check that it loads.
            """)

    @Argument(help: "A checkpoint folder, a .safetensors, a .gguf or an EfficientNet-Lite's .pth file.")
    var model: String

    @Argument(help: "The .gguf file or the folder to write.")
    var output: String

    @Option(help: "The weights' new type: \(CheckpointConverter.Target.allCases.map(\.rawValue).joined(separator: ", ")).")
    var to: CheckpointConverter.Target

    @OptionGroup var imagePart: ImagePartFlags

    @Option(
        help: ArgumentHelp(
            "Add an untrained scheduler, L or H, to a model that has none: its plans are random.", valueName: "variant"))
    var scheduler: AdaptiveConfiguration.SchedulerType?

    @Option(help: "Number of first layers that always run, with --scheduler; by default half of them.")
    var prefixLayers: Int?

    @Option(help: "Heads, and neuron groups, per unit, with --scheduler H.")
    var rank = 1

    @Option(help: "Seed of the new scheduler's random weights.")
    var seed: UInt64 = 0

    @Flag(help: "Replace an existing output.")
    var force = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if scheduler == nil, prefixLayers != nil { throw ValidationError("--prefix-layers says which layers a new scheduler leaves; add --scheduler L or H") }
        if rank < 1 { throw ValidationError("--rank \(rank): expected 1 or more heads") }
    }

    func run() async throws {
        try await reporting {
            let (source, destination) = (try ModelLocation.find(model), URL(systemPath: output))
            let converter: any WeightConverter =
                EfficientNetConverter.accepts(source)
                ? try EfficientNetConverter(source, to: to, output: destination, overwrites: force)
                : try CheckpointConverter(
                    source, projector: imagePart.projector, visionTower: imagePart.tower, to: to,
                    scheduler: scheduler.map { UntrainedScheduler($0, rank: rank, prefixLayers: prefixLayers, seed: seed) }, output: destination,
                    overwrites: force)
            let cancellation = Cancellation()
            let report = try await withInterruption {
                try await withTaskCancellationHandler {
                    try converter.run(cancellation: cancellation) { done, total in
                        Console.shared.progress("converting", done: done, of: total)
                    }
                } onCancel: {
                    cancellation.cancel()
                }
            }
            Console.shared.finishProgress()
            if json {
                printNow(try adallava.json(report.json(output: output, type: to)))
            } else {
                let others = report.files.dropFirst().map { ", its image part in \($0)" }.joined()
                Console.shared.message(String(format: "%@: %d tensors, %.1f MB%@", output, report.tensors, Double(report.bytes) / 1e6, others))
                if let note = report.note { Console.shared.message("note: " + note) }
            }
        }
    }
}

extension CheckpointConverter.Target: ExpressibleByArgument {}
