import AdaKernels

/// Keys and values of one decoder layer, only of the heads that run.
///
/// Keys lie in panels of 16 positions and values row by row, as `ak_kernels.attention` reads them.
final class LayerCache {
    /// The key-value heads that are kept, ascending.
    let heads: [Int]
    let headDim: Int
    let capacity: Int
    let type: ak_type
    private let keys: AlignedMemory
    private let values: AlignedMemory
    private let keyBytes: Int
    private let valueBytes: Int

    init(heads: [Int], headDim: Int, capacity: Int, type: ak_type, in arena: HugePageArena? = nil) {
        (self.heads, self.headDim, self.type) = (heads, headDim, type)
        self.capacity = (capacity + 15) / 16 * 16
        let element = Int(ak_type_bytes(type))
        keyBytes = self.capacity * headDim * element
        valueBytes = self.capacity * Int(ak_value_width(Int32(headDim))) * element
        // Zeroed: kernels read the padding of the last panel, whose values must be finite.
        func zeroed(_ bytes: Int) -> AlignedMemory {
            guard let memory = arena?.allocate(byteCount: bytes) else { return AlignedMemory(byteCount: bytes) }
            memory.address.initializeMemory(as: UInt8.self, repeating: 0, count: memory.byteCount)
            return memory
        }
        keys = zeroed(heads.count * keyBytes)
        values = zeroed(heads.count * valueBytes)
    }

    /// Memory of the `index`-th kept head.
    func keys(_ index: Int) -> UnsafeMutableRawPointer { keys.address + index * keyBytes }
    func values(_ index: Int) -> UnsafeMutableRawPointer { values.address + index * valueBytes }

    /// What attention over the first `positions` positions reads first, as threads take it (`Backend.attend`): a span of each head, or the spans of a
    /// single head.
    func expected(positions: Int) -> [ak_expected] {
        let panels = (positions + Int(AK_PANEL) - 1) / Int(AK_PANEL)
        let span = min(panels * Int(AK_PANEL), Int(AK_ATTENTION_SPAN))
        func part(_ memory: AlignedMemory, _ bytes: Int) -> ak_expected {
            let spanBytes = bytes / capacity * span
            let (stride, pieces) = heads.count > 1 ? (bytes, heads.count) : (spanBytes, panels * Int(AK_PANEL) / span)
            return ak_expected(base: memory.address, stride: stride, bytes: spanBytes, pieces: Int32(pieces))
        }
        return panels > 0 ? [part(keys, keyBytes), part(values, valueBytes)] : []
    }

    var byteCount: Int { heads.count * (keyBytes + valueBytes) }
}

/// The keys and values of one sequence: a cache for each layer that runs, `nil` for layers that the plan skips.
final class KeyValueCache {
    var layers: [LayerCache?]
    /// The way of one token through each layer, from the first token on that goes it.
    var passes: [TokenPass?]
    /// Positions that every sequence position of this request may take.
    let capacity: Int
    /// Where the layers' caches lie.
    let memory: HugePageArena

    /// - Parameter spares: of earlier sequences.
    init(layerCount: Int, capacity: Int, spares: SpareSlabs? = nil) {
        memory = HugePageArena(slabBytes: 8 << 20, spares: spares)
        (layers, passes) = (Array(repeating: nil, count: layerCount), Array(repeating: nil, count: layerCount))
        self.capacity = capacity
    }

    var byteCount: Int { layers.reduce(0) { $0 + ($1?.byteCount ?? 0) } }
}
