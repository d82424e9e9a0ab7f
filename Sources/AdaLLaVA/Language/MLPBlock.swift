import AdaKernels

/// The gated feed-forward network of LLaMA (Shazeer, 2020): `x += down(function(gate(h)) * up(h))`.
struct GatedMLP: Sendable {
    let gate, up, down: Linear
    let function: Gate
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

    /// Products that make the middle, and how they are combined.
    fileprivate var first: (linears: [Linear], combination: ProductRun.Combination) {
        switch self {
        case .gated(let mlp): ([mlp.gate, mlp.up], .gated(mlp.function))
        case .plain(let mlp): ([mlp.up], .activation(mlp.activation))
        }
    }

    /// Memory that single rows read first.
    func prefetched(_ selection: LayerSelection, _ workspace: Workspace) -> Prefetches {
        Prefetches(first.linears.map { workspace.prefetched($0.weight, panels: selection.gatePanels) })
    }
}

extension MLP {
    /// One feed-forward network for a batch of groups, ready to run.
    final class Prepared {
        private let form: Form
        /// Memory that single rows read for `down` and after this network; empty for chunks.
        private let downReads, next: Prefetches
        /// Owners of the products' addresses.
        private let owners: (Tensor, Tensor, Norm?)
        private let sum: NormedSum

        private enum Form {
            /// Of chunks alone: the middle is made piece by piece and never goes to memory in float32.
            case pieces(Pieces)
            case whole(Whole)
        }

        private final class Pieces {
            let input: Tensor
            let norm: Norm?
            let first: [Product]
            let gate: Gate
            let activation: ActivationFunction?
            let down: Product
            let dropped: [Range<Int>]

            init(_ mlp: MLP, _ group: RowGroup, input: Tensor, norm: Norm?, into sum: NormedSum) {
                let outputs = sum.output.rows(group.outputs), (linears, combination) = mlp.first
                (self.input, self.norm) = (input.rows(group.outputs), norm)
                first = linears.map { Product(linear: $0, output: outputs, panels: group.selection.gatePanels) }
                if case .activation(let function) = combination { activation = function } else { activation = nil }
                if case .gated(let function) = combination { gate = function } else { gate = .silu }
                down = Product(linear: mlp.down, output: outputs, blocks: group.selection.downBlocks, accumulate: sum.accumulates)
                dropped = group.selection.droppedNeurons
            }
        }

        private final class Whole {
            let runs: ProductRuns
            let middle: Tensor
            /// Gate and up of two types are combined afterwards: the second one's results.
            let up: Tensor?
            let gate: Gate
            let down: ProductRun
            let conversion: RowConversion
            let groups: [RowGroup]
            /// Whether some of a group's neurons are off.
            let isCut: Bool

            init(_ mlp: MLP, _ groups: [RowGroup], input: Tensor, norm: Norm?, into sum: NormedSum, _ workspace: Workspace) {
                let x = sum.output, (linears, combination) = mlp.first, rows = groups.outputRows, width = mlp.down.weight.inputs
                self.groups = groups
                isCut = groups.contains { !$0.selection.offNeurons.isEmpty }
                middle = workspace.tensor(.gate, rows: x.rows, columns: width)
                let second = workspace.tensor(.up, rows: x.rows, columns: width)
                let combines = linears.count > 1 && !workspace.haveOneType(linears[0].weight, linears[1].weight)
                up = combines ? second : nil
                let parts = groups.parts(linears[0].weight, \.outputs, panels: \.gatePanels)
                let products = zip(linears, [middle, second]).map { Product(linear: $0, output: $1, parts: parts) }
                runs = ProductRuns(input, norm: norm, rows, products, combining: combines ? .none : combination, workspace)
                let downParts = groups.parts(\.outputs, blocks: \.downBlocks)
                down = ProductRun([Product(linear: mlp.down, output: x, parts: downParts, accumulate: sum.accumulates)], workspace)
                if case .gated(let function) = combination { gate = function } else { gate = .silu }
                conversion = RowConversion(middle, for: mlp.down.weight, rows, workspace.kernels)
            }

            /// `function(gate) * up` of gate and up that were computed apart.
            func combine(_ up: Tensor, _ kernels: UnsafePointer<ak_kernels>) {
                for group in groups {
                    for row in group.outputs {
                        gate(kernels, middle.data + row * middle.stride, up.data + row * up.stride, middle.stride)
                    }
                }
            }

            func clearDropped() {
                // Rows of several groups may be multiplied over blocks that only others keep.
                for group in groups {
                    middle.rows(group.outputs).clear(columns: groups.count > 1 ? group.selection.offNeurons : group.selection.droppedNeurons)
                }
            }
        }

        /// - Parameters:
        ///   - input: `[rows, hidden]`: `x`, or a norm of it that was computed before.
        ///   - norm: of the input.
        ///   - outputNorm: of the result, before it is added.
        ///   - x: hidden states to which the result is added.
        ///   - next: memory that is read after this network.
        init(
            _ mlp: MLP, input: Tensor, norm: Norm?, outputNorm: Norm? = nil, adding x: Tensor, _ groups: [RowGroup], next: Prefetches, _ workspace: Workspace
        ) {
            owners = (x, input, norm)
            let groups = Prepared.joined(groups.filter { $0.selection.runsMLP && !$0.outputs.isEmpty })
            sum = NormedSum(x, norm: outputNorm, groups.map(\.outputs), workspace)
            if groups.count == 1, groups[0].role == .chunk, Prepared.makesPieces(mlp, groups[0].selection, workspace) {
                form = .pieces(Pieces(mlp, groups[0], input: input, norm: norm, into: sum))
                (downReads, self.next) = (Prefetches(), Prefetches())
                return
            }
            form = .whole(Whole(mlp, groups, input: input, norm: norm, into: sum, workspace))
            let isSingle = groups.allSatisfy { $0.role == .single }
            downReads = isSingle ? Prefetches([workspace.prefetched(mlp.down.weight, blocks: groups.first?.selection.downBlocks)]) : Prefetches()
            self.next = isSingle ? next : Prefetches()
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

        func add(to lines: inout CacheLines) {
            lines.add(self)
            guard case .whole(let whole) = form else { return }
            lines.add(whole)
            whole.runs.add(to: &lines)
            whole.down.add(to: &lines)
        }

        func callAsFunction(_ workspace: Workspace) {
            switch form {
            case .pieces(let pieces):
                workspace.multiplyFeedForward(
                    pieces.input, norm: pieces.norm, pieces.first, gate: pieces.gate, activation: pieces.activation, down: pieces.down,
                    dropped: pieces.dropped)
            case .whole(let whole):
                if !downReads.isEmpty { workspace.prefetch(downReads) }
                whole.runs(workspace.inputs, workspace)
                if let up = whole.up { whole.combine(up, workspace.kernels.functions) }
                if whole.isCut { whole.clearDropped() }
                if !next.isEmpty { workspace.prefetch(next) }
                whole.down(whole.conversion(workspace.middle, workspace))
            }
            sum.add(workspace)
        }
    }
}
