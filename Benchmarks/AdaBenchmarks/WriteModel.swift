import AdaLLaVA
import ArgumentParser
import Foundation

/// Which random model is measured.
struct ModelOptions: ParsableArguments {
    @Option(help: "The decoder's shape: \(ModelShape.allCases.map(\.rawValue).joined(separator: ", ")).")
    var shape = ModelShape.smollm2

    @Option(help: "The weights' type: \(RandomModel.types.map(\.rawValue).joined(separator: ", ")).")
    var type = "q8_0"

    @Option(help: "Number of prefix layers; by default half of them.")
    var prefixLayers: Int?

    @Option(help: "Heads and neuron groups in one unit of variant H.")
    var rank = 1

    @Option(help: "The same seed gives the same weights.")
    var seed: UInt64 = 1

    @Option(help: "The folder where models are kept between runs.")
    var folder = "build/models/random"

    func validate() throws {
        guard ElementType(rawValue: type).map(RandomModel.types.contains) == true else {
            throw ValidationError("--type: expected \(RandomModel.types.map(\.rawValue).joined(separator: ", ")), found '\(type)'")
        }
        let layers = shape.configuration.numHiddenLayers
        if let prefixLayers, !(1 ..< layers).contains(prefixLayers) {
            throw ValidationError("--prefix-layers: expected 1 to \(layers - 1), found \(prefixLayers)")
        }
        let heads = shape.configuration.numAttentionHeads
        if !(1 ... heads).contains(rank) { throw ValidationError("--rank: expected 1 to \(heads), found \(rank)") }
    }

    /// The scheduler's configuration.
    func adaptive(_ variant: AdaptiveConfiguration.SchedulerType) -> AdaptiveConfiguration {
        AdaptiveConfiguration(schedulerType: variant, schedulerRank: rank, numPrefixLayers: prefixLayers ?? shape.configuration.numHiddenLayers / 2)
    }

    /// The file of this model with the scheduler of `variant`; written first if it is not there.
    /// - Parameter variant: `nil` for a model without a scheduler.
    func file(_ variant: AdaptiveConfiguration.SchedulerType?) throws -> URL {
        guard let type = ElementType(rawValue: type) else { throw ValidationError("--type: '\(type)' is unknown") }
        let language = shape.configuration
        let adaptive = variant.map(adaptive)
        let parts = adaptive.map { ["\($0.schedulerType.rawValue)\($0.numPrefixLayers)", "rank\(rank)"] } ?? ["plain"]
        let name = ([shape.rawValue, type.rawValue] + parts + ["seed\(seed)"]).joined(separator: "-") + ".gguf"
        let url = URL(fileURLWithPath: folder).appendingPathComponent(name)
        if !FileManager.default.fileExists(atPath: url.path) {
            note("writing \(name)")
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try RandomModel(language: language, adaptive: adaptive, type: type, seed: seed).write(to: url)
        }
        return url
    }
}

extension AdaptiveConfiguration.SchedulerType: ExpressibleByArgument {}

struct WriteModel: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "write-model", abstract: "Write a model with random weights and print its path.")

    @OptionGroup var model: ModelOptions

    @Option(help: "L or H; none for a model without a scheduler.")
    var variant: AdaptiveConfiguration.SchedulerType?

    func run() throws { print(try model.file(variant).path) }
}
