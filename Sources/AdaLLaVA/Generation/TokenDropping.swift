/// One request's image tokens being dropped inside the decoder (``FastV``).
///
/// All rows of the prompt pass the layers before the drop; the last row's attention in the last of them chooses which rows pass the others. The latency
/// token comes after that, so the choice does not depend on the budget.
struct TokenDropping {
    let fastV: FastV
    /// Output of the layers before the drop, `[prompt, hidden]`.
    let hidden: Tensor
    /// Positions of the prompt that the layers from the drop on have, ascending; `nil` until they are chosen.
    var kept: [Int]?
}

extension FastV {
    /// The positions that are kept, ascending: all of text, and of each prompt's image tokens those of the highest weights; the first wins a tie. A prompt's
    /// last row is always kept.
    /// - Parameter weights: attention weights of the last row, `[positions]`.
    func kept(_ elements: [PromptElement], weights: [Float]) -> [Int] {
        let candidates = elements.indices.dropLast().filter { if case .image = elements[$0] { true } else { false } }
        let images = elements.count { if case .image = $0 { true } else { false } }
        var chance = SplitMix64(seed: elements.lazy.compactMap { if case .image(let key, _) = $0 { key.word } else { nil } }.first ?? 0)
        let ranks = switch ranking {
        case .attention: candidates.map { Double(weights[$0]) }
        case .random: candidates.map { _ in Double(chance.next() >> 11) }
        }
        // Weights that are not numbers come last.
        let order = candidates.indices.sorted { a, b in ranks[a] == ranks[b] || ranks[a].isNaN && ranks[b].isNaN ? a < b : ranks[a] > ranks[b] || ranks[b].isNaN }
        let dropped = Set(order.suffix(min(self.dropped(of: images), candidates.count)).map { candidates[$0] })
        return elements.indices.filter { !dropped.contains($0) }
    }
}

extension Engine {
    /// Prepares a request whose image tokens are dropped inside the decoder; nothing for one without images.
    func beginDropping(_ task: GenerationTask) throws {
        guard let fastV = parts.fastV, task.result.imageTokens > 0 else { return }
        let rows = task.elements.count
        task.dropping = TokenDropping(
            fastV: fastV, hidden: try Tensor(checked: rows, columns: parts.decoder.configuration.hiddenSize, what: "hidden states of \(rows) positions"))
    }

    /// Image tokens that a request drops at least; `nil` where the decoder does not choose.
    func leastDropped(_ request: EngineRequest) -> Int? {
        guard let fastV = parts.fastV, !request.images.isEmpty else { return nil }
        return fastV.dropped(of: request.images.reduce(0) { $0 + ($1.rows ?? parts.vision?.leastRows ?? 0) })
    }

    /// The prompt's rows through the layers before the drop; with the last of them comes the attention that chooses.
    func earlySegment(_ task: GenerationTask, _ sequence: TokenSequence, _ rows: Range<Int>) throws -> BatchSegment? {
        guard let dropping = task.dropping else { return nil }
        var segment = BatchSegment(
            sequence: sequence, role: .chunk, position: rows.lowerBound, slot: rows.lowerBound, layers: 0 ..< dropping.fastV.layer,
            input: .hidden(try embed(task, rows)), output: dropping.hidden.rows(rows), cancellation: task.cancellation)
        segment.positions = task.rowPositions(rows, kept: nil)
        if rows.upperBound == task.elements.count {
            segment.watched = (dropping.fastV.layer - 1, { [weak task] weights in
                guard let task else { return }
                task.dropping?.kept = dropping.fastV.kept(task.elements, weights: weights.mean)
                task.trace?.record("selection_attention", weights.mean)
            })
        }
        return segment
    }

    /// Takes a request past the drop, once its last row's attention is known.
    func drop(_ task: GenerationTask) {
        guard let kept = task.dropping?.kept, let fastV = parts.fastV, let sequence = task.sequence else { return }
        sequence.drop(rows: task.elements.count - kept.count, from: fastV.layer)
        task.result.keptImageTokens = task.result.imageTokens - (task.elements.count - kept.count)
        task.trace?.record("kept_positions", kept.map(Float.init))
        task.stage = .prefix(next: 0)
        guard parts.prefixLayers == fastV.layer else { return }
        // No prefix layer is left for the kept rows.
        if let hidden = task.hidden, let early = task.dropping?.hidden { gather(kept, early, into: hidden) }
        task.stage = .latency
    }

    /// The input of some kept rows, `[rows, hidden]`.
    func keptRows(_ dropping: TokenDropping, _ positions: ArraySlice<Int>) throws -> Tensor {
        let rows = try Tensor(checked: positions.count, columns: dropping.hidden.columns, what: "hidden states of \(positions.count) positions")
        gather(Array(positions), dropping.hidden, into: rows)
        return rows
    }

    private func gather(_ positions: [Int], _ source: Tensor, into target: Tensor) {
        for (row, position) in positions.enumerated() { target.copyRows(from: source.rows(position ..< position + 1), to: row) }
    }

    /// Reuses results of an earlier request: all prefix layers for the same prompt, the layers before the drop for another one with the same beginning.
    /// - Parameter length: positions at the prompts' beginnings that are the same.
    /// - Returns: how many positions need not be computed.
    func reuseDropped(_ task: GenerationTask, _ sequence: TokenSequence, _ entry: PromptCache.Entry, length: Int) -> Int {
        guard let dropping = task.dropping, let known = entry.dropping else { return 0 }
        let c = parts.decoder.configuration, layer = dropping.fastV.layer, prompt = task.elements.count
        if length == prompt, entry.elements.count == prompt, let kept = known.kept, let hidden = task.hidden, let rest = entry.hidden,
            entry.state.longest(prompt, layers: Array(0 ..< layer), c) == prompt,
            entry.state.longest(kept.count, layers: Array(layer ..< parts.prefixLayers), c) == kept.count
        {
            hidden.copyRows(from: rest.rows(0 ..< kept.count), to: 0)
            sequence.share(entry.state, layers: 0 ..< layer, length: prompt)
            sequence.share(entry.state, layers: layer ..< parts.prefixLayers, length: kept.count)
            task.dropping = known
            drop(task)
            task.stage = .latency
            return prompt
        }
        // The last row's attention has to be computed.
        let most = min(length, known.hidden.rows, prompt - 1), shared = entry.state.longest(most, layers: Array(0 ..< layer), c)
        guard shared > 0 else { return 0 }
        dropping.hidden.copyRows(from: known.hidden.rows(0 ..< shared), to: 0)
        sequence.share(entry.state, layers: 0 ..< layer, length: shared)
        return shared
    }

    /// Rows after the prefix that an earlier request with the same prompt and plan computed.
    /// - Parameter length: positions at the prompts' beginnings that are the same.
    func knownRest(_ task: GenerationTask, _ entry: PromptCache.Entry, length: Int, layers: [Int]) -> Int {
        let c = parts.decoder.configuration
        guard let kept = task.dropping?.kept else { return entry.state.longest(length, layers: layers, c) }
        guard length == task.elements.count, entry.elements.count == length, entry.dropping?.kept == kept else { return 0 }
        return entry.state.longest(kept.count, layers: layers, c)
    }
}
