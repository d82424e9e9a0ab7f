import AdaKernels

extension Workspace {
    /// Of a chunk's rows, `down.output (+)= middle · downᵀ`, where the middle is `gate(first) * second` of two products of the rows of `x` or a norm of them, or `activation` of
    /// one product; the products' own outputs are not written. A work item computes, combines and converts its columns of the middle while they are in its
    /// worker's cache, so that the middle, the largest of a layer's tensors, is never written to memory in float32.
    /// - Parameters:
    ///   - first: gate and up, or one product.
    ///   - function: the gate's activation function.
    ///   - down: reads only blocks that panels of `first` cover.
    ///   - dropped: columns of the middle that are zero.
    /// - Precondition: ``makesFeedForwardInPieces(_:down:picksPanels:)``
    func multiplyFeedForward(
        _ x: Tensor, norm: Norm? = nil, _ first: [Product], gate function: Gate = .silu, activation: ActivationFunction? = nil, down: Product,
        dropped: [Range<Int>] = []
    ) {
        guard let weight = first.first?.linear.weight else { return }
        let (rows, middleType) = (x.rows, kernels.activationType(down.linear.weight, .chunk))
        let type = kernels.activationType(weight, .chunk)
        let activations = convert(x, norm: norm, 0 ..< rows, to: type, inputs.chunk)
        let (width, isGated) = (Int(down.linear.weight.matrix.blocks * AK_BLOCK), first.count > 1)
        let made = middle.chunk.reserve(middleType, rows: rows, stride: width)
        let computed = Int(weight.matrix.panels * AK_PANEL)
        let zero = computed < width ? dropped + [computed ..< width] : dropped
        let kernel = KernelProducts(first, self)
        let shared = middleItems(kernel.products[0], tokens: rows, columnsTogether: middleType.columnsTogether, products: first.count)
        kernel.set(shared, isShared: true)
        let items = shared.products[0], gate = UnsafePointer(kernel.products), up = gate + (isGated ? 1 : 0)
        let combines = middleType == AK_BF16 && type == AK_BF16 && gate.pointee.matrix.pointee.blocks <= AK_MIDDLE_BLOCKS
            && (isGated ? function == .silu && gate.pointee.bias == nil && up.pointee.bias == nil : activation != nil)
        withUnsafePointer(to: activations) { activations in
            zero.withUnsafeBufferPointer { zero in
                if combines, let middle = kernels.table.middle {
                    return makeMiddle(middle, gate.pointee, isGated ? up.pointee : nil, activation, activations, made, zero: zero)
                }
                // Scale groups leave few work items, so with many threads the rows are divided as well.
                let most = middleType == AK_I8 ? (rows + 2 * Workspace.rowsAtOnce - 1) / (2 * Workspace.rowsAtOnce) : 1
                let rowParts = max(1, min((2 * pool.threads + items.count - 1) / max(items.count, 1), most))
                let partRows = (0 ..< rowParts).reduce(0) { max($0, activations.pointee.part($1, of: rowParts).count) }
                let widest = (0 ..< items.count).reduce(0) { max($0, gate.pointee.middleColumns(items.range($1), of: width).count) }
                let (functions, scratch, parts) = (kernels.functions, scratchAddresses, pieceMemory(partRows * widest * first.count))
                pool.run(items.count * rowParts) { index, worker in
                    let item = index % items.count, range = activations.pointee.part(index / items.count, of: rowParts)
                    var activations = activations.pointee.rows(from: range.lowerBound, count: range.count)
                    let rows = range.count
                    let columns = gate.pointee.middleColumns(items.range(item), of: width), count = columns.count
                    let values = parts.address + worker * parts.count, others = values + rows * count
                    gate.pointee.run(
                        functions, &activations, item: item, next: up, nextItem: isGated ? item : item + 1,
                        scratch: scratch[worker], into: (values - columns.lowerBound, count))
                    if isGated {
                        up.pointee.run(
                            functions, &activations, item: item, next: gate, nextItem: item + 1, scratch: scratch[worker],
                            into: (others - columns.lowerBound, count))
                        function(functions, values, others, rows * count)
                    } else {
                        activation?(values, rows * count)
                    }
                    for dropped in zero {
                        let part = dropped.clamped(to: columns), start = values + part.lowerBound - columns.lowerBound
                        if part.isEmpty { continue }
                        for row in 0 ..< rows { (start + row * count).update(repeating: 0, count: part.count) }
                    }
                    made.write(functions, rows: range, columns: columns, from: values, stride: count)
                }
            }
        }
        multiply(RowActivations(made.activations, role: .chunk), [down])
        withExtendedLifetime((first, kernel)) {}
    }

