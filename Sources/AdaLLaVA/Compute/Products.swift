import AdaKernels

/// A list of panels or blocks at a fixed address, so that kernels on any thread can read it.
final class IndexList: @unchecked Sendable {
    let count: Int
    let address: UnsafePointer<Int32>
    /// The indices at the list's beginning that follow one another.
    let firstRun: Range<Int>
    private let memory: AlignedMemory

    init(_ indices: [Int32]) {
        count = indices.count
        let first = Int(indices.first ?? 0)
        firstRun = first ..< first + (indices.enumerated().first { Int($1) != first + $0 }?.offset ?? indices.count)
        memory = AlignedMemory(byteCount: indices.count * MemoryLayout<Int32>.stride)
        let values = memory.address.bindMemory(to: Int32.self, capacity: max(indices.count, 1))
        for (position, index) in indices.enumerated() { values[position] = index }
        address = UnsafePointer(values)
    }

    var indices: [Int32] { Array(UnsafeBufferPointer(start: address, count: count)) }
}

/// One matrix product of a run: `output (+)= x · weightᵀ + bias`, over some panels of outputs and some blocks of inputs.
struct Product {
    let linear: Linear
    let output: Tensor
    /// Panels of 16 outputs to compute; `nil` computes all.
    var panels: IndexList?
    /// Blocks of 32 inputs to read; `nil` reads all.
    var blocks: IndexList?
    var accumulate = false
    /// Clamp the result to 0 … 6.
    var relu6 = false

    var flags: Int32 { (accumulate ? Int32(AK_ACCUMULATE) : 0) | (relu6 ? Int32(AK_RELU6) : 0) }
}

/// A product as plain numbers and addresses: what workers read while they share it out, without counting references to the objects that
/// own the memory. Valid as long as the product it was made of.
struct KernelProduct {
    let output: UnsafeMutablePointer<Float>
    let stride: Int
    let matrix: ak_matrix
    let bias: UnsafePointer<Float>?
    let panels: UnsafePointer<Int32>
    let panelCount: Int
    let blocks: UnsafePointer<Int32>?
    let blockCount: Int
    let flags: Int32
    /// Where the pieces of work begin in the list of panels.
    var pieces = Pieces.none
    var items: Int { pieces.count }

    init(_ product: Product, identity: UnsafePointer<Int32>) {
        (output, stride, matrix) = (product.output.data, product.output.stride, product.linear.weight.matrix)
        bias = product.linear.bias.map { UnsafePointer($0.data) }
        panels = product.panels?.address ?? identity
        panelCount = product.panels?.count ?? Int(matrix.panels)
        blocks = product.blocks?.address
        blockCount = product.blocks?.count ?? Int(matrix.blocks)
        flags = product.flags
    }

    /// The columns from the first of some listed panels to the last.
    func columns(_ range: Range<Int>) -> Range<Int> {
        range.isEmpty ? 0 ..< 0 : Int(panels[range.lowerBound] * AK_PANEL) ..< Int((panels[range.upperBound - 1] + 1) * AK_PANEL)
    }

    /// Calls `body` with the columns of some listed panels, those that lie side by side together.
    @inline(__always)
    func forRuns(_ range: Range<Int>, _ body: (Range<Int>) -> Void) {
        var start = range.lowerBound
        while start < range.upperBound {
            var end = start + 1
            while end < range.upperBound, panels[end] == panels[end - 1] + 1 { end += 1 }
            body(columns(start ..< end))
            start = end
        }
    }

    /// Computes the panels of one piece.
    /// - Parameters:
    ///   - next: the product that the same worker will probably compute after, and which piece of it.
    ///   - output: where to instead of the product's own output, with as many columns as `stride`.
    func run(
        _ kernels: ak_kernels, _ activations: UnsafePointer<ak_activations>, piece: Int, next: KernelProduct, nextPiece: Int,
        scratch: UnsafeMutableRawPointer, into output: (data: UnsafeMutablePointer<Float>, stride: Int)? = nil
    ) {
        let range = pieces.panels(piece)
        let (output, stride) = output ?? (self.output, stride)
        withUnsafePointer(to: matrix) { matrix in
            withUnsafePointer(to: next.matrix) { nextMatrix in
                var upcoming = ak_upcoming(weight: nextMatrix, panels: next.panels, panel_count: 0)
                if nextPiece < next.items {
                    let nextRange = next.pieces.panels(nextPiece)
                    (upcoming.panels, upcoming.panel_count) = (next.panels + nextRange.lowerBound, Int32(nextRange.count))
                }
                kernels.matmul(
                    output, stride, activations, matrix, bias, panels + range.lowerBound, Int32(range.count), blocks, Int32(blockCount),
                    flags, &upcoming, scratch)
            }
        }
    }
}

extension Backend {
    /// Runs products that read the same rows, or a norm of them, shared out panel by panel.
    func multiply(_ x: Tensor, norm: Norm? = nil, _ products: [Product], _ buffer: ActivationBuffer) {
        guard let first = products.first else { return }
        // Nearly always all weights of a layer have one type.
        let type = first.linear.weight.activationType(self, rows: x.rows)
        if products.allSatisfy({ $0.linear.weight.activationType(self, rows: x.rows) == type }) {
            return multiply(buffer.convert(x, norm, to: type, self), products)
        }
        multiply(buffer.convert(x, norm, to: type, self), products.filter { $0.linear.weight.activationType(self, rows: x.rows) == type })
        multiply(x, norm: norm, products.filter { $0.linear.weight.activationType(self, rows: x.rows) != type }, buffer)
    }

    /// Runs products that read the same activations, of the type that each asks for.
    func multiply(_ activations: ak_activations, _ products: [Product]) {
        ProductRun(products, tokens: Int(activations.tokens), self)(activations)
    }

    func reserveScratch(for product: Product) {
        withUnsafePointer(to: product.linear.weight.matrix) { reserveScratch(ak_matmul_scratch($0)) }
    }

    /// `gate = silu(x · gateᵀ) * (x · upᵀ)`, over some panels, of the rows of `x` or a norm of them: both products of a panel are made by the same
    /// worker, then combined while they are in its cache.
    func multiplyGated(_ x: Tensor, norm: Norm? = nil, gate: Product, up: Product, _ buffer: ActivationBuffer) {
        let gateType = gate.linear.weight.activationType(self, rows: x.rows)
        guard gateType == up.linear.weight.activationType(self, rows: x.rows) else {
            // Two types of weights: one after the other.
            multiply(x, norm: norm, [gate, up], buffer)
            let all = identity(Int(gate.linear.weight.matrix.panels)), kernels = kernels
            let (gateCall, upCall) = (KernelProduct(gate, identity: all.address), KernelProduct(up, identity: all.address))
            forRows(x.rows) { rows, _ in gateCall.combine(upCall, kernels, panels: 0 ..< gateCall.panelCount, rows: rows) }
            return withExtendedLifetime((gate, up, all)) {}
        }
        ProductRun(gate: gate, up: up, tokens: x.rows, self)(buffer.convert(x, norm, to: gateType, self))
    }
}

extension KernelProduct {
    /// `output = silu(output) * up.output` in some panels of the list.
    func combine(_ up: KernelProduct, _ kernels: ak_kernels, panels: Range<Int>, rows: Range<Int>) {
        // Panels usually lie side by side, so each run of them is one call a token.
        forRuns(panels) { columns in
            for token in rows {
                kernels.silu_mul(output + token * stride + columns.lowerBound, up.output + token * up.stride + columns.lowerBound, columns.count)
            }
        }
    }
}
