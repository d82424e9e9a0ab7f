import AdaKernels

/// Multi-head attention with rotary positions (Vaswani et al., 2017; Su et al., 2021): `x += output(softmax(rope(q) · rope(k)ᵀ / √d) · v)`.
struct Attention: Sendable {
    let query, key, value, output: Linear
    let shape: AttentionShape
    let rotaryDim: Int
    /// Whether the pairs (2i, 2i+1) are rotated, and not (i, i + rotaryDim/2).
    let interleaved: Bool
    /// Norms of each head's query and key, before they are rotated (Henry et al., 2020).
    var headNorms: (query: Norm, key: Norm)?
    /// Whether heads are turned by the angles of layers with a window, where those differ from the others'.
    var isLocal = false

    var linears: [Linear] { [query, key, value, output] }
}

extension Attention {
    /// One attention for a batch of groups, ready to run: products, addresses and prefetches are found once.
    final class Prepared {
        private let attention: Attention
        /// Owners of the products' addresses.
        private let owners: (Tensor, Tensor, Norm?)
        private let query, key, value, attended: Tensor
        private let products: ProductRuns
        private let outputRun: ProductRun?
        private let sum: NormedSum
        private let conversion: RowConversion
        /// Memory that single rows read for the output projection and after it; empty for chunks.
        private let outputReads, afterwards: Prefetches
        /// Whether rows may be multiplied over blocks that only others keep.
        private let isMixed: Bool

        /// - Parameters:
        ///   - input: `[rows, hidden]`: `x`, or a norm of it that was computed before.
        ///   - norm: of the input.
        ///   - outputNorm: of the result, before it is added.
        ///   - x: hidden states to which the result is added.
        ///   - next: memory that is read after this attention.
        init(
            _ attention: Attention, input: Tensor, norm: Norm?, outputNorm: Norm? = nil, adding x: Tensor, _ groups: [RowGroup], next: Prefetches,
            _ workspace: Workspace
        ) {
            (self.attention, owners) = (attention, (x, input, norm))
            let groups = groups.filter(\.selection.runsAttention)
            let (width, keyWidth) = (attention.query.weight.rows, attention.key.weight.rows)
            query = workspace.tensor(.query, rows: x.rows, columns: width)
            key = workspace.tensor(.key, rows: x.rows, columns: keyWidth)
            value = workspace.tensor(.value, rows: x.rows, columns: keyWidth)
            attended = workspace.tensor(.attended, rows: x.rows, columns: width)
            let keyParts = groups.parts(attention.key.weight, \.rows, panels: \.keyValuePanels)
            products = ProductRuns(
                input, norm: norm, groups.allRows,
                [
                    Product(linear: attention.query, output: query, parts: groups.parts(attention.query.weight, \.outputs, panels: \.queryPanels)),
                    Product(linear: attention.key, output: key, parts: keyParts), Product(linear: attention.value, output: value, parts: keyParts),
                ], workspace)
            let outputParts = groups.parts(\.outputs, blocks: \.outputBlocks)
            sum = NormedSum(x, norm: outputNorm, groups.map(\.outputs), workspace)
            outputRun = outputParts.isEmpty
                ? nil
                : ProductRun(
                    [Product(linear: attention.output, output: sum.output, parts: outputParts, accumulate: sum.accumulates)], workspace)
            conversion = RowConversion(attended, for: attention.output.weight, groups.outputRows, workspace.kernels)
            isMixed = groups.count > 1
            let isSingle = groups.allSatisfy { $0.role == .single }
            outputReads = isSingle ? Prefetches([workspace.prefetched(attention.output.weight, blocks: groups.first?.selection.outputBlocks)]) : Prefetches()
            afterwards = isSingle ? next : Prefetches()
        }

        func add(to lines: inout CacheLines) {
            lines.add(self)
            products.add(to: &lines)
            outputRun?.add(to: &lines)
        }

