import AdaKernels

/// Activations in the types that weights ask for. Buffers grow to the largest use and are kept.
final class ActivationBuffer {
    private var values = AlignedMemory(byteCount: 0)
    private var scales = AlignedMemory(byteCount: 0)
    private var sums = AlignedMemory(byteCount: 0)

    /// The rows of `x` as `type`; valid until the next call.
    func convert(_ x: Tensor, to type: ak_type, _ backend: Backend) -> ak_activations {
        let blocks = x.stride / Int(AK_BLOCK)
        var result = ak_activations(
            type: type, tokens: Int32(x.rows), blocks: Int32(blocks), stride: x.stride, data: UnsafeRawPointer(x.data), scales: nil, sums: nil)
        let kernels = backend.kernels
        switch type {
        case AK_Q8_0:
            grow(&values, x.rows * x.stride)
            grow(&scales, x.rows * blocks * 4)
            grow(&sums, x.rows * blocks * 4)
            let out = values.address.assumingMemoryBound(to: Int8.self)
            let outScales = scales.address.assumingMemoryBound(to: Float.self)
            let outSums = sums.address.assumingMemoryBound(to: Int32.self)
            backend.forRows(x.rows) { rows in
                kernels.quantize_q8(
                    out + rows.lowerBound * x.stride, outScales + rows.lowerBound * blocks, outSums + rows.lowerBound * blocks,
                    x.data + rows.lowerBound * x.stride, x.stride, Int32(rows.count), Int32(blocks))
            }
            result.data = UnsafeRawPointer(out)
            result.scales = UnsafePointer(outScales)
            result.sums = UnsafePointer(outSums)
        case AK_I16:
            grow(&values, x.rows * x.stride * 2)
            grow(&scales, x.rows * blocks * 4)
            let out = values.address.assumingMemoryBound(to: Int16.self)
            let outScales = scales.address.assumingMemoryBound(to: Float.self)
            backend.forRows(x.rows) { rows in
                kernels.quantize_i16(
                    out + rows.lowerBound * x.stride, outScales + rows.lowerBound * blocks, x.data + rows.lowerBound * x.stride, x.stride,
                    Int32(rows.count), Int32(blocks))
            }
            result.data = UnsafeRawPointer(out)
            result.scales = UnsafePointer(outScales)
        case AK_BF16:
            grow(&values, x.rows * x.stride * 2)
            let out = values.address.assumingMemoryBound(to: UInt16.self)
            backend.forRows(x.rows) { rows in
                kernels.to_bf16(
                    out + rows.lowerBound * x.stride, x.stride, x.data + rows.lowerBound * x.stride, x.stride, Int32(rows.count),
                    Int32(x.stride))
            }
            result.data = UnsafeRawPointer(out)
        default: break
        }
        return result
    }

    /// Room for BF16 activations, `count` values; valid until the next call of this or ``convert(_:to:_:)``.
    func reserve(_ count: Int) -> UnsafeMutablePointer<UInt16> {
        grow(&values, count * MemoryLayout<UInt16>.stride)
        return values.address.assumingMemoryBound(to: UInt16.self)
    }

    private func grow(_ memory: inout AlignedMemory, _ bytes: Int) {
        if memory.byteCount < bytes { memory = AlignedMemory(byteCount: bytes) }
    }
}

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
private struct KernelProduct {
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
    /// Calls `body` with ranges that cover `0 ..< rows`; shared out when there are enough rows to be worth it.
    func forRows(_ rows: Int, _ body: (Range<Int>) -> Void) {
        let step = 16
        if rows <= step { return body(0 ..< rows) }
        pool.run((rows + step - 1) / step) { item, _ in body(item * step ..< min(rows, (item + 1) * step)) }
    }

    /// Runs products that read the same activations, shared out panel by panel.
    func multiply(_ x: Tensor, _ products: [Product], _ buffer: ActivationBuffer) {
        guard let first = products.first else { return }
        // Nearly always all weights of a layer have one type.
        let type = first.linear.weight.activationType(self, rows: x.rows)
        if products.allSatisfy({ $0.linear.weight.activationType(self, rows: x.rows) == type }) {
            return run(buffer.convert(x, to: type, self), products)
        }
        run(buffer.convert(x, to: type, self), products.filter { $0.linear.weight.activationType(self, rows: x.rows) == type })
        multiply(x, products.filter { $0.linear.weight.activationType(self, rows: x.rows) != type }, buffer)
    }

