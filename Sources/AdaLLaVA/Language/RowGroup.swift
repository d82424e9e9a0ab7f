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
    /// Needed where a convolution runs.
    let convolution: ConvolutionState?
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

    /// Parts of a product that differ in the panels of outputs they compute.
    func parts(_ weight: WeightMatrix, _ rows: (RowGroup) -> Range<Int>, panels: (LayerSelection) -> IndexList?) -> [ProductPart] {
        let parts = byRole(rows) { ProductPart(rows: $1, panels: panels($0.selection)) }
        return parts.chunk + parts.single.mergedByPanels(Int(weight.matrix.panels))
    }

    /// Parts of a product that differ in the blocks of inputs they read. Activations must be zero in blocks that a row's selection leaves out.
    func parts(_ rows: (RowGroup) -> Range<Int>, blocks: (LayerSelection) -> IndexList?) -> [ProductPart] {
        let parts = byRole(rows) { ProductPart(rows: $1, blocks: blocks($0.selection)) }
        return parts.chunk + parts.single.mergedByBlocks()
    }

    private func byRole(_ rows: (RowGroup) -> Range<Int>, _ part: (RowGroup, Range<Int>) -> ProductPart) -> (chunk: [ProductPart], single: [ProductPart]) {
        func parts(_ role: RowRole) -> [ProductPart] {
            filter { $0.role == role && !rows($0).isEmpty }.map { part($0, rows($0)) }
        }
        return (parts(.chunk), parts(.single))
    }
}

/// Products of the same rows, or of a norm of them, by the types of activations that they take: nearly always one run.
final class ProductRuns {
    private let first: (run: ProductRun, conversion: RowConversion)?
    private let others: [(run: ProductRun, conversion: RowConversion)]

    /// - Parameters:
    ///   - x: input, `[rows of the batch, inputs]`; it must outlive these runs, and so must `norm`.
    ///   - products: those without parts are left out.
    init(
        _ x: Tensor, norm: Norm?, _ rows: RowsByRole, _ products: [Product], combining combination: ProductRun.Combination = .none,
        _ workspace: Workspace
    ) {
        var left = products.filter { !$0.parts.isEmpty }, runs: [(run: ProductRun, conversion: RowConversion)] = []
        while let weight = left.first?.linear.weight {
            let same = left.filter { workspace.haveOneType(weight, $0.linear.weight) }
            runs.append((ProductRun(same, combining: combination, workspace), RowConversion(x, norm: norm, for: weight, rows, workspace.kernels)))
            left.removeAll { workspace.haveOneType(weight, $0.linear.weight) }
        }
        first = runs.first
        others = Array(runs.dropFirst())
    }

    func callAsFunction(_ buffers: ActivationBuffers, _ workspace: Workspace) {
        guard let first else { return }
        first.run(first.conversion(buffers, workspace))
        if others.isEmpty { return }
        for other in others { other.run(other.conversion(buffers, workspace)) }
    }

    func add(to lines: inout CacheLines) {
        lines.add(self)
        first?.run.add(to: &lines)
    }
}
