import AdaKernels

/// Events of one layer of a step, in time order.
package struct LayerEvent {
    let layer: Int
    /// Rows that went in, of all sequences.
    let rows: Int
    /// Keys that they attended to, added up over sequences.
    let keys: Int
    let nanoseconds: Int64
}

extension LayerEvent {
    fileprivate init(layer: Int, _ sequences: [SequenceRows], since start: ContinuousClock.Instant) {
        let elapsed = (ContinuousClock.now - start).components
        self.init(
            layer: layer, rows: sequences.reduce(0) { $0 + $1.rows.count }, keys: sequences.reduce(0) { $0 + $1.slot + $1.rows.count },
            nanoseconds: elapsed.seconds * 1_000_000_000 + elapsed.attoseconds / 1_000_000_000)
    }
}

/// Observer of a step. Called on the computing thread.
package protocol BatchObserver: AnyObject {
    /// A layer has ended.
    func layerEnded(_ event: LayerEvent)
    /// The hidden states of a segment after a layer.
    /// - Parameter rows: which of the segment's rows they are.
    func hiddenStates(layer: Int, segment: Int, rows: Range<Int>, _ hidden: Tensor)
    /// Whether ``hiddenStates(layer:segment:rows:_:)`` is to be called.
    var wantsValues: Bool { get }
    /// Attention weights of the last row of a segment; requested in layers that run whole.
    func attention(layer: Int, segment: Int, _ weights: AttentionWeights)
    /// Whether ``attention(layer:segment:_:)`` is to be called.
    func wantsAttention(layer: Int, segment: Int) -> Bool
}

