import AdaKernels
import Foundation

/// A scheduler with random weights for a model that has none: to measure times and plans of an adaptive model before it is trained.
///
/// The weights are drawn as PyTorch initializes the reference's modules: uniform in ±1/√inputs for the linear maps, 1 and 0 for the normalization.
package struct UntrainedScheduler: Sendable {
    private let type: AdaptiveConfiguration.SchedulerType
    private let rank: Int
    private let prefixLayers: Int?
    private let seed: UInt64

    /// - Parameters:
    ///   - type: L or H.
    ///   - rank: heads that one unit turns on (H).
    ///   - prefixLayers: layers at the front that always run; `nil`: half of them.
    ///   - seed: where the random weights come from.
    package init(_ type: AdaptiveConfiguration.SchedulerType, rank: Int = 1, prefixLayers: Int? = nil, seed: UInt64 = 0) {
        (self.type, self.rank, self.prefixLayers, self.seed) = (type, rank, prefixLayers, seed)
    }

    func configuration(_ language: DecoderConfiguration) -> AdaptiveConfiguration {
        AdaptiveConfiguration(
            schedulerType: type, schedulerRank: rank, numPrefixLayers: prefixLayers ?? max(1, language.numHiddenLayers / 2))
    }

    /// The tensors, each with the inputs of its map; 0 for a normalization's.
    private func tensors(_ language: DecoderConfiguration) -> [(name: String, shape: [Int], inputs: Int)] {
        let configuration = configuration(language)
        let optional = language.numHiddenLayers - configuration.numPrefixLayers, hidden = language.hiddenSize
        let outputs = configuration.schedulerType == .layers ? optional : optional * 2 * configuration.switchesPerLayer(language)
        let (encoder, width) = ("scheduler.scheduler_up_proj.net.", LatencyEncoder.width)
        return [
            (encoder + "0.weight", [width], 0), (encoder + "0.bias", [width], 0),
            (encoder + "1.weight", [hidden, width], width), (encoder + "1.bias", [hidden], width),
            (encoder + "3.weight", [hidden, hidden], hidden), (encoder + "3.bias", [hidden], hidden),
            ("scheduler.mlp_head.weight", [outputs, hidden], hidden), ("scheduler.mlp_head.bias", [outputs], hidden),
        ]
    }

    func descriptions(_ language: DecoderConfiguration, type: ElementType) -> [TensorDescription] {
        tensors(language).map { TensorDescription(name: $0.name, type: type, shape: $0.shape) }
    }

    /// Writes the tensor if it is one of the scheduler's.
    /// - Returns: whether it is.
    func write(_ description: TensorDescription, _ language: DecoderConfiguration, to sink: TensorSink) throws -> Bool {
        let all = tensors(language)
        guard let index = all.firstIndex(where: { $0.name == description.name }), let type = description.type.kernelType else { return false }
        let tensor = all[index], count = tensor.shape.reduce(1, *)
        var random = SplitMix64(seed: seed &* 64 &+ UInt64(index))
        let bound = tensor.inputs > 0 ? 1 / Double(tensor.inputs).squareRoot() : 0
        let middle: Double = tensor.inputs == 0 && tensor.name.hasSuffix("weight") ? 1 : 0
        let values = (0 ..< count).map { _ in Float(middle + (2 * random.unit() - 1) * bound) }
        var bytes = [UInt8](repeating: 0, count: description.type.bytes(for: count) ?? 0)
        bytes.withUnsafeMutableBytes { out in
            if let start = out.baseAddress { _ = ak_quantize(start, type, values, Int64(count)) }
        }
        try bytes.withUnsafeBytes { try sink.write($0) }
        return true
    }

    /// Makes a `config.json` that of an adaptive model. One with parts in objects of their own, as transformers writes models of images, keeps its type.
    func adapt(_ json: JSONValue, _ language: DecoderConfiguration) -> JSONValue {
        guard case .object(var members) = json else { return json }
        let configuration = configuration(language), name = language.architecture.fileDescription.llavaName
        if members["vision_config"] == nil, members["text_config"] == nil {
            members["model_type"] = .string("ada_llava_\(name)")
            members["architectures"] = .array([.string("AdaLlava\(name.prefix(1).uppercased() + name.dropFirst())ForCausalLM")])
        }
        members["scheduler_type"] = .string(configuration.schedulerType.rawValue)
        members["scheduler_rank"] = .integer(configuration.schedulerRank)
        members["num_prefix_layers"] = .integer(configuration.numPrefixLayers)
        return .object(members)
    }
}
