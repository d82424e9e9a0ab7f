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

    private func grow(_ memory: inout AlignedMemory, _ bytes: Int) {
        if memory.byteCount < bytes { memory = AlignedMemory(byteCount: bytes) }
    }
}

/// One matrix product of a run: `output (+)= x · weightᵀ + bias`, over some panels of outputs and some blocks of inputs.
struct Product {
    let linear: Linear
    let output: Tensor
    /// Panels of 16 outputs to compute; `nil` computes all.
    var panels: [Int32]?
    /// Blocks of 32 inputs to read; `nil` reads all.
    var blocks: [Int32]?
    var accumulate = false
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
        let type = first.linear.weight.activationType(precision)
        let (same, others) = (products.filter { $0.linear.weight.activationType(precision) == type }, products.count)
        run(buffer.convert(x, to: type, self), same)
        if same.count < others { multiply(x, products.filter { $0.linear.weight.activationType(precision) != type }, buffer) }
    }

    private func run(_ activations: ak_activations, _ products: [Product]) {
        var starts: [Int] = [0]
        var steps: [Int] = []
        var largest = 0
        for product in products {
            let matrix = product.linear.weight.matrix
            let count = product.panels?.count ?? Int(matrix.panels)
            let step = panelsPerItem(matrix, count: count, tokens: Int(activations.tokens))
            steps.append(step)
            starts.append(starts[starts.count - 1] + (count + step - 1) / step)
            largest = max(largest, Int(matrix.panels))
            withUnsafePointer(to: matrix) { reserveScratch(ak_matmul_scratch($0)) }
        }
        withIdentity(largest) { identity in
            pool.run(starts[products.count]) { item, worker in
                var index = 0
                while item >= starts[index + 1] { index += 1 }
                let step = steps[index]
                self.multiply(activations, products[index], first: (item - starts[index]) * step, step: step, identity, worker)
            }
        }
    }

    /// Panels that one piece of work takes: enough bytes to be worth handing out, few enough to share evenly.
    func panelsPerItem(_ matrix: ak_matrix, count: Int, tokens: Int) -> Int {
        let panelBytes = max(matrix.layout == AK_PANELS ? matrix.stride : matrix.stride * Int(AK_PANEL), 1)
        let worth = max(1, (tokens > 4 ? 1 << 16 : 1 << 17) / panelBytes)
        let even = max(1, count / (pool.threads * 4))
        let step = max(min(worth, even), 1)
        // Kernels take up to four panels at a time.
        return step >= 4 ? step / 4 * 4 : min(4, max(step, count <= 4 ? 1 : 2))
    }

    /// Computes panels `first ..< first + step` of the product's list on this worker.
    func multiply(
        _ activations: ak_activations, _ product: Product, first: Int, step: Int, _ identity: UnsafePointer<Int32>, _ worker: Int
    ) {
        let kernels = kernels
        let bias = product.linear.bias.map { UnsafePointer($0.data) }
        let flags = product.accumulate ? Int32(AK_ACCUMULATE) : 0
        withUnsafePointer(to: product.linear.weight.matrix) { matrix in
            withUnsafePointer(to: activations) { activations in
                func call(_ panels: UnsafePointer<Int32>, _ count: Int, _ blocks: UnsafePointer<Int32>?, _ blockCount: Int) {
                    kernels.matmul(
                        product.output.data, product.output.stride, activations, matrix, bias, panels + first, Int32(min(step, count - first)),
                        blocks, Int32(blockCount), flags, scratch(worker))
                }
                func withBlocks(_ panels: UnsafePointer<Int32>, _ count: Int) {
                    if let blocks = product.blocks {
                        blocks.withUnsafeBufferPointer { call(panels, count, $0.baseAddress, $0.count) }
                    } else {
                        call(panels, count, nil, Int(matrix.pointee.blocks))
                    }
                }
                if let list = product.panels {
                    list.withUnsafeBufferPointer { if let base = $0.baseAddress { withBlocks(base, $0.count) } }
                } else {
                    withBlocks(identity, Int(matrix.pointee.panels))
                }
            }
        }
    }

    /// `gate = silu(x · gateᵀ) * (x · upᵀ)`, over some panels: both products of a panel are made by the same worker, then combined while
    /// they are in its cache.
    func multiplyGated(_ x: Tensor, gate: Product, up: Product, _ buffer: ActivationBuffer) {
        let (gateMatrix, upMatrix) = (gate.linear.weight.matrix, up.linear.weight.matrix)
        let gateType = gate.linear.weight.activationType(precision)
        guard gateType == up.linear.weight.activationType(precision) else {
            // Two types of weights: one after the other.
            multiply(x, [gate, up], buffer)
            return combine(gate, up, panels: gate.panels ?? (0 ..< gateMatrix.panels).map { $0 })
        }
        let activations = buffer.convert(x, to: gateType, self)
        let count = gate.panels?.count ?? Int(gateMatrix.panels)
        let step = panelsPerItem(gateMatrix, count: count, tokens: x.rows)
        withUnsafePointer(to: gateMatrix) { reserveScratch(ak_matmul_scratch($0)) }
        withUnsafePointer(to: upMatrix) { reserveScratch(ak_matmul_scratch($0)) }
        let kernels = kernels
        withIdentity(Int(gateMatrix.panels)) { identity in
            pool.run((count + step - 1) / step) { item, worker in
                let first = item * step
                self.multiply(activations, gate, first: first, step: step, identity, worker)
                self.multiply(activations, up, first: first, step: step, identity, worker)
                // Panels of an item usually lie side by side, so each run of them is one call a token.
                var start = first
                let end = min(first + step, count)
                while start < end {
                    let panel = gate.panels?[start] ?? Int32(start)
                    var length = 1
                    while start + length < end, (gate.panels?[start + length] ?? Int32(start + length)) == panel + Int32(length) { length += 1 }
                    let column = Int(panel) * Int(AK_PANEL)
                    for token in 0 ..< x.rows {
                        kernels.silu_mul(
                            gate.output.data + token * gate.output.stride + column, up.output.data + token * up.output.stride + column,
                            length * Int(AK_PANEL))
                    }
                    start += length
                }
            }
        }
    }

    private func combine(_ gate: Product, _ up: Product, panels: [Int32]) {
        forRows(gate.output.rows) { rows in
            for token in rows {
                for panel in panels {
                    let column = Int(panel) * Int(AK_PANEL)
                    kernels.silu_mul(
                        gate.output.data + token * gate.output.stride + column, up.output.data + token * up.output.stride + column, Int(AK_PANEL))
                }
            }
        }
    }
}
