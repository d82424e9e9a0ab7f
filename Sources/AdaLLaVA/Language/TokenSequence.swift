import AdaKernels

/// One request's state in the decoder: keys and values, and the selection, by layer.
///
/// Slots are filled in ascending order. They are the same in every layer that runs, unless rows are ``dropped`` from some layer on. A position is where a
/// token stands for the rotary embedding.
package final class TokenSequence {
    let decoder: Decoder
    /// Pages of the layers that ran.
    private(set) var layers: [LayerPages?]
    /// States of convolutions, of the layers that ran.
    private(set) var convolutions: [ConvolutionState?]
    /// Selection of each layer; whole until a plan is made.
    private(set) var selections: [LayerSelection]
    /// Positions of the prompt, the latency token's included: from which length-dependent rotary scalings take their frequencies.
    package var promptLength = 0
    /// Rows of the prompt that the layers from one on do not have; later rows' slots are so many less there.
    private(set) var dropped: (layer: Int, rows: Int)?
    /// Slots that the last ``reserve(_:role:layers:layout:_:)`` reserved.
    private var ready = (layers: 0 ..< 0, slots: 0 ..< 0)

    package init(_ decoder: Decoder) {
        self.decoder = decoder
        layers = Array(repeating: nil, count: decoder.layers.count)
        convolutions = Array(repeating: nil, count: decoder.layers.count)
        selections = Array(repeating: decoder.whole, count: decoder.layers.count)
    }

    /// Sets the selections of the layers from `first` on.
    package func select(_ selections: [LayerSelection], from first: Int) {
        for (index, selection) in selections.enumerated() { self.selections[first + index] = selection }
        ready = (0 ..< 0, 0 ..< 0)
    }

    /// Leaves rows of the prompt out from a layer on, which has no slots yet.
    func drop(rows: Int, from layer: Int) { dropped = (layer, rows) }

    /// Slots of a layer that hold `length` positions.
    func slots(_ length: Int, in layer: Int) -> Int {
        guard let dropped, layer >= dropped.layer else { return length }
        return max(length - dropped.rows, 0)
    }

    /// Takes over another sequence's results for the slots below `length` in some layers.
    func share(_ entry: PromptState, layers range: Range<Int>, length: Int) {
        for layer in range {
            layers[layer] = entry.pages[layer].map { LayerPages(sharing: $0, length: length) }
            convolutions[layer] = entry.convolutions[layer].map { ConvolutionState(sharing: $0, length: length) }
        }
        ready = (0 ..< 0, 0 ..< 0)
    }

    /// Makes sure that keys and values of `slots` can be written in those of `layers` that attend, and of the slots up to the next panel's beginning: of 16
    /// tokens of an answer the first one does the work. Slots are those of the first of the layers.
    /// Pages before a window are returned.
    /// - Throws: ``ComputeError/memory(what:bytes:used:limit:)``
    func reserve(_ slots: Range<Int>, role: RowRole, layers range: Range<Int>, layout: KeyValueLayout, _ pool: PagePool) throws {
        if ready.layers == range, ready.slots.lowerBound <= slots.lowerBound, slots.upperBound <= ready.slots.upperBound { return }
        let panel = Int(AK_PANEL), c = decoder.configuration
        // Where rows are dropped within these layers, panels begin at other slots after the drop.
        let drop = dropped.flatMap { range.lowerBound < $0.layer ? $0 : nil }
        func end(_ slots: Range<Int>) -> Int { (slots.upperBound + panel - 1) / panel * panel }
        func shifted(by rows: Int) -> Range<Int> { slots.lowerBound - rows ..< slots.upperBound - rows }
        for layer in range where selections[layer].runsAttention {
            let slots = shifted(by: drop.map { layer >= $0.layer ? $0.rows : 0 } ?? 0)
            if c.kind(layer) == .convolution {
                let state = convolutions[layer] ?? ConvolutionState(channels: c.hiddenSize, taps: c.convolutionTaps)
                convolutions[layer] = state
                try state.reserve(slots.lowerBound ..< end(slots), keepsEnd: role == .chunk, pool)
                continue
            }
            let pages = layers[layer] ?? LayerPages(heads: selections[layer].keyValueHeads, layout: layout)
            layers[layer] = pages
            try pages.reserve(slots, window: c.window(layer) ?? 0, pool)
        }
        let rows = drop.map { range.contains($0.layer) ? $0.rows : 0 } ?? 0
        ready = (range, slots.lowerBound ..< min(end(slots), end(shifted(by: rows)) + rows))
    }

    /// Takes back the slots from `length` on: their pages are returned, and slots in the last one are filled anew before they are read.
    func truncate(to length: Int) {
        for layer in layers.indices { layers[layer]?.truncate(to: slots(length, in: layer)) }
        ready = (0 ..< 0, 0 ..< 0)
    }

    /// Results that later requests can use, layer by layer.
    var state: PromptState { PromptState(pages: layers, convolutions: convolutions) }

    /// Lets others go on after the last slot too, once no more slots follow.
    func seal() { for state in convolutions { state?.seal() } }

    /// Bytes of keys, values and convolution states.
    var keyValueBytes: Int { state.byteCount }
}

/// Results for a sequence's slots, by layer: pages where attention ran, states of convolutions.
struct PromptState {
    var pages: [LayerPages?]
    var convolutions: [ConvolutionState?]

    var byteCount: Int {
        pages.reduce(0) { $0 + ($1?.byteCount ?? 0) } + convolutions.reduce(0) { $0 + ($1?.byteCount ?? 0) }
    }

    /// The layers' states up to `count` only.
    func prefix(_ count: Int) -> PromptState {
        PromptState(
            pages: pages.enumerated().map { $0 < count ? $1 : nil }, convolutions: convolutions.enumerated().map { $0 < count ? $1 : nil })
    }

    /// The most slots, at most `length`, after which a sequence can go on in all of `layers`; 0 if in none.
    func longest(_ length: Int, layers: [Int], _ c: DecoderConfiguration) -> Int {
        var length = length
        for layer in layers where c.kind(layer) == .convolution { length = convolutions[layer]?.longest(length) ?? 0 }
        let holds = layers.allSatisfy { layer in
            if c.kind(layer) == .convolution { return convolutions[layer]?.longest(length) == length }
            return pages[layer]?.holds(length, window: c.window(layer) ?? 0) ?? false
        }
        return holds ? length : 0
    }
}
