import AdaLLaVA
import Foundation

/// A model as the analyzer needs it: sizes, no weights.
package struct AnalyzedModel: Sendable {
    package let name: String
    package let configuration: ModelConfiguration
    /// The type of most bytes of the decoder's weights; `nil` for a shape without weights.
    package let weightType: ElementType?

    package init(name: String, configuration: ModelConfiguration, weightType: ElementType? = nil) {
        (self.name, self.configuration, self.weightType) = (name, configuration, weightType)
    }

    /// A request to this model with weights of the bits of its file: 16 for a shape without weights.
    package func settings(promptTokens: Int, generatedTokens: Int = 1) -> CostSettings {
        // The scales of blocks are read too.
        let bits = (weightType?.block).map { Double($0.bytes * 8) / Double($0.values) }
        return CostSettings(
            promptTokens: promptTokens, generatedTokens: generatedTokens, weightBits: bits.map { Int($0) } ?? 16, readWeightBits: bits)
    }

    /// The units in which a budget is spent; `nil` for models that always run whole.
    package var units: BudgetUnits? { configuration.budgetUnits }

    /// Published shapes. Those of LLaVA-1.5 carry AdaLLaVA's scheduler of whole layers, of which the first half always runs.
    package static let shapes: [AnalyzedModel] = [
        llava("llava-1.5-7b", hidden: 4096, intermediate: 11008, layers: 32, heads: 32),
        llava("llava-1.5-13b", hidden: 5120, intermediate: 13824, layers: 40, heads: 40),
        AnalyzedModel(
            name: "mistral-7b",
            configuration: ModelConfiguration(
                language: DecoderConfiguration(
                    vocabularySize: 32000, hiddenSize: 4096, intermediateSize: 14336, numHiddenLayers: 32, numAttentionHeads: 32,
                    numKeyValueHeads: 8, maxPositionEmbeddings: 32768))),
        AnalyzedModel(
            name: "tinyllama-1.1b",
            configuration: ModelConfiguration(
                language: DecoderConfiguration(
                    vocabularySize: 32000, hiddenSize: 2048, intermediateSize: 5632, numHiddenLayers: 22, numAttentionHeads: 32,
                    numKeyValueHeads: 4))),
        AnalyzedModel(
            name: "smollm2-135m",
            configuration: ModelConfiguration(
                language: DecoderConfiguration(
                    vocabularySize: 49152, hiddenSize: 576, intermediateSize: 1536, numHiddenLayers: 30, numAttentionHeads: 9,
                    numKeyValueHeads: 3, maxPositionEmbeddings: 8192, tieWordEmbeddings: true))),
    ]

    private static func llava(_ name: String, hidden: Int, intermediate: Int, layers: Int, heads: Int) -> AnalyzedModel {
        let tower = "openai/clip-vit-large-patch14-336"
        return AnalyzedModel(
            name: name,
            configuration: ModelConfiguration(
                language: DecoderConfiguration(
                    vocabularySize: 32000, hiddenSize: hidden, intermediateSize: intermediate, numHiddenLayers: layers,
                    numAttentionHeads: heads, maxPositionEmbeddings: 4096),
                vision: VisionConfiguration.published(tower),
                llava: LlavaConfiguration(projector: .mlp(layers: 2), visionTowerReference: tower, towerInside: false),
                adaptive: AdaptiveConfiguration(schedulerType: .layers, schedulerRank: 1, numPrefixLayers: layers / 2)))
    }

    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package static func shape(_ name: String) throws -> AnalyzedModel {
        if let found = shapes.first(where: { $0.name == name.lowercased() }) { return found }
        throw EvaluationError.argument(
            name: "--shape", expected: "one of \(shapes.map(\.name).joined(separator: ", "))",
            found: String(name.prefix(80)))
    }

    /// The model that a `config.json` describes. A vision tower that it only names is known if it is one of CLIP's published ones.
    /// - Throws: `CheckpointError`
    package init(configuration url: URL) throws {
        var configuration = try ModelConfiguration.read(JSONValue.read(contentsOf: url), file: url.path)
        if configuration.vision == nil, let tower = configuration.llava?.visionTowerReference {
            configuration.vision = VisionConfiguration.published(tower)
        }
        self.init(name: url.deletingLastPathComponent().lastPathComponent, configuration: configuration)
    }

    /// The model of a checkpoint; its weights are not read.
    /// - Throws: `CheckpointError`
    package init(checkpoint url: URL) throws {
        let checkpoint = try Checkpoint.open(at: url)
        var bytes: [ElementType: Int] = [:]
        for name in checkpoint.language.names {
            if let tensor = checkpoint.language.find(name) { bytes[tensor.type, default: 0] += tensor.bytes.count }
        }
        self.init(
            name: HuggingFaceCache.displayName(of: url), configuration: checkpoint.configuration,
            weightType: bytes.max { ($0.value, $0.key.rawValue) < ($1.value, $1.key.rawValue) }?.key)
    }

    /// The same model with another selection of image tokens.
    /// - Throws: ``TokenSelectionError``, `CheckpointError`
    package func selecting(_ selection: TokenSelection) throws -> AnalyzedModel {
        AnalyzedModel(name: name, configuration: try configuration.selecting(selection, name: name), weightType: weightType)
    }

    /// The same model with another scheduler, as if it had been trained with it.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package func scheduled(type: AdaptiveConfiguration.SchedulerType?, rank: Int?, prefixLayers: Int?) throws -> AnalyzedModel {
        if type == nil, rank == nil, prefixLayers == nil { return self }
        let language = configuration.language
        var adaptive = configuration.adaptive
            ?? AdaptiveConfiguration(schedulerType: .layers, schedulerRank: 1, numPrefixLayers: language.numHiddenLayers / 2)
        if let type { adaptive.schedulerType = type }
        if let rank { adaptive.schedulerRank = rank }
        if let prefixLayers { adaptive.numPrefixLayers = prefixLayers }
        guard adaptive.numPrefixLayers >= 1, adaptive.numPrefixLayers < language.numHiddenLayers else {
            throw EvaluationError.argument(
                name: "--prefix-layers", expected: "1 to \(language.numHiddenLayers - 1), for there are \(language.numHiddenLayers) layers",
                found: "\(adaptive.numPrefixLayers)")
        }
        let switches = adaptive.switchesPerLayer(language)
        guard (1 ... switches).contains(adaptive.schedulerRank) else {
            throw EvaluationError.argument(
                name: "--rank", expected: "1 to the \(switches) attention \(adaptive.switchesKeyValueGroups ? "groups" : "heads")", found: "\(adaptive.schedulerRank)")
        }
        var changed = configuration
        changed.adaptive = adaptive
        return AnalyzedModel(name: name, configuration: changed, weightType: weightType)
    }
}
