import AdaKernels

/// Rows of a batch, in one layer, that share a role and a selection.
struct RowGroup: Equatable {
    let role: RowRole
    let selection: LayerSelection
    /// Rows whose keys and values are computed.
    let rows: Range<Int>
    /// The last of them, whose hidden states go on.
    let outputs: Range<Int>

    static func == (a: RowGroup, b: RowGroup) -> Bool {
        a.selection === b.selection && a.role == b.role && a.rows == b.rows && a.outputs == b.outputs
    }
}

/// One sequence's rows in one layer of a batch.
struct SequenceRows {
    let role: RowRole
    let rows: Range<Int>
    let outputs: Range<Int>
    /// Of the first row.
    let slot: Int
    /// Needed where attention runs.
    let pages: LayerPages?
    let selection: LayerSelection
}

extension [RowGroup] {
    /// All rows by role; chunks come first.
    var allRows: RowsByRole {
        let chunks = filter { $0.role == .chunk }, singles = filter { $0.role == .single }
        let split = chunks.last?.rows.upperBound ?? 0
        return RowsByRole(chunk: (chunks.first?.rows.lowerBound ?? 0) ..< split, single: split ..< (singles.last?.rows.upperBound ?? split))
    }

    /// The rows whose hidden states go on, by role.
    var outputRows: RowsByRole {
        let all = allRows
        let chunks = filter { $0.role == .chunk && !$0.outputs.isEmpty }
        let chunk = chunks.first.map { $0.outputs.lowerBound ..< (chunks.last?.outputs.upperBound ?? $0.outputs.upperBound) }
        return RowsByRole(chunk: chunk ?? 0 ..< 0, single: all.single)
    }

    func parts(_ rows: (RowGroup) -> Range<Int>, panels: (LayerSelection) -> IndexList?, blocks: (LayerSelection) -> IndexList? = { _ in nil })
        -> [ProductPart]
    {
        compactMap { group in
            let rows = rows(group)
            return rows.isEmpty ? nil : ProductPart(rows: rows, panels: panels(group.selection), blocks: blocks(group.selection))
        }
    }
}

/// Products of the same rows, by the types of activations that they take: nearly always one run.
struct ProductRuns {
    private var runs: [(run: ProductRun, weight: WeightMatrix)] = []

    init(_ products: [Product], combining combination: ProductRun.Combination = .none, _ workspace: Workspace) {
        var left = products.filter { !$0.parts.isEmpty }
        while let first = left.first?.linear.weight {
            runs.append((ProductRun(left.filter { workspace.haveOneType(first, $0.linear.weight) }, combining: combination, workspace), first))
            left.removeAll { workspace.haveOneType(first, $0.linear.weight) }
        }
    }

    /// Runs them on the rows of `x`, or a norm of them.
    func callAsFunction(_ x: Tensor, _ norm: Norm?, _ rows: RowsByRole, _ buffers: ActivationBuffers, _ workspace: Workspace) {
        for (run, weight) in runs { run(workspace.convert(x, norm: norm, for: weight, rows, buffers)) }
    }
}

// MARK: - Attention

/// Multi-head attention with rotary positions (Vaswani et al., 2017; Su et al., 2021): `x += output(softmax(rope(q) · rope(k)ᵀ / √d) · v)`.
struct Attention: Sendable {
    let query, key, value, output: Linear
    let shape: AttentionShape
    let rotaryDim: Int
    /// Whether the pairs (2i, 2i+1) are rotated, and not (i, i + rotaryDim/2).
    let interleaved: Bool

    var linears: [Linear] { [query, key, value, output] }
}

extension Attention {
    /// One attention for a batch of groups, ready to run: products, addresses and prefetches are found once.
    final class Prepared {
        private let attention: Attention
        private let norm: Norm?
        private let x, input: Tensor
        private let query, key, value, attended: Tensor
        private let rows, outputs: RowsByRole
        private let products: ProductRuns
        private let outputRun: ProductRun?
        private let outputReads: [ak_expected]
        private let afterwards: [ak_expected]
        /// Keys, values and the output projection's weights: what single rows read after the first products.
        private var firstReads: [ak_expected] = []
        private var batch: [AttentionRows] = []

