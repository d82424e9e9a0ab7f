import AdaKernels

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
    /// What the last ``reserve(_:layers:layout:_:)`` made ready.
    private var ready = (layers: 0 ..< 0, slots: 0 ..< 0)

    package init(_ decoder: Decoder) {
        self.decoder = decoder
        layers = Array(repeating: nil, count: decoder.layers.count)
        selections = Array(repeating: decoder.whole, count: decoder.layers.count)
    }

    /// Sets what runs of the layers from `first` on.
    package func select(_ selections: [LayerSelection], from first: Int) {
        for (index, selection) in selections.enumerated() { self.selections[first + index] = selection }
        ready = (0 ..< 0, 0 ..< 0)
    }

    /// Takes over another sequence's pages of the slots below `length` in some layers.
    func share(_ pages: [LayerPages?], layers range: Range<Int>, length: Int) {
        for layer in range { layers[layer] = pages[layer].map { LayerPages(sharing: $0, length: length) } }
        ready = (0 ..< 0, 0 ..< 0)
    }

    /// Makes sure that keys and values of `slots` can be written in those of `layers` that attend, and of the slots up to the next panel's beginning: of 16
    /// tokens of an answer the first one does the work.
    /// Pages that a window has left behind are given back.
    /// - Throws: ``ComputeError/memory(what:bytes:used:limit:)``
    func reserve(_ slots: Range<Int>, layers range: Range<Int>, layout: KeyValueLayout, _ pool: PagePool) throws {
        if ready.layers == range, ready.slots.lowerBound <= slots.lowerBound, slots.upperBound <= ready.slots.upperBound { return }
        for layer in range where selections[layer].runsAttention {
            let pages = layers[layer] ?? LayerPages(heads: selections[layer].keyValueHeads, layout: layout)
            layers[layer] = pages
            try pages.reserve(slots, window: decoder.configuration.window(layer) ?? 0, pool)
        }
        let panel = Int(AK_PANEL)
        ready = (range, slots.lowerBound ..< (slots.upperBound + panel - 1) / panel * panel)
    }

    /// Bytes of keys and values.
    var keyValueBytes: Int { layers.reduce(0) { $0 + ($1?.byteCount ?? 0) } }
}
