import AdaKernels

/// The gated short convolution of LFM2 (Liquid AI, 2025): `x += output(c * convolution(b * v))`, where b, c and v are projections of one input and each
/// channel is convolved with taps of its own over the last positions.
struct ShortConvolution: Sendable {
    /// b, c and v.
    let gate, outputGate, value: Linear
    let output: Linear
    /// `[taps, channels]`, the newest position's last.
    let taps: Tensor
    let bias: Tensor?

    var linears: [Linear] { [gate, outputGate, value, output] }
}

extension ShortConvolution {
    /// One convolution for a batch of groups, ready to run. Channels that no plan keeps are neither computed nor kept in the sequence's state.
    final class Prepared {
        private let convolution: ShortConvolution
        /// Owners of the products' addresses.
        private let owners: (Tensor, Tensor, Norm?)
        private let gate, outputGate, value, convolved: Tensor
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
        ///   - next: memory that is read after this convolution.
        init(
            _ convolution: ShortConvolution, input: Tensor, norm: Norm?, outputNorm: Norm?, adding x: Tensor, _ groups: [RowGroup], next: Prefetches,
            _ workspace: Workspace
        ) {
            (self.convolution, owners) = (convolution, (x, input, norm))
            let groups = groups.filter(\.selection.runsAttention), channels = convolution.gate.weight.rows
            gate = workspace.tensor(.key, rows: x.rows, columns: channels)
            value = workspace.tensor(.value, rows: x.rows, columns: channels)
            outputGate = workspace.tensor(.query, rows: x.rows, columns: channels)
            convolved = workspace.tensor(.attended, rows: x.rows, columns: channels)
            // All rows pass into the state; the output gate is needed of those that go on.
            let parts = groups.parts(convolution.gate.weight, \.rows, panels: \.queryPanels)
            products = ProductRuns(
                input, norm: norm, groups.allRows,
                [
                    Product(linear: convolution.gate, output: gate, parts: parts), Product(linear: convolution.value, output: value, parts: parts),
                    Product(
                        linear: convolution.outputGate, output: outputGate,
                        parts: groups.parts(convolution.outputGate.weight, \.outputs, panels: \.queryPanels)),
                ], workspace)
            let outputParts = groups.parts(\.outputs, blocks: \.outputBlocks)
            sum = NormedSum(x, norm: outputNorm, groups.map(\.outputs), workspace)
            outputRun = outputParts.isEmpty
                ? nil
                : ProductRun(
                    [Product(linear: convolution.output, output: sum.output, parts: outputParts, accumulate: sum.accumulates)], workspace)
            conversion = RowConversion(convolved, for: convolution.output.weight, groups.outputRows, workspace.kernels)
            isMixed = groups.count > 1
            let isSingle = groups.allSatisfy { $0.role == .single }
            outputReads = isSingle ? Prefetches([workspace.prefetched(convolution.output.weight, blocks: groups.first?.selection.outputBlocks)]) : Prefetches()
            afterwards = isSingle ? next : Prefetches()
        }

        func add(to lines: inout CacheLines) {
            lines.add(self)
            products.add(to: &lines)
            outputRun?.add(to: &lines)
        }

        /// Adds the result to the rows of `x` that go on; the states of all sequences pass on to after their rows.
        func callAsFunction(_ sequences: [SequenceRows], _ workspace: Workspace) {
            let isSingle = !outputReads.isEmpty
            if isSingle { workspace.prefetch(outputReads) }
            products(workspace.inputs, workspace)
            if isSingle { workspace.prefetch(afterwards) }
            for part in sequences {
                guard let state = part.convolution, part.selection.runsAttention else { continue }
                workspace.forRows(part.rows.count, stride: gate.stride) { range, _ in
                    for row in part.rows.lowerBound + range.lowerBound ..< part.rows.lowerBound + range.upperBound {
                        for channels in part.selection.channels {
                            ak_multiply(
                                gate.data + row * gate.stride + channels.lowerBound, value.data + row * value.stride + channels.lowerBound, channels.count)
                        }
                    }
                }
                let inputs = ConvolutionInputs(state: state, rows: gate, first: part.rows.lowerBound, slot: part.slot)
                workspace.forRows(part.outputs.count, stride: convolved.stride) { range, _ in
                    convolve(part, part.outputs.lowerBound + range.lowerBound ..< part.outputs.lowerBound + range.upperBound, inputs)
                }
                state.advance(inputs, count: part.rows.count, keepsEnd: part.role == .chunk)
            }
            guard let outputRun else { return }
            for part in sequences where part.selection.runsAttention {
                convolved.rows(part.outputs).clear(columns: isMixed ? part.selection.offHeadColumns : part.selection.droppedHeadColumns)
            }
            outputRun(conversion(workspace.middle, workspace))
            sum.add(workspace)
        }

        private func convolve(_ part: SequenceRows, _ rows: Range<Int>, _ inputs: ConvolutionInputs) {
            let count = convolution.taps.rows
            withUnsafeTemporaryAllocation(of: UnsafePointer<Float>?.self, capacity: count) { sources in
                for row in rows {
                    let slot = part.slot + row - part.rows.lowerBound
                    for tap in 0 ..< count { sources[tap] = inputs.row(slot + 1 - count + tap) }
                    for channels in part.selection.channels {
                        ak_gated_taps(
                            convolved.data + row * convolved.stride, outputGate.data + row * outputGate.stride, sources.baseAddress, convolution.taps.data,
                            convolution.taps.stride, convolution.bias?.data, Int32(count), Int32(channels.lowerBound), Int32(channels.upperBound))
                    }
                }
            }
        }
    }
}
