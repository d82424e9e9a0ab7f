/// The units in which a budget is spent (docs/architecture.md): layers for variant L, `schedulerRank` heads plus as many neuron groups of
/// one layer for variant H.
package struct BudgetUnits: Sendable, Equatable {
    /// Units of the whole model and of its prefix, which always runs.
    package let total: Int
    /// Units of the prefix layers, which always run.
    package let prefix: Int

    /// Units of a model given by number.
    package init(total: Int, prefix: Int) { (self.total, self.prefix) = (total, prefix) }

    /// - Parameter heads: attention switches of a layer.
    package init(_ adaptive: AdaptiveConfiguration, layers: Int, heads: Int) {
        switch adaptive.schedulerType {
        case .layers: (total, prefix) = (layers, adaptive.numPrefixLayers)
        case .heads:
            total = layers * heads / adaptive.schedulerRank
            prefix = adaptive.numPrefixLayers * heads / adaptive.schedulerRank
        }
    }

    /// Optional units that a fraction of full compute grants: `max(0, floor(total * fraction) - prefix)`, never more than there are.
    /// - Parameter precision: the type of the fraction and its product; rounding to 16 bits can lose a unit, or add one.
    package func granted(fraction: Float, in precision: LatencyPrecision = .float32) -> Int {
        let whole = precision.round(Float(total) * precision.round(fraction)).rounded(.down)
        guard whole > Float(prefix) else { return 0 }
        return Int(min(whole, Float(total))) - prefix
    }

    /// Input of the latency embedding: `units / (total - prefix + 1)`.
    package func normalized(_ units: Int, in precision: LatencyPrecision = .float32) -> Float {
        precision.round(Float(units) / Float(total - prefix + 1))
    }

    /// The floor: the prefix's fraction of the whole.
    package var floor: Double { Double(prefix) / Double(total) }
}

/// The float type that a latency is held in. We take float32; the reference, when its weights are of 16 bits, quantizes in their type.
package enum LatencyPrecision: String, Sendable, CaseIterable {
    case float32, float16, bfloat16

    /// Rounds to the nearest value of the type, ties to even, as if its exponent had no limits: budgets and units are well within them.
    func round(_ value: Float) -> Float {
        let dropped: UInt32
        switch self {
        case .float32: return value
        case .float16: dropped = 13
        case .bfloat16: dropped = 16
        }
        guard value.isFinite else { return value }
        let even = value.bitPattern >> dropped & 1
        let rounded = value.bitPattern + (1 << (dropped - 1)) - 1 + even
        return Float(bitPattern: rounded & ~((1 << dropped) - 1))
    }
}

extension AdaptiveConfiguration {
    /// Text about the switches that even a budget of 1 leaves off: with variant H a layer takes its switches in draws of `schedulerRank`, the last one
    /// smaller, but units are counted, as in the reference, as if the rank divided them. `nil` if it does.
    package func leftOut(_ language: DecoderConfiguration) -> String? {
        guard schedulerType == .heads else { return nil }
        let switches = switchesPerLayer(language)
        let units = BudgetUnits(self, layers: language.numHiddenLayers, heads: switches)
        let (paid, needed) = (units.total - units.prefix, (language.numHiddenLayers - numPrefixLayers) * ((switches + schedulerRank - 1) / schedulerRank))
        guard paid < needed else { return nil }
        return "a budget of 1 leaves switches out: scheduler_rank \(schedulerRank) does not divide the \(switches) of a layer, so that its units pay for \(paid) of the \(needed) draws that would run all layers whole"
    }
}

extension ModelConfiguration {
    /// The switches that plans turn.
    package var switchSpace: SwitchSpace { SwitchSpace(language, grouped: adaptive?.switchesKeyValueGroups ?? false) }

    /// The units in which a budget is spent; `nil` for models that always run whole.
    package var budgetUnits: BudgetUnits? {
        adaptive.map { BudgetUnits($0, layers: language.numHiddenLayers, heads: $0.switchesPerLayer(language)) }
    }
}