        /// - Parameters:
        ///   - input: what is read, `[rows, hidden]`: `x`, or a norm of it that was computed before.
        ///   - norm: of the input.
        ///   - x: what the result is added to.
        ///   - next: what is read after this attention.
        init(_ attention: Attention, input: Tensor, norm: Norm?, adding x: Tensor, _ groups: [RowGroup], next: [ak_expected], _ workspace: Workspace) {
            (self.attention, self.norm, self.x, self.input) = (attention, norm, x, input)
            let groups = groups.filter(\.selection.runsAttention)
            let (width, keyWidth) = (attention.query.weight.rows, attention.key.weight.rows)
            query = workspace.tensor(.query, rows: x.rows, columns: width)
            key = workspace.tensor(.key, rows: x.rows, columns: keyWidth)
            value = workspace.tensor(.value, rows: x.rows, columns: keyWidth)
            attended = workspace.tensor(.attended, rows: x.rows, columns: width)
            (rows, outputs) = (groups.allRows, groups.outputRows)
            let keyParts = groups.parts(\.rows, panels: \.keyValuePanels)
            products = ProductRuns(
                [
                    Product(linear: attention.query, output: query, parts: groups.parts(\.outputs, panels: \.queryPanels)),
                    Product(linear: attention.key, output: key, parts: keyParts), Product(linear: attention.value, output: value, parts: keyParts),
                ], workspace)
            let outputParts = groups.parts(\.outputs, panels: { _ in nil }, blocks: \.outputBlocks)
            outputRun = outputParts.isEmpty
                ? nil : ProductRun([Product(linear: attention.output, output: x, parts: outputParts, accumulate: true)], workspace)
            let isSingle = groups.allSatisfy { $0.role == .single }
            outputReads = isSingle ? [workspace.prefetched(attention.output.weight, blocks: groups.first?.selection.outputBlocks)] : []
            afterwards = isSingle ? next : []
        }

        /// Adds attention's output to the rows of `x` that go on; keys and values of all rows go into their sequences' pages.
        /// - Parameter places: of each row.
        func callAsFunction(_ sequences: [SequenceRows], places: UnsafePointer<RowPlace>, observe: ((Tensor, Tensor) -> Void)?, _ workspace: Workspace) {
            let isSingle = !outputReads.isEmpty
            if isSingle, let first = sequences.first, let pages = first.pages {
                firstReads.removeAll(keepingCapacity: true)
                pages.addPrefetched(length: first.slot + 1, window: attention.shape.window, to: &firstReads)
                firstReads.append(contentsOf: outputReads)
                workspace.prefetch(firstReads)
            }
            products(input, norm, rows, workspace.inputs, workspace)
            rotateAndStore(sequences, places, workspace)
            observe?(query, key)
            guard let outputRun else { return }
            if isSingle { workspace.prefetch(outputReads) }
            for part in sequences {
                guard let pages = part.pages, part.selection.runsAttention, !part.outputs.isEmpty else { continue }
                let first = part.slot + part.outputs.lowerBound - part.rows.lowerBound
                batch.append(
                    AttentionRows(
                        role: part.role, row: part.outputs.lowerBound, queries: part.outputs.count, slot: first, keys: part.slot + part.rows.count,
                        pages: pages, heads: part.selection.heads, dropped: part.selection.droppedHeadColumns))
            }
            // Pages belong to their sequences: none is kept here.
            defer { batch.removeAll(keepingCapacity: true) }
            let activations = workspace.attend(
                batch, query: query, attended: attended, for: attention.output.weight, outputs, attention.shape)
            if isSingle { workspace.prefetch(afterwards) }
            outputRun(activations)
        }

        /// Turns queries and keys by their positions and stores keys and values.
        private func rotateAndStore(_ sequences: [SequenceRows], _ places: UnsafePointer<RowPlace>, _ workspace: Workspace) {
            if sequences.count >= 8, sequences.allSatisfy({ $0.rows.count == 1 }) {
                // Many single rows: each thread takes some sequences.
                let kernels = workspace.kernels.table
                return workspace.forRows(sequences.count, stride: query.stride + 2 * key.stride) { range, _ in
                    for part in sequences[range] {
                        if let pages = part.pages, part.selection.runsAttention { rotateAndStore(part, pages, part.rows, places, kernels) }
                    }
                }
            }
            for part in sequences {
                guard let pages = part.pages, part.selection.runsAttention else { continue }
                if part.rows.count == 1 {
                    rotateAndStore(part, pages, part.rows, places, workspace.kernels.table)
                } else {
                    let kernels = workspace.kernels.table
                    workspace.forRows(part.rows.count) { range, _ in
                        let rows = part.rows.lowerBound + range.lowerBound ..< part.rows.lowerBound + range.upperBound
                        rotateAndStore(part, pages, rows, places, kernels)
                    }
                }
            }
        }

