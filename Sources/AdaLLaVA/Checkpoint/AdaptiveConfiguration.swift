/// The fields that make a checkpoint adaptive: the scheduler and the prefix layers (AdaLLaVA, Xu et al., ICCV 2025).
package struct AdaptiveConfiguration: Sendable, Equatable {
    /// The switches that the scheduler decides.
    package enum SchedulerType: String, Sendable {
        /// Switches whole layers.
        case layers = "L"
        /// Switches attention heads and groups of MLP neurons.
        case heads = "H"
    }

    /// Whether it switches layers, or heads and neuron groups.
    package var schedulerType: SchedulerType
    /// Heads, and as many neuron groups, that one unit turns on (H); not used by L.
    package var schedulerRank: Int
    /// Layers at the front that always run.
    package var numPrefixLayers: Int
    /// Whether an attention switch is a whole group of heads that share keys and values (H), and there are as many neuron groups: with grouped-query
    /// attention a dropped query head alone saves no keys. Not part of the reference; absent means a switch for each query head.
    package var switchesKeyValueGroups = false
    /// Whether the checkpoint has a budget head, which budgets of `auto` ask. Not part of the reference.
    package var hasBudgetHead = false

    /// Attention switches of a layer, and as many MLP switches.
    package func switchesPerLayer(_ language: DecoderConfiguration) -> Int {
        switchesKeyValueGroups ? language.numKeyValueHeads : language.numAttentionHeads
    }

    /// A configuration given by value.
    package init(
        schedulerType: SchedulerType, schedulerRank: Int, numPrefixLayers: Int, switchesKeyValueGroups: Bool = false, hasBudgetHead: Bool = false
    ) {
        (self.schedulerType, self.schedulerRank, self.numPrefixLayers) = (schedulerType, schedulerRank, numPrefixLayers)
        (self.switchesKeyValueGroups, self.hasBudgetHead) = (switchesKeyValueGroups, hasBudgetHead)
    }

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    func validate(for language: DecoderConfiguration, file: String) throws {
        guard numPrefixLayers >= 1, numPrefixLayers < language.numHiddenLayers else {
            throw CheckpointError.configuration(
                field: "num_prefix_layers",
                expected: "from 1 to \(language.numHiddenLayers - 1), for there are \(language.numHiddenLayers) layers",
                found: "\(numPrefixLayers)", file: file)
        }
        guard schedulerType == .heads else { return }
        let switches = switchesPerLayer(language)
        guard schedulerRank <= switches else {
            throw CheckpointError.configuration(
                field: "scheduler_rank", expected: "at most the \(switches) attention switches of a layer", found: "\(schedulerRank)",
                file: file)
        }
        guard language.intermediateSize >= switches else {
            throw CheckpointError.configuration(
                field: "intermediate_size", expected: "at least one neuron for each of the \(switches) groups",
                found: "\(language.intermediateSize)", file: file)
        }
    }

    init(_ fields: ConfigurationFields) throws {
        guard let type = try fields.optionalString("scheduler_type").flatMap(SchedulerType.init) else {
            throw fields.invalid("scheduler_type", expected: "L or H")
        }
        self.init(
            schedulerType: type,
            schedulerRank: try fields.integer("scheduler_rank", in: ConfigurationLimits.heads, missing: type == .layers ? 1 : nil),
            numPrefixLayers: try fields.integer("num_prefix_layers", in: ConfigurationLimits.layers, missing: nil),
            switchesKeyValueGroups: try fields.bool("scheduler_kv_groups", missing: false),
            hasBudgetHead: try fields.bool("budget_head", missing: false))
    }
}