    private func run(_ activations: ak_activations, _ products: [Product]) {
        let largest = products.reduce(0) { max($0, Int($1.linear.weight.matrix.panels)) }
        for product in products { reserveScratch(for: product) }
        let (kernels, scratch) = (kernels, scratchAddresses)
        withIdentity(largest) { identity in
            let tokens = Int(activations.tokens)
            withUnsafeTemporaryAllocation(of: KernelProduct.self, capacity: products.count) { calls in
                for (index, product) in products.enumerated() { calls.initializeElement(at: index, to: KernelProduct(product, identity: identity)) }
                let shared = pieces(products.count, tokens: tokens) { (calls[$0].matrix, calls[$0].panelCount) }
                for index in calls.indices { calls[index].pieces = shared.products[index] }
                withUnsafePointer(to: activations) { activations in
                    pool.run(calls.reduce(0) { $0 + $1.items }, ends: shared.ends) { item, worker in
                        var (index, piece) = (0, item)
                        while piece >= calls[index].items {
                            piece -= calls[index].items
                            index += 1
                        }
                        // A worker usually takes one piece after the other.
                        let isLast = piece + 1 == calls[index].items && index + 1 < calls.count
                        calls[index].run(
                            kernels, activations, piece: piece, next: isLast ? calls[index + 1] : calls[index], nextPiece: isLast ? 0 : piece + 1,
                            scratch: scratch[worker])
                    }
                }
            }
        }
        // The calls hold addresses only.
        withExtendedLifetime(products) {}
    }

    private func reserveScratch(for product: Product) {
        withUnsafePointer(to: product.linear.weight.matrix) { reserveScratch(ak_matmul_scratch($0)) }
    }

    /// `gate = silu(x · gateᵀ) * (x · upᵀ)`, over some panels: both products of a panel are made by the same worker, then combined while
    /// they are in its cache.
    func multiplyGated(_ x: Tensor, gate: Product, up: Product, _ buffer: ActivationBuffer) {
        let gateType = gate.linear.weight.activationType(self, rows: x.rows)
        guard gateType == up.linear.weight.activationType(self, rows: x.rows) else {
            // Two types of weights: one after the other.
            multiply(x, [gate, up], buffer)
            return withIdentity(Int(gate.linear.weight.matrix.panels)) { identity in
                let (gateCall, upCall) = (KernelProduct(gate, identity: identity), KernelProduct(up, identity: identity))
                forRows(x.rows) { combine(gateCall, upCall, panels: 0 ..< gateCall.panelCount, rows: $0) }
            }
        }
        let activations = buffer.convert(x, to: gateType, self)
        reserveScratch(for: gate)
        reserveScratch(for: up)
        let (kernels, scratch) = (kernels, scratchAddresses)
        withIdentity(Int(gate.linear.weight.matrix.panels)) { identity in
            var (gateCall, upCall) = (KernelProduct(gate, identity: identity), KernelProduct(up, identity: identity))
            let shared = pieces(1, tokens: x.rows) { _ in (gateCall.matrix, gateCall.panelCount) }
            let pieces = shared.products[0]
            (gateCall.pieces, upCall.pieces) = (pieces, pieces)
            let (gate, up, tokens) = (gateCall, upCall, x.rows)
            withUnsafePointer(to: activations) { activations in
                pool.run(pieces.count, ends: shared.ends) { item, worker in
                    gate.run(kernels, activations, piece: item, next: up, nextPiece: item, scratch: scratch[worker])
                    up.run(kernels, activations, piece: item, next: gate, nextPiece: item + 1, scratch: scratch[worker])
                    combine(gate, up, panels: pieces.panels(item), rows: 0 ..< tokens)
                }
            }
        }
        withExtendedLifetime((gate, up)) {}
    }

    /// `gate = silu(gate) * up` in some panels of a list.
    private func combine(_ gate: KernelProduct, _ up: KernelProduct, panels: Range<Int>, rows: Range<Int>) {
        let silu = kernels.silu_mul
        // Panels usually lie side by side, so each run of them is one call a token.
        gate.forRuns(panels) { columns in
            for token in rows { silu?(gate.output + token * gate.stride + columns.lowerBound, up.output + token * up.stride + columns.lowerBound, columns.count) }
        }
    }

