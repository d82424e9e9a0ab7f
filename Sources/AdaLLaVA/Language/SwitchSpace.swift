/// The switches of each layer of a decoder, and the heads and neurons of each (docs/architecture.md). Schedulers, plans and budgets speak of switches by number;
/// only here does a number become query heads and neurons.
package struct SwitchSpace: Sendable, Equatable {
    /// The switches of one layer.
    package struct Layer: Sendable, Equatable {
        /// Query heads of each attention switch: one, or all that share a key-value head. In a layer with a convolution its channels: as equal shares of
        /// them as there are switches, with their rows of the three projections, their taps and their columns of the output projection.
        package let heads: [Range<Int>]
        /// Neurons of each MLP switch.
        package let neurons: [Range<Int>]
        /// How the layer mixes positions.
        package let kind: DecoderLayerKind
    }

    /// One entry a layer. Every layer has as many switches as the others.
    package let layers: [Layer]
    /// Attention switches of a layer, and as many MLP switches.
    package var switchesPerLayer: Int { layers.first?.neurons.count ?? 0 }

    /// Every attention head a switch, or every group of heads that share keys and values, and as many groups of MLP neurons.
    /// - Parameter grouped: whether a switch is a group of heads that share a key-value head.
    package init(_ c: DecoderConfiguration, grouped: Bool) {
        let switches = grouped ? c.numKeyValueHeads : c.numAttentionHeads
        let perSwitch = c.numAttentionHeads / max(switches, 1)
        let heads = (0 ..< switches).map { $0 * perSwitch ..< ($0 + 1) * perSwitch }
        let neurons = (0 ..< switches).map { SwitchSpace.neurons(group: $0, of: switches, intermediateSize: c.intermediateSize) }
        let channels = (0 ..< switches).map { SwitchSpace.neurons(group: $0, of: switches, intermediateSize: c.hiddenSize) }
        layers = (0 ..< c.numHiddenLayers).map { layer in
            let kind = c.kind(layer)
            return Layer(heads: kind == .convolution ? channels : heads, neurons: neurons, kind: kind)
        }
    }

    /// The neurons of MLP group `group`: `intermediate / groups` each, the first `intermediate % groups` groups one more.
    package static func neurons(group: Int, of groups: Int, intermediateSize: Int) -> Range<Int> {
        let (size, extra) = (intermediateSize / groups, intermediateSize % groups)
        let first = group * size + min(group, extra)
        return first ..< first + size + (group < extra ? 1 : 0)
    }
}