        /// Adds attention's output to the rows of `x` that go on; keys and values of all rows go into their sequences' pages.
        /// - Parameter places: of each row.
        func callAsFunction(_ sequences: [SequenceRows], places: UnsafePointer<RowPlace>, observe: ((Tensor) -> Void)?, _ workspace: Workspace) {
            let isSingle = !outputReads.isEmpty
            if isSingle {
                var reads = Prefetches()
                sequences[0].pages?.addPrefetched(length: sequences[0].slot + 1, window: attention.shape.window, to: &reads)
                reads.append(outputReads.first)
                workspace.prefetch(reads)
            }
            products(workspace.inputs, workspace)
            rotateAndStore(sequences, places, workspace)
            observe?(query)
            guard let outputRun else { return }
            if isSingle { workspace.prefetch(outputReads) }
            // Moved out and back: appending to a property checks for exclusive access each time.
            var batch: [AttentionRows] = []
            swap(&batch, &workspace.attention.rows)
            // Pages belong to their sequences: none is kept here.
            defer {
                batch.removeAll(keepingCapacity: true)
                swap(&batch, &workspace.attention.rows)
            }
            for part in sequences {
                guard let pages = part.pages, part.selection.runsAttention, !part.outputs.isEmpty else { continue }
                let first = part.slot + part.outputs.lowerBound - part.rows.lowerBound
                batch.append(
                    AttentionRows(
                        role: part.role, row: part.outputs.lowerBound, queries: part.outputs.count, slot: first, keys: part.slot + part.rows.count,
                        pages: pages, heads: part.selection.heads,
                        dropped: isMixed ? part.selection.offHeadColumns : part.selection.droppedHeadColumns))
            }
            let activations = workspace.attend(batch, query: query, attended: attended, for: conversion, attention.shape)
            if isSingle { workspace.prefetch(afterwards) }
            outputRun(activations)
            sum.add(workspace)
        }

        /// Turns queries and keys by their positions and stores keys and values.
        private func rotateAndStore(_ sequences: [SequenceRows], _ places: UnsafePointer<RowPlace>, _ workspace: Workspace) {
            if sequences.count >= 8, sequences.allSatisfy({ $0.rows.count == 1 }) {
                // Many single rows: each thread takes some sequences.
                let kernels = workspace.kernels.functions
                return workspace.forRows(sequences.count, stride: query.stride + 2 * key.stride) { range, _ in
                    for part in sequences[range] {
                        if let pages = part.pages, part.selection.runsAttention { rotateAndStore(part, pages, part.rows, places, kernels) }
                    }
                }
            }
            for part in sequences {
                guard let pages = part.pages, part.selection.runsAttention else { continue }
                if part.rows.count == 1 {
                    rotateAndStore(part, pages, part.rows, places, workspace.kernels.functions)
                } else {
                    let kernels = workspace.kernels.functions
                    workspace.forRows(part.rows.count) { range, _ in
                        let rows = part.rows.lowerBound + range.lowerBound ..< part.rows.lowerBound + range.upperBound
                        rotateAndStore(part, pages, rows, places, kernels)
                    }
                }
            }
        }

        private func rotateAndStore(
            _ part: SequenceRows, _ pages: LayerPages, _ rows: Range<Int>, _ places: UnsafePointer<RowPlace>, _ kernels: UnsafePointer<ak_kernels>
        ) {
            let selection = part.selection, headDim = attention.shape.headDim
            for row in rows {
                let angles = attention.isLocal ? places[row].local : places[row].angles
                if part.outputs.contains(row) {
                    rotate(query.data + row * query.stride, angles, selection.headRuns, norm: attention.headNorms?.query, kernels)
                }
                rotate(key.data + row * key.stride, angles, selection.keyValueHeadRuns, norm: attention.headNorms?.key, kernels)
            }
            // Page by page.
            let slots = KeyValueLayout.slots
            for head in selection.keyValueHeads {
                guard let place = pages.head(head) else { continue }
                var row = rows.lowerBound
                while row < rows.upperBound {
                    let slot = part.slot + row - part.rows.lowerBound
                    let count = min(rows.upperBound - row, slots - slot % slots)
                    if let page = place.pages[slot / slots] {
                        let address = UnsafeMutableRawPointer(mutating: page)
                        kernels.pointee.store_kv(
                            address + place.keys, address + place.values, place.type, key.data + row * key.stride + head * headDim, key.stride,
                            value.data + row * value.stride + head * headDim, value.stride, Int32(headDim), Int32(slot % slots), Int32(count))
                    }
                    row += count
                }
            }
        }

        /// Norms and turns some heads of a row: neighbours in one call, where all of each is turned.
        private func rotate(
            _ x: UnsafeMutablePointer<Float>, _ angles: RowAngles, _ runs: [Range<Int>], norm: Norm?, _ kernels: UnsafePointer<ak_kernels>
        ) {
            let headDim = attention.shape.headDim, isPartial = attention.rotaryDim < headDim
            for run in runs {
                norm?(x + run.lowerBound * headDim, count: run.count, kernels)
                let step = isPartial ? 1 : run.count
                for head in stride(from: run.lowerBound, to: run.upperBound, by: step) {
                    kernels.pointee.rope(
                        x + head * headDim, angles.cosines, angles.sines, Int32(step), Int32(attention.rotaryDim), attention.interleaved ? 1 : 0)
                }
            }
        }
    }
}