        private func rotateAndStore(
            _ part: SequenceRows, _ pages: LayerPages, _ rows: Range<Int>, _ places: UnsafePointer<RowPlace>, _ kernels: ak_kernels
        ) {
            let headDim = attention.shape.headDim, rotaryDim = Int32(attention.rotaryDim), interleaved: Int32 = attention.interleaved ? 1 : 0
            let isPartial = attention.rotaryDim < headDim
            func rotate(_ x: UnsafeMutablePointer<Float>, _ place: RowPlace, _ heads: [Int]) {
                var start = 0
                while start < heads.count {
                    var end = start + 1
                    // Neighbouring heads in one call, where all of each is rotated.
                    while !isPartial, end < heads.count, heads[end] == heads[end - 1] + 1 { end += 1 }
                    kernels.rope(x + heads[start] * headDim, place.cosines, place.sines, Int32(end - start), rotaryDim, interleaved)
                    start = end
                }
            }
            for row in rows {
                if part.outputs.contains(row) { rotate(query.data + row * query.stride, places[row], part.selection.heads) }
                rotate(key.data + row * key.stride, places[row], part.selection.keyValueHeads)
            }
            // Page by page.
            let slots = KeyValueLayout.slots
            for head in part.selection.keyValueHeads {
                guard let place = pages.head(head) else { continue }
                var row = rows.lowerBound
                while row < rows.upperBound {
                    let slot = part.slot + row - part.rows.lowerBound
                    let count = min(rows.upperBound - row, slots - slot % slots)
                    if let page = place.pages[slot / slots] {
                        let address = UnsafeMutableRawPointer(mutating: page)
                        kernels.store_kv(
                            address + place.keys, address + place.values, place.type, key.data + row * key.stride + head * headDim, key.stride,
                            value.data + row * value.stride + head * headDim, value.stride, Int32(headDim), Int32(slot % slots), Int32(count))
                    }
                    row += count
                }
            }
        }
    }
}

// MARK: - Feed-forward networks

/// The gated feed-forward network of LLaMA (Shazeer, 2020): `x += down(silu(gate(h)) * up(h))`.
struct GatedMLP: Sendable {
    let gate, up, down: Linear
}

/// The feed-forward network of GPT and Phi: `x += down(activation(up(h)))`.
struct PlainMLP: Sendable {
    let up, down: Linear
    let activation: ActivationFunction
}

/// A layer's feed-forward network.
enum MLP: Sendable {
    case gated(GatedMLP)
    case plain(PlainMLP)

    var linears: [Linear] {
        switch self {
        case .gated(let mlp): [mlp.gate, mlp.up, mlp.down]
        case .plain(let mlp): [mlp.up, mlp.down]
        }
    }

    fileprivate var down: Linear {
        switch self {
        case .gated(let mlp): mlp.down
        case .plain(let mlp): mlp.down
        }
    }

    /// What makes the middle, and how it is combined.
    fileprivate var first: (linears: [Linear], combination: ProductRun.Combination) {
        switch self {
        case .gated(let mlp): ([mlp.gate, mlp.up], .gated)
        case .plain(let mlp): ([mlp.up], .activation(mlp.activation))
        }
    }

    /// What single rows read first.
    func prefetched(_ selection: LayerSelection, _ workspace: Workspace) -> [ak_expected] {
        first.linears.map { workspace.prefetched($0.weight, panels: selection.gatePanels) }
    }
}

extension MLP {
    /// One feed-forward network for a batch of groups, ready to run.
    final class Prepared {
        private let norm: Norm?
        private let x, input: Tensor
        private let groups: [RowGroup]
        private let rows: RowsByRole
        /// Of chunks alone: the middle is made piece by piece and never goes to memory in float32.
        private let pieces: Pieces?
        private let whole: Whole?
        /// What single rows read after this network; empty for others.
        private let next: [ak_expected]

        private struct Pieces {
            let first: [Product]
            let activation: ActivationFunction?
            let down: Product
            let dropped: [Range<Int>]
            let input: Tensor
        }

        /// A class, so that using it counts one reference.
        private final class Whole {
            let runs: ProductRuns
            /// Gate and up of two types: combined afterwards.
            let combines: Bool
            let middle, up: Tensor
            let down: ProductRun
            let downWeight: WeightMatrix
            /// Groups with neurons that are off.
            let cut: [RowGroup]
            /// What single rows read of `down`.
            let downReads: [ak_expected]

