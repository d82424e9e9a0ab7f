/// One request's state in the decoder: keys and values by layer, and what runs of each layer.
///
/// Slots are filled in ascending order, the same in every layer that runs. A position is where a token stands for the rotary embedding.
package final class TokenSequence {
    let decoder: Decoder
    /// Pages of the layers that ran.
    private(set) var layers: [LayerPages?]
    /// What runs of each layer; whole until a plan is made.
    private(set) var selections: [LayerSelection]
    /// Positions of the prompt, the latency token's included: what length-dependent rotary scalings take their frequencies from.
    package var promptLength = 0

    package init(_ decoder: Decoder) {
        self.decoder = decoder
        layers = Array(repeating: nil, count: decoder.layers.count)
        selections = Array(repeating: decoder.whole, count: decoder.layers.count)
    }

    /// Sets what runs of the layers from `first` on.
    package func select(_ selections: [LayerSelection], from first: Int) {
        for (index, selection) in selections.enumerated() { self.selections[first + index] = selection }
    }

    /// Takes over another sequence's pages of the slots below `length` in some layers.
    func share(_ pages: [LayerPages?], layers range: Range<Int>, length: Int) {
        for layer in range { layers[layer] = pages[layer].map { LayerPages(sharing: $0, length: length) } }
    }

    /// The pages of a layer, made for the heads that run.
    func pages(_ layer: Int, _ layout: KeyValueLayout) -> LayerPages {
        if let known = layers[layer] { return known }
        let made = LayerPages(heads: selections[layer].keyValueHeads, layout: layout)
        layers[layer] = made
        return made
    }

    /// Bytes of keys and values.
    var keyValueBytes: Int { layers.reduce(0) { $0 + ($1?.byteCount ?? 0) } }
}