/// Computes steps: rows of several sequences, each in its phase and under its plan, through the layers of one decoder. Each layer gathers the rows whose
/// plan keeps it and reads its weights once for all of them; attention runs per sequence over that sequence's pages.
///
/// Not `Sendable`: one thread at a time, as its workspace.
package final class BatchRunner {
    let decoder: Decoder
    let workspace: Workspace
    let pages: PagePool
    private let rotary: RotaryTable
    /// Angles in layers with a window, where those differ.
    private let localRotary: RotaryTable?
    private var prepared: [[(key: PreparedKey, layer: DecoderLayer.Prepared)]]
    private var generation = 0
    private var agreeing: [AgreeingRows] = []
    private var places: [RowPlace] = [], gathered: [RowPlace] = []
    /// Lists of one layer's rows, kept so that a decode allocates nothing between two layers.
    private var runningList: [Int] = [], groupList: [RowGroup] = [], sequenceList: [SequenceRows] = []
    private var logitsRuns: [Int: ProductRun] = [:]
    let keyValueType: KeyValueType
    private let layout: KeyValueLayout

    /// Rows of prompts that one step takes at most: an image of 576 and a question, so that weights are read, and where they are not of the activations'
    /// type converted, once.
    package static let chunk = 640

    init(_ decoder: Decoder, _ workspace: Workspace, pages: PagePool, keyValues: KeyValueType = .f16) {
        (self.decoder, self.workspace, self.pages) = (decoder, workspace, pages)
        rotary = RotaryTable(decoder.rotary, rotaryDim: decoder.configuration.rotaryDim)
        localRotary = decoder.localRotary.map { RotaryTable($0, rotaryDim: decoder.configuration.rotaryDim) }
        prepared = Array(repeating: [], count: decoder.layers.count)
        keyValueType = keyValues
        layout = decoder.layout(workspace.kernels.precision, keyValues)
    }

    private struct PreparedKey: Equatable {
        let groups: [RowGroup]
        /// First row of the batch, or −1 where rows are gathered.
        let first: Int
        let next: Int
        let nextSelection: LayerSelection?

        static func == (a: PreparedKey, b: PreparedKey) -> Bool {
            a.first == b.first && a.next == b.next && a.nextSelection === b.nextSelection && a.groups == b.groups
        }
    }

    /// A segment on its way through the layers. A class, so that passing it on at every layer counts one reference.
    /// Of single rows each passes by itself.
    private final class Passing {
        let index: Int
        let segment: BatchSegment
        let sequence: TokenSequence
        let role: RowRole
        /// Its rows in the batch that are still computed.
        var rows: Range<Int>
        /// The first of them among the segment's rows.
        var offset = 0
        /// After this layer only the rows that are read are computed.
        let lastAttention: Int

        init(index: Int, segment: BatchSegment, rows: Range<Int>, lastAttention: Int) {
            (self.index, self.segment, self.rows, self.lastAttention) = (index, segment, rows, lastAttention)
            (sequence, role) = (segment.sequence, segment.role)
        }

        /// Whether the segment has rows that a layer runs for.
        func runs(_ layer: Int) -> Bool { segment.layers.contains(layer) && !rows.isEmpty && !sequence.selections[layer].isSkipped }

        /// Its rows whose logits are wanted: the last ones of those that are still computed.
        var logitRows: Int {
            role == .chunk ? segment.logitRows : offset >= segment.rows - segment.logitRows ? 1 : 0
        }

        func drop(_ count: Int) {
            rows = rows.lowerBound + count ..< rows.upperBound
            offset += count
        }
    }

    /// Makes sure that a segment's keys and values fit. ``step(_:observer:)`` does so too; a caller with several sequences calls this first, so
    /// that a step cannot fail for one of them; the second time costs a comparison.
    /// - Throws: ``ComputeError/memory(what:bytes:used:limit:)``
    func reserve(_ segment: BatchSegment) throws {
        try segment.sequence.reserve(
            segment.slot ..< segment.slot + segment.rows, role: segment.role, layers: segment.layers, layout: layout, pages)
    }

    /// The same for slots that single rows fill one after the other. They may fill fewer: no page that the first one sees is returned.
    /// - Parameter layers: of which `slots` are those of the first.
    func reserve(_ sequence: TokenSequence, _ slots: Range<Int>, layers: Range<Int>) throws {
        try sequence.reserve(slots, role: .single, layers: layers, layout: layout, pages)
    }

    /// Bytes of keys and values that `positions` positions take in all layers, whole pages; where there is a window, those that it and a chunk see.
    func keyValueBytes(positions: Int) -> Int {
        let c = decoder.configuration
        return decoder.layers.indices.reduce(0) { sum, layer in
            if c.kind(layer) == .convolution {
                return sum + ConvolutionState.byteCount(channels: c.hiddenSize, taps: c.convolutionTaps, positions: positions)
            }
            let seen = c.window(layer).map { min($0 + BatchRunner.chunk, positions) } ?? positions
            return sum + (seen + KeyValueLayout.slots - 1) / KeyValueLayout.slots * layout.pageBytes(heads: c.numKeyValueHeads)
        }
    }

    /// Result of a step.
    package struct Output {
        /// `[rows wanted by all segments in their order, vocabulary]`, valid until the next step; `nil` if none are wanted.
        package let logits: Tensor?
        /// Of each segment its rows in ``logits``; empty where none were wanted, `nil` where the segment was cancelled.
        let rows: [Range<Int>?]

        /// The logits of a segment's rows that are wanted, `[rows, vocabulary]`.
        func all(_ segment: Int) -> Tensor? {
            guard let logits, let rows = rows[segment], !rows.isEmpty else { return nil }
            return logits.rows(rows)
        }

        /// The logits of a segment's last row, `[1, vocabulary]`.
        func last(_ segment: Int) -> Tensor? {
            guard let logits, let rows = rows[segment], !rows.isEmpty else { return nil }
            return logits.rows(rows.upperBound - 1 ..< rows.upperBound)
        }
    }

    /// Computes one step.
    /// - Throws: ``ComputeError/memory(what:bytes:used:limit:)`` when unreserved keys and values do not fit.
    package func step(_ segments: [BatchSegment], observer: (any BatchObserver)? = nil) throws -> Output {
        for segment in segments { try reserve(segment) }
        workspace.pool.enter()
        defer { workspace.pool.leave() }
        let c = decoder.configuration
        // Chunks first: activations of the two roles are separate.
        let order = segments.indices.filter { segments[$0].role == .chunk } + segments.indices.filter { segments[$0].role == .single }
        let count = segments.reduce(0) { $0 + $1.rows }
        let hidden = workspace.tensor(.rows, rows: count, columns: c.hiddenSize)
        places.removeAll(keepingCapacity: true)
        var angles: [RotaryTable.Angles] = []
        var passing: [Passing] = []
        for index in order {
            let segment = segments[index], first = places.count, rows = segment.rows
            switch segment.input {
            case .token(let token): try decoder.embed(token, into: hidden, row: first)
            case .tokens(let tokens): for (row, token) in tokens.enumerated() { try decoder.embed(token, into: hidden, row: first + row) }
            case .hidden(let tensor): hidden.copyRows(from: tensor, to: first)
            }
            angles += addPlaces(of: segment)
            let keepsAll = segment.output != nil || observer?.wantsValues == true
            let lastAttention = keepsAll ? Int.max : segment.layers.last { segment.sequence.selections[$0].runsAttention } ?? segment.layers.lowerBound
            let together = segment.role == .single ? 1 : rows
            for offset in stride(from: 0, to: max(rows, 1), by: max(together, 1)) {
                let part = Passing(index: index, segment: segment, rows: first + offset ..< first + offset + together, lastAttention: lastAttention)
                part.offset = offset
                passing.append(part)
            }
        }
        let layers = (segments.map(\.layers.lowerBound).min() ?? 0) ..< (segments.map(\.layers.upperBound).max() ?? 0)
        if let agreeing = findAgreeing(passing, hidden, observer) {
            run(agreeing, passing, observer)
        } else {
            for layer in layers {
                passing.removeAll { $0.segment.cancellation?.isCancelled == true }
                run(layer, passing, hidden, observer)
            }
        }
        withExtendedLifetime(angles) {}
        for part in passing {
            guard let output = part.segment.output else { continue }
            output.copyRows(from: hidden.rows(part.rows), to: part.offset)
        }
        return logits(passing, hidden, segments: segments.count)
    }

    /// Appends the places of a segment's rows.
    /// - Returns: the owners of their addresses.
    private func addPlaces(of segment: BatchSegment) -> [RotaryTable.Angles] {
        let rows = segment.rows, sections = decoder.configuration.ropeSections
        if let positions = segment.positions, !sections.isEmpty {
            let mixed = rotary.angles(positions, sections: sections, length: segment.sequence.promptLength)
            for row in 0 ..< rows { places.append(RowPlace(angles: mixed.row(row), local: mixed.row(row), slot: segment.slot + row)) }
            return [mixed]
        }
        if segment.role == .single, rows > 1, decoder.rotary.dependsOnSequenceLength {
            // Each row is turned as it would be alone.
            return (0 ..< rows).map { row in
                let position = segment.position(ofRow: row)
                let own = rotary.angles(position ..< position + 1, length: max(segment.sequence.promptLength, position + 1))
                places.append(RowPlace(angles: own.row(position), local: own.row(position), slot: segment.slot + row))
                return own
            }
        }
        let positions = segment.position(ofRow: 0) ..< segment.position(ofRow: rows - 1) + 1
        let own = rotary.angles(positions, length: max(segment.sequence.promptLength, positions.upperBound))
        // Frequencies of the local base never depend on the length.
        let local = localRotary?.angles(positions, length: positions.upperBound) ?? own
        for row in 0 ..< rows {
            let position = segment.position(ofRow: row)
            places.append(RowPlace(angles: own.row(position), local: local.row(position), slot: segment.slot + row))
        }
        return [own, local]
    }

    /// All layers for single rows with the same selections.
    private struct AgreeingRows {
        let rows: Int
        let layers: Range<Int>
        let selections: [LayerSelection]
        /// By layer; `nil` where nothing runs.
        let prepared: [DecoderLayer.Prepared?]
        let lines: CacheLineTable
        let generation: Int
    }

    /// The prepared layers of a batch of single rows with one selection in each layer, such as a lone sequence's token: then nothing has to be looked up,
    /// sorted or gathered between two layers. `nil` for other batches.
    private func findAgreeing(_ passing: [Passing], _ hidden: Tensor, _ observer: (any BatchObserver)?) -> AgreeingRows? {
        guard observer?.wantsValues != true, let first = passing.first else { return nil }
        let (layers, selections) = (first.segment.layers, first.sequence.selections)
        for part in passing {
            if part.role != .single || part.segment.layers != layers || part.segment.cancellation?.isCancelled == true { return nil }
            if part !== first, !layers.allSatisfy({ part.sequence.selections[$0] === selections[$0] }) { return nil }
        }
        let known = agreeing.firstIndex {
            let other = $0
            return other.rows == passing.count && other.layers == layers && other.generation == workspace.generation
                && layers.allSatisfy { other.selections[$0] === selections[$0] }
        }
        if let known {
            // Those that were used last come first.
            if known > 0 { agreeing.insert(agreeing.remove(at: known), at: 0) }
            return agreeing[0]
        }
        let rows = 0 ..< passing.count
        let prepared = layers.map { layer -> DecoderLayer.Prepared? in
            if selections[layer].isSkipped { return nil }
            return prepare(layer, [RowGroup(role: .single, selection: selections[layer], rows: rows, outputs: rows)], hidden, first: 0, first.segment)
        }
        // Preparing may have moved scratch tensors that were prepared for.
        if generation != workspace.generation { return findAgreeing(passing, hidden, observer) }
        var lines = CacheLineTable()
        for layer in prepared { lines.append(layer?.lines) }
        let made = AgreeingRows(rows: rows.count, layers: layers, selections: selections, prepared: prepared, lines: lines, generation: generation)
        agreeing.removeAll { $0.generation != generation }
        agreeing.insert(made, at: 0)
        if agreeing.count > BatchRunner.preparedPerLayer { agreeing.removeLast() }
        return made
    }

    private func run(_ agreeing: AgreeingRows, _ passing: [Passing], _ observer: (any BatchObserver)?) {
        var sequences: [SequenceRows] = []
        sequences.reserveCapacity(passing.count)
        places.withUnsafeBufferPointer { places in
            guard let places = places.baseAddress else { return }
            for (index, prepared) in agreeing.prepared.enumerated() {
                guard let prepared else { continue }
                let layer = agreeing.layers.lowerBound + index, start = observer == nil ? nil : ContinuousClock.now
                sequences.removeAll(keepingCapacity: true)
                for (row, part) in passing.enumerated() {
                    sequences.append(
                        SequenceRows(
                            role: .single, rows: row ..< row + 1, outputs: row ..< row + 1, slot: part.segment.slot(in: layer) + part.offset,
                            pages: part.sequence.layers[layer],
                            convolution: part.sequence.convolutions[layer], selection: agreeing.selections[layer]))
                    // Objects are prefetched two layers ahead, the memory that they point to one layer ahead.
                    if layer + 2 < agreeing.layers.upperBound, let pages = part.sequence.layers[layer + 2] { CacheLines.prefetch(pages) }
                    if layer + 1 < agreeing.layers.upperBound { part.sequence.layers[layer + 1]?.prefetchAddresses() }
                }
                agreeing.lines.prefetch(index + 1)
                prepared(sequences, places: places, observe: nil, workspace)
                if let start { observer?.layerEnded(LayerEvent(layer: layer, sequences, since: start)) }
            }
        }
    }

    /// The rows of one layer, and the layer.
    private func run(_ layer: Int, _ passing: [Passing], _ hidden: Tensor, _ observer: (any BatchObserver)?) {
        var running: [Int] = []
        swap(&running, &runningList)
        running.removeAll(keepingCapacity: true)
        defer { swap(&running, &runningList) }
        for place in passing.indices where passing[place].runs(layer) { running.append(place) }
        if running.isEmpty { return }
        let start = observer == nil ? nil : ContinuousClock.now
        sortBySelection(&running, passing, layer)
        // A contiguous part of the batch in this order is computed where it is.
        let first = passing[running[0]].rows.lowerBound
        var end = first, isContiguous = true
        for place in running {
            isContiguous = isContiguous && passing[place].rows.lowerBound == end
            end += passing[place].rows.count
        }
        let count = end - first
        let x = isContiguous ? hidden.rows(first ..< end) : workspace.tensor(.gathered, rows: count, columns: hidden.columns)
        var groups: [RowGroup] = [], sequences: [SequenceRows] = []
        swap(&groups, &groupList)
        swap(&sequences, &sequenceList)
        defer {
            // Sequences own their pages: nothing of them is kept here.
            sequences.removeAll(keepingCapacity: true)
            groups.removeAll(keepingCapacity: true)
            swap(&groups, &groupList)
            swap(&sequences, &sequenceList)
        }
        gathered.removeAll(keepingCapacity: true)
        var row = 0
        for place in running {
            let part = passing[place], selection = part.sequence.selections[layer]
            let rows = row ..< row + part.rows.count
            var outputs = rows
            if part.role == .chunk, layer >= part.lastAttention {
                outputs = max(rows.upperBound - part.segment.logitRows, rows.lowerBound) ..< rows.upperBound
            }
            sequences.append(
                SequenceRows(
                    role: part.role, rows: rows, outputs: outputs, slot: part.segment.slot(in: layer) + part.offset,
                    pages: selection.runsAttention ? part.sequence.layers[layer] : nil,
                    convolution: selection.runsAttention ? part.sequence.convolutions[layer] : nil, selection: selection))
            // Single rows with one selection are one group; a chunk is one by itself.
            if let last = groups.last, last.role == .single, part.role == .single, last.selection === selection {
                let joined = last.rows.lowerBound ..< rows.upperBound
                groups[groups.count - 1] = RowGroup(role: .single, selection: selection, rows: joined, outputs: joined)
            } else {
                groups.append(RowGroup(role: part.role, selection: selection, rows: rows, outputs: outputs))
            }
            if !isContiguous {
                x.copyRows(from: hidden.rows(part.rows), to: row)
                gathered.append(contentsOf: places[part.rows])
            }
            row = rows.upperBound
        }
        let run = prepare(layer, groups, x, first: isContiguous ? first : -1, passing[running[0]].segment)
        let watch = watch(layer, running, passing, sequences, observer)
        (isContiguous ? places : gathered).withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            run(sequences, places: isContiguous ? base + first : base, observe: watch, workspace)
        }
        if !isContiguous {
            for (place, part) in zip(running, sequences) { hidden.copyRows(from: x.rows(part.rows), to: passing[place].rows.lowerBound) }
        }
        if let start { observer?.layerEnded(LayerEvent(layer: layer, sequences, since: start)) }
        for (index, place) in running.enumerated() {
            let part = sequences[index]
            if observer?.wantsValues == true {
                let own = passing[place]
                observer?.hiddenStates(layer: layer, segment: own.index, rows: own.offset ..< own.offset + own.rows.count, hidden.rows(own.rows))
            }
            if part.rows.count > part.outputs.count { passing[place].drop(part.rows.count - part.outputs.count) }
        }
    }

    /// Observer of a layer's queries, once keys are in their pages; `nil` without a request.
    private func watch(
        _ layer: Int, _ running: [Int], _ passing: [Passing], _ sequences: [SequenceRows], _ observer: (any BatchObserver)?
    ) -> ((Tensor) -> Void)? {
        let watched = zip(running, sequences).compactMap { place, part -> (SequenceRows, [(AttentionWeights) -> Void])? in
            let (index, segment) = (passing[place].index, passing[place].segment)
            var receivers: [(AttentionWeights) -> Void] = []
            if let watched = segment.watched, watched.layer == layer { receivers.append(watched.receive) }
            if let observer, observer.wantsAttention(layer: layer, segment: index) {
                receivers.append { observer.attention(layer: layer, segment: index, $0) }
            }
            return receivers.isEmpty || part.outputs.isEmpty || part.pages == nil ? nil : (part, receivers)
        }
        if watched.isEmpty { return nil }
        let c = decoder.configuration
        return { query in
            for (part, receivers) in watched {
                guard let pages = part.pages else { continue }
                let row = query.data + (part.outputs.upperBound - 1) * query.stride
                let weights = AttentionWeights(query: row, pages, keys: part.slot + part.rows.count, layer: layer, c)
                for receive in receivers { receive(weights) }
            }
        }
    }

    /// Puts single rows with the same selection next to each other, in the order in which selections first occur.
    private func sortBySelection(_ running: inout [Int], _ passing: [Passing], _ layer: Int) {
        if running.count <= 2 { return }
        let firstSingle = running.firstIndex { passing[$0].role == .single } ?? running.count
        let singles = running[firstSingle...]
        guard singles.count > 2 else { return }
        var kinds: [(selection: LayerSelection, places: [Int])] = []
        for place in singles {
            let selection = passing[place].sequence.selections[layer]
            if let last = kinds.indices.last, kinds[last].selection === selection {
                kinds[last].places.append(place)
            } else if let known = kinds.firstIndex(where: { $0.selection === selection }) {
                kinds[known].places.append(place)
            } else {
                kinds.append((selection, [place]))
            }
        }
        running.replaceSubrange(firstSingle..., with: kinds.flatMap(\.places))
    }

    /// Preparations of a layer that are kept: those of the batches that came last.
    private static let preparedPerLayer = 12

    private func prepare(_ layer: Int, _ groups: [RowGroup], _ x: Tensor, first: Int, _ segment: BatchSegment) -> DecoderLayer.Prepared {
        if generation != workspace.generation {
            // Scratch tensors moved.
            for index in prepared.indices { prepared[index].removeAll() }
            logitsRuns.removeAll()
            generation = workspace.generation
        }
        let selections = segment.sequence.selections
        let next = (layer + 1 ..< max(segment.layers.upperBound, layer + 1)).first { !selections[$0].isSkipped } ?? -1
        let key = PreparedKey(groups: groups, first: first, next: next, nextSelection: next < 0 ? nil : selections[next])
        if let index = prepared[layer].lastIndex(where: { $0.key == key }) {
            if index != prepared[layer].count - 1 { prepared[layer].append(prepared[layer].remove(at: index)) }
            return prepared[layer][prepared[layer].count - 1].layer
        }
        let reads = next < 0 ? Prefetches([workspace.prefetched(decoder.head.weight)]) : decoder.layers[next].prefetched(selections[next], workspace)
        let made = DecoderLayer.Prepared(decoder.layers[layer], x, groups, next: reads, workspace)
        if prepared[layer].count >= BatchRunner.preparedPerLayer { prepared[layer].removeFirst() }
        prepared[layer].append((key, made))
        return made
    }

    /// Logits of the rows that are wanted, in the segments' order.
    private func logits(_ passing: [Passing], _ hidden: Tensor, segments: Int) -> Output {
        var places = [Range<Int>?](repeating: nil, count: segments)
        let wanted = passing.filter { $0.logitRows > 0 }.sorted { ($0.index, $0.offset) < ($1.index, $1.offset) }
        let count = wanted.reduce(0) { $0 + $1.logitRows }
        for part in passing { places[part.index] = 0 ..< 0 }
        if count == 0 { return Output(logits: nil, rows: places) }
        let rows = workspace.tensor(.outputRows, rows: count, columns: hidden.columns)
        var row = 0
        for part in wanted {
            let last = part.rows.upperBound - part.logitRows ..< part.rows.upperBound
            rows.copyRows(from: hidden.rows(last), to: row)
            let first = places[part.index].flatMap { $0.isEmpty ? nil : $0.lowerBound } ?? row
            row += last.count
            places[part.index] = first ..< row
        }
        let logits = workspace.tensor(.logits, rows: count, columns: decoder.configuration.vocabularySize)
        if generation != workspace.generation { logitsRuns.removeAll() }
        let run = logitsRuns[count] ?? ProductRun([Product(linear: decoder.head, output: logits)], workspace)
        logitsRuns[count] = run
        run(workspace.convert(rows, norm: decoder.finalNorm, for: decoder.head.weight, RowsByRole(count, .single), workspace.inputs))
        if let cap = decoder.configuration.finalLogitSoftcap { logits.softcap(cap) }
        return Output(logits: logits, rows: places)
    }
}