            init(runs: ProductRuns, combines: Bool, middle: Tensor, up: Tensor, down: ProductRun, downWeight: WeightMatrix, cut: [RowGroup], downReads: [ak_expected]) {
                (self.runs, self.combines, self.middle, self.up, self.down) = (runs, combines, middle, up, down)
                (self.downWeight, self.cut, self.downReads) = (downWeight, cut, downReads)
            }
        }

        init(_ mlp: MLP, input: Tensor, norm: Norm?, adding x: Tensor, _ groups: [RowGroup], next: [ak_expected], _ workspace: Workspace) {
            (self.norm, self.x, self.input) = (norm, x, input)
            let groups = Prepared.joined(groups.filter { $0.selection.runsMLP && !$0.outputs.isEmpty })
            self.groups = groups
            rows = groups.outputRows
            let (linears, combination) = mlp.first
            if groups.count == 1, let group = groups.first, group.role == .chunk, Prepared.makesPieces(mlp, group.selection, workspace) {
                let outputs = x.rows(group.outputs)
                var activation: ActivationFunction?
                if case .activation(let function) = combination { activation = function }
                pieces = Pieces(
                    first: linears.map { Product(linear: $0, output: outputs, panels: group.selection.gatePanels) }, activation: activation,
                    down: Product(linear: mlp.down, output: outputs, blocks: group.selection.downBlocks, accumulate: true),
                    dropped: group.selection.droppedNeurons, input: input.rows(group.outputs))
                (whole, self.next) = (nil, [])
                return
            }
            pieces = nil
            let width = mlp.down.weight.inputs
            let middle = workspace.tensor(.gate, rows: x.rows, columns: width), up = workspace.tensor(.up, rows: x.rows, columns: width)
            let parts = groups.parts(\.outputs, panels: \.gatePanels)
            let products = zip(linears, [middle, up]).map { Product(linear: $0, output: $1, parts: parts) }
            let combines = linears.count > 1 && !workspace.haveOneType(linears[0].weight, linears[1].weight)
            let isSingle = groups.allSatisfy { $0.role == .single }
            whole = Whole(
                runs: ProductRuns(products, combining: combines ? .none : combination, workspace), combines: combines, middle: middle, up: up,
                down: ProductRun(
                    [Product(linear: mlp.down, output: x, parts: groups.parts(\.outputs, panels: { _ in nil }, blocks: \.downBlocks), accumulate: true)],
                    workspace),
                downWeight: mlp.down.weight, cut: groups.filter { !$0.selection.droppedNeurons.isEmpty },
                downReads: isSingle ? [workspace.prefetched(mlp.down.weight, blocks: groups.first?.selection.downBlocks)] : [])
            self.next = isSingle ? next : []
        }

        /// Neighbouring chunks with one selection are one, for rows do not depend on each other here.
        private static func joined(_ groups: [RowGroup]) -> [RowGroup] {
            groups.reduce(into: []) { joined, group in
                if let last = joined.last, last.role == .chunk, group.role == .chunk, last.selection === group.selection,
                    last.outputs.upperBound == group.outputs.lowerBound
                {
                    let rows = last.outputs.lowerBound ..< group.outputs.upperBound
                    joined[joined.count - 1] = RowGroup(role: .chunk, selection: last.selection, rows: rows, outputs: rows)
                } else {
                    joined.append(group)
                }
            }
        }

        private static func makesPieces(_ mlp: MLP, _ selection: LayerSelection, _ workspace: Workspace) -> Bool {
            workspace.makesFeedForwardInPieces(mlp.first.linears.map(\.weight), down: mlp.down.weight, picksPanels: selection.gatePanels != nil)
        }

        func callAsFunction(_ workspace: Workspace) {
            if let pieces {
                workspace.multiplyFeedForward(
                    pieces.input, norm: norm, pieces.first, activation: pieces.activation, down: pieces.down, dropped: pieces.dropped)
                return
            }
            guard let whole else { return }
            if !whole.downReads.isEmpty { workspace.prefetch(whole.downReads) }
            whole.runs(input, norm, rows, workspace.inputs, workspace)
            if whole.combines {
                let (kernels, middle, up) = (workspace.kernels.table, whole.middle, whole.up)
                for row in groups.flatMap({ Array($0.outputs) }) {
                    kernels.silu_mul(middle.data + row * middle.stride, up.data + row * up.stride, middle.stride)
                }
            }
            for group in whole.cut {
                whole.middle.rows(group.outputs).clear(columns: group.selection.droppedNeurons)
            }
            if !next.isEmpty { workspace.prefetch(next) }
            whole.down(workspace.convert(whole.middle, for: whole.downWeight, rows, workspace.middle))
        }
    }
}