    /// Whether work items can compute a chunk's middle: not if `down` takes float32, or 8-bit groups of some panels only, or if gate and up take different
    /// types.
    func makesFeedForwardInPieces(_ first: [WeightMatrix], down: WeightMatrix, picksPanels: Bool) -> Bool {
        guard let gate = first.first, let up = first.last else { return false }
        let type = kernels.activationType(down, .chunk)
        return type != AK_F32 && kernels.activationType(gate, .chunk) == kernels.activationType(up, .chunk) && (type != AK_I8 || !picksPanels)
    }

    /// The middle, by kernels that combine sums before they store any.
    private func makeMiddle(
        _ middle: @escaping MiddleFunction, _ gate: KernelProduct, _ up: KernelProduct?, _ activation: ActivationFunction?,
        _ activations: UnsafePointer<ak_activations>, _ made: ActivationWriter, zero: UnsafeBufferPointer<Range<Int>>
    ) {
        let (scratch, items) = (scratchAddresses, gate.items)
        pool.run(items.count) { item, worker in
            let range = items.range(item), next = items.range(item + 1)
            middle(
                made.bf16, made.stride, activations, gate.matrix, up?.matrix, gate.bias, activation, gate.panels + range.lowerBound,
                Int32(range.count), Int32(next.count), scratch[worker])
            let columns = gate.middleColumns(range, of: made.stride)
            for range in zero { made.clear(columns: range.clamped(to: columns)) }
        }
    }
}

/// Activation function of the gate of a gated feed-forward network (Shazeer, 2020).
package enum Gate: Sendable, BitwiseCopyable {
    /// SwiGLU.
    case silu
    /// GeGLU, GELU's tanh approximation.
    case geluTanh

    /// `gate = function(gate) * up`, `count` values.
    @inline(__always)
    func callAsFunction(_ kernels: UnsafePointer<ak_kernels>, _ gate: UnsafeMutablePointer<Float>, _ up: UnsafePointer<Float>, _ count: Int) {
        switch self {
        case .silu: kernels.pointee.silu_mul(gate, up, count)
        case .geluTanh: kernels.pointee.gelu_tanh_mul(gate, up, count)
        }
    }
}

/// Activation function of the middle, in place: `ak_kernels.gelu_quick` and such.
package typealias ActivationFunction = @convention(c) (UnsafeMutablePointer<Float>?, Int) -> Void

/// `ak_kernels.middle`.
private typealias MiddleFunction = @convention(c) (
    UnsafeMutablePointer<UInt16>?, Int, UnsafePointer<ak_activations>?, UnsafePointer<ak_matrix>?, UnsafePointer<ak_matrix>?, UnsafePointer<Float>?,
    ActivationFunction?, UnsafePointer<Int32>?, Int32, Int32, UnsafeMutableRawPointer?
) -> Void

extension KernelProduct {
    /// Columns of the middle that a work item of listed panels writes, `width` at most: those of its panels, and those of a block that no listed panel
    /// computes, which are zero.
    fileprivate func middleColumns(_ range: Range<Int>, of width: Int) -> Range<Int> {
        let columns = columns(range), block = Int(AK_BLOCK)
        let start = columns.lowerBound / block * block, end = min((columns.upperBound + block - 1) / block * block, width)
        let followsOn = range.lowerBound > 0 && panels[range.lowerBound - 1] + 1 == panels[range.lowerBound]
        let goesOn = range.upperBound < panelCount && panels[range.upperBound - 1] + 1 == panels[range.upperBound]
        return (followsOn ? columns.lowerBound : start) ..< (goesOn ? columns.upperBound : end)
    }
}