    // MARK: - Feed-forward networks

    /// `down.output (+)= middle · downᵀ`, where the middle is `silu(gate) * up` of two products of `x`, or `activation` of one; the products' own
    /// outputs are not written. Each piece of the middle is made, combined and rounded to BF16 while it is in its worker's cache, so that the middle,
    /// the largest of a layer's tensors, never goes to memory in float32.
    /// - Parameters:
    ///   - first: gate and up, or one product.
    ///   - dropped: columns of the middle that are zero.
    ///   - middle: where the middle goes.
    /// - Returns: whether it was done: for few tokens, and where `down` takes other activations than BF16, it is not.
    func multiplyFeedForward(
        _ x: Tensor, _ first: [Product], activation: ((UnsafeMutablePointer<Float>, Int) -> Void)? = nil, down: Product, dropped: [Range<Int>] = [],
        _ buffer: ActivationBuffer, middle: ActivationBuffer
    ) -> Bool {
        guard let gate = first.first, let up = first.last, x.rows > 4, down.linear.weight.activationType(self, rows: x.rows) == AK_BF16 else { return false }
        let type = gate.linear.weight.activationType(self, rows: x.rows)
        guard up.linear.weight.activationType(self, rows: x.rows) == type else { return false }
        let activations = buffer.convert(x, to: type, self)
        for product in first { reserveScratch(for: product) }
        let (rows, stride, isGated) = (x.rows, gate.output.stride, first.count > 1)
        let rounded = middle.reserve(rows * stride)
        withIdentity(Int(gate.linear.weight.matrix.panels)) { identity in
            var (gateCall, upCall) = (KernelProduct(gate, identity: identity), KernelProduct(up, identity: identity))
            let shared = pieces(1, tokens: rows) { _ in (gateCall.matrix, gateCall.panelCount) }
            let pieces = shared.products[0]
            (gateCall.pieces, upCall.pieces) = (pieces, pieces)
            let (gate, up) = (gateCall, upCall)
            let widest = (0 ..< pieces.count).reduce(0) { max($0, gate.columns(pieces.panels($1)).count) }
            let (kernels, scratch, parts) = (kernels, scratchAddresses, pieceMemory(rows * widest * first.count))
            withUnsafePointer(to: activations) { activations in
                pool.run(pieces.count, ends: shared.ends) { item, worker in
                    let panels = pieces.panels(item), columns = gate.columns(panels), width = columns.count
                    let values = parts.address + worker * parts.count, others = values + rows * width
                    gate.run(
                        kernels, activations, piece: item, next: isGated ? up : gate, nextPiece: isGated ? item : item + 1, scratch: scratch[worker],
                        into: (values - columns.lowerBound, width))
                    if isGated {
                        up.run(
                            kernels, activations, piece: item, next: gate, nextPiece: item + 1, scratch: scratch[worker],
                            into: (others - columns.lowerBound, width))
                    }
                    gate.forRuns(panels) { run in
                        // A piece is nearly always one run, whose rows lie one behind the other.
                        let (part, length, calls) = run.count == width ? (0, rows * width, 1) : (run.lowerBound - columns.lowerBound, run.count, rows)
                        for call in 0 ..< calls {
                            let at = call * width + part
                            if isGated { kernels.silu_mul(values + at, others + at, length) } else { activation?(values + at, length) }
                        }
                        kernels.to_bf16(rounded + run.lowerBound, stride, values + run.lowerBound - columns.lowerBound, width, Int32(rows), Int32(run.count))
                    }
                }
            }
        }
        let computed = Int(gate.linear.weight.matrix.panels * AK_PANEL)
        let zero = computed < stride ? dropped + [computed ..< stride] : dropped
        if !zero.isEmpty {
            forRows(rows) { range in
                for row in range { for columns in zero { (rounded + row * stride + columns.lowerBound).update(repeating: 0, count: columns.count) } }
            }
        }
        let result = ak_activations(
            type: AK_BF16, tokens: Int32(rows), blocks: Int32(stride / Int(AK_BLOCK)), stride: stride, data: UnsafeRawPointer(rounded), scales: nil,
            sums: nil)
        run(result, [down])
        withExtendedLifetime(first) {}
        return true
    }
}
