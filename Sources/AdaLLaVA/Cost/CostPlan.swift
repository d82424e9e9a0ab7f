/// The parts of one decoder layer that run, as the counts that its cost depends on.
package struct LayerShare: Sendable, Hashable {
    /// Attention switches that are on: heads, or groups of heads that share keys and values.
    package let switches: Int
    /// Query heads.
    package let heads: Int
    /// Heads of keys and values that some kept head reads.
    package let keyValueHeads: Int
    /// Channels of a convolution in attention's place.
    package let channels: Int
    /// MLP neuron groups, and the neurons in them.
    package let groups: Int
    package let neurons: Int
    /// How the layer mixes positions.
    package let kind: DecoderLayerKind

    package var isSkipped: Bool { !runsMixer && groups == 0 }

    /// Whether attention, or the convolution in its place, runs.
    package var runsMixer: Bool { heads > 0 || channels > 0 }

    /// - Parameters:
    ///   - attention: attention switches that are on.
    ///   - groups: MLP switches that are on.
    ///   - layer: the layer's switches.
    package init(attention: [Int], groups: [Int], of layer: SwitchSpace.Layer, _ language: DecoderConfiguration) {
        let perKeyValueHead = max(1, language.numAttentionHeads / max(1, language.numKeyValueHeads))
        let kept = attention.flatMap { Array(layer.heads[$0]) }
        switches = attention.count
        let isConvolution = layer.kind == .convolution
        (heads, channels) = isConvolution ? (0, kept.count) : (kept.count, 0)
        keyValueHeads = isConvolution ? 0 : Set(kept.map { $0 / perKeyValueHead }).count
        self.groups = groups.count
        neurons = groups.reduce(0) { $0 + layer.neurons[$1].count }
        kind = layer.kind
    }

    /// So many switches, the first ones: where only counts are known, keys and values are shared as well as they can be.
    package init(attention: Int, groups: Int, of layer: SwitchSpace.Layer, _ language: DecoderConfiguration) {
        self.init(attention: Array(0 ..< attention), groups: Array(0 ..< groups), of: layer, language)
    }
}

/// The shares of all decoder layers.
package struct CostPlan: Sendable, Equatable {
    package let shares: [LayerShare]
    /// Units beyond the prefix that a budget granted; `nil` for a plan given as such.
    package let units: Int?

    /// Whether the budget is below the cost of the prefix layers, which always run.
    package let isBelowFloor: Bool

    package init(shares: [LayerShare], units: Int? = nil, isBelowFloor: Bool = false) {
        (self.shares, self.units, self.isBelowFloor) = (shares, units, isBelowFloor)
    }

    /// - Parameter counts: of each layer, attention switches and MLP switches that are on.
    package init(
        counts: [(attention: Int, groups: Int)], of configuration: ModelConfiguration, units: Int? = nil, isBelowFloor: Bool = false
    ) {
        let shares = zip(counts, configuration.switchSpace.layers).map { count, layer in
            LayerShare(attention: count.attention, groups: count.groups, of: layer, configuration.language)
        }
        self.init(shares: shares, units: units, isBelowFloor: isBelowFloor)
    }

    /// Everything runs.
    package init(whole configuration: ModelConfiguration) {
        let space = configuration.switchSpace
        self.init(
            counts: Array(repeating: (space.switchesPerLayer, space.switchesPerLayer), count: space.layers.count), of: configuration,
            units: configuration.budgetUnits.map { $0.total - $0.prefix })
    }

    /// The plan of a number of units. The scheduler's choice of switches depends on the input, but with whole layers only their number matters for
    /// the cost; with heads the units are spread evenly over the layers after the prefix.
    /// - Parameter units: units beyond the prefix, at most those that there are.
    package init(units: Int, of configuration: ModelConfiguration, isBelowFloor: Bool = false) {
        guard let adaptive = configuration.adaptive else {
            self.init(whole: configuration)
            return
        }
        let space = configuration.switchSpace
        let (all, prefix) = (space.switchesPerLayer, adaptive.numPrefixLayers)
        let optional = space.layers.count - prefix
        let counts = space.layers.indices.map { layer -> (attention: Int, groups: Int) in
            if layer < prefix { return (all, all) }
            let place = layer - prefix
            switch adaptive.schedulerType {
            case .layers: return place < units ? (all, all) : (0, 0)
            case .heads:
                // A layer takes units until its switches are all on; the last unit of a layer may find fewer than `rank` of them left.
                let count = min(all, (units / optional + (place < units % optional ? 1 : 0)) * adaptive.schedulerRank)
                return (count, count)
            }
        }
        self.init(counts: counts, of: configuration, units: units, isBelowFloor: isBelowFloor)
    }

    /// Layers of which the same share runs, each share once, in the order of their first layer; dropped layers are left out.
    /// - Parameter split: layers from this one on are kinds of their own.
    package func kinds(split: Int = .max) -> [(share: LayerShare, layers: [Int])] {
        var kinds: [(share: LayerShare, layers: [Int])] = []
        var places: [LayerShare: Int] = [:]
        for (layer, share) in shares.enumerated() where !share.isSkipped {
            if layer == split { places = [:] }
            if let place = places[share] {
                kinds[place].layers.append(layer)
            } else {
                places[share] = kinds.count
                kinds.append((share, [layer]))
            }
        }
        return kinds
    }
}
